// Package builder turns a blueprint into cards. It is the only orchestrator:
// everything below it is a leaf that knows one format or one decision.
//
// A build has these phases: plan, lock (resolving when there is none), the
// root file systems (download, unpack, configure, layers, write; once for all
// nodes that agree on everything on it), the cards (a boot partition each, and
// a copy of the root), and the files for the laptop.
package builder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/nodeconf"
)

// Layer is one feature: what it needs of the distribution and what it puts
// into a root file system.
type Layer interface {
	Name() string
	// Packages returns the packages that a root needs for it.
	Packages(r *plan.Root) []string
	// Apply changes a root after its packages are configured.
	Apply(r *plan.Root, t *tree.Tree) error
}

// NodeLayer is a layer that has something to say about single nodes: in
// node.yaml, or as files on the boot partition.
type NodeLayer interface {
	Node(p *plan.Plan, n *plan.Node, conf *nodeconf.Node, boot *tree.Tree) error
}

// PreparedLayer is a layer that gets something before its roots are made:
// programs, images. What it made itself carries the time epoch (seconds since
// 1970).
type PreparedLayer interface {
	Prepare(ctx context.Context, r *plan.Root, epoch int64) error
	// Fingerprint stands for what it got for a root: another one, another
	// root.
	Fingerprint(r *plan.Root) string
}

// LockedLayer is a layer whose content comes from elsewhere than the
// distribution, and belongs into the lock.
type LockedLayer interface {
	// Lock finds out what goes onto a root.
	Lock(ctx context.Context, r *plan.Root) ([]lock.Input, error)
	// Locked is given the lock's inputs and returns those that the root wants:
	// at least name and version.
	Locked(r *plan.Root, inputs []lock.Input) ([]lock.Input, error)
}

// LaptopLayer is a layer with files for the laptop, by their names in the
// cube's folder.
type LaptopLayer interface {
	LaptopFiles(p *plan.Plan, c *plan.Cube) (map[string][]byte, error)
}

// Reporter is told how far a build is.
type Reporter interface {
	// Phase begins something that takes time; end is called when it is over.
	// total is its size in bytes or steps, 0 if unknown.
	Phase(name string, total int64) (advance func(n int64), end func())
	// Info says something worth knowing.
	Info(format string, args ...any)
}

// Config is what a build needs to know.
type Config struct {
	Blueprint *blueprint.Blueprint
	Layers    []Layer
	Out       string // folder of the cubes' folders
	Cache     string // folder of everything that may be deleted
	Lock      string // file of the lock
	Secrets   *secrets.Folder
	// Program returns picube-node for an architecture.
	Program func(ctx context.Context, arch string) ([]byte, error)
	// BuildID stands for the code of picube-build: another one, another cache.
	BuildID string
	Version string // of picube-build, for people
	// Compress is how the images are packed.
	Compress compress.Format
	Nodes    []string // host names of the cards to make; empty: all
	Offline  bool
	Now      func() time.Time
	Client   *http.Client    // nil: one with sensible time limits
	Mirrors  archive.Mirrors // where the blueprint names none
	Report   Reporter
}

// Builder builds one blueprint.
type Builder struct {
	Config
	plan  *plan.Plan
	cubes map[string]*plan.Cube
	epoch time.Time // of the lock: the time of everything on the cards
	ids   map[string]*secrets.Cluster
}

// basePackages are what every node has, whatever the blueprint says: an init,
// device nodes, and what a person needs who has logged in because something
// does not work.
func basePackages() []string {
	return []string{
		"dbus", "iputils-ping", "kmod", "less", "libpam-systemd", "nano", "procps",
		"systemd", "systemd-sysv", "udev",
		"linux-sysctl-defaults", // among others, lets everybody ping
	}
}

// New plans the blueprint.
func New(c Config) (*Builder, error) {
	b := &Builder{Config: c, cubes: map[string]*plan.Cube{}, ids: map[string]*secrets.Cluster{}}
	for _, cube := range c.Blueprint.Cubes {
		if b.ids[cube.Cluster] == nil {
			id, err := c.Secrets.Cluster(cube.Cluster)
			if err != nil {
				return nil, err
			}
			b.ids[cube.Cluster] = id
		}
		giveKeys(cube, b.ids[cube.Cluster])
	}
	p, diags := plan.New(c.Blueprint, PlanOptions(c.Layers))
	if diags.HasErrors() {
		return nil, diags
	}
	b.plan = p
	for _, cube := range p.Cubes {
		b.cubes[cube.Spec.Name] = cube
	}
	return b, b.checkNodes()
}

// PlanOptions is what plans are made with: the boards' and the layers' wishes.
func PlanOptions(layers []Layer) plan.Options {
	boards := map[string]plan.Board{}
	for _, board := range firmware.Boards() {
		boards[board.Name] = plan.Board{Arch: board.Arch, Packages: firmware.Packages([]firmware.Board{board})}
	}
	return plan.Options{
		Boards: boards,
		Base:   basePackages(),
		Layers: func(r *plan.Root) []plan.Request {
			var all []plan.Request
			for _, l := range layers {
				for _, name := range l.Packages(r) {
					all = append(all, plan.Request{Name: name, By: "layer " + l.Name()})
				}
			}
			return all
		},
	}
}

