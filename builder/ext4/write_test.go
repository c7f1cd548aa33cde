package ext4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

var options = ext4.Options{
	Label: "rootfs", Epoch: 1700000000,
	UUID:     [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	HashSeed: [16]byte{0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0},
}

// write writes a tree to a new image.
func write(t testing.TB, tr *tree.Tree, o ext4.Options) (string, ext4.Result) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "root.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := ext4.Write(context.Background(), f, tr, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(max(o.Size, res.Size)); err != nil {
		t.Fatal(err)
	}
	return name, res
}

// run runs a tool, with a fixed time if it is one of e2fsprogs, and returns
// what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000", "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// roundTrip writes a tree, lets e2fsck and Check look at it, and compares
// what is read back.
func roundTrip(t *testing.T, tr *tree.Tree, o ext4.Options) (img string) {
	t.Helper()
	img, res := write(t, tr, o)
	run(t, "e2fsck", "-fn", img)
	check(t, img)
	compare(t, readTree(t, img), tr)
	if fs := open(t, img); fs.Size() != res.Size || fs.FreeBytes() != res.FreeBlocks<<12 || fs.Label() != o.Label || fs.UUID() != o.UUID {
		t.Errorf("the result does not fit what is read: %+v", res)
	}
	return img
}

func TestRandomTrees(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			roundTrip(t, randomTree(rand.New(rand.NewPCG(seed, 1)), 20<<seed), options)
		})
	}
}

const wantHeader = `Filesystem volume name:   rootfs
Filesystem UUID:          01020304-0506-0708-090a-0b0c0d0e0f10
Filesystem features:      has_journal ext_attr resize_inode dir_index filetype extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum
Filesystem flags:         signed_directory_hash 
Default mount options:    user_xattr acl
Filesystem state:         clean
Errors behavior:          Continue
Inode count:              96000
Block count:              384000
Reserved block count:     19200
Overhead clusters:        14990
Free blocks:              369003
Free inodes:              95988
Block size:               4096
Group descriptor size:    64
Reserved GDT blocks:      127
Blocks per group:         32768
Inodes per group:         8000
Flex block group size:    16
First inode:              11
Inode size:	          256
Required extra isize:     32
Desired extra isize:      32
Default directory hash:   half_md4
Directory Hash Seed:      0a0b0c0d-0e0f-0102-0304-050607080900
Checksum type:            crc32c
Total journal size:       32M
`

