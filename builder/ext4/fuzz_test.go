package ext4_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

// fuzzImages are the images that the fuzzer damages: without checksums, so
// that damage gets past them, and ours.
func fuzzImages(f testing.TB) (images [][]byte) {
	dir := f.TempDir()
	src := filepath.Join(dir, "src")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(src, "dir"), 0o755),
		os.WriteFile(filepath.Join(src, "file"), bytes.Repeat([]byte("content "), 3000), 0o644),
		os.Symlink("file", filepath.Join(src, "link")),
		os.Symlink(string(bytes.Repeat([]byte("l"), 100)), filepath.Join(src, "dir/long")),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	for i := range 60 {
		if err := os.WriteFile(filepath.Join(src, "dir", string(bytes.Repeat([]byte{byte('A' + i)}, 50))), nil, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	h, err := os.Create(filepath.Join(src, "holes"))
	if err != nil {
		f.Fatal(err)
	}
	defer h.Close()
	for i := range int64(20) {
		if _, err := h.WriteAt([]byte("x"), i*5000); err != nil {
			f.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"-t", "ext4", "-O", "^metadata_csum,^resize_inode", "-b", "1024", "-N", "128", "-J", "size=1"},
		{"-t", "ext4", "-O", "^metadata_csum,meta_bg,^resize_inode,^has_journal", "-b", "2048", "-N", "128"},
		{"-t", "ext2", "-b", "1024", "-N", "128"},
		{"-t", "ext4", "-O", "^metadata_csum,^resize_inode,^has_journal,inline_data,ea_inode,bigalloc", "-C", "4096", "-b", "1024", "-N", "128"},
	} {
		img := filepath.Join(dir, "img")
		run(f, "mke2fs", append(append([]string{"-q", "-F", "-d", src}, args...), img, "2300K")...)
		run(f, "sh", "-c", "e2fsck -fyD "+img+" >/dev/null; test $? -le 1")
		b, err := os.ReadFile(img)
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, b)
		os.Remove(img)
	}
	img, _ := write(f, fromHost(f, src), options)
	b, err := os.ReadFile(img)
	if err != nil {
		f.Fatal(err)
	}
	return append(images, b)
}

// blocksInUse returns the offsets of the KiB of an image that are not zero.
func blocksInUse(img []byte) (out []int) {
	for i := 0; i+1024 <= len(img); i += 1024 {
		if !bytes.Equal(img[i:i+1024], make([]byte, 1024)) {
			out = append(out, i)
		}
	}
	return out
}

// FuzzRead damages images at the places that the input names: six bytes for
// two of content each. Nothing may panic or run on.
func FuzzRead(f *testing.F) {
	images := fuzzImages(f)
	var used [][]int
	for i, img := range images {
		used = append(used, blocksInUse(img))
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{1, 0, 0x60, 0, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, which byte, patches []byte) {
		i := int(which) % len(images)
		img := bytes.Clone(images[i])
		for ; len(patches) >= 6; patches = patches[6:] {
			block := used[i][int(binary.LittleEndian.Uint16(patches))%len(used[i])]
			at := block + int(binary.LittleEndian.Uint16(patches[2:]))%1023
			copy(img[at:at+2], patches[4:6])
		}
		readAll(t, img)
	})
}

// FuzzOpen gives the reader an image that is the input alone.
func FuzzOpen(f *testing.F) {
	for _, img := range fuzzImages(f) {
		f.Add(img[:8192])
	}
	f.Fuzz(func(t *testing.T, img []byte) { readAll(t, img) })
}

// readAll does all that one can do with an image.
func readAll(t *testing.T, img []byte) {
	fs, err := ext4.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		return
	}
	_ = fs.Check(context.Background())
	tr, err := fs.Tree(context.Background())
	if err != nil {
		return
	}
	buf := make([]byte, 1<<16)
	for p, in := range tr.All() {
		if !in.IsRegular() {
			continue
		}
		last := int64(0)
		var data []tree.Range
		if s, ok := in.Content.(tree.Sparse); ok { // not what lies in its inode
			data = s.Data()
		}
		for _, r := range data {
			if r.Offset < last || r.Length < 0 || r.Offset+r.Length > in.Size() {
				t.Fatalf("%q: data at %d, %d bytes, after %d, in a file of %d", p, r.Offset, r.Length, last, in.Size())
			}
			last = r.Offset + r.Length
		}
		for _, off := range []int64{0, 5, in.Size() / 2, in.Size() - 1} {
			n, err := in.Content.ReadAt(buf, max(off, 0))
			if n < len(buf) && err == nil || errors.Is(err, io.EOF) && int64(n) != max(in.Size()-max(off, 0), 0) {
				t.Fatalf("%q: %d bytes of %d at %d, error %v", p, n, in.Size(), off, err)
			}
		}
	}
}
