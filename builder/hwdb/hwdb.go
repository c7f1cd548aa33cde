// Package hwdb compiles udev's hardware database as systemd-hwdb(8) does: the
// text files of hwdb.d (hwdb(7)) become hwdb.bin, a radix tree over the match
// strings.
//
// The output is that of systemd 247 to 257, byte for byte: format version 2,
// with file name, line and priority of each property (systemd's
// src/shared/hwdb-util.c and src/libsystemd/sd-hwdb/hwdb-internal.h).
//
// Not supported: the older format of "udevadm hwdb", and line ends other than
// a line feed.
package hwdb

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/dropin"
	"github.com/picube/picube-build/builder/strbuf"
	"github.com/picube/picube-build/builder/tree"
)

// Update writes hwdb.bin into the folder dir: "/usr/lib/udev" as
// "systemd-hwdb update --usr", which is what Debian's udev calls, or
// "/etc/udev" as "systemd-hwdb update". Without any source file it removes
// hwdb.bin. The file records the version of the tree's systemd.
func Update(t *tree.Tree, dir string) error {
	if err := update(t, dir); err != nil {
		return fmt.Errorf("hardware database %s/hwdb.bin: %w", dir, err)
	}
	return nil
}

func update(t *tree.Tree, dir string) error {
	target := dir + "/hwdb.bin"
	files := dropin.List(t, ".hwdb", "/etc/udev/hwdb.d", "/usr/lib/udev/hwdb.d")
	if len(files) == 0 {
		if err := t.Remove(target); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if len(files) > math.MaxUint16 {
		return fmt.Errorf("cannot compile %d files", len(files))
	}
	version, err := systemdVersion(t)
	if err != nil {
		return err
	}
	sources := make([]source, len(files))
	for i, file := range files {
		data, err := t.ReadFile(file)
		if err != nil {
			continue // systemd-hwdb goes on with the next file
		}
		sources[i] = source{file, data}
	}
	if err := t.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return t.Put(target, &tree.Inode{
		Mode:    tree.TypeRegular | 0o444,
		ModTime: t.Epoch(),
		Content: tree.Bytes(compile(version, sources)),
	})
}

// systemdVersion reads the major version off the name of systemd's own
// library, which is at hand whatever state dpkg's database is in.
func systemdVersion(t *tree.Tree) (int, error) {
	const before, after = "libsystemd-shared-", ".so"
	folders := []string{"/usr/lib/systemd"}
	triplets, _ := t.ReadDir("/usr/lib")
	for _, triplet := range triplets {
		folders = append(folders, "/usr/lib/"+triplet+"/systemd")
	}
	for _, folder := range folders {
		for _, file := range dropin.List(t, after, folder) {
			text, ok := strings.CutPrefix(path.Base(file), before)
			if !ok {
				continue
			}
			text = strings.TrimSuffix(text, after)
			if end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
				text = text[:end]
			}
			if version, err := strconv.Atoi(text); err == nil {
				return version, nil
			}
		}
	}
	return 0, fmt.Errorf("cannot tell systemd's version: no %s*%s below /usr/lib", before, after)
}

// source is a text file; its name goes into the database.
type source struct {
	name string
	data []byte
}

// compile makes the database of files in ascending priority.
func compile(version int, sources []source) []byte {
	b := builder{strings: strbuf.New(), root: &node{}}
	for i, s := range sources {
		b.readFile(s.data, origin{file: s.name, priority: uint16(i + 1)})
	}
	return b.encode(version)
}

// origin is where a property was written.
type origin struct {
	file     string
	line     uint32
	priority uint16
}

// node is a state of the radix tree: prefix must follow before a child's byte
// or the end decides.
type node struct {
	prefix   int // offset of a string
	children []child
	values   []value
}

type child struct {
	c    byte
	node *node
}

type value struct {
	name      string // the key's text, to keep values sorted
	key, text int    // offsets of strings
	file      int    // offset of a string
	line      uint32
	priority  uint16
}

type builder struct {
	strings *strbuf.Buffer
	root    *node
}

// readFile reads records: match lines, then indented properties, then an
// empty line. What is out of place is ignored, as systemd-hwdb does.
func (b *builder) readFile(data []byte, at origin) {
	var matches []string
	properties := false // seen in this record
	for raw := range bytes.Lines(data) {
		at.line++
		if raw[0] == '#' {
			continue
		}
		line, _, _ := strings.Cut(strings.TrimSuffix(string(raw), "\n"), "#")
		line, _, _ = strings.Cut(line, "\x00")
		line = strings.TrimRight(line, " \t\n\v\f\r")
		switch {
		case line == "":
			matches, properties = nil, false
		case line[0] == ' ':
			if matches != nil {
				properties = true
				b.addProperty(matches, line, at)
			}
		case properties: // the record lacks its end
			matches, properties = nil, false
		default:
			matches = append(matches, line)
		}
	}
}

