//go:build long

package merge

import (
	"slices"
	"strings"
	"testing"
)

// TestExploreThree goes further than the ordinary tests: three cubes that meet
// at once, with plugs pulled and cables cut.
func TestExploreThree(t *testing.T) {
	for name, shape := range map[string]func(*shape){
		"in every order": func(*shape) {},
		"one fault":      func(s *shape) { s.faults = 1 },
		"undone":         func(s *shape) { s.orders = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := cubes(3, sound(Settings{Mode: Auto}))
			shape(s)
			f := explore(newWorld(s), 60_000, 300)
			t.Log(f)
			if f.err != nil {
				t.Fail()
			}
		})
	}
	t.Run("two, two faults", func(t *testing.T) {
		f := twoFaults(sound(Settings{Mode: Auto}))
		t.Log(f)
		if f.err != nil || !f.complete {
			t.Fail()
		}
	})
}

func twoFaults(m machine) finding {
	s := cubes(2, m)
	s.faults, s.writes = 2, 1
	return explore(newWorld(s), 400_000, 300)
}

// TestForgottenTerm puts a bug in that shows only where a guest is forgotten
// twice: a copy of what it asked first must not be news.
func TestForgottenTerm(t *testing.T) {
	m := sound(Settings{Mode: Auto})
	step := m.step
	m.step = func(r Record, v Sight) (Record, []Action) {
		r, actions := step(r, v)
		r.Guests = slices.DeleteFunc(slices.Clone(r.Guests), func(g Guest) bool { return g.State == Forgotten })
		return r, actions
	}
	f := twoFaults(m)
	t.Log(f)
	if f.err == nil {
		t.Error("not found")
	}
}

func TestLongWalks(t *testing.T) {
	for seed := range uint64(2000) {
		if way, err := walk(chance(seed, sound(Settings{Mode: Auto})), seed, 400); err != nil {
			t.Fatalf("seed %d: %v after\n\t%s", seed, err, strings.Join(way, "\n\t"))
		}
	}
}
