// Package resolve chooses the packages that a request needs from all that an
// archive offers, and says why each one is there or why there is no choice.
//
// For simple cases the choice is apt's: the highest version of a package, the
// first alternative that can be had unless a later one is there already,
// providers by priority and name. Where that runs into a conflict, other
// choices are tried in a fixed order, so that the same input always gives the
// same result.
//
// An archive's priority counts before the version, as apt's pins do.
//
// Not supported: foreign architectures (everything is for one architecture or
// for all), pins of single packages, upgrades of something installed.
package resolve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/relation"
	"github.com/picube/picube-build/builder/debian/version"
)

// Universe is what packages can be chosen from.
type Universe struct {
	arch      string
	byName    map[string][]*index.Package // the best first
	providers map[string][]provider
	parsed    map[*index.Package]*relations
}

// provider is a package that provides a name, in a version or in none.
type provider struct {
	*index.Package
	version string
}

// relations are a package's parsed fields.
type relations struct {
	needs     []need
	recommend []relation.Clause
	excludes  []exclusion
	provides  []relation.Relation
}

type need struct {
	verb   string // "depends on"
	clause relation.Clause
}

type exclusion struct {
	verb string // "conflicts with"
	relation.Relation
}

// NewUniverse takes packages for an architecture, or for all; the first of
// several entries with the same name and version counts.
func NewUniverse(arch string, packages []index.Package) (*Universe, error) {
	u := &Universe{
		arch:      arch,
		byName:    make(map[string][]*index.Package, len(packages)),
		providers: map[string][]provider{},
		parsed:    map[*index.Package]*relations{},
	}
	for i := range packages {
		p := &packages[i]
		if p.Arch != arch && p.Arch != "all" || p.Pin < 0 {
			continue
		}
		same := func(q *index.Package) bool { return version.Compare(p.Version, q.Version) == 0 }
		if slices.ContainsFunc(u.byName[p.Name], same) {
			continue
		}
		u.byName[p.Name] = append(u.byName[p.Name], p)
		if p.Provides == "" {
			continue
		}
		clauses, err := relation.Parse(p.Provides)
		if err != nil {
			return nil, fmt.Errorf("package %s: field Provides: %w", p, err)
		}
		for _, c := range clauses {
			u.providers[c[0].Name] = append(u.providers[c[0].Name], provider{p, c[0].Version})
		}
	}
	for _, list := range u.byName {
		slices.SortStableFunc(list, better)
	}
	for _, list := range u.providers {
		slices.SortStableFunc(list, func(a, b provider) int {
			return cmp.Or(
				cmp.Compare(rank(a.Priority), rank(b.Priority)),
				cmp.Compare(a.Name, b.Name),
				better(a.Package, b.Package))
		})
	}
	return u, nil
}

// better puts the highest priority first and, among equals, the highest
// version. Suites that are only for what is asked for come behind all others.
func better(a, b *index.Package) int {
	return cmp.Or(cmp.Compare(b.PinPriority(), a.PinPriority()), version.Compare(b.Version, a.Version))
}

func rank(priority string) int {
	order := []string{"required", "important", "standard", "optional", "extra"}
	if i := slices.Index(order, priority); i >= 0 {
		return i
	}
	return len(order)
}

