package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/plan"
)

// ensureLock gives the plan its packages: those of the lock, or, if there is
// none, those that the archives offer now, which become the lock.
func (b *Builder) ensureLock(ctx context.Context) error {
	if !b.epoch.IsZero() {
		return nil
	}
	l, err := lock.Read(b.Lock)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if l, err = b.newLock(ctx, nil); err != nil {
			return err
		}
		if err := l.Write(b.Lock); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		wanted, err := b.wants(ctx, l)
		if err != nil {
			return err
		}
		if err := l.Check(b.Lock, b.Blueprint.Path, wanted); err != nil {
			return err
		}
	}
	return b.apply(l)
}

// Update makes the lock anew and returns what changed in it.
func (b *Builder) Update(ctx context.Context) ([]lock.Change, error) {
	old, err := lock.Read(b.Lock)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = &lock.Lock{}, nil
	}
	if err != nil {
		// A damaged lock is one more reason to make a new one.
		b.Report.Info("%v", err)
		old = &lock.Lock{}
	}
	l, err := b.newLock(ctx, old)
	if err != nil {
		return nil, err
	}
	changes := old.Diff(l)
	if len(changes) == 0 {
		return nil, nil // the date alone is no reason to make every card anew
	}
	return changes, l.Write(b.Lock)
}

// newLock resolves every root. The releases must not be older than those that
// the former lock, if any, has seen.
func (b *Builder) newLock(ctx context.Context, former *lock.Lock) (*lock.Lock, error) {
	var notBefore func(archive, suite string) time.Time
	if former != nil {
		notBefore = former.Date
	}
	l := &lock.Lock{Created: b.Now().UTC().Truncate(time.Second)}
	_, end := b.Report.Phase("resolve", 0)
	defer end()
	var lists []*packageList
	for _, r := range b.plan.Roots {
		base, err := b.baseInputs(ctx, r, true)
		if err != nil {
			return nil, err
		}
		inputs, err := b.inputs(r, func(ll LockedLayer) ([]lock.Input, error) { return ll.Lock(ctx, r) })
		if err != nil {
			return nil, err
		}
		l.Inputs = addNew(addNew(l.Inputs, base), inputs)
		if lists, err = b.addToList(ctx, lists, r); err != nil {
			return nil, err
		}
	}
	for _, p := range lists {
		config := archive.Config{Cache: b.downloads(), Arch: p.arch, Now: b.Now(), NotBefore: notBefore}
		suites, sets, err := debian.Resolve(ctx, config, p.archives, p.wishes)
		if err != nil {
			return nil, fmt.Errorf("root %s: %w", strings.Join(p.roots, ", "), err)
		}
		for _, s := range suites {
			if !slices.Contains(l.Suites, s) {
				l.Suites = append(l.Suites, s)
			}
		}
		l.Sets = append(l.Sets, sets...)
	}
	return l, nil
}

// packageList is what archives offer for an architecture, and who chooses from
// it: it is read once.
type packageList struct {
	arch     string
	archives []archive.Archive
	onImage  bool // and what that has installed already
	wishes   []debian.Wish
	roots    []string // names
}

// addToList adds a root's wishes to the list that it chooses from.
func (b *Builder) addToList(ctx context.Context, lists []*packageList, r *plan.Root) ([]*packageList, error) {
	archives, installed, err := b.archives(ctx, r)
	if err != nil {
		return nil, err
	}
	w, err := wishes(r)
	if err != nil {
		return nil, err
	}
	for i := range w {
		w[i].Installed = installed
	}
	at := slices.IndexFunc(lists, func(p *packageList) bool {
		return !p.onImage && !onImage(r) && p.arch == r.Arch && reflect.DeepEqual(p.archives, archives)
	})
	if at < 0 {
		at, lists = len(lists), append(lists, &packageList{arch: r.Arch, archives: archives, onImage: onImage(r)})
	}
	p := lists[at]
	p.wishes, p.roots = append(p.wishes, w...), append(p.roots, r.Name)
	return lists, nil
}

// baseInputs returns the image that a root is made on, if it is one. ask says
// whether to find out its size.
func (b *Builder) baseInputs(ctx context.Context, r *plan.Root, ask bool) ([]lock.Input, error) {
	if !onImage(r) {
		return nil, nil
	}
	in, err := b.imageInput(ctx, r.Cube.Base, ask)
	return []lock.Input{in}, err
}

// inputs asks the layers for what they put on a root.
func (b *Builder) inputs(r *plan.Root, ask func(LockedLayer) ([]lock.Input, error)) ([]lock.Input, error) {
	var all []lock.Input
	for _, l := range b.Layers {
		if ll, ok := l.(LockedLayer); ok {
			inputs, err := ask(ll)
			if err != nil {
				return nil, fmt.Errorf("layer %s: root %s: %w", l.Name(), r.Name, err)
			}
			all = append(all, inputs...)
		}
	}
	return all, nil
}

// addNew adds the inputs that no other root has brought.
func addNew(all, inputs []lock.Input) []lock.Input {
	for _, in := range inputs {
		if !slices.ContainsFunc(all, func(o lock.Input) bool { return o.Name == in.Name && o.Version == in.Version }) {
			all = append(all, in)
		}
	}
	return all
}

// wants is what the blueprint asks of a lock; layers look at the one there is.
func (b *Builder) wants(ctx context.Context, l *lock.Lock) (lock.Wanted, error) {
	var all lock.Wanted
	for _, r := range b.plan.Roots {
		base, err := b.baseInputs(ctx, r, false)
		if err != nil {
			return all, err
		}
		all.Inputs = addNew(all.Inputs, base)
		var archives []archive.Archive
		if onImage(r) {
			// Which suites its apt asks follows from the image's digest.
			all.Suites = append(all.Suites, l.Suites...)
		} else if archives, err = b.debianArchives(r.Cube.Base); err != nil {
			return all, err
		}
		w, err := wishes(r)
		if err != nil {
			return all, err
		}
		inputs, err := b.inputs(r, func(ll LockedLayer) ([]lock.Input, error) { return ll.Locked(r, l.Inputs) })
		if err != nil {
			return all, err
		}
		all.Inputs = addNew(all.Inputs, inputs)
		wanted := debian.Wanted(r.Arch, archives, w)
		all.Sets = append(all.Sets, wanted.Sets...)
		for _, s := range wanted.Suites {
			if !slices.Contains(all.Suites, s) {
				all.Suites = append(all.Suites, s)
			}
		}
	}
	return all, nil
}

// apply fills the plan from a lock that fits it.
func (b *Builder) apply(l *lock.Lock) error {
	for _, r := range b.plan.Roots {
		if _, err := b.inputs(r, func(ll LockedLayer) ([]lock.Input, error) { return ll.Locked(r, l.Inputs) }); err != nil {
			return err
		}
		set := l.Set(r.Name, r.Arch)
		if set == nil {
			return fmt.Errorf("%s: cannot find the packages of root %s", b.Lock, r.Name)
		}
		r.Packages = planned(set)
		if set := l.Set(dataSet(r), r.Arch); set != nil {
			r.Data = planned(set)
		}
	}
	b.epoch = l.Created
	b.images = map[string]lock.Input{}
	for _, in := range l.Inputs {
		b.images[in.SHA256] = in
	}
	return nil
}

func planned(set *lock.Set) []plan.Package {
	var all []plan.Package
	for _, p := range set.Packages {
		all = append(all, plan.Package{
			Name: p.Name, Version: p.Version, Arch: p.Arch, Archive: p.Archive, Path: p.Path, Size: p.Size, SHA256: p.SHA256,
			Why: p.By,
		})
	}
	return all
}
