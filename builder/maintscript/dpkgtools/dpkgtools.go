// Package dpkgtools is dpkg's command line as maintainer scripts use it: dpkg,
// dpkg-query, dpkg-divert, dpkg-statoverride, dpkg-trigger.
//
// Source: the manual pages of these names.
//
// Not supported: everything that installs or removes packages; a script that
// calls it is stopped, as the real dpkg would be by its own lock.
package dpkgtools

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/debian/version"
	"github.com/picube/picube-build/builder/maintscript/shell"
)

// Commands returns the programs by name.
func Commands(db *dpkg.DB) map[string]shell.Command {
	t := tools{db}
	return map[string]shell.Command{
		"dpkg":              t.dpkg,
		"dpkg-query":        t.query,
		"dpkg-divert":       t.divert,
		"dpkg-statoverride": t.statoverride,
		"dpkg-trigger":      t.trigger,
	}
}

type tools struct{ db *dpkg.DB }

// The exit statuses of dpkg(1).
const (
	ok = iota
	no
	trouble
)

// options takes leading options off args: those named in values take a value,
// either after "=" or as the next argument.
func options(args []string, values ...string) (set map[string]string, rest []string) {
	set = map[string]string{}
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			return set, args[1:]
		}
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		args = args[1:]
		name, value, inline := strings.Cut(arg, "=")
		if !inline && slices.Contains(values, name) && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		set[name] = value
	}
	return set, args
}

