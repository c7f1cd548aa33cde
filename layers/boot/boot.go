// Package boot prepares a root file system to be started from a card, and to
// stay so when Debian's own hooks rebuild the boot partition at a kernel
// upgrade on the node.
package boot

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
)

// How a card's partitions are called. A root file system is shared by many
// cards, so it knows them by label only; the identity of each card replaces
// the labels by its own PARTUUIDs.
const (
	RootLabel = "rootfs"
	BootLabel = "bootfs"
)

// mountPoint is where raspi-firmware wants the boot partition.
const mountPoint = "/boot/firmware"

// fstab mounts the boot partition for root alone: it holds node.yaml. A card
// without it still starts (nofail), but what needs it says so. The system is
// on flash, where noting each reading of a file would be a write.
const fstab = `# <file system> <mount point> <type> <options> <dump> <pass>
LABEL=` + RootLabel + ` / ext4 defaults,noatime,errors=remount-ro 0 1
LABEL=` + BootLabel + ` ` + mountPoint + ` vfat defaults,noatime,umask=0077,nofail,x-systemd.device-timeout=10min 0 2
`

// initramfsConf is for the initramfs that Debian builds at a kernel upgrade:
// it may run on any machine, not only on the one that builds it, and there is
// no swap to resume from.
const initramfsConf = `# A card must start on other boards too, and in QEMU.
MODULES=most
RESUME=none
`

// Layer is the boot chain of a card.
type Layer struct{}

// Name returns "boot".
func (Layer) Name() string { return "boot" }

// Packages returns the kernel and firmware of the root's boards; someone
// else's image has its own.
func (Layer) Packages(r *plan.Root) []string {
	if r.Cube.Base.Kind == blueprint.BaseImage {
		return nil
	}
	boards, err := boards(r)
	if err != nil {
		return nil // Apply says why
	}
	if r.Cube.Base.Kind == blueprint.BaseRaspios {
		return firmware.RaspiosPackages(boards)
	}
	return firmware.Packages(boards)
}

// Apply writes fstab and the settings of raspi-firmware and initramfs-tools.
// Someone else's image boots as its maker meant it to (builder/baseimage).
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	if r.Cube.Base.Kind == blueprint.BaseImage {
		return nil
	}
	boards, err := boards(r)
	if err != nil {
		return err
	}
	files := map[string]string{
		"/etc/fstab":                         fstab,
		"/etc/default/raspi-firmware":        raspiFirmware(boards),
		"/etc/default/raspi-extra-cmdline":   firmware.ExtraCommandLine + "\n",
		"/etc/initramfs-tools/conf.d/picube": initramfsConf,
		"/etc/default/raspi-firmware-custom": firmware.Custom(boards),
	}
	if r.Cube.Base.Kind == blueprint.BaseRaspios { // its hooks leave config.txt and cmdline.txt alone
		for p := range files {
			if strings.HasPrefix(p, "/etc/default/raspi-") {
				delete(files, p)
			}
		}
	}
	for p, text := range files {
		if text == "" {
			continue
		}
		if err := errors.Join(t.MkdirAll(path.Dir(p), 0o755), t.WriteFile(p, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	if err := emptyMountPoint(t); err != nil {
		return err
	}
	return forgetInitrd(t)
}

// emptyMountPoint drops what raspi-firmware's postinst copied to where the
// boot partition will hide it.
func emptyMountPoint(t *tree.Tree) error {
	if err := t.RemoveAll(mountPoint); err != nil {
		return err
	}
	return t.MkdirAll(mountPoint, 0o755)
}

// forgetInitrd removes the links to an initrd below /boot. Ours lies on the
// boot partition only. With such a link, or with the file, every upgrade of
// udev or kmod would make the node build Debian's for minutes; without, it is
// built when there is a new kernel.
func forgetInitrd(t *tree.Tree) error {
	for _, p := range []string{"/initrd.img", "/initrd.img.old", "/boot/initrd.img", "/boot/initrd.img.old"} {
		if _, err := t.Readlink(p); err != nil || t.Exists(p) {
			continue
		}
		if err := t.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// raspiFirmware is what raspi-firmware's hooks read. Without ROOTPART they
// would guess, and a CMA would keep a Pi 4 from starting.
func raspiFirmware(boards []firmware.Board) string {
	return fmt.Sprintf(`# Read by /etc/kernel/postinst.d/z50-raspi-firmware when kernel or firmware are
# upgraded; it writes config.txt and cmdline.txt anew.
CMA=0
ROOTPART="LABEL=%s"
KERNEL="auto"
INITRAMFS="auto"
CONSOLES="%s"
`, RootLabel, strings.Join(firmware.Consoles(boards), " "))
}

func boards(r *plan.Root) ([]firmware.Board, error) {
	var out []firmware.Board
	var errs []error
	for _, name := range r.Boards {
		b, ok := firmware.Lookup(name)
		if !ok {
			errs = append(errs, fmt.Errorf("board %s: cannot find it in the board table", name))
		}
		out = append(out, b)
	}
	return out, errors.Join(errs...)
}
