// Package relation reads the relations between binary packages: Depends,
// Conflicts, Provides and the like.
//
// Source: Debian Policy 7.1. Architecture and profile restrictions ("[amd64]",
// "<!nocheck>") stand in source packages only and are refused.
package relation

import (
	"fmt"
	"strings"
)

// Relation is one "name:arch (op version)".
type Relation struct {
	Name    string
	Arch    string // "", "any", "native" or an architecture
	Op      string // "", "<<", "<=", "=", ">=" or ">>"
	Version string
}

// String returns the relation as it is written.
func (r Relation) String() string {
	s := r.Name
	if r.Arch != "" {
		s += ":" + r.Arch
	}
	if r.Op != "" {
		s += " (" + r.Op + " " + r.Version + ")"
	}
	return s
}

// Clause is a list of alternatives, "a | b".
type Clause []Relation

// String returns the clause as it is written.
func (c Clause) String() string {
	var list []string
	for _, r := range c {
		list = append(list, r.String())
	}
	return strings.Join(list, " | ")
}

// Parse reads a comma-separated field.
func Parse(s string) ([]Clause, error) {
	var clauses []Clause
	for part := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(part) == "" { // a trailing comma is usual
			continue
		}
		var c Clause
		for alternative := range strings.SplitSeq(part, "|") {
			r, err := one(alternative)
			if err != nil {
				return nil, err
			}
			c = append(c, r)
		}
		clauses = append(clauses, c)
	}
	return clauses, nil
}

func one(s string) (Relation, error) {
	s = strings.TrimSpace(s)
	fail := func(why string) (Relation, error) {
		return Relation{}, fmt.Errorf("relation %.100q: %s", s, why)
	}
	name, rest, versioned := strings.Cut(s, "(")
	var r Relation
	r.Name, r.Arch, _ = strings.Cut(strings.TrimSpace(name), ":")
	if !ValidName(r.Name) {
		return fail("invalid package name")
	}
	if r.Arch != "" && !ValidName(r.Arch) || strings.HasSuffix(strings.TrimSpace(name), ":") {
		return fail("invalid architecture")
	}
	if !versioned {
		return r, nil
	}
	inside, after, closed := strings.Cut(rest, ")")
	if !closed || strings.TrimSpace(after) != "" {
		return fail("invalid version restriction")
	}
	inside = strings.TrimSpace(inside)
	n := 0
	for n < len(inside) && strings.IndexByte("<=>", inside[n]) >= 0 {
		n++
	}
	r.Op, r.Version = inside[:n], strings.TrimSpace(inside[n:])
	switch r.Op {
	case "<<", "<=", "=", ">=", ">>":
	case "<":
		r.Op = "<="
	case ">":
		r.Op = ">="
	case "":
		r.Op = "="
	default:
		return fail("invalid operator")
	}
	if r.Version == "" || strings.ContainsAny(r.Version, " \t\n") {
		return fail("invalid version")
	}
	return r, nil
}

// ValidName reports whether s can be a package's name. Policy asks for two
// characters and lower case; the archive does not always.
func ValidName(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}
