package relation_test

import (
	"testing"

	"github.com/picube/picube-build/builder/debian/relation"
)

func TestParse(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"", "", ""},
		{"a", "a", ""},
		{"a, b,", "a, b", ""},
		{"a|b | c(>=1)", "a | b | c (>= 1)", ""},
		{" a:any ( << 1:2.3-4~x ) ,\n b", "a:any (<< 1:2.3-4~x), b", ""},
		{"a (<1), b (>2), c (=3), d (4)", "a (<= 1), b (>= 2), c (= 3), d (= 4)", ""},
		{"a b", "", `relation "a b": invalid package name`},
		{"a | ", "", `relation "": invalid package name`},
		{"-a", "", `relation "-a": invalid package name`},
		{"a:", "", `relation "a:": invalid architecture`},
		{"a (>= 1", "", `relation "a (>= 1": invalid version restriction`},
		{"a (>= 1) [arm64]", "", `relation "a (>= 1) [arm64]": invalid version restriction`},
		{"a (=> 1)", "", `relation "a (=> 1)": invalid operator`},
		{"a (>=)", "", `relation "a (>=)": invalid version`},
	}
	for _, test := range tests {
		clauses, err := relation.Parse(test.in)
		msg, got := "", ""
		if err != nil {
			msg = err.Error()
		}
		for i, c := range clauses {
			if i > 0 {
				got += ", "
			}
			got += c.String()
		}
		if got != test.want || msg != test.err {
			t.Errorf("Parse(%q) = %q, %q", test.in, got, msg)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a:any (>= 1) | b, c (<2)")
	f.Fuzz(func(t *testing.T, in string) {
		clauses, err := relation.Parse(in)
		if err != nil {
			return
		}
		for _, c := range clauses {
			again, err := relation.Parse(c.String())
			if err != nil || len(again) != 1 || again[0].String() != c.String() {
				t.Errorf("%q reads as %q, then %q, %v", in, c, again, err)
			}
		}
	})
}