// Base returns requests for what every Debian system has: all packages that
// are essential or of priority "required", as debootstrap's and mmdebstrap's
// variant "minbase" has it.
func (u *Universe) Base(by string) []Request {
	var list []Request
	for name, versions := range u.byName {
		if p := versions[0]; p.Essential || p.Priority == "required" {
			list = append(list, Request{Relation: relation.Relation{Name: name}, By: by})
		}
	}
	slices.SortFunc(list, func(a, b Request) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (u *Universe) relations(p *index.Package) (*relations, error) {
	if r := u.parsed[p]; r != nil {
		return r, nil
	}
	r := &relations{}
	for _, f := range []struct{ name, value, verb string }{
		{"Pre-Depends", p.PreDepends, "pre-depends on"}, {"Depends", p.Depends, "depends on"}, {"Recommends", p.Recommends, ""},
		{"Conflicts", p.Conflicts, "conflicts with"}, {"Breaks", p.Breaks, "breaks"}, {"Provides", p.Provides, ""},
	} {
		clauses, err := relation.Parse(f.value)
		if err != nil {
			return nil, fmt.Errorf("package %s: field %s: %w", p, f.name, err)
		}
		for _, c := range clauses {
			switch f.name {
			case "Pre-Depends", "Depends":
				r.needs = append(r.needs, need{f.verb, c})
			case "Recommends":
				r.recommend = append(r.recommend, c)
			case "Provides":
				r.provides = append(r.provides, c[0])
			default:
				r.excludes = append(r.excludes, exclusion{f.verb, c[0]})
			}
		}
	}
	u.parsed[p] = r
	return r, nil
}

// archFits reports whether a relation's architecture is the universe's.
func (u *Universe) archFits(r relation.Relation) bool {
	return r.Arch == "" || r.Arch == "any" || r.Arch == "native" || r.Arch == u.arch
}

// candidates returns the packages that can satisfy a relation, the best first.
func (u *Universe) candidates(r relation.Relation) []*index.Package {
	if !u.archFits(r) {
		return nil
	}
	var list []*index.Package
	for _, p := range u.byName[r.Name] {
		if r.Op == "" || version.Satisfies(p.Version, r.Op, r.Version) {
			list = append(list, p)
		}
	}
	for _, p := range u.providers[r.Name] {
		if provides(p.version, r) && !slices.Contains(list, p.Package) {
			list = append(list, p.Package)
		}
	}
	return list
}

// provides reports whether "Provides: name (= v)", or no version, satisfies r.
func provides(v string, r relation.Relation) bool {
	return r.Op == "" || v != "" && version.Satisfies(v, r.Op, r.Version)
}

// matches reports whether p is what a relation speaks of, by its name or by
// what it provides.
func (u *Universe) matches(p *index.Package, r relation.Relation) (bool, error) {
	if p.Name == r.Name && (r.Op == "" || version.Satisfies(p.Version, r.Op, r.Version)) {
		return true, nil
	}
	if p.Provides == "" {
		return false, nil
	}
	own, err := u.relations(p)
	if err != nil {
		return false, err
	}
	for _, v := range own.provides {
		if v.Name == r.Name && provides(v.Version, r) {
			return true, nil
		}
	}
	return false, nil
}

// available says in words what there is of a name.
func (u *Universe) available(r relation.Relation) string {
	if !u.archFits(r) {
		return fmt.Sprintf("%s is of another architecture than %s", r, u.arch)
	}
	var list []string
	for _, p := range u.byName[r.Name] {
		list = append(list, describe(p))
	}
	for _, p := range u.providers[r.Name] {
		what := p.Name + " provides it"
		if p.version != "" {
			what += " as " + p.version
		}
		list = append(list, what)
	}
	const most = 5
	switch {
	case len(list) == 0:
		return fmt.Sprintf("there is no package %s", r.Name)
	case len(list) > most:
		list = append(list[:most], fmt.Sprintf("and %d more", len(list)-most))
	}
	return "available is " + strings.Join(list, ", ")
}

func describe(p *index.Package) string {
	if p.Suite == "" {
		return p.Name + " " + p.Version
	}
	return p.Name + " " + p.Version + " in " + p.Suite
}

// nearest returns the names that a person may have meant.
func (u *Universe) nearest(name string) []string {
	type near struct {
		name     string
		distance int
	}
	limit := 1 + len(name)/4
	var list []near
	for other := range u.byName {
		if diff := len(other) - len(name); diff > limit || -diff > limit {
			continue
		}
		// No MaxCost: with it, version 1.2.3 understates some distances.
		if d := levenshtein.Distance(name, other, nil); d <= limit {
			list = append(list, near{other, d})
		}
	}
	slices.SortFunc(list, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, n := range list[:min(3, len(list))] {
		names = append(names, n.name)
	}
	return names
}
