package displayd

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

// Facts are what a page can tell: {{.Host}} in its text. What isn't known is
// empty.
type Facts struct {
	Host        string
	Cube        string
	Role        string
	Address     string // on the cubes' wire
	Addresses   string // all of them, the way out first
	WiFi        string // "WLAN", "searching", "wrong password?"
	Now         time.Time
	Temperature string // "48.3°C"
	Voltage     string // "1.20V"
	Load        string // "0.42"
	Memory      string // "23%"
	MemoryFree  string // "683M"
	Disk        string // "31%"
	Stage       string // "configured"
	Cluster     string // "Ready 5/5", or what the node is doing about it
	Fan         string // "60%"
	Uptime      string // "3d 4h"
}

// Page is what a display shows at one time.
type Page struct {
	Lines []string `yaml:"lines"`
}

// DefaultPages are shown where the blueprint has none.
func DefaultPages() []Page {
	return []Page{
		{Lines: []string{`{{.Host}}{{with .Role}}{{if ne . "node"}} {{.}}{{end}}{{end}}`, `{{.Address}}`}},
		{Lines: []string{`{{.Now.Format "Mon 2 Jan 15:04"}}`, `{{with .Uptime}}up {{.}}{{end}}`}},
		{Lines: []string{`{{with .Temperature}}CPU {{.}}{{end}}{{with .Voltage}} {{.}}{{end}}`, `{{with .Load}}load {{.}}{{end}}{{with .Memory}} mem {{.}}{{end}}`}},
		{Lines: []string{`{{with .Cluster}}cluster{{end}}`, `{{.Cluster}}`}},
		{Lines: []string{`{{with .Fan}}fan {{.}}{{end}}`, `{{with .WiFi}}Wi-Fi {{.}}{{end}}`}},
	}
}

// glyphRune is the rune that stands for the first glyph of one's own; Unicode
// leaves this range to private use.
const glyphRune = '\ue000'

// compile parses a line of a page. glyphs are the names of the display's own
// characters, by their number.
func compile(text string, glyphs []string) (*template.Template, error) {
	return template.New("line").Option("missingkey=error").Funcs(template.FuncMap{
		"glyph": func(name string) (string, error) {
			for i, g := range glyphs {
				if g == name {
					return string(glyphRune + rune(i)), nil
				}
			}
			return "", fmt.Errorf("there is no glyph %q", name)
		},
	}).Parse(text)
}

// TemplateError is a mistake in a line.
type TemplateError struct {
	Offset int // in bytes from the line's beginning
	Reason string
}

func (e *TemplateError) Error() string { return fmt.Sprintf("column %d: %s", e.Offset+1, e.Reason) }

// CheckLine finds mistakes in a line without knowing a node's facts.
func CheckLine(text string, glyphs []string) error {
	t, err := compile(text, glyphs)
	if err != nil {
		return &TemplateError{Offset: faultyAction(text, glyphs), Reason: reason(err)}
	}
	if strings.ContainsAny(text, "\n\r") {
		return &TemplateError{Offset: strings.IndexAny(text, "\n\r"), Reason: "a line has no line break"}
	}
	c := checker{facts: reflect.TypeFor[Facts](), glyphs: glyphs}
	c.list(t.Root)
	if c.found != nil {
		return c.found
	}
	return nil
}

// reason is a template error without the name and line of a template that
// the user doesn't know about.
func reason(err error) string {
	text := err.Error()
	if i := strings.Index(text, ": "); strings.HasPrefix(text, "template: ") && i >= 0 {
		text = text[i+2:]
		if j := strings.Index(text, ": "); j >= 0 && strings.HasPrefix(text, "line:") {
			text = text[j+2:]
		}
	}
	return text
}

// faultyAction returns where the action begins that keeps a line from being
// parsed: the parser itself tells no column. It is the end of the shortest
// beginning that is wrong for another reason than being a beginning.
func faultyAction(text string, glyphs []string) int {
	start := strings.Index(text, "{{")
	for start >= 0 {
		length := strings.Index(text[start:], "}}")
		if length < 0 {
			return start
		}
		end := start + length + 2
		_, err := compile(text[:end], glyphs)
		if err != nil && !strings.Contains(err.Error(), "unexpected EOF") {
			return start
		}
		next := strings.Index(text[end:], "{{")
		if next < 0 {
			break // something is never ended: the last action is as good as any
		}
		start = end + next
	}
	return max(start, 0)
}

