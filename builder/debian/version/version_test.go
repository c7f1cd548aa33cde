package version_test

import (
	"os/exec"
	"testing"

	"github.com/picube/picube-build/builder/debian/version"
)

// compares is what dpkg --compare-versions says (TestDpkg asks it again).
var compares = []struct{ a, op, b string }{
	{"1", "=", "1"},
	{"1.0", "<<", "1.0-1"},
	{"1.0-0", "=", "1.0"},
	{"0:1.0", "=", "1.0"},
	{"1:0.1", ">>", "9.9"},
	{"1.2", "<<", "1.10"},
	{"1.002", "=", "1.2"},
	{"1.0~rc1", "<<", "1.0"},
	{"1.0~", "<<", "1.0"},
	{"1.0~~", "<<", "1.0~"},
	{"1.0~~a", "<<", "1.0~"},
	{"1.0a", ">>", "1.0"},
	{"1.0a", "<<", "1.0b"},
	{"1.0Z", "<<", "1.0a"},
	{"1.0a", "<<", "1.0+"},
	{"1.0+b1", ">>", "1.0"},
	{"1.0+dfsg", "<<", "1.0.1"},
	{"1.0-1", "<<", "1.0-1+b1"},
	{"1.0-1~bpo13+1", "<<", "1.0-1"},
	{"2.41-12", "<<", "2.41-13"},
	{"2.41-12+deb13u1", ">>", "2.41-12"},
	{"6.12.48-1", ">>", "6.12.5-1"},
	{"1-2-3", ">>", "1-3"},
	{"1-2-3", ">>", "1-2"},
	{"1:1:2", ">>", "1:1"},
	{"20230311+deb12u1", "<<", "20250419"},
	{"0.0.0", "<<", "0.0.00a"},
	{"99999999999999999999999999999999", "<<", "100000000000000000000000000000000"},
}

func TestCompare(t *testing.T) {
	flip := map[string]string{"=": "=", "<<": ">>", ">>": "<<"}
	for _, c := range compares {
		for _, op := range []string{"<<", "=", ">>"} {
			if got := version.Satisfies(c.a, op, c.b); got != (op == c.op) {
				t.Errorf("%s %s %s = %v", c.a, op, c.b, got)
			}
			if got := version.Satisfies(c.b, op, c.a); got != (op == flip[c.op]) {
				t.Errorf("%s %s %s = %v", c.b, op, c.a, got)
			}
		}
		if got := version.Satisfies(c.a, "<=", c.b); got != (c.op != ">>") {
			t.Errorf("%s <= %s = %v", c.a, c.b, got)
		}
		if got := version.Satisfies(c.a, ">=", c.b); got != (c.op != "<<") {
			t.Errorf("%s >= %s = %v", c.a, c.b, got)
		}
	}
	if version.Satisfies("1", "!=", "2") {
		t.Error("an unknown operator is satisfied")
	}
}

func TestDpkg(t *testing.T) {
	for _, c := range compares {
		op := map[string]string{"=": "eq", "<<": "lt", ">>": "gt"}[c.op]
		if err := exec.Command("dpkg", "--compare-versions", c.a, op, c.b).Run(); err != nil {
			t.Errorf("dpkg says no to %s %s %s: %v", c.a, op, c.b, err)
		}
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want version.Version
		err  string
	}{
		{in: "1.0", want: version.Version{Upstream: "1.0"}},
		{in: "2:1.0-3-4+b1", want: version.Version{Epoch: 2, Upstream: "1.0-3", Revision: "4+b1"}},
		{in: "1:1:2-3", want: version.Version{Epoch: 1, Upstream: "1:2", Revision: "3"}},
		{in: "", err: `version "": it is empty`},
		{in: "x1", err: `version "x1": it does not start with a digit`},
		{in: "a:1", err: `version "a:1": epoch "a" is not a number`},
		{in: "+1:1", err: `version "+1:1": epoch "+1" is not a number`},
		{in: "99999999999:1", err: `version "99999999999:1": epoch "99999999999" is not a number`},
		{in: "1-", err: `version "1-": the revision is empty`},
		{in: "1_2", err: `version "1_2": invalid character '_'`},
		{in: "1-2 3", err: `version "1-2 3": invalid character ' ' in the revision`},
	}
	for _, test := range tests {
		got, err := version.Parse(test.in)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if got != test.want || msg != test.err {
			t.Errorf("Parse(%q) = %+v, %q", test.in, got, msg)
		}
		if err == nil && version.Compare(got.String(), test.in) != 0 {
			t.Errorf("Parse(%q).String() = %q", test.in, got)
		}
	}
}

// FuzzCompare checks that the order is a total one.
func FuzzCompare(f *testing.F) {
	for i, c := range compares {
		f.Add(c.a, c.b, compares[(i+1)%len(compares)].a)
	}
	sign := func(n int) int { return min(1, max(-1, n)) }
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, ba, bc := version.Compare(a, b), version.Compare(b, a), version.Compare(b, c)
		if sign(ab) != -sign(ba) {
			t.Errorf("%q against %q: %d and %d", a, b, ab, ba)
		}
		if ab <= 0 && bc <= 0 && version.Compare(a, c) > 0 {
			t.Errorf("%q <= %q <= %q, but not the first and the last", a, b, c)
		}
		if v, err := version.Parse(a); err == nil && version.Compare(v.String(), a) != 0 {
			t.Errorf("%q reads back as %q", a, v)
		}
	})
}
