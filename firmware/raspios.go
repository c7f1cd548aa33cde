package firmware

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Raspios is how a board starts with the kernel and firmware of Raspberry Pi's
// archive.
type Raspios struct {
	// Flavour ends the kernel's package name and its version:
	// linux-image-rpi-v8, 6.12.47+rpt-rpi-v8.
	Flavour string
	// DeviceTrees are what the firmware may choose for the board.
	DeviceTrees []string
}

const (
	rpiV7   = "rpi-v7"
	rpiV8   = "rpi-v8"
	rpi2712 = "rpi-2712"
)

// raspiFiles are the names by which the firmware finds a kernel, and with
// auto_initramfs the initramfs that goes with it.
// Source: https://www.raspberrypi.com/documentation/computers/config_txt.html,
// "kernel" and "auto_initramfs".
func raspiFiles(flavour string) (kernel, initramfs string) {
	switch flavour {
	case rpiV7:
		return "kernel7.img", "initramfs7"
	case rpi2712:
		return "kernel_2712.img", "initramfs_2712"
	}
	return "kernel8.img", "initramfs8"
}

// NotOnRaspios says why Raspberry Pi's kernel does not start the board; empty:
// it does.
func (b Board) NotOnRaspios() string {
	if b.Raspios.Flavour != "" {
		return ""
	}
	return `Raspberry Pi's kernel runs on Raspberry Pis alone. Use base "debian".`
}

// flavours are the kernels that the boards need, sorted.
func flavours(boards []Board) []string {
	var names []string
	for _, b := range boards {
		if b.Raspios.Flavour != "" {
			names = append(names, b.Raspios.Flavour)
		}
	}
	return sorted(names)
}

// RaspiosPackages returns what a root file system for the boards needs of
// Raspberry Pi's archive to boot and to stay bootable, sorted.
func RaspiosPackages(boards []Board) []string {
	names := []string{"initramfs-tools", "raspi-firmware"}
	for _, f := range flavours(boards) {
		names = append(names, "linux-image-"+f)
	}
	return sorted(names)
}

// RaspiosKernels returns the versions of the newest kernel of each flavour that
// the boards need.
func RaspiosKernels(root *tree.Tree, boards []Board) ([]string, error) {
	names, err := root.ReadDir(kernelDir)
	if err != nil {
		return nil, fmt.Errorf("kernel: cannot find one: %w", err)
	}
	var versions []string
	var errs []error
	for _, f := range flavours(boards) {
		var found []string
		for _, name := range names {
			if version, ok := strings.CutPrefix(name, "vmlinuz-"); ok && strings.HasSuffix(version, "-"+f) {
				found = append(found, version)
			}
		}
		if len(found) == 0 {
			errs = append(errs, fmt.Errorf("kernel: cannot find %s/vmlinuz-*-%s", kernelDir, f))
			continue
		}
		versions = append(versions, slices.MaxFunc(found, compareVersions))
	}
	return versions, errors.Join(errs...)
}

// RaspiosBootPartition returns what cards of the boards share of their boot
// partition with Raspberry Pi's kernels, as the hook of Raspberry Pi's package
// raspi-firmware lays it out: the firmware, each kernel and its initramfs under
// the names that the firmware looks for, device trees, and overlays in a folder.
// It takes over at the first kernel upgrade on the card; config.txt and
// cmdline.txt it leaves alone.
//
// initramfs makes one for a kernel's version; nil: there is none.
func RaspiosBootPartition(root *tree.Tree, boards []Board, initramfs func(version string) (tree.Content, error)) (*tree.Tree, error) {
	t := tree.New(root.Epoch())
	if err := copyTree(t, root, firmwareDir); err != nil {
		return nil, err
	}
	versions, err := RaspiosKernels(root, boards)
	if err != nil {
		return nil, err
	}
	for i, version := range versions {
		kernel, initrd := raspiFiles(flavours(boards)[i])
		n, err := root.Stat(path.Join(kernelDir, "vmlinuz-"+version))
		if err != nil {
			return nil, fmt.Errorf("kernel: %w", err)
		}
		if err := errors.Join(put(t, "/"+kernel, n), raspiTrees(t, root, version)); err != nil {
			return nil, err
		}
		if initramfs == nil {
			continue
		}
		image, err := initramfs(version)
		if err == nil {
			err = t.WriteContent("/"+initrd, image, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	custom, err := readCustom(root)
	if err != nil {
		return nil, err
	}
	if err := t.WriteFile("/config.txt", []byte(RaspiosConfig(boards, custom)), 0o644); err != nil {
		return nil, err
	}
	return t, raspiMissing(t, boards)
}

// raspiTrees copies a kernel's device trees and overlays. What another kernel
// has brought stays: the 2712's comes first, and knows its own boards best.
func raspiTrees(t, root *tree.Tree, version string) error {
	trees, err := deviceTrees(root, version)
	if err != nil {
		return err
	}
	for p, n := range trees {
		if to := "/" + path.Base(p); !t.Exists(to) {
			err = errors.Join(err, put(t, to, n))
		}
	}
	dir := path.Join("/usr/lib/linux-image-"+version, "overlays")
	for p, n := range root.Below(dir) {
		to := "/overlays" + strings.TrimPrefix(p, dir)
		if !t.Exists(to) && n.IsRegular() {
			err = errors.Join(err, t.MkdirAll(path.Dir(to), 0o755), put(t, to, n))
		}
	}
	return err
}

func raspiMissing(t *tree.Tree, boards []Board) error {
	var errs []error
	for _, b := range boards {
		for _, name := range slices.Concat(b.Files, b.Raspios.DeviceTrees, []string{"overlays/overlay_map.dtb"}) {
			if !t.Exists("/" + name) {
				errs = append(errs, fmt.Errorf("board %s: cannot find %s for the boot partition", b.Name, name))
			}
		}
	}
	return errors.Join(errs...)
}

// RaspiosConfig returns config.txt for Raspberry Pi's kernels; custom are
// further lines.
//
//   - auto_initramfs=1: load the initramfs that belongs to the kernel.
//   - dtparam=i2c_arm=on: in Raspberry Pi's device trees the header's I2C is off.
//   - otg_mode, dwc2: the USB ports of Compute Modules are a host's.
func RaspiosConfig(boards []Board, custom string) string {
	var b strings.Builder
	b.WriteString("# http://rptl.io/configtxt\n\n")
	if slices.ContainsFunc(boards, func(b Board) bool { return b.Arch == "arm64" }) {
		b.WriteString("arm_64bit=1\n")
	}
	b.WriteString("enable_uart=1\nauto_initramfs=1\ndtparam=i2c_arm=on\n" +
		"[cm4]\notg_mode=1\n[cm5]\ndtoverlay=dwc2,dr_mode=host\n[all]\n")
	b.WriteString(custom)
	return b.String()
}

// RaspiosCommandLine returns cmdline.txt for Raspberry Pi's kernels. The
// firmware replaces serial0 by what the board's header has.
func RaspiosCommandLine(root string) string {
	return fmt.Sprintf("console=tty0 console=serial0,115200 root=%s %s %s\n", root, commandLine, ExtraCommandLine)
}
