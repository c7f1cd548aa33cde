package clone

import (
	"bytes"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 3<<20)
	rand.New(rand.NewSource(1)).Read(data)
	if err := os.WriteFile(filepath.Join(dir, "src"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	ways := map[string]func(dst *os.File) error{
		"best": func(dst *os.File) error {
			if err := Copy(dst, 4096, src, 0, 4096); err != nil {
				return err
			}
			return Copy(dst, 1<<20+4096, src, 1<<20, 1<<20+17)
		},
		"read write": func(dst *os.File) error {
			if err := readWrite(dst, 4096, src, 0, 4096); err != nil {
				return err
			}
			return readWrite(dst, 1<<20+4096, src, 1<<20, 1<<20+17)
		},
	}
	want := make([]byte, 4<<20)
	copy(want[4096:], data[:4096])
	copy(want[1<<20+4096:], data[1<<20:2<<20+17])
	for name, copyAll := range ways {
		t.Run(name, func(t *testing.T) {
			dst, err := os.Create(filepath.Join(t.TempDir(), "dst"))
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			if err := dst.Truncate(4 << 20); err != nil {
				t.Fatal(err)
			}
			if err := copyAll(dst); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(dst.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the copy differs")
			}
		})
	}
}

func TestCopyPastTheEnd(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	err = Copy(dst, 0, src, 0, 10)
	if err == nil || !strings.HasPrefix(err.Error(), dst.Name()) {
		t.Errorf("error %v, want one that begins with the target's name", err)
	}
}
