package judge

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/picube/picube-build/builder/debian/control"
)

const statusPath = "/var/lib/dpkg/status"

// diffText says in a few lines how two contents differ: "-" is the real one.
func diffText(real, ours []byte) string {
	if !isText(real) || !isText(ours) {
		at := 0
		for at < min(len(real), len(ours)) && real[at] == ours[at] {
			at++
		}
		return fmt.Sprintf("%d bytes, really %d, from byte %d on", len(ours), len(real), at)
	}
	a, b := strings.Split(string(real), "\n"), strings.Split(string(ours), "\n")
	begin := 0
	for begin < min(len(a), len(b)) && a[begin] == b[begin] {
		begin++
	}
	end := 0
	for end < min(len(a), len(b))-begin && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	var out strings.Builder
	fmt.Fprintf(&out, "line %d", begin+1)
	sign(&out, "-", a[begin:len(a)-end])
	sign(&out, "+", b[begin:len(b)-end])
	return out.String()
}

func isText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// sign writes lines behind a sign, not more than a reader wants.
func sign(out *strings.Builder, sign string, lines []string) {
	const most, widest = 8, 160
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(out, "\n    %s (%d more lines)", sign, len(lines)-most)
			return
		}
		if len(line) > widest {
			line = line[:widest] + " …"
		}
		fmt.Fprintf(out, "\n    %s %s", sign, line)
	}
}

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
