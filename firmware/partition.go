package firmware

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Where Debian's packages keep what belongs on the boot partition.
const (
	firmwareDir = "/usr/lib/raspi-firmware"
	kernelDir   = "/boot"
	customFile  = "/etc/default/raspi-firmware-custom"
)

// commandLine are the kernel's arguments besides consoles and root, in the
// order in which raspi-firmware's hook writes them:
//
//   - rw: systemd need not remount it.
//   - fsck.repair=yes: nobody sits at the console to answer systemd-fsck.
//   - net.ifnames=0: the first wire is eth0 on every board.
//   - rootwait: cards appear late. Without a number it waits for ever.
//   - no cma=: it makes a Pi 4 unbootable (see /etc/default/raspi-firmware).
const commandLine = "rw fsck.repair=yes net.ifnames=0  rootwait"

// ExtraCommandLine goes into /etc/default/raspi-extra-cmdline, from where the
// hook takes it to the line's end: Kubernetes needs the memory cgroup, which
// Debian's kernel lets the first argument switch on and Raspberry Pi's the
// second.
const ExtraCommandLine = "cgroup_enable=memory cgroup_memory=1"

// Options say for what BootPartition is.
type Options struct {
	Boards    []Board
	Kernel    string       // version, as Kernel finds it
	Initramfs tree.Content // nil: none
}

// Kernel returns the version of the newest kernel in a root tree, as
// raspi-firmware's hook finds it: the last of /boot/vmlinuz-*.
func Kernel(root *tree.Tree) (string, error) {
	names, err := root.ReadDir(kernelDir)
	if err != nil {
		return "", fmt.Errorf("kernel: cannot find one: %w", err)
	}
	var versions []string
	for _, name := range names {
		version, ok := strings.CutPrefix(name, "vmlinuz-")
		if ok && !strings.HasSuffix(name, ".dpkg-bak") && !strings.HasSuffix(name, ".old-dkms") {
			versions = append(versions, version)
		}
	}
	if len(versions) == 0 {
		return "", fmt.Errorf("kernel: cannot find %s/vmlinuz-*", kernelDir)
	}
	return slices.MaxFunc(versions, compareVersions), nil
}

// compareVersions orders by runs of digits as numbers and of anything else as
// text, as sort -V does for what kernels are called.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a = run(a)
		y, b = run(b)
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func run(s string) (head, rest string) {
	n := 1
	for n < len(s) && isDigit(s[n]) == isDigit(s[0]) {
		n++
	}
	return s[:n], s[n:]
}

// BootPartition returns what the cards of the boards share of their boot
// partition, from a configured root tree. It lays things out as the hooks of
// Debian's raspi-firmware do (/etc/kernel/postinst.d/z50-raspi-firmware), so
// that they take over at the first kernel upgrade on the card. They
//
//   - copy /usr/lib/raspi-firmware/* and bcm*.dtb of the newest kernel,
//   - copy vmlinuz-VERSION and initrd.img-VERSION from /boot, and afterwards
//     delete every vmlinuz-* and initrd.img-* that is not in /boot,
//   - write config.txt and cmdline.txt anew from /etc/default/raspi-firmware,
//     raspi-firmware-custom and raspi-extra-cmdline,
//   - and do nothing as long as /boot holds no initrd.img-*, so our initramfs,
//     which lies on the boot partition only, stays until there is another.
//
// cmdline.txt is the node's own: see CommandLine.
func BootPartition(root *tree.Tree, o Options) (*tree.Tree, error) {
	t := tree.New(root.Epoch())
	if slices.ContainsFunc(o.Boards, Board.IsPi) {
		if err := copyTree(t, root, firmwareDir); err != nil {
			return nil, err
		}
	}
	trees, err := deviceTrees(root, o.Kernel)
	if err != nil {
		return nil, err
	}
	for p, n := range trees {
		if err := put(t, "/"+path.Base(p), n); err != nil {
			return nil, err
		}
	}
	kernel := "vmlinuz-" + o.Kernel
	n, err := root.Stat(path.Join(kernelDir, kernel))
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	if err := put(t, "/"+kernel, n); err != nil {
		return nil, err
	}
	initrd := ""
	if o.Initramfs != nil {
		initrd = "initrd.img-" + o.Kernel
		if err := t.WriteContent("/"+initrd, o.Initramfs, 0o644); err != nil {
			return nil, err
		}
	}
	custom, err := readCustom(root)
	if err != nil {
		return nil, err
	}
	config := Config(o.Boards, kernel, initrd, custom)
	if err := t.WriteFile("/config.txt", []byte(config), 0o644); err != nil {
		return nil, err
	}
	return t, missing(t, o.Boards)
}

