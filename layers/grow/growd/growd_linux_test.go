package growd

import (
	"encoding/binary"
	"testing"
)

// table makes a partition table of {type, start, length} entries.
func table(parts ...[3]uint32) []byte {
	mbr := make([]byte, sector)
	mbr[510], mbr[511] = 0x55, 0xaa
	for i, p := range parts {
		e := mbr[mbrTable+mbrEntry*i:]
		e[4] = byte(p[0])
		binary.LittleEndian.PutUint32(e[8:], p[1])
		binary.LittleEndian.PutUint32(e[12:], p[2])
	}
	return mbr
}

func TestResizeEntry(t *testing.T) {
	card := [][3]uint32{{0x0c, 16384, 1048576}, {0x83, 1064960, 1000000}}
	tests := []struct {
		name    string
		mbr     []byte
		number  int
		start   int64
		length  int64
		changed bool
		bad     bool
	}{
		{name: "grows", mbr: table(card...), number: 2, start: 1064960, length: 7000000, changed: true},
		{name: "is done", mbr: table(card...), number: 2, start: 1064960, length: 1000000},
		{name: "not the last", mbr: table(card...), number: 1, start: 16384, length: 7000000, bad: true},
		{name: "another start", mbr: table(card...), number: 2, start: 4096, length: 7000000, bad: true},
		{name: "no table", mbr: make([]byte, sector), number: 2, start: 1064960, length: 7000000, bad: true},
		{name: "number", mbr: table(card...), number: 5, start: 0, length: 7, bad: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed, err := resizeEntry(test.mbr, test.number, test.start, test.length)
			if (err != nil) != test.bad || changed != test.changed {
				t.Fatalf("changed %v, error %v", changed, err)
			}
			if changed && int64(binary.LittleEndian.Uint32(test.mbr[mbrTable+mbrEntry*(test.number-1)+12:])) != test.length {
				t.Error("the entry does not hold the new length")
			}
		})
	}
}
