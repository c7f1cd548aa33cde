package dpkg

import (
	"strings"

	"github.com/picube/picube-build/builder/debian/version"
)

// relations is a field such as Depends: all of a list, any of its
// alternatives (Debian Policy 7.1).
type relations [][]relation

type relation struct {
	name, qualifier string // "python3", "any"
	op, version     string
}

// parseRelations reads a relation field. It is lenient: the resolver has
// refused what it cannot read.
func parseRelations(s string) relations {
	var all relations
	for group := range strings.SplitSeq(s, ",") {
		var alternatives []relation
		for one := range strings.SplitSeq(group, "|") {
			name, rest, _ := strings.Cut(strings.TrimSpace(one), "(")
			if name == "" {
				continue
			}
			var r relation
			r.name, r.qualifier, _ = strings.Cut(strings.TrimSpace(name), ":")
			rest = strings.TrimSpace(rest)
			if i := strings.IndexByte(rest, ')'); i >= 0 {
				rest = strings.TrimSpace(rest[:i])
				end := 0
				for end < len(rest) && strings.IndexByte("<>=", rest[end]) >= 0 {
					end++
				}
				r.op, r.version = rest[:end], strings.TrimSpace(rest[end:])
				switch r.op { // obsolete spellings
				case "<":
					r.op = "<="
				case ">":
					r.op = ">="
				case "":
					r.op = "="
				}
			}
			alternatives = append(alternatives, r)
		}
		if alternatives != nil {
			all = append(all, alternatives)
		}
	}
	return all
}

func (all relations) String() string {
	var b strings.Builder
	for i, alternatives := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(describe(alternatives))
	}
	return b.String()
}

func describe(alternatives []relation) string {
	var b strings.Builder
	for i, r := range alternatives {
		if i > 0 {
			b.WriteString(" | ")
		}
		b.WriteString(r.name)
		if r.qualifier != "" {
			b.WriteString(":" + r.qualifier)
		}
		if r.op != "" {
			b.WriteString(" (" + r.op + " " + r.version + ")")
		}
	}
	return b.String()
}

// admits reports whether a version satisfies the relation's bound.
func (r relation) admits(v string) bool {
	return r.op == "" || version.Satisfies(v, r.op, r.version)
}

// satisfiedBy reports whether p, by its name or by what it provides, is what
// r asks for, whatever p's status.
func (r relation) satisfiedBy(p *Package) bool {
	if p.Name == r.name {
		return r.admits(p.Version)
	}
	for _, provided := range p.relations("Provides") {
		if provided[0].name != r.name {
			continue
		}
		if r.op == "" || provided[0].op == "=" && r.admits(provided[0].version) {
			return true
		}
	}
	return false
}
