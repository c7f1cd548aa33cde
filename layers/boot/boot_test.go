package boot

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

func TestApply(t *testing.T) {
	out := tree.New(0)
	if err := out.Symlink("boot/initrd.img-6.12", "/initrd.img"); err != nil {
		t.Fatal(err)
	}
	if err := out.MkdirAll("/boot/firmware/overlays", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := out.WriteFile("/boot/firmware/overlays/README.md", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := &plan.Root{Boards: []string{"rpi3", "virt", "zero2w"}, Cube: &blueprint.Cube{}}
	for range 2 { // the second time it changes nothing
		if err := (Layer{}).Apply(r, out); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]string{}
	for p, n := range out.All() {
		if !n.IsDir() {
			data, err := out.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			got[p] = string(data)
		}
	}
	want := map[string]string{
		"/etc/fstab": `# <file system> <mount point> <type> <options> <dump> <pass>
LABEL=rootfs / ext4 defaults,noatime,errors=remount-ro 0 1
LABEL=bootfs /boot/firmware vfat defaults,noatime,umask=0077,nofail,x-systemd.device-timeout=10min 0 2
`,
		"/etc/default/raspi-firmware": `# Read by /etc/kernel/postinst.d/z50-raspi-firmware when kernel or firmware are
# upgraded; it writes config.txt and cmdline.txt anew.
CMA=0
ROOTPART="LABEL=rootfs"
KERNEL="auto"
INITRAMFS="auto"
CONSOLES="tty0 ttyS1,115200"
`,
		"/etc/default/raspi-extra-cmdline":   "cgroup_enable=memory cgroup_memory=1\n",
		"/etc/default/raspi-firmware-custom": "[pi02]\ndevice_tree=bcm2837-rpi-zero-2-w.dtb\n[all]\n",
		"/etc/initramfs-tools/conf.d/picube": `# A card must start on other boards too, and in QEMU.
MODULES=most
RESUME=none
`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"initramfs-tools", "linux-image-arm64", "raspi-firmware"}, Layer{}.Packages(r)); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownBoard(t *testing.T) {
	err := Layer{}.Apply(&plan.Root{Boards: []string{"rpi9", "rpi3", "pdp11"}, Cube: &blueprint.Cube{}}, tree.New(0))
	want := "board rpi9: cannot find it in the board table\nboard pdp11: cannot find it in the board table"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// TestApplyRaspios leaves config.txt and cmdline.txt to the user, as Raspberry
// Pi's own hooks do.
func TestApplyRaspios(t *testing.T) {
	out := tree.New(0)
	r := &plan.Root{Boards: []string{"rpi4", "rpi5"}, Cube: &blueprint.Cube{Base: blueprint.Base{Kind: blueprint.BaseRaspios}}}
	if err := (Layer{}).Apply(r, out); err != nil {
		t.Fatal(err)
	}
	var got []string
	for p, n := range out.All() {
		if !n.IsDir() {
			got = append(got, p)
		}
	}
	if diff := cmp.Diff([]string{"/etc/fstab", "/etc/initramfs-tools/conf.d/picube"}, got); diff != "" {
		t.Error(diff)
	}
	want := []string{"initramfs-tools", "linux-image-rpi-2712", "linux-image-rpi-v8", "raspi-firmware"}
	if diff := cmp.Diff(want, (Layer{}).Packages(r)); diff != "" {
		t.Error(diff)
	}
}
