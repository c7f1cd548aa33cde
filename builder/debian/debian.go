// Package debian brings its parts together: from archives to a lock, and from
// a lock to opened packages.
package debian

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/relation"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/source"
)

// BaseSystem is who asks for the packages that every Debian system has.
const BaseSystem = "the base system"

// Wish is a set of packages to be chosen. The base system is always part, but
// for data.
type Wish struct {
	Set        string // the lock's name for it
	Requests   []resolve.Request
	Recommends bool
	// Data says that the packages are read, not installed: the set holds
	// nothing but them.
	Data bool
	// Installed are the packages that are there already, in the only version
	// that may be chosen. The base system is then no part, and the set holds
	// what is to be added.
	Installed []index.Package
}

// Requests returns a wish's requests as the lock holds them.
func (w Wish) lockRequests() []string {
	var list []string
	for _, r := range w.Requests {
		list = append(list, r.String())
	}
	if w.Recommends {
		list = append(list, "recommended packages")
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Wanted returns what a lock must hold to fit archives and wishes.
func Wanted(arch string, archives []archive.Archive, wishes []Wish) lock.Wanted {
	var w lock.Wanted
	for _, a := range archives {
		for _, suite := range a.Suites {
			w.Suites = append(w.Suites, lock.Suite{Archive: a.Name, Name: suite})
		}
	}
	for _, wish := range wishes {
		w.Sets = append(w.Sets, lock.Set{Name: wish.Set, Arch: arch, Requests: wish.lockRequests()})
	}
	return w
}

// Resolve chooses packages for all wishes and returns the lock's suites and
// sets.
func Resolve(ctx context.Context, c archive.Config, archives []archive.Archive, wishes []Wish) ([]lock.Suite, []lock.Set, error) {
	x, err := archive.Load(ctx, c, archives)
	if err != nil {
		return nil, nil, err
	}
	var suites []lock.Suite
	for _, r := range x.Releases {
		suites = append(suites, lock.Suite{Archive: r.Archive, Name: r.Suite, Version: r.Version, Date: r.Date, SHA256: r.SHA256})
	}
	var sets []lock.Set
	var failed []error
	universes := map[bool]*resolve.Universe{} // with what is installed, and without
	for _, w := range wishes {
		requests := w.Requests
		u := universes[w.Installed != nil]
		if u == nil {
			if u, err = resolve.NewUniverse(c.Arch, withInstalled(x.Packages, w.Installed)); err != nil {
				return nil, nil, err
			}
			universes[w.Installed != nil] = u
		}
		if w.Installed != nil {
			requests = append(keep(w.Installed), requests...)
		}
		if !w.Data && w.Installed == nil {
			requests = append(u.Base(BaseSystem), requests...)
		}
		choices, err := u.Resolve(requests, resolve.Options{Recommends: w.Recommends})
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if w.Data {
			choices = slices.DeleteFunc(choices, func(c resolve.Choice) bool {
				return !slices.ContainsFunc(requests, func(r resolve.Request) bool { return r.Name == c.Name })
			})
		}
		choices = slices.DeleteFunc(choices, func(c resolve.Choice) bool { return c.Filename == "" }) // installed
		set := lock.Set{Name: w.Set, Arch: c.Arch, Requests: w.lockRequests()}
		for _, p := range choices {
			set.Packages = append(set.Packages, lock.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, Archive: p.Archive,
				Path: p.Filename, Size: p.Size, SHA256: p.SHA256, By: p.By})
		}
		sets = append(sets, set)
	}
	return suites, sets, errors.Join(failed...)
}

// keep asks for what is installed, first of all: it may satisfy what others
// need in place of a package that is not.
func keep(installed []index.Package) []resolve.Request {
	list := make([]resolve.Request, len(installed))
	for i, p := range installed {
		list[i] = resolve.Request{Relation: relation.Relation{Name: p.Name, Op: "=", Version: p.Version}, By: "the image"}
	}
	return list
}

// withInstalled returns what may be chosen beside packages that are installed
// already: of those, no other version.
func withInstalled(offered, installed []index.Package) []index.Package {
	if installed == nil {
		return offered
	}
	there := map[string]bool{}
	for _, p := range installed {
		there[p.Name] = true
	}
	all := slices.Clone(installed)
	for _, p := range offered {
		if !there[p.Name] {
			all = append(all, p)
		}
	}
	return all
}

// Opener opens locked packages.
type Opener struct {
	Cache *source.Cache
	Store *deb.Store
	// Mirrors are the archives' URLs by their names.
	Mirrors map[string][]string
	// Snapshot is the URL of a snapshot archive for what has left the
	// mirrors (see archive.URLs), which is asked for the state at Date, the
	// time of the lock; "": none.
	Snapshot string
	Date     time.Time
	// Update is the command that renews the lock, for error messages:
	// "picube-build update picube.hcl".
	Update string
	// Done is told of each package that is open, by one goroutine at a
	// time; may be nil.
	Done func(lock.Package)
}

// Mirrors returns the URLs of archives by their names.
func Mirrors(archives []archive.Archive) map[string][]string {
	m := map[string][]string{}
	for _, a := range archives {
		m[a.Name] = a.URLs
	}
	return m
}

// Open downloads and decodes what the caches lack, both at the same time, and
// returns the packages in the order given. The error names all packages that
// cannot be had any more.
func (o *Opener) Open(ctx context.Context, packages []lock.Package) ([]*deb.Package, error) {
	opened := make([]*deb.Package, len(packages))
	var mu sync.Mutex
	gone := map[string]error{}
	// The largest first, so that no core has a large one left at the end.
	order := make([]int, len(packages))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(packages[b].Size, packages[a].Size) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, i := range order {
		group.Go(func() error {
			p := packages[i]
			d, err := o.open(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, source.ErrNotFound) || errors.Is(err, source.ErrOffline) {
				gone[p.Name] = err
				return nil
			}
			if err != nil {
				return err
			}
			opened[i] = d
			if o.Done != nil {
				o.Done(p)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		failed = append(failed, gone[name])
	}
	return opened, errors.Join(failed...)
}

func (o *Opener) open(ctx context.Context, p lock.Package) (*deb.Package, error) {
	f := deb.File{Name: p.Name, Path: o.Cache.Path(p.SHA256), SHA256: p.SHA256, Size: p.Size}
	if d := o.Store.Lookup(f); d != nil {
		return d, nil
	}
	object := source.Object{
		Name:   fmt.Sprintf("package %s %s %s", p.Name, p.Version, p.Arch),
		URLs:   archive.URLs(o.Mirrors[p.Archive], p.Archive, p.Path, o.Snapshot, o.Date),
		SHA256: p.SHA256, Size: p.Size,
	}
	if _, err := o.Cache.Fetch(ctx, object); err != nil {
		if errors.Is(err, source.ErrNotFound) {
			err = fmt.Errorf("%w: the mirror has this version no longer: run %q to renew the lock", err, o.Update)
		}
		return nil, err
	}
	return o.Store.Open(ctx, f)
}
