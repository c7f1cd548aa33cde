package builder

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
)

// Stale returns the nodes whose cards are not there, or are not what Build
// would make now, in the plan's order. It makes none; a root that the cache no
// longer has counts as changed.
func (b *Builder) Stale(ctx context.Context) ([]string, error) {
	_, err := lock.Read(b.Lock)
	locked := !errors.Is(err, fs.ErrNotExist)
	if locked {
		if err := b.ensureLock(ctx); err != nil {
			return nil, err
		}
	}
	fresh := map[string]bool{}
	for _, r := range b.plan.Roots {
		if locked && b.wanted(r) {
			if err := b.findFresh(ctx, r, fresh); err != nil {
				return nil, err
			}
		}
	}
	var names []string
	for _, n := range b.plan.Nodes() {
		if b.selected(n) && !fresh[n.Name] {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// findFresh adds the nodes with a root that have the very card which Build
// would make.
func (b *Builder) findFresh(ctx context.Context, r *plan.Root, fresh map[string]bool) error {
	if err := b.prepare(ctx, r); err != nil {
		return err
	}
	dir, _, _, err := b.rootDir(ctx, r)
	if err != nil {
		return err
	}
	root, err := openRoot(dir)
	if err != nil {
		return nil // not made yet, or damaged
	}
	for _, n := range b.plan.Nodes() {
		if n.Root != r.Name || !b.selected(n) {
			continue
		}
		cube := filepath.Join(b.Out, n.Cube)
		c, err := b.card(n, root, cube)
		if err != nil {
			return errors.Join(err, root.close())
		}
		fresh[n.Name] = c.isThere(output.Open(cube))
	}
	return root.close()
}
