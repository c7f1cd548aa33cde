package resolve

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/relation"
)

// Request is a wish for a package.
type Request struct {
	relation.Relation
	Suite string // "": any
	By    string // who wishes it: "picube.hcl", "the base system"
}

// String returns the request as ParseRequest reads it.
func (r Request) String() string {
	if r.Suite != "" {
		return r.Relation.String() + "/" + r.Suite
	}
	return r.Relation.String()
}

// ParseRequest reads "name", "name (>= 1)" or, as apt has it, "name=1" and
// "name/suite".
func ParseRequest(s, by string) (Request, error) {
	text, suite, _ := strings.Cut(s, "/")
	if suite != "" && !relation.ValidName(suite) || strings.HasSuffix(s, "/") {
		return Request{}, fmt.Errorf("%q: %q is no suite", s, suite)
	}
	if name, v, ok := strings.Cut(text, "="); ok && !strings.Contains(text, "(") {
		text = name + " (= " + v + ")"
	}
	clauses, err := relation.Parse(text)
	if err == nil && (len(clauses) != 1 || len(clauses[0]) != 1) {
		err = fmt.Errorf("%q is not one package", s)
	}
	if err != nil {
		return Request{}, err
	}
	return Request{clauses[0][0], suite, by}, nil
}

// Choice is a package that was chosen.
type Choice struct {
	*index.Package
	// Why is the chain of reasons, from the request on: "picube.hcl asks for
	// curl", "curl depends on libcurl4t64 (= 8.14.1-2)".
	Why []string
	// By is the last one who gave a reason: a package, or whose request it is.
	By string
}

// Options change what is chosen.
type Options struct {
	// Recommends adds what packages recommend where that is possible.
	Recommends bool
}

// Resolve chooses packages that satisfy all requests and everything that
// these need, sorted by name.
func (u *Universe) Resolve(requests []Request, options Options) ([]Choice, error) {
	if err := u.check(requests); err != nil {
		return nil, err
	}
	s := &search{universe: u, chosen: map[string]*choice{}}
	for _, r := range requests {
		s.queue = append(s.queue, task{need: need{"", relation.Clause{r.Relation}}, by: r.By, suite: r.Suite})
	}
	conflict, err := s.solve(0)
	if err != nil {
		return nil, err
	}
	if conflict != nil {
		return nil, conflict.why
	}
	if options.Recommends {
		if err := s.recommend(); err != nil {
			return nil, err
		}
	}
	var list []Choice
	for _, name := range slices.Sorted(maps.Keys(s.chosen)) {
		c := s.chosen[name]
		by := c.task.by
		if c.task.owner != nil {
			by = c.task.owner.pkg.Name
		}
		list = append(list, Choice{c.pkg, s.chain(c.task), by})
	}
	return list, nil
}

