// Package debconf is debconf's database and the noninteractive frontend that
// maintainer scripts talk to through /usr/share/debconf/confmodule.
//
// Sources: debconf-devel(7) for the protocol and the templates,
// debconf.conf(5), debconf-set-selections(1); the files in /var/cache/debconf
// are as debconf 1.5 writes them.
//
// Not supported: other frontends, other database drivers, mail about errors,
// languages (images are built in the C locale).
package debconf

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// Commands returns the programs by name, the frontend by its full path.
func (s *Store) Commands() map[string]shell.Command {
	return map[string]shell.Command{
		"/usr/share/debconf/frontend": s.frontend,
		"debconf":                     s.frontend,
		"debconf-escape":              escapeCommand,
		"debconf-set-selections":      s.setSelections,
		"debconf-show":                s.show,
		"debconf-communicate":         s.communicate,
	}
}

var (
	ownScript = regexp.MustCompile(`^.*/(.*?)\.(?:postinst|postrm|prerm)$`)
	anyScript = regexp.MustCompile(`^(.*[./])(?:preinst|postinst|prerm|postrm)$`)
	installs  = regexp.MustCompile(`^(.*[./])(?:postinst|preinst)$`)
)

// frontend loads a package's templates, runs its config script, then the
// script that called it, each with the protocol on its standard streams.
func (s *Store) frontend(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	for len(args) > 0 && p.Name() == "debconf" && strings.HasPrefix(args[0], "-") {
		args = args[1:]
	}
	if len(args) == 0 {
		p.Errorf("please specify something to run")
		return 1
	}
	if err := s.load(); err != nil {
		p.Errorf("%v", err)
		return 1
	}
	script := args[0]
	owner := p.Env["DEBCONF_PACKAGE"]
	if m := ownScript.FindStringSubmatch(script); owner == "" && m != nil {
		owner = m[1] // with the architecture, as dpkg's files are named
	}
	if owner == "" {
		owner = p.Env["DPKG_MAINTSCRIPT_PACKAGE"]
	}
	if m := anyScript.FindStringSubmatch(script); m != nil && p.Tree.Exists(m[1]+"templates") {
		text, err := p.Tree.ReadFile(m[1] + "templates")
		if err == nil {
			err = s.loadTemplates(string(text), owner)
		}
		if err != nil {
			p.Errorf("%stemplates: %v", m[1], err)
			return 1
		}
	}
	if m := installs.FindStringSubmatch(script); m != nil && p.Tree.Exists(m[1]+"config") {
		version := ""
		if len(args) > 2 {
			version = args[2]
		}
		if status := s.run(ctx, p, owner, []string{m[1] + "config", "configure", version}); status != 0 {
			return status
		}
	}
	status := s.run(ctx, p, owner, args)
	if err := s.save(); err != nil {
		p.Errorf("%v", err)
		return 1
	}
	return status
}

// run runs a program that speaks the protocol.
func (s *Store) run(ctx context.Context, p *shell.Process, owner string, args []string) int {
	env := map[string]string{}
	for k, v := range p.Env {
		env[k] = v
	}
	env["DEBIAN_HAS_FRONTEND"] = "1"
	env["DEBIAN_FRONTEND"] = "noninteractive"
	delete(env, "DEBCONF_REDIR")
	c := &conversation{store: s, owner: owner, markSeen: p.Env["DEBCONF_NONINTERACTIVE_SEEN"] == "true", out: p.Stdout}
	if c.priority = p.Env["DEBIAN_PRIORITY"]; c.priority == "" {
		c.priority = s.value("debconf/priority")
	}
	status := p.Run(ctx, shell.Call{Args: args, Env: env, Stdin: &c.answers, Stdout: c})
	c.finish()
	return status
}

// conversation is one run of a program under the frontend: what it writes are
// requests, what it reads are the answers to them.
type conversation struct {
	store    *Store
	owner    string
	priority string
	markSeen bool
	escaped  bool
	stopped  bool
	line     []byte
	answers  bytes.Buffer
	busy     []asked
	seen     []string
	out      io.Writer
}

type asked struct {
	question string
	mark     bool
}

const maxLine = 1 << 20

