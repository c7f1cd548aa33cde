package xz

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	ulikunitz "github.com/ulikunitz/xz"
)

// pack makes a file of blocks of at most so many bytes.
func pack(e *Encoder, in []byte, size int) []byte {
	b := Header()
	var blocks []Record
	for len(in) > 0 {
		n := min(size, len(in))
		block, r := e.Block(in[:n])
		b, blocks, in = append(b, block...), append(blocks, r), in[n:]
	}
	return append(b, End(blocks)...)
}

func TestEncode(t *testing.T) {
	var e Encoder
	for name, want := range texts() {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{EncoderDict, 100_001} {
				packed := pack(&e, want, size)
				if !bytes.Equal(packed, pack(new(Encoder), want, size)) {
					t.Error("a used encoder makes other bytes")
				}
				check(t, packed, want)
				if got := tool(t, packed, "-dc"); !bytes.Equal(got, want) {
					t.Errorf("xz -dc: %d bytes, want %d", len(got), len(want))
				}
			}
		})
	}
}

// TestEncodeManyChunks has chunks that are packed, stored and full.
func TestEncodeManyChunks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for len(want) < EncoderDict-1<<20 {
		part := make([]byte, r.IntN(300_000))
		switch r.IntN(4) {
		case 0: // noise
			for i := range part {
				part[i] = byte(r.Uint32())
			}
		case 1: // nearly noise
			for i := range part {
				part[i] = byte(r.Uint32()) & 0x7f
			}
		case 2: // what was there already, with changes
			for i := range part {
				if part[i] = byte(i); len(want) > len(part) {
					part[i] = want[len(want)-len(part)+i]
				}
				if r.IntN(50) == 0 {
					part[i]++
				}
			}
		} // or zeroes
		want = append(want, part...)
	}
	packed := pack(new(Encoder), want, EncoderDict)
	check(t, packed, want)
	if got := tool(t, packed, "-dc"); !bytes.Equal(got, want) {
		t.Errorf("xz -dc: %d bytes, want %d", len(got), len(want))
	}
}

func FuzzEncode(f *testing.F) {
	for _, b := range texts() {
		f.Add(b[:min(len(b), 20_000)], uint16(3000))
	}
	var e Encoder
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		packed := pack(&e, in, int(size)+1)
		if got, err := new(Decoder).Decode(packed, len(in)); err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%d bytes instead of %d; error: %v", len(got), len(in), err)
		}
		r, err := ulikunitz.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, in) {
			t.Fatalf("ulikunitz/xz: %d bytes instead of %d; error: %v", len(got), len(in), err)
		}
	})
}
