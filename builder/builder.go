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
	"os"
	"path/filepath"
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
// programs, images.
type PreparedLayer interface {
	Prepare(ctx context.Context, r *plan.Root) error
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
	// Step begins a part of a phase, for those who look closely.
	Step(name string) (end func())
	// Info says something worth knowing, Detail what only some want to know.
	Info(format string, args ...any)
	Detail(format string, args ...any)
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
	// images are the base images as the lock has them, by their digests.
	images map[string]lock.Input
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
		one := []firmware.Board{board}
		boards[board.Name] = plan.Board{Arch: board.Arch, Packages: firmware.Packages(one), Raspios: firmware.RaspiosPackages(one)}
	}
	return plan.Options{
		Boards:  boards,
		Base:    basePackages(),
		OnImage: imagePackages(),
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
// made if there is none. Where they are downloaded already, it says which of
// them are left to the first boot. Where cards were built before, it says what
// becomes of them.
func (b *Builder) Plan(ctx context.Context) (*plan.Plan, error) {
	if err := b.ensureLock(ctx); err != nil {
		return nil, err
	}
	for _, r := range b.plan.Roots {
		if err := b.findLeft(ctx, r); err != nil {
			return nil, fmt.Errorf("root %s: %w", r.Name, err)
		}
	}
	var err error
	b.plan.Changes, err = b.changes()
	return b.plan, err
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
func (b *Builder) Build(ctx context.Context) (_ *Result, err error) {
	if err := b.ensureLock(ctx); err != nil {
		return nil, err
	}
	roots := map[string]*rootImage{}
	defer func() {
		for _, r := range roots {
			err = errors.Join(err, r.close())
		}
	}()
	for _, r := range b.plan.Roots {
		if !b.wanted(r) {
			continue
		}
		if err := b.prepare(ctx, r); err != nil {
			return nil, err
		}
		img, err := b.root(ctx, r)
		if err != nil {
			return nil, err
		}
		roots[r.Name] = img
	}
	var folders []*cubeFolder
	defer func() {
		for _, f := range folders {
			err = errors.Join(err, f.release())
		}
	}()
	for _, cube := range b.plan.Cubes {
		f, err := b.openFolder(ctx, cube)
		if err != nil {
			return nil, err
		}
		folders = append(folders, f)
		if err := b.addCards(f, roots); err != nil {
			return nil, err
		}
	}
	if err := b.repair(ctx, folders, roots); err != nil {
		return nil, err
	}
	return b.writeCards(ctx, folders, roots)
}

// repair makes roots again that lie damaged in the cache, if cards are to be
// made of them.
func (b *Builder) repair(ctx context.Context, folders []*cubeFolder, roots map[string]*rootImage) error {
	again := false
	for _, r := range b.plan.Roots {
		needed := slices.ContainsFunc(folders, func(f *cubeFolder) bool {
			return slices.ContainsFunc(f.cards, func(c card) bool { return !c.kept && c.root == roots[r.Name] })
		})
		if !needed {
			continue
		}
		end := b.Report.Step("check root " + r.Name)
		fault := roots[r.Name].verify(ctx)
		end()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fault == nil {
			continue
		}
		b.Report.Info("root %s is damaged in the cache and made again: %v", r.Name, fault)
		if err := errors.Join(roots[r.Name].close(), os.RemoveAll(filepath.Dir(roots[r.Name].Path))); err != nil {
			return err
		}
		delete(roots, r.Name)
		img, err := b.root(ctx, r)
		if err != nil {
			return err
		}
		roots[r.Name], again = img, true
	}
	if !again {
		return nil
	}
	for _, f := range folders {
		if err := b.addCards(f, roots); err != nil {
			return err
		}
	}
	return nil
}

// prepare has the layers get what they need for a root.
func (b *Builder) prepare(ctx context.Context, r *plan.Root) error {
	for _, l := range b.Layers {
		if p, ok := l.(PreparedLayer); ok {
			if err := p.Prepare(ctx, r); err != nil {
				return fmt.Errorf("layer %s: %w", l.Name(), err)
			}
		}
	}
	return nil
}

// wanted reports whether a card is to be made with the root.
func (b *Builder) wanted(r *plan.Root) bool {
	return slices.ContainsFunc(b.plan.Nodes(), func(n *plan.Node) bool { return n.Root == r.Name && b.selected(n) })
}

func (b *Builder) selected(n *plan.Node) bool {
	return len(b.Nodes) == 0 || slices.Contains(b.Nodes, n.Name)
}

// parallelCards is how many cards are written at a time. A card's digest takes
// one processor: with as few cards as processors, all others would wait for the
// last one.
const parallelCards = 8

// cubeFolder is where a cube's cards go, locked against other builds.
type cubeFolder struct {
	*output.Folder
	cube    *plan.Cube
	release func() error
	cards   []card
}

func (b *Builder) openFolder(ctx context.Context, cube *plan.Cube) (*cubeFolder, error) {
	dir, release, err := b.cubeDir(ctx, cube)
	if err != nil {
		return nil, err
	}
	return &cubeFolder{Folder: output.Open(dir), cube: cube, release: release}, nil
}

// addCards prepares a folder's cards.
func (b *Builder) addCards(f *cubeFolder, roots map[string]*rootImage) error {
	f.cards = nil
	for _, n := range f.cube.Nodes {
		if !b.selected(n) {
			continue
		}
		c, err := b.card(n, roots[n.Root], f.Dir)
		if err != nil {
			return err
		}
		c.kept = c.isThere(f.Folder)
		f.cards = append(f.cards, c)
	}
	f.takeOver()
	return nil
}

func (b *Builder) writeCards(ctx context.Context, folders []*cubeFolder, roots map[string]*rootImage) (*Result, error) {
	res := &Result{}
	var total int64
	for _, f := range folders {
		total += int64(len(f.cards))
	}
	advance, end := b.Report.Phase("cards", total)
	defer end()
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(parallelCards)
	if b.Compress != compress.None {
		g.SetLimit(1) // packing is parallel in itself, and the next card shares what was packed
	}
	for _, f := range folders {
		cr := CubeResult{Name: f.cube.Spec.Name, Dir: f.Dir}
		for _, c := range f.cards {
			cr.Cards = append(cr.Cards, CardResult{Node: c.node.Name, Image: c.path, Bytes: c.table().Size(), Kept: c.kept, Unpacked: c.root.Unpacked})
			if c.kept {
				advance(1)
				continue
			}
			g.Go(func() error {
				if err := c.make(inner, f.Folder); err != nil {
					return fmt.Errorf("node %q: %w", c.node.Name, err)
				}
				advance(1)
				return nil
			})
		}
		res.Cubes = append(res.Cubes, cr)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, f := range folders {
		err := b.laptopFiles(f.cube, f.Dir)
		if err == nil {
			err = b.listings(ctx, f, roots)
		}
		if err != nil {
			return nil, fmt.Errorf("cube %q: %w", f.cube.Spec.Name, err)
		}
	}
	return res, nil
}
