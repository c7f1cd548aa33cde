package merge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// cubesOf are one control-plane node of each cube named by a letter, the first of
// which is the cluster's own: all are there, and none has a seat yet.
func cubesOf(letters string) []Control {
	var out []Control
	for i, l := range strings.Split(letters, "") {
		out = append(out, Control{
			Name: l + "1", Cube: l, Home: i == 0, Known: true, Ready: true, Settled: true, Listed: i == 0, Votes: i == 0, Up: i == 0,
		})
	}
	return out
}

// change returns nodes of which some are changed.
func change(nodes []Control, do func(*Control), names ...string) []Control {
	nodes = slices.Clone(nodes)
	for i := range nodes {
		if slices.Contains(names, nodes[i].Name) {
			do(&nodes[i])
		}
	}
	return nodes
}

func TestSpread(t *testing.T) {
	joined := func(c *Control) { c.Listed, c.Votes, c.Up = true, true, true }
	learns := func(c *Control) { c.Listed = true }
	down := func(c *Control) { c.Ready, c.Up = false, false }
	away := func(c *Control) { c.Ready, c.Up, c.Lost = false, false, true }
	fresh := func(c *Control) { c.Settled = false }
	unknown := func(c *Control) { c.Known, c.Ready = false, false }
	failed := func(c *Control) { c.Lost = true }
	seats := func(names ...string) (out []Seat) {
		for _, n := range names {
			out = append(out, Seat{n, n[:1]})
		}
		return out
	}
	left := []Guest{{ID: "2", Cube: "b", State: Absorbed, Left: true}}
	again := append(slices.Clone(left), Guest{ID: "9", Cube: "b", State: Absorbed})
	three := change(cubesOf("abc"), joined, "b1", "c1")
	for name, test := range map[string]struct {
		seats   []Seat
		resigns string
		guests  []Guest
		nodes   []Control
		follows bool
		want    string
	}{
		"two cubes":                        {nodes: cubesOf("ab"), want: ""},
		"three cubes":                      {nodes: cubesOf("abc"), want: "b1"},
		"three, one not ready":             {nodes: change(cubesOf("abc"), down, "c1"), want: ""},
		"three, one may be undone":         {nodes: change(cubesOf("abc"), fresh, "c1"), want: ""},
		"four, one may be undone":          {nodes: change(cubesOf("abcd"), fresh, "b1"), want: "c1"},
		"its own node is down":             {nodes: change(cubesOf("abc"), down, "a1"), want: ""},
		"while the second joins":           {seats: seats("b1"), nodes: cubesOf("abc"), want: "b1"},
		"while it has no vote":             {seats: seats("b1"), nodes: change(cubesOf("abc"), learns, "b1"), want: "b1"},
		"it is lost before it has one":     {seats: seats("b1"), nodes: change(cubesOf("abc"), away, "b1"), want: "b1 -b1"},
		"the second is in":                 {seats: seats("b1"), nodes: change(cubesOf("abc"), joined, "b1"), want: "b1 c1"},
		"undo is no matter any more":       {seats: seats("b1"), nodes: change(change(cubesOf("abc"), joined, "b1"), fresh, "c1"), want: "b1 c1"},
		"the second is in and down":        {seats: seats("b1"), nodes: change(change(cubesOf("abc"), joined, "b1"), down, "b1"), want: "b1"},
		"the third is not ready now":       {seats: seats("b1"), nodes: change(change(cubesOf("abc"), joined, "b1"), down, "c1"), want: "b1"},
		"the third is lost":                {seats: seats("b1"), nodes: change(change(cubesOf("abc"), joined, "b1"), away, "c1"), want: "b1 -b1"},
		"the third did not manage":         {seats: seats("b1", "c1"), nodes: change(change(cubesOf("abc"), joined, "b1"), failed, "c1"), want: "b1 c1 -c1"},
		"another one can":                  {seats: seats("b1"), nodes: change(change(cubesOf("abcd"), joined, "b1"), failed, "c1"), want: "b1 d1"},
		"three are in":                     {seats: seats("b1", "c1"), nodes: three, want: "b1 c1"},
		"one of three is unplugged":        {seats: seats("b1", "c1"), nodes: change(three, away, "b1"), want: "b1 c1"},
		"three of four cubes":              {seats: seats("b1", "c1"), nodes: append(change(cubesOf("abc"), joined, "b1", "c1"), cubesOf("xd")[1]), want: "b1 c1"},
		"three of five cubes":              {seats: seats("b1", "c1"), nodes: change(cubesOf("abcde"), joined, "b1", "c1"), want: "b1 c1 d1"},
		"five cubes, one has to settle":    {seats: seats("b1", "c1"), nodes: change(change(cubesOf("abcde"), joined, "b1", "c1"), fresh, "e1"), want: "b1 c1"},
		"a cube left":                      {seats: seats("b1", "c1"), guests: left, nodes: three, want: "b1 c1 -b1"},
		"a cube left and came back":        {seats: seats("b1", "c1"), guests: again, nodes: three, want: "b1 c1"},
		"a dead one's node was deleted":    {seats: seats("b1", "c1"), nodes: change(change(three, away, "b1"), unknown, "b1"), want: "b1 c1 -b1"},
		"it has not resigned yet":          {seats: seats("b1", "c1"), resigns: "b1", guests: left, nodes: three, want: "b1 c1 -b1"},
		"it has resigned":                  {seats: seats("b1", "c1"), resigns: "b1", guests: left, nodes: change(cubesOf("abc"), joined, "c1"), want: "c1"},
		"two are left of three":            {seats: seats("c1"), guests: left, nodes: change(cubesOf("abc"), joined, "c1"), want: "c1 -c1"},
		"a fourth takes its place":         {seats: seats("c1"), guests: left, nodes: change(cubesOf("abcd"), joined, "c1"), want: "c1 d1"},
		"it follows another cluster":       {seats: seats("b1", "c1"), nodes: three, follows: true, want: "b1 c1 -c1"},
		"it follows while one joins":       {seats: seats("b1"), nodes: cubesOf("abc"), follows: true, want: "b1 -b1"},
		"it follows and need not spread":   {nodes: cubesOf("abc"), follows: true, want: ""},
		"a control plane of three at home": {nodes: append(cubesOf("abc"), homes("a2", "a3")...), want: ""},
		"and five cubes":                   {nodes: append(cubesOf("abcde"), homes("a2", "a3")...), want: "b1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Record{Spread: test.seats, Resigning: test.resigns, Guests: test.guests}.spread(test.nodes, test.follows)
			var got []string
			for _, s := range r.Spread {
				got = append(got, s.Name)
			}
			if r.Resigning != "" {
				got = append(got, "-"+r.Resigning)
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("%q, want %q", text, test.want)
			}
		})
	}
}

