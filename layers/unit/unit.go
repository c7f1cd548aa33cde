// Package unit enables and installs systemd units in a tree, as
// systemctl --root would.
package unit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

const (
	vendorDir = "/usr/lib/systemd/system"
	adminDir  = "/etc/systemd/system"
)

// Install writes a unit of ours into the vendor's folder and enables it.
func Install(t *tree.Tree, name string, content []byte) error {
	if err := t.MkdirAll(vendorDir, 0o755); err != nil {
		return err
	}
	if err := t.WriteFile(path.Join(vendorDir, name), content, 0o644); err != nil {
		return err
	}
	return Enable(t, name)
}

// Enable makes the links that the unit's [Install] section asks for
// (systemd.unit(5)), and those of the units it names in Also=.
func Enable(t *tree.Tree, name string) error { return enable(t, name, map[string]bool{}) }

func enable(t *tree.Tree, name string, done map[string]bool) error {
	if done[name] {
		return nil
	}
	done[name] = true
	file := path.Join(vendorDir, name)
	text, err := t.ReadFile(file)
	if err != nil {
		return fmt.Errorf("unit %s: cannot enable it: %w", name, err)
	}
	links, also := install(text)
	for _, link := range links {
		p := path.Join(adminDir, strings.ReplaceAll(link, "%p", name))
		if err := t.MkdirAll(path.Dir(p), 0o755); err != nil {
			return err
		}
		if err := t.Symlink(file, p); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, other := range also {
		if err := enable(t, other, done); err != nil {
			return err
		}
	}
	return nil
}

// install reads the [Install] section: links below adminDir, with %p for the
// unit's own name, and further units.
func install(text []byte) (links, also []string) {
	section := ""
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if section != "[Install]" || !ok || strings.HasPrefix(line, "#") {
			continue
		}
		for _, v := range strings.Fields(value) {
			switch strings.TrimSpace(key) {
			case "WantedBy":
				links = append(links, v+".wants/%p")
			case "RequiredBy":
				links = append(links, v+".requires/%p")
			case "Alias":
				links = append(links, v)
			case "Also":
				also = append(also, v)
			}
		}
	}
	return links, also
}

// Mask makes a unit impossible to start.
func Mask(t *tree.Tree, name string) error {
	p := path.Join(adminDir, name)
	if err := t.MkdirAll(adminDir, 0o755); err != nil {
		return err
	}
	if err := t.RemoveAll(p); err != nil {
		return err
	}
	return t.Symlink("/dev/null", p)
}
