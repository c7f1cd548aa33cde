package emulator

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
)

// boot is what a Pi's firmware would load from a card: the paths of files on
// the boot partition, and the kernel's command line.
type boot struct {
	files       *tree.Tree
	kernel      string
	initramfs   string // empty: none
	deviceTree  string // empty for virt
	commandLine string
}

// readBoot looks into a card's boot partition as the firmware of the board
// does. filters are the sections of config.txt that apply, besides [all].
func readBoot(r io.ReaderAt, size int64, b board, filters ...string) (*boot, error) {
	p, err := bootPartition(r, size)
	if err != nil {
		return nil, err
	}
	fs, err := fat.Open(io.NewSectionReader(r, p.Start, p.Size), p.Size)
	if err != nil {
		return nil, fmt.Errorf("boot partition: %w", err)
	}
	files, err := fs.Tree()
	if err != nil {
		return nil, fmt.Errorf("boot partition: %w", err)
	}
	return findBoot(files, b, filters...)
}

func findBoot(files *tree.Tree, b board, filters ...string) (*boot, error) {
	c := config{kernel: "kernel8.img", commandLine: "cmdline.txt"}
	if b.filter == "pi2" {
		c.kernel = "kernel7.img"
	}
	if text, err := files.ReadFile("/config.txt"); err == nil {
		c.parse(string(text), append(filters, b.filter))
	}
	out := &boot{files: files}
	var missing []error
	find := func(what, name string) string {
		p, ok := lookup(files, name)
		if !ok {
			missing = append(missing, fmt.Errorf("boot partition: cannot find the %s %s", what, name))
		}
		return p
	}
	out.kernel = find("kernel", c.prefix+c.kernel)
	if c.initramfs != "" {
		out.initramfs = find("initramfs", c.prefix+c.initramfs)
	} else if c.autoInitramfs && strings.HasPrefix(c.kernel, "kernel") {
		name := "initramfs" + strings.TrimSuffix(strings.TrimPrefix(c.kernel, "kernel"), ".img")
		out.initramfs, _ = lookup(files, c.prefix+name)
	}
	if len(b.trees) > 0 {
		out.deviceTree = findTree(files, b, c)
		if out.deviceTree == "" {
			missing = append(missing, fmt.Errorf("boot partition: cannot find a device tree for the board: %s", strings.Join(b.trees, " or ")))
		}
	}
	if p := find("command line", c.prefix+c.commandLine); p != "" {
		text, err := files.ReadFile(p)
		if err != nil {
			missing = append(missing, fmt.Errorf("boot partition: %w", err))
		}
		line, _, _ := strings.Cut(string(text), "\n")
		out.commandLine = kernelArgs(strings.TrimSpace(line), b)
	}
	return out, errors.Join(missing...)
}

func findTree(files *tree.Tree, b board, c config) string {
	names := b.trees
	if c.deviceTree != "" {
		names = []string{c.deviceTree}
	}
	for _, name := range names {
		if p, ok := lookup(files, c.prefix+name); ok {
			return p
		}
	}
	return ""
}

// config is what matters here of config.txt.
// Source: https://www.raspberrypi.com/documentation/computers/config_txt.html
type config struct {
	kernel, initramfs, deviceTree, commandLine, prefix string
	autoInitramfs                                      bool
}

func (c *config) parse(text string, filters []string) {
	applies := true
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			applies = filterApplies(strings.Trim(line, "[]"), filters)
			continue
		}
		if !applies {
			continue
		}
		// The one setting without an equals sign.
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "initramfs" {
			c.initramfs = f[1]
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "kernel":
			c.kernel = value
		case "device_tree":
			c.deviceTree = value
		case "cmdline":
			c.commandLine = value
		case "os_prefix":
			c.prefix = value
		case "auto_initramfs":
			c.autoInitramfs = value == "1"
		}
	}
}

func filterApplies(name string, filters []string) bool {
	if name == "all" {
		return true
	}
	for _, f := range filters {
		if f == name {
			return true
		}
	}
	return false
}

// patience are systemd's time limits in the guest (systemd(1), "Kernel command
// line"): in software on a busy host everything takes ten times as long, and
// a unit that was given up for that reason says nothing about the card.
func patience() []string {
	return []string{"systemd.default_timeout_start_sec=15min", "systemd.default_device_timeout_sec=15min"}
}

// usbNetwork keeps cdc_subset from QEMU's USB network card (kmod's
// modprobe.blacklist). Both it and cdc_ether, which udev loads side by side,
// take the card's vendor id for theirs; if cdc_subset is first there is an
// interface, and no frame ever passes.
const usbNetwork = "modprobe.blacklist=cdc_subset"

// unguarded switches off what guards a kernel from what a processor does by
// speculation (kernel parameters, arm64): QEMU's translated code does none of
// it. Page table isolation, which KASLR forces on, empties the emulated TLB
// twice in every system call.
func unguarded() []string { return []string{"kpti=0", "mitigations=off"} }

// kernelArgs leaves a command line as it is on the card, but for the console
// (the line that QEMU shows us is another than a Pi's), systemd's patience and
// the network card, which is another too.
func kernelArgs(line string, b board) string {
	var args []string
	for _, arg := range strings.Fields(line) {
		if !strings.HasPrefix(arg, "console=") && !strings.HasPrefix(arg, "earlycon=") {
			args = append(args, arg)
		}
	}
	args = append(args, "console="+b.console+",115200")
	if b.real() {
		args = append(args, usbNetwork)
	}
	args = append(args, unguarded()...)
	return strings.Join(append(args, patience()...), " ")
}

// lookup finds a file on a FAT, where case does not matter.
func lookup(files *tree.Tree, name string) (string, bool) {
	name = path.Clean("/" + name)
	for p, n := range files.All() {
		if n.IsRegular() && strings.EqualFold(p, name) {
			return p, true
		}
	}
	return "", false
}

// extract writes one of the card's boot files to a folder, for QEMU to load,
// and returns its path. It is named after its content, so that nodes which
// boot the same kernel share it.
func (b *boot) extract(dir, p string) (string, error) {
	if p == "" {
		return "", nil
	}
	n, err := b.files.Lstat(p)
	if err != nil {
		return "", fmt.Errorf("boot partition: %w", err)
	}
	f, err := os.CreateTemp(dir, "boot-*.part")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if n.Content != nil {
		_, err = io.Copy(io.MultiWriter(f, sum), io.NewSectionReader(n.Content, 0, n.Content.Size()))
	}
	out := filepath.Join(dir, fmt.Sprintf("boot-%x", sum.Sum(nil)[:8]))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("boot partition: %s: %w", p, err), os.Remove(f.Name()))
	}
	return out, nil
}

// bootPartition finds the first FAT partition.
func bootPartition(r io.ReaderAt, size int64) (disk.Partition, error) {
	table, err := disk.Read(r, size)
	if err != nil {
		return disk.Partition{}, err
	}
	for _, p := range table.Partitions {
		switch p.Type {
		case 0x06, 0x0b, 0x0c, 0x0e: // FAT16 and FAT32
			return p, nil
		}
	}
	return disk.Partition{}, errors.New("cannot find a FAT partition to boot from")
}
