package depmod

import (
	"encoding/binary"
	"fmt"
)

// index is a trie from keys to values, which modprobe and udev search in the
// *.bin files without reading them whole.
//
// On disk, everything big-endian: magic, version, offset of the root node;
// then the nodes, each before its children. A node is, each part only if the
// flags in the upper four bits of the offset that led to it say so:
//
//	prefix     characters that follow at once, ending in a zero byte
//	children   first and last character, then an offset for each between
//	values     their number, then for each its priority and its text
//
// Source: the description at the head of kmod's libkmod/libkmod-index.c.
type index struct {
	prefix      string
	children    map[byte]*index
	first, last byte // character of a child; valid if there are children
	values      []value

	size, total uint32 // of the node, and with all below it
}

// value is what a key leads to. Values of a key are sorted by priority, the
// latest one first among equals.
type value struct {
	priority uint32
	text     string
}

const (
	indexMagic    = 0xB007F457
	indexVersion  = 2<<16 | 1
	indexStart    = 12
	flagPrefix    = 0x80000000
	flagValues    = 0x40000000
	flagChildren  = 0x20000000
	maxIndexSize  = 0x0FFFFFFF
	maxIndexBytes = 128 // of the alphabet: ASCII
)

func (x *index) insert(key, text string, priority uint32) error {
	for _, s := range []string{key, text} {
		for i := range len(s) {
			if s[i] == 0 || s[i] >= maxIndexBytes {
				return fmt.Errorf("cannot index %q: it is not ASCII", s)
			}
		}
	}
	for {
		n := commonPrefix(x.prefix, key)
		if n < len(x.prefix) {
			x.split(n)
		}
		key = key[n:]
		if key == "" {
			x.add(text, priority)
			return nil
		}
		c := key[0]
		key = key[1:]
		child := x.children[c]
		if child == nil {
			x.adopt(c, &index{prefix: key, values: []value{{priority, text}}})
			return nil
		}
		x = child
	}
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// split keeps n characters of the prefix and moves the rest into a child.
func (x *index) split(n int) {
	child := *x
	child.prefix = x.prefix[n+1:]
	c := x.prefix[n]
	*x = index{prefix: x.prefix[:n]}
	x.adopt(c, &child)
}

func (x *index) adopt(c byte, child *index) {
	if len(x.children) == 0 {
		x.children = map[byte]*index{}
		x.first, x.last = c, c
	}
	x.first, x.last = min(x.first, c), max(x.last, c)
	x.children[c] = child
}

func (x *index) add(text string, priority uint32) {
	i := 0
	for i < len(x.values) && x.values[i].priority < priority {
		i++
	}
	x.values = append(x.values, value{})
	copy(x.values[i+1:], x.values[i:])
	x.values[i] = value{priority, text}
}

// measure computes the sizes that the offsets depend on.
func (x *index) measure() uint32 {
	x.size, x.total = 0, 0
	if x.prefix != "" {
		x.size += uint32(len(x.prefix)) + 1
	}
	if len(x.children) > 0 {
		x.size += 2 + 4*(uint32(x.last)-uint32(x.first)+1)
		for _, child := range x.children {
			x.total += child.measure()
		}
	}
	if len(x.values) > 0 {
		x.size += 4
		for _, v := range x.values {
			x.size += 4 + uint32(len(v.text)) + 1
		}
	}
	x.total += x.size
	return x.total
}

func (x *index) flags() (f uint32) {
	if x.prefix != "" {
		f |= flagPrefix
	}
	if len(x.children) > 0 {
		f |= flagChildren
	}
	if len(x.values) > 0 {
		f |= flagValues
	}
	return f
}

func (x *index) marshal() ([]byte, error) {
	if x.measure() > maxIndexSize-indexStart {
		return nil, fmt.Errorf("cannot write an index of %d bytes", x.total)
	}
	b := make([]byte, 0, indexStart+x.total)
	b = binary.BigEndian.AppendUint32(b, indexMagic)
	b = binary.BigEndian.AppendUint32(b, indexVersion)
	b = binary.BigEndian.AppendUint32(b, indexStart|x.flags())
	return x.append(b), nil
}

func (x *index) append(b []byte) []byte {
	if x.prefix != "" {
		b = append(append(b, x.prefix...), 0)
	}
	if len(x.children) > 0 {
		below := uint32(len(b)) + x.size // where the first child will lie
		if x.prefix != "" {
			below -= uint32(len(x.prefix)) + 1
		}
		b = append(b, x.first, x.last)
		for c := int(x.first); c <= int(x.last); c++ {
			child := x.children[byte(c)]
			if child == nil {
				b = append(b, 0, 0, 0, 0)
				continue
			}
			b = binary.BigEndian.AppendUint32(b, below|child.flags())
			below += child.total
		}
	}
	if len(x.values) > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(len(x.values)))
		for _, v := range x.values {
			b = binary.BigEndian.AppendUint32(b, v.priority)
			b = append(append(b, v.text...), 0)
		}
	}
	if len(x.children) > 0 {
		for c := int(x.first); c <= int(x.last); c++ {
			if child := x.children[byte(c)]; child != nil {
				b = child.append(b)
			}
		}
	}
	return b
}
