package merge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// sceneLimit bounds the worlds around one scene.
const sceneLimit = 5_000

// finding is what an exploration came across.
type finding struct {
	worlds, healed int
	complete       bool  // there are no others within the bounds
	err            error // the first thing that is wrong
	way            []string
}

func (f finding) String() string {
	if f.err == nil {
		return fmt.Sprintf("%d worlds (all: %v), %d of them healed", f.worlds, f.complete, f.healed)
	}
	return fmt.Sprintf("%d worlds: %v after\n\t%s", f.worlds, f.err, strings.Join(f.way, "\n\t"))
}

type origin struct {
	from  key
	event event
}

// explore visits worlds in the order of their distance from the beginning, at
// most limit of them, and heals one of every so many.
func explore(first *world, limit, healEvery int) finding {
	seen := map[key]origin{first.key(): {}}
	good := map[key]bool{} // these become one cluster
	queue := []*world{first}
	var f finding
	visited := 0
	wrong := func(w key, err error, last ...string) finding {
		f.err, f.worlds = err, len(seen)
		for w != first.key() {
			f.way = append(f.way, seen[w].event.String())
			w = seen[w].from
		}
		slices.Reverse(f.way)
		f.way = append(f.way, last...)
		return f
	}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		at := w.key()
		if visited++; healEvery > 0 && visited%healEvery == 0 && !good[at] {
			f.healed++
			if err := heals(w, good); err != nil {
				return wrong(at, err, "then all is mended")
			}
		}
		for _, e := range w.events() {
			next := w.clone()
			next.do(e)
			k := next.key()
			if _, ok := seen[k]; ok {
				continue
			}
			if err := next.check(w); err != nil {
				return wrong(at, err, e.String())
			}
			if len(seen) < limit {
				seen[k] = origin{at, e}
				queue = append(queue, next)
			} else {
				f.worlds = len(seen)
				return f
			}
		}
	}
	f.worlds, f.complete = len(seen), true
	return f
}

// heals reports whether a world becomes one cluster once nothing breaks any
// more. Worlds on the way of another one that did need no second look.
func heals(w *world, good map[key]bool) error {
	end, path := w.heal()
	if err := end.check(nil); err != nil {
		return err
	}
	if err := end.one(); err != nil {
		return err
	}
	for _, p := range path {
		good[p.key()] = true
	}
	return nil
}

// walk does what chance chooses, for a long time.
func walk(s *shape, seed uint64, steps int) (way []string, err error) {
	r := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(s)
	for range steps {
		events := w.events()
		e := events[r.IntN(len(events))]
		next := w.clone()
		next.do(e)
		way = append(way, e.String())
		if err := next.check(w); err != nil {
			return way, err
		}
		w = next
	}
	return append(way, "then all is mended"), heals(w, map[key]bool{})
}

func cubes(n int, m machine) *shape {
	s := &shape{controlPlanes: 1, workers: 1, maxTerm: 3}
	for i := range n {
		s.machines = append(s.machines, m)
		s.born = append(s.born, int64(i))
	}
	return s
}

// TestExplore visits all there is within small bounds.
func TestExplore(t *testing.T) {
	for name, shape := range map[string]func(*shape){
		"two": func(*shape) {},
		"two, the younger one is named": func(s *shape) {
			s.writes, s.machines = 1, slices.Repeat([]machine{sound(Settings{Mode: Auto, Lead: "cubeB"})}, 2)
		},
		"two, one fault":                      func(s *shape) { s.faults = 1 },
		"two, one fault, and they meet again": func(s *shape) { s.faults, s.maxTerm = 1, 5 },
		"two, undone":                         func(s *shape) { s.orders = 1 },
		"two, with old news":                  func(s *shape) { s.stale, s.cut, s.writes = true, true, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := cubes(2, sound(Settings{Mode: Auto}))
			shape(s)
			f := explore(newWorld(s), 40_000, 10)
			t.Log(f)
			if f.err != nil || !f.complete {
				t.Fail()
			}
		})
	}
}

// TestDisagree is of two blueprints that name different leaders: nobody follows
// anybody, and nothing worse.
func TestDisagree(t *testing.T) {
	s := cubes(2, machine{})
	s.machines = []machine{sound(Settings{Mode: Auto, Lead: "cubeB"}), sound(Settings{Mode: Auto, Lead: "cubeA"})}
	s.maxTerm = 1
	f := explore(newWorld(s), 10_000, 0)
	t.Log(f)
	if f.err != nil || !f.complete {
		t.Fail()
	}
}

// scenes are moments of three cubes that chance seldom comes to. A is the
// eldest; what it does not take part in happened while its cable was cut.
func scenes(m machine) map[string]*world {
	without := func(enough func(*world) bool) *world {
		s := cubes(3, m)
		s.faults = 2
		w := newWorld(s)
		w.off = 1
		for range 100 {
			if w.round(func() bool { return enough(w) }) {
				break
			}
		}
		w.off = 0
		return w
	}
	asks := func(w *world) bool { return w.clusters[2].rec.Phase == Asking }
	out := map[string]*world{
		"C is let in by B and does not know": without(func(w *world) bool { return len(w.clusters[1].rec.Guests) > 0 }),
		"C hands over to B":                  without(func(w *world) bool { return w.clusters[2].rec.Phase == HandOver }),
		"C asks B to take its place": without(func(w *world) bool {
			return w.clusters[2].rec.Phase == Closing && w.requests[2*3+1][1].Kind == Commit
		}),
		"C became part of B": without(func(w *world) bool { return w.clusters[2].rec.Phase == Dissolved }),
	}
	out["C is let in by B and does not know"].clusters[2].replies = nil
	// The question of C is old when B already follows A.
	late := without(asks)
	late.off = 1 << 2
	for range 100 {
		if late.round(func() bool { return late.clusters[1].rec.Phase == Workers }) {
			break
		}
	}
	late.off = 0
	out["C asks B while it follows A"] = late
	return out
}

