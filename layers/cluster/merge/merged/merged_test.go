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
	mu      *sync.Mutex // the world's
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
	off        func() // ends what switchOn started; nil: it was never on
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
	order  merge.Order // of a person, until the node takes it
	said   string
}

// world is the wire between cubes. All of them run at once, so what they share is
// behind its lock; a test has it but while it sleeps.
type world struct {
	t       *testing.T
	ctx     context.Context
	mu      sync.Mutex
	cubes   []*cube
	cut     bool // the cable between them
	touched bool // somebody changed what was handed over
}

func (w *world) cube(name string) *cube {
	i := slices.IndexFunc(w.cubes, func(c *cube) bool { return c.name == name })
	return w.cubes[i]
}

// sleep lets the others go on.
func (w *world) sleep(d time.Duration) {
	w.mu.Unlock()
	time.Sleep(d)
	w.mu.Lock()
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (c *cube) Leads(context.Context) (bool, error) { return true, nil }

func (c *cube) Tell(_ context.Context, text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, text)
	return nil
}

func (c *cube) See(_ context.Context, r merge.Record, v *merge.Sight) error {
	c.mu.Lock()
	defer c.mu.Unlock()
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
	c.mu.Lock()
	defer c.mu.Unlock()
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
	to, err := a.reach(name, q)
	if err != nil {
		return merge.Reply{}, err
	}
	return to.Answer(ctx, q, func(context.Context, string) (bool, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !a.touched, nil
	})
}

func (a asker) reach(name string, q merge.Request) (*Controller, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to := a.world.cube(name)
	if to != a.cube && a.cut || to.store.dead {
		return nil, errors.New("no route to host")
	}
	return to.controller, to.believes(a.cube, merge.Record{ID: q.From.ID, Cube: a.name})
}

// run lets a node follow its cluster wherever that goes.
func (n *testNode) run(ctx context.Context) {
	m := merge.Membership{Cube: n.cube.name}
	for {
		var err error
		if m, err = n.Run(ctx, m); err != nil {
			return
		}
		if n.ControlPlane {
			n.cube.mu.Lock()
			n.cube.store.dead = m.Cluster != m.Home
			n.cube.mu.Unlock()
		}
	}
}

