package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// debHelper is deb-systemd-helper: it remembers which links a package's units
// had, so that an administrator's choice outlives upgrades.
type debHelper struct {
	p        *shell.Process
	t        *tree.Tree
	instance instance
	enabled  string // directory of state files
	masked   string
}

func helper(ctx context.Context, p *shell.Process) int {
	h := &debHelper{p: p, t: p.Tree, instance: "system"}
	quiet := false
	var words []string
	for _, a := range p.Args[1:] {
		switch a {
		case "--quiet":
			quiet = true
		case "--user":
			h.instance = "user"
		case "--system":
			h.instance = "system"
		default:
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		return 0
	}
	if p.Env["DPKG_MAINTSCRIPT_PACKAGE"] == "" {
		fmt.Fprintf(p.Stderr, "%s was not called from dpkg. Exiting.\n", p.Args[0])
		return 1
	}
	base := "/var/lib/systemd/deb-systemd-helper"
	if h.instance == "user" {
		base = "/var/lib/systemd/deb-systemd-user-helper"
	}
	h.enabled, h.masked = base+"-enabled", base+"-masked"

	action := words[0]
	purge := action == "purge"
	status := 0
	if action == "is-enabled" || action == "was-enabled" || action == "debian-installed" {
		status = 1
	}
	for _, name := range words[1:] {
		file := h.find(name)
		var err error
		switch action {
		case "is-enabled", "was-enabled":
			on := false
			if action == "was-enabled" {
				on = h.wasEnabled(name)
			} else if on, err = h.allLinked(name, file); err != nil {
				break
			}
			if on {
				status = 0
			}
			if !quiet {
				fmt.Fprintln(p.Stderr, map[bool]string{true: "enabled", false: "disabled"}[on])
			}
		case "update-state":
			err = h.updateState(name, file)
		case "debian-installed":
			if h.known(name) {
				status = 0
			}
		case "enable":
			err = h.enable(ctx, name, file)
		case "reenable":
			if err = h.remove(file, purge, map[string]bool{}); err == nil {
				err = h.link(name, file, true)
			}
		case "disable", "purge":
			if err = h.remove(file, purge, map[string]bool{}); err == nil {
				err = errors.Join(
					prune(h.t, "/var/lib/systemd/deb-systemd-helper-enabled"),
					prune(h.t, "/var/lib/systemd/deb-systemd-user-helper-enabled"),
					h.pruneConfig())
			}
		case "mask":
			err = h.mask(file)
		case "unmask":
			if err = h.unmask(file); err == nil {
				err = errors.Join(
					prune(h.t, "/var/lib/systemd/deb-systemd-helper-masked"),
					prune(h.t, "/var/lib/systemd/deb-systemd-user-helper-masked"))
			}
		default:
			p.Unsupported("%s", strings.Join(p.Args, " "))
		}
		if err != nil {
			fmt.Fprintf(p.Stderr, "%s: error: %v\n", p.Args[0], err)
			return 1
		}
	}
	return status
}

func (h *debHelper) isFile(p string) bool {
	n, err := h.t.Stat(p)
	return err == nil && n.IsRegular()
}

// find returns a unit's path; /lib comes before /usr/lib, as it shows in the
// links that are made before systemctl exists.
func (h *debHelper) find(name string) string {
	for _, dir := range []string{"/etc/systemd/", "/lib/systemd/", "/usr/lib/systemd/"} {
		if p := dir + string(h.instance) + "/" + name; h.isFile(p) {
			return p
		}
	}
	return name
}

func (h *debHelper) state(name string) string {
	return h.enabled + "/" + path.Base(name) + ".dsh-also"
}

func (h *debHelper) known(name string) bool { return h.isFile(h.state(name)) }

// entries returns the links that a unit's state file names.
func (h *debHelper) entries(name string) []string {
	text, err := h.t.ReadFile(h.state(name))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func (h *debHelper) isLink(p string) bool {
	n, err := h.t.Lstat(p)
	return err == nil && n.IsSymlink()
}

func (h *debHelper) wasEnabled(name string) bool {
	return !slices.ContainsFunc(h.entries(name), func(link string) bool { return !h.isLink(link) })
}

var (
	wantedBy        = regexp.MustCompile(`(?i)^\s*(WantedBy|RequiredBy)=(.+)$`)
	also            = regexp.MustCompile(`(?i)^\s*Also=(.+)$`)
	alias           = regexp.MustCompile(`(?i)^\s*Alias=(.+)$`)
	defaultInstance = regexp.MustCompile(`(?i)^\s*DefaultInstance=\s*(.+?)\s*$`)
	templateName    = regexp.MustCompile(`^(.*@)(\.\w+)$`)
	blanks          = regexp.MustCompile(`\s+`)
)

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// split is Perl's split(/\s+/): leading blanks give an empty word, trailing
// ones none.
func split(s string) []string {
	words := blanks.Split(s, -1)
	for len(words) > 0 && words[len(words)-1] == "" {
		words = words[:len(words)-1]
	}
	return words
}

// closure returns the links of a unit and of those in its Also=. It reads the
// unit line by line as the Perl program does, whatever the section.
func (h *debHelper) closure(name, file string, visited map[string]bool) ([]symlink, error) {
	text, err := h.t.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("unable to read %s: %w", file, err)
	}
	var out []symlink
	var dirs []string
	unit := path.Base(file)
	target := unit
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		if m := wantedBy.FindStringSubmatch(line); m != nil {
			for _, value := range split(m[2]) {
				dir := h.instance.config() + "/" + unquote(value)
				switch m[1] {
				case "WantedBy":
					dir += ".wants"
				case "RequiredBy":
					dir += ".requires"
				}
				dirs = append(dirs, dir+"/")
			}
		}
		if m := also.FindStringSubmatch(line); m != nil {
			for _, value := range split(m[1]) {
				value = unquote(value)
				if value == unit || visited[value] {
					continue
				}
				visited[value] = true
				more, err := h.closure(value, h.find(value), visited)
				if err != nil {
					return nil, err
				}
				out = append(out, more...)
			}
		}
		if m := alias.FindStringSubmatch(line); m != nil {
			for _, value := range split(m[1]) {
				if unquote(value) != unit {
					out = append(out, symlink{h.instance.config() + "/" + m[1], file})
				}
			}
		}
		if m := defaultInstance.FindStringSubmatch(line); m != nil {
			target = unquote(m[1])
			if parts := templateName.FindStringSubmatch(unit); parts != nil {
				target = parts[1] + target + parts[2]
			} else {
				target = unit
			}
		}
	}
	for _, dir := range dirs {
		out = append(out, symlink{dir + target, file})
	}
	return out, nil
}

