//go:build long

package boot

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debtest"
	"github.com/picube/picube-build/builder/depmod"
	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/initramfs"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
)

const diskID = 0xCAFE1234

// kernelRoot is a tree with Debian's kernel and the Pis' firmware.
func kernelRoot(t *testing.T) *tree.Tree {
	t.Helper()
	root := tree.New(1_700_000_000)
	debtest.Unpack(t, root, debtest.Deb(t, debtest.Main("arm64"), debtest.Kernel(t, "arm64")))
	debtest.Unpack(t, root, debtest.Deb(t, debtest.Firmware("arm64"), "raspi-firmware"))
	version, err := firmware.Kernel(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := depmod.Run(t.Context(), root, version); err != nil {
		t.Fatal(err)
	}
	return root
}

// program compiles a static program for the card.
func program(t *testing.T, dir string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(dir))
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", dir, err, text)
	}
	return out
}

type card struct {
	image  string
	boot   *tree.Tree
	kernel string
}

// writeCard makes a card from Debian's kernel whose root holds nothing but
// the test's own init.
func writeCard(t *testing.T, board string) card {
	t.Helper()
	b, ok := firmware.Lookup(board)
	if !ok {
		t.Fatalf("no board %s", board)
	}
	boards := []firmware.Board{b}
	root := kernelRoot(t)
	version, err := firmware.Kernel(root)
	if err != nil {
		t.Fatal(err)
	}
	init, err := os.ReadFile(program(t, "./testdata/init"))
	if err != nil {
		t.Fatal(err)
	}
	var initrd bytes.Buffer
	begin := time.Now()
	if err := initramfs.Build(root, version, init, firmware.Modules(boards), &initrd); err != nil {
		t.Fatal(err)
	}
	t.Logf("initramfs: %d bytes in %v, of it a program of %d", initrd.Len(), time.Since(begin), len(init))
	boot, err := firmware.BootPartition(root, firmware.Options{Boards: boards, Kernel: version, Initramfs: tree.Bytes(initrd.Bytes())})
	if err != nil {
		t.Fatal(err)
	}
	table := disk.ForCard(diskID, 128<<20, 64<<20)
	if err := errors.Join(
		boot.WriteFile("/cmdline.txt", []byte(firmware.CommandLine(boards, "PARTUUID="+table.PARTUUID(2))), 0o644),
		boot.Mkdir("/picube", 0o755),
		boot.WriteFile("/picube/hostname", []byte("rpi1\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	system := filepath.Join(dir, "root")
	for _, d := range []string{"sbin", "etc", "proc", "sys", "dev", "run"} {
		if err := os.MkdirAll(filepath.Join(system, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(program(t, "./testdata/system"), filepath.Join(system, "sbin", "init")); err != nil {
		t.Fatal(err)
	}
	ext4 := filepath.Join(dir, "root.ext4")
	if text, err := exec.Command("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-L", RootLabel, "-d", system, ext4, "64M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, text)
	}

	c := card{image: filepath.Join(dir, "card.img"), boot: boot, kernel: version}
	f, err := os.Create(c.image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := os.ReadFile(ext4)
	if err != nil {
		t.Fatal(err)
	}
	part := table.Partitions
	_, werr := f.WriteAt(data, part[1].Start)
	if err := errors.Join(
		werr,
		f.Truncate(256<<20), // QEMU's SD cards are powers of two
		table.Write(f),
		fat.Write(io.NewOffsetWriter(f, part[0].Start), boot, fat.Options{Size: part[0].Size, Label: BootLabel}),
	); err != nil {
		t.Fatal(err)
	}
	return c
}

// extract writes a file of the boot partition to where QEMU finds it.
func (c card) extract(t *testing.T, p string) string {
	t.Helper()
	data, err := c.boot.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), path.Base(p))
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// start runs a card until its console says one of the last words, and returns
// the console. A Pi in QEMU cannot be switched off from within.
func (c card) start(t *testing.T, limit time.Duration, line string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	args = append(args, "-nographic", "-no-reboot", "-kernel", c.extract(t, "/vmlinuz-"+c.kernel),
		"-initrd", c.extract(t, "/initrd.img-"+c.kernel), "-append", line)
	cmd := exec.CommandContext(ctx, "qemu-system-aarch64", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var console strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		console.WriteString(strings.ReplaceAll(lines.Text(), "\r", "") + "\n")
		if strings.Contains(lines.Text(), "system: done") || strings.Contains(lines.Text(), "picube: restarting in") {
			cancel()
		}
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		t.Errorf("qemu: %v", err)
	}
	return console.String()
}

func (c card) virt(t *testing.T, limit time.Duration, line string) string {
	t.Helper()
	return c.start(t, limit, line, "-M", "virt", "-nic", "none", "-cpu", "cortex-a72", "-m", "512",
		"-drive", "if=none,id=card,format=raw,file="+c.image, "-device", "virtio-blk-pci,drive=card")
}

// expect wants lines in the console, in this order.
func expect(t *testing.T, console string, lines ...string) {
	t.Helper()
	rest := console
	for _, l := range lines {
		i := strings.Index(rest, l)
		if i < 0 {
			t.Fatalf("the console lacks %q:\n%s", l, console)
		}
		rest = rest[i+len(l):]
	}
	for line := range strings.Lines(console) {
		if strings.Contains(line, "picube:") || strings.Contains(line, "system:") || strings.Contains(line, "Run /init") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

var started = []string{
	"picube: starting the system on ",
	`system: pid 1, hostname "rpi1" <nil>`,
	`system: arguments ["/sbin/init"`,
	" / ext4 rw",
	"system: done",
}

func TestVirt(t *testing.T) {
	c := writeCard(t, "virt")
	line, err := c.boot.ReadFile("/cmdline.txt")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, c.virt(t, 5*time.Minute, strings.TrimSpace(string(line))), started...)
	for _, spec := range []string{"LABEL=" + RootLabel, "/dev/vda2"} {
		expect(t, c.virt(t, 5*time.Minute, "console=ttyAMA0 quiet rw rootwait root="+spec), started[1:]...)
	}
}

func TestVirtFails(t *testing.T) {
	c := writeCard(t, "virt")
	console := c.virt(t, 5*time.Minute, "console=ttyAMA0 rootwait=11 root=PARTUUID=deadbeef-02")
	expect(t, console,
		"picube: waiting for root=PARTUUID=deadbeef-02; there is vda, vda1 PARTUUID=cafe1234-01, vda2 PARTUUID=cafe1234-02 UUID=",
		"picube: cannot start: root=PARTUUID=deadbeef-02: cannot find it in 11s; there is vda, ",
		"picube: restarting in 1m0s")
}

func TestRaspi3B(t *testing.T) {
	c := writeCard(t, "rpi3")
	line, err := c.boot.ReadFile("/cmdline.txt")
	if err != nil {
		t.Fatal(err)
	}
	console := c.start(t, 10*time.Minute, strings.TrimSpace(string(line)), "-M", "raspi3b",
		"-dtb", c.extract(t, "/bcm2837-rpi-3-b.dtb"), "-drive", "if=sd,format=raw,file="+c.image, "-serial", "null", "-serial", "stdio", "-monitor", "none")
	expect(t, console, started...)
}