func homes(names ...string) (out []Control) {
	for _, n := range names {
		out = append(out, Control{Name: n, Cube: n[:1], Home: true, Known: true, Ready: true, Settled: true, Listed: true, Votes: true, Up: true})
	}
	return out
}

// plane is a control plane of nodes whose plugs are pulled at any moment.
type plane struct {
	random *rand.Rand
	r      Record
	nodes  []Control
	gone   map[string]bool // cubes that left for good
	down   map[string]bool
	steps  int
}

// step is what happens between two looks of whoever decides: a node that has a
// seat gets a little further, or one that lost it is taken off the list. It
// returns what etcd would not let happen or what must not.
func (p *plane) step(spread func(Record, []Control, bool) Record, follows bool) error {
	p.steps++
	for i := range p.nodes {
		c := &p.nodes[i]
		c.Ready = !p.down[c.Name] && c.Known
		c.Up = c.Votes && !p.down[c.Name]
		c.Lost = p.down[c.Name] && p.random.IntN(4) == 0
	}
	if !p.quorum() {
		return nil // nobody decides anything
	}
	before := p.r
	p.r = spread(p.r, slices.Clone(p.nodes), follows)
	if n := len(p.r.Spread) - len(before.Spread); n > 1 || n < -1 {
		return fmt.Errorf("from %v to %v at once", before.Spread, p.r.Spread)
	}
	pending := 0
	for i := range p.nodes {
		c := &p.nodes[i]
		if p.r.seated(c.Name) && !c.Votes {
			pending++
		}
		if p.r.seated(c.Name) && p.gone[c.Cube] && !before.seated(c.Name) {
			return fmt.Errorf("%s, who left, gets a seat", c.Name)
		}
		switch {
		case c.Name == p.r.Resigning && c.Listed:
			if c.Home {
				return fmt.Errorf("%s of the cluster's own cube has to go", c.Name)
			}
			if p.random.IntN(2) == 0 {
				p.remove(c)
			}
		case p.r.seated(c.Name) && !p.down[c.Name] && !c.Listed:
			c.Listed = true
		case p.r.seated(c.Name) && !p.down[c.Name] && !c.Votes && p.random.IntN(2) == 0:
			c.Votes = true // etcd promotes whoever has caught up
			if !p.quorum() {
				return fmt.Errorf("%s got a vote, and there is no majority any more", c.Name)
			}
		}
	}
	if pending > 1 {
		return fmt.Errorf("%d join at once: %v", pending, p.r.Spread)
	}
	return nil
}

