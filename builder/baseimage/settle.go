package baseimage

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Options say what Settle has to make room for.
type Options struct {
	// Interfaces are those that systemd-networkd will set up: "eth0".
	Interfaces []string
	// RootLabel and BootLabel are what fstab shall find the partitions by.
	RootLabel, BootLabel string
	// NoSwap switches swapping off, as Kubernetes wants it.
	NoSwap bool
}

// firstBootUnits are what images start once, or until a person has answered:
//
//   - Raspberry Pi OS (raspberrypi-sys-mods, userconf-pi, raspi-config, pi-gen)
//     renames the user, makes SSH host keys and fills the card.
//   - Debian's images (image-specs of the raspi team) make SSH host keys, write
//     cmdline.txt anew and read sysconf.txt.
func firstBootUnits() []string {
	return []string{
		"userconfig.service", "regenerate_ssh_host_keys.service", "resize2fs_once.service", "rpi-resize.service",
		"rpi-generate-ssh-host-keys.service", "rpi-reconfigure-raspi-firmware.service", "rpi-set-sysconf.service",
	}
}

// Settle switches off what the image does at its first boot, since the card's
// is another, and what would contend for the network. It returns what it did,
// a line each.
func (i *Image) Settle(o Options) ([]string, error) {
	s := &settling{t: i.Root, options: o}
	err := errors.Join(
		s.units(),
		s.resizeScript(),
		s.cloudInit(),
		s.rfkill(),
		s.network(),
		s.fstab(),
		s.raspiFirmware(),
		s.swap(),
	)
	return s.done, err
}

type settling struct {
	t       *tree.Tree
	options Options
	done    []string
}

func (s *settling) say(format string, args ...any) {
	s.done = append(s.done, fmt.Sprintf(format, args...))
}

const unitDir = "/etc/systemd/system"

func (s *settling) units() error {
	for _, name := range firstBootUnits() {
		if s.hasUnit(name) {
			if err := s.mask(name); err != nil {
				return err
			}
			s.say("%s is switched off", name)
		}
	}
	return nil
}

func (s *settling) hasUnit(name string) bool {
	return slices.ContainsFunc([]string{unitDir, "/usr/lib/systemd/system", "/lib/systemd/system"}, func(dir string) bool {
		return s.t.Exists(path.Join(dir, name))
	})
}

// mask makes a unit impossible to start (systemctl(1)).
func (s *settling) mask(name string) error {
	p := path.Join(unitDir, name)
	return errors.Join(s.t.MkdirAll(unitDir, 0o755), s.t.RemoveAll(p), s.t.Symlink("/dev/null", p))
}

// resizeScript removes the init script by which pi-gen's older images fill
// the card.
func (s *settling) resizeScript() error {
	const script = "/etc/init.d/resize2fs_once"
	if !s.t.Exists(script) {
		return nil
	}
	s.say("resize2fs_once is removed")
	paths := []string{script}
	for p, n := range s.t.Below("/etc") {
		if n.IsSymlink() && path.Dir(path.Dir(p)) == "/etc" && strings.HasSuffix(p, "resize2fs_once") {
			paths = append(paths, p)
		}
	}
	var errs []error
	for _, p := range paths {
		errs = append(errs, s.t.Remove(p))
	}
	return errors.Join(errs...)
}

// cloudInit switches cloud-init off for good; it would name the node, make
// users and configure the network.
func (s *settling) cloudInit() error {
	if !s.t.Exists("/etc/cloud") {
		return nil
	}
	s.say("cloud-init is switched off")
	return s.t.WriteFile("/etc/cloud/cloud-init.disabled", nil, 0o644)
}

