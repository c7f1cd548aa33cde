package merged

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// memory is a store, with the cluster's objects.
type memory struct {
	mu      sync.Mutex
	kept    Kept
	objects map[string]bool
	frozen  bool
	dead    bool // does not answer
}

func (m *memory) Load(context.Context) (Kept, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return Kept{}, errors.New("no answer")
	}
	return m.kept, nil
}

func (m *memory) Save(_ context.Context, k Kept) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.dead:
		return errors.New("no answer")
	case k.Revision != m.kept.Revision:
		return ErrChanged
	}
	k.Revision += "x"
	m.kept = k
	return nil
}

// cube is one of a test: a control-plane node and workers.
type cube struct {
	*world
	name       string
	store      *memory
	controller *Controller
	nodes      []*testNode
	said       []string
	snapshot   uint64
	handed     uint64
	closed     uint64
	card       *card // nil: all are of one identity
}

type testNode struct {
	*Follower
	cube   *cube
	member merge.Membership
	heard  *Heard
}

// world is the wire between cubes.
type world struct {
	t       *testing.T
	cubes   []*cube
	cut     bool // the cable between them
	touched bool // somebody changed what was handed over
}

func (w *world) cube(name string) *cube {
	i := slices.IndexFunc(w.cubes, func(c *cube) bool { return c.name == name })
	return w.cubes[i]
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (c *cube) Leads(context.Context) (bool, error)       { return true, nil }
func (c *cube) Tell(_ context.Context, text string) error { c.said = append(c.said, text); return nil }

func (c *cube) See(_ context.Context, r merge.Record, v *merge.Sight) error {
	v.Snapshot, v.Frozen = c.snapshot, c.store.frozen
	v.Handed = c.handed == r.Term && (r.Phase != merge.Closing || c.closed == r.Term)
	if r.Phase == merge.Workers {
		for _, n := range c.nodes[1:] {
			v.Workers = append(v.Workers, merge.Worker{Name: n.Name, Here: n.member.Cluster == r.ID, There: n.member.Cluster == r.Leader})
		}
	}
	return nil
}

func (c *cube) Do(_ context.Context, r merge.Record, a merge.Action) error {
	switch a.Do {
	case merge.DoSnapshot:
		c.snapshot = r.Term
	case merge.DoFreeze:
		c.store.frozen = true
	case merge.DoThaw:
		c.store.frozen = false
	case merge.DoHandOver:
		leader := c.world.cube(r.LeaderCube)
		if c.cut || leader.store.dead {
			return errors.New("no way to the leader")
		}
		for o := range c.store.objects {
			leader.store.objects[o] = true
		}
		c.handed = r.Term
		if c.store.frozen {
			c.closed = r.Term
		}
	}
	return nil
}

// asker asks from a cube.
type asker struct{ *cube }

func (a asker) Ask(ctx context.Context, name string, q merge.Request) (merge.Reply, error) {
	to := a.world.cube(name)
	if to != a.cube && a.cut || to.store.dead {
		return merge.Reply{}, errors.New("no route to host")
	}
	if err := to.believes(a.cube, merge.Record{ID: q.From.ID, Cube: a.name}); err != nil {
		return merge.Reply{}, err
	}
	return to.controller.Answer(ctx, q, func(context.Context, string) (bool, error) { return !a.world.touched, nil })
}

// run lets a node follow its cluster wherever that goes.
func (n *testNode) run(ctx context.Context) {
	for ctx.Err() == nil {
		m, err := n.Run(ctx, n.member)
		if err != nil {
			return
		}
		if n.ControlPlane {
			n.cube.store.mu.Lock()
			n.cube.store.dead = m.Cluster != m.Home
			n.cube.store.mu.Unlock()
		}
	}
}

// announce brings a record to everybody whom it reaches.
func (c *cube) announce(r merge.Record) error {
	for _, other := range c.world.cubes {
		if other != c && c.cut || other.believes(c, r) != nil {
			continue
		}
		for _, n := range other.nodes {
			n.heard.Hear(r)
		}
	}
	return nil
}

// newWorld starts cubes of three nodes each, the first the eldest.
func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t}
	log := slog.New(slog.DiscardHandler)
	for i, name := range names {
		rec := merge.Record{ID: "id-" + name, Cube: name, Born: int64(1000 * (i + 1)), Kubernetes: "v1", Version: 1, Term: 1, Phase: merge.Alone}
		c := &cube{world: w, name: name, store: &memory{kept: Kept{Record: rec, Revision: "x"}, objects: map[string]bool{name + "'s": true}}}
		for k := range 3 {
			n := &testNode{cube: c, heard: NewHeard(len(names), time.Now)}
			n.Follower = &Follower{
				Name: name + string(rune('1'+k)), Cube: name, ControlPlane: k == 0, Heard: n.heard, Asker: asker{c},
				Keep:  func(m merge.Membership) error { n.member = m; return nil },
				Order: func() merge.Order { return merge.None },
				Adopt: func(context.Context) (merge.Membership, bool) { return merge.Membership{}, false },
				Say:   func(string) {}, Now: time.Now, Pause: pause, Log: log,
			}
			n.member.Cube = name
			c.nodes = append(c.nodes, n)
		}
		c.controller = &Controller{
			Settings: merge.Settings{Mode: merge.Auto}, Cubes: len(names), Store: c.store, Works: c, Asker: asker{c},
			Heard: c.nodes[0].heard, Term: c.nodes[0].Term, Announce: c.announce,
			Say: func(string, bool) {}, Now: time.Now, Pause: pause, Log: log,
		}
		w.cubes = append(w.cubes, c)
	}
	return w
}