// readCustom returns the lines for config.txt that layers have written.
func readCustom(root *tree.Tree) (string, error) {
	text, err := root.ReadFile(customFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

func put(t *tree.Tree, p string, n *tree.Inode) error {
	return t.Put(p, &tree.Inode{Mode: tree.TypeRegular | 0o644, ModTime: n.ModTime, Content: n.Content})
}

func copyTree(t, root *tree.Tree, dir string) error {
	if !root.Exists(dir) {
		return fmt.Errorf("%s: cannot find it: is raspi-firmware installed?", dir)
	}
	for p, n := range root.Below(dir) {
		to := strings.TrimPrefix(p, dir)
		var err error
		switch {
		case to == "":
		case n.IsDir():
			err = t.Mkdir(to, 0o755)
		case n.IsRegular():
			err = put(t, to, n)
		default:
			err = fmt.Errorf("%s: cannot put it on the boot partition: not a regular file", p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deviceTrees returns the Pis' device trees of a kernel. On armhf they lie
// without a folder for the vendor.
func deviceTrees(root *tree.Tree, kernel string) (map[string]*tree.Inode, error) {
	found := map[string]*tree.Inode{}
	base := "/usr/lib/linux-image-" + kernel
	for _, dir := range []string{base, path.Join(base, "broadcom")} {
		names, err := root.ReadDir(dir)
		if err != nil {
			continue // missing enumerates what a board lacks
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "bcm") || !strings.HasSuffix(name, ".dtb") {
				continue
			}
			p := path.Join(dir, name)
			n, err := root.Stat(p)
			if err != nil {
				return nil, fmt.Errorf("device tree %s: %w", p, err)
			}
			found[p] = n
		}
	}
	return found, nil
}

func missing(t *tree.Tree, boards []Board) error {
	var errs []error
	for _, b := range boards {
		for _, name := range slices.Concat(b.Files, b.DeviceTrees) {
			if !t.Exists("/" + name) {
				errs = append(errs, fmt.Errorf("board %s: cannot find %s for the boot partition", b.Name, name))
			}
		}
	}
	return errors.Join(errs...)
}

// Custom returns the lines for config.txt that the hook takes from
// /etc/default/raspi-firmware-custom.
func Custom(boards []Board) string {
	var b strings.Builder
	for _, board := range boards {
		if len(board.Config) > 0 {
			fmt.Fprintf(&b, "[%s]\n%s\n", board.Filter, strings.Join(board.Config, "\n"))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + "[all]\n"
}

// OwnConfig is the file of the boot partition with a node's own lines for
// config.txt, which itself is the same for all boards of a root.
const OwnConfig = "picube.txt"

// IncludeOwn lets config.txt include a node's own lines. A node without the
// file is none the worse: the firmware passes over it.
func IncludeOwn(root *tree.Tree) error {
	text, err := root.ReadFile(customFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		root.MkdirAll(path.Dir(customFile), 0o755),
		root.WriteFile(customFile, append(text, "include "+OwnConfig+"\n"...), 0o644))
}

// Config returns config.txt with the settings that the hook writes, in its
// order; custom are further lines.
//
//   - arm_64bit=1: start the kernel in AArch64.
//   - enable_uart=1: the mini UART's clock is fixed, so the console is legible.
//   - upstream_kernel=1: look for device trees under Linux' names (bcm2837-…)
//     rather than Raspberry Pi's (bcm2710-…).
//   - initramfs: without an address it is put where it does not overlap.
func Config(boards []Board, kernel, initrd, custom string) string {
	var b strings.Builder
	b.WriteString("# Every upgrade of kernel or firmware writes this file anew. To keep a setting,\n" +
		"# put it into " + customFile + " on the node.\n\n")
	if slices.ContainsFunc(boards, func(b Board) bool { return b.Arch == "arm64" }) {
		b.WriteString("arm_64bit=1\n")
	}
	fmt.Fprintf(&b, "enable_uart=1\nupstream_kernel=1\nkernel=%s\n", kernel)
	if initrd != "" {
		fmt.Fprintf(&b, "initramfs %s\n", initrd)
	}
	b.WriteString(custom)
	return b.String()
}

// CommandLine returns cmdline.txt as the hook writes it; root is what the
// kernel and init know the root partition by ("PARTUUID=cafe1234-02").
func CommandLine(boards []Board, root string) string {
	var b strings.Builder
	for _, c := range Consoles(boards) {
		fmt.Fprintf(&b, " console=%s", c)
	}
	fmt.Fprintf(&b, " root=%s %s %s\n", root, commandLine, ExtraCommandLine)
	return b.String()
}