// checker looks for facts and glyphs that don't exist, in every branch.
type checker struct {
	facts  reflect.Type
	glyphs []string
	found  *TemplateError
	inside int // of with and range, where the dot is something else
}

func (c *checker) fail(n parse.Node, format string, args ...any) {
	if c.found == nil {
		c.found = &TemplateError{Offset: int(n.Position()), Reason: fmt.Sprintf(format, args...)}
	}
}

func (c *checker) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		c.node(n)
	}
}

func (c *checker) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.ActionNode:
		c.pipe(n.Pipe)
	case *parse.IfNode:
		c.pipe(n.Pipe)
		c.list(n.List)
		c.list(n.ElseList)
	case *parse.WithNode:
		c.branch(&n.BranchNode)
	case *parse.RangeNode:
		c.branch(&n.BranchNode)
	case *parse.TemplateNode:
		c.fail(n, "there are no other templates")
	}
}

func (c *checker) branch(b *parse.BranchNode) {
	c.pipe(b.Pipe)
	c.inside++
	c.list(b.List)
	c.inside--
	c.list(b.ElseList)
}

func (c *checker) pipe(p *parse.PipeNode) {
	if p == nil {
		return
	}
	for _, cmd := range p.Cmds {
		for i, arg := range cmd.Args {
			c.argument(arg)
			if id, ok := arg.(*parse.IdentifierNode); ok && id.Ident == "glyph" && i+1 < len(cmd.Args) {
				c.glyph(cmd.Args[i+1])
			}
		}
	}
}

func (c *checker) argument(n parse.Node) {
	switch n := n.(type) {
	case *parse.PipeNode:
		c.pipe(n)
	case *parse.FieldNode:
		if c.inside == 0 {
			c.field(n, n.Ident)
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			c.field(n, n.Ident[1:])
		}
	}
}

func (c *checker) field(n parse.Node, path []string) {
	f, ok := c.facts.FieldByName(path[0])
	if !ok {
		c.fail(n, "there is no fact .%s; there are: %s", path[0], strings.Join(factNames(), ", "))
		return
	}
	if len(path) == 1 {
		return
	}
	if _, ok := f.Type.MethodByName(path[1]); !ok {
		c.fail(n, ".%s has no %s", path[0], path[1])
	}
}

func (c *checker) glyph(n parse.Node) {
	s, ok := n.(*parse.StringNode)
	if !ok {
		return
	}
	for _, g := range c.glyphs {
		if g == s.Text {
			return
		}
	}
	c.fail(n, "there is no glyph %q in this display", s.Text)
}

func factNames() []string {
	var names []string
	for f := range reflect.TypeFor[Facts]().Fields() {
		names = append(names, "."+f.Name)
	}
	return names
}

// render returns the lines of the pages that have something to say, each page
// cut into as many screens as the display's rows ask for.
func render(pages [][]*template.Template, f Facts, rows int) (screens [][]string, err error) {
	for _, p := range pages {
		var lines []string
		empty := true
		for _, t := range p {
			var b strings.Builder
			if e := t.Execute(&b, f); e != nil {
				err = errors.Join(err, e)
				b.Reset()
				b.WriteString("?")
			}
			line := strings.TrimRight(b.String(), " ")
			lines = append(lines, line)
			empty = empty && line == ""
		}
		if !empty {
			screens = append(screens, cut(lines, rows)...)
		}
	}
	return screens, err
}

// cut divides lines into screens. A line with nothing on it gets no screen of
// its own.
func cut(lines []string, rows int) [][]string {
	var screens [][]string
	for len(lines) > 0 {
		n := min(rows, len(lines))
		if strings.Join(lines[:n], "") != "" {
			screens = append(screens, lines[:n])
		}
		lines = lines[n:]
	}
	return screens
}