// switchOn starts what a control-plane node does for its cluster.
func (c *cube) switchOn(ctx context.Context) (off func()) {
	ctx, off = context.WithCancel(ctx)
	go func() { _ = c.controller.Run(ctx) }()
	go func() { _ = c.controller.RunReading(ctx) }()
	go func() { _ = c.controller.RunAnnouncements(ctx) }()
	return off
}

// pullPlug takes a cube's control plane away for a while; it forgets what it
// did not store.
func (c *cube) pullPlug(ctx context.Context, off func(), d time.Duration) {
	off()
	dead := c.store.dead
	c.store.dead = true
	time.Sleep(d)
	c.store.dead = dead
	old := c.controller
	clear(c.nodes[0].heard.all)
	c.controller = &Controller{
		Settings: old.Settings, Cubes: old.Cubes, Store: old.Store, Works: old.Works, Asker: old.Asker, Heard: old.Heard,
		Term: old.Term, Announce: old.Announce, Say: old.Say, Now: old.Now, Pause: old.Pause, Log: old.Log,
	}
	c.switchOn(ctx)
}

func (w *world) start(ctx context.Context) (off []func()) {
	for _, c := range w.cubes {
		off = append(off, c.switchOn(ctx))
		for _, n := range c.nodes {
			go n.run(ctx)
		}
	}
	return off
}

// isOne reports what keeps the cubes from being the first one's cluster.
func (w *world) isOne() error {
	for _, c := range w.cubes {
		for _, n := range c.nodes {
			if n.member.Cube != w.cubes[0].name || n.member.Cluster != "id-"+w.cubes[0].name {
				return errors.New(n.Name + " is of the cluster " + n.member.Cluster)
			}
		}
		if !w.cubes[0].store.objects[c.name+"'s"] {
			return errors.New("the object of " + c.name + " is missing")
		}
	}
	return nil
}