// rfkill unblocks radios that Raspberry Pi OS keeps blocked until its wizard
// has asked for the country; systemd-rfkill(8) restores what stands here.
func (s *settling) rfkill() error {
	const dir = "/var/lib/systemd/rfkill"
	names, err := s.t.ReadDir(dir)
	if err != nil {
		return nil // nothing is blocked
	}
	for _, n := range names {
		if !strings.HasSuffix(n, ":wlan") {
			continue
		}
		s.say("Wi-Fi is not blocked any more (%s)", n)
		if err := s.t.WriteFile(path.Join(dir, n), []byte("0\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// network keeps others from the interfaces that networkd has.
func (s *settling) network() error {
	names := strings.Join(s.options.Interfaces, " ")
	if s.t.Exists("/etc/NetworkManager") {
		text := "# systemd-networkd has them.\n[keyfile]\nunmanaged-devices=interface-name:" +
			strings.Join(s.options.Interfaces, ";interface-name:") + "\n"
		s.say("NetworkManager leaves %s alone", names)
		if err := errors.Join(
			s.t.MkdirAll("/etc/NetworkManager/conf.d", 0o755),
			s.t.WriteFile("/etc/NetworkManager/conf.d/picube.conf", []byte(text), 0o644),
		); err != nil {
			return err
		}
	}
	for _, name := range s.options.Interfaces {
		p := "/etc/network/interfaces.d/" + name
		if !s.t.Exists(p) {
			continue
		}
		s.say("%s is removed", p)
		if err := s.t.Remove(p); err != nil {
			return err
		}
	}
	if p := "/etc/dhcpcd.conf"; s.t.Exists(p) {
		s.say("dhcpcd leaves %s alone", names)
		return s.edit(p, func(lines []string) []string {
			return append([]string{"denyinterfaces " + names}, lines...)
		})
	}
	return nil
}

// edit changes the lines of a file.
func (s *settling) edit(p string, change func([]string) []string) error {
	text, err := s.t.ReadFile(p)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	return s.t.WriteFile(p, []byte(strings.Join(change(lines), "\n")+"\n"), 0o644)
}

// fstab finds the partitions by the labels that every card of this root has.
// All else that stands there stays.
func (s *settling) fstab() error {
	const p = "/etc/fstab"
	if !s.t.Exists(p) {
		if err := s.t.WriteFile(p, nil, 0o644); err != nil {
			return err
		}
	}
	wanted := map[string]string{"/": "LABEL=" + s.options.RootLabel, BootDir: "LABEL=" + s.options.BootLabel}
	return s.edit(p, func(lines []string) []string {
		found := map[string]bool{}
		for i, line := range lines {
			fields := strings.Fields(line)
			if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || wanted[fields[1]] == "" {
				continue
			}
			found[fields[1]] = true
			lines[i] = strings.Replace(line, fields[0], wanted[fields[1]], 1)
		}
		if len(lines) == 1 && lines[0] == "" {
			lines = nil
		}
		if !found["/"] {
			lines = append(lines, wanted["/"]+" / ext4 defaults,noatime 0 1")
		}
		if !found[BootDir] {
			lines = append(lines, wanted[BootDir]+" "+BootDir+" vfat defaults,noatime,umask=0077,nofail 0 2")
		}
		return lines
	})
}

// raspiFirmware lets the hook of Debian's package name the same root when a
// kernel upgrade makes it write cmdline.txt.
func (s *settling) raspiFirmware() error {
	const p = "/etc/default/raspi-firmware"
	if !s.t.Exists(p) {
		return nil
	}
	set := fmt.Sprintf("ROOTPART=\"LABEL=%s\"", s.options.RootLabel)
	return s.edit(p, func(lines []string) []string {
		found := false
		for i, line := range lines {
			if strings.HasPrefix(line, "ROOTPART=") {
				lines[i], found = set, true
			}
		}
		if !found {
			lines = append(lines, set)
		}
		return lines
	})
}

func (s *settling) swap() error {
	if !s.options.NoSwap {
		return nil
	}
	if name := "dphys-swapfile.service"; s.hasUnit(name) {
		s.say("%s is switched off: Kubernetes wants no swap", name)
		if err := s.mask(name); err != nil {
			return err
		}
	}
	if !s.t.Exists("/etc/rpi/swap.conf") {
		return nil
	}
	s.say("rpi-swap is switched off: Kubernetes wants no swap")
	return errors.Join(
		s.t.MkdirAll("/etc/rpi/swap.conf.d", 0o755),
		s.t.WriteFile("/etc/rpi/swap.conf.d/picube.conf", []byte("[Main]\nMechanism=none\n"), 0o644),
	)
}

// firstBootWord tells the arguments of the kernel by which images ask for
// their first boot: Raspberry Pi OS' init programs and "resize", the Imager's
// script as systemd-run-generator(8) reads it, and cloud-init's source.
func firstBootWord(word string) bool {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "init":
		return strings.HasPrefix(value, "/usr/lib/raspberrypi-sys-mods/") || strings.HasPrefix(value, "/usr/lib/raspi-config/")
	case "systemd.run", "systemd.run_success_action", "systemd.run_failure_action", "ds", "cloud-init":
		return true
	case "systemd.unit":
		return value == "kernel-command-line.target"
	case "resize":
		return value == ""
	}
	return false
}

// EditCommandLine returns an image's cmdline.txt for a card: its root is root
// ("PARTUUID=cafe1234-02"), nothing asks for a first boot any more, and the
// arguments in extra are there. What else its maker or a person wrote stays.
func EditCommandLine(text, root string, extra []string) string {
	line, _, _ := strings.Cut(text, "\n")
	var words []string
	for _, w := range strings.Fields(line) {
		if strings.HasPrefix(w, "root=") || firstBootWord(w) {
			continue
		}
		words = append(words, w)
	}
	at := slices.IndexFunc(words, func(w string) bool { return !strings.HasPrefix(w, "console=") })
	if at < 0 {
		at = len(words)
	}
	words = slices.Insert(words, at, "root="+root)
	for _, w := range extra {
		if !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ") + "\n"
}
