package judge

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/picube/picube-build/builder/debian/control"
)

const (
	statusPath = "/var/lib/dpkg/status"
	statesPath = "/var/lib/apt/extended_states"
)

// diffText says in a few lines how two contents differ: "-" is the real one,
// "@@" tells the lines.
func diffText(real, ours []byte) string {
	if !isText(real) || !isText(ours) {
		at := 0
		for at < min(len(real), len(ours)) && real[at] == ours[at] {
			at++
		}
		return fmt.Sprintf("%d bytes, really %d, from byte %d on", len(ours), len(real), at)
	}
	const most, widest = 16, 160
	var out strings.Builder
	lines := 0
	for line := range strings.Lines(string(diff.Diff("real", real, "ours", ours))) {
		line = strings.TrimSuffix(line, "\n")
		place := strings.HasPrefix(line, "@@")
		change := strings.HasPrefix(line, "-") || strings.HasPrefix(line, "+")
		if !place && !change || strings.HasPrefix(line, "--- real") || strings.HasPrefix(line, "+++ ours") {
			continue
		}
		if lines++; lines > most {
			continue
		}
		if len(line) > widest {
			line = strings.ToValidUTF8(line[:widest], "") + " …"
		}
		if out.Len() > 0 {
			out.WriteString("\n    ")
		}
		out.WriteString(line)
	}
	if lines > most {
		fmt.Fprintf(&out, "\n    (%d more lines)", lines-most)
	}
	return out.String()
}

func isText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// records are the parts of a file that are told apart, by name.
type records struct {
	byName map[string]control.Paragraph
	order  []string
}

// recordReaders knows the files whose parts are judged one by one: their
// order, too, is a difference of its own.
func recordReaders() map[string]func(text string) (records, error) {
	return map[string]func(string) (records, error){
		statusPath:                             paragraphs("Package"),
		statesPath:                             paragraphs("Package"),
		"/var/cache/debconf/config.dat":        paragraphs("Name"),
		"/var/cache/debconf/config.dat-old":    paragraphs("Name"),
		"/var/cache/debconf/templates.dat":     paragraphs("Name"),
		"/var/cache/debconf/templates.dat-old": paragraphs("Name"),
		"/var/lib/dpkg/triggers/File":          lines,
	}
}

// paragraphs reads a file of paragraphs that are named by a field.
func paragraphs(field string) func(string) (records, error) {
	return func(text string) (records, error) {
		r := records{byName: map[string]control.Paragraph{}}
		for p, err := range control.Paragraphs(text) {
			if err != nil {
				return r, err
			}
			name := p.Get(field)
			r.byName[name] = p
			r.order = append(r.order, name)
		}
		return r, nil
	}
}

// lines reads a file of lines that name themselves.
func lines(text string) (records, error) {
	r := records{byName: map[string]control.Paragraph{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		r.byName[line] = nil
		r.order = append(r.order, line)
	}
	return r, nil
}

// records compares two files part by part.
func (c *comparison) records(p string, read func(string) (records, error), realText, oursText string) {
	before := len(c.differences)
	real, err := read(realText)
	if err != nil {
		c.report(p, Content, "the real one: %v", err)
		return
	}
	ours, err := read(oursText)
	if err != nil {
		c.report(p, Content, "%v", err)
		return
	}
	for _, name := range real.order {
		if _, ok := ours.byName[name]; !ok {
			c.report(p+"#"+name, Missing, "%s", summary(name, real.byName[name]))
			continue
		}
		if text := fieldDiff(real.byName[name], ours.byName[name]); text != "" {
			c.report(p+"#"+name, Content, "%s", text)
		}
	}
	for _, name := range ours.order {
		if _, ok := real.byName[name]; !ok {
			c.report(p+"#"+name, Extra, "%s", summary(name, ours.byName[name]))
		}
	}
	if len(c.differences) == before || !slices.Equal(common(real, ours), common(ours, real)) {
		c.report(p, Order, "the same parts in another order or layout, %s", diffText([]byte(realText), []byte(oursText)))
	}
}

// common returns the names of one, in its order, that the other has too.
func common(one, other records) []string {
	var names []string
	for _, name := range one.order {
		if _, ok := other.byName[name]; ok {
			names = append(names, name)
		}
	}
	return names
}

func summary(name string, p control.Paragraph) string {
	if status := p.Get("Status"); status != "" {
		return status
	}
	return name
}

// fieldDiff returns the fields that differ, "" for none.
func fieldDiff(real, ours control.Paragraph) string {
	var out []string
	for _, f := range real {
		if value := ours.Get(f.Name); value != f.Value {
			out = append(out, fmt.Sprintf("%s: %q, really %q", f.Name, value, f.Value))
		}
	}
	for _, f := range ours {
		if real.Get(f.Name) == "" && f.Value != "" {
			out = append(out, fmt.Sprintf("%s: %q, really none", f.Name, f.Value))
		}
	}
	return strings.Join(out, "; ")
}