// Cubes that ran alone for an hour meet and are one.
func TestMeeting(t *testing.T) {
	for _, names := range [][]string{{"alpha", "beta"}, {"alpha", "beta", "gamma", "delta"}} {
		t.Run(strings.Join(names, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				w := newWorld(t, names...)
				w.cut = true
				w.start(ctx)
				time.Sleep(time.Hour)
				for _, c := range w.cubes {
					if r := c.store.kept.Record; r.Phase != merge.Alone || r.Version != 1 {
						t.Fatalf("%s alone: %+v", c.name, r)
					}
				}
				w.cut = false
				met := time.Now()
				for w.isOne() != nil && time.Since(met) < time.Hour {
					time.Sleep(time.Second)
				}
				t.Logf("one after %s", time.Since(met))
				if err := w.isOne(); err != nil {
					t.Fatal(err)
				}
				if len(w.cubes[1].said) < 4 {
					t.Errorf("said only %q", w.cubes[1].said)
				}
			})
		})
	}
}

// In the middle, the cable is cut for an hour at a time, at every phase.
func TestCable(t *testing.T) {
	for after := 5 * time.Second; after < 70*time.Second; after += 5 * time.Second {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := newWorld(t, "alpha", "beta")
			w.start(ctx)
			time.Sleep(after)
			w.cut = true
			at := w.cubes[1].store.kept.Record.Phase
			time.Sleep(time.Hour)
			w.cut = false
			time.Sleep(10 * time.Minute)
			if err := w.isOne(); err != nil {
				t.Errorf("cut after %s (%s): %v", after, at, err)
			}
		})
	}
}

// The plug of either control plane is pulled at every moment, for a minute or for
// ten.
func TestPlug(t *testing.T) {
	for i := range 2 {
		for _, d := range []time.Duration{20 * time.Second, 10 * time.Minute} {
			for after := 5 * time.Second; after < 50*time.Second; after += 3 * time.Second {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					w := newWorld(t, "alpha", "beta")
					off := w.start(ctx)
					time.Sleep(after)
					at := w.cubes[1].store.kept.Record
					w.cubes[i].pullPlug(ctx, off[i], d)
					time.Sleep(10 * time.Minute)
					if err := w.isOne(); err != nil {
						t.Errorf("plug of %s after %s (%s) for %s: %v", w.cubes[i].name, after, at.Phase, d, err)
					}
					if r := w.cubes[1].store.kept.Record; d < time.Minute && at.Phase != merge.Alone && at.Phase != merge.Asking && r.Term != at.Term {
						t.Errorf("plug of %s after %s (%s) for %s: it had to begin anew", w.cubes[i].name, after, at.Phase, d)
					}
				})
			}
		}
	}
}

// A person undoes it and tells it to happen again.
func TestUndo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := newWorld(t, "alpha", "beta")
		w.start(ctx)
		time.Sleep(10 * time.Minute)
		if err := w.isOne(); err != nil {
			t.Fatal(err)
		}
		beta := w.cube("beta")
		order, said := merge.Undo, ""
		beta.nodes[0].Order = func() (o merge.Order) { o, order = order, merge.None; return o }
		beta.nodes[0].Say = func(text string) { said = text }
		w.touched = true
		time.Sleep(time.Minute)
		if err := w.isOne(); err != nil || !strings.Contains(said, "was changed") {
			t.Errorf("undone though somebody changed what was handed over: %v, said %q", err, said)
		}
		time.Sleep(10 * time.Minute)
		if said != "" {
			t.Errorf("still says %q", said)
		}
		order, w.touched = merge.Undo, false
		time.Sleep(10 * time.Minute)
		for _, n := range beta.nodes {
			if n.member.Cluster != "id-beta" {
				t.Errorf("%s is of %s", n.Name, n.member.Cluster)
			}
		}
		if r := beta.store.kept.Record; r.Phase != merge.Alone || !r.Hold || beta.store.frozen {
			t.Errorf("beta: %+v", r)
		}
		beta.store.mu.Lock()
		beta.store.kept.Order, beta.store.kept.Revision = merge.Merge, beta.store.kept.Revision+"y"
		beta.store.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if err := w.isOne(); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}
