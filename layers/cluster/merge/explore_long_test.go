//go:build long

package merge

import (
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
		s := cubes(2, sound(Settings{Mode: Auto}))
		s.faults, s.writes = 2, 1
		f := explore(newWorld(s), 400_000, 300)
		t.Log(f)
		if f.err != nil || !f.complete {
			t.Fail()
		}
	})
}

func TestLongWalks(t *testing.T) {
	for seed := range uint64(2000) {
		if way, err := walk(chance(seed, sound(Settings{Mode: Auto})), seed, 400); err != nil {
			t.Fatalf("seed %d: %v after\n\t%s", seed, err, strings.Join(way, "\n\t"))
		}
	}
}