func (h *debHelper) allLinked(name, file string) (bool, error) {
	all, err := h.closure(name, file, map[string]bool{})
	return !slices.ContainsFunc(all, func(l symlink) bool { return !h.isLink(l.from) }), err
}

func (h *debHelper) enable(ctx context.Context, name, file string) error {
	n, err := h.t.Stat("/usr/bin/systemctl")
	if err != nil || n.Perm()&0o111 == 0 {
		return h.link(name, file, true)
	}
	create := false
	if h.known(name) {
		all, err := h.closure(name, file, map[string]bool{})
		if err != nil {
			return err
		}
		create = slices.ContainsFunc(all, func(l symlink) bool { return h.isLink(l.from) })
	} else {
		scope := "--system"
		if h.instance == "user" {
			scope = "--global"
		}
		if status := h.p.Run(ctx, shell.Call{Args: []string{"systemctl", "--root=/", scope, "--preset-mode=enable-only", "preset", name}}); status != 0 {
			return fmt.Errorf("systemctl preset failed on %s", name)
		}
	}
	return h.link(name, file, create)
}

// link makes the links and notes them in the state files.
func (h *debHelper) link(name, file string, create bool) error {
	all, err := h.closure(name, file, map[string]bool{})
	if err != nil {
		return err
	}
	for _, l := range all {
		if !slices.Contains(h.entries(name), l.from) {
			if err := h.write(h.state(name), append(h.entries(name), l.from)); err != nil {
				return err
			}
		}
		noted := h.enabled + strings.TrimPrefix(l.from, h.instance.config())
		if h.t.Exists(noted) {
			continue
		}
		if create && !h.isLink(l.from) {
			if err := h.t.MkdirAll(path.Dir(l.from), 0o755); err != nil {
				return err
			}
			if err := h.t.Symlink(l.to, l.from); err != nil {
				return err
			}
		}
		if err := h.touch(noted); err != nil {
			return err
		}
	}
	return nil
}