func (c *conversation) Write(b []byte) (int, error) {
	for _, ch := range b {
		if ch != '\n' {
			if len(c.line) < maxLine {
				c.line = append(c.line, ch)
			}
			continue
		}
		line := string(c.line)
		c.line = c.line[:0]
		if c.stopped {
			continue
		}
		answer := c.request(line)
		if c.stopped {
			continue
		}
		answer, _, _ = strings.Cut(answer, "\n")
		c.answers.WriteString(answer + "\n")
	}
	return len(b), nil
}

func (c *conversation) finish() {
	for _, name := range c.seen {
		c.store.setFlag(name, "seen", true)
	}
	c.seen = nil
}

var priorities = []string{"low", "medium", "high", "critical"}

// The protocol's return codes.
const (
	success   = "0 "
	escapedOK = "1 "
	badParams = "10 "
	syntax    = "20 "
	skipped   = "30 "
)

func (c *conversation) request(line string) string {
	s := c.store
	words := strings.Fields(line)
	if c.escaped {
		words = unescapeWords(line)
	}
	if len(words) == 0 {
		return syntax + "Bad line \"" + line + "\" received from confmodule."
	}
	command, args := strings.ToLower(words[0]), words[1:]
	need := map[string][2]int{
		"input": {2, 2}, "get": {1, 1}, "set": {1, -1}, "reset": {1, 1}, "subst": {2, -1}, "register": {2, 2},
		"unregister": {1, 1}, "metaget": {2, 2}, "fget": {2, 2}, "fset": {3, -1}, "exist": {1, 1}, "visible": {2, 2},
		"go": {0, 0}, "clear": {0, 0}, "purge": {0, 0}, "settitle": {1, 1}, "version": {0, 1}, "x_loadtemplatefile": {1, 2}, "data": {3, -1},
	}
	if n, known := need[command]; known && (len(args) < n[0] || n[1] >= 0 && len(args) > n[1]) {
		return syntax + "Incorrect number of arguments"
	}
	// Where the question's name stands.
	at := map[string]int{"input": 1, "get": 0, "set": 0, "reset": 0, "subst": 0, "unregister": 0, "metaget": 0, "fget": 0, "fset": 0, "settitle": 0}
	name := ""
	var q *item
	if i, asks := at[command]; asks {
		name = args[i]
		if q, _ = s.question(name); q == nil {
			return badParams + name + " doesn't exist"
		}
	}
	switch command {
	case "stop":
		c.stopped = true
		c.finish()
		return ""
	case "version":
		if len(args) == 1 && !strings.HasPrefix(args[0], "2") {
			return skipped + "Version too low (" + args[0] + ")"
		}
		return success + "2.0"
	case "capb":
		c.escaped = slices.Contains(args, "escape")
		return success + "multiselect escape"
	case "title", "beginblock", "endblock", "info", "settitle":
		return "0"
	case "progress":
		return success + "OK"
	case "input":
		return c.input(args[0], name, q)
	case "clear":
		c.busy = nil
		return "0"
	case "go":
		for _, a := range c.busy {
			s.setValue(a.question, c.answer(a.question))
			if a.mark {
				c.seen = append(c.seen, a.question)
			}
		}
		c.busy = nil
		return success + "ok"
	case "get":
		return c.value(s.value(name))
	case "set":
		s.setValue(name, strings.Join(args[1:], " "))
		return success + "value set"
	case "reset":
		v, _ := s.field(q.fields["template"], "default")
		s.setValue(name, v)
		s.setFlag(name, "seen", false)
		return "0"
	case "subst":
		_, f := s.question(name)
		q.variables[args[1]] = strings.Join(args[2:], " ")
		f.touch(q)
		return "0"
	case "register":
		t, _ := s.question(args[0])
		if t == nil {
			return badParams + "No such template, \"" + args[0] + "\""
		}
		kind, _ := s.field(t.fields["template"], "type")
		s.addQuestion(args[1], c.owner, kind, args[0])
		s.setTemplate(args[1], args[0])
		return "0"
	case "unregister":
		c.remove(name)
		return "0"
	case "purge":
		for _, f := range []*file{&s.config, &s.passwords} {
			for n := range f.items {
				c.remove(n)
			}
		}
		return "0"
	case "metaget":
		return c.metaget(name, strings.ToLower(args[1]), q)
	case "fget":
		return success + fmt.Sprint(q.flags[args[1]])
	case "fset":
		on := strings.Join(args[2:], " ")
		if args[1] == "seen" {
			c.seen = slices.DeleteFunc(c.seen, func(n string) bool { return n == name })
		}
		s.setFlag(name, args[1], on == "true")
		return success + on
	case "exist":
		q, _ := s.question(args[0])
		return success + fmt.Sprint(q != nil)
	case "visible":
		return success + "false"
	case "x_loadtemplatefile":
		owner := c.owner
		if len(args) > 1 {
			owner = args[1]
		}
		text, err := s.t.ReadFile(args[0])
		if err == nil {
			err = s.loadTemplates(string(text), owner)
		}
		if err != nil {
			return badParams + "failed to open " + args[0]
		}
		return "0"
	case "data":
		return c.data(args)
	}
	return syntax + "Unsupported command \"" + command + "\" (full line was \"" + line + "\") received from confmodule."
}

