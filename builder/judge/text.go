package judge

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/picube/picube-build/builder/debian/control"
)

const statusPath = "/var/lib/dpkg/status"

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

// status compares dpkg's database field by field.
func (c *comparison) status(real, ours string) {
	before := len(c.differences)
	realPackages, realOrder, err := packages(real)
	if err != nil {
		c.report(statusPath, Content, "the real one: %v", err)
		return
	}
	oursPackages, oursOrder, err := packages(ours)
	if err != nil {
		c.report(statusPath, Content, "%v", err)
		return
	}
	for _, name := range realOrder {
		if _, ok := oursPackages[name]; !ok {
			c.report(statusPath+"#"+name, Missing, "%s", realPackages[name].Get("Status"))
			continue
		}
		if text := fieldDiff(realPackages[name], oursPackages[name]); text != "" {
			c.report(statusPath+"#"+name, Content, "%s", text)
		}
	}
	for _, name := range oursOrder {
		if _, ok := realPackages[name]; !ok {
			c.report(statusPath+"#"+name, Extra, "%s", oursPackages[name].Get("Status"))
		}
	}
	if len(c.differences) == before {
		c.report(statusPath, Content, "the same packages in another order or layout, %s", diffText([]byte(real), []byte(ours)))
	}
}

func packages(text string) (byName map[string]control.Paragraph, order []string, err error) {
	byName = map[string]control.Paragraph{}
	for p, err := range control.Paragraphs(text) {
		if err != nil {
			return nil, nil, err
		}
		name := p.Get("Package")
		byName[name] = p
		order = append(order, name)
	}
	return byName, order, nil
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
