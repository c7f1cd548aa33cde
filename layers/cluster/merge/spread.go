package merge

import (
	"cmp"
	"slices"
	"strings"
)

// A cluster whose nodes are of several cubes spreads its control plane over them,
// so that it outlives any of them. It has one member in each of three cubes or of
// five; two or four would be worse than one or three, since every member more
// that has to answer is one more that may not. With two cubes it therefore stays
// with its first one.
//
// It grows by one member at a time, and only as long as all others answer:
// whoever joins makes the majority larger before he is of any use. It begins
// when all that are needed are there, so that an even number lasts no longer than
// the next step. It shrinks when a cube left for good, never because one is
// silent, and before the cluster follows another one, whose snapshot must be of
// its own cube alone.

// Seat is a place in a cluster's control plane that a node of another cube has.
type Seat struct {
	Name string `json:"name"`
	Cube string `json:"cube"`
}

// Control is a node whose card lets it be of a control plane.
type Control struct {
	Name, Cube string
	Home       bool // of the cluster's own cube: these stay, whatever happens
	Known      bool // the cluster has it among its nodes
	Ready      bool // it takes work of the cluster
	Listed     bool // etcd has it, with a vote or without
	Votes      bool // etcd has it with a vote
	Up         bool // it votes, and its API server answers
	Settled    bool // that its cube merged can't be undone any more
	Lost       bool // it is away, or did not manage to join, for so long that nobody waits
}

// spread decides over the seats. Where the cluster wants to follow another one,
// nobody else keeps one.
func (r Record) spread(nodes []Control, follows bool) Record {
	at := func(name string) Control {
		i := slices.IndexFunc(nodes, func(c Control) bool { return c.Name == name })
		if i < 0 {
			return Control{Name: name}
		}
		return nodes[i]
	}
	if r.Resigning != "" {
		if !at(r.Resigning).Listed {
			r.Spread = slices.DeleteFunc(slices.Clone(r.Spread), func(s Seat) bool { return s.Name == r.Resigning })
			r.Resigning = ""
		}
		return r
	}
	for _, s := range r.Spread {
		if c := at(s.Name); r.hasLeft(s.Cube) || !c.Known {
			r.Resigning = s.Name
			return r
		}
	}
	last := ""
	if n := len(r.Spread); n > 0 {
		last = r.Spread[n-1].Name
		if c := at(last); !c.Votes {
			if c.Lost || follows {
				r.Resigning = last
			}
			return r
		}
	}
	count := len(r.Spread)
	for _, c := range nodes {
		if c.Home {
			count++
		}
		if (c.Home || r.seated(c.Name)) && !c.Up {
			return r
		}
	}
	ready, hope := r.candidates(nodes, count%2 == 0)
	want := r.wanted(nodes)
	switch {
	case follows && last != "", want < count && last != "":
		r.Resigning = last
	case follows || want <= count:
	case count%2 == 0 && len(ready) > 0, len(ready) > 1:
		r.Spread = append(slices.Clone(r.Spread), ready[0])
	case count%2 == 0 && !hope && last != "":
		r.Resigning = last
	}
	return r
}

// candidates are the nodes that may get a seat now, one of each cube that has
// none; hope says that there may be one later. Who has begun does not wait for
// the end of what can be undone.
func (r Record) candidates(nodes []Control, begun bool) (ready []Seat, hope bool) {
	taken := map[string]bool{}
	for _, c := range nodes {
		if c.Home || r.seated(c.Name) {
			taken[c.Cube] = true
		}
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Control) int {
		return cmp.Or(strings.Compare(a.Cube, b.Cube), strings.Compare(a.Name, b.Name))
	})
	for _, c := range nodes {
		if taken[c.Cube] || !c.Known || c.Lost || r.hasLeft(c.Cube) {
			continue
		}
		hope = true
		if c.Ready && (c.Settled || begun) {
			ready = append(ready, Seat{c.Name, c.Cube})
			taken[c.Cube] = true
		}
	}
	return ready, hope
}

// wanted is how many members the control plane is to have in the cubes that are
// of the cluster, whether they are there now or not.
func (r Record) wanted(nodes []Control) int {
	cubes, home := map[string]bool{}, 0
	for _, c := range nodes {
		if c.Home {
			home++
		}
		if c.Home || c.Known && !r.hasLeft(c.Cube) {
			cubes[c.Cube] = true
		}
	}
	switch {
	case len(cubes) >= 5:
		return max(home, 5)
	case len(cubes) >= 3:
		return max(home, 3)
	}
	return home
}

func (r Record) seated(name string) bool {
	return slices.ContainsFunc(r.Spread, func(s Seat) bool { return s.Name == name })
}

// seats reports whether a cube has one.
func (r Record) seats(cube string) bool {
	return slices.ContainsFunc(r.Spread, func(s Seat) bool { return s.Cube == cube })
}

// hasLeft reports whether a cube left for good, and did not come back since.
func (r Record) hasLeft(cube string) bool {
	left := false
	for _, g := range r.Guests {
		if g.Cube == cube && !g.Left && (g.State == Admitted || g.State == Absorbed) {
			return false
		}
		left = left || g.Cube == cube && g.Left
	}
	return left
}

// withLeft notes which guests are gone for good: those that live on their own
// again, and those of whom a person says so. One that is merely silent is not.
func (r Record) withLeft(heard []Record, o Order) Record {
	cube, told := strings.CutPrefix(string(o), string(Forget))
	for _, g := range r.Guests {
		h, ok := find(heard, g.ID)
		if g.State == Absorbed && !g.Left && (ok && h.Term > g.Term || told && g.Cube == cube) {
			g.Left = true
			r = r.with(g)
		}
	}
	return r
}

// spreading tells a person that the control plane changes; empty: it does not.
func (r Record) spreading(nodes []Control) string {
	if r.Resigning != "" {
		return r.Resigning + " leaves the control plane"
	}
	if n := len(r.Spread); n > 0 {
		last := r.Spread[n-1].Name
		if slices.ContainsFunc(nodes, func(c Control) bool { return c.Name == last && !c.Votes }) {
			return last + " joins the control plane"
		}
	}
	return ""
}
