// Package systemd is what maintainer scripts call to have services: systemctl
// as it works without a manager, Debian's deb-systemd-helper and
// deb-systemd-invoke, and the System V side, update-rc.d and invoke-rc.d.
// Nothing is ever started: there is no machine.
//
// Sources: systemctl(1), systemd.unit(5), systemd.preset(5),
// deb-systemd-helper(1p), update-rc.d(8) and the behaviour of those programs
// in Debian 13.
//
// Not supported: insserv (never installed with systemd), generators, units in
// /run.
package systemd

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// instance is "system" or "user".
type instance string

// dirs returns where units lie, the administrator's first.
func (i instance) dirs() []string {
	return []string{
		"/etc/systemd/" + string(i),
		"/usr/local/lib/systemd/" + string(i),
		"/usr/lib/systemd/" + string(i),
	}
}

func (i instance) config() string { return "/etc/systemd/" + string(i) }

// unit is what enabling needs to know of a unit file.
type unit struct {
	name     string // as asked for: "getty@tty1.service"
	path     string // of the file: ".../getty@.service"
	install  map[string][]string
	masked   bool
	instance string // what stands after "@"
	template bool   // named "x@.service"
}

// find loads a unit; nil if there is none.
func (i instance) find(t *tree.Tree, name string) *unit {
	if name == "" || strings.Contains(name, "/") {
		return nil
	}
	u := &unit{name: name}
	stem, suffix := name, path.Ext(name)
	stem = strings.TrimSuffix(stem, suffix)
	names := []string{name}
	if at := strings.IndexByte(stem, '@'); at >= 0 {
		u.instance = stem[at+1:]
		u.template = u.instance == ""
		if !u.template {
			names = append(names, stem[:at+1]+suffix)
		}
	}
	for _, n := range names {
		for _, dir := range i.dirs() {
			p := dir + "/" + n
			l, err := t.Lstat(p)
			if err != nil {
				continue
			}
			if l.IsSymlink() && l.Target == "/dev/null" {
				u.path, u.masked = p, true
				return u
			}
			if l.IsSymlink() {
				// An alias: the unit is what it leads to.
				real, err := t.RealPath(p)
				if err != nil || !t.Exists(real) {
					continue
				}
				p = real
			}
			text, err := t.ReadFile(p)
			if err != nil {
				continue
			}
			u.path = p
			u.install = parseInstall(string(text))
			i.dropins(t, u)
			return u
		}
	}
	return nil
}

// dropins adds what the files in <unit>.d say.
func (i instance) dropins(t *tree.Tree, u *unit) {
	for _, dir := range i.dirs() {
		names, _ := t.ReadDir(dir + "/" + path.Base(u.path) + ".d")
		for _, name := range names {
			text, err := t.ReadFile(dir + "/" + path.Base(u.path) + ".d/" + name)
			if err != nil || !strings.HasSuffix(name, ".conf") {
				continue
			}
			for key, values := range parseInstall(string(text)) {
				u.install[key] = append(u.install[key], values...)
			}
		}
	}
}

// parseInstall reads a unit file's [Install] section.
func parseInstall(text string) map[string][]string {
	out := map[string][]string{}
	in := false
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			in = line == "[Install]"
		case in:
			key, value, _ := strings.Cut(line, "=")
			key = strings.TrimSpace(key)
			words := strings.Fields(value)
			if len(words) == 0 {
				delete(out, key) // an empty assignment resets the list
				continue
			}
			for _, w := range words {
				out[key] = append(out[key], strings.Trim(w, `"'`))
			}
		}
	}
	return out
}

// expand fills in the specifiers of systemd.unit(5) that [Install] may use.
func (u *unit) expand(s string) string {
	stem := strings.TrimSuffix(u.name, path.Ext(u.name))
	prefix, _, _ := strings.Cut(stem, "@")
	last := prefix[strings.LastIndexByte(prefix, '-')+1:]
	return strings.NewReplacer("%%", "%", "%i", u.instance, "%I", u.instance, "%n", u.name, "%N", stem, "%p", prefix, "%P", prefix, "%j", last, "%J", last).Replace(s)
}

// links returns what enabling the unit links: from, below /etc/systemd, to
// the unit's file.
func (i instance) links(u *unit) []symlink {
	var out []symlink
	name := u.name
	if u.template {
		d := u.install["DefaultInstance"]
		if d == nil {
			d = []string{""}
		}
		if d[len(d)-1] != "" {
			name = strings.TrimSuffix(u.name, path.Ext(u.name)) + d[len(d)-1] + path.Ext(u.name)
		}
	}
	for _, alias := range u.install["Alias"] {
		if alias = u.expand(alias); alias != name && !strings.Contains(alias, "/") {
			out = append(out, symlink{i.config() + "/" + alias, u.path})
		}
	}
	for _, kind := range []struct{ key, dir string }{{"WantedBy", ".wants/"}, {"RequiredBy", ".requires/"}, {"UpheldBy", ".upholds/"}} {
		for _, target := range u.install[kind.key] {
			if u.template && name == u.name {
				continue // a template without an instance wants nothing
			}
			if target = u.expand(target); !strings.Contains(target, "/") {
				out = append(out, symlink{i.config() + "/" + target + kind.dir + name, u.path})
			}
		}
	}
	return out
}

type symlink struct{ from, to string }

