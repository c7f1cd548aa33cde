package builder

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/source"
)

// archives returns where a cube's packages come from.
func (b *Builder) archives(base blueprint.Base) ([]archive.Archive, error) {
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
	return all, nil
}

// wish is what a root asks of its archives.
func wish(r *plan.Root) (debian.Wish, error) {
	w := debian.Wish{Set: r.Name, Recommends: r.Cube.Base.Recommends}
	var errs []error
	for _, want := range r.Requests {
		request, err := resolve.ParseRequest(want.Name, want.By)
		errs = append(errs, err)
		w.Requests = append(w.Requests, request)
	}
	return w, errors.Join(errs...)
}

// downloads returns the cache of everything that is downloaded.
func (b *Builder) downloads() *source.Cache {
	return source.New(source.Config{
		Dir: filepath.Join(b.Cache, "downloads"), Offline: b.Offline, Client: b.Client, Now: b.Now,
	})
}

// openPackages brings a root's packages into the cache, decoded.
func (b *Builder) openPackages(ctx context.Context, r *plan.Root) ([]*deb.Package, *deb.Store, error) {
	archives, err := b.archives(r.Cube.Base)
	if err != nil {
		return nil, nil, err
	}
	packages := make([]lock.Package, len(r.Packages))
	var total int64
	for i, p := range r.Packages {
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
	opened, err := opener.Open(ctx, packages)
	if err != nil {
		return nil, nil, errors.Join(err, opener.Store.Close())
	}
	return opened, opener.Store, nil
}
