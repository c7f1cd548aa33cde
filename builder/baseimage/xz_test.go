package baseimage

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"sync"
	"testing"
)

// pack makes a .xz of three blocks.
func pack(t testing.TB, text []byte) []byte {
	t.Helper()
	cmd := exec.Command("xz", "-c", "-0", "--block-size=65536")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz: %v", err)
	}
	return out
}

// unpackBytes decodes block by block into memory.
func unpackBytes(packed []byte, limit int64) ([]byte, error) {
	var mu sync.Mutex
	var out []byte
	size, err := unpackXZ(context.Background(), bytes.NewReader(packed), int64(len(packed)), func(b []byte, at int64) error {
		mu.Lock()
		defer mu.Unlock()
		end := at + int64(len(b))
		if end > limit {
			return errors.New("too large")
		}
		if int64(len(out)) < end {
			out = append(out, make([]byte, end-int64(len(out)))...)
		}
		copy(out[at:], b)
		return nil
	})
	if err == nil && int64(len(out)) != size {
		err = errors.New("not of the size that it says")
	}
	return out, err
}

func TestUnpackXZ(t *testing.T) {
	text := bytes.Repeat([]byte("an image of a card, "), 8000)
	packed := pack(t, text)
	got, err := unpackBytes(packed, 1<<30)
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes of %d: %v", len(got), len(text), err)
	}
	for _, other := range [][]byte{pack(t, text[:1000]), append(bytes.Clone(packed), packed...), append(bytes.Clone(packed), 0, 0, 0, 0), packed[:100], nil} {
		if _, err := unpackBytes(other, 1<<30); !errors.Is(err, errNotSplit) {
			t.Errorf("%d bytes: %v", len(other), err)
		}
	}
	for i := 12; i < len(packed)-60; i += len(packed) / 40 {
		bad := bytes.Clone(packed)
		bad[i] ^= 0x10
		if got, err := unpackBytes(bad, 1<<30); err == nil && !bytes.Equal(got, text) {
			t.Errorf("byte %d is damaged, and nobody noticed", i)
		}
	}
}

func FuzzUnpackXZ(f *testing.F) {
	packed := pack(f, bytes.Repeat([]byte("an image of a card, "), 8000))
	f.Add(packed)
	f.Add(packed[:200])
	f.Fuzz(func(t *testing.T, packed []byte) {
		_, _ = unpackBytes(packed, 1<<20)
	})
}
