package dpkg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// deferred is what a step returns when it has to wait for others.
var errDefer = errors.New("deferred")

// The levels of effort that dpkg goes through when nothing moves any more.
const (
	tryNormal = iota + 1
	tryCycles
	tryTriggers
	tryTriggerCycles
	tryLast
)

// queue is one walk of dpkg over packages to configure.
type queue struct {
	*run
	waiting  []*Package
	toBe     map[*Package]bool // will be configured if all goes well
	level    int
	idle     int // turns since something moved
	byTrig   *Package
	tortoise []progress
}

// progress is what was pending when triggers were last processed; the same
// again means that they go round in circles.
type progress map[string][]string

// dependency names one alternative of a relation whose cycle is broken.
type dependency struct {
	pkg         string
	field       string
	group, item int
}

// configure does what "dpkg --configure" does with packages in their order.
func (r *run) configure(ctx context.Context, list []*Package) error {
	q := &queue{run: r, level: tryNormal, toBe: map[*Package]bool{}}
	for _, p := range list {
		q.waiting = append(q.waiting, p)
		q.toBe[p] = true
	}
	for len(q.waiting) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := q.waiting[0]
		q.waiting = q.waiting[1:]
		if q.idle++; q.idle > len(q.waiting)*2+2 {
			if t := q.byTrig; q.level >= tryTriggers && t != nil && len(t.Pending) > 0 && q.idle <= len(q.waiting)*3+2 {
				q.enqueue(p)
				p, q.byTrig = t, nil
			} else {
				q.level++
				q.idle = 0
			}
		}
		if q.level >= tryLast {
			q.fail(p, errors.New("its dependencies go round in circles"))
			continue
		}
		var err error
		if len(p.Pending) > 0 {
			err = q.triggers(ctx, p, true)
		} else if p.Status != Installed {
			err = q.one(ctx, p)
		}
		switch {
		case errors.Is(err, errDefer):
			q.enqueue(p)
		case err != nil && isFailure(err):
			q.fail(p, err)
		case err != nil:
			return err
		}
	}
	if r.noTriggers {
		return nil
	}
	for len(r.deferred) > 0 {
		p := r.deferred[0]
		r.deferred = r.deferred[1:]
		err := q.triggers(ctx, p, false)
		switch {
		case errors.Is(err, errDefer):
		case err != nil && isFailure(err):
			q.fail(p, err)
		case err != nil:
			return err
		}
	}
	return nil
}

// failure is what keeps one package from being configured; other errors end
// the installation.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func isFailure(err error) bool {
	var f failure
	return errors.As(err, &f)
}

func (q *queue) enqueue(p *Package) {
	if !slices.Contains(q.waiting, p) {
		q.waiting = append(q.waiting, p)
	}
}

func (q *queue) fail(p *Package, err error) {
	q.toBe[p] = false
	q.idle = 0
	q.failed[p.Name] = err
}

// one configures one package.
func (q *queue) one(ctx context.Context, p *Package) error {
	if p.Status != Unpacked && p.Status != HalfConfigured {
		return failure{fmt.Errorf("cannot configure it in state %s", p.Status)}
	}
	if q.level >= tryCycles && q.breakCycle(p) {
		q.idle = 0
	}
	if err := q.dependencies(p); err != nil {
		if errors.Is(err, errDefer) {
			q.toBe[p] = true
		}
		return err
	}
	q.tortoise = nil
	q.idle = 0
	q.log("configure", p)

	return q.transaction(p, "postinst", func() error { return q.postinst(ctx, p) })
}

func (q *queue) postinst(ctx context.Context, p *Package) error {
	if err := q.activateOwn(p); err != nil {
		return err
	}
	if p.Status == Unpacked {
		if err := q.conffiles(p); err != nil {
			return err
		}
	}
	p.Status = HalfConfigured
	if err := q.script(ctx, p, "postinst", "", "configure", p.ConfigVersion); err != nil {
		return err
	}
	p.Pending = nil
	return q.configured(p)
}

// Again takes back that a package is configured: it is half-configured, so
// that the next "dpkg --configure" runs its postinst once more. What triggers
// it, that does too.
func (db *DB) Again(name string) {
	p := db.Package(name)
	if p == nil || p.Status < TriggersAwaited {
		return // it will be configured anyway
	}
	p.Status, p.ConfigVersion, p.Pending, p.Awaited = HalfConfigured, "", nil, nil
	r := &run{db: db}
	r.clearAwaiters(p)
}