// TestScenes visits the worlds around such moments.
func TestScenes(t *testing.T) {
	for name, w := range scenes(sound(Settings{Mode: Auto})) {
		t.Run(name, func(t *testing.T) {
			f := explore(w, sceneLimit, 100)
			t.Log(f)
			if f.err != nil {
				t.Fail()
			}
		})
	}
}

// TestWalks goes far from the beginning, by chance: all that can happen, to
// two or three cubes.
func TestWalks(t *testing.T) {
	for seed := range uint64(100) {
		if way, err := walk(chance(seed, sound(Settings{Mode: Auto})), seed, 300); err != nil {
			t.Fatalf("seed %d: %v after\n\t%s", seed, err, strings.Join(way, "\n\t"))
		}
	}
}

func chance(seed uint64, m machine) *shape {
	s := cubes(2+int(seed%2), m)
	s.faults, s.writes, s.orders, s.splits, s.stale, s.cut = int(seed%9), 3, int(seed%3), seed%4 == 0, true, true
	s.maxTerm = 20
	if seed%5 == 0 {
		s.controlPlanes = 3
	}
	return s
}

// TestBugs puts a bug in and expects that it is found.
func TestBugs(t *testing.T) {
	settings := Settings{Mode: Auto}
	tests := map[string]func(*machine){
		"does not wait for the objects": func(m *machine) {
			m.step = func(r Record, v Sight) (Record, []Action) { v.Handed = true; return settings.Step(r, v) }
		},
		"takes writes to the end": func(m *machine) {
			m.step = func(r Record, v Sight) (Record, []Action) {
				v.Frozen = true
				r, actions := settings.Step(r, v)
				return r, actions
			}
		},
		"does not hand on what became part of it": func(m *machine) {
			m.answer = func(r Record, q Request, untouched bool) (Record, Reply) {
				q.From.Guests = nil
				return settings.Answer(r, q, untouched)
			}
		},
		"withdraws at once what it lets go": func(m *machine) {
			m.step = func(r Record, v Sight) (Record, []Action) {
				r, actions := settings.Step(r, v)
				for _, g := range r.Guests {
					if g.State == Released {
						actions = append(actions, Action{Do: DoWithdraw, To: g.ID})
					}
				}
				return r, actions
			}
		},
		"deletes what it found without another look": func(m *machine) {
			m.deletes = func(Record, Guest) bool { return true }
		},
		"waits for guests for ever": func(m *machine) {
			m.step = func(r Record, v Sight) (Record, []Action) {
				for _, g := range r.Guests {
					v.Heard = replace(v.Heard, Record{ID: g.ID, Term: g.Term})
				}
				return settings.Step(r, v)
			}
		},
		"lets in whom it follows": func(m *machine) {
			m.step = func(r Record, v Sight) (Record, []Action) {
				s := settings
				s.Lead = map[string]string{"cubeA": "cubeB"}[r.Cube]
				v.Heard = slices.Clone(v.Heard)
				for i := range v.Heard {
					v.Heard[i].Phase = Alone
				}
				return s.Step(r, v)
			}
			m.answer = func(r Record, q Request, untouched bool) (Record, Reply) {
				was := r.Phase
				r.Phase, q.From.Born = Alone, r.Born+1
				r, a := settings.Answer(r, q, untouched)
				r.Phase = was
				return r, a
			}
		},
		"leaves with its control plane before it is dissolved": func(m *machine) {
			m.member = func(ms Membership, v NodeSight) Membership {
				v.ControlPlane = false
				for i := range v.Heard {
					v.Heard[i].Leaving = v.Name
				}
				return ms.Step(v)
			}
		},
	}
	for name, bug := range tests {
		t.Run(name, func(t *testing.T) {
			m := sound(settings)
			bug(&m)
			two := cubes(2, m)
			two.orders, two.splits = 1, true
			if f := explore(newWorld(two), 2_000, 5); f.err != nil {
				t.Logf("found with two cubes, in world %d: %v", f.worlds, f.err)
				return
			}
			for name, w := range scenes(m) {
				if f := explore(w, sceneLimit, 50); f.err != nil {
					t.Logf("found where %s, in world %d: %v", name, f.worlds, f.err)
					return
				}
			}
			// A guest that is forgotten, refused, and let in again.
			again := cubes(2, m)
			again.faults, again.maxTerm = 1, 5
			if f := explore(newWorld(again), 60_000, 0); f.err != nil {
				t.Logf("found with two cubes and a fault, in world %d: %v", f.worlds, f.err)
				return
			}
			t.Error("not found")
		})
	}
}