// remove takes a node off the list, unless etcd refuses: a majority of those that
// stay has to be up.
func (p *plane) remove(c *Control) {
	was := *c
	c.Listed, c.Votes, c.Up = false, false, false
	if was.Votes && !p.quorum() {
		*c = was
	}
}

func (p *plane) quorum() bool {
	votes, up := 0, 0
	for _, c := range p.nodes {
		if c.Votes {
			votes++
			if !p.down[c.Name] {
				up++
			}
		}
	}
	return 2*up > votes
}

// members are the cubes of those with a vote.
func (p *plane) members() (out []string) {
	for _, c := range p.nodes {
		if c.Votes {
			out = append(out, c.Cube)
		}
	}
	return out
}

// storm spreads a cluster while plugs are pulled and cubes leave, then lets it
// come to rest, and says what was wrong.
func storm(seed uint64, spread func(Record, []Control, bool) Record) error {
	random := rand.New(rand.NewPCG(seed, 7))
	p := &plane{random: random, nodes: cubesOf("abcdefg"[:1+random.IntN(7)]), gone: map[string]bool{}, down: map[string]bool{}}
	for i, c := range p.nodes[1:] {
		p.r.Guests = append(p.r.Guests, Guest{ID: fmt.Sprint(i), Cube: c.Cube, State: Absorbed})
	}
	for range 60 {
		switch i := random.IntN(len(p.nodes)); random.IntN(8) {
		case 0:
			p.down[p.nodes[i].Name] = true
		case 1, 2, 3:
			delete(p.down, p.nodes[i].Name)
		case 4:
			if i > 0 && random.IntN(8) == 0 && !p.gone[p.nodes[i].Cube] {
				p.gone[p.nodes[i].Cube], p.r.Guests[i-1].Left = true, true
			}
		}
		if err := p.step(spread, false); err != nil {
			return err
		}
	}
	clear(p.down)
	for range 200 {
		if err := p.step(spread, false); err != nil {
			return err
		}
	}
	stay := len(p.nodes) - len(p.gone)
	want := map[bool]int{true: 3, false: 1}[stay >= 3]
	if stay >= 5 {
		want = 5
	}
	got := p.members()
	zones := slices.Compact(slices.Sorted(slices.Values(got)))
	if len(got) != want || len(zones) != want || p.r.Resigning != "" || len(p.r.Spread) != want-1 {
		return fmt.Errorf("%d cubes, %d left: in the end %v, told %v, resigning %q", len(p.nodes), len(p.gone), got, p.r.Spread, p.r.Resigning)
	}
	for _, cube := range got {
		if p.gone[cube] {
			return fmt.Errorf("%s left and is a member", cube)
		}
	}
	for i := 0; len(p.members()) > 1; i++ {
		if err := p.step(spread, true); err != nil || i > 200 {
			return fmt.Errorf("it follows another one, and %v: %w", p.members(), err)
		}
	}
	return nil
}

