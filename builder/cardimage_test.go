package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// smallCard is a card with next to nothing on it.
func smallCard(t *testing.T, format compress.Format) card {
	t.Helper()
	dir := t.TempDir()
	r := tree.New(1_750_000_000)
	if err := r.WriteFile("/hello", bytes.Repeat([]byte("hello "), 10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	root := &rootImage{Path: filepath.Join(dir, rootFile), Boot: tree.New(1_750_000_000), BootSize: 40 << 20}
	if err := writeFile(root.Path, func(f *os.File) error {
		res, err := ext4.Write(t.Context(), f, r, ext4.Options{Free: 4 << 20, Label: rootLabel, Epoch: 1_750_000_000})
		if err != nil {
			return err
		}
		root.Size, root.Data = res.Size, res.Written
		if err := f.Truncate(res.Size); err != nil {
			return err
		}
		root.Map, err = bmap.New(t.Context(), f, res.Size, res.Used)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := root.Boot.WriteFile("/vmlinuz", bytes.Repeat([]byte("kernel"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	return card{
		node: &plan.Node{Name: "rpi1"}, step: func(string) func() { return func() {} }, path: filepath.Join(t.TempDir(), "rpi1.img"+format.Suffix()), compress: format,
		diskID: 0xcafe1234, volumeID: 0x12345678, boot: root.Boot, root: root, inputSum: "inputs",
	}
}

// sums returns the SHA-256 of a file, and of what it puts on a card.
func sums(t *testing.T, path string) (file, card string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := compress.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	of, unpacked := sha256.New(), sha256.New()
	_, err1 := io.Copy(unpacked, r)
	_, err2 := f.Seek(0, io.SeekStart)
	_, err3 := io.Copy(of, f)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(of.Sum(nil)), hex.EncodeToString(unpacked.Sum(nil))
}

func TestCardsAreTheSamePackedOrNot(t *testing.T) {
	var plain string
	for _, format := range []compress.Format{compress.None, compress.Zstd} {
		c := smallCard(t, format)
		dir := filepath.Dir(c.path)
		folder := output.Open(dir)
		if c.isThere(folder) {
			t.Errorf("%s: it is there before it is made", c.path)
		}
		if err := c.make(t.Context(), folder); err != nil {
			t.Fatal(err)
		}
		if !c.isThere(output.Open(dir)) {
			t.Errorf("%s: it is not there", c.path)
		}
		file, unpacked := sums(t, c.path)
		if plain == "" {
			plain = unpacked
			verifyBmap(t, c)
		}
		img, _ := folder.Lookup(filepath.Base(c.path))
		if unpacked != plain || img.CardSHA256 != plain || img.SHA256 != file || img.CardSize != c.table().Size() {
			t.Errorf("it is %s and unpacked %s, recorded as %+v", file, unpacked, img)
		}
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) != 3 {
			t.Errorf("%s: left %q; error: %v", c.path, names, err)
		}
	}
}

// verifyBmap compares a card that is not packed with the map beside it.
func verifyBmap(t *testing.T, c card) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(c.path), "rpi1.img.bmap"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := bmap.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(c.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Verify(t.Context(), f); err != nil {
		t.Errorf("%s: %v", c.path, err)
	}
}

func TestCardsAreMadeAgain(t *testing.T) {
	c := smallCard(t, compress.None)
	dir := filepath.Dir(c.path)
	folder := output.Open(dir)
	if err := c.make(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	other := c
	other.inputSum = "other inputs"
	if other.isThere(folder) {
		t.Error("other inputs: the old image is taken")
	}
	packed := c
	packed.compress, packed.path = compress.Zstd, c.path+".zst"
	if err := packed.make(t.Context(), folder); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.path); err == nil {
		t.Error("the image that is not packed is still there")
	}
	if err := os.Chtimes(packed.path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if packed.isThere(folder) {
		t.Error("an image that was touched is taken")
	}
}

// TestCardsArePatched changes boot partitions of cards that are there.
func TestCardsArePatched(t *testing.T) {
	c := smallCard(t, compress.None)
	dir := filepath.Dir(c.path)
	folder := output.Open(dir)
	shared := c.boot
	write := func(name string, length int, hold bool) {
		t.Helper()
		c.inputSum += "."
		c.boot = tree.New(1_750_000_000)
		for p, n := range shared.All() {
			if err := c.boot.Put(p, &tree.Inode{Mode: n.Mode, ModTime: n.ModTime, Content: n.Content}); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.boot.WriteFile("/"+name, bytes.Repeat([]byte(name), length), 0o600); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Stat(c.path)
		if hold { // as a machine that runs from it
			f, err := os.Open(c.path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
		if err := c.make(t.Context(), folder); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if want := before != nil && !hold && runtime.GOOS == "linux"; os.SameFile(before, after) != want {
			t.Errorf("%s: patched: %v", name, !want)
		}
		img, _ := folder.Lookup(filepath.Base(c.path))
		patched, _ := sums(t, c.path)
		verifyBmap(t, c)
		other := c
		other.path = filepath.Join(t.TempDir(), "rpi1.img")
		if err := other.make(t.Context(), output.Open(filepath.Dir(other.path))); err != nil {
			t.Fatal(err)
		}
		if fresh, _ := sums(t, other.path); fresh != patched || img.SHA256 != fresh {
			t.Errorf("%s: it is %s, recorded as %s, written anew %s", name, patched, img.SHA256, fresh)
		}
	}
	write("a", 3_000_000, false)
	write("b", 10, false)
	write("long-name-that-needs-entries", 200_000, false)
	write("c", 10, true)
	if left, err := filepath.Glob(filepath.Join(dir, ".*-*")); err != nil || len(left) > 0 {
		t.Errorf("left %q; error: %v", left, err)
	}
	// A failure leaves no half image, a damaged root is not taken over.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.inputSum += "."
	if err := c.make(ctx, folder); err == nil {
		t.Error("a cancelled write was taken")
	}
	if _, err := os.Stat(c.path); err == nil {
		t.Error("half an image has its name")
	}
}

// TestRenamedNodeTakesItsImageOver: the image of a node that is gone becomes
// another's, one of a node that is still there does not.
func TestRenamedNodeTakesItsImageOver(t *testing.T) {
	c := smallCard(t, compress.None)
	dir := filepath.Dir(c.path)
	if err := c.make(t.Context(), output.Open(dir)); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		nodes []*plan.Node
		want  string
	}{
		{[]*plan.Node{{Name: "rpi1"}, {Name: "rpi2"}}, ""},
		{[]*plan.Node{{Name: "rpi2"}}, "rpi1"},
	} {
		other := c
		other.node, other.path, other.diskID = &plan.Node{Name: "rpi2"}, filepath.Join(dir, "rpi2.img"), 0xcafe5678
		f := &cubeFolder{Folder: output.Open(dir), cube: &plan.Cube{Nodes: test.nodes}, cards: []card{other}}
		f.takeOver()
		if f.cards[0].former != test.want {
			t.Fatalf("it takes over %q, want %q", f.cards[0].former, test.want)
		}
		c = f.cards[0]
	}
	if err := c.make(t.Context(), output.Open(dir)); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(c.path)
	if err != nil || runtime.GOOS == "linux" && !os.SameFile(before, after) {
		t.Errorf("written anew; error: %v", err)
	}
	img, ok := output.Open(dir).Lookup("rpi2.img")
	if file, _ := sums(t, c.path); !ok || img.SHA256 != file {
		t.Errorf("it is %s, recorded as %s", file, img.SHA256)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "rpi*")); err != nil || len(names) != 2 {
		t.Errorf("left %q; error: %v", names, err)
	}
}

func TestFailedCardsLeaveNothing(t *testing.T) {
	for _, format := range []compress.Format{compress.None, compress.Gzip} {
		c := smallCard(t, format)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.write(ctx, output.Open(filepath.Dir(c.path))); err == nil {
			t.Error("a cancelled write was taken")
		}
		left, err := os.ReadDir(filepath.Dir(c.path))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left %v; error: %v", c.path, left, err)
		}
	}
}

func TestBootDigest(t *testing.T) {
	shared := tree.New(1)
	write := func(tr *tree.Tree, name, text string) {
		t.Helper()
		if err := tr.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(shared, "/vmlinuz", "kernel")
	digest := func(change func(*tree.Tree)) string {
		t.Helper()
		boot := tree.New(1)
		for p, n := range shared.All() {
			if err := boot.Put(p, &tree.Inode{Mode: n.Mode, ModTime: n.ModTime, Content: n.Content}); err != nil {
				t.Fatal(err)
			}
		}
		write(boot, "/node.yaml", "rpi1")
		change(boot)
		sum, err := bootDigest(boot, shared)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	first := digest(func(*tree.Tree) {})
	if first != digest(func(*tree.Tree) {}) {
		t.Error("the same partition has two digests")
	}
	for name, change := range map[string]func(*tree.Tree){
		"a node's file":      func(b *tree.Tree) { write(b, "/node.yaml", "rpi2") },
		"one more":           func(b *tree.Tree) { write(b, "/extra", "") },
		"a shared one anew":  func(b *tree.Tree) { write(b, "/vmlinuz", "kernes") },
		"another permission": func(b *tree.Tree) { _ = b.Chmod("/node.yaml", 0o644) },
	} {
		if first == digest(change) {
			t.Errorf("%s: the digest stays", name)
		}
	}
}

func TestMergedRanges(t *testing.T) {
	w := &rangeWriter{ranges: []tree.Range{{Offset: 10, Length: 5}, {Offset: 0, Length: 4}, {Offset: 15, Length: 1}, {Offset: 11, Length: 2}}}
	want := []tree.Range{{Offset: 0, Length: 4}, {Offset: 10, Length: 6}}
	if got := w.merged(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
