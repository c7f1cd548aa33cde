package baseimage

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/tree"
)

const infoDir = "/var/lib/dpkg/info"

// replaced are packages of images whose work one of ours does, and which the
// one of ours conflicts with: chrony keeps time inside a cube.
var replaced = []string{"systemd-timesyncd"}

// Installed returns the packages that the image has, as an archive would
// offer them.
func (i *Image) Installed() ([]index.Package, error) {
	text, err := i.Root.ReadFile(statusFile)
	if err != nil {
		return nil, err
	}
	var list []index.Package
	for p, err := range control.Paragraphs(string(text)) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", statusFile, err)
		}
		if state := state(p); state == "config-files" || state == "not-installed" {
			continue
		}
		list = append(list, index.Package{
			Name: p.Get("Package"), Version: p.Get("Version"), Arch: p.Get("Architecture"), Source: p.Get("Source"),
			Section: p.Get("Section"), Priority: p.Get("Priority"), MultiArch: p.Get("Multi-Arch"), Essential: p.Get("Essential") == "yes",
			Depends: p.Get("Depends"), PreDepends: p.Get("Pre-Depends"), Recommends: p.Get("Recommends"), Provides: p.Get("Provides"),
			Conflicts: p.Get("Conflicts"), Breaks: p.Get("Breaks"), Suite: "the image",
		})
	}
	return list, nil
}

// state is how far a package's installation went.
func state(p control.Paragraph) string {
	words := strings.Fields(p.Get("Status"))
	if len(words) != 3 {
		return "not-installed"
	}
	return words[2]
}

// RemoveReplaced takes packages out of the image that would be in the way of
// ours, and those whose installation was cut off, and returns their names.
// Their scripts are not run: those packages have none that matter to a system
// that is not running.
func (i *Image) RemoveReplaced() ([]string, error) {
	text, err := i.Root.ReadFile(statusFile)
	if err != nil {
		return nil, err
	}
	names := slices.Clone(replaced)
	for p, err := range control.Paragraphs(string(text)) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", statusFile, err)
		}
		if state(p) == "half-installed" {
			names = append(names, p.Get("Package"))
		}
	}
	var gone []string
	for _, name := range names {
		found, err := purge(i.Root, name)
		if err != nil {
			return nil, fmt.Errorf("package %s: cannot remove it from the image: %w", name, err)
		}
		if found {
			gone = append(gone, name)
		}
	}
	return gone, nil
}

// purge removes a package with its files, as dpkg --purge would.
func purge(t *tree.Tree, name string) (bool, error) {
	text, err := t.ReadFile(statusFile)
	if err != nil {
		return false, err
	}
	var kept strings.Builder
	found, info := false, name
	for p, err := range control.Paragraphs(string(text)) {
		if err != nil {
			return false, err
		}
		if p.Get("Package") == name {
			if found = true; p.Get("Multi-Arch") == "same" {
				info += ":" + p.Get("Architecture")
			}
			continue
		}
		if err := p.Write(&kept); err != nil {
			return false, err
		}
	}
	if !found {
		return false, nil
	}
	files, err := t.ReadFile(infoDir + "/" + info + ".list")
	if err != nil {
		return false, err
	}
	errs := []error{t.WriteFile(statusFile, []byte(kept.String()), 0o644)}
	var units []string
	for p := range strings.Lines(string(files)) {
		p = strings.TrimSpace(p)
		if n, err := t.Lstat(p); err != nil || n.IsDir() {
			continue // a directory may be others' too
		}
		if strings.HasSuffix(p, ".service") {
			units = append(units, path.Base(p))
		}
		errs = append(errs, t.Remove(p))
	}
	names, err := t.ReadDir(infoDir)
	errs = append(errs, err)
	for _, n := range names {
		if strings.HasPrefix(n, info+".") {
			errs = append(errs, t.Remove(infoDir+"/"+n))
		}
	}
	var links []string
	for p, n := range t.Below(unitDir) {
		for _, u := range units {
			if n.IsSymlink() && path.Base(n.Target) == u {
				links = append(links, p)
			}
		}
	}
	for _, p := range links {
		errs = append(errs, t.Remove(p))
	}
	return true, errors.Join(errs...)
}
