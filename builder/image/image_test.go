package image

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/nodeconf"
)

const epoch = 1_750_000_000

func write(t *testing.T, to *tree.Tree, p, text string) {
	t.Helper()
	if err := errors.Join(to.MkdirAll(path.Dir(p), 0o755), to.WriteFile(p, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// testRoot is a root file system as far as Check looks at it: a kernel, the
// firmware, and a package with a diverted file.
func testRoot(t *testing.T) *tree.Tree {
	t.Helper()
	root := tree.New(epoch)
	board, _ := firmware.Lookup("rpi3")
	for _, name := range board.Files {
		write(t, root, "/usr/lib/raspi-firmware/"+name, "firmware "+name)
	}
	for _, name := range board.DeviceTrees {
		write(t, root, "/usr/lib/linux-image-6.12/broadcom/"+name, "tree "+name)
	}
	write(t, root, "/boot/vmlinuz-6.12", strings.Repeat("kernel", 100_000))
	write(t, root, "/usr/bin/htop", "the program htop")
	write(t, root, "/usr/bin/tool", "ours")
	write(t, root, "/usr/bin/tool.real", "theirs")
	write(t, root, "/var/lib/dpkg/diversions", "/usr/bin/tool\n/usr/bin/tool.real\nhtop\n")
	sum := func(s string) string { d := md5.Sum([]byte(s)); return hex.EncodeToString(d[:]) }
	write(t, root, "/var/lib/dpkg/info/htop.md5sums", sum("the program htop")+"  usr/bin/htop\n"+sum("ours")+"  usr/bin/tool\n")
	write(t, root, "/var/lib/dpkg/info/tool:arm64.md5sums", sum("theirs")+"  usr/bin/tool\n")
	if err := errors.Join(root.MkdirAll(nodeconf.BootDir, 0o755), root.Symlink("/boot/firmware/config.txt", "/etc-config")); err != nil {
		t.Fatal(err)
	}
	return root
}

func testInitramfs(t *testing.T) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(bytes.Repeat([]byte("archive "), 1000), nil)
}

// testBoot is the boot partition that belongs to the root.
func testBoot(t *testing.T, root *tree.Tree, table disk.Table) *tree.Tree {
	t.Helper()
	board, _ := firmware.Lookup("rpi3")
	boot, err := firmware.BootPartition(root, firmware.Options{
		Boards: []firmware.Board{board}, Kernel: "6.12", Initramfs: tree.Bytes(testInitramfs(t)),
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, boot, "/cmdline.txt", firmware.CommandLine([]firmware.Board{board}, "PARTUUID="+table.PARTUUID(2)))
	node := nodeconf.Node{Hostname: "rpi1", Board: "rpi3", Number: 1}
	text, err := node.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, boot, "/"+nodeconf.Path, string(text))
	return boot
}

// writeCard makes an image; change may spoil the trees before.
func writeCard(t *testing.T, change func(boot, root *tree.Tree)) *os.File {
	t.Helper()
	ctx := context.Background()
	f, err := os.Create(filepath.Join(t.TempDir(), "rpi1.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	const rootSize = 32 << 20
	table := disk.ForCard(0xcafe1234, fat.MinSize, rootSize)
	root := testRoot(t)
	boot := testBoot(t, root, table)
	if change != nil {
		change(boot, root)
	}
	b, r := table.Partitions[0], table.Partitions[1]
	_, rootErr := ext4.Write(ctx, io.NewOffsetWriter(f, r.Start), root, ext4.Options{Size: r.Size, Label: "rootfs", Epoch: epoch})
	err = errors.Join(
		f.Truncate(table.Size()),
		table.Write(f),
		fat.Write(io.NewOffsetWriter(f, b.Start), boot, fat.Options{Size: b.Size, Label: "bootfs", VolumeID: 1}),
		rootErr,
	)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func check(t *testing.T, f *os.File) []string {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	err = Check(context.Background(), f, info.Size())
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func TestCheckFindsNothing(t *testing.T) {
	if faults := check(t, writeCard(t, nil)); faults != nil {
		t.Errorf("%q", faults)
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	tests := []struct {
		name   string
		change func(boot, root *tree.Tree) error
		want   []string
	}{
		{"firmware", func(b, _ *tree.Tree) error { return b.Remove("/start.elf") },
			[]string{"boot file start.elf: cannot find it"}},
		{"device tree", func(b, _ *tree.Tree) error { return b.WriteFile("/bcm2837-rpi-3-b.dtb", []byte("short"), 0o644) },
			[]string{"boot file bcm2837-rpi-3-b.dtb: differs from the one that the root file system has"}},
		{"kernel", func(b, _ *tree.Tree) error { return b.Remove("/vmlinuz-6.12") },
			[]string{"boot file vmlinuz-6.12: cannot find it", "boot file config.txt: cannot find the kernel vmlinuz-6.12"}},
		{"initramfs", func(b, _ *tree.Tree) error { return b.Remove("/initrd.img-6.12") },
			[]string{"boot file config.txt: cannot find the initramfs initrd.img-6.12"}},
		{"config.txt", func(b, _ *tree.Tree) error { return b.Remove("/config.txt") },
			[]string{"boot partition: stat /config.txt: file does not exist"}},
		{"command line", func(b, _ *tree.Tree) error { return b.WriteFile("/cmdline.txt", []byte("root=/dev/sda2\n"), 0o644) },
			[]string{"boot file cmdline.txt: cannot find root=PARTUUID=cafe1234-02, the root partition's name"}},
		{"node.yaml", func(b, _ *tree.Tree) error { return b.Remove("/" + nodeconf.Path) },
			[]string{"boot partition: stat /picube/node.yaml: file does not exist"}},
		{"package file", func(_, r *tree.Tree) error { return r.WriteFile("/usr/bin/htop", []byte("the program hpot"), 0o755) },
			[]string{"package htop: file /usr/bin/htop: differs from the package's"}},
		{"diverted file", func(_, r *tree.Tree) error { return r.Remove("/usr/bin/tool.real") },
			[]string{"package tool:arm64: cannot find /usr/bin/tool.real"}},
	}
	for _, test := range tests {
		f := writeCard(t, func(boot, root *tree.Tree) {
			if err := test.change(boot, root); err != nil {
				t.Fatal(err)
			}
		})
		if got := check(t, f); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestCheckNamesDamage flips bytes of a finished image.
func TestCheckNamesDamage(t *testing.T) {
	table := disk.ForCard(0xcafe1234, fat.MinSize, 32<<20)
	boot, root := table.Partitions[0].Start, table.Partitions[1].Start
	tests := []struct {
		name string
		at   int64
		want string // begins a fault
	}{
		{"signature", 510, "partition table: "},
		{"disk id", 440, "boot file cmdline.txt: "},
		{"table entry", 446 + 16 + 8, "partition table: "},
		{"type of the root partition", 446 + 16 + 4, "partition table: "},
		{"boot sector", boot + 11, "boot partition: "},
		{"superblock", root + 1024 + 0x38, "root file system: "},
		{"superblock's count", root + 1024 + 0x0C, "root file system: "},
		{"group descriptor", root + 4096 + 8, "root file system: "},
	}
	for _, test := range tests {
		f := writeCard(t, nil)
		flip(t, f, test.at)
		faults := check(t, f)
		if !slices.ContainsFunc(faults, func(s string) bool { return strings.HasPrefix(s, test.want) }) {
			t.Errorf("%s: %q, want one that begins with %q", test.name, faults, test.want)
		}
	}
}

// TestCheckNamesDamagedContent flips a byte of what files hold, where neither
// file system has a checksum.
func TestCheckNamesDamagedContent(t *testing.T) {
	tests := []struct {
		text []byte
		want []string
	}{
		{[]byte(strings.Repeat("kernel", 1000)), []string{"boot file vmlinuz-6.12: differs from the one that the root file system has"}},
		{testInitramfs(t)[:20], []string{"boot file initrd.img-6.12: cannot decode it"}},
		{[]byte("the program htop"), []string{"package htop: file /usr/bin/htop: differs from the package's"}},
	}
	for _, test := range tests {
		f := writeCard(t, nil)
		image, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(image, test.text)
		if at < 0 {
			t.Fatalf("%.20q isn't in the image", test.text)
		}
		flip(t, f, int64(at+10))
		faults := check(t, f)
		if len(faults) != 1 || !strings.HasPrefix(faults[0], test.want[0]) {
			t.Errorf("%.20q: %q, want %q", test.text, faults, test.want)
		}
	}
}

func flip(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xFF
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	f := writeCard(t, nil)
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(context.Background(), f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path, want string
		boot       bool
	}{
		{"/usr/bin/../bin/htop", "/usr/bin/htop", false},
		{"boot/firmware", "/", true},
		{"/boot/firmware/picube/node.yaml", "/picube/node.yaml", true},
		{"/etc-config", "/config.txt", true},
		{"/boot/firmwares", "/boot/firmwares", false},
	}
	for _, test := range tests {
		got, p, err := c.Resolve(test.path)
		if err != nil || p != test.want || (got == c.Boot) != test.boot {
			t.Errorf("%s: %s, boot %v, %v", test.path, p, got == c.Boot, err)
		}
	}
	node, err := c.Node()
	if err != nil || node.Hostname != "rpi1" {
		t.Errorf("%v %v", node, err)
	}
}

func TestOtherFiles(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty": nil, "text": bytes.Repeat([]byte("hello"), 1000), "zeros": make([]byte, 1<<20),
	} {
		if err := Check(context.Background(), bytes.NewReader(data), int64(len(data))); err == nil {
			t.Errorf("%s: nothing is wrong with it", name)
		}
	}
}
