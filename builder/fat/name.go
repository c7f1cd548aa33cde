package fat

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	maxName     = 255 // UTF-16 units of a long name
	unitsPerLFN = 13  // of them in one directory entry
)

// longOffsets are where a long-name entry keeps its 13 UTF-16 units.
var longOffsets = [unitsPerLFN]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// checkName says why a name cannot stand in a FAT directory. Trailing dots and
// spaces are refused because Windows and Linux drop them.
func checkName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return errors.New("its name is not valid UTF-8")
	case len(utf16.Encode([]rune(name))) > maxName:
		return fmt.Errorf("its name is longer than %d characters", maxName)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return errors.New("its name ends in a dot or a space")
	}
	for _, r := range name {
		if r < 0x20 || strings.ContainsRune(`"*/:<>?\|`, r) {
			return fmt.Errorf("its name holds the character %q", r)
		}
	}
	return nil
}

// aliases hands out the unique 8.3 names of one directory.
type aliases struct {
	taken map[[11]byte]bool
	next  map[string]int // numeric tail to try next, by base and extension
}

func newAliases() *aliases {
	return &aliases{taken: map[[11]byte]bool{}, next: map[string]int{}}
}

// alias returns the short name that goes with a name, and whether the name
// needs long-name entries besides. fatgen103, "The Basis-Name Generation
// Algorithm" and "The Numeric-Tail Generation Algorithm".
func (a *aliases) alias(name string) (short [11]byte, long bool) {
	base, ext, lossless := basis(name)
	if lossless {
		short = pack(base, ext)
		if !a.taken[short] {
			a.taken[short] = true
			return short, name != join(base, ext)
		}
	}
	key := base + "." + ext
	for n := max(a.next[key], 1); ; n++ {
		tail := "~" + strconv.Itoa(n)
		short = pack(base[:min(len(base), 8-len(tail))]+tail, ext)
		if !a.taken[short] {
			a.taken[short] = true
			a.next[key] = n + 1
			return short, true
		}
	}
}

// basis returns the 8.3 form of a name and whether nothing but case was lost.
func basis(name string) (base, ext string, lossless bool) {
	lossless = true
	trimmed := strings.TrimLeft(name, ".")
	if trimmed != name {
		lossless = false
	}
	stem, suffix := trimmed, ""
	if i := strings.LastIndexByte(trimmed, '.'); i >= 0 {
		stem, suffix = trimmed[:i], trimmed[i+1:]
	}
	clean := func(s string, limit int) string {
		var b strings.Builder
		for _, r := range strings.ToUpper(s) {
			switch {
			case r == ' ' || r == '.':
				lossless = false
				continue
			case r > 0x7e || strings.ContainsRune("+,;=[]", r):
				lossless = false
				r = '_'
			}
			if b.Len() == limit {
				lossless = false
				break
			}
			b.WriteRune(r)
		}
		return b.String()
	}
	base, ext = clean(stem, 8), clean(suffix, 3)
	if base == "" {
		base, lossless = "_", false
	}
	return base, ext, lossless
}

func join(base, ext string) string {
	if ext == "" {
		return base
	}
	return base + "." + ext
}

func pack(base, ext string) (short [11]byte) {
	copy(short[:], "           ")
	copy(short[:8], base)
	copy(short[8:], ext)
	return short
}

// longEntries returns the entries that hold a long name, in the order they
// lie on disk: the name's end first.
func longEntries(name string, sum byte) [][entrySize]byte {
	units := utf16.Encode([]rune(name))
	n := (len(units) + unitsPerLFN - 1) / unitsPerLFN
	entries := make([][entrySize]byte, n)
	for seq := 1; seq <= n; seq++ {
		e := &entries[n-seq]
		e[0] = byte(seq)
		if seq == n {
			e[0] |= 0x40
		}
		e[11] = attrLongName
		e[13] = sum
		for i, off := range longOffsets {
			unit := uint16(0xFFFF) // after the terminating zero
			switch at := (seq-1)*unitsPerLFN + i; {
			case at < len(units):
				unit = units[at]
			case at == len(units):
				unit = 0
			}
			le.PutUint16(e[off:], unit)
		}
	}
	return entries
}