// announce brings a record to everybody whom it reaches.
func (c *cube) announce(r merge.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
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

// newWorld makes cubes of three nodes each, the first the eldest. The test has its
// lock until it calls end.
func newWorld(t *testing.T, names ...string) (w *world, end func()) {
	w = &world{t: t}
	ctx, cancel := context.WithCancel(t.Context())
	w.ctx = ctx
	w.mu.Lock()
	log := slog.New(slog.DiscardHandler)
	for i, name := range names {
		rec := merge.Record{ID: "id-" + name, Cube: name, Born: int64(1000 * (i + 1)), Kubernetes: "v1", Version: 1, Term: 1, Phase: merge.Alone}
		c := &cube{world: w, name: name, store: &memory{mu: &w.mu, kept: Kept{Record: rec, Revision: "x"}, objects: map[string]bool{name + "'s": true}}}
		for k := range 3 {
			n := &testNode{cube: c, heard: NewHeard(len(names), time.Now)}
			n.Follower = &Follower{
				Name: name + string(rune('1'+k)), Cube: name, ControlPlane: k == 0, Heard: n.heard, Asker: asker{c},
				Keep: func(m merge.Membership) error {
					w.mu.Lock()
					defer w.mu.Unlock()
					n.member = m
					return nil
				},
				Order: func() (o merge.Order) {
					w.mu.Lock()
					defer w.mu.Unlock()
					o, n.order = n.order, merge.None
					return o
				},
				Adopt: func(context.Context) (merge.Membership, bool) { return merge.Membership{}, false },
				Say: func(text string) {
					w.mu.Lock()
					defer w.mu.Unlock()
					n.said = text
				},
				Now: time.Now, Pause: pause, Log: log,
			}
			c.nodes = append(c.nodes, n)
		}
		c.controller = &Controller{
			Settings: merge.Settings{Mode: merge.Auto}, Cubes: len(names), Store: c.store, Works: c, Asker: asker{c},
			Heard: c.nodes[0].heard, Term: c.nodes[0].Term, Announce: c.announce,
			Say: func(string, bool) {}, Now: time.Now, Pause: pause, Log: log,
		}
		w.cubes = append(w.cubes, c)
	}
	return w, func() {
		cancel()
		w.mu.Unlock()
	}
}

// switchOn starts what a control-plane node does for its cluster.
func (c *cube) switchOn() {
	ctx, off := context.WithCancel(c.ctx)
	controller := c.controller
	go func() { _ = controller.Run(ctx) }()
	go func() { _ = controller.RunReading(ctx) }()
	go func() { _ = controller.RunAnnouncements(ctx) }()
	c.off = off
}

// pullPlug takes a cube's control plane away for a while; it forgets what it
// did not store.
func (c *cube) pullPlug(d time.Duration) {
	c.off()
	dead := c.store.dead
	c.store.dead = true
	c.sleep(d)
	c.store.dead = dead
	c.nodes[0].heard.mu.Lock()
	clear(c.nodes[0].heard.all)
	c.nodes[0].heard.mu.Unlock()
	c.begin(c.controller.Settings)
}

// begin starts a control plane that knows nothing but its settings.
func (c *cube) begin(s merge.Settings) {
	old := c.controller
	c.controller = &Controller{
		Settings: s, Cubes: old.Cubes, Store: old.Store, Works: old.Works, Asker: old.Asker, Heard: old.Heard,
		Term: old.Term, Announce: old.Announce, Say: old.Say, Now: old.Now, Pause: old.Pause, Log: old.Log,
	}
	c.switchOn()
}

func (w *world) start() {
	for _, c := range w.cubes {
		c.switchOn()
		for _, n := range c.nodes {
			go n.run(w.ctx)
		}
	}
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
				w, end := newWorld(t, names...)
				defer end()
				w.cut = true
				w.start()
				w.sleep(time.Hour)
				for _, c := range w.cubes {
					if r := c.store.kept.Record; r.Phase != merge.Alone || r.Version != 1 {
						t.Fatalf("%s alone: %+v", c.name, r)
					}
				}
				w.cut = false
				met := time.Now()
				for w.isOne() != nil && time.Since(met) < time.Hour {
					w.sleep(time.Second)
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
			w, end := newWorld(t, "alpha", "beta")
			defer end()
			w.start()
			w.sleep(after)
			w.cut = true
			at := w.cubes[1].store.kept.Record.Phase
			w.sleep(time.Hour)
			w.cut = false
			w.sleep(10 * time.Minute)
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
					w, end := newWorld(t, "alpha", "beta")
					defer end()
					w.start()
					w.sleep(after)
					at := w.cubes[1].store.kept.Record
					w.cubes[i].pullPlug(d)
					w.sleep(10 * time.Minute)
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
		w, end := newWorld(t, "alpha", "beta")
		defer end()
		w.start()
		w.sleep(10 * time.Minute)
		if err := w.isOne(); err != nil {
			t.Fatal(err)
		}
		beta := w.cube("beta")
		node := beta.nodes[0]
		node.order = merge.Undo
		w.touched = true
		w.sleep(time.Minute)
		if err := w.isOne(); err != nil || !strings.Contains(node.said, "was changed") {
			t.Errorf("undone though somebody changed what was handed over: %v, said %q", err, node.said)
		}
		w.sleep(10 * time.Minute)
		if node.said != "" {
			t.Errorf("still says %q", node.said)
		}
		node.order, w.touched = merge.Undo, false
		w.sleep(10 * time.Minute)
		for _, n := range beta.nodes {
			if n.member.Cluster != "id-beta" {
				t.Errorf("%s is of %s", n.Name, n.member.Cluster)
			}
		}
		if r := beta.store.kept.Record; r.Phase != merge.Alone || !r.Hold || beta.store.frozen {
			t.Errorf("beta: %+v", r)
		}
		beta.store.kept.Order, beta.store.kept.Revision = merge.Merge, beta.store.kept.Revision+"y"
		w.sleep(10 * time.Minute)
		if err := w.isOne(); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}
