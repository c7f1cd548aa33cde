package device

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/tree"
)

// sample is an image of 10 MiB with a map of two parts of it.
func sample(t *testing.T) ([]byte, *bmap.Map) {
	t.Helper()
	image := make([]byte, 10<<20+512)
	rand.New(rand.NewSource(1)).Read(image)
	m, err := bmap.New(t.Context(), bytes.NewReader(image), int64(len(image)),
		[]tree.Range{{Offset: 0, Length: 5000}, {Offset: 6 << 20, Length: 4<<20 + 512}})
	if err != nil {
		t.Fatal(err)
	}
	return image, m
}

func nothing(int64) {}

func TestWriteToFile(t *testing.T) {
	image, m := sample(t)
	for name, m := range map[string]*bmap.Map{"mapped": m, "whole": nil} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "card")
			target, err := Host{}.Open(path, Options{Need: int64(len(image))})
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			var wrote, read int64
			// A reader that cannot seek, as a packed image's.
			written, err := target.Write(t.Context(), io.MultiReader(bytes.NewReader(image)), m, func(n int64) { wrote += n })
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan int64, 100)
			if err := target.Verify(t.Context(), written, func(n int64) { done <- n }); err != nil {
				t.Fatal(err)
			}
			close(done)
			for n := range done {
				read += n
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it has its name before it is verified: %v", err)
			}
			if err := target.Commit(); err != nil {
				t.Fatal(err)
			}
			if wrote != written.MappedBytes() || read != wrote {
				t.Errorf("%d written, %d read, %d mapped", wrote, read, written.MappedBytes())
			}
			want := bytes.Clone(image)
			if m != nil {
				clear(want[8192 : 6<<20])
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d other bytes; error: %v", len(got), err)
			}
		})
	}
}

// TestFileStaysUntilThereIsAnother: a write that fails changes no file, through
// a link neither, and leaves nothing beside it.
func TestFileStaysUntilThereIsAnother(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "card"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("former"), 0o600), os.Symlink("card", link)); err != nil {
		t.Fatal(err)
	}
	image, m := sample(t)
	for _, commit := range []bool{false, true} {
		target, err := Host{}.Open(link, Options{Need: int64(len(image))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := target.Write(t.Context(), bytes.NewReader(image), m, nothing); err != nil {
			t.Error(err)
		}
		if commit {
			if err := target.Commit(); err != nil {
				t.Error(err)
			}
		}
		if err := target.Close(); err != nil {
			t.Error(err)
		}
		want := int64(len("former"))
		if commit {
			want = int64(len(image))
		}
		left, err1 := os.ReadDir(dir)
		info, err2 := os.Stat(path)
		to, err3 := os.Readlink(link)
		if err := errors.Join(err1, err2, err3); err != nil || len(left) != 2 || info.Size() != want || to != "card" {
			t.Errorf("commit %t: left %v, %d bytes, want %d; error: %v", commit, left, info.Size(), want, err)
		}
	}
}

func TestWriteRefusesAnImageOfAnotherMap(t *testing.T) {
	image, m := sample(t)
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"changed": {func(b []byte) []byte { b[100]++; return b }, "image: cannot go with its block map: blocks 0-1 differ"},
		"short":   {func(b []byte) []byte { return b[:7<<20] }, "image: cannot go with its block map: it ends at 7340032"},
	} {
		target := &Target{Path: "card", file: &memory{}}
		_, err := target.Write(t.Context(), bytes.NewReader(c.change(bytes.Clone(image))), m, nothing)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// memory is a device in memory that fails as it is told.
type memory struct {
	data            []byte
	failAt          int64 // of a write; 0: never
	syncErr, reaErr error
	worn            bool // writes reach nothing
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	end := off + int64(len(b))
	if m.failAt > 0 && end > m.failAt {
		return 0, errors.New("input/output error")
	}
	if int64(len(m.data)) < end {
		m.data = append(m.data, make([]byte, end-int64(len(m.data)))...)
	}
	if !m.worn {
		copy(m.data[off:], b)
	}
	return len(b), nil
}

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	if m.reaErr != nil {
		return 0, m.reaErr
	}
	return bytes.NewReader(m.data).ReadAt(b, off)
}

func (m *memory) Sync() error  { return m.syncErr }
func (m *memory) Close() error { return nil }

func TestFaults(t *testing.T) {
	image, m := sample(t)
	bad := errors.New("input/output error")
	gone, here := func() bool { return true }, func() bool { return false }
	for _, c := range []struct {
		name   string
		target Target
		m      *bmap.Map
		want   string
	}{
		{"pulled out", Target{file: &memory{failAt: 7 << 20}, gone: gone}, m,
			"card: cannot write 4194304 bytes at 6291456: input/output error; the device is gone: was it pulled out?"},
		{"broken", Target{file: &memory{failAt: 1}, gone: here}, m, "card: cannot write 8192 bytes at 0: input/output error"},
		{"pulled out at the end", Target{file: &memory{syncErr: bad}, gone: gone}, m, "cannot bring everything to the medium: input/output error; the device is gone"},
		{"pulled out while read back", Target{file: &memory{reaErr: bad}, gone: gone}, nil, "input/output error; the device is gone"},
		{"worn out", Target{file: &memory{worn: true}}, m, "card: reads back other bytes than were written; the card is worn out"},
		{"packed image too long", Target{file: &memory{}, Size: 1 << 20}, nil, "card: cannot hold the image: it has 1048576 bytes, 4194304 are needed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.target.Path = "card"
			written, err := c.target.Write(t.Context(), bytes.NewReader(image), c.m, nothing)
			if err == nil {
				err = c.target.Verify(t.Context(), written, nothing)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestWriteStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	image, _ := sample(t)
	if _, err := (&Target{file: &memory{}}).Write(ctx, bytes.NewReader(image), nil, nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for path, want := range map[string]string{
		"/dev/no-such-card": "cannot find the device",
		"/dev/null":         "neither a block device nor a file",
		t.TempDir():         "neither a block device nor a file",
	} {
		if _, err := laptop().Open(path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}