// enable makes the links of a unit and of those in its Also=. It reports
// whether the unit has anything to enable.
func (i instance) enable(t *tree.Tree, name string, seen map[string]bool) (bool, error) {
	if seen[name] {
		return true, nil
	}
	seen[name] = true
	u := i.find(t, name)
	if u == nil {
		return false, &missingError{name}
	}
	if u.masked {
		return false, &maskedError{name, u.path}
	}
	all := i.links(u)
	for _, l := range all {
		if err := relink(t, l); err != nil {
			return true, err
		}
	}
	for _, also := range u.install["Also"] {
		if _, err := i.enable(t, u.expand(also), seen); err != nil {
			if gone := (*missingError)(nil); !errors.As(err, &gone) {
				return true, err
			}
		}
	}
	return len(all) > 0 || len(u.install) > 0, nil
}

type missingError struct{ unit string }

func (e *missingError) Error() string { return "Unit file " + e.unit + " does not exist." }

type maskedError struct{ unit, path string }

func (e *maskedError) Error() string {
	return "Failed to enable unit: Unit file " + e.path + " is masked."
}

func relink(t *tree.Tree, l symlink) error {
	if n, err := t.Lstat(l.from); err == nil {
		if n.IsSymlink() && sameFile(t, l.from, l.to) {
			return nil
		}
		if err := t.Remove(l.from); err != nil {
			return err
		}
	}
	if err := t.MkdirAll(path.Dir(l.from), 0o755); err != nil {
		return err
	}
	return t.Symlink(l.to, l.from)
}

func sameFile(t *tree.Tree, a, b string) bool {
	ra, aerr := t.RealPath(a)
	rb, berr := t.RealPath(b)
	return aerr == nil && berr == nil && ra == rb
}

// disable removes every link to the unit below /etc/systemd, and those of the
// units in its Also=.
func (i instance) disable(t *tree.Tree, name string, seen map[string]bool) error {
	if seen[name] {
		return nil
	}
	seen[name] = true
	u := i.find(t, name)
	var gone []string
	for p, n := range t.Below(i.config()) {
		if !n.IsSymlink() || n.Target == "/dev/null" {
			continue
		}
		dir := path.Base(path.Dir(p))
		wants := strings.HasSuffix(dir, ".wants") || strings.HasSuffix(dir, ".requires") || strings.HasSuffix(dir, ".upholds")
		if path.Base(n.Target) == name || wants && path.Base(p) == name {
			gone = append(gone, p)
		}
	}
	for _, p := range gone {
		if err := t.Remove(p); err != nil {
			return err
		}
		if dir := path.Dir(p); dir != i.config() {
			if names, err := t.ReadDir(dir); err == nil && len(names) == 0 {
				if err := t.Remove(dir); err != nil {
					return err
				}
			}
		}
	}
	if u == nil {
		return nil
	}
	for _, also := range u.install["Also"] {
		if err := i.disable(t, u.expand(also), seen); err != nil {
			return err
		}
	}
	return nil
}

// state is what "systemctl is-enabled" says.
func (i instance) state(t *tree.Tree, name string) string {
	u := i.find(t, name)
	switch {
	case u == nil:
		return "not-found"
	case u.masked:
		return "masked"
	}
	for p, n := range t.Below(i.config()) {
		if !n.IsSymlink() {
			continue
		}
		dir := path.Dir(p)
		wants := slices.Contains([]string{".wants", ".requires", ".upholds"}, path.Ext(dir))
		if wants && path.Base(p) == name || dir == i.config() && path.Base(n.Target) == name && path.Base(p) != name {
			return "enabled"
		}
	}
	for _, dir := range i.dirs()[1:] {
		names, _ := t.ReadDir(dir)
		for _, d := range names {
			if (strings.HasSuffix(d, ".wants") || strings.HasSuffix(d, ".requires")) && t.Exists(dir+"/"+d+"/"+name) {
				return "static"
			}
		}
	}
	if len(u.install["WantedBy"])+len(u.install["RequiredBy"])+len(u.install["Alias"])+len(u.install["UpheldBy"]) > 0 {
		return "disabled"
	}
	if len(u.install["Also"]) > 0 {
		return "indirect"
	}
	return "static"
}

// presetEnables says what the preset files want: the first line that matches
// counts, and what none matches is enabled.
func (i instance) presetEnables(t *tree.Tree, name string) bool {
	byName := map[string]string{}
	dirs := []string{"/etc/systemd/", "/run/systemd/", "/usr/local/lib/systemd/", "/usr/lib/systemd/"}
	for _, dir := range slices.Backward(dirs) {
		d := dir + string(i) + "-preset"
		names, _ := t.ReadDir(d)
		for _, n := range names {
			if strings.HasSuffix(n, ".preset") {
				byName[n] = d + "/" + n
			}
		}
	}
	files := make([]string, 0, len(byName))
	for n := range byName {
		files = append(files, n)
	}
	slices.Sort(files)
	for _, n := range files {
		text, err := t.ReadFile(byName[n])
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			words := strings.Fields(line)
			if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
				continue
			}
			if ok, err := path.Match(words[1], name); ok && err == nil {
				return words[0] == "enable"
			}
			// "enable x@.service a b" names the instances of a template.
			if words[0] == "enable" && len(words) > 2 {
				for _, inst := range words[2:] {
					if strings.Replace(words[1], "@.", "@"+inst+".", 1) == name {
						return true
					}
				}
			}
		}
	}
	return true
}