func (h *debHelper) touch(p string) error {
	if err := h.t.MkdirAll(path.Dir(p), 0o755); err != nil {
		return err
	}
	if h.t.Exists(p) {
		return nil
	}
	return h.t.WriteFile(p, nil, 0o644)
}

func (h *debHelper) write(p string, links []string) error {
	if err := h.t.MkdirAll(path.Dir(p), 0o755); err != nil {
		return err
	}
	text := ""
	if len(links) > 0 {
		text = strings.Join(links, "\n") + "\n"
	}
	return h.t.WriteFile(p, []byte(text), 0o644)
}

func (h *debHelper) updateState(name, file string) error {
	all, err := h.closure(name, file, map[string]bool{})
	if err != nil {
		return err
	}
	var links []string
	for _, l := range all {
		links = append(links, l.from)
	}
	return h.write(h.state(name), links)
}

func (h *debHelper) drop(p string) error {
	err := h.t.Remove(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// remove takes a unit's links away.
func (h *debHelper) remove(file string, purge bool, seen map[string]bool) error {
	if seen[file] {
		return nil
	}
	seen[file] = true
	links := h.entries(file)
	if purge {
		if err := h.drop(h.state(file)); err != nil {
			return err
		}
	}
	for _, link := range links {
		is := h.isLink(link)
		if purge || is {
			if err := h.drop(h.enabled + strings.TrimPrefix(link, h.instance.config())); err != nil {
				return err
			}
		}
		if is {
			if err := h.drop(link); err != nil {
				return err
			}
		}
	}
	text, err := h.t.ReadFile(file)
	if err != nil {
		return nil // the package is gone, and its units with it
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if m := also.FindStringSubmatch(line); m != nil {
			if err := h.remove(h.find(m[1]), purge, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// prune removes a directory if nothing but empty directories is in it.
func prune(t *tree.Tree, dir string) error {
	n, err := t.Lstat(dir)
	if err != nil || !n.IsDir() {
		return nil
	}
	for name, c := range n.Children() {
		if c.IsDir() {
			if err := prune(t, dir+"/"+name); err != nil {
				return err
			}
		}
	}
	if names, err := t.ReadDir(dir); err != nil || len(names) > 0 {
		return err
	}
	return t.Remove(dir)
}

func (h *debHelper) pruneConfig() error {
	for _, dir := range []string{"/etc/systemd/system", "/etc/systemd/user"} {
		names, _ := h.t.ReadDir(dir)
		for _, name := range names {
			if err := prune(h.t, dir+"/"+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *debHelper) mask(file string) error {
	link := h.instance.config() + "/" + path.Base(file)
	if h.t.Exists(link) || h.isLink(link) {
		if target, err := h.t.Readlink(link); err == nil && target == "/dev/null" {
			return nil
		}
		if h.t.Exists(link) {
			return nil
		}
	}
	if err := relink(h.t, symlink{link, "/dev/null"}); err != nil {
		return err
	}
	return h.touch(h.masked + "/" + path.Base(file))
}

func (h *debHelper) unmask(file string) error {
	link := h.instance.config() + "/" + path.Base(file)
	if target, err := h.t.Readlink(link); err != nil || target != "/dev/null" {
		return nil
	}
	state := h.masked + "/" + path.Base(file)
	if !h.t.Exists(state) {
		return nil
	}
	return errors.Join(h.drop(link), h.drop(state))
}
