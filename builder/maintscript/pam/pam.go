// Package pam is pam-auth-update: it puts the profiles that packages leave in
// /usr/share/pam-configs together to /etc/pam.d/common-*.
//
// Source: pam-auth-update(8) and the format described in Debian's
// /usr/share/doc/libpam-runtime; what it writes to /var/lib/pam is as Debian
// 13's program does.
//
// Not supported: --remove, --enable and --disable on files that an
// administrator has edited; such files are left as they are, as the real
// program does without --force.
package pam

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/debconf"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

const (
	profilesDir = "/usr/share/pam-configs"
	configDir   = "/etc/pam.d"
	savedDir    = "/var/lib/pam"
	question    = "libpam-runtime/profiles"
)

var types = []string{"auth", "account", "password", "session", "session-noninteractive"}

// pristine holds the digests of the common-* files' fixed parts that Debian
// has shipped: such a file is replaced by the current template.
var pristine = map[string][]string{
	"auth":    {"8d4fe17e66ba25de16a117035d1396aa"},
	"account": {"3c0c362eaf3421848b679d63fd48c3fa"},
	"password": {"4d5c92d595a46b69cd61f18feb4c0574", "50fce2113dfda83ac8bdd5a6e706caec",
		"4bd7610f2e85f8ddaef79c7db7cb49eb", "9ba753d0824276b44bcadfee1f87b6bc"},
	"session": {"f297c731a467822cbd86e1283263e8a3", "240fb92986c885b327cdb21dd641da8c",
		"4a25673e8b36f1805219027d3be02cd2", "9e633425b1878897695217ecaf75e204"},
	"session-noninteractive": {"ad2b78ce1498dd637ef36469430b6ac6", "53c1ede0bf4c07879d3582d875917545"},
}

const (
	primary    = "# here are the per-package modules (the \"Primary\" block)"
	fallback   = "# here's the fallback if no module succeeds"
	additional = "# and here are more per-package modules (the \"Additional\" block)"
	end        = "# end of pam-auth-update config"
)

type profile struct {
	name      string
	fields    map[string]string
	conflicts map[string]bool
	priority  int
}

// Command returns pam-auth-update over a debconf database.
func Command(store *debconf.Store) shell.Command {
	return func(ctx context.Context, p *shell.Process) int {
		if err := update(p, store); err != nil {
			p.Errorf("%v", err)
			return 1
		}
		return 0
	}
}

type options struct {
	force, pkg              bool
	remove, disable, enable map[string]bool
}

func parseOptions(p *shell.Process) options {
	o := options{remove: map[string]bool{}, disable: map[string]bool{}, enable: map[string]bool{}}
	var list map[string]bool
	args := p.Args[1:]
	for i := 0; i < len(args); i++ {
		switch a := args[i]; a {
		case "--force":
			o.force = true
		case "--package":
			o.pkg = true
		case "--root":
			if i++; i < len(args) && args[i] != "" && args[i] != "/" {
				p.Unsupported("--root %s", args[i])
			}
		case "--remove":
			list, o.pkg = o.remove, true
		case "--disable":
			list, o.pkg = o.disable, true
		case "--enable":
			list, o.pkg = o.enable, true
		default:
			if list == nil || strings.HasPrefix(a, "--") {
				p.Unsupported("option %s", a)
			}
			list[a] = true
		}
	}
	return o
}