func (b *builder) addProperty(matches []string, line string, at origin) {
	key, text, ok := strings.Cut(line, "=")
	if !ok {
		return
	}
	blank := func(c byte) bool { return c == ' ' || c == '\t' }
	for len(key) > 1 && blank(key[0]) && blank(key[1]) {
		key = key[1:]
	}
	if len(key) <= 1 {
		return
	}
	for _, match := range matches {
		b.insert(match, key, text, at)
	}
}

// textAt returns the string at an offset.
func (b *builder) textAt(offset int) []byte {
	rest := b.strings.Bytes()[offset:]
	return rest[:bytes.IndexByte(rest, 0)]
}

func (b *builder) insert(match, key, text string, at origin) {
	n := b.root
	for {
		prefix := b.textAt(n.prefix)
		common := 0
		for common < len(prefix) && common < len(match) && prefix[common] == match[common] {
			common++
		}
		if common < len(prefix) {
			lower := &node{prefix: n.prefix + common + 1, children: n.children, values: n.values}
			c := prefix[common]
			*n = node{prefix: b.strings.Add(string(prefix[:common])), children: []child{{c, lower}}}
		}
		match = match[common:]
		if match == "" {
			b.addValue(n, key, text, at)
			return
		}
		i, found := slices.BinarySearchFunc(n.children, match[0], func(e child, c byte) int { return cmp.Compare(e.c, c) })
		if !found {
			lower := &node{prefix: b.strings.Add(match[1:])}
			n.children = slices.Insert(n.children, i, child{match[0], lower})
			b.addValue(lower, key, text, at)
			return
		}
		n, match = n.children[i].node, match[1:]
	}
}

// addValue sets a property; of two files the later one wins.
func (b *builder) addValue(n *node, key, text string, at origin) {
	v := value{name: key, line: at.line, priority: at.priority}
	v.key = b.strings.Add(key)
	v.text = b.strings.Add(text)
	v.file = b.strings.Add(at.file)
	i, found := slices.BinarySearchFunc(n.values, key, func(e value, key string) int { return cmp.Compare(e.name, key) })
	if found {
		v.key = n.values[i].key
		n.values[i] = v
		return
	}
	n.values = slices.Insert(n.values, i, v)
}

// Sizes of hwdb-internal.h.
const (
	headerSize = 80
	nodeSize   = 24
	childSize  = 16
	valueSize  = 32
)

func size(n *node) int {
	total := nodeSize + len(n.children)*childSize + len(n.values)*valueSize
	for _, c := range n.children {
		total += size(c.node)
	}
	return total
}

func (b *builder) encode(version int) []byte {
	strings := b.strings.Bytes()
	nodes := size(b.root)
	total := headerSize + nodes + len(strings)
	e := encoder{out: make([]byte, headerSize, total), strings: uint64(headerSize + nodes)}
	root := e.node(b.root)
	e.out = append(e.out, strings...)

	h := append(e.out[:0], "KSLPHHRH"...)
	for _, v := range []int{version, total, headerSize, nodeSize, childSize, valueSize} {
		h = binary.LittleEndian.AppendUint64(h, uint64(v))
	}
	h = binary.LittleEndian.AppendUint64(h, root)
	h = binary.LittleEndian.AppendUint64(h, uint64(nodes))
	binary.LittleEndian.AppendUint64(h, uint64(len(strings)))
	return e.out
}

type encoder struct {
	out     []byte
	strings uint64 // where the strings begin
}

// node appends what is below n, then n, and returns n's place.
func (e *encoder) node(n *node) uint64 {
	places := make([]uint64, len(n.children))
	for i, c := range n.children {
		places[i] = e.node(c.node)
	}
	le := binary.LittleEndian
	place := uint64(len(e.out))
	out := e.out
	out = le.AppendUint64(out, e.strings+uint64(n.prefix))
	out = le.AppendUint64(out, uint64(uint8(len(n.children))))
	out = le.AppendUint64(out, uint64(len(n.values)))
	for i, c := range n.children {
		out = le.AppendUint64(out, uint64(c.c))
		out = le.AppendUint64(out, places[i])
	}
	for _, v := range n.values {
		out = le.AppendUint64(out, e.strings+uint64(v.key))
		out = le.AppendUint64(out, e.strings+uint64(v.text))
		out = le.AppendUint64(out, e.strings+uint64(v.file))
		out = le.AppendUint32(out, v.line)
		out = le.AppendUint16(out, v.priority)
		out = le.AppendUint16(out, 0)
	}
	e.out = out
	return place
}
