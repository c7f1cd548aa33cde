package builder

import (
	"context"
	"errors"
	"path"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/depmod"
	"github.com/picube/picube-build/builder/tree"
)

// moduleIndexes keeps what depmod makes. Unpacking a kernel's modules is the
// longest part of configuring, and scripts run one after the other, so that it
// begins with them and not when one of them asks.
type moduleIndexes struct {
	keep
	ready chan struct{}
}

// readModules begins to make the indexes of the kernels among packages.
func (b *Builder) readModules(ctx context.Context, packages []*deb.Package) moduleIndexes {
	x := moduleIndexes{keep: keep{filepath.Join(b.Cache, "depmod")}, ready: make(chan struct{})}
	go func() {
		defer close(x.ready)
		defer b.Report.Step("module indexes")()
		t, kernels, err := modulesOf(packages)
		if err != nil {
			return // who asks for the indexes gets to know
		}
		for _, k := range kernels {
			// The same: what failed here fails there.
			_ = depmod.RunCached(ctx, t, k, x.keep)
		}
	}()
	return x
}

// Get waits for what is on its way.
func (x moduleIndexes) Get(key string) ([]byte, bool) {
	<-x.ready
	return x.keep.Get(key)
}

// modulesOf returns a tree of the packages' modules, and the kernels' versions.
func modulesOf(packages []*deb.Package) (*tree.Tree, []string, error) {
	const dir = "/usr/lib/modules"
	t := tree.New(0)
	var errs []error
	for _, p := range packages {
		for _, e := range p.Entries() {
			if strings.HasPrefix(e.Path, dir+"/") && !e.Inode.IsDir() {
				errs = append(errs, t.MkdirAll(path.Dir(e.Path), 0o755), t.Put(e.Path, e.Inode))
			}
		}
	}
	if err := errors.Join(errs...); err != nil || !t.Exists(dir) {
		return nil, nil, err
	}
	kernels, err := t.ReadDir(dir)
	return t, kernels, err
}