func update(p *shell.Process, store *debconf.Store) (err error) {
	t := p.Tree
	o := parseOptions(p)
	profiles, err := load(t)
	if err != nil {
		return err
	}
	c, err := store.Client(p, "libpam-runtime")
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}()
	c.Request("X_LOADTEMPLATEFILE", "/var/lib/dpkg/info/libpam-runtime.templates", "libpam-runtime")

	sorted := slices.DeleteFunc(byPriority(profiles), func(n string) bool { return o.remove[n] })
	var titles []string
	for _, n := range sorted {
		titles = append(titles, profiles[n].fields["Name"])
	}
	c.Request("SUBST", question, "profile_names", strings.Join(sorted, ", "))
	c.Request("SUBST", question, "profiles", strings.Join(titles, ", "))

	d := compare(t)
	var enabled []string
	if d != nil {
		enabled = d.modules
	} else if v := c.Request("GET", question); v != "" {
		enabled = strings.Split(v, ", ")
	}
	seen := map[string]bool{}
	if text, err := t.ReadFile(savedDir + "/seen"); err == nil {
		for line := range strings.Lines(string(text)) {
			seen[strings.TrimSuffix(line, "\n")] = true
		}
	}
	enabled = slices.DeleteFunc(slices.Clone(enabled), func(n string) bool { return profiles[n] == nil || o.remove[n] })
	for _, n := range sorted {
		if o.enable[n] {
			enabled = append(enabled, n)
		}
	}
	enabled = slices.DeleteFunc(enabled, func(n string) bool { return o.disable[n] })
	for n := range o.disable {
		seen[n] = true
	}
	priority := "high"
	if o.pkg {
		priority = "medium"
	}
	if len(enabled) == 0 {
		seen = map[string]bool{}
		if !o.force {
			priority = "high"
		}
	}
	fresh := false
	for _, n := range sorted {
		if seen[n] {
			continue
		}
		fresh = true
		if profiles[n].fields["Default"] == "yes" {
			enabled = append(enabled, n)
		}
	}
	enabled = slices.DeleteFunc(byPriority(profiles), func(n string) bool { return !slices.Contains(enabled, n) })

	if d == nil && !o.force {
		c.Request("INPUT", "high", "libpam-runtime/override")
		c.Request("GO")
		if c.Request("GET", "libpam-runtime/override") != "true" {
			fmt.Fprintln(p.Stderr, "pam-auth-update: Local modifications to /etc/pam.d/common-*, not updating.")
			return nil
		}
		o.force = true
	}
	if fresh || !o.pkg {
		c.Request("FSET", question, "seen", "false")
	}
	c.Request("SET", question, strings.Join(enabled, ", "))
	c.Request("INPUT", priority, question)
	c.Request("GO")
	for i := 0; i < len(enabled); i++ {
		enabled = slices.DeleteFunc(enabled, func(n string) bool { return profiles[enabled[i]].conflicts[n] })
	}
	c.Request("SET", question, strings.Join(enabled, ", "))
	if len(enabled) == 0 {
		return fmt.Errorf("no PAM profiles to enable")
	}
	if err := t.MkdirAll(savedDir, 0o755); err != nil {
		return err
	}
	if err := t.WriteFile(savedDir+"/seen", []byte(strings.Join(sorted, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	for _, kind := range types {
		if err := write(t, kind, profiles, enabled, d, o.force); err != nil {
			return err
		}
	}
	c.Request("FSET", "libpam-runtime/override", "seen", "false")
	c.Request("SET", "libpam-runtime/override", "false")
	return nil
}

func byPriority(profiles map[string]*profile) []string {
	var names []string
	for n := range profiles {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(profiles[b].priority, profiles[a].priority), cmp.Compare(b, a))
	})
	return names
}

// A name alone on its line begins a value that follows on the next lines.
var header = regexp.MustCompile(`^(\S+):(?:\s+(.*?))?\s*$`)

func load(t *tree.Tree) (map[string]*profile, error) {
	names, err := t.ReadDir(profilesDir)
	if err != nil {
		return nil, err
	}
	out := map[string]*profile{}
	for _, name := range names {
		if strings.HasSuffix(name, "~") || strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") {
			continue
		}
		text, err := t.ReadFile(profilesDir + "/" + name)
		if err != nil {
			return nil, err
		}
		p := &profile{name: name, fields: map[string]string{}, conflicts: map[string]bool{}}
		field := ""
		for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
			if m := header.FindStringSubmatch(line); m != nil {
				field = strings.TrimSuffix(m[1], "-Final")
				if field == "Conflicts" {
					for _, c := range strings.Split(m[2], ", ") {
						p.conflicts[c] = true
					}
				} else {
					p.fields[field] = m[2]
				}
				continue
			}
			if line = strings.TrimSpace(line); line != "" {
				p.fields[field] += "\n" + line
			}
			p.fields[field] = strings.TrimLeft(p.fields[field], " \t\r\n")
		}
		if strings.Contains(string(text), "pam_tally") {
			continue
		}
		if p.fields["Session-Interactive-Only"] != "yes" {
			for _, suffix := range []string{"-Type", "", "-Initial"} {
				if v, found := p.fields["Session"+suffix]; found {
					p.fields["Session-noninteractive"+suffix] = v
				}
			}
		}
		p.priority, _ = strconv.Atoi(strings.TrimSpace(p.fields["Priority"]))
		out[name] = p
	}
	return out, nil
}

