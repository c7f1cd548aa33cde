package bootd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// devices is where block devices are seen: /sys/class/block and /dev.
type devices struct{ sys, dev string }

// find returns the names ("mmcblk0p2") of the partitions and disks that a
// root= argument means. Two cards with the same id can be plugged in, one of
// them in a reader: the slot the board boots from comes first.
func (d devices) find(root string) ([]string, error) {
	key, value, ok := strings.Cut(root, "=")
	var match func(name string) bool
	switch {
	case strings.HasPrefix(root, "/dev/"):
		name := strings.TrimPrefix(root, "/dev/")
		match = func(n string) bool { return n == name }
	case ok && key == "PARTUUID":
		match = func(n string) bool { return strings.EqualFold(d.partUUID(n), value) }
	case ok && key == "UUID":
		match = func(n string) bool { uuid, _ := d.ext4(n); return strings.EqualFold(uuid, value) }
	case ok && key == "LABEL":
		match = func(n string) bool { _, label := d.ext4(n); return label == value }
	default:
		return nil, fmt.Errorf("root=%s: cannot understand it: /dev/…, PARTUUID=, UUID= or LABEL= is known", root)
	}
	var found []string
	for _, name := range d.list() {
		if match(name) {
			found = append(found, name)
		}
	}
	return found, nil
}

// list returns the block devices that hold something, cards first.
func (d devices) list() []string {
	entries, err := os.ReadDir(d.sys)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if size, err := os.ReadFile(filepath.Join(d.sys, e.Name(), "size")); err == nil && strings.TrimSpace(string(size)) != "0" {
			names = append(names, e.Name())
		}
	}
	card := func(name string) int {
		if strings.HasPrefix(name, "mmcblk") {
			return 0
		}
		return 1
	}
	slices.SortFunc(names, func(a, b string) int {
		if c := card(a) - card(b); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return names
}

// describe lists what is there, for a person who wonders why root is not.
func (d devices) describe() string {
	var all []string
	for _, name := range d.list() {
		text := name
		if id := d.partUUID(name); id != "" {
			text += " PARTUUID=" + id
		}
		if uuid, label := d.ext4(name); uuid != "" {
			text += " UUID=" + uuid
			if label != "" {
				text += " LABEL=" + label
			}
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "no block device at all"
	}
	return strings.Join(all, ", ")
}

// number returns a partition's number, 0 for a whole disk.
func (d devices) number(name string) int {
	text, err := os.ReadFile(filepath.Join(d.sys, name, "partition"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return n
}

// disk returns the disk of a partition.
func (d devices) disk(name string) (string, error) {
	p, err := filepath.EvalSymlinks(filepath.Join(d.sys, name))
	if err != nil {
		return "", err
	}
	return filepath.Base(filepath.Dir(p)), nil
}

// partUUID returns what the kernel calls a partition of an MBR: the disk's
// signature at byte 440 and the partition's number.
func (d devices) partUUID(name string) string {
	n := d.number(name)
	if n == 0 {
		return ""
	}
	disk, err := d.disk(name)
	if err != nil {
		return ""
	}
	b := d.read(disk, 0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xAA {
		return ""
	}
	id := binary.LittleEndian.Uint32(b[440:])
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%08x-%02x", id, n)
}

// ext4 returns a file system's UUID and label from its superblock; see the
// kernel's Documentation/filesystems/ext4/super.rst.
func (d devices) ext4(name string) (uuid, label string) {
	b := d.read(name, 1024, 264)
	if b == nil || binary.LittleEndian.Uint16(b[0x38:]) != 0xEF53 {
		return "", ""
	}
	u := b[0x68:0x78]
	label, _, _ = strings.Cut(string(b[0x78:0x88]), "\x00")
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]), label
}

// hasErrors reports whether the kernel found ext4's structure damaged, now or
// earlier (EXT4_ERROR_FS in s_state).
func (d devices) hasErrors(name string) bool {
	b := d.read(name, 1024, 264)
	return b != nil && binary.LittleEndian.Uint16(b[0x38:]) == 0xEF53 && binary.LittleEndian.Uint16(b[0x3A:])&2 != 0
}

func (d devices) read(name string, off int64, n int) []byte {
	f, err := os.Open(filepath.Join(d.dev, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		return nil
	}
	return b
}

// bootOf returns the boot partition that goes with a root: the first one of
// the same disk.
func (d devices) bootOf(root string) (string, error) {
	disk, err := d.disk(root)
	if err != nil {
		return "", err
	}
	for _, name := range d.list() {
		if d.number(name) != 1 || name == root {
			continue
		}
		if of, err := d.disk(name); err == nil && of == disk {
			return name, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("cannot find the first partition of %s", disk)
}