// activateOwn pulls the triggers that the installed package's state pulls.
func (r *run) activateOwn(p *Package) error {
	text, err := r.db.readInfo(p, "triggers")
	if err != nil {
		return err
	}
	all, err := parseDirectives(text)
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	return r.activateDirectives(p, all)
}

// configured ends a successful postinst.
func (r *run) configured(p *Package) error {
	p.Status = p.triggered()
	p.ConfigVersion = p.Version
	if len(p.Pending) == 0 {
		r.clearAwaiters(p)
	}
	return r.incorporate()
}

// triggers processes a package's pending triggers. queued tells a package of
// the queue from one of the deferred ones.
func (q *queue) triggers(ctx context.Context, p *Package, queued bool) error {
	q.deferred = slices.DeleteFunc(q.deferred, func(d *Package) bool { return d == p })
	if len(p.Pending) == 0 {
		q.clearAwaiters(p)
		return nil
	}
	if queued && q.level < tryTriggers {
		return errDefer
	}
	if q.level >= tryCycles && q.breakCycle(p) {
		q.idle = 0
	}
	if err := q.dependencies(p); err != nil {
		if errors.Is(err, errDefer) && q.level >= tryTriggerCycles && q.looping() {
			return failure{errors.New("triggers looping, abandoned")}
		}
		if isFailure(err) && !queued {
			q.tortoise = nil
			return nil
		}
		return err
	}
	if q.looping() {
		return failure{errors.New("triggers looping, abandoned")}
	}
	q.log("trigproc", p)
	q.idle = 0
	return q.transaction(p, "postinst", func() error {
		names := strings.Join(p.Pending, " ")
		p.Pending = nil
		p.Status = HalfConfigured
		if err := q.script(ctx, p, "postinst", "", "triggered", names); err != nil {
			return err
		}
		return q.configured(p)
	})
}

// looping notes what is pending now and reports whether everything that was
// pending half as many steps ago still is.
func (q *queue) looping() bool {
	now := progress{}
	for _, p := range q.db.pkgs {
		if len(p.Pending) > 0 {
			now[p.Name] = p.Pending
		}
	}
	q.tortoise = append(q.tortoise, now)
	if len(q.tortoise) == 1 {
		return false
	}
	for name, then := range q.tortoise[(len(q.tortoise)-2)/2] {
		for _, t := range then {
			if !slices.Contains(now[name], t) {
				return false
			}
		}
	}
	return true
}

