package bootd

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCommandLine(t *testing.T) {
	none := map[string][]string{}
	for _, tt := range []struct {
		line string
		want commandLine
	}{
		{"", commandLine{fsType: "ext4", ro: true, wait: shortWait, modules: none}},
		{" console=tty0 console=ttyS1,115200 root=PARTUUID=cafe1234-02 rw fsck.repair=yes net.ifnames=0  rootwait cgroup_enable=memory\n",
			commandLine{root: "PARTUUID=cafe1234-02", fsType: "ext4", wait: longWait,
				modules: map[string][]string{"fsck": {"repair=yes"}, "net": {"ifnames=0"}}}},
		{`root="LABEL=my root" rootwait=7 rootfstype=btrfs rootflags=noatime,subvol=@ init=/bin/sh ro picube.debug`,
			commandLine{root: "LABEL=my root", fsType: "btrfs", flags: "noatime,subvol=@", ro: true, wait: 7 * time.Second,
				init: "/bin/sh", debug: true, modules: none}},
		{"rw ro sdhci.debug_quirks=1 sdhci.debug_quirks2=4 gpio-regulator.x=y rootwait=never rootdelay=2 root=/dev/sda2",
			commandLine{root: "/dev/sda2", fsType: "ext4", ro: true, wait: 2 * time.Second,
				modules: map[string][]string{"sdhci": {"debug_quirks=1", "debug_quirks2=4"}, "gpio_regulator": {"x=y"}}}},
	} {
		if diff := cmp.Diff(tt.want, parseCommandLine(tt.line), cmp.AllowUnexported(commandLine{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.line, diff)
		}
	}
}

func FuzzCommandLine(f *testing.F) {
	f.Add(`root="LABEL=my root" rootwait=7 sdhci.debug_quirks=1`)
	f.Fuzz(func(t *testing.T, line string) { parseCommandLine(line) })
}

// machine fakes /sys/class/block and /dev for disks of two partitions each,
// the second one an ext4 labelled as given.
func machine(t *testing.T, disks []fake) devices {
	t.Helper()
	dir := t.TempDir()
	d := devices{filepath.Join(dir, "sys/class/block"), filepath.Join(dir, "dev")}
	write := func(name string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add := func(under, name, number, size string, content []byte) {
		device := filepath.Join(dir, "sys/devices", under, name)
		write(filepath.Join(device, "size"), []byte(size+"\n"))
		if number != "" {
			write(filepath.Join(device, "partition"), []byte(number+"\n"))
		}
		if err := os.MkdirAll(d.sys, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(device, filepath.Join(d.sys, name)); err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(d.dev, name), content)
	}
	for _, k := range disks {
		mbr := make([]byte, 512)
		binary.LittleEndian.PutUint32(mbr[440:], k.id)
		mbr[510], mbr[511] = 0x55, 0xAA
		add("", k.name, "", "1000", mbr)
		add(k.name, k.name+k.part+"1", "1", "100", make([]byte, 4096))
		super := make([]byte, 4096)
		binary.LittleEndian.PutUint16(super[1024+0x38:], 0xEF53)
		binary.LittleEndian.PutUint16(super[1024+0x3A:], k.state)
		for i := range 16 {
			super[1024+0x68+i] = byte(i)<<4 | byte(k.id)&15
		}
		copy(super[1024+0x78:], k.label)
		add(k.name, k.name+k.part+"2", "2", "900", super)
	}
	add("", "loop0", "", "0", nil)
	return d
}

type fake struct {
	name, part, label string
	id                uint32
	state             uint16
}

var disks = []fake{
	{"sda", "", "rootfs", 0xCAFE1234, 3},
	{"mmcblk0", "p", "rootfs", 0xCAFE1234, 1},
	{"vda", "", "other", 0x0000BEEF, 1},
}

func TestFind(t *testing.T) {
	d := machine(t, disks)
	for _, tt := range []struct {
		root string
		want string
	}{
		{"PARTUUID=cafe1234-02", "[mmcblk0p2 sda2] <nil>"},
		{"PARTUUID=CAFE1234-01", "[mmcblk0p1 sda1] <nil>"},
		{"PARTUUID=0000beef-02", "[vda2] <nil>"},
		{"PARTUUID=0000beef-03", "[] <nil>"},
		{"LABEL=rootfs", "[mmcblk0p2 sda2] <nil>"},
		{"LABEL=other", "[vda2] <nil>"},
		{"UUID=0f1f2f3f-4f5f-6f7f-8f9f-afbfcfdfefff", "[vda2] <nil>"},
		{"/dev/vda2", "[vda2] <nil>"},
		{"/dev/loop0", "[] <nil>"},
		{"ZFS=x", "[] root=ZFS=x: cannot understand it: /dev/…, PARTUUID=, UUID= or LABEL= is known"},
	} {
		found, err := d.find(tt.root)
		if got := fmt.Sprint(found, err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.root, got, tt.want)
		}
	}
	for root, want := range map[string]string{"mmcblk0p2": "mmcblk0p1", "vda2": "vda1"} {
		if got, err := d.bootOf(root); got != want || err != nil {
			t.Errorf("boot of %s: %s %v", root, got, err)
		}
	}
	if _, err := d.bootOf("sda1"); err == nil || err.Error() != "cannot find the first partition of sda" {
		t.Errorf("boot of sda1: %v", err)
	}
	if d.hasErrors("mmcblk0p2") || !d.hasErrors("sda2") || d.hasErrors("sda1") {
		t.Error("errors are not told from none")
	}
	want := "mmcblk0, mmcblk0p1 PARTUUID=cafe1234-01, mmcblk0p2 PARTUUID=cafe1234-02 UUID=04142434-4454-6474-8494-a4b4c4d4e4f4 LABEL=rootfs, " +
		"sda, sda1 PARTUUID=cafe1234-01, sda2 PARTUUID=cafe1234-02 UUID=04142434-4454-6474-8494-a4b4c4d4e4f4 LABEL=rootfs, " +
		"vda, vda1 PARTUUID=0000beef-01, vda2 PARTUUID=0000beef-02 UUID=0f1f2f3f-4f5f-6f7f-8f9f-afbfcfdfefff LABEL=other"
	if diff := cmp.Diff(want, d.describe()); diff != "" {
		t.Error(diff)
	}
	if got := machine(t, nil).describe(); got != "no block device at all" {
		t.Error(got)
	}
}
