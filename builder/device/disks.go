package device

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Host is what the kernel says of its disks and mounts.
type Host struct {
	Proc fs.FS // proc(5), "/proc"
	Sys  fs.FS // sysfs, "/sys"
}

// maxCard is beyond any memory card: whatever is larger is a disk full of
// somebody's files.
const maxCard = 2 << 40

// disk is a block device with its partitions.
type disk struct {
	name     string // "sdb", "mmcblk0", "dm-1"
	number   string // "8:16"
	label    string // maker and model, or device mapper's name; may be empty
	size     int64
	readOnly bool
	parts    map[string]string // name -> number
	slaves   []string          // names of what it is made of
}

// disks lists /sys/block.
func (h Host) disks() ([]disk, error) {
	names, err := fs.ReadDir(h.Sys, "block")
	if err != nil {
		return nil, fmt.Errorf("cannot list the disks: %w", err)
	}
	var all []disk
	for _, n := range names {
		at := path.Join("block", n.Name())
		d := disk{
			name: n.Name(), number: h.read(at, "dev"), readOnly: h.read(at, "ro") == "1", parts: map[string]string{},
			label: strings.TrimSpace(h.read(at, "device/vendor") + " " + h.read(at, "device/model") + h.read(at, "device/name") + h.read(at, "dm/name")),
		}
		sectors, err := strconv.ParseInt(h.read(at, "size"), 10, 64)
		if err == nil && sectors >= 0 && sectors < 1<<50 {
			d.size = sectors * 512 // whatever the device's own sectors are
		}
		entries, err := fs.ReadDir(h.Sys, at)
		if err != nil {
			continue // pulled out just now
		}
		for _, e := range entries {
			if h.read(at, e.Name()+"/partition") != "" {
				d.parts[e.Name()] = h.read(at, e.Name()+"/dev")
			}
		}
		slaves, _ := fs.ReadDir(h.Sys, path.Join(at, "slaves")) // few have any
		for _, s := range slaves {
			d.slaves = append(d.slaves, s.Name())
		}
		all = append(all, d)
	}
	return all, nil
}

// read returns a short file's text, "" if there is none.
func (h Host) read(dir, name string) string {
	b, err := fs.ReadFile(h.Sys, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// use is a reason why a disk must not be written.
type use struct {
	what   string // "8:1", or a name: "sda1"
	at     string // mount point, or "swap"
	system bool
}

// uses lists mounts and swap (proc_pid_mountinfo(5), proc_swaps(5)).
func (h Host) uses() ([]use, error) {
	text, err := fs.ReadFile(h.Proc, "self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot find out what is mounted: %w", err)
	}
	var all []use
	for line := range strings.Lines(string(text)) {
		mount, source, ok := strings.Cut(line, " - ")
		f, s := strings.Fields(mount), strings.Fields(source)
		if !ok || len(f) < 5 || len(s) < 2 {
			continue
		}
		u := use{what: f[2], at: unescape(f[4])}
		if strings.HasPrefix(u.what, "0:") { // btrfs and others give their devices no number
			u.what = path.Base(unescape(s[1]))
		}
		switch u.at {
		case "/", "/boot", "/boot/efi", "/boot/firmware", "/usr", "/var", "/home", "/nix/store":
			u.system = true
		}
		all = append(all, u)
	}
	swaps, err := fs.ReadFile(h.Proc, "swaps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot find out where swap is: %w", err)
	}
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "/dev/") {
			all = append(all, use{what: path.Base(unescape(f[0])), at: "swap", system: true})
		}
	}
	return all, nil
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// is reports whether what, a name or a number, is the disk or part of it.
func (d disk) is(what string) bool {
	if what == d.name || what == d.number || what == d.label {
		return true
	}
	for name, number := range d.parts {
		if what == name || what == number {
			return true
		}
	}
	return false
}

// below reports whether what lies on d, directly or through other devices.
func below(d disk, what string, all []disk, depth int) bool {
	if d.is(what) {
		return true
	}
	if depth == 0 {
		return false
	}
	for _, upper := range all {
		if upper.is(what) && slices.ContainsFunc(upper.slaves, func(s string) bool { return below(d, s, all, depth-1) }) {
			return true
		}
	}
	return false
}

// maxStack bounds how many layers of devices are looked through.
const maxStack = 8

// check returns the disk of a device number if need bytes may be written to
// it; large allows disks that no card is as large as.
func (h Host) check(number string, need int64, large bool) (disk, error) {
	all, err := h.disks()
	if err != nil {
		return disk{}, err
	}
	at := slices.IndexFunc(all, func(d disk) bool { return d.number == number })
	if at < 0 {
		for _, d := range all {
			if d.is(number) {
				return disk{}, fmt.Errorf("cannot write to a partition: the whole device is /dev/%s", d.name)
			}
		}
		return disk{}, fmt.Errorf("cannot find block device %s", number)
	}
	d := all[at]
	uses, err := h.uses()
	if err != nil {
		return disk{}, err
	}
	var system, mounted []string
	for _, u := range uses {
		switch {
		case !below(d, u.what, all, maxStack):
		case u.system:
			system = append(system, u.at)
		default:
			mounted = append(mounted, u.at)
		}
	}
	slices.Sort(system)
	slices.Sort(mounted)
	var upper []string
	for _, u := range all {
		if slices.ContainsFunc(u.slaves, d.is) {
			upper = append(upper, "/dev/"+u.name)
		}
	}
	switch {
	case len(system) > 0:
		err = fmt.Errorf("cannot write to it: it is this system's disk and holds %s", strings.Join(system, ", "))
	case len(mounted) > 0:
		err = fmt.Errorf("cannot write to it while it is mounted: umount %s", strings.Join(mounted, " "))
	case len(upper) > 0:
		err = fmt.Errorf("cannot write to it: %s is made of it", strings.Join(upper, ", "))
	case d.size == 0:
		err = errors.New("cannot write to it: there is no card in it")
	case d.readOnly:
		err = errors.New("cannot write to it: it is write-protected; cards and adapters have a switch for that")
	case d.size < need:
		err = tooSmall(d.size, need)
	case d.size > maxCard && !large:
		err = fmt.Errorf("cannot believe that it is a card: it has %.1f TB; --force-large writes to it all the same", float64(d.size)/1e12)
	}
	return d, err
}

func tooSmall(size, need int64) error {
	return fmt.Errorf("cannot hold the image: it has %d bytes, %d are needed", size, need)
}
