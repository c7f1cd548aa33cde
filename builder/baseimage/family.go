package baseimage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/tree"
)

// Family is a maker's kind of images.
type Family string

// The families that are known.
const (
	RaspberryPiOS Family = "Raspberry Pi OS"
	Debian        Family = "Debian"
	Ubuntu        Family = "Ubuntu"
	Unknown       Family = "unknown"
)

// suites are the releases of each family that this was written for.
func (f Family) suites() []string {
	switch f {
	case RaspberryPiOS, Debian:
		return []string{"bookworm", "trixie"}
	case Ubuntu:
		return []string{"jammy", "noble", "plucky", "questing"}
	}
	return nil
}

const statusFile = "/var/lib/dpkg/status"

// recognise finds out what an image is, and refuses what can't be used.
func (i *Image) recognise() error {
	var errs []error
	if !i.Root.Exists(statusFile) {
		errs = append(errs, fmt.Errorf("cannot find %s: only images with Debian's packages can be a base", statusFile))
	}
	if init, err := i.Root.RealPath("/sbin/init"); err != nil || !i.Root.Exists(init) || path.Base(init) != "systemd" {
		errs = append(errs, errors.New("cannot find systemd at /sbin/init: only images with systemd can be a base"))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	var err error
	if i.Arch, err = architecture(i.Root); err != nil {
		return err
	}
	release, err := osRelease(i.Root)
	if err != nil {
		return err
	}
	i.Suite = release["VERSION_CODENAME"]
	switch id := release["ID"]; {
	case i.Root.Exists("/etc/rpi-issue") || id == "raspbian":
		i.Family = RaspberryPiOS
	case id == "debian":
		i.Family = Debian
	case id == "ubuntu":
		i.Family = Ubuntu
	default:
		i.Family = Unknown
		i.assume("%s is of no family that is known; it is treated like Debian", name(release))
	}
	known := i.Family.suites()
	if i.Family != Unknown && !contains(known, i.Suite) {
		i.assume("%s %s is treated like %s", i.Family, i.Suite, known[len(known)-1])
	}
	return nil
}

func (i *Image) assume(format string, args ...any) {
	i.Assumed = append(i.Assumed, fmt.Sprintf(format, args...))
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func name(release map[string]string) string {
	if n := release["PRETTY_NAME"]; n != "" {
		return n
	}
	return "a system without name"
}

// osRelease reads os-release(5).
func osRelease(t *tree.Tree) (map[string]string, error) {
	text, err := t.ReadFile("/etc/os-release")
	if err != nil {
		if text, err = t.ReadFile("/usr/lib/os-release"); err != nil {
			return nil, err
		}
	}
	values := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		key, value, ok := strings.Cut(s.Text(), "=")
		if ok && !strings.HasPrefix(key, "#") {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	return values, nil
}

// architecture is that of dpkg's own package.
func architecture(t *tree.Tree) (string, error) {
	text, err := t.ReadFile(statusFile)
	if err != nil {
		return "", err
	}
	for p, err := range control.Paragraphs(string(text)) {
		if err != nil {
			return "", fmt.Errorf("%s: %w", statusFile, err)
		}
		if p.Get("Package") == "dpkg" {
			return p.Get("Architecture"), nil
		}
	}
	return "", fmt.Errorf("%s: cannot find the package dpkg", statusFile)
}
