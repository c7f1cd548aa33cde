package resolve_test

import (
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/resolve"
)

// universe reads a world with a package per line: "name version field: value;
// field: value". A line "[suite]" says where the following ones are.
func universe(t testing.TB, world string) *resolve.Universe {
	t.Helper()
	var packages []index.Package
	suite, notAutomatic := "trixie", false
	for line := range strings.Lines(world) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if s, ok := strings.CutPrefix(line, "["); ok {
			suite = strings.TrimSuffix(s, "]")
			notAutomatic = strings.HasSuffix(suite, "-backports")
			continue
		}
		fields := strings.SplitN(line, " ", 3)
		p := index.Package{Name: fields[0], Version: fields[1], Arch: "arm64", Suite: suite, NotAutomatic: notAutomatic}
		if len(fields) == 3 {
			stanza, err := control.Parse(strings.ReplaceAll(fields[2], "; ", "\n"))
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			p.Depends, p.PreDepends, p.Recommends = stanza.Get("Depends"), stanza.Get("Pre-Depends"), stanza.Get("Recommends")
			p.Provides, p.Conflicts, p.Breaks = stanza.Get("Provides"), stanza.Get("Conflicts"), stanza.Get("Breaks")
			p.Priority, p.Essential = stanza.Get("Priority"), stanza.Get("Essential") == "yes"
			if arch := stanza.Get("Architecture"); arch != "" {
				p.Arch = arch
			}
		}
		packages = append(packages, p)
	}
	u, err := resolve.NewUniverse("arm64", packages)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func requests(t testing.TB, wishes string) []resolve.Request {
	t.Helper()
	var list []resolve.Request
	for w := range strings.SplitSeq(wishes, ", ") {
		r, err := resolve.ParseRequest(w, "picube.hcl")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

const backports = "k 6 Depends: b\nb 1\n[trixie-backports]\nk 7 Depends: b, m\nm 7\nb 2"

func TestResolve(t *testing.T) {
	tests := []struct{ name, world, wishes, want string }{
		{"one", "a 1\nb 1", "a", "a 1"},
		{"dependencies", "a 1 Depends: b, c (>= 2)\nb 1 Pre-Depends: d\nc 2\nd 1\ne 1", "a", "a 1, b 1, c 2, d 1"},
		{"cycle", "a 1 Depends: b\nb 1 Depends: a", "a", "a 1, b 1"},
		{"itself", "a 1 Depends: a | b; Conflicts: a", "a", "a 1"},
		{"highest version", "a 1\n[trixie-security]\na 2\n[trixie]\na 1.5", "a", "a 2"},
		{"asked version", "a 1\na 2", "a=1", "a 1"},
		{"asked range", "a 1\na 2\na 3", "a (<< 3)", "a 2"},
		{"first alternative", "a 1 Depends: b | c\nb 1\nc 1", "a", "a 1, b 1"},
		{"first alternative that is there", "a 1 Depends: b (>= 2) | c\nb 1\nc 1", "a", "a 1, c 1"},
		{"alternative chosen already", "a 1 Depends: b | c\nb 1\nc 1", "a, c", "a 1, c 1"},
		{"virtual", "a 1 Depends: mta\nexim 1 Provides: mta\npostfix 1 Provides: mta", "a", "a 1, exim 1"},
		{"virtual by priority", "a 1 Depends: mta\nexim 1 Provides: mta; Priority: optional\npostfix 1 Provides: mta; Priority: standard", "a", "a 1, postfix 1"},
		{"virtual chosen already", "a 1 Depends: mta\nexim 1 Provides: mta\npostfix 1 Provides: mta", "a, postfix", "a 1, postfix 1"},
		{"real before virtual", "a 1 Depends: awk\nmawk 1 Provides: awk\nawk 1", "a", "a 1, awk 1"},
		{"default and virtual", "a 1 Depends: default-mta | mta\ndefault-mta 1 Depends: exim\nexim 1 Provides: mta\npostfix 1 Provides: mta", "a", "a 1, default-mta 1, exim 1"},
		{"asked for a virtual with one provider", "exim 1 Provides: mta", "mta", "exim 1"},
		{"versioned provides", "a 1 Depends: v (>= 2)\nb 1 Provides: v\nc 1 Provides: v (= 1)\nd 1 Provides: v (= 2)", "a", "a 1, d 1"},
		{"arch qualifiers", "a 1 Depends: b:any, c:native, d:arm64\nb 1\nc 1\nd 1 Architecture: all", "a", "a 1, b 1, c 1, d 1"},
		{"other architecture", "a 1\na 2 Architecture: amd64", "a", "a 1"},
		{"conflict makes another choice", "a 1 Depends: b | c\nb 1\nc 1\nd 1 Conflicts: b", "a, d", "a 1, c 1, d 1"},
		{"conflict the other way", "a 1 Depends: b | c\nb 1 Conflicts: d\nc 1\nd 1", "a, d", "a 1, c 1, d 1"},
		{"conflict found late", "a 1 Depends: b | c, e\nb 1\nc 1\ne 1 Conflicts: b", "a", "a 1, c 1, e 1"},
		{"conflict found later", "a 1 Depends: b | c, x\nb 1 Depends: d\nc 1\nd 1\nx 1 Depends: y\ny 1 Depends: z\nz 1 Conflicts: d", "a", "a 1, c 1, x 1, y 1, z 1"},
		{"conflict with a virtual", "a 1 Depends: mta\nexim 1 Provides: mta; Conflicts: mta", "a", "a 1, exim 1"},
		{"breaks old", "a 1 Breaks: b (<< 2)\nb 1\nb 2\nc 1 Depends: b", "a, c", "a 1, b 2, c 1"},
		{"older because of breaks", "a 1 Breaks: b (>= 2)\nb 1\nb 2\nc 1 Depends: b", "a, c", "a 1, b 1, c 1"},
		{"older because of equality", "a 1 Depends: l\nl 2\nl 1\nd 1 Depends: l (= 1)", "a, d", "a 1, d 1, l 1"},
		{"older of the asker", "a 2 Depends: nothing\na 1", "a", "a 1"},
		{"backports are not taken by themselves", backports, "k", "b 1, k 6"},
		{"backports for one package", backports, "k/trixie-backports", "b 1, k 7, m 7"},
		{"backports for a version", backports, "k (>= 7)", "b 1, k 7, m 7"},
		{"asked suite", "a 2\n[sid]\na 1", "a/sid", "a 1"},
		{"no recommends", "a 1 Recommends: b\nb 1", "a", "a 1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			choices, err := universe(t, test.world).Resolve(requests(t, test.wishes), resolve.Options{})
			if got := list(choices, err); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func list(choices []resolve.Choice, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var names []string
	for _, c := range choices {
		names = append(names, c.Name+" "+c.Version)
	}
	return strings.Join(names, ", ")
}

func TestRecommends(t *testing.T) {
	world := "a 1 Recommends: b, gone, x | y\nb 1 Recommends: c\nc 1\nx 1 Conflicts: a\ny 1"
	got := list(universe(t, world).Resolve(requests(t, "a"), resolve.Options{Recommends: true}))
	if want := "a 1, b 1, c 1, y 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBase(t *testing.T) {
	u := universe(t, "dpkg 1 Essential: yes; Depends: tar\ntar 1\nmount 1 Priority: required\nvim 1 Priority: optional\nold 1 Essential: yes\nold 2")
	choices, err := u.Resolve(u.Base("the base system"), resolve.Options{})
	if got := list(choices, err); got != "dpkg 1, mount 1, tar 1" {
		t.Errorf("got %s", got)
	}
	if got := strings.Join(choices[2].Why, " -> "); got != "the base system asks for dpkg -> dpkg depends on tar" {
		t.Errorf("tar is there because %s", got)
	}
}

func TestExplanations(t *testing.T) {
	tests := []struct{ name, world, wishes, want string }{
		{"unknown", "curl 1\ncurlie 1\nmc 1", "crul, nothing-like-it",
			`package crul: there is no such package, but picube.hcl asks for it; did you mean curl?
package nothing-like-it: there is no such package, but picube.hcl asks for it`},
		{"asked version", "a 1.9\n[sid]\na 1.8", "a (>= 2)",
			`package a (>= 2): cannot be had: picube.hcl asks for it -> available is a 1.9 in trixie, a 1.8 in sid`},
		{"asked suite", "a 1.9", "a/sid",
			`package a/sid: cannot be had: picube.hcl asks for it -> available is a 1.9 in trixie`},
		{"asked virtual", "exim 1 Provides: mta\npostfix 1 Provides: mta", "mta",
			`package mta: picube.hcl asks for it, but it is a name for one of several packages: choose among exim, postfix`},
		{"version", "x 1 Depends: y (>= 2)\ny 1.9", "x",
			`package y (>= 2): cannot be had: picube.hcl asks for x -> x depends on y (>= 2) -> available is y 1.9 in trixie`},
		{"deep", "x 1 Pre-Depends: y\ny 1 Depends: z | w (<< 1)\nw 1", "x",
			`package z | w (<< 1): cannot be had: picube.hcl asks for x -> x pre-depends on y -> y depends on z | w (<< 1) -> there is no package z; available is w 1 in trixie`},
		{"provided in the wrong version", "x 1 Depends: v (>= 2)\na 1 Provides: v (= 1)\nb 1 Provides: v", "x",
			`package v (>= 2): cannot be had: picube.hcl asks for x -> x depends on v (>= 2) -> available is a provides it as 1, b provides it`},
		{"other architecture", "x 1 Depends: y:amd64\ny 1", "x",
			`package y:amd64: cannot be had: picube.hcl asks for x -> x depends on y:amd64 -> y:amd64 is of another architecture than arm64`},
		{"conflict", "x 1 Depends: b\nb 1 Conflicts: c (<< 3)\nz 1 Depends: c\nc 2", "x, z",
			`package c: b conflicts with c (<< 3): picube.hcl asks for z -> z depends on c; and b is there because picube.hcl asks for x -> x depends on b`},
		{"breaks", "x 1\ny 1 Breaks: x", "x, y",
			`package y: y breaks x: picube.hcl asks for y; and x is there because picube.hcl asks for x`},
		{"conflict with a virtual", "exim 1 Provides: mta; Conflicts: mta\npostfix 1 Provides: mta; Conflicts: mta", "exim, postfix",
			`package postfix: postfix conflicts with mta, which exim provides: picube.hcl asks for postfix; and exim is there because picube.hcl asks for exim`},
		{"two versions", "x 1 Depends: l (= 1)\ny 1 Depends: l (= 2)\nl 1\nl 2", "x, y",
			`package l: two versions are asked for: picube.hcl asks for y -> y depends on l (= 2) -> l 2 in trixie; and l 1 in trixie is there because picube.hcl asks for x -> x depends on l (= 1)`},
		{"bad field", "x 1 Depends: y (", "x", `package x 1 arm64: field Depends: relation "y (": invalid version restriction`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := list(universe(t, test.world).Resolve(requests(t, test.wishes), resolve.Options{}))
			if got != "error: "+test.want {
				t.Errorf("got\n%s\nwant\nerror: %s", got, test.want)
			}
		})
	}
}

func TestParseRequest(t *testing.T) {
	for in, want := range map[string]string{"a": "a", "a=1:2-3": "a (= 1:2-3)", "a (>= 1)": "a (>= 1)", "a/sid": "a/sid", "a=1/sid": "a (= 1)/sid"} {
		if r, err := resolve.ParseRequest(in, "x"); err != nil || r.String() != want {
			t.Errorf("%q: got %s, %v", in, r, err)
		}
	}
	for _, in := range []string{"", "a, b", "a | b", "a b", "a/", "a/../b"} {
		if r, err := resolve.ParseRequest(in, "x"); err == nil {
			t.Errorf("%q: got %v", in, r)
		}
	}
}

// TestHopeless must end: many choices, none of which helps.
func TestHopeless(t *testing.T) {
	var world strings.Builder
	world.WriteString("x 1 Depends: ")
	for i := range 26 {
		if i > 0 {
			world.WriteString(", ")
		}
		world.WriteString(strings.ReplaceAll("aN | bN | cN", "N", string(rune('a'+i))))
	}
	world.WriteString(", bad\nbad 1 Depends: p, q\np 1\nq 1 Conflicts: p\n")
	for i := range 26 {
		for _, s := range []string{"a", "b", "c"} {
			world.WriteString(s + string(rune('a'+i)) + " 1\n")
		}
	}
	got := list(universe(t, world.String()).Resolve(requests(t, "x"), resolve.Options{}))
	if want := "error: package q: q conflicts with p: picube.hcl asks for x -> x depends on bad -> bad depends on q; and p is there because picube.hcl asks for x -> x depends on bad -> bad depends on p"; got != want {
		t.Errorf("got %s", got)
	}
}

// FuzzResolve checks that what comes out holds together, or that nothing does.
func FuzzResolve(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Six names in two versions; each byte adds a relation.
		type pkg struct{ depends, conflicts []string }
		world := [12]pkg{}
		name := func(n byte) string { return string(rune('a' + n%6)) }
		for i, c := range b[:min(len(b), 40)] {
			p := &world[i%12]
			r := name(c)
			if c&0x40 != 0 {
				r += " (= " + string(rune('1'+c>>3&1)) + ")"
			}
			switch {
			case c&0x80 != 0:
				p.conflicts = append(p.conflicts, r)
			case c&0x20 != 0 && len(p.depends) > 0:
				p.depends[len(p.depends)-1] += " | " + r
			default:
				p.depends = append(p.depends, r)
			}
		}
		var text strings.Builder
		for i, p := range world {
			text.WriteString(name(byte(i)) + " " + string(rune('1'+i/6)) + " Depends: " + strings.Join(p.depends, ", ") + "; Conflicts: " + strings.Join(p.conflicts, ", ") + "\n")
		}
		holds := func(set map[string]string) bool { // name -> version
			has := func(r string) bool {
				n, v, versioned := strings.Cut(r, " (= ")
				return set[n] != "" && (!versioned || set[n]+")" == v)
			}
			for i, p := range world {
				n := name(byte(i))
				if set[n] != string(rune('1'+i/6)) {
					continue
				}
				for _, d := range p.depends {
					ok := false
					for r := range strings.SplitSeq(d, " | ") {
						ok = ok || has(r)
					}
					if !ok {
						return false
					}
				}
				for _, c := range p.conflicts {
					if c[:1] != n && has(c) {
						return false
					}
				}
			}
			return set["a"] != ""
		}
		choices, err := universe(t, text.String()).Resolve(requests(t, "a"), resolve.Options{})
		if err == nil {
			set := map[string]string{}
			for _, c := range choices {
				set[c.Name] = c.Version
			}
			if !holds(set) {
				t.Errorf("%s do not hold together in\n%s", list(choices, nil), text.String())
			}
			return
		}
		for n := range 729 { // all sets of six names, absent or in version 1 or 2
			set := map[string]string{}
			for i := range byte(6) {
				if v := n % 3; v > 0 {
					set[name(i)] = string(rune('0' + v))
				}
				n /= 3
			}
			if holds(set) {
				t.Errorf("%v\nbut %v holds together in\n%s", err, set, text.String())
				return
			}
		}
	})
}
