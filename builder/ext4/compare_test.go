package ext4_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

// open opens an image.
func open(t testing.TB, name string) *ext4.FS {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := ext4.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// readTree reads an image's tree.
func readTree(t testing.TB, name string) *tree.Tree {
	t.Helper()
	tr, err := open(t, name).Tree(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// describe prints an entry without its content. An inode is named by its
// first path, so that hard links show.
func describe(in *tree.Inode, first string) string {
	s := fmt.Sprintf("%o %d:%d %d", in.Mode, in.UID, in.GID, in.ModTime)
	switch in.Type() {
	case tree.TypeRegular:
		s += fmt.Sprintf(" size %d", in.Size())
	case tree.TypeSymlink:
		s += " -> " + in.Target
	case tree.TypeChar, tree.TypeBlock:
		s += fmt.Sprintf(" device %d:%d", in.Major, in.Minor)
	}
	for _, k := range slices.Sorted(maps.Keys(in.Xattrs)) {
		s += fmt.Sprintf(" %s=%q", k, in.Xattrs[k])
	}
	return s + " = " + first
}

func list(t *tree.Tree) map[string]string {
	out := map[string]string{}
	first := map[*tree.Inode]string{}
	for p, in := range t.All() {
		if _, ok := first[in]; !ok {
			first[in] = p
		}
		out[p] = describe(in, first[in])
	}
	return out
}

// compare fails the test where two trees differ.
func compare(t *testing.T, got, want *tree.Tree) {
	t.Helper()
	g, w := list(got), list(want)
	for _, p := range slices.Sorted(maps.Keys(w)) {
		if g[p] != w[p] {
			t.Errorf("%q\n got %s\nwant %s", p, g[p], w[p])
		}
	}
	for p := range g {
		if _, ok := w[p]; !ok {
			t.Errorf("%q: %s was not there", p, g[p])
		}
	}
	if t.Failed() {
		return
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for p, in := range want.All() {
		if !in.IsRegular() {
			continue
		}
		other, _ := got.Lstat(p)
		sameContent(t, p, other, in, a, b)
	}
}

// sameContent compares two files where either holds data; a and b are room
// of the same length to read into.
func sameContent(t *testing.T, p string, got, want *tree.Inode, a, b []byte) {
	t.Helper()
	var ranges []tree.Range
	for _, in := range []*tree.Inode{got, want} {
		if s, ok := in.Content.(tree.Sparse); ok {
			ranges = append(ranges, s.Data()...)
		} else {
			ranges = append(ranges, tree.Range{Offset: 0, Length: in.Size()})
		}
	}
	slices.SortFunc(ranges, func(x, y tree.Range) int { return cmp.Compare(x.Offset, y.Offset) })
	done := int64(0)
	for _, r := range ranges {
		for at := max(done, r.Offset); at < r.Offset+r.Length; {
			n := min(r.Offset+r.Length-at, int64(len(a)))
			if k, err := got.Content.ReadAt(a[:n], at); int64(k) < n {
				t.Fatalf("%q at %d: %v", p, at, err)
			}
			if k, err := want.Content.ReadAt(b[:n], at); int64(k) < n {
				t.Fatalf("%q at %d: %v", p, at, err)
			}
			if !bytes.Equal(a[:n], b[:n]) {
				t.Fatalf("%q: content differs between %d and %d", p, at, at+n)
			}
			at += n
			done = at
		}
	}
}

// openError returns the error of opening an image.
func openError(t testing.TB, name string) error {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	_, err = ext4.Open(f, info.Size())
	return err
}

// check fails the test if Check finds a fault.
func check(t testing.TB, name string) {
	t.Helper()
	if err := open(t, name).Check(context.Background()); err != nil {
		t.Error(err)
	}
}

// hostFile is a content that lies in a file of the host.
type hostFile struct {
	name string
	size int64
}

func (h hostFile) Size() int64 { return h.size }

func (h hostFile) ReadAt(b []byte, off int64) (int, error) {
	f, err := os.Open(h.name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(b, off)
}