// check finds the requests that nothing at all can satisfy, all of them.
func (u *Universe) check(requests []Request) error {
	problems := map[string]error{}
	for _, r := range requests {
		names := map[string]bool{}
		for _, p := range u.candidates(r.Relation) {
			if r.Suite == "" || r.Suite == p.Suite {
				names[p.Name] = true
			}
		}
		switch {
		case len(names) == 0 && u.byName[r.Name] == nil && u.providers[r.Name] == nil:
			hint := ""
			if near := u.nearest(r.Name); near != nil {
				hint = "; did you mean " + strings.Join(near, " or ") + "?"
			}
			problems[r.Name] = fmt.Errorf("package %s: there is no such package, but %s asks for it%s", r.Name, r.By, hint)
		case len(names) == 0:
			problems[r.Name] = fmt.Errorf("package %s: cannot be had: %s asks for it -> %s", r, r.By, u.available(r.Relation))
		case len(names) > 1 && u.byName[r.Name] == nil:
			problems[r.Name] = fmt.Errorf("package %s: %s asks for it, but it is a name for one of several packages: choose among %s",
				r.Name, r.By, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
	}
	var list []error
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		list = append(list, problems[name])
	}
	return errors.Join(list...)
}

// task is a need of a package, or of a request, that must be satisfied.
type task struct {
	need
	owner *choice // nil: a request
	by    string  // whose request
	suite string  // of a request; "": any
}

func (t task) fits(p *index.Package) bool { return t.suite == "" || t.suite == p.Suite }

type choice struct {
	pkg  *index.Package
	task task // why it was chosen
}

// dead says that no choice is left: unless one of the culprits is chosen
// otherwise, it stays so.
type dead struct {
	culprits map[string]bool // names of chosen packages
	why      error
}

// search is a backtracking search with backjumping: a choice that has no part
// in a dead end is not tried otherwise.
type search struct {
	universe *Universe
	queue    []task
	chosen   map[string]*choice
	steps    int
}

// maxSteps bounds the search; real requests take about as many steps as they
// have dependencies, a few thousand.
const maxSteps = 200_000

var errGaveUp = errors.New("cannot find packages that fit together within reasonable time; ask for fewer or for certain versions")

// solve satisfies the queue from position at on.
func (s *search) solve(at int) (*dead, error) {
	for ; at < len(s.queue); at++ {
		ok, err := s.satisfied(s.queue[at])
		if err != nil {
			return nil, err
		}
		if !ok {
			return s.decide(at)
		}
	}
	return nil, nil
}

func (s *search) satisfied(t task) (bool, error) {
	for _, r := range t.clause {
		if !s.universe.archFits(r) {
			continue
		}
		if have := s.chosen[r.Name]; have != nil && t.fits(have.pkg) {
			if ok, err := s.universe.matches(have.pkg, r); ok || err != nil {
				return ok, err
			}
		}
		for _, p := range s.universe.providers[r.Name] {
			if have := s.chosen[p.Name]; have != nil && have.pkg == p.Package && t.fits(have.pkg) && provides(p.version, r) {
				return true, nil
			}
		}
	}
	return false, nil
}

// decide tries all that can satisfy a task.
func (s *search) decide(at int) (*dead, error) {
	t := s.queue[at]
	result := &dead{culprits: map[string]bool{}}
	if t.owner != nil {
		result.culprits[t.owner.pkg.Name] = true
	}
	tried := map[*index.Package]bool{}
	for _, r := range t.clause {
		for _, p := range s.universe.candidates(r) {
			if tried[p] || !t.fits(p) {
				continue
			}
			tried[p] = true
			if s.steps++; s.steps > maxSteps {
				return nil, errGaveUp
			}
			blocker, why, err := s.blocked(p, t)
			if err != nil {
				return nil, err
			}
			if blocker != "" {
				result.culprits[blocker] = true
				result.why = cmp.Or(result.why, why)
				continue
			}
			own, err := s.universe.relations(p)
			if err != nil {
				return nil, err
			}
			c := &choice{p, t}
			s.chosen[p.Name] = c
			length := len(s.queue)
			for _, n := range own.needs {
				s.queue = append(s.queue, task{need: n, owner: c})
			}
			end, err := s.solve(at + 1)
			if end == nil || err != nil {
				return nil, err
			}
			s.queue = s.queue[:length]
			delete(s.chosen, p.Name)
			if !end.culprits[p.Name] {
				return end, nil
			}
			delete(end.culprits, p.Name)
			maps.Copy(result.culprits, end.culprits)
			if result.why == nil {
				result.why = end.why
			}
		}
	}
	if result.why == nil {
		result.why = s.lacking(t)
	}
	return result, nil
}

// blocked reports the chosen package, if any, that p cannot stand beside.
func (s *search) blocked(p *index.Package, t task) (string, error, error) {
	u := s.universe
	if have := s.chosen[p.Name]; have != nil {
		return p.Name, fmt.Errorf("package %s: two versions are asked for: %s -> %s; and %s is there because %s",
			p.Name, s.says(t), describe(p), describe(have.pkg), s.says(have.task)), nil
	}
	own, err := u.relations(p)
	if err != nil {
		return "", nil, err
	}
	clash := func(a, b *index.Package, x exclusion, have *choice) (string, error, error) {
		return have.pkg.Name, fmt.Errorf("package %s: %s %s %s: %s; and %s is there because %s",
			p.Name, a.Name, x.verb, exclusionText(x, b), s.says(t), have.pkg.Name, s.says(have.task)), nil
	}
	for _, x := range own.excludes {
		for _, have := range s.matching(x.Relation) {
			if ok, err := u.matches(have.pkg, x.Relation); err != nil || ok {
				if err != nil {
					return "", nil, err
				}
				return clash(p, have.pkg, x, have)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.chosen)) {
		have := s.chosen[name]
		theirs, err := u.relations(have.pkg)
		if err != nil {
			return "", nil, err
		}
		for _, x := range theirs.excludes {
			if ok, err := u.matches(p, x.Relation); err != nil || ok {
				if err != nil {
					return "", nil, err
				}
				return clash(have.pkg, p, x, have)
			}
		}
	}
	return "", nil, nil
}

// matching returns the chosen packages that have or provide a relation's name.
func (s *search) matching(r relation.Relation) []*choice {
	var list []*choice
	if have := s.chosen[r.Name]; have != nil {
		list = append(list, have)
	}
	for _, p := range s.universe.providers[r.Name] {
		if have := s.chosen[p.Name]; have != nil && have.pkg == p.Package {
			list = append(list, have)
		}
	}
	return list
}

// exclusionText is "b (<< 2)", with b's own name if x names what b provides.
func exclusionText(x exclusion, b *index.Package) string {
	if x.Name != b.Name {
		return fmt.Sprintf("%s, which %s provides", x.Relation, b.Name)
	}
	return x.Relation.String()
}

// lacking says that nothing there is satisfies a task.
func (s *search) lacking(t task) error {
	var there []string
	for _, r := range t.clause {
		there = append(there, s.universe.available(r))
	}
	return fmt.Errorf("package %s: cannot be had: %s -> %s", t.clause, s.says(t), strings.Join(there, "; "))
}

// chain returns the reasons for a task, from the request on.
func (s *search) chain(t task) []string {
	var list []string
	for {
		list = append(list, s.link(t))
		if t.owner == nil {
			slices.Reverse(list)
			return list
		}
		t = t.owner.task
	}
}

func (s *search) says(t task) string { return strings.Join(s.chain(t), " -> ") }

func (s *search) link(t task) string {
	if t.owner == nil {
		return t.by + " asks for " + t.clause.String()
	}
	return t.owner.pkg.Name + " " + t.verb + " " + t.clause.String()
}

// recommend adds what the chosen packages recommend, and what that
// recommends; what cannot be had beside them is left out.
func (s *search) recommend() error {
	done := map[string]bool{}
	for {
		var next []string
		for _, name := range slices.Sorted(maps.Keys(s.chosen)) {
			if !done[name] {
				next = append(next, name)
			}
		}
		if next == nil {
			return nil
		}
		for _, name := range next {
			done[name] = true
			c := s.chosen[name]
			own, err := s.universe.relations(c.pkg)
			if err != nil {
				return err
			}
			for _, clause := range own.recommend {
				length := len(s.queue)
				s.queue = append(s.queue, task{need: need{"recommends", clause}, owner: c})
				end, err := s.solve(length)
				if err != nil {
					return err
				}
				if end != nil {
					s.queue = s.queue[:length]
				}
			}
		}
	}
}
