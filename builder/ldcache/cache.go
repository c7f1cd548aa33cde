package ldcache

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// Sizes and constants of sysdeps/generic/dl-cache.h.
const (
	cacheMagic     = "glibc-ld.so.cache1.1"
	headerSize     = 48
	entrySize      = 24
	littleEndian   = 2
	extensionMagic = 0xeaa42174
	tagGenerator   = 0
	tagHwcaps      = 1
	hwcapsBit      = 1 << 62
)

// entry is one library in the cache.
type entry struct {
	soname, path string
	flags        int32
	hwcaps       string
}

type cache struct {
	generator string
	entries   []entry
	strings   stringTable
}

func (c *cache) add(e entry) {
	c.strings.add(e.path)
	c.strings.add(e.soname)
	c.entries = append(c.entries, e)
}

// encode returns the file: header, entries, strings, extensions.
func (c *cache) encode() []byte {
	// Stable: of equal entries the directory that was configured first wins.
	slices.SortStableFunc(c.entries, compareEntries)
	text, offsets := c.strings.finish()
	base := uint32(headerSize + len(c.entries)*entrySize)
	hwcaps := c.hwcaps()

	le := binary.LittleEndian
	b := []byte(cacheMagic)
	b = le.AppendUint32(b, uint32(len(c.entries)))
	b = le.AppendUint32(b, uint32(len(text)))
	b = le.AppendUint32(b, littleEndian)
	extension := (base + uint32(len(text)) + 3) &^ 3
	b = le.AppendUint32(b, extension)
	b = append(b, make([]byte, headerSize-len(b))...)
	for _, e := range c.entries {
		var capability uint64
		if i, ok := slices.BinarySearch(hwcaps, e.hwcaps); ok {
			capability = hwcapsBit | uint64(i)
		}
		b = le.AppendUint32(b, uint32(e.flags))
		b = le.AppendUint32(b, base+offsets[e.soname])
		b = le.AppendUint32(b, base+offsets[e.path])
		b = le.AppendUint32(b, 0) // once the required kernel version
		b = le.AppendUint64(b, capability)
	}
	b = append(b, text...)
	b = append(b, make([]byte, int(extension)-len(b))...)

	sections := uint32(1)
	if len(hwcaps) > 0 {
		sections = 2
	}
	data := extension + 8 + sections*16
	b = le.AppendUint32(b, extensionMagic)
	b = le.AppendUint32(b, sections)
	section := func(tag, offset, size uint32) {
		b = le.AppendUint32(b, tag)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, offset)
		b = le.AppendUint32(b, size)
	}
	section(tagGenerator, data+uint32(4*len(hwcaps)), uint32(len(c.generator)))
	if len(hwcaps) > 0 {
		section(tagHwcaps, data, uint32(4*len(hwcaps)))
	}
	for _, name := range hwcaps {
		b = le.AppendUint32(b, base+offsets[name])
	}
	return append(b, c.generator...)
}

// hwcaps returns the names of the glibc-hwcaps directories in use, sorted.
func (c *cache) hwcaps() []string {
	var names []string
	for _, e := range c.entries {
		if e.hwcaps != "" {
			names = append(names, e.hwcaps)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// compareEntries orders as the dynamic linker's binary search expects:
// everything descending, but directories of glibc-hwcaps before the others
// and ascending among themselves.
func compareEntries(a, b entry) int {
	if c := compareNames(b.soname, a.soname); c != 0 {
		return c
	}
	if c := cmp.Compare(b.flags, a.flags); c != 0 {
		return c
	}
	if (a.hwcaps == "") != (b.hwcaps == "") {
		if a.hwcaps != "" {
			return -1
		}
		return 1
	}
	return strings.Compare(a.hwcaps, b.hwcaps)
}

// compareNames compares byte by byte, but runs of digits by their number and
// digits above everything else; numbers overflow as 32-bit ones do in C.
func compareNames(a, b string) int {
	digit := func(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }
	number := func(s string) (n int32, rest string) {
		for digit(s) {
			n, s = n*10+int32(s[0]-'0'), s[1:]
		}
		return n, s
	}
	for a != "" {
		switch {
		case digit(a) && digit(b):
			var x, y int32
			x, a = number(a)
			y, b = number(b)
			if x != y {
				return int(x - y)
			}
		case digit(a):
			return 1
		case digit(b):
			return -1
		case b == "":
			return 1
		case a[0] != b[0]:
			return cmp.Compare(a[0], b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	if b != "" {
		return -1
	}
	return 0
}

// stringTable stores strings that end alike only once.
type stringTable struct{ seen map[string]bool }

func (s *stringTable) add(text string) {
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[text] = true
}

// finish returns the table, each string ended by NUL, and where each begins.
func (s *stringTable) finish() ([]byte, map[string]uint32) {
	all := make([]string, 0, len(s.seen))
	for text := range s.seen {
		all = append(all, text)
	}
	slices.SortFunc(all, compareReversed)
	offsets := make(map[string]uint32, len(all))
	var b []byte
	previous := ""
	for i, text := range all {
		if i > 0 && strings.HasSuffix(previous, text) {
			offsets[text] = offsets[previous] + uint32(len(previous)-len(text))
		} else {
			offsets[text] = uint32(len(b))
			b = append(b, text...)
			b = append(b, 0)
		}
		previous = text
	}
	return b, offsets
}

// compareReversed orders by the reversed strings, descending, so that a
// string directly follows one that ends with it.
func compareReversed(a, b string) int {
	for i := 1; i <= min(len(a), len(b)); i++ {
		if x, y := a[len(a)-i], b[len(b)-i]; x != y {
			return cmp.Compare(y, x)
		}
	}
	return cmp.Compare(len(b), len(a))
}
