package firmware

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/tree"
)

const kernel = "6.12.107+deb13-arm64"

func root(t *testing.T, files ...string) *tree.Tree {
	t.Helper()
	out := tree.New(1_700_000_000)
	for _, p := range files {
		if err := out.MkdirAll(p[:strings.LastIndexByte(p, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := out.WriteFile(p, []byte("content of "+p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

var debian = []string{
	"/boot/vmlinuz-6.12.9+deb13-arm64",
	"/boot/vmlinuz-" + kernel,
	"/boot/vmlinuz-" + kernel + ".dpkg-bak",
	"/usr/lib/linux-image-" + kernel + "/broadcom/bcm2837-rpi-3-b.dtb",
	"/usr/lib/linux-image-" + kernel + "/broadcom/bcm2837-rpi-3-b-plus.dtb",
	"/usr/lib/linux-image-" + kernel + "/broadcom/bcm2837-rpi-3-a-plus.dtb",
	"/usr/lib/linux-image-" + kernel + "/broadcom/bcm2837-rpi-zero-2-w.dtb",
	"/usr/lib/linux-image-" + kernel + "/allwinner/sun50i-a64-pine64.dtb",
	"/usr/lib/raspi-firmware/bootcode.bin",
	"/usr/lib/raspi-firmware/start.elf",
	"/usr/lib/raspi-firmware/fixup.dat",
	"/usr/lib/raspi-firmware/overlays/README.md",
}

func boards(t *testing.T, names ...string) []Board {
	t.Helper()
	var out []Board
	for _, name := range names {
		b, ok := Lookup(name)
		if !ok {
			t.Fatalf("no board %s", name)
		}
		out = append(out, b)
	}
	return out
}

func TestBootPartition(t *testing.T) {
	r := root(t, debian...)
	version, err := Kernel(r)
	if err != nil {
		t.Fatal(err)
	}
	both := boards(t, "rpi3", "zero2w")
	if err := errors.Join(r.MkdirAll("/etc/default", 0o755), r.WriteFile(customFile, []byte(Custom(both)), 0o644), IncludeOwn(r)); err != nil {
		t.Fatal(err)
	}
	got, err := BootPartition(r, Options{Boards: both, Kernel: version, Initramfs: tree.Bytes([]byte("initramfs"))})
	if err != nil {
		t.Fatal(err)
	}
	content := contents(t, got)
	want := map[string]string{
		"/bootcode.bin":             "content of /usr/lib/raspi-firmware/bootcode.bin",
		"/start.elf":                "content of /usr/lib/raspi-firmware/start.elf",
		"/fixup.dat":                "content of /usr/lib/raspi-firmware/fixup.dat",
		"/overlays/README.md":       "content of /usr/lib/raspi-firmware/overlays/README.md",
		"/bcm2837-rpi-3-b.dtb":      "content of /usr/lib/linux-image-6.12.107+deb13-arm64/broadcom/bcm2837-rpi-3-b.dtb",
		"/bcm2837-rpi-3-b-plus.dtb": "content of /usr/lib/linux-image-6.12.107+deb13-arm64/broadcom/bcm2837-rpi-3-b-plus.dtb",
		"/bcm2837-rpi-3-a-plus.dtb": "content of /usr/lib/linux-image-6.12.107+deb13-arm64/broadcom/bcm2837-rpi-3-a-plus.dtb",
		"/bcm2837-rpi-zero-2-w.dtb": "content of /usr/lib/linux-image-6.12.107+deb13-arm64/broadcom/bcm2837-rpi-zero-2-w.dtb",

		"/vmlinuz-6.12.107+deb13-arm64":    "content of /boot/vmlinuz-6.12.107+deb13-arm64",
		"/initrd.img-6.12.107+deb13-arm64": "initramfs",
		"/config.txt": `# Every upgrade of kernel or firmware writes this file anew. To keep a setting,
# put it into /etc/default/raspi-firmware-custom on the node.

arm_64bit=1
enable_uart=1
upstream_kernel=1
kernel=vmlinuz-6.12.107+deb13-arm64
initramfs initrd.img-6.12.107+deb13-arm64
[pi02]
device_tree=bcm2837-rpi-zero-2-w.dtb
[all]
include picube.txt
`,
	}
	if diff := cmp.Diff(want, content); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBootPartitionLacks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  []string
		boards []string
		want   string
	}{
		{"device trees and firmware", debian, []string{"rpi4", "rpi3"}, `board rpi4: cannot find start4.elf for the boot partition
board rpi4: cannot find fixup4.dat for the boot partition
board rpi4: cannot find bcm2711-rpi-4-b.dtb for the boot partition
board rpi4: cannot find bcm2711-rpi-400.dtb for the boot partition`},
		{"package", debian[:4], []string{"rpi3"}, "/usr/lib/raspi-firmware: cannot find it: is raspi-firmware installed?"},
		{"kernel", nil, []string{"virt"}, "kernel: stat /boot/vmlinuz-6.12.107+deb13-arm64: file does not exist"},
		{"nothing for virt", debian[:2], []string{"virt"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := BootPartition(root(t, tt.files...), Options{Boards: boards(t, tt.boards...), Kernel: kernel})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := Kernel(root(t, "/boot/config-1")); err == nil || err.Error() != "kernel: cannot find /boot/vmlinuz-*" {
		t.Errorf("no kernel: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	const rest = " root=PARTUUID=cafe1234-02 rw fsck.repair=yes net.ifnames=0  rootwait cgroup_enable=memory cgroup_memory=1\n"
	for _, tt := range []struct {
		boards []string
		want   string
	}{
		{[]string{"rpi3"}, " console=tty0 console=ttyS1,115200" + rest},
		{[]string{"rpi3", "rpi4", "virt"}, " console=tty0 console=ttyS1,115200" + rest},
		{[]string{"virt"}, " console=ttyAMA0,115200" + rest},
	} {
		if diff := cmp.Diff(tt.want, CommandLine(boards(t, tt.boards...), "PARTUUID=cafe1234-02")); diff != "" {
			t.Errorf("%v: %s", tt.boards, diff)
		}
	}
}

// TestBoards holds what every row must say.
func TestBoards(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range Boards() {
		if seen[b.Name] {
			t.Errorf("%s is there twice", b.Name)
		}
		seen[b.Name] = true
		if b.Model == "" || b.Arch == "" || b.KernelPackage == "" || len(b.Consoles) == 0 || b.Memory == 0 || b.QEMU.Machine == "" {
			t.Errorf("%s: something is missing: %+v", b.Name, b)
		}
		if b.IsPi() != (len(b.DeviceTrees) > 0) || b.IsPi() != (b.Filter != "") {
			t.Errorf("%s: a Pi has firmware, device trees and a filter, another board none of them", b.Name)
		}
	}
	if diff := cmp.Diff([]string{"cm4", "rpi2", "rpi3", "rpi4", "rpi5", "virt", "zero2w"}, slices.Sorted(maps.Keys(seen))); diff != "" {
		t.Error(diff)
	}
}

func TestKernelOrder(t *testing.T) {
	want := []string{"6.1.0-9-arm64", "6.1.0-10-arm64", "6.12.9+deb13-arm64", "6.12.107+deb13-arm64", "6.12.107+deb13-arm64-x", "7.0-rc1"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// contents are the files of a tree, by path.
func contents(t *testing.T, files *tree.Tree) map[string]string {
	t.Helper()
	all := map[string]string{}
	for p, n := range files.All() {
		if n.IsRegular() {
			data, err := files.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			all[p] = string(data)
		}
	}
	return all
}