// The header is what mke2fs writes for the same size, but for the room to
// grow.
func TestHeader(t *testing.T) {
	o := options
	o.Size = 1500 << 20
	tr := tree.New(1700000000)
	if err := tr.WriteFile("/file", []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	img, _ := write(t, tr, o)
	var got strings.Builder
	for line := range strings.Lines(run(t, "dumpe2fs", "-h", img)) {
		name, _, _ := strings.Cut(line, ":")
		if strings.Contains(wantHeader, name+":") {
			got.WriteString(line)
		}
	}
	if got.String() != wantHeader {
		t.Errorf("got\n%s\nwant\n%s", got.String(), wantHeader)
	}
}

// Sizes of images and how many bytes of them the file system takes.
var sizes = []struct{ size, used int64 }{
	{8 << 20, 8 << 20},
	{10<<20 + 5000, 10<<20 + 4096},
	{128 << 20, 128 << 20},
	{128<<20 + 300<<12, 128 << 20}, // the second group would be too small
	{128<<20 + 2000<<12, 128<<20 + 2000<<12},
	{1500 << 20, 1500 << 20},
	{20 << 30, 20 << 30},
}

func TestSizes(t *testing.T) {
	tr := tree.New(1700000000)
	if err := tr.WriteFile("/file", bytes.Repeat([]byte("content\n"), 10000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range sizes {
		t.Run(fmt.Sprint(test.size), func(t *testing.T) {
			o := options
			o.Size = test.size
			img := roundTrip(t, tr, o)
			if got := open(t, img).Size(); got != test.used {
				t.Errorf("got a file system of %d bytes, want %d", got, test.used)
			}
		})
	}
}

func TestFreeSpace(t *testing.T) {
	for _, free := range []int64{0, 1, 10 << 20, 120 << 20, 5 << 30} {
		o := options
		o.Free = free
		l, err := ext4.Plan(faultyTree(t), o)
		if err != nil {
			t.Fatal(err)
		}
		img, res := write(t, faultyTree(t), o)
		// The rule of Linux: 2 % or 4,096 clusters are for nobody.
		if got := (res.FreeBlocks - min(res.Blocks/50, 4096)) << 12; got < free || got > free+free/20+4<<20 || res.Size%(1<<20) != 0 || l.Size() != res.Size {
			t.Errorf("wanted %d free bytes, got %d of %d", free, got, res.Size)
		}
		run(t, "e2fsck", "-fn", img)
	}
}

// A card is far larger than the image.
func TestGrow(t *testing.T) {
	tr := randomTree(rand.New(rand.NewPCG(3, 3)), 100)
	img, _ := write(t, tr, options)
	for _, size := range []string{"1G", "30G", "256G"} {
		run(t, "truncate", "-s", size, img)
		run(t, "resize2fs", img)
		run(t, "e2fsck", "-fn", img)
		compare(t, readTree(t, img), tr)
	}
	check(t, img)
}

// forward is an image in memory that insists on being written forward.
type forward struct {
	t     *testing.T
	sum   []byte
	next  int64
	wrote []tree.Range
	fail  int64 // writing beyond this fails
}

var errDiskFull = errors.New("no space left on device")

func (f *forward) WriteAt(b []byte, off int64) (int, error) {
	if off < f.next {
		f.t.Errorf("writes at %d after %d", off, f.next)
	}
	if f.fail > 0 && off+int64(len(b)) > f.fail {
		return 0, errDiskFull
	}
	for at := 0; at < len(b); at += 4096 {
		if bytes.Equal(b[at:at+4096], make([]byte, 4096)) {
			f.t.Errorf("writes zeros at %d", off+int64(at))
		}
	}
	f.next = off + int64(len(b))
	if k := len(f.wrote) - 1; k >= 0 && f.wrote[k].Offset+f.wrote[k].Length == off {
		f.wrote[k].Length += int64(len(b))
	} else {
		f.wrote = append(f.wrote, tree.Range{Offset: off, Length: int64(len(b))})
	}
	h := sha256.New()
	h.Write(f.sum)
	fmt.Fprint(h, off)
	h.Write(b)
	f.sum = h.Sum(nil)
	return len(b), nil
}

func TestForwardAndSame(t *testing.T) {
	var first []byte
	for range 2 {
		f := &forward{t: t}
		res, err := ext4.Write(context.Background(), f, randomTree(rand.New(rand.NewPCG(9, 1)), 600), options)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(res.Written, f.wrote) {
			t.Error("Result.Written is not what was written")
		}
		for _, w := range res.Written {
			if !slices.ContainsFunc(res.Used, func(u tree.Range) bool {
				return u.Offset <= w.Offset && w.Offset+w.Length <= u.Offset+u.Length
			}) {
				t.Errorf("%v is written, but not used", w)
			}
		}
		if first != nil && !bytes.Equal(first, f.sum) {
			t.Error("the same tree gave other bytes")
		}
		first = f.sum
	}
}

func TestDiskFull(t *testing.T) {
	tr := randomTree(rand.New(rand.NewPCG(9, 1)), 100)
	_, res := write(t, tr, options)
	for at := int64(1); at < res.Written[len(res.Written)-1].Offset; at += res.Size / 40 {
		_, err := ext4.Write(context.Background(), &forward{t: t, fail: at}, tr, options)
		if !errors.Is(err, errDiskFull) {
			t.Fatalf("full at %d: got error %v", at, err)
		}
	}
}

// stuck is a content that cancels the context that it is read under.
type stuck struct {
	pattern
	cancel func()
}

func (s stuck) ReadAt(b []byte, off int64) (int, error) {
	s.cancel()
	return s.pattern.ReadAt(b, off)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	tr := tree.New(0)
	if err := tr.WriteContent("/file", stuck{pattern{1, 1 << 30, 0}, cancel}, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ext4.Write(ctx, &forward{t: t}, tr, options); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}

// short is a content that ends before its size.
type short struct{ *bytes.Reader }

func (short) Size() int64 { return 10000 }

// What can't be written, and what the error says.
var refused = []struct {
	name string
	make func(*tree.Tree) error
	opts ext4.Options
	want string
}{
	{
		name: "short content",
		make: func(t *tree.Tree) error { return t.WriteContent("/a", short{bytes.NewReader(nil)}, 0) },
		want: "/a: cannot read its content at 0: unexpected EOF",
	},
	{
		name: "several",
		make: func(t *tree.Tree) error {
			return errors.Join(
				t.Symlink(strings.Repeat("x", 4096), "/z"),
				t.Mknod("/b", tree.TypeBlock, 5000, 0),
				t.Mknod("/a", 0o1000000|tree.TypeFifo, 0, 0),
			)
		},
		want: "/b: cannot store device number 5000:0\n/z: cannot store a link to a path of 4096 bytes",
	},
	{
		name: "attribute of unknown kind",
		make: func(t *tree.Tree) error { return t.SetXattr("/", "other.name", "x") },
		want: `/: cannot store extended attribute "other.name": unknown name space or name too long`,
	},
	{
		name: "attributes too large",
		make: func(t *tree.Tree) error { return t.SetXattr("/", "user.a", strings.Repeat("x", 4090)) },
		want: "/: cannot store extended attributes: they are larger than a block",
	},
	{
		name: "malformed list",
		make: func(t *tree.Tree) error { return t.SetXattr("/", "system.posix_acl_access", "x") },
		want: `/: cannot store extended attribute "system.posix_acl_access": malformed access control list`,
	},
	{
		name: "holes beyond the end",
		make: func(t *tree.Tree) error {
			return t.WriteContent("/h", holes{pattern{size: 10}, []tree.Range{{Offset: 5, Length: 6}}}, 0)
		},
		want: "/h: cannot use its data ranges: 6 bytes at 5",
	},
	{
		name: "too large a file",
		make: func(t *tree.Tree) error { return t.WriteContent("/h", pattern{size: 1 << 50}, 0) },
		want: "/h: cannot store a file of 1125899906842624 bytes",
	},
	{
		name: "too small an image",
		make: func(t *tree.Tree) error { return t.WriteContent("/h", pattern{size: 8 << 20}, 0) },
		opts: ext4.Options{Size: 10 << 20},
		want: "cannot fit the tree into 10485760 bytes: at least 2822144 more are needed",
	},
	{
		name: "tiny image",
		make: func(t *tree.Tree) error { return nil },
		opts: ext4.Options{Size: 100},
		want: "cannot fit the tree into 100 bytes",
	},
	{
		name: "label",
		make: func(t *tree.Tree) error { return nil },
		opts: ext4.Options{Label: "a label that is too long"},
		want: `label "a label that is too long": longer than 16 bytes`,
	},
	{
		name: "lost+found",
		make: func(t *tree.Tree) error { return t.WriteFile("/lost+found", nil, 0) },
		want: "/lost+found: cannot be anything but a directory",
	},
}

func TestRefusedTrees(t *testing.T) {
	for _, test := range refused {
		tr := tree.New(0)
		if err := test.make(tr); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		_, err := ext4.Write(context.Background(), &forward{t: t}, tr, test.opts)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
}

// A directory whose index has inner nodes, and one with as many entries as
// dpkg's.
func TestLargeDirectories(t *testing.T) {
	tr := tree.New(1700000000)
	for _, err := range []error{tr.Mkdir("/info", 0o755), tr.Mkdir("/long", 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12000 {
		for _, p := range []string{fmt.Sprintf("/info/package-%d.list", i), fmt.Sprintf("/long/%d%s", i, strings.Repeat("n", 240))} {
			if err := tr.Put(p, &tree.Inode{Mode: tree.TypeRegular | 0o644}); err != nil {
				t.Fatal(err)
			}
		}
	}
	img := roundTrip(t, tr, options)
	for _, test := range []struct{ dir, want string }{{"/info", "Indirect levels: 0"}, {"/long", "Indirect levels: 1"}} {
		if out := run(t, "debugfs", "-R", "htree "+test.dir, img); !strings.Contains(out, test.want) {
			t.Errorf("%s: %q is not in\n%.500s", test.dir, test.want, out)
		}
	}
	if out := run(t, "debugfs", "-R", "stat /info/package-7777.list", img); !strings.Contains(out, "Type: regular") {
		t.Errorf("debugfs does not find an entry: %s", out)
	}
}

// A /lost+found of the tree is used, whatever it holds.
func TestLostAndFound(t *testing.T) {
	tr := tree.New(1700000000)
	for _, err := range []error{
		tr.Mkdir("/lost+found", 0o750),
		tr.Chown("/lost+found", 5, 6),
		tr.WriteFile("/lost+found/#12", []byte("found"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(t, tr, options)
}

// What debugfs reads is what was put there.
func TestDebugfsReads(t *testing.T) {
	dir := hostFiles(t)
	img, _ := write(t, fromHost(t, dir), options)
	out := t.TempDir()
	run(t, "debugfs", "-R", "rdump / "+out, img)
	if err := os.Remove(filepath.Join(out, "lost+found")); err != nil {
		t.Fatal(err)
	}
	run(t, "diff", "-r", "--no-dereference", dir, out)
}
