package ext4_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

// faultyTree is what the damage is done to.
func faultyTree(t testing.TB) *tree.Tree {
	tr := tree.New(1700000000)
	for _, err := range []error{
		tr.MkdirAll("/etc/deep", 0o755),
		tr.WriteFile("/etc/file", bytes.Repeat([]byte("x"), 10000), 0o644),
		tr.WriteFile("/etc/other", bytes.Repeat([]byte("y"), 10000), 0o644),
		tr.Link("/etc/file", "/etc/deep/linked"),
		tr.SetXattr("/etc/other", "user.long", strings.Repeat("v", 1000)),
		tr.Mkdir("/large", 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 400 {
		if err := tr.WriteFile(fmt.Sprintf("/large/an-entry-of-a-large-directory-%d", i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// Damage done with debugfs, which keeps the checksums right, and what Check
// says to it. e2fsck must find each too.
var debugfsFaults = []struct{ command, want string }{
	{"sif /etc/file links_count 3", "/etc/file: says that it has 3 links, it has 2"},
	{"sif /etc/file blocks 99", "/etc/file: says that it has 99 sectors, it has 24"},
	{"sif /etc/file mode 0150000", "/etc/file: mode 0150000"},
	{"sif /etc/other size 10", "/etc/other: has data beyond its 10 bytes"},
	{"sif /etc/deep links_count 9", "/etc/deep: says that it has 9 links, it has 2"},
	{"clri /etc/other", "/etc/other: is not in use"},
	{"unlink /etc/other", "inode 15: is in no directory"},
	{"ln /etc/deep /large/second", "/large/second: a directory with two names"},
	{"freei <15>", "/etc/other: leads to inode 15, which is not in use"},
	{"seti <490>", "inode 490: is not in use"},
	{"freeb 1201", "group 0: block bitmap: block 1201 is in use, but not marked"},
	{"setb 1279", "group 0: block bitmap: block 1279 is marked, but not in use"},
	{"ssv free_blocks_count 5", "superblock: says that 5 blocks are free"},
	{"ssv free_inodes_count 6", "superblock: says that 6 inodes are free"},
	{"ssv reserved_gdt_blocks 128", "inode 7: damaged: leads to block 0 instead of reserved descriptor block 129"},
	{"set_bg 0 free_blocks_count 7", "group 0: says that 7 blocks are free"},
	{"set_bg 0 free_inodes_count 8", "group 0: says that 8 inodes are free"},
	{"set_bg 0 used_dirs_count 9", "group 0: says that it has 9 directories, it has 5"},
	{"sif /etc/other block[5] 1201", "/etc/other: block 1201 is used twice"},
}

// Damage to single bytes: where it is, and all that Open or Check says.
var byteFaults = []struct {
	name string
	at   func(*locations) int64
	want string
}{
	{"superblock", func(*locations) int64 { return 1024 + 0x58 }, "cannot use the ext4 superblock: damaged: wrong checksum"},
	{"magic number", func(*locations) int64 { return 1024 + 0x38 }, "cannot use the ext4 superblock: no ext4 file system: wrong magic number"},
	{"descriptor", func(*locations) int64 { return 4096 + 0x1e }, "group 0: wrong checksum of its descriptor"},
	{"inode", func(l *locations) int64 { return l.inode("/etc/deep") + 8 }, "/etc/deep: damaged: wrong checksum"},
	{"directory", func(l *locations) int64 { return l.block("/etc/deep", 0) + 32 }, "/etc/deep: directory block 0: damaged: wrong checksum"},
	{"index", func(l *locations) int64 { return l.block("/large", 0) + 44 }, "/large: directory block 0: damaged: wrong checksum in the index"},
	{"attributes", func(l *locations) int64 { return l.xattr("/etc/other") + 4000 }, "/etc/other: damaged: wrong checksum in attribute block 1194"},
}

// locations asks debugfs where things lie.
type locations struct {
	t   testing.TB
	img string
}

func (l *locations) ask(request, format string) (a, b int64) {
	out := run(l.t, "debugfs", "-R", request, l.img)
	_, out, _ = strings.Cut(out, "\n") // the version
	for line := range strings.Lines(out) {
		if n, _ := fmt.Sscanf(line, format, &a, &b); n > 0 {
			return a, b
		}
	}
	l.t.Fatalf("debugfs %s: no %q in\n%s", request, format, out)
	return 0, 0
}

func (l *locations) inode(p string) int64 {
	block, off := l.ask("imap "+p, "\tlocated at block %d, offset 0x%x")
	return block<<12 + off
}

func (l *locations) block(p string, n int) int64 {
	block, _ := l.ask(fmt.Sprintf("bmap %s %d", p, n), "%d")
	return block << 12
}

func (l *locations) xattr(p string) int64 {
	block, _ := l.ask("stat "+p, "File ACL: %d")
	return block << 12
}

// verify is what a caller does with an image it does not trust.
func verify(img []byte) error {
	fs, err := ext4.Open(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		return err
	}
	return fs.Check(context.Background())
}

func TestCheckFindsDamage(t *testing.T) {
	img, _ := write(t, faultyTree(t), options)
	good, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(name, want string) {
		t.Helper()
		b, err := os.ReadFile(img)
		if err != nil {
			t.Fatal(err)
		}
		err = verify(b)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, want)
		}
		out, err := exec.Command("e2fsck", "-fn", img).CombinedOutput()
		// Some it tells without calling them faults.
		if err == nil && !bytes.Contains(out, []byte("wrong")) && !bytes.Contains(out, []byte("invalid")) {
			t.Errorf("%s: e2fsck finds no fault", name)
		}
		if err := os.WriteFile(img, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range debugfsFaults {
		run(t, "debugfs", "-w", "-R", test.command, img)
		expect(test.command, test.want)
	}
	for _, test := range byteFaults {
		b := bytes.Clone(good)
		b[test.at(&locations{t, img})] ^= 0x10
		if err := os.WriteFile(img, b, 0o600); err != nil {
			t.Fatal(err)
		}
		expect(test.name, test.want)
	}
	if err := verify(good[:len(good)-1]); err == nil || !strings.Contains(err.Error(), "bytes are there") {
		t.Errorf("truncated: got error %v", err)
	}
}