// data builds a template piece by piece; its type comes first.
func (c *conversation) data(args []string) string {
	s := c.store
	name, field := args[0], strings.ToLower(args[1])
	value := strings.NewReplacer(`\n`, "\n", `\"`, `"`, `\\`, `\`).Replace(strings.Join(args[2:], " "))
	t := s.templates.items[name]
	if t == nil {
		if field != "type" {
			return badParams + "Template data field '" + field + "' received before type field"
		}
		s.addQuestion(name, c.owner, value, name)
		t = s.templates.addOwner(name, name)
	} else if field == "type" {
		return badParams + "Template type already set"
	}
	t.fields[field] = value
	s.templates.touch(t)
	return "0"
}

func (c *conversation) value(v string) string {
	if c.escaped {
		return escapedOK + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(v)
	}
	return success + v
}

func (c *conversation) remove(name string) {
	i, f := c.store.question(name)
	if i == nil || !i.owners[c.owner] {
		return
	}
	template := i.fields["template"]
	f.removeOwner(name, c.owner)
	if f.items[name] == nil && template != "" {
		c.store.templates.removeOwner(template, name)
	}
}

// input puts a question on the list of those that the next GO answers. Nobody
// ever sees it; it counts as seen if it would have been asked.
func (c *conversation) input(priority, name string, q *item) string {
	level := slices.Index(priorities, priority)
	if level < 0 {
		return syntax + "\"" + priority + "\" is not a valid priority"
	}
	threshold := slices.Index(priorities, c.priority)
	if threshold < 0 {
		threshold = 2
	}
	kind, _ := c.store.field(q.fields["template"], "type")
	visible := kind == "error" || level >= threshold && !q.flags["seen"]
	if !slices.ContainsFunc(c.busy, func(a asked) bool { return a.question == name }) {
		c.busy = append(c.busy, asked{name, visible && c.markSeen})
	}
	return skipped + "question skipped"
}

// answer is what a question gets without a person: its value, or the first
// choice if that is none of them.
func (c *conversation) answer(name string) string {
	s := c.store
	q, _ := s.question(name)
	if q == nil {
		return ""
	}
	template := q.fields["template"]
	value := s.value(name)
	switch kind, _ := s.field(template, "type"); kind {
	case "select":
		choices := splitChoices(s.expand(name, s.original(template, "choices")))
		if slices.Contains(choices, value) {
			return value
		}
		if len(choices) > 0 {
			return choices[0]
		}
		return ""
	case "error":
		return ""
	}
	return value
}

func (c *conversation) metaget(name, field string, q *item) string {
	s := c.store
	switch field {
	case "value":
		return c.value(s.value(name))
	case "owners":
		var owners []string
		for o := range q.owners {
			owners = append(owners, o)
		}
		slices.Sort(owners)
		return c.value(strings.Join(owners, ", "))
	}
	v, found := q.fields[field]
	if !found {
		if v, found = s.field(q.fields["template"], field); !found {
			return badParams + field + " does not exist"
		}
	}
	base, _, _ := strings.Cut(field, "-")
	if base == "description" || base == "extended_description" || base == "choices" {
		v = s.expand(name, v)
	}
	return c.value(v)
}

func unescapeWords(line string) []string {
	var out []string
	var b strings.Builder
	in := false
	for i := 0; i < len(line); i++ {
		switch ch := line[i]; {
		case ch == '\\' && i+1 < len(line):
			i++
			in = true
			if line[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(line[i])
			}
		case ch == ' ' || ch == '\t':
			if in {
				out = append(out, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(ch)
			in = true
		}
	}
	if in {
		out = append(out, b.String())
	}
	return out
}

func escapeCommand(ctx context.Context, p *shell.Process) int {
	text, err := shell.ReadAll(p.Stdin)
	if err != nil || len(p.Args) != 2 {
		return 1
	}
	var r *strings.Replacer
	switch p.Args[1] {
	case "-e", "--escape":
		r = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	case "-u", "--unescape":
		r = strings.NewReplacer(`\n`, "\n", `\\`, `\`)
	default:
		return 1
	}
	if _, err := r.WriteString(p.Stdout, string(text)); err != nil {
		return 1
	}
	return 0
}

func (s *Store) setSelections(ctx context.Context, p *shell.Process) int {
	text, err := shell.ReadAll(p.Stdin)
	for _, a := range p.Args[1:] {
		if !strings.HasPrefix(a, "-") {
			text, err = p.ReadFile(a)
		}
	}
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	for line := range strings.SplitSeq(strings.ReplaceAll(string(text), "\\\n", ""), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Fields(line)
		if len(parts) < 3 {
			p.Errorf("error: Cannot parse line: %s", line)
			return 1
		}
		_, value, _ := strings.Cut(line, parts[2])
		// The owner or the name may contain the type's word.
		if i := strings.Index(line, parts[1]); i >= 0 {
			rest := strings.TrimLeft(line[i+len(parts[1]):], " \t")
			value = strings.TrimPrefix(rest, parts[2])
		}
		value = strings.TrimLeft(value, " \t")
		if parts[2] == "seen" {
			s.setFlag(parts[1], "seen", value == "true")
			continue
		}
		if err := s.Preseed(parts[0], parts[1], parts[2], value); err != nil {
			p.Errorf("%v", err)
			return 1
		}
	}
	return 0
}

func (s *Store) show(ctx context.Context, p *shell.Process) int {
	if err := s.load(); err != nil {
		p.Errorf("%v", err)
		return 1
	}
	for _, owner := range p.Args[1:] {
		var names []string
		for n, i := range s.config.items {
			if i.owners[owner] {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		for _, n := range names {
			mark := " "
			if s.config.items[n].flags["seen"] {
				mark = "*"
			}
			fmt.Fprintf(p.Stdout, "%s %s: %s\n", mark, n, s.value(n))
		}
	}
	return 0
}

// communicate answers the requests on its standard input.
func (s *Store) communicate(ctx context.Context, p *shell.Process) int {
	text, err := shell.ReadAll(p.Stdin)
	if err == nil {
		err = s.load()
	}
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	owner := "unknown"
	if len(p.Args) > 1 {
		owner = p.Args[len(p.Args)-1]
	}
	c := &conversation{store: s, owner: owner}
	if _, err := c.Write(text); err != nil {
		return 1
	}
	c.finish()
	if _, err := io.Copy(p.Stdout, &c.answers); err != nil {
		return 1
	}
	if err := s.save(); err != nil {
		p.Errorf("%v", err)
		return 1
	}
	return 0
}

// Client is a program other than a shell script that speaks the protocol.
type Client struct {
	c   conversation
	own bool // no frontend runs: the database is this client's to save
}

// Client begins a conversation on behalf of p, in the frontend that runs p or
// one of its own. End it with Close.
func (s *Store) Client(p *shell.Process, owner string) (*Client, error) {
	c := &Client{own: p.Env["DEBIAN_HAS_FRONTEND"] == ""}
	c.c = conversation{store: s, owner: owner, markSeen: p.Env["DEBCONF_NONINTERACTIVE_SEEN"] == "true", priority: p.Env["DEBIAN_PRIORITY"]}
	if c.own {
		if err := s.load(); err != nil {
			return nil, err
		}
	}
	if c.c.priority == "" {
		c.c.priority = s.value("debconf/priority")
	}
	return c, nil
}

// Request sends a line of the protocol and returns the answer's text.
func (c *Client) Request(words ...string) string {
	_, text, _ := strings.Cut(c.c.request(strings.Join(words, " ")), " ")
	return text
}

// Close ends the conversation.
func (c *Client) Close() error {
	c.c.finish()
	if c.own {
		return c.c.store.save()
	}
	return nil
}
