package builder

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/source"
	"github.com/picube/picube-build/builder/tree"
)

// archives returns where a root's packages come from, and the packages that
// someone else's image has already.
func (b *Builder) archives(ctx context.Context, r *plan.Root) ([]archive.Archive, []index.Package, error) {
	if onImage(r) {
		return b.imageOffers(ctx, r)
	}
	all, err := b.debianArchives(r.Cube.Base)
	return all, nil, err
}

func (b *Builder) debianArchives(base blueprint.Base) ([]archive.Archive, error) {
	mirrors := b.Mirrors
	if base.Mirror != "" {
		mirrors.Debian = []string{base.Mirror}
	}
	all, err := archive.Debian(base.Suite, mirrors)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Components = base.Components
	}
	return append(all, furtherArchives(base)...), nil
}

// furtherArchives are those that the blueprint names beside the distribution's.
func furtherArchives(base blueprint.Base) []archive.Archive {
	var all []archive.Archive
	for _, a := range base.Archives {
		further := archive.Archive{Name: a.Name, URLs: []string{a.URL}, Suites: a.Suites, Components: a.Components, Keys: []byte(a.Key)}
		if a.Priority != blueprint.DefaultPriority {
			further.Pin = a.Priority
		}
		all = append(all, further)
	}
	return all
}

// wishes is what a root asks of its archives.
func wishes(r *plan.Root) ([]debian.Wish, error) {
	w := debian.Wish{Set: r.Name, Recommends: r.Cube.Base.Recommends}
	var errs []error
	for _, want := range r.Requests {
		request, err := resolve.ParseRequest(want.Name, want.By)
		errs = append(errs, err)
		w.Requests = append(w.Requests, request)
	}
	all := []debian.Wish{w}
	if generatesLocales(r) {
		request, err := resolve.ParseRequest(localesPackage, "debconf "+localesQuestion)
		errs = append(errs, err)
		all = append(all, debian.Wish{Set: dataSet(r), Requests: []resolve.Request{request}, Data: true})
	}
	return all, errors.Join(errs...)
}

// dataSet is the lock's name for what a root's build reads and does not
// install.
func dataSet(r *plan.Root) string { return r.Name + "-data" }

// Locales are not compiled here: this package has all of them compiled.
const (
	localesPackage  = "locales-all"
	localesQuestion = "locales/locales_to_be_generated"
)

// generatesLocales reports whether a root's answer asks for compiled locales.
func generatesLocales(r *plan.Root) bool {
	answer := strings.TrimSpace(r.Cube.Debconf[localesQuestion])
	return answer != "" && answer != "None"
}

// downloads returns the cache of everything that is downloaded.
func (b *Builder) downloads() *source.Cache {
	return source.New(source.Config{
		Dir: filepath.Join(b.Cache, "downloads"), Offline: b.Offline, Client: b.Client, Now: b.Now,
	})
}

// openPackages brings a root's packages into the cache, decoded: those to
// install, and those to read.
func (b *Builder) openPackages(ctx context.Context, r *plan.Root) (*opened, error) {
	archives, _, err := b.archives(ctx, r)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(r.Packages, r.Data)
	packages := make([]lock.Package, len(all))
	var total int64
	for i, p := range all {
		packages[i] = lock.Package{Name: p.Name, Version: p.Version, Arch: p.Arch, Archive: p.Archive, Path: p.Path, Size: p.Size, SHA256: p.SHA256}
		total += p.Size
	}
	advance, end := b.Report.Phase("packages", total)
	defer end()
	opener := debian.Opener{
		Cache: b.downloads(), Store: deb.NewStore(filepath.Join(b.Cache, "packages"), b.Now),
		Mirrors: debian.Mirrors(archives), Snapshot: r.Cube.Base.Snapshot, Date: b.epoch,
		Update: fmt.Sprintf("picube-build update %s", b.Blueprint.Path),
		Done:   func(p lock.Package) { advance(p.Size) },
	}
	debs, err := opener.Open(ctx, packages)
	if err != nil {
		return nil, errors.Join(err, opener.Store.Close())
	}
	n := len(r.Packages)
	return &opened{install: debs[:n], data: debs[n:], store: opener.Store}, nil
}

// opened are a root's packages; what they hold is read from the store.
type opened struct {
	install, data []*deb.Package
	store         *deb.Store
}

func (o *opened) Close() error { return o.store.Close() }

// locales returns the tree of the package of compiled locales, if there is
// one.
func (o *opened) locales(context.Context) (*tree.Tree, error) {
	t := tree.New(0)
	for _, p := range o.data {
		for _, e := range p.Entries() {
			if e.Path == "/" {
				continue
			}
			if err := t.Put(e.Path, e.Inode); err != nil {
				return nil, fmt.Errorf("package %s: %w", localesPackage, err)
			}
		}
	}
	return t, nil
}