func (b *Builder) checkNodes() error {
	var unknown []string
	for _, name := range b.Nodes {
		if !slices.ContainsFunc(b.plan.Nodes(), func(n *plan.Node) bool { return n.Name == name }) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("node %s: cannot find it in the blueprint", strings.Join(unknown, ", "))
	}
	return nil
}

// Plan returns what will be built, packages included: from the lock, which is
// made if there is none.
func (b *Builder) Plan(ctx context.Context) (*plan.Plan, error) {
	if err := b.ensureLock(ctx); err != nil {
		return nil, err
	}
	return b.plan, nil
}

// Result is what a build made.
type Result struct {
	Cubes []CubeResult `json:"cubes"`
}

// CubeResult is one cube's folder.
type CubeResult struct {
	Name  string       `json:"name"`
	Dir   string       `json:"dir"`
	Cards []CardResult `json:"cards"`
}

// CardResult is one card.
type CardResult struct {
	Node  string `json:"node"`
	Image string `json:"image"`
	Bytes int64  `json:"bytes"` // that it takes on a card
	// Kept says that it was there already, made from the same.
	Kept bool `json:"kept,omitempty"`
	// Unpacked are packages that the first boot will configure.
	Unpacked []string `json:"unpacked,omitempty"`
}

// Build makes the cards.
func (b *Builder) Build(ctx context.Context) (*Result, error) {
	if err := b.ensureLock(ctx); err != nil {
		return nil, err
	}
	roots := map[string]*rootImage{}
	defer func() {
		for _, r := range roots {
			r.close()
		}
	}()
	for _, r := range b.plan.Roots {
		if !b.wanted(r) {
			continue
		}
		for _, l := range b.Layers {
			if p, ok := l.(PreparedLayer); ok {
				if err := p.Prepare(ctx, r, b.epoch.Unix()); err != nil {
					return nil, fmt.Errorf("layer %s: %w", l.Name(), err)
				}
			}
		}
		img, err := b.root(ctx, r)
		if err != nil {
			return nil, err
		}
		roots[r.Name] = img
	}
	return b.writeCards(ctx, roots)
}

// wanted reports whether a card is to be made with the root.
func (b *Builder) wanted(r *plan.Root) bool {
	return slices.ContainsFunc(b.plan.Nodes(), func(n *plan.Node) bool { return n.Root == r.Name && b.selected(n) })
}

func (b *Builder) selected(n *plan.Node) bool {
	return len(b.Nodes) == 0 || slices.Contains(b.Nodes, n.Name)
}

// parallelCards is how many cards are written at a time: a disk gains nothing
// from more.
const parallelCards = 2

func (b *Builder) writeCards(ctx context.Context, roots map[string]*rootImage) (*Result, error) {
	res := &Result{}
	var total int64
	for _, n := range b.plan.Nodes() {
		if b.selected(n) {
			total++
		}
	}
	advance, end := b.Report.Phase("cards", total)
	defer end()
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(parallelCards)
	if b.Compress != compress.None {
		g.SetLimit(1) // packing is parallel in itself, and the next card shares what was packed
	}
	var folders []*output.Folder
	var cards [][]output.Card
	for _, cube := range b.plan.Cubes {
		dir, release, err := b.cubeDir(ctx, cube)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		defer release()
		cr := CubeResult{Name: cube.Spec.Name, Dir: dir}
		folder := output.Open(dir)
		var listed []output.Card
		for _, n := range cube.Nodes {
			if !b.selected(n) {
				continue
			}
			root := roots[n.Root]
			c, err := b.card(n, root, dir)
			if err != nil {
				return nil, errors.Join(err, g.Wait())
			}
			kept := c.isThere(folder)
			cr.Cards = append(cr.Cards, CardResult{Node: n.Name, Image: c.path, Bytes: c.table().Size(), Kept: kept, Unpacked: root.Unpacked})
			listed = append(listed, b.listCard(n, c))
			if kept {
				advance(1)
				continue
			}
			g.Go(func() error {
				if err := c.make(inner, folder); err != nil {
					return fmt.Errorf("node %q: %w", n.Name, err)
				}
				advance(1)
				return nil
			})
		}
		res.Cubes = append(res.Cubes, cr)
		folders, cards = append(folders, folder), append(cards, listed)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, cube := range b.plan.Cubes {
		err := b.laptopFiles(cube, res.Cubes[i].Dir)
		if err == nil {
			err = b.listings(ctx, cube, folders[i], cards[i], roots)
		}
		if err != nil {
			return nil, fmt.Errorf("cube %q: %w", cube.Spec.Name, err)
		}
	}
	return res, nil
}