// However plugs are pulled, there is one member or three or five in the end, each
// in a cube of its own, and on the way never more than one joins.
func TestSpreadConverges(t *testing.T) {
	const seeds = 4000
	for seed := range uint64(seeds) {
		if err := storm(seed, Record.spread); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	bugs := map[string]func(Record, []Control, bool) Record{
		"the next one is told before the last one is in": func(r Record, nodes []Control, follows bool) Record {
			for i := range nodes {
				if r.seated(nodes[i].Name) {
					nodes[i].Votes, nodes[i].Up = true, true
				}
			}
			return r.spread(nodes, follows)
		},
		"who left keeps its seat": func(r Record, nodes []Control, follows bool) Record {
			guests := slices.Clone(r.Guests)
			for i := range guests {
				guests[i].Left = false
			}
			all := r.Guests
			r.Guests = guests
			r = r.spread(nodes, follows)
			r.Guests = all
			return r
		},
		"who is unplugged loses its seat": func(r Record, nodes []Control, follows bool) Record {
			for i := range nodes {
				nodes[i].Known = nodes[i].Ready
			}
			if next := r.spread(nodes, follows); next.Resigning != "" && r.Resigning == "" {
				next.Spread = slices.Clone(next.Spread[:len(next.Spread)-1])
				return next
			}
			return r.spread(nodes, follows)
		},
	}
	for name, bug := range bugs {
		found := false
		for seed := range uint64(500) {
			found = found || storm(seed, bug) != nil
		}
		if !found {
			t.Errorf("nobody notices when %s", name)
		}
	}
}

// A cube left for good if it lives on its own again, said so, or a person does;
// not if it is silent, and not any more once it came back.
func TestLeft(t *testing.T) {
	guest := Guest{ID: "2", Cube: "beta", Term: 3, State: Absorbed}
	leader := Record{ID: "1", Cube: "alpha", Phase: Alone, Guests: []Guest{guest, {ID: "3", Cube: "gamma", Term: 1, State: Absorbed}}}
	s := Settings{Mode: Auto}
	answered, reply := s.Answer(leader, Request{Kind: Leave, From: Record{ID: "2", Cube: "beta", Term: 3}}, false)
	if reply.Verdict != Yes {
		t.Errorf("%+v", reply)
	}
	other, _ := s.Answer(leader, Request{Kind: Leave, From: Record{ID: "9", Cube: "beta", Term: 3}}, false)
	step := func(r Record, v Sight) Record {
		r, _ = s.Step(r, v)
		return r
	}
	seated := leader
	seated.Spread = []Seat{{"beta1", "beta"}}
	for name, test := range map[string]struct {
		r       Record
		left    string
		forgets bool
	}{
		"silent":               {step(leader, Sight{}), "", false},
		"it said so":           {answered, "beta", true},
		"another one said so":  {other, "", false},
		"it lives":             {step(leader, Sight{Heard: []Record{{ID: "2", Cube: "beta", Term: 4, Phase: Alone, Born: 1}}}), "beta", true},
		"an old announcement":  {step(leader, Sight{Heard: []Record{{ID: "2", Cube: "beta", Term: 3, Phase: Dissolved, Born: 1}}}), "", false},
		"a person says so":     {step(leader, Sight{Order: Forget + "gamma"}), "gamma", true},
		"of one without merge": {step(leader, Sight{Order: Forget + "delta"}), "", false},
		"with a seat":          {step(seated, Sight{Order: Forget + "beta"}), "beta", false},
		"it came back":         {answered.with(Guest{ID: "2", Cube: "beta", Term: 5, State: Absorbed}), "", false},
	} {
		for _, cube := range []string{"beta", "gamma", "delta"} {
			if test.r.hasLeft(cube) != (cube == test.left) {
				t.Errorf("%s: %s left: %v", name, cube, test.r.hasLeft(cube))
			}
		}
		_, actions := s.Step(test.r, Sight{})
		if slices.ContainsFunc(actions, func(a Action) bool { return a.Do == DoForget }) != test.forgets {
			t.Errorf("%s: %+v", name, actions)
		}
	}
	for _, test := range []struct {
		r    Record
		want Verdict
	}{{leader, Yes}, {seated, No}} {
		if _, reply := s.Answer(test.r, Request{Kind: Release, From: Record{ID: "2", Cube: "beta", Term: 3}}, true); reply.Verdict != test.want {
			t.Errorf("undone, with seats %v: %+v", test.r.Spread, reply)
		}
	}
}
