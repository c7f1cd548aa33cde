// Package control reads deb822 paragraphs: control files, package indices,
// Release files, dpkg's status, apt's .sources files.
//
// Source: deb822(5) and Debian Policy 5.1. Lines that start with "#" are
// skipped everywhere, as in .sources files. Armour of signatures is no part
// of this format.
//
// Names and values are pieces of the text that was given, never copies, so
// that an index of 70,000 paragraphs costs little; keep a strings.Clone of
// what outlives a large text.
package control

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
)

// Field is one "Name: value". The value has no blanks around it; a folded
// one keeps its line ends and the blank that starts each further line.
type Field struct{ Name, Value string }

// Paragraph is a run of fields in their order; no name occurs twice.
type Paragraph []Field

// Get returns the value of a field, whatever the case of its name; "" if
// there is none.
func (p Paragraph) Get(name string) string {
	for _, f := range p {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Lines returns the further lines of a folded value, trimmed, without empty
// ones: the entries of Conffiles or SHA256.
func Lines(value string) []string {
	var lines []string
	_, rest, _ := strings.Cut(value, "\n")
	for line := range strings.SplitSeq(rest, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Write writes the paragraph and the empty line that ends it.
func (p Paragraph) Write(w io.Writer) error {
	var b strings.Builder
	for _, f := range p {
		b.WriteString(f.Name)
		b.WriteByte(':')
		if f.Value != "" && f.Value[0] != '\n' {
			b.WriteByte(' ')
		}
		b.WriteString(f.Value)
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// Parse reads a text of exactly one paragraph.
func Parse(text string) (Paragraph, error) {
	var found Paragraph
	for p, err := range Paragraphs(text) {
		if err != nil {
			return nil, err
		}
		if found != nil {
			return nil, fmt.Errorf("more than one paragraph")
		}
		found = p
	}
	if found == nil {
		return nil, fmt.Errorf("no paragraph")
	}
	return found, nil
}

// Paragraphs iterates over a text's paragraphs; an error names the line and
// ends it.
func Paragraphs(text string) iter.Seq2[Paragraph, error] {
	return func(yield func(Paragraph, error) bool) {
		var p Paragraph // reused: only exact copies are handed out
		number := 0
		fail := func(format string, args ...any) {
			yield(nil, fmt.Errorf("line %d: %s", number, fmt.Sprintf(format, args...)))
		}
		// The last field's value is text[start:end], after the pieces that
		// comments cut off.
		var start, end int
		var pieces []string
		cut := false
		finish := func() {
			if len(p) == 0 {
				return
			}
			value := text[start:end]
			if pieces != nil {
				value = strings.Join(append(pieces, value), "\n")
				pieces = nil
			}
			cut = false
			p[len(p)-1].Value = value
		}
		for at := 0; at < len(text); {
			line, next := text[at:], len(text)
			if i := strings.IndexByte(line, '\n'); i >= 0 {
				line, next = line[:i], at+i+1
			}
			number++
			line = trimRight(line)
			switch {
			case line == "":
				if len(p) > 0 {
					finish()
					if !yield(slices.Clone(p), nil) {
						return
					}
					p = p[:0]
				}
			case line[0] == '#':
				cut = true
			case line[0] == ' ' || line[0] == '\t':
				if len(p) == 0 {
					fail("a continued line before the first field")
					return
				}
				if cut {
					pieces = append(pieces, text[start:end])
					start, cut = at, false
				}
				end = at + len(line)
			default:
				colon := strings.IndexByte(line, ':')
				if colon <= 0 || !validName(line[:colon]) {
					fail("%.40q is not a field", line)
					return
				}
				name := line[:colon]
				for _, f := range p {
					if len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
						fail("field %s occurs twice", name)
						return
					}
				}
				finish()
				start, end = at+colon+1, at+len(line)
				for start < next && (text[start] == ' ' || text[start] == '\t' || text[start] == '\r') {
					start++
				}
				end = max(start, end)
				p = append(p, Field{Name: name})
			}
			at = next
		}
		if len(p) > 0 {
			finish()
			yield(p, nil)
		}
	}
}

func trimRight(s string) string {
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}

func validName(s string) bool {
	if s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return true
}
