package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/debian/control"
)

func dump(text string) string {
	var b strings.Builder
	for p, err := range control.Paragraphs(text) {
		if err != nil {
			return b.String() + "error: " + err.Error()
		}
		for _, f := range p {
			fmt.Fprintf(&b, "%s=%q ", f.Name, f.Value)
		}
		b.WriteString("/ ")
	}
	return b.String()
}

func TestParagraphs(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"blank lines", "\n \n\t\n\n", ""},
		{"one", "A: 1\nB:2\n", `A="1" B="2" / `},
		{"no line end", "A: 1", `A="1" / `},
		{"two", "A: 1\n\n\nA: 2\n\n", `A="1" / A="2" / `},
		{"blanks", "A: \t 1 \t\r\nB:   \n", `A="1" B="" / `},
		{"colons", "A: b: c\n", `A="b: c" / `},
		{"folded", "A: 1\n two\n .\n\tthree\nB: 4\n", `A="1\n two\n .\n\tthree" B="4" / `},
		{"list", "A:\n one\n two\n", `A="\n one\n two" / `},
		{"comment", "# x\nA: 1\n# y\nB: 2\n#\n", `A="1" B="2" / `},
		{"comment inside a value", "A: 1\n# x\n two\n# y\n three\n", `A="1\n two\n three" / `},
		{"comment inside a list", "A:\n# x\n two\n", `A="\n two" / `},
		{"continued nothing", "A: 1\n\n b\n", `A="1" / error: line 3: a continued line before the first field`},
		{"no colon", "A: 1\nfoo\n", `error: line 2: "foo" is not a field`},
		{"blank in the name", "A b: 1\n", `error: line 1: "A b: 1" is not a field`},
		{"dash", "-A: 1\n", `error: line 1: "-A: 1" is not a field`},
		{"no name", ": 1\n", `error: line 1: ": 1" is not a field`},
		{"twice", "A: 1\na: 2\n", `error: line 2: field a occurs twice`},
	}
	for _, test := range tests {
		if got := dump(test.in); got != test.want {
			t.Errorf("%s: got  %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestParse(t *testing.T) {
	p, err := control.Parse("Package: a\nConffiles:\n /etc/a 1\n\n /etc/b 2\n")
	if err == nil {
		t.Errorf("got %v", p)
	}
	p, err = control.Parse("Package: a\nConffiles:\n /etc/a 1\n /etc/b 2\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Get("package"); got != "a" {
		t.Errorf("package is %q", got)
	}
	if got := control.Lines(p.Get("Conffiles")); !slices.Equal(got, []string{"/etc/a 1", "/etc/b 2"}) {
		t.Errorf("conffiles are %q", got)
	}
	for in, want := range map[string]string{"": "no paragraph", "A: 1\n\nB: 2\n": "more than one paragraph"} {
		if _, err := control.Parse(in); err == nil || err.Error() != want {
			t.Errorf("Parse(%q): %v", in, err)
		}
	}
}

// FuzzParagraphs checks that what was read is written and read again alike.
func FuzzParagraphs(f *testing.F) {
	f.Add("A: 1\n two\n# c\n .\nB:\n x\n\nC: 3\n")
	f.Add("A: \r\n b\n")
	f.Add("A:\n#\n#\n b\n#\nB: 1\r\n \n")
	f.Fuzz(func(t *testing.T, in string) {
		var b strings.Builder
		for p, err := range control.Paragraphs(in) {
			if err != nil {
				return
			}
			if err := p.Write(&b); err != nil {
				t.Fatal(err)
			}
		}
		if first, second := dump(in), dump(b.String()); first != second {
			t.Errorf("%q\nreads as   %s\nthen %s", in, first, second)
		}
	})
}

func BenchmarkParagraphs(b *testing.B) {
	stanza := strings.Repeat("Package: foo\nVersion: 1.2-3\nDepends: libc6 (>= 2.41), libfoo1 (= 1.2-3)\n"+
		"Description: a package\nFilename: pool/main/f/foo/foo_1.2-3_arm64.deb\nSize: 12345\n\n", 1000)
	b.SetBytes(int64(len(stanza)))
	for b.Loop() {
		for _, err := range control.Paragraphs(stanza) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
