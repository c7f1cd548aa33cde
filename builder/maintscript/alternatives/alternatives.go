// Package alternatives is update-alternatives: link groups whose master and
// slave links lead through /etc/alternatives to one of several programs.
//
// Source: update-alternatives(1); the files in /var/lib/dpkg/alternatives are
// as dpkg 1.22 writes them: mode, link, slaves (name and link), an empty
// line, then each choice's path, priority and slave paths.
//
// Not supported: --config and --all, which ask questions.
package alternatives

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

const (
	adminDir = "/var/lib/dpkg/alternatives"
	linkDir  = "/etc/alternatives"
)

type link struct{ name, path string }

type choice struct {
	path     string
	priority int
	slaves   map[string]string // path by slave name
}

// group is one file of the database.
type group struct {
	name    string
	auto    bool
	link    string
	slaves  []link
	choices []*choice
}

func (g *group) choice(p string) *choice {
	for _, c := range g.choices {
		if c.path == p {
			return c
		}
	}
	return nil
}

// best returns the choice with the highest priority, the first of equals.
func (g *group) best() *choice {
	var best *choice
	for _, c := range g.choices {
		if best == nil || c.priority > best.priority {
			best = c
		}
	}
	return best
}

// load reads a group; nil if there is none.
func load(t *tree.Tree, name string) (*group, error) {
	text, err := t.ReadFile(adminDir + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(text), "\n")
	at := 0
	next := func() string {
		if at >= len(lines) {
			at++
			return ""
		}
		at++
		return lines[at-1]
	}
	g := &group{name: name, auto: next() == "auto", link: next()}
	for {
		name := next()
		if name == "" {
			break
		}
		g.slaves = append(g.slaves, link{name, next()})
	}
	for {
		p := next()
		if p == "" {
			break
		}
		c := &choice{path: p, slaves: map[string]string{}}
		if c.priority, err = strconv.Atoi(next()); err != nil {
			return nil, fmt.Errorf("%s/%s: priority of %s: %w", adminDir, name, p, err)
		}
		for _, s := range g.slaves {
			if file := next(); file != "" {
				c.slaves[s.name] = file
			}
		}
		g.choices = append(g.choices, c)
	}
	if at > len(lines) {
		return nil, fmt.Errorf("%s/%s: it ends too early", adminDir, name)
	}
	return g, nil
}

func (g *group) save(t *tree.Tree) error {
	g.slaves = slices.DeleteFunc(g.slaves, func(s link) bool {
		return !slices.ContainsFunc(g.choices, func(c *choice) bool { return c.slaves[s.name] != "" })
	})
	slices.SortFunc(g.slaves, func(a, b link) int { return cmp.Compare(a.name, b.name) })
	slices.SortFunc(g.choices, func(a, b *choice) int { return cmp.Compare(a.path, b.path) })
	var b strings.Builder
	line := func(s string) { b.WriteString(s + "\n") }
	if g.auto {
		line("auto")
	} else {
		line("manual")
	}
	line(g.link)
	for _, s := range g.slaves {
		line(s.name)
		line(s.path)
	}
	line("")
	for _, c := range g.choices {
		line(c.path)
		line(strconv.Itoa(c.priority))
		for _, s := range g.slaves {
			line(c.slaves[s.name])
		}
	}
	line("")
	if err := t.MkdirAll(adminDir, 0o755); err != nil {
		return err
	}
	return t.WriteFile(adminDir+"/"+g.name, []byte(b.String()), 0o644)
}

// current returns where the group's link in /etc/alternatives leads, "" if
// nowhere.
func (g *group) current(t *tree.Tree) string {
	target, err := t.Readlink(linkDir + "/" + g.name)
	if err != nil {
		return ""
	}
	return target
}

// isLink reports whether p is missing or a symbolic link.
func isLink(t *tree.Tree, p string) bool {
	n, err := t.Lstat(p)
	return err != nil || n.IsSymlink()
}

// relink makes p a link to target, whatever link was there.
func relink(t *tree.Tree, target, p string) error {
	if n, err := t.Lstat(p); err == nil {
		if n.IsSymlink() && n.Target == target {
			return nil
		}
		if err := t.Remove(p); err != nil {
			return err
		}
	}
	return t.Symlink(target, p)
}