// upper is a type as profiles name its fields.
func upper(kind string) string { return strings.ToUpper(kind[:1]) + kind[1:] }

// lines returns what a profile adds to a stack; the first one in it may have
// lines of its own.
func (p *profile) lines(kind string, position int) string {
	if v := p.fields[upper(kind)+"-Initial"]; position == 0 && v != "" {
		return v
	}
	return p.fields[upper(kind)]
}

// difference is what an administrator changed in the options of modules.
type difference struct {
	modules     []string
	add, remove map[string]map[string]map[string]bool // type, module line, option
}

var (
	jump    = regexp.MustCompile(`(\[[^0-9]*)[0-9]+(.*\])`)
	endJump = regexp.MustCompile(`(\[.*)end(.*\])`)
	module  = regexp.MustCompile(`^((\[[^]]+\]|\w+)\s+\S+)\s*(.*)`)
)

func note(m map[string]map[string]map[string]bool, kind, line, option string) {
	if m[kind] == nil {
		m[kind] = map[string]map[string]bool{}
	}
	if m[kind][line] == nil {
		m[kind][line] = map[string]bool{}
	}
	m[kind][line][option] = true
}

// compare finds out which profiles are in use and which options differ from
// what was written; nil if that cannot be told.
func compare(t *tree.Tree) *difference {
	d := &difference{add: map[string]map[string]map[string]bool{}, remove: map[string]map[string]map[string]bool{}}
	for _, kind := range types {
		text, err := t.ReadFile(savedDir + "/" + kind)
		if err != nil {
			return nil
		}
		type savedLine struct{ module, line string }
		var saved []savedLine
		name := ""
		for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
			if m, found := strings.CutPrefix(line, "Module: "); found {
				name = m
				continue
			}
			line = endJump.ReplaceAllString(jump.ReplaceAllString(line, "$1$2"), "$1$2")
			saved = append(saved, savedLine{name, line})
		}
		current, err := t.ReadFile(configDir + "/common-" + kind)
		if err != nil {
			return nil
		}
		prefix := regexp.MustCompile(`^` + strings.TrimSuffix(kind, "-noninteractive") + `\s+`)
		state := 0
	current:
		for line := range strings.SplitSeq(strings.TrimSuffix(string(current), "\n"), "\n") {
			switch state {
			case 0:
				if strings.HasPrefix(line, primary) {
					state = 1
				}
				continue
			case 1:
				if strings.HasPrefix(line, fallback) {
					state = 2
					continue
				}
			case 2:
				if strings.HasPrefix(line, additional) {
					state = 3
				}
				continue
			case 3:
				if strings.HasPrefix(line, end) {
					break current
				}
			}
			line = jump.ReplaceAllString(prefix.ReplaceAllString(line, ""), "$1$2")
			found := false
			var was, now []string
			var at string
			for !found && len(saved) > 0 {
				s := saved[0]
				saved = saved[1:]
				m := module.FindStringSubmatch(s.line)
				if m == nil {
					continue
				}
				if at = m[1]; strings.HasPrefix(line, at) {
					found = true
					was, now = strings.Fields(m[3]), strings.Fields(line[len(at):])
					d.modules = append(d.modules, s.module)
				}
			}
			if !found {
				return nil
			}
			for _, option := range now {
				if i := slices.Index(was, option); i >= 0 {
					was = slices.Delete(was, i, i+1)
				} else {
					note(d.add, kind, at, option)
				}
			}
			for _, option := range was {
				note(d.remove, kind, at, option)
			}
		}
		if state < 3 {
			return nil
		}
	}
	return d
}

