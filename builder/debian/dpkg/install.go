// Package dpkg installs Debian packages into a tree as dpkg and apt would,
// and keeps dpkg's database there.
//
// What the packages' scripts do is somebody else's: a Scripts runs them. A
// script that fails takes everything back that its step did, so a package
// whose postinst fails is "unpacked" afterwards as if nobody had tried, and
// the card's own dpkg can configure it later.
//
// The order of all steps is that of mmdebstrap: the essential packages are
// there, unpacked and configured before the others; those follow as apt does
// it. Numbers of users depend on that order.
//
// Sources: dpkg(1), deb-triggers(5), deb-conffiles(5), deb-postinst(5),
// dpkg's documentation of triggers (spec/triggers.txt), Debian Policy 6.
//
// Not supported: upgrades, removals, packages of foreign architectures. Nor
// is a log written: /var/log/dpkg.log begins on the card.
package dpkg

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
)

// Script is a maintainer script to run.
type Script struct {
	Package *Package
	Name    string // "postinst"
	Path    string // where it lies in the tree
	Args    []string
}

// Scripts runs maintainer scripts over the database's tree. An error means
// that the script did not succeed; ctx's error ends the installation.
type Scripts interface {
	Run(ctx context.Context, s Script) error
}

// Step tells what is being done: "unpack", "configure" or "trigproc", as in
// dpkg.log.
type Step struct {
	Action  string
	Package *Package
}

// Options are what Install may be told.
type Options struct {
	// Wanted are the packages that somebody asked for by name, which apt is
	// told apart from those that came with them. Nil: apt is told nothing.
	Wanted   []string
	Progress func(Step) // may be nil
}

// Result tells how far the packages of one Install got.
type Result struct {
	// Failed holds, by package, why it is not installed.
	Failed map[string]error
}

type run struct {
	db       *DB
	scripts  Scripts
	progress func(Step)

	deferred   []*Package // whose triggers are to be processed at the end
	noTriggers bool
	broken     map[dependency]bool
	failed     map[string]error
}

func (r *run) log(action string, p *Package) {
	if r.progress != nil {
		r.progress(Step{action, p})
	}
}

// script runs one of a package's scripts if it has it.
func (r *run) script(ctx context.Context, p *Package, name, at string, args ...string) error {
	if at == "" {
		at = r.db.InfoFile(p, name)
	}
	if !r.db.tree.Exists(at) {
		return nil
	}
	if err := r.db.Save(); err != nil {
		return err
	}
	err := r.scripts.Run(ctx, Script{p, name, at, args})
	if err != nil && ctx.Err() == nil {
		return failure{err}
	}
	return err
}

// Install unpacks and configures packages, which must be everything that
// their dependencies need beyond what is installed. An error means that the
// tree is of no use; a package that could not be installed is in the result.
func (db *DB) Install(ctx context.Context, archives []Archive, scripts Scripts, o Options) (Result, error) {
	r := &run{db: db, scripts: scripts, progress: o.Progress, broken: map[dependency]bool{}, failed: map[string]error{}}
	byName := map[string]*Package{}
	from := map[*Package]Archive{}
	var all []*Package
	var wrong []error
	for _, a := range archives {
		p, err := newPackage(string(a.Control["control"]))
		switch {
		case err != nil:
			wrong = append(wrong, err)
			continue
		case p.Architecture != db.arch && p.Architecture != "all":
			wrong = append(wrong, fmt.Errorf("package %s: it is for %s, not %s", p.Name, p.Architecture, db.arch))
			continue
		case byName[p.Name] != nil:
			wrong = append(wrong, fmt.Errorf("package %s: it is listed twice", p.Name))
			continue
		}
		byName[p.Name] = p
		if old := db.pkgs[p.Name]; old != nil && old.Version == p.Version && old.Status >= TriggersAwaited {
			continue // a base image has it already
		}
		from[p] = a
		all = append(all, p)
	}
	if wrong != nil {
		sort.Slice(wrong, func(i, j int) bool { return wrong[i].Error() < wrong[j].Error() })
		return Result{}, errors.Join(wrong...)
	}

	essential, others := split(all)
	if err := r.essential(ctx, essential, from); err != nil {
		return Result{}, err
	}
	if err := r.others(ctx, others, from); err != nil {
		return Result{}, err
	}
	if o.Wanted != nil {
		if err := db.markAutomatic(others, o.Wanted); err != nil {
			return Result{}, err
		}
	}
	for _, p := range all {
		if r.failed[p.Name] == nil && p.Status != Installed {
			r.failed[p.Name] = fmt.Errorf("its state is %s", p.Status)
		}
	}
	return Result{r.failed}, db.Save()
}

const aptStates = "/var/lib/apt/extended_states"

// markAutomatic notes for apt which packages nobody asked for, so that
// "apt autoremove" finds them when nothing needs them any more (apt-mark(8)).
// What the essential ones need is not among them.
func (db *DB) markAutomatic(packages []*Package, wanted []string) error {
	var states strings.Builder
	for _, p := range packages {
		if !slices.Contains(wanted, p.Name) {
			fmt.Fprintf(&states, "Package: %s\nArchitecture: %s\nAuto-Installed: 1\n\n", p.Name, db.arch)
		}
	}
	if states.Len() == 0 {
		return nil
	}
	if err := db.tree.MkdirAll(path.Dir(aptStates), 0o755); err != nil {
		return err
	}
	return db.tree.WriteFile(aptStates, []byte(states.String()), 0o644)
}