// conffiles puts the new versions in place. There is nobody to ask, so what
// the administrator (or another script) wrote is kept.
func (q *queue) conffiles(p *Package) error {
	t := q.db.tree
	diversions, err := q.db.Diversions()
	if err != nil {
		return err
	}
	all := slices.Clone(p.Conffiles)
	for i, c := range all {
		if c.Obsolete || c.RemoveOnUpgrade {
			continue
		}
		use := diverted(diversions, c.Path, p)
		current, err := t.RealPath(use)
		if err != nil {
			return failure{fmt.Errorf("conffile %w", err)}
		}
		fresh, err := t.Lstat(current + ".dpkg-new")
		if errors.Is(err, fs.ErrNotExist) {
			continue // done before
		}
		if err != nil {
			return err
		}
		if !fresh.IsRegular() {
			return failure{fmt.Errorf("conffile %s: not a regular file", c.Path)}
		}
		sum, err := digest(fresh)
		if err != nil {
			return fmt.Errorf("package %s: conffile %s: %w", p.Name, c.Path, err)
		}
		all[i].MD5 = sum
		there, err := t.Lstat(current)
		if errors.Is(err, fs.ErrNotExist) {
			if c.MD5 != "newconffile" { // removed by the administrator
				if err := t.Remove(current + ".dpkg-new"); err != nil {
					return err
				}
				continue
			}
			if err := q.activate(use, p); err != nil {
				return err
			}
			if err := t.Rename(current+".dpkg-new", current); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := t.Chmod(current+".dpkg-new", there.Perm()); err != nil {
			return err
		}
		if err := t.Chown(current+".dpkg-new", there.UID, there.GID); err != nil {
			return err
		}
		now, err := digest(there)
		if err != nil {
			return err
		}
		switch {
		case now == sum || c.MD5 == sum: // nothing new
			err = t.Remove(current + ".dpkg-new")
		case now == c.MD5: // nobody touched it
			if err := q.activate(use, p); err != nil {
				return err
			}
			err = t.Rename(current+".dpkg-new", current)
		default:
			if err := q.activate(use, p); err != nil {
				return err
			}
			err = t.Rename(current+".dpkg-new", current+".dpkg-dist")
		}
		if err != nil {
			return err
		}
	}
	p.Conffiles = all
	return nil
}

// dependencies returns nil if a package may be configured now, errDefer if
// it has to wait, a failure if waiting is no use.
func (q *queue) dependencies(p *Package) error {
	var wait, wrong bool
	var byTrig *Package
	var missing []string
	for _, field := range []string{"Depends", "Pre-Depends"} {
		for group, alternatives := range p.relations(field) {
			found, trig, cannot := q.satisfied(p, field, group, alternatives)
			switch {
			case found:
			case cannot:
				missing = append(missing, describe(alternatives))
			case trig != nil:
				wait, byTrig = true, trig
			default:
				wait, wrong = true, true
			}
		}
	}
	for _, other := range q.db.pkgs {
		if other.Status < HalfInstalled || other == p {
			continue
		}
		for _, r := range other.relations("Breaks") {
			if r[0].satisfiedBy(p) {
				missing = append(missing, "(broken by "+other.Name+")")
			}
		}
	}
	if missing != nil {
		slices.Sort(missing)
		return failure{&DependencyError{missing}}
	}
	if !wait {
		return nil
	}
	if !wrong {
		q.byTrig = byTrig
	}
	return errDefer
}

// DependencyError says what a package waits for in vain.
type DependencyError struct{ Missing []string }

func (e *DependencyError) Error() string {
	return fmt.Sprintf("it depends on what is not configured: %s", strings.Join(e.Missing, ", "))
}

// satisfied looks at one group of alternatives: whether one is configured;
// else a package whose triggers would help; else whether none ever will be.
func (q *queue) satisfied(p *Package, field string, group int, alternatives []relation) (found bool, trig *Package, cannot bool) {
	cannot = true
	for item, r := range alternatives {
		if q.broken[dependency{p.Name, field, group, item}] {
			return true, nil, false
		}
		for _, c := range q.db.candidates(r) {
			switch c.Status {
			case Installed, TriggersPending:
				return true, nil, false
			case TriggersAwaited:
				if q.noTriggers && !q.toBe[c] {
					continue
				}
				trig, cannot = q.db.pkgs[c.Awaited[0]], false
			case Unpacked, HalfConfigured:
				if c == p && c.Name != r.name {
					return true, nil, false
				}
				if q.toBe[c] {
					trig, cannot = nil, false
				}
			}
		}
	}
	return false, trig, cannot
}

// candidates returns the packages that satisfy a relation, the one of that
// name first.
func (db *DB) candidates(r relation) []*Package {
	var all []*Package
	if p := db.pkgs[r.name]; p != nil && p.Status > ConfigFiles && r.satisfiedBy(p) {
		all = append(all, p)
	}
	for _, p := range db.provides()[r.name] {
		if p.Name != r.name && r.satisfiedBy(p) {
			all = append(all, p)
		}
	}
	return all
}

// breakCycle looks for a cycle of dependencies below p and breaks it where no
// postinst would notice, else at its start.
func (q *queue) breakCycle(p *Package) bool {
	type link struct {
		pkg *Package
		dep dependency
	}
	done := map[*Package]bool{}
	var walk func(p *Package, chain []link) bool
	walk = func(p *Package, chain []link) bool {
		if done[p] {
			return false
		}
		for _, field := range []string{"Depends", "Pre-Depends"} {
			for group, alternatives := range p.relations(field) {
				for item, r := range alternatives {
					dep := dependency{p.Name, field, group, item}
					if q.broken[dep] {
						continue
					}
					chain := append(chain, link{p, dep})
					for _, c := range q.db.candidates(r) {
						if c.Name != r.name && !q.toBe[c] {
							continue
						}
						start := slices.IndexFunc(chain, func(l link) bool { return l.pkg == c })
						if start < 0 || c == p && len(chain) == 1 {
							if c != p && walk(c, chain) {
								return true
							}
							continue
						}
						cut := chain[start]
						for i := len(chain) - 1; i >= start; i-- {
							if !q.db.tree.Exists(q.db.InfoFile(chain[i].pkg, "postinst")) {
								cut = chain[i]
								break
							}
						}
						q.broken[cut.dep] = true
						return true
					}
				}
			}
		}
		done[p] = true
		return false
	}
	return walk(p, nil)
}
