package compress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// sample is a short image: text, noise and a hole longer than a piece.
func sample() []byte {
	var b bytes.Buffer
	b.WriteString(strings.Repeat("the quick brown fox jumps over the lazy dog\n", 5000))
	noise := make([]byte, 300<<10)
	rand.New(rand.NewSource(1)).Read(noise)
	b.Write(noise)
	b.Write(make([]byte, 2*pieceSize))
	b.WriteString("end")
	return b.Bytes()
}

// pack packs an image whose first cut bytes were packed apart from the rest.
func pack(t *testing.T, f Format, data []byte, cut int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f.Begin(&b); err != nil {
		t.Fatal(err)
	}
	var all []Piece
	for _, part := range [][]byte{data[:cut], data[cut:]} {
		pieces, err := (Packer{Format: f}).Pack(t.Context(), &b, bytes.NewReader(part), int64(len(part)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pieces...)
	}
	if err := f.End(&b, all); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPackedImagesUnpack(t *testing.T) {
	data := sample()
	tools := map[Format]string{XZ: "xz", Gzip: "gzip", Zstd: "zstd"}
	for _, f := range Formats() {
		t.Run(string(f), func(t *testing.T) {
			packed := pack(t, f, data, 100_001)
			if !bytes.Equal(packed, pack(t, f, data, 100_001)) {
				t.Error("the second time other bytes")
			}
			r, err := NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("unpacked %d bytes, want %d; error: %v", len(got), len(data), err)
			}
			name := filepath.Join(t.TempDir(), "card.img"+f.Suffix())
			if err := os.WriteFile(name, packed, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(tools[f], "-t", name).CombinedOutput()
			if err != nil {
				t.Errorf("%s -t: %v\n%s", tools[f], err, out)
			}
			got, err = exec.Command(tools[f], "-dc", name).Output()
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s -dc: %d bytes, want %d; error: %v", tools[f], len(got), len(data), err)
			}
			if f != XZ {
				return
			}
			list, err := exec.Command("xz", "--robot", "-lvv", name).Output()
			if err != nil {
				t.Fatalf("xz -l: %v", err)
			}
			if !strings.Contains(string(list), "file\t1\t4\t") {
				t.Errorf("xz -l does not tell four blocks in one stream:\n%s", list)
			}
		})
	}
}

func TestNewReader(t *testing.T) {
	for _, plain := range []string{"", "x", "plain image"} {
		r, err := NewReader(strings.NewReader(plain))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != plain {
			t.Errorf("%q came out as %q; error: %v", plain, got, err)
		}
	}
	r, err := NewReader(strings.NewReader("\xfd7zXZ\x00garbage that is long enough"))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if err == nil {
		t.Error("a damaged .xz header was taken")
	}
}

// kept counts how often a piece was packed.
type kept struct {
	mu   sync.Mutex
	data map[string][]byte
	puts int
}

func (k *kept) Get(key string) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, ok := k.data[key]
	return data, ok
}

func (k *kept) Put(key string, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.data[key] = data
	k.puts++
	return nil
}

func TestPiecesAreKept(t *testing.T) {
	data := sample()
	k := &kept{data: map[string][]byte{}}
	pack := func() []byte {
		var b bytes.Buffer
		pieces, err := Packer{Format: XZ, Kept: k}.Pack(t.Context(), &b, bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if err := XZ.End(&b, pieces); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	first := pack()
	if k.puts != 2 {
		t.Errorf("%d pieces were kept, want 2: the zeros are not", k.puts)
	}
	if !bytes.Equal(first, pack()) || k.puts != 2 {
		t.Errorf("%d pieces were packed, or the bytes differ", k.puts)
	}
	for key, data := range k.data {
		k.data[key] = data[:len(data)-1]
	}
	if !bytes.Equal(first, pack()) || k.puts != 4 {
		t.Errorf("damaged pieces: %d were packed, want 4, or the bytes differ", k.puts)
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errors.New("no medium") }

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestPackFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	data := bytes.NewReader(sample())
	for _, c := range []struct {
		name, want string
		ctx        context.Context
		w          io.Writer
		r          io.ReaderAt
		size       int64
	}{
		{"read", "cannot read 8388608 bytes at 0: no medium", t.Context(), io.Discard, failing{}, 9 * pieceSize},
		{"short", "unexpected EOF", t.Context(), io.Discard, data, data.Size() + 1},
		{"write", "no space left", t.Context(), full{}, data, data.Size()},
		{"cancelled", "context canceled", cancelled, io.Discard, data, data.Size()},
	} {
		if _, err := (Packer{Format: Gzip}).Pack(c.ctx, c.w, c.r, c.size); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Parse("bz2"); err == nil {
		t.Error("bz2 was taken")
	}
}
