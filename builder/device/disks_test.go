package device

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// laptop has its system on nvme0n1 (encrypted: dm-0), swap on sda2 and a card
// in sdb; sdc is an empty reader, sdd a large disk, sde write-protected, sdf
// half of a RAID that is not mounted, sdg's only partition is btrfs.
func laptop() Host {
	sys := fstest.MapFS{}
	file := func(name, text string) { sys[name] = &fstest.MapFile{Data: []byte(text + "\n")} }
	add := func(name, number, sectors string, parts ...string) {
		file("block/"+name+"/dev", number)
		file("block/"+name+"/size", sectors)
		file("block/"+name+"/ro", "0")
		for _, p := range parts {
			name2, number, _ := strings.Cut(p, "=")
			file("block/"+name+"/"+name2+"/partition", "1")
			file("block/"+name+"/"+name2+"/dev", number)
		}
	}
	add("nvme0n1", "259:0", "1000000000", "nvme0n1p1=259:1", "nvme0n1p2=259:2")
	add("dm-0", "254:0", "900000000")
	file("block/dm-0/dm/name", "luks-root")
	sys["block/dm-0/slaves/nvme0n1p2"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../../nvme0n1/nvme0n1p2")}
	add("sda", "8:0", "1000000000", "sda1=8:1", "sda2=8:2")
	add("sdb", "8:16", "62333952", "sdb1=8:17", "sdb2=8:18")
	file("block/sdb/device/vendor", "Generic ")
	file("block/sdb/device/model", "STORAGE DEVICE  ")
	add("sdc", "8:32", "0")
	add("sdd", "8:48", "7814037168")
	add("sde", "8:64", "62333952")
	file("block/sde/ro", "1")
	add("sdf", "8:80", "62333952", "sdf1=8:81")
	add("md0", "9:0", "62333000")
	sys["block/md0/slaves/sdf1"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../../sdf/sdf1")}
	add("sdg", "8:96", "62333952", "sdg1=8:97")
	add("mmcblk0", "179:0", "62333952", "mmcblk0p1=179:1")
	return Host{Sys: sys, Proc: fstest.MapFS{
		"self/mountinfo": {Data: []byte(`22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/mapper/luks-root rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
24 22 259:1 / /boot/efi rw - vfat /dev/nvme0n1p1 rw
25 22 179:1 / /media/anne/my\040card rw - vfat /dev/mmcblk0p1 rw
26 22 0:44 / /mnt/btrfs rw - btrfs /dev/sdg1 rw
damaged
`)},
		"swaps": {Data: []byte("Filename\tType\tSize\n/dev/sda2 partition 8388604 0 -2\n/swapfile file 1 0 -3\n")},
	}}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name, number string
		need         int64
		large        bool
		want         string
	}{
		{"card", "8:16", 1 << 30, false, ""},
		{"partition", "8:17", 0, false, "cannot write to a partition: the whole device is /dev/sdb"},
		{"system", "259:0", 0, true, "it is this system's disk and holds /, /boot/efi"},
		{"system's mapping", "254:0", 0, true, "it is this system's disk and holds /"},
		{"swap", "8:0", 0, true, "it is this system's disk and holds swap"},
		{"mounted", "179:0", 0, true, "while it is mounted: umount /media/anne/my card"},
		{"mounted without number", "8:96", 0, true, "while it is mounted: umount /mnt/btrfs"},
		{"empty reader", "8:32", 0, true, "there is no card in it"},
		{"write-protected", "8:64", 0, true, "it is write-protected"},
		{"part of a RAID", "8:80", 0, true, "/dev/md0 is made of it"},
		{"too small", "8:16", 1 << 40, false, "it has 31914983424 bytes, 1099511627776 are needed"},
		{"too large", "8:48", 0, false, "cannot believe that it is a card: it has 4.0 TB; --force-large"},
		{"too large, but wanted", "8:48", 0, true, ""},
		{"unknown", "1:1", 0, true, "cannot find block device 1:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := laptop().check(c.number, c.need, c.large)
			if c.want == "" {
				if err != nil || d.number != c.number {
					t.Errorf("%+v; error: %v", d, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	if d, err := laptop().check("8:16", 0, false); err != nil || d.label != "Generic STORAGE DEVICE" {
		t.Errorf("label %q", d.label)
	}
}

func TestCheckNeedsToKnow(t *testing.T) {
	h := laptop()
	h.Proc = fstest.MapFS{}
	if _, err := h.check("8:16", 0, false); err == nil || !strings.Contains(err.Error(), "cannot find out what is mounted") {
		t.Errorf("error %v", err)
	}
	h = laptop()
	h.Sys = fstest.MapFS{}
	if _, err := h.check("8:16", 0, false); err == nil {
		t.Error("no disks, no error")
	}
}