// install makes all links of a group lead to one choice.
func (g *group) install(p *shell.Process, c *choice) error {
	t := p.Tree
	if err := t.MkdirAll(linkDir, 0o755); err != nil {
		return err
	}
	single := func(l link, file string) error {
		if err := relink(t, file, linkDir+"/"+l.name); err != nil {
			return err
		}
		if !isLink(t, l.path) {
			p.Errorf("warning: not replacing %s with a link", l.path)
			return nil
		}
		return relink(t, linkDir+"/"+l.name, l.path)
	}
	if err := single(link{g.name, g.link}, c.path); err != nil {
		return err
	}
	for _, s := range g.slaves {
		file := c.slaves[s.name]
		if file != "" && t.Exists(file) {
			if err := single(s, file); err != nil {
				return err
			}
			continue
		}
		if file != "" {
			p.Errorf("warning: skip creation of %s because associated file %s (of link group %s) doesn't exist", s.path, file, g.name)
		}
		if err := drop(t, s); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a link and its way through /etc/alternatives.
func drop(t *tree.Tree, l link) error {
	for _, p := range []string{l.path, linkDir + "/" + l.name} {
		if n, err := t.Lstat(p); err == nil && n.IsSymlink() {
			if err := t.Remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// broken reports whether a link of the group does not lead to the choice.
func (g *group) broken(t *tree.Tree, c *choice) bool {
	leads := func(p, target string) bool {
		got, err := t.Readlink(p)
		return err == nil && got == target
	}
	if !leads(g.link, linkDir+"/"+g.name) || !leads(linkDir+"/"+g.name, c.path) {
		return true
	}
	for _, s := range g.slaves {
		file := c.slaves[s.name]
		there := file != "" && t.Exists(file)
		_, err := t.Lstat(s.path)
		if there && (!leads(s.path, linkDir+"/"+s.name) || !leads(linkDir+"/"+s.name, file)) || !there && err == nil {
			return true
		}
	}
	return false
}

// Command is update-alternatives.
func Command(ctx context.Context, p *shell.Process) int {
	err := run(p)
	if err != nil {
		p.Errorf("error: %v", err)
		return 2
	}
	return 0
}

func run(p *shell.Process) error {
	var action []string
	var slaves [][]string
	args := p.Args[1:]
	for len(args) > 0 {
		take := 0
		switch args[0] {
		case "--quiet", "--verbose", "--debug", "--force", "--skip-auto":
			args = args[1:]
			continue
		case "--log", "--altdir", "--admindir", "--instdir", "--root":
			if len(args) > 1 && args[0] != "--log" && args[1] != "" && args[1] != "/" {
				p.Unsupported("%s %s", args[0], args[1])
			}
			args = args[min(2, len(args)):]
			continue
		case "--install":
			take = 5
		case "--slave":
			take = 4
		case "--remove", "--set":
			take = 3
		case "--auto", "--remove-all", "--display", "--query", "--list":
			take = 2
		case "--get-selections":
			take = 1
		default:
			if root, found := strings.CutPrefix(args[0], "--root="); found && (root == "" || root == "/") {
				args = args[1:]
				continue
			}
			p.Unsupported("%s", strings.Join(p.Args, " "))
		}
		if len(args) < take {
			return fmt.Errorf("%s needs %d arguments", args[0], take-1)
		}
		if args[0] == "--slave" {
			slaves = append(slaves, args[1:take])
		} else {
			action = args[:take]
		}
		args = args[take:]
	}
	if action == nil {
		return errors.New("need an action")
	}
	if action[0] == "--get-selections" {
		return selections(p)
	}
	name := action[1]
	if action[0] == "--install" {
		name = action[2]
	}
	if name == "" || strings.ContainsAny(name, "/ \t\n") || name == "." || name == ".." {
		return fmt.Errorf("alternative name (%s) must not contain '/' and spaces", name)
	}
	g, err := load(p.Tree, name)
	if err != nil {
		return err
	}
	if g == nil && action[0] != "--install" {
		if action[0] == "--remove" {
			return nil
		}
		return fmt.Errorf("no alternatives for %s", name)
	}
	switch action[0] {
	case "--install":
		return install(p, g, action[1:], slaves)
	case "--set":
		if g.choice(action[2]) == nil {
			return fmt.Errorf("alternative %s for %s not registered; not setting", action[2], name)
		}
		g.auto = false
		return g.apply(p, action[2])
	case "--auto":
		g.auto = true
		return g.apply(p, g.best().path)
	case "--remove":
		if g.choice(action[2]) == nil {
			return nil
		}
		g.choices = slices.DeleteFunc(g.choices, func(c *choice) bool { return c.path == action[2] })
		current := g.current(p.Tree)
		if current == action[2] {
			g.auto = true
		}
		if g.auto && g.best() != nil {
			current = g.best().path
		}
		return g.apply(p, current)
	case "--remove-all":
		g.choices = nil
		return g.apply(p, "")
	case "--list":
		for _, c := range g.choices {
			fmt.Fprintln(p.Stdout, c.path)
		}
	case "--query", "--display":
		g.print(p)
	}
	return nil
}

func install(p *shell.Process, old *group, args []string, slaves [][]string) error {
	at, name, file := args[0], args[1], args[2]
	priority, err := strconv.Atoi(args[3])
	if err != nil || priority > math.MaxInt32 || priority < math.MinInt32 {
		return fmt.Errorf("priority '%s' must be an integer", args[3])
	}
	if !strings.HasPrefix(at, "/") || !strings.HasPrefix(file, "/") || strings.ContainsAny(at+file, "\n") {
		return fmt.Errorf("alternative path (%s) or link (%s) is not absolute as it should be", file, at)
	}
	if at == file {
		return fmt.Errorf("<link> '%s' is the same as <path>", at)
	}
	if !p.Tree.Exists(file) {
		return fmt.Errorf("alternative path %s doesn't exist", file)
	}
	c := &choice{path: file, priority: priority, slaves: map[string]string{}}
	g := old
	if g == nil {
		g = &group{name: name, auto: true, link: at}
	}
	if g.link != at {
		if n, err := p.Tree.Lstat(g.link); err == nil && n.IsSymlink() {
			if err := p.Tree.Rename(g.link, at); err != nil {
				return err
			}
		}
		g.link = at
	}
	for _, s := range slaves {
		l := link{s[1], s[0]}
		if strings.ContainsAny(l.name, "/ \t\n") || l.name == "" || !strings.HasPrefix(l.path, "/") || strings.Contains(l.path+s[2], "\n") {
			return fmt.Errorf("slave %q is not valid", s)
		}
		c.slaves[l.name] = s[2]
		i := slices.IndexFunc(g.slaves, func(o link) bool { return o.name == l.name })
		switch {
		case i < 0:
			g.slaves = append(g.slaves, l)
		case g.slaves[i].path != l.path:
			if n, err := p.Tree.Lstat(g.slaves[i].path); err == nil && n.IsSymlink() {
				if err := p.Tree.Remove(g.slaves[i].path); err != nil {
					return err
				}
			}
			g.slaves[i] = l
		}
	}
	g.choices = append(slices.DeleteFunc(g.choices, func(o *choice) bool { return o.path == file }), c)
	slices.SortFunc(g.choices, func(a, b *choice) int { return cmp.Compare(a.path, b.path) })
	current := g.current(p.Tree)
	if current == "" || old == nil {
		g.auto = true
	} else if g.auto && g.choice(current) == nil {
		// The administrator led the link elsewhere.
		g.auto = false
	}
	if g.auto {
		current = g.best().path
	}
	return g.apply(p, current)
}

// apply makes the links lead to the choice and writes the group, or removes
// it all if no choice is left.
func (g *group) apply(p *shell.Process, to string) error {
	if len(g.choices) == 0 {
		for _, l := range append(slices.Clone(g.slaves), link{g.name, g.link}) {
			if err := drop(p.Tree, l); err != nil {
				return err
			}
		}
		return p.Tree.Remove(adminDir + "/" + g.name)
	}
	c := g.choice(to)
	if c == nil {
		if p.Tree.Exists(to) {
			return g.save(p.Tree) // the administrator's own
		}
		c = g.best()
		g.auto = true
	}
	if to != g.current(p.Tree) {
		mode := "manual"
		if g.auto {
			mode = "auto"
		}
		fmt.Fprintf(p.Stdout, "update-alternatives: using %s to provide %s (%s) in %s mode\n", c.path, g.link, g.name, mode)
	}
	if g.broken(p.Tree, c) {
		if err := g.install(p, c); err != nil {
			return err
		}
	}
	return g.save(p.Tree)
}

func (g *group) print(p *shell.Process) {
	mode := "manual"
	if g.auto {
		mode = "auto"
	}
	current := g.current(p.Tree)
	if p.Args[1] == "--display" {
		fmt.Fprintf(p.Stdout, "%s - %s mode\n  link currently points to %s\n", g.name, mode, current)
		for _, c := range g.choices {
			fmt.Fprintf(p.Stdout, "%s - priority %d\n", c.path, c.priority)
		}
		return
	}
	fmt.Fprintf(p.Stdout, "Name: %s\nLink: %s\n", g.name, g.link)
	if len(g.slaves) > 0 {
		fmt.Fprintln(p.Stdout, "Slaves:")
		for _, s := range g.slaves {
			fmt.Fprintf(p.Stdout, " %s %s\n", s.name, s.path)
		}
	}
	fmt.Fprintf(p.Stdout, "Status: %s\n", mode)
	if best := g.best(); best != nil {
		fmt.Fprintf(p.Stdout, "Best: %s\n", best.path)
	}
	fmt.Fprintf(p.Stdout, "Value: %s\n", cmp.Or(current, "none"))
	for _, c := range g.choices {
		fmt.Fprintf(p.Stdout, "\nAlternative: %s\nPriority: %d\n", c.path, c.priority)
		if len(c.slaves) == 0 {
			continue
		}
		fmt.Fprintln(p.Stdout, "Slaves:")
		for _, s := range g.slaves {
			if c.slaves[s.name] != "" {
				fmt.Fprintf(p.Stdout, " %s %s\n", s.name, c.slaves[s.name])
			}
		}
	}
}

func selections(p *shell.Process) error {
	names, err := p.Tree.ReadDir(adminDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		g, err := load(p.Tree, path.Base(name))
		if err != nil {
			return err
		}
		mode := "manual"
		if g.auto {
			mode = "auto"
		}
		fmt.Fprintf(p.Stdout, "%-30s %-8s %s\n", name, mode, g.current(p.Tree))
	}
	return nil
}
