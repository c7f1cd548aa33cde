package firmware

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/tree"
)

const (
	v8   = "6.12.47+rpt-rpi-v8"
	chip = "6.12.47+rpt-rpi-2712"
)

var raspios = []string{
	"/boot/vmlinuz-6.6.20+rpt-rpi-v8",
	"/boot/vmlinuz-" + v8,
	"/boot/vmlinuz-" + v8 + "-rt",
	"/boot/vmlinuz-" + chip,
	"/usr/lib/linux-image-" + v8 + "/broadcom/bcm2711-rpi-4-b.dtb",
	"/usr/lib/linux-image-" + v8 + "/broadcom/bcm2711-rpi-400.dtb",
	"/usr/lib/linux-image-" + v8 + "/broadcom/bcm2712-rpi-5-b.dtb",
	"/usr/lib/linux-image-" + v8 + "/overlays/overlay_map.dtb",
	"/usr/lib/linux-image-" + chip + "/broadcom/bcm2712-rpi-5-b.dtb",
	"/usr/lib/linux-image-" + chip + "/broadcom/bcm2712d0-rpi-5-b.dtb",
	"/usr/lib/linux-image-" + chip + "/overlays/overlay_map.dtb",
	"/usr/lib/linux-image-" + chip + "/overlays/bcm2712d0.dtbo",
	"/usr/lib/raspi-firmware/start4.elf",
	"/usr/lib/raspi-firmware/fixup4.dat",
	"/etc/default/raspi-firmware-custom",
}

func initramfsOf(version string) (tree.Content, error) {
	return tree.Bytes([]byte("initramfs of " + version)), nil
}

func TestRaspiosBootPartition(t *testing.T) {
	got, err := RaspiosBootPartition(root(t, raspios...), boards(t, "rpi4", "rpi5"), initramfsOf)
	if err != nil {
		t.Fatal(err)
	}
	content := contents(t, got)
	from := func(p string) string { return "content of /usr/lib/" + p }
	want := map[string]string{
		"/start4.elf":               "content of /usr/lib/raspi-firmware/start4.elf",
		"/fixup4.dat":               "content of /usr/lib/raspi-firmware/fixup4.dat",
		"/kernel8.img":              "content of /boot/vmlinuz-" + v8,
		"/kernel_2712.img":          "content of /boot/vmlinuz-" + chip,
		"/initramfs8":               "initramfs of " + v8,
		"/initramfs_2712":           "initramfs of " + chip,
		"/bcm2711-rpi-4-b.dtb":      from("linux-image-" + v8 + "/broadcom/bcm2711-rpi-4-b.dtb"),
		"/bcm2711-rpi-400.dtb":      from("linux-image-" + v8 + "/broadcom/bcm2711-rpi-400.dtb"),
		"/bcm2712-rpi-5-b.dtb":      from("linux-image-" + chip + "/broadcom/bcm2712-rpi-5-b.dtb"),
		"/bcm2712d0-rpi-5-b.dtb":    from("linux-image-" + chip + "/broadcom/bcm2712d0-rpi-5-b.dtb"),
		"/overlays/overlay_map.dtb": from("linux-image-" + chip + "/overlays/overlay_map.dtb"),
		"/overlays/bcm2712d0.dtbo":  from("linux-image-" + chip + "/overlays/bcm2712d0.dtbo"),
		"/config.txt": `# http://rptl.io/configtxt

arm_64bit=1
enable_uart=1
auto_initramfs=1
dtparam=i2c_arm=on
[cm4]
otg_mode=1
[cm5]
dtoverlay=dwc2,dr_mode=host
[all]
content of /etc/default/raspi-firmware-custom`,
	}
	if diff := cmp.Diff(want, content); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRaspiosLacks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  []string
		boards []string
		want   string
	}{
		{"kernels", []string{"/boot/vmlinuz-6.12.47-arm64", "/usr/lib/raspi-firmware/start.elf"}, []string{"rpi5", "rpi4"},
			"kernel: cannot find /boot/vmlinuz-*-rpi-2712\nkernel: cannot find /boot/vmlinuz-*-rpi-v8"},
		{"overlays and a tree", slices.DeleteFunc(slices.Clone(raspios), func(p string) bool { return strings.Contains(p, "overlay_map") || strings.Contains(p, "2712-rpi") }),
			[]string{"rpi5"}, "board rpi5: cannot find bcm2712-rpi-5-b.dtb for the boot partition\nboard rpi5: cannot find overlays/overlay_map.dtb for the boot partition"},
		{"nothing", raspios, []string{"rpi4"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := RaspiosBootPartition(root(t, tt.files...), boards(t, tt.boards...), nil)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	broken := func(string) (tree.Content, error) { return nil, errors.New("no memory") }
	if _, err := RaspiosBootPartition(root(t, raspios...), boards(t, "rpi5"), broken); err == nil || err.Error() != "no memory" {
		t.Errorf("the initramfs: %v", err)
	}
}

func TestRaspiosPackages(t *testing.T) {
	want := []string{"initramfs-tools", "linux-image-rpi-2712", "linux-image-rpi-v8", "raspi-firmware"}
	if diff := cmp.Diff(want, RaspiosPackages(boards(t, "rpi3", "rpi5", "cm4"))); diff != "" {
		t.Error(diff)
	}
	virt := boards(t, "virt")[0]
	if virt.NotOnRaspios() == "" || boards(t, "rpi2")[0].NotOnRaspios() != "" {
		t.Error("virt must not, and rpi2 may run Raspberry Pi's kernel")
	}
}
