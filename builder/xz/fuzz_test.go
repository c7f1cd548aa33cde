package xz

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	ulikunitz "github.com/ulikunitz/xz"
)

const fuzzMax = 1 << 17

func FuzzDecode(f *testing.F) {
	for _, b := range texts() {
		if len(b) < 1<<20 {
			f.Add(tool(f, b[:min(len(b), 5000)], "-c", "--check=none", "--lzma2=dict=4KiB"))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) { compare(t, in) })
}

// FuzzLZMA2 gets past the checks: the fuzzed bytes are a block's chunks.
func FuzzLZMA2(f *testing.F) {
	for _, b := range texts() {
		if len(b) < 1<<20 {
			packed := tool(f, b[:min(len(b), 5000)], "-c", "--format=raw", "--lzma2=dict=4KiB")
			f.Add(packed, uint32(min(len(b), 5000)))
		}
	}
	f.Fuzz(func(t *testing.T, chunks []byte, size uint32) {
		compare(t, file(chunks, size))
	})
}

// file makes a file without a check from a block's chunks.
func file(chunks []byte, size uint32) []byte {
	crc := func(b []byte, from int) []byte {
		return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:]))
	}
	b := crc(append([]byte(headerMagic), 0, checkNone), 6)
	b = crc(append(b, 2, 0, filterLZMA2, 1, 0, 0, 0, 0), streamHeaderSize) // a dictionary of 4 KiB
	b = append(b, chunks...)
	unpadded := len(b) - streamHeaderSize
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	start := len(b)
	b = binary.AppendUvarint(append(b, 0, 1), uint64(unpadded))
	b = binary.AppendUvarint(b, uint64(size))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b = crc(b, start)
	back := uint32(len(b)-start)/4 - 1
	foot := append(binary.LittleEndian.AppendUint32(nil, back), 0, checkNone)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(foot))
	return append(append(b, foot...), footerMagic...)
}

// compare has both of our ways and another decoder decode the same.
func compare(t *testing.T, in []byte) {
	whole, werr := new(Decoder).Decode(in, fuzzMax)
	got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(in), 1<<20), fuzzMax+1))
	if werr == nil && err == nil && !bytes.Equal(got, whole) {
		t.Fatalf("Read gives %d bytes, Decode %d others", len(got), len(whole))
	}
	if err == nil && len(got) <= fuzzMax && werr != nil {
		t.Fatalf("Read gives %d bytes, Decode %v", len(got), werr)
	}
	if err != nil || len(got) > fuzzMax {
		return
	}
	r, err := ulikunitz.NewReader(bytes.NewReader(in))
	if err != nil {
		return
	}
	want, err := io.ReadAll(io.LimitReader(r, fuzzMax+1))
	if err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, the other decoder gives %d others", len(got), len(want))
	}
}
