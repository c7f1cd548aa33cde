package depmod

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// facts are what depmod wants to know of a module. Each is a list of strings
// that end in a zero byte, in the order in which they stand in the module.
type facts struct {
	exports string // symbols it offers
	needs   string // symbols it lacks
	alias   string // of .modinfo
	softdep string
	weakdep string
}

// object is an ELF file in little-endian order, of 32 or 64 bits. Offsets and
// lengths in it are untrusted. Format: elf(5).
type object struct {
	data  []byte
	wide  bool
	shoff uint64
	shnum int
	names []byte // of the sections
}

// maxName bounds a symbol's name; the kernel's limit is 512.
const maxName = 4096

var (
	le       = binary.LittleEndian
	errNoELF = errors.New("it is not a little-endian ELF object")
	errBadly = errors.New("its ELF structure is damaged")
)

// sectionHeader is as much of a section header as matters here.
type sectionHeader struct {
	name      uint32
	kind      uint32
	off, size uint64
}

func parseObject(data []byte) (*object, error) {
	if len(data) < 0x40 || !bytes.HasPrefix(data, []byte("\x7fELF")) || data[5] != 1 {
		return nil, errNoELF
	}
	o := &object{data: data, wide: data[4] == 2}
	var strings int
	if o.wide {
		o.shoff = le.Uint64(data[0x28:])
		o.shnum, strings = int(le.Uint16(data[0x3C:])), int(le.Uint16(data[0x3E:]))
	} else {
		o.shoff = uint64(le.Uint32(data[0x20:]))
		o.shnum, strings = int(le.Uint16(data[0x30:])), int(le.Uint16(data[0x32:]))
	}
	h, ok := o.header(strings)
	if !ok {
		return nil, errBadly
	}
	if o.names, ok = o.slice(h); !ok {
		return nil, errBadly
	}
	return o, nil
}

func (o *object) header(i int) (h sectionHeader, ok bool) {
	size := uint64(40)
	if o.wide {
		size = 64
	}
	if i < 0 || i >= o.shnum || o.shoff > uint64(len(o.data)) || uint64(len(o.data))-o.shoff < size*uint64(i+1) {
		return h, false
	}
	b := o.data[o.shoff+size*uint64(i):]
	h.name, h.kind = le.Uint32(b), le.Uint32(b[4:])
	if o.wide {
		h.off, h.size = le.Uint64(b[0x18:]), le.Uint64(b[0x20:])
	} else {
		h.off, h.size = uint64(le.Uint32(b[0x10:])), uint64(le.Uint32(b[0x14:]))
	}
	return h, true
}

func (o *object) slice(h sectionHeader) ([]byte, bool) {
	const noBits = 8 // takes no room in the file
	if h.kind == noBits {
		return nil, true
	}
	if h.off > uint64(len(o.data)) || h.size > uint64(len(o.data))-h.off {
		return nil, false
	}
	return o.data[h.off : h.off+h.size], true
}

// section returns the content of the section of a name, nil if there is none.
func (o *object) section(name string) ([]byte, error) {
	for i := 1; i < o.shnum; i++ {
		h, ok := o.header(i)
		if !ok {
			return nil, errBadly
		}
		if uint64(h.name) > uint64(len(o.names)) || !bytes.HasPrefix(o.names[h.name:], []byte(name+"\x00")) {
			continue
		}
		b, ok := o.slice(h)
		if !ok {
			return nil, errBadly
		}
		return b, nil
	}
	return nil, nil
}

// cString returns the bytes from off up to the next zero byte, nothing if
// that is too far away.
func cString(b []byte, off uint64) []byte {
	if off >= uint64(len(b)) {
		return nil
	}
	b = b[off:min(off+maxName, uint64(len(b)))]
	return b[:max(bytes.IndexByte(b, 0), 0)]
}

// symbols calls f for each named entry of the symbol table.
func (o *object) symbols(f func(name []byte, undefined bool)) error {
	table, err := o.section(".symtab")
	if err != nil {
		return err
	}
	text, err := o.section(".strtab")
	if err != nil {
		return err
	}
	size, index := 16, 14
	if o.wide {
		size, index = 24, 6
	}
	for i := size; i+size <= len(table); i += size {
		e := table[i:]
		if name := cString(text, uint64(le.Uint32(e))); len(name) > 0 {
			f(name, le.Uint16(e[index:]) == 0)
		}
	}
	return nil
}

// readFacts reads a module as libkmod does.
func readFacts(data []byte) (facts, error) {
	var out facts
	o, err := parseObject(data)
	if err != nil {
		return out, err
	}
	var exports, needs []byte
	lacking := map[string]bool{}
	add := func(list, name []byte) []byte {
		if len(list) > len(data) {
			err = errBadly // many symbols that share one long name
			return list
		}
		return append(append(list, name...), 0)
	}
	serr := o.symbols(func(name []byte, undefined bool) {
		if undefined && !lacking[string(name)] {
			lacking[string(name)] = true
			needs = add(needs, name)
		}
		// With CONFIG_MODVERSIONS each exported symbol has a checksum.
		if symbol, ok := bytes.CutPrefix(name, []byte("__crc_")); ok && len(symbol) > 0 {
			exports = add(exports, symbol)
		}
	})
	if err := errors.Join(err, serr); err != nil {
		return out, err
	}
	if exports == nil {
		text, err := o.section("__ksymtab_strings")
		if err != nil {
			return out, err
		}
		for name := range stringsIn(text) {
			exports = add(exports, name)
		}
	}
	versions, err := o.section("__versions")
	if err != nil {
		return out, err
	}
	// Besides the symbols it lacks, a module names there what the kernel
	// checks for every module, like module_layout.
	sum := 4
	if o.wide {
		sum = 8
	}
	for ; len(versions) >= 64; versions = versions[64:] {
		name := cString(versions[:64], uint64(sum))
		if len(name) > 0 && !lacking[string(name)] {
			needs = add(needs, name)
		}
	}
	info, err := o.section(".modinfo")
	if err != nil {
		return out, err
	}
	var alias, softdep, weakdep []byte
	for line := range stringsIn(info) {
		key, value, _ := bytes.Cut(line, []byte("="))
		switch string(key) {
		case "alias":
			alias = add(alias, value)
		case "softdep":
			softdep = add(softdep, value)
		case "weakdep":
			weakdep = add(weakdep, value)
		}
	}
	return facts{string(exports), string(needs), string(alias), string(softdep), string(weakdep)}, err
}

// stringsIn iterates over the strings between zero bytes, empty ones left out.
func stringsIn(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for s := range bytes.SplitSeq(b, []byte{0}) {
			if len(s) > 0 && !yield(s) {
				return
			}
		}
	}
}