// merge makes a line of a stack: jumps count the lines that follow, options
// that the administrator changed stay changed.
func merge(line string, d *difference, kind string, count int) string {
	m := module.FindStringSubmatch(line)
	if m == nil {
		return line
	}
	at := strings.ReplaceAll(m[1], "end", strconv.Itoa(count))
	options := strings.Fields(m[3])
	var added []string
	if d != nil {
		key := jump.ReplaceAllString(at, "$1$2")
		for option := range d.add[kind][key] {
			if !slices.Contains(options, option) {
				added = append(added, option)
			}
		}
		options = slices.DeleteFunc(options, func(s string) bool { return d.remove[kind][key][s] })
		slices.Sort(added)
	}
	return at + " " + strings.Join(append(options, added...), " ")
}

// create fills a template's blocks in; false if it has not all the marks.
func create(text, kind string, profiles map[string]*profile, enabled []string, d *difference) (string, bool) {
	var b strings.Builder
	word := strings.TrimSuffix(kind, "-noninteractive")
	state := 0
	for line := range strings.Lines(text) {
		if state == 1 || state == 3 {
			mark := fallback
			if state == 3 {
				mark = end
			}
			if strings.HasPrefix(line, mark) {
				b.WriteString(line)
				state++
			}
			continue
		}
		b.WriteString(line)
		block, mark := "Primary", primary
		if state == 2 {
			block, mark = "Additional", additional
		}
		if state > 2 || !strings.HasPrefix(line, mark) {
			continue
		}
		state++
		var stack []string
		position := 0
		for _, n := range enabled {
			p := profiles[n]
			if p.fields[upper(kind)+"-Type"] != block {
				continue
			}
			for l := range strings.SplitSeq(p.lines(kind, position), "\n") {
				if l != "" {
					stack = append(stack, l)
				}
			}
			position++
		}
		count := len(stack)
		if block == "Additional" {
			count--
		}
		if block == "Primary" && count == 0 {
			b.WriteString(word + "\t[default=1]\t\t\tpam_permit.so\n")
		}
		for _, l := range stack {
			b.WriteString(word + "\t" + merge(l, d, kind, count) + "\n")
			count--
		}
	}
	return b.String(), state >= 4
}

// fixed returns a file without what stands in its blocks.
func fixed(text string) string {
	var b strings.Builder
	state := 0
	for line := range strings.Lines(text) {
		marks := []string{primary, fallback, additional, end}
		if state == 1 || state == 3 {
			if strings.HasPrefix(line, marks[state]) {
				b.WriteString(line)
				state++
			}
			continue
		}
		b.WriteString(line)
		if state < 4 && strings.HasPrefix(line, marks[state]) {
			state++
		}
	}
	return b.String()
}

func write(t *tree.Tree, kind string, profiles map[string]*profile, enabled []string, d *difference, force bool) error {
	target := configDir + "/common-" + kind
	stock, err := t.ReadFile("/usr/share/pam/common-" + kind)
	if err != nil {
		return err
	}
	text, readErr := t.ReadFile(target)
	sum := md5.Sum([]byte(fixed(string(text))))
	template := string(text)
	if slices.Contains(pristine[kind], hex.EncodeToString(sum[:])) {
		template = string(stock)
	}
	made, ok := create(template, kind, profiles, enabled, d)
	if !ok {
		if !force {
			return nil
		}
		if made, ok = create(string(stock), kind, profiles, enabled, d); !ok {
			return fmt.Errorf("/usr/share/pam/common-%s lacks its marks", kind)
		}
	}
	var saved strings.Builder
	position := 0
	for _, block := range []string{"Primary", "Additional"} {
		if block == "Additional" {
			if position == 0 {
				saved.WriteString("Module: null\n[default=1]\t\t\tpam_permit.so\n")
			}
			position = 0
		}
		for _, n := range enabled {
			p := profiles[n]
			if p.fields[upper(kind)+"-Type"] != block {
				continue
			}
			if lines := p.lines(kind, position); lines != "" {
				saved.WriteString("Module: " + n + "\n" + lines + "\n")
			}
			position++
		}
	}
	if readErr == nil && force {
		n, err := t.Stat(target)
		if err != nil {
			return err
		}
		if err := t.WriteFile(target+".pam-old", text, n.Perm()); err != nil {
			return err
		}
	}
	for _, f := range []struct{ path, text string }{{target, made}, {savedDir + "/" + kind, saved.String()}} {
		if err := t.RemoveAll(f.path); err != nil {
			return err
		}
		if err := t.WriteFile(f.path, []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