func (t tools) dpkg(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	for len(args) > 0 && (strings.HasPrefix(args[0], "--admindir=") || strings.HasPrefix(args[0], "--root=") ||
		strings.HasPrefix(args[0], "--force-") || args[0] == "--no-pager") {
		args = args[1:]
	}
	if len(args) == 0 {
		p.Errorf("error: need an action option")
		return trouble
	}
	rest := args[1:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	action, value, _ := strings.Cut(args[0], "=")
	switch action {
	case "--compare-versions":
		return compare(p, rest)
	case "--print-architecture":
		fmt.Fprintln(p.Stdout, t.db.Arch())
		return ok
	case "--print-foreign-architectures":
		return ok
	case "--version":
		fmt.Fprintln(p.Stdout, "Debian 'dpkg' package management program version "+t.version()+" ("+t.db.Arch()+").")
		return ok
	case "-s", "--status", "-L", "--listfiles", "-S", "--search", "-l", "--list", "-W", "--show", "--get-selections":
		if action == "--get-selections" {
			return t.selections(p, rest)
		}
		return t.show(p, args)
	case "--verify":
		return ok
	case "--audit", "-C":
		return ok
	}
	if feature, found := strings.CutPrefix(action, "--assert-"); found {
		if slices.Contains([]string{"support-predepends", "working-epoch", "long-filenames", "multi-conrep", "multi-arch", "versioned-provides", "protected-field"}, feature) {
			return ok
		}
		return trouble
	}
	if thing, found := strings.CutPrefix(action, "--validate-"); found {
		if value == "" && len(rest) > 0 {
			value = rest[0]
		}
		return validate(p, thing, value)
	}
	p.Unsupported("%s", strings.Join(p.Args, " "))
	return trouble
}

func (t tools) version() string {
	if p := t.db.Package("dpkg"); p != nil {
		return p.Version
	}
	return "1.22.0"
}

// compare is "dpkg --compare-versions": the -nl relations take an empty
// version as later than any.
func compare(p *shell.Process, args []string) int {
	if len(args) != 3 {
		p.Errorf("error: --compare-versions takes three arguments: <version> <relation> <version>")
		return trouble
	}
	a, op, b := args[0], args[1], args[2]
	later := strings.HasSuffix(op, "-nl")
	op = strings.TrimSuffix(op, "-nl")
	c := 0
	switch {
	case a == "" && b == "":
	case a == "":
		c = -1
	case b == "":
		c = 1
	default:
		c = version.Compare(a, b)
	}
	if later && (a == "") != (b == "") {
		c = -c
	}
	var holds bool
	switch op {
	case "lt", "<<":
		holds = c < 0
	case "le", "<=", "<":
		holds = c <= 0
	case "eq", "=":
		holds = c == 0
	case "ne":
		holds = c != 0
	case "ge", ">=", ">":
		holds = c >= 0
	case "gt", ">>":
		holds = c > 0
	default:
		p.Errorf("error: --compare-versions bad relation")
		return trouble
	}
	if holds {
		return ok
	}
	return no
}

func validate(p *shell.Process, thing, value string) int {
	valid := value != ""
	switch thing {
	case "version":
		_, err := version.Parse(value)
		valid = err == nil
	case "pkgname", "archname":
		for i := range len(value) {
			c := value[i]
			alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z'
			if !alnum && (i == 0 || !strings.ContainsRune("-+._", rune(c))) {
				valid = false
			}
		}
	case "trigname":
		valid = valid && !strings.ContainsAny(value, " \t\n")
	default:
		p.Unsupported("dpkg --validate-%s", thing)
	}
	if valid {
		return ok
	}
	p.Errorf("error: %s name '%s' is not valid", thing, value)
	return no
}

func (t tools) selections(p *shell.Process, patterns []string) int {
	for _, pkg := range t.db.Packages() {
		if pkg.Status == dpkg.NotInstalled || !matches(patterns, pkg.Name) {
			continue
		}
		tabs := strings.Repeat("\t", max(1, 6-len(name(pkg))/8))
		fmt.Fprintf(p.Stdout, "%s%s%s\n", name(pkg), tabs, pkg.Want)
	}
	return ok
}

// name is a package's name as dpkg prints it: qualified if it may be there
// for several architectures.
func name(p *dpkg.Package) string { return p.Info() }

func matches(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		pattern, _, _ = strings.Cut(pattern, ":")
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// trigger is dpkg-trigger.
func (t tools) trigger(ctx context.Context, p *shell.Process) int {
	set, rest := options(p.Args[1:], "--by-package", "-f")
	if _, found := set["--check-supported"]; found {
		return ok
	}
	if len(rest) != 1 {
		p.Errorf("error: takes one argument, the trigger name")
		return trouble
	}
	awaiter := p.Env["DPKG_MAINTSCRIPT_PACKAGE"]
	for _, option := range []string{"--by-package", "-f"} {
		if by, found := set[option]; found {
			awaiter = by
		}
	}
	if _, found := set["--no-await"]; found {
		awaiter = "-"
	}
	if awaiter == "" {
		p.Errorf("error: must be called from a maintainer script (or with a --by-package option)")
		return trouble
	}
	if _, found := set["--no-act"]; found {
		return ok
	}
	if err := t.db.Trigger(rest[0], awaiter); err != nil {
		p.Errorf("error: %v", err)
		return trouble
	}
	return ok
}

// statoverride is dpkg-statoverride.
func (t tools) statoverride(ctx context.Context, p *shell.Process) int {
	set, rest := options(p.Args[1:], "--admindir", "--root")
	all, err := t.db.StatOverrides()
	if err != nil {
		p.Errorf("error: %v", err)
		return trouble
	}
	has := func(name string) bool { _, found := set[name]; return found }
	force := has("--force") || has("--force-all") || has("--force-statoverride-add") || has("--force-statoverride-remove")
	switch {
	case has("--list"):
		status := no
		for _, o := range all {
			if !globs(rest, o.Path) {
				continue
			}
			fmt.Fprintf(p.Stdout, "%s %s %o %s\n", o.User, o.Group, o.Mode, o.Path)
			status = ok
		}
		return status
	case has("--add") && len(rest) == 4:
		mode, err := strconv.ParseUint(rest[2], 8, 12)
		if err != nil {
			p.Errorf("error: invalid mode %s", rest[2])
			return trouble
		}
		o := dpkg.StatOverride{User: rest[0], Group: rest[1], Mode: uint32(mode), Path: strings.TrimRight(path.Clean(rest[3]), "/")}
		i := slices.IndexFunc(all, func(x dpkg.StatOverride) bool { return x.Path == o.Path })
		switch {
		case i >= 0 && !force:
			p.Errorf("error: an override for '%s' already exists; aborting", o.Path)
			return trouble
		case i >= 0:
			all[i] = o
		default:
			all = append(all, o)
		}
		if has("--update") {
			uid, err := t.db.UserID(o.User)
			gid, gerr := t.db.GroupID(o.Group)
			if err = errors.Join(err, gerr); err != nil {
				p.Errorf("error: %v", err)
				return trouble
			}
			if !p.Tree.Exists(o.Path) {
				p.Errorf("warning: --update given but %s does not exist", o.Path)
			} else if err := errors.Join(p.Tree.Chown(o.Path, uid, gid), p.Tree.Chmod(o.Path, o.Mode)); err != nil {
				p.Errorf("error: %v", err)
				return trouble
			}
		}
		return t.saved(p, t.db.SetStatOverrides(all))
	case has("--remove") && len(rest) == 1:
		i := slices.IndexFunc(all, func(x dpkg.StatOverride) bool { return x.Path == path.Clean(rest[0]) })
		if i < 0 {
			p.Errorf("warning: no override present")
			if force {
				return ok
			}
			return trouble
		}
		return t.saved(p, t.db.SetStatOverrides(slices.Delete(all, i, i+1)))
	}
	p.Unsupported("%s", strings.Join(p.Args, " "))
	return trouble
}

func (t tools) saved(p *shell.Process, err error) int {
	if err != nil {
		p.Errorf("error: %v", err)
		return trouble
	}
	return ok
}

// globs matches paths as dpkg does: "*" crosses slashes.
func globs(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool { return glob(pattern, name) })
}

func glob(pattern, name string) bool {
	if !strings.ContainsAny(pattern, "*?[\\") {
		return strings.TrimSuffix(pattern, "/") == name
	}
	// path.Match stops "*" at slashes, so those become another character.
	swap := strings.NewReplacer("/", "\x01")
	ok, err := path.Match(swap.Replace(pattern), swap.Replace(name))
	return ok && err == nil
}

// divert is dpkg-divert.
func (t tools) divert(ctx context.Context, p *shell.Process) int {
	set, rest := options(p.Args[1:], "--package", "--divert", "--admindir", "--root", "--instdir")
	file := ""
	if len(rest) > 0 {
		file = rest[0]
	}
	all, err := t.db.Diversions()
	if err != nil {
		p.Errorf("error: %v", err)
		return trouble
	}
	has := func(name string) bool { _, found := set[name]; return found }
	who := set["--package"]
	switch {
	case has("--local"):
		who = ":"
	case who == "" && !has("--package"):
		if who = p.Env["DPKG_MAINTSCRIPT_PACKAGE"]; who == "" {
			who = ":"
		}
	}
	i := slices.IndexFunc(all, func(d dpkg.Diversion) bool { return d.From == file })
	switch {
	case has("--list"):
		for _, d := range all {
			if globs(rest, d.From) || globs(rest, d.To) || globs(rest, d.Package) {
				fmt.Fprintln(p.Stdout, describe(d))
			}
		}
		return ok
	case has("--truename"):
		if i >= 0 {
			file = all[i].To
		}
		fmt.Fprintln(p.Stdout, file)
		return ok
	case has("--listpackage"):
		if i < 0 {
			return ok
		}
		if all[i].Package == ":" {
			fmt.Fprintln(p.Stdout, "LOCAL")
		} else {
			fmt.Fprintln(p.Stdout, all[i].Package)
		}
		return ok
	case has("--remove"):
		return t.undivert(p, all, i, file, who, set)
	}
	return t.addDiversion(p, all, i, file, who, set)
}

func describe(d dpkg.Diversion) string {
	if d.Package == ":" {
		return "local diversion of " + d.From + " to " + d.To
	}
	return "diversion of " + d.From + " to " + d.To + " by " + d.Package
}

func (t tools) addDiversion(p *shell.Process, all []dpkg.Diversion, i int, file, who string, set map[string]string) int {
	to := set["--divert"]
	if to == "" {
		to = file + ".distrib"
	}
	if !strings.HasPrefix(file, "/") || strings.ContainsAny(file+to+who, "\n") {
		p.Errorf("error: filename \"%s\" is not absolute", file)
		return trouble
	}
	if i >= 0 {
		if all[i].To == to && all[i].Package == who {
			return ok
		}
		p.Errorf("error: '%s' clashes with '%s'", describe(dpkg.Diversion{From: file, To: to, Package: who}), describe(all[i]))
		return trouble
	}
	_, rename := set["--rename"]
	if _, never := set["--no-rename"]; never {
		rename = false
	}
	if pkg := t.db.Package(who); rename && pkg != nil {
		owners, err := t.db.Owners(file)
		if err == nil && len(owners) == 1 && owners[0] == pkg {
			rename = false // the diverting package's own file stays
		}
	}
	if rename {
		if _, err := p.Tree.Lstat(file); err == nil {
			if err := p.Tree.Rename(file, to); err != nil {
				p.Errorf("error: %v", err)
				return trouble
			}
		}
	}
	if _, quiet := set["--quiet"]; !quiet {
		fmt.Fprintf(p.Stdout, "Adding '%s'\n", describe(dpkg.Diversion{From: file, To: to, Package: who}))
	}
	return t.saved(p, t.db.SetDiversions(append(all, dpkg.Diversion{From: file, To: to, Package: who})))
}

func (t tools) undivert(p *shell.Process, all []dpkg.Diversion, i int, file, who string, set map[string]string) int {
	_, quiet := set["--quiet"]
	if i < 0 {
		if !quiet {
			fmt.Fprintf(p.Stdout, "No diversion '%s', none removed.\n", file)
		}
		return ok
	}
	d := all[i]
	if to := set["--divert"]; to != "" && to != d.To || set["--package"] != "" && who != d.Package {
		p.Errorf("error: mismatch on %s when removing '%s'", file, describe(d))
		return trouble
	}
	_, rename := set["--rename"]
	if _, never := set["--no-rename"]; rename && !never {
		if _, err := p.Tree.Lstat(d.To); err == nil {
			if err := p.Tree.Rename(d.To, d.From); err != nil {
				p.Errorf("error: %v", err)
				return trouble
			}
		}
	}
	if !quiet {
		fmt.Fprintf(p.Stdout, "Removing '%s'\n", describe(d))
	}
	return t.saved(p, t.db.SetDiversions(slices.Delete(all, i, i+1)))
}