// split orders packages so that what one depends on comes before it, and
// tells those that the essential ones need from the others.
func split(all []*Package) (essential, others []*Package) {
	seen := map[*Package]bool{}
	var out []*Package
	var visit func(p *Package)
	visit = func(p *Package) {
		if seen[p] {
			return
		}
		seen[p] = true
		for _, field := range []string{"Pre-Depends", "Depends"} {
			for _, alternatives := range p.relations(field) {
				if d := choose(all, alternatives); d != nil {
					visit(d)
				}
			}
		}
		out = append(out, p)
	}
	for _, p := range all {
		if p.Essential() {
			visit(p)
		}
	}
	n := len(out)
	// apt takes what a system does not boot without first.
	for _, p := range all {
		if p.Field("Protected") == "yes" || p.Field("Important") == "yes" {
			visit(p)
		}
	}
	for _, p := range all {
		visit(p)
	}
	return out[:n], out[n:]
}

// choose returns the first of the packages that satisfies one of the
// alternatives, nil if none does.
func choose(all []*Package, alternatives []relation) *Package {
	for _, r := range alternatives {
		for _, p := range all {
			if p.Name == r.name && r.satisfiedBy(p) {
				return p
			}
		}
		for _, p := range all {
			if r.satisfiedBy(p) {
				return p
			}
		}
	}
	return nil
}

// essential installs the packages that every script may count on. They lie in
// the tree before the first script runs.
func (r *run) essential(ctx context.Context, list []*Package, from map[*Package]Archive) error {
	// base-files brings the links that make /bin and /usr/bin one.
	bare := slices.Clone(list)
	slices.SortStableFunc(bare, func(a, b *Package) int {
		return strings.Compare(strings.TrimPrefix(b.Name, "base-files"), strings.TrimPrefix(a.Name, "base-files"))
	})
	for _, p := range bare {
		for _, e := range from[p].Entries() {
			if err := put(r.db.tree, e.Path, e.Inode); err != nil {
				return fmt.Errorf("package %s: %w", p.Name, err)
			}
		}
	}
	for _, p := range list {
		if err := r.install(ctx, p, from[p]); err != nil {
			return err
		}
	}
	return r.configure(ctx, slices.DeleteFunc(slices.Clone(list), func(p *Package) bool { return r.failed[p.Name] != nil }))
}

// others installs what is left as apt does: everything is unpacked, and
// configured before only where a Pre-Depends asks for it; then all together.
func (r *run) others(ctx context.Context, list []*Package, from map[*Package]Archive) error {
	r.noTriggers = true
	for _, p := range list {
		if early := r.early(p); early != nil {
			if err := r.configure(ctx, early); err != nil {
				return err
			}
		}
		if err := r.install(ctx, p, from[p]); err != nil {
			return err
		}
	}
	r.noTriggers = false
	var pending []*Package
	for _, p := range r.db.hashOrder() {
		if (p.Status == Unpacked || p.Status == HalfConfigured || len(p.Pending) > 0) && r.failed[p.Name] == nil {
			pending = append(pending, p)
		}
	}
	return r.configure(ctx, pending)
}

// early returns what must be configured before p is unpacked, in dpkg's
// order.
func (r *run) early(p *Package) []*Package {
	need := map[*Package]bool{}
	var visit func(alternatives []relation)
	visit = func(alternatives []relation) {
		for _, a := range alternatives {
			for _, c := range r.db.candidates(a) {
				if need[c] || c.Status >= TriggersAwaited || r.failed[c.Name] != nil {
					return
				}
				if c.Status != Unpacked && c.Status != HalfConfigured {
					continue
				}
				need[c] = true
				for _, field := range []string{"Pre-Depends", "Depends"} {
					for _, alternatives := range c.relations(field) {
						visit(alternatives)
					}
				}
				return
			}
		}
	}
	for _, alternatives := range p.relations("Pre-Depends") {
		visit(alternatives)
	}
	var list []*Package
	for _, c := range r.db.hashOrder() {
		if need[c] {
			list = append(list, c)
		}
	}
	return list
}

// install unpacks one package, or nothing of it.
func (r *run) install(ctx context.Context, p *Package, a Archive) error {
	if missing := r.unmet(p); missing != nil {
		r.failed[p.Name] = &DependencyError{missing}
		return nil
	}
	r.log("unpack", p)
	kind := ""
	if a.Control["preinst"] != nil {
		kind = "preinst"
	}
	err := r.transaction(p, kind, func() error { return r.unpack(ctx, a, p) })
	if isFailure(err) {
		p.Status = NotInstalled
		r.failed[p.Name] = err
		return nil
	}
	return err
}

// transaction takes back all that f did if f fails. Only scripts can fail
// without ending the installation.
func (r *run) transaction(p *Package, script string, f func() error) error {
	if script == "" || script == "postinst" && len(p.Conffiles) == 0 && !r.db.tree.Exists(r.db.InfoFile(p, script)) {
		return f()
	}
	mark, back := r.db.tree.Mark(), r.db.snapshot()
	if err := f(); err != nil {
		r.db.tree.Rollback(mark)
		back()
		return err
	}
	r.db.tree.Commit(mark)
	return nil
}

// unmet returns the Pre-Depends that are not configured. Those of the
// essential packages are let pass: they lie in the tree already.
func (r *run) unmet(p *Package) []string {
	if !r.noTriggers {
		return nil
	}
	var missing []string
	for _, alternatives := range p.relations("Pre-Depends") {
		ok := slices.ContainsFunc(alternatives, func(a relation) bool {
			return slices.ContainsFunc(r.db.candidates(a), func(c *Package) bool { return c.Status >= TriggersAwaited })
		})
		if !ok {
			missing = append(missing, describe(alternatives))
		}
	}
	return missing
}
