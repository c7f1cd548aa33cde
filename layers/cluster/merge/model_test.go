package merge

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// machine are the functions under test, so that a test can put a bug in.
type machine struct {
	step   func(Record, Sight) (Record, []Action)
	answer func(Record, Request, bool) (Record, Reply)
	member func(Membership, NodeSight) Membership
	// deletes says whether a leader goes on to delete what it found of a guest.
	deletes func(Record, Guest) bool
}

func sound(s Settings) machine {
	return machine{step: s.Step, answer: s.Answer, member: Membership.Step, deletes: func(r Record, g Guest) bool { return slices.Contains(r.Guests, g) }}
}

// shape is what a world is made of.
type shape struct {
	machines       []machine // one for each cube
	controlPlanes  int       // of each cube, in which all have as many
	workers        int
	born           []int64
	faults         int // plugs pulled, cables cut and living clusters thought dead, in all
	writes, orders int
	stale          bool // decisions may rest on what was heard earlier
	maxTerm        uint64
	cut            bool // a step may be cut off between its record and its actions
	splits         bool
}

func (s *shape) perCube() int { return s.controlPlanes + s.workers }

// world is everything that is true at one moment. Objects are bits.
type world struct {
	*shape
	clusters               []cluster
	nodes                  []node
	off                    uint8        // cubes whose cable is cut
	requests               [][2]Request // under way, newest last; by asking*cubes + asked
	faults, writes, orders int8
	objects                uint8 // number made so far
}

// cluster is a store, and what its control plane has in memory.
type cluster struct {
	rec     Record
	frozen  bool
	snap    uint64
	objs    uint16
	given   []uint16 // by the cluster that handed them over
	found   []found  // what is to be deleted of each guest
	heard   []Record
	replies []Reply // by who gave them
	last    Record  // the announcement before the present one
}

// found is what a leader found to delete, of a guest as it was then.
type found struct {
	guest Guest
	objs  uint16
}

type node struct {
	m    Membership
	down bool
}

func newWorld(s *shape) *world {
	w := &world{shape: s, faults: int8(s.faults), writes: int8(s.writes), orders: int8(s.orders)}
	n := len(s.machines)
	w.requests = make([][2]Request, n*n)
	for i := range n {
		id := clusterID(i)
		rec := Record{ID: id, Cube: "cube" + id, Born: s.born[i], Kubernetes: "v1", Phase: Alone}
		w.clusters = append(w.clusters, cluster{rec: rec, last: rec, objs: 1 << i, given: make([]uint16, n), found: make([]found, n)})
		for range s.perCube() {
			w.nodes = append(w.nodes, node{m: Membership{Home: id, Cluster: id, Cube: rec.Cube}})
		}
	}
	w.objects = uint8(n)
	return w
}

func clusterID(i int) string { return string(rune('A' + i)) }
func index(id string) int    { return int(id[0] - 'A') }

func (w *world) clone() *world {
	c := *w
	c.clusters = slices.Clone(w.clusters)
	for i := range c.clusters {
		c.clusters[i].given = slices.Clone(c.clusters[i].given)
		c.clusters[i].found = slices.Clone(c.clusters[i].found)
	}
	c.nodes = slices.Clone(w.nodes)
	c.requests = slices.Clone(w.requests)
	return &c
}

func (w *world) cube(n int) int       { return n / w.perCube() }
func (w *world) isControl(n int) bool { return n%w.perCube() < w.controlPlanes }

// linked reports whether two cubes hear each other.
func (w *world) linked(a, b int) bool { return a == b || w.off&(1<<a|1<<b) == 0 }

// live reports whether a cluster's store still exists, available whether it
// also answers now: both need a majority of the control plane.
func (w *world) live(i int) bool      { return w.majority(i, false) }
func (w *world) available(i int) bool { return w.majority(i, true) }

func (w *world) majority(i int, up bool) bool {
	n := 0
	for k := range w.controlPlanes {
		if nd := w.nodes[i*w.perCube()+k]; nd.m.Cluster == clusterID(i) && !(up && nd.down) {
			n++
		}
	}
	return 2*n > w.controlPlanes
}

func (w *world) reach(a, b int) bool { return w.available(a) && w.available(b) && w.linked(a, b) }

// hear brings what a cluster heard to the present.
func (w *world) hear(i int) {
	for j := range w.clusters {
		if j != i && w.reach(i, j) {
			w.clusters[i].heard = replace(w.clusters[i].heard, w.clusters[j].rec.Announcement())
		}
	}
}

func replace(heard []Record, r Record) []Record {
	heard = slices.DeleteFunc(slices.Clone(heard), func(h Record) bool { return h.ID == r.ID })
	return Hear(heard, r)
}

func (w *world) sight(i int, order Order) Sight {
	c := &w.clusters[i]
	v := Sight{Heard: c.heard, Replies: c.replies, Snapshot: c.snap, Frozen: c.frozen, Order: order}
	leader := -1
	if c.rec.Leader != "" {
		leader = index(c.rec.Leader)
		v.Handed = w.reach(i, leader) && c.objs&^w.clusters[leader].objs == 0
	}
	for n := range w.nodes {
		nd := &w.nodes[n]
		if w.cube(n) == i && w.isControl(n) {
			if !nd.down && nd.m.Cluster == c.rec.ID {
				v.Term = max(v.Term, nd.m.Term)
			}
			continue
		}
		v.Workers = append(v.Workers, Worker{
			Name:  strconv.Itoa(n),
			Here:  !nd.down && nd.m.Cluster == c.rec.ID && w.linked(i, w.cube(n)),
			There: leader >= 0 && !nd.down && nd.m.Cluster == c.rec.Leader && w.reach(i, leader) && w.linked(leader, w.cube(n)),
			Lost:  nd.down,
		})
	}
	return v
}

func (w *world) store(i int, r Record) {
	c := &w.clusters[i]
	if r.Version != c.rec.Version {
		c.last = c.rec.Announcement()
	}
	c.rec = r
}

// tick lets a cluster decide and act.
func (w *world) tick(i int, order Order, act bool) {
	next, actions := w.machines[i].step(w.clusters[i].rec, w.sight(i, order))
	w.store(i, next)
	c := &w.clusters[i]
	if !act {
		return
	}
	for _, a := range actions {
		switch a.Do {
		case DoAsk:
			w.send(i, index(a.To), a.Request)
		case DoSnapshot:
			c.snap = c.rec.Term
		case DoFreeze:
			c.frozen = true
		case DoThaw:
			c.frozen = false
		case DoWithdraw:
			// To delete is an event of its own: it takes a while to find what.
			guest := index(a.To)
			if c.given[guest] != 0 {
				c.found[guest] = found{c.rec.guest(a.To), c.given[guest]}
			}
		case DoHandOver: // an event of its own: object by object
		}
	}
}

func (w *world) send(from, to int, q Request) {
	q.From = Record{
		ID: q.From.ID, Cube: q.From.Cube, Born: q.From.Born, Kubernetes: q.From.Kubernetes, Term: q.From.Term, Guests: q.From.Guests,
	}
	slot := &w.requests[from*len(w.clusters)+to]
	if sameRequest(slot[1], q) || sameRequest(slot[0], q) {
		return
	}
	slot[0], slot[1] = slot[1], q
}

func sameRequest(a, b Request) bool { return a.Kind == b.Kind && a.Of == b.Of && equal(a.From, b.From) }

// deliver lets a question that may be old arrive; it stays under way, since it
// might arrive once more.
func (w *world) deliver(from, to, k int, answered bool) {
	q := w.requests[from*len(w.clusters)+to][k]
	next, reply := w.machines[to].answer(w.clusters[to].rec, q, true)
	w.store(to, next)
	if answered {
		c := &w.clusters[from]
		c.replies = slices.DeleteFunc(slices.Clone(c.replies), func(a Reply) bool { return a.From == reply.From })
		c.replies = append(c.replies, reply)
		slices.SortFunc(c.replies, func(a, b Reply) int { return strings.Compare(a.From, b.From) })
	}
}

// missing are the objects that a cluster can hand over now.
func (w *world) missing(i int) uint16 {
	c := &w.clusters[i]
	if c.rec.Phase != HandOver && c.rec.Phase != Closing {
		return 0
	}
	leader := index(c.rec.Leader)
	if !w.reach(i, leader) || w.clusters[leader].frozen {
		return 0
	}
	return c.objs &^ w.clusters[leader].objs
}

// handOver applies one object.
func (w *world) handOver(i int) {
	o := w.missing(i)
	o &= -o
	to := &w.clusters[index(w.clusters[i].rec.Leader)]
	to.objs |= o
	to.given[i] |= o
}

// withdraw deletes what a cluster found of a guest.
func (w *world) withdraw(i, guest int) {
	c := &w.clusters[i]
	f := c.found[guest]
	c.found[guest] = found{}
	if w.machines[i].deletes(c.rec, f.guest) {
		c.objs &^= f.objs
		c.given[guest] &^= f.objs
	}
}

// nodeStep lets a node decide; old lets it hear its cluster's announcement
// before the present one.
func (w *world) nodeStep(n int, old bool) {
	nd := &w.nodes[n]
	cube := w.cube(n)
	v := NodeSight{Name: strconv.Itoa(n), Cube: "cube" + clusterID(cube), ControlPlane: w.isControl(n)}
	for j := range w.clusters {
		if !w.available(j) || !w.linked(cube, j) {
			continue
		}
		rec := w.clusters[j].rec.Announcement()
		if old && rec.ID == nd.m.Cluster {
			rec = w.clusters[j].last
		}
		v.Heard = Hear(v.Heard, rec)
	}
	for j := range w.clusters {
		if !w.available(j) || !w.linked(cube, j) {
			continue
		}
		for _, of := range []string{nd.m.Cluster, nd.m.Home} {
			if _, heard := find(v.Heard, of); !heard {
				_, reply := w.machines[j].answer(w.clusters[j].rec, Request{Kind: Where, From: Record{ID: nd.m.Home}, Of: of}, false)
				reply.From, reply.FromCube, reply.Kind = clusterID(j), "cube"+clusterID(j), Where
				v.Where = append(v.Where, reply)
			}
		}
	}
	nd.m = w.machines[cube].member(nd.m, v)
}

// event is one thing that can happen: what, to whom, from or to whom, which.
type event struct {
	what what
	a, b int
	k    int
}

type what int

const (
	decides what = iota
	decidesOnOldNews
	decidesAndIsCutOff
	isToldToUndo
	isToldToSplit
	isWritten
	handsOver
	deletes
	getsQuestion
	getsQuestionAnswerLost
	hearsNoLonger
	thinksDead
	cableMended
	cableCut
	nodeBack
	nodeDecides
	nodeDecidesOnOldNews
	nodeDies
	nodeAsksRelease
	nodeIsToldToSplit
)

func (e event) String() string {
	texts := [...]string{
		decides: "cluster $a decides", decidesOnOldNews: "cluster $a decides on old news",
		decidesAndIsCutOff: "cluster $a decides and is cut off", isToldToUndo: "cluster $a is told to undo",
		isToldToSplit: "cluster $a is told to split", isWritten: "an object is written in $a",
		handsOver: "cluster $a hands an object over", deletes: "cluster $a deletes what it found of $b", getsQuestion: "$b gets a question of $a ($k)",
		getsQuestionAnswerLost: "$b gets a question of $a ($k), the answer is lost",
		hearsNoLonger:          "$a hears $b no longer", thinksDead: "$a thinks $b dead",
		cableMended: "the cable of $a is mended", cableCut: "the cable of $a is cut",
		nodeBack: "node $n comes back", nodeDecides: "node $n decides", nodeDecidesOnOldNews: "node $n decides on old news",
		nodeDies: "node $n dies", nodeAsksRelease: "node $n asks to be released", nodeIsToldToSplit: "node $n is told to split",
	}
	return strings.NewReplacer("$a", clusterID(e.a), "$b", clusterID(e.b), "$n", strconv.Itoa(e.a), "$k", strconv.Itoa(e.k)).Replace(texts[e.what])
}

func (w *world) do(e event) {
	i, j := e.a, e.b
	switch e.what {
	case decides, decidesAndIsCutOff:
		w.hear(i)
		w.tick(i, None, e.what == decides)
	case decidesOnOldNews:
		w.tick(i, None, true)
	case isToldToUndo, isToldToSplit:
		w.orders--
		w.hear(i)
		w.tick(i, map[what]Order{isToldToUndo: Undo, isToldToSplit: Split}[e.what], true)
	case isWritten:
		w.writes--
		w.clusters[i].objs |= 1 << w.objects
		w.objects++
	case handsOver:
		w.handOver(i)
	case deletes:
		w.withdraw(i, j)
	case getsQuestion:
		w.deliver(i, j, e.k, true)
	case getsQuestionAnswerLost:
		w.faults--
		w.deliver(i, j, e.k, false)
	case hearsNoLonger:
		w.forget(i, j)
	case thinksDead:
		w.faults--
		w.forget(i, j)
		w.tick(i, None, true)
	case cableMended:
		w.off &^= 1 << i
	case cableCut:
		w.faults--
		w.off |= 1 << i
	case nodeBack:
		w.nodes[i].down = false
	case nodeDecides, nodeDecidesOnOldNews:
		w.nodeStep(i, e.what == nodeDecidesOnOldNews)
	case nodeDies:
		w.faults--
		w.crash(i)
	case nodeAsksRelease:
		w.orders--
		m := w.nodes[i].m
		w.send(w.cube(i), index(m.Cluster), Request{Kind: Release, From: Record{ID: m.Home, Term: m.Term}})
	case nodeIsToldToSplit:
		w.orders--
		w.nodes[i].m = w.nodes[i].m.Return("cube" + clusterID(w.cube(i)))
	}
}

// events are all that can happen next.
func (w *world) events() []event {
	var out []event
	add := func(is bool, what what, a, b, k int) {
		if is {
			out = append(out, event{what, a, b, k})
		}
	}
	faults, orders := w.faults > 0, w.orders > 0
	for i := range w.clusters {
		c := &w.clusters[i]
		if w.available(i) && c.rec.Term <= w.maxTerm {
			add(true, decides, i, 0, 0)
			add(w.stale, decidesOnOldNews, i, 0, 0)
			add(w.cut, decidesAndIsCutOff, i, 0, 0)
			away := c.rec.Leader != "" && !w.reach(i, index(c.rec.Leader))
			add(orders && c.rec.Phase != Alone, isToldToUndo, i, 0, 0)
			add(orders && w.splits && away, isToldToSplit, i, 0, 0)
			add(w.writes > 0 && !c.frozen, isWritten, i, 0, 0)
			add(w.missing(i) != 0, handsOver, i, 0, 0)
		}
		for j := range w.clusters {
			add(w.available(i) && c.found[j].objs != 0, deletes, i, j, 0)
			for k, q := range w.requests[i*len(w.clusters)+j] {
				arrives := q.Kind != "" && w.available(j)
				add(arrives, getsQuestion, i, j, k)
				add(arrives && faults, getsQuestionAnswerLost, i, j, k)
			}
			_, heard := find(c.heard, clusterID(j))
			add(heard && !w.reach(i, j), hearsNoLonger, i, j, 0)
			add(heard && w.reach(i, j) && faults, thinksDead, i, j, 0)
		}
		off := w.off&(1<<i) != 0
		add(off, cableMended, i, 0, 0)
		add(!off && faults, cableCut, i, 0, 0)
	}
	for i, nd := range w.nodes {
		add(nd.down, nodeBack, i, 0, 0)
		if nd.down {
			continue
		}
		add(true, nodeDecides, i, 0, 0)
		add(w.stale, nodeDecidesOnOldNews, i, 0, 0)
		add(faults, nodeDies, i, 0, 0)
		if orders && w.isControl(i) && nd.m.Cluster != nd.m.Home {
			to := index(nd.m.Cluster)
			near := w.available(to) && w.linked(w.cube(i), to)
			add(near, nodeAsksRelease, i, 0, 0)
			add(!near && w.splits, nodeIsToldToSplit, i, 0, 0)
		}
	}
	return out
}

func (w *world) forget(i, j int) {
	c := &w.clusters[i]
	c.heard = slices.DeleteFunc(slices.Clone(c.heard), func(h Record) bool { return h.ID == clusterID(j) })
}

func (w *world) crash(n int) {
	w.faults--
	w.nodes[n].down = true
	if i := w.cube(n); !w.available(i) {
		w.clusters[i].heard, w.clusters[i].replies = nil, nil
		clear(w.clusters[i].found)
	}
}

// check returns what is wrong with a world, and with the way to it.
func (w *world) check(before *world) error {
	var all uint16
	for i := range w.clusters {
		if w.live(i) {
			all |= w.clusters[i].objs
		}
	}
	if lost := uint16(1<<w.objects-1) &^ all; lost != 0 {
		return fmt.Errorf("objects %b are lost", lost)
	}
	for i := range w.clusters {
		if err := w.checkCluster(i, before); err != nil {
			return fmt.Errorf("cluster %s: %w", clusterID(i), err)
		}
	}
	return nil
}

func (w *world) checkCluster(i int, before *world) error {
	c := &w.clusters[i]
	id := c.rec.ID
	known := w.live(i)
	for j := range w.clusters {
		g := w.clusters[j].rec.guest(id)
		if !w.live(j) {
			continue
		}
		known = known || g.State == Absorbed || g.State == Released
		if w.live(i) && g.State == Absorbed && !c.frozen && c.rec.Term <= g.Term {
			return fmt.Errorf("takes writes though it is part of %s", clusterID(j))
		}
	}
	if !known {
		return fmt.Errorf("is gone and nobody knows of it")
	}
	// Two that lead each other, or three in a circle.
	for at, hops := i, 0; w.live(at) && follows(w.clusters[at].rec); hops++ {
		if hops > len(w.clusters) {
			return fmt.Errorf("follows itself")
		}
		at = index(w.clusters[at].rec.Leader)
	}
	if before == nil {
		return nil
	}
	b := before.clusters[i].rec
	if follows(b) && follows(c.rec) && b.Term == c.rec.Term && b.Leader != c.rec.Leader && before.live(index(b.Leader)) {
		return fmt.Errorf("goes from %s to %s in the middle", b.Leader, c.rec.Leader)
	}
	return nil
}

func follows(r Record) bool { return r.Phase != Alone && r.Phase != Asking }

// heal ends all faults and lets everything happen in turn until nothing is
// left to do. It returns the worlds on the way.
func (w *world) heal() (*world, []*world) {
	w = w.clone()
	w.off, w.faults, w.orders, w.writes = 0, 0, 0, 0
	for i := range w.nodes {
		w.nodes[i].down = false
	}
	var path []*world
	for range 120 {
		was := w.key()
		if w.round(nil) || w.key() == was {
			break
		}
		path = append(path, w.clone())
	}
	return w, path
}

// round lets all that live do what they would in a quiet minute, until it is
// enough or something is wrong.
func (w *world) round(enough func() bool) bool {
	over := func() bool { return enough != nil && enough() || w.check(nil) != nil }
	for i := range w.clusters {
		if !w.available(i) {
			continue
		}
		for range 2 {
			w.clusters[i].heard = nil
			w.hear(i)
			order := None
			if w.clusters[i].rec.Hold {
				order = Merge
			}
			w.tick(i, order, true)
			if over() {
				return true
			}
			for w.missing(i) != 0 {
				w.handOver(i)
			}
			for j := range w.clusters {
				if w.clusters[i].found[j].objs != 0 {
					w.withdraw(i, j)
				}
			}
			for j := range w.clusters {
				for k := range 2 {
					if w.requests[i*len(w.clusters)+j][k].Kind != "" && w.reach(i, j) {
						w.deliver(i, j, k, true)
						if w.faults == 0 {
							w.requests[i*len(w.clusters)+j][k] = Request{}
						}
						if over() {
							return true
						}
					}
				}
			}
		}
	}
	for n := range w.nodes {
		w.nodeStep(n, false)
	}
	return over()
}

// one reports what keeps a world from being one cluster.
func (w *world) one() error {
	leader := -1
	for i := range w.clusters {
		if !w.live(i) {
			continue
		}
		if leader >= 0 {
			return fmt.Errorf("%s and %s both live", clusterID(leader), clusterID(i))
		}
		leader = i
	}
	if leader < 0 {
		return fmt.Errorf("no cluster lives")
	}
	if c := w.clusters[leader]; c.rec.Phase != Alone || c.frozen {
		return fmt.Errorf("%s is %s, frozen: %v", c.rec.ID, c.rec.Phase, c.frozen)
	}
	for n, nd := range w.nodes {
		if nd.m.Cluster != clusterID(leader) {
			return fmt.Errorf("node %d is of %s, not of %s", n, nd.m.Cluster, clusterID(leader))
		}
	}
	if have := w.clusters[leader].objs; have != 1<<w.objects-1 {
		return fmt.Errorf("%d objects, only %b are there", w.objects, have)
	}
	return nil
}

type key [16]byte

// key tells worlds apart. Versions are left out: they only order
// announcements, which here are always those of the moment or the one before.
func (w *world) key() key {
	b := make([]byte, 0, 1024)
	num := func(n ...uint64) {
		for _, v := range n {
			b = append(b, byte(v), byte(v>>8))
		}
	}
	str := func(s ...string) {
		for _, v := range s {
			b = append(append(b, v...), 0)
		}
	}
	record := func(r Record) {
		str(r.ID, string(r.Phase), r.Leader, r.Leaving)
		num(r.Term, r.Recall)
		b = append(b, flag(r.Hold), flag(r.Told), byte(len(r.Guests)))
		for _, g := range r.Guests {
			str(g.ID, string(g.State))
			num(g.Term)
		}
	}
	for i := range w.clusters {
		c := &w.clusters[i]
		record(c.rec)
		if w.stale {
			record(c.last)
		}
		b = append(b, flag(c.frozen), byte(len(c.heard)))
		num(c.snap, uint64(c.objs))
		for _, g := range c.given {
			num(uint64(g))
		}
		for _, f := range c.found {
			str(string(f.guest.State))
			num(f.guest.Term, uint64(f.objs))
		}
		for _, h := range c.heard {
			record(h)
		}
		b = append(b, byte(len(c.replies)))
		for _, a := range c.replies {
			str(a.From, string(a.Kind), string(a.Verdict), a.Of, string(a.Leader.State), string(a.Own.State))
			num(a.Term, a.Leader.Term, a.Own.Term)
		}
	}
	for _, nd := range w.nodes {
		str(nd.m.Cluster)
		num(nd.m.Term)
		b = append(b, flag(nd.down))
	}
	for _, slot := range w.requests {
		for _, q := range slot {
			str(string(q.Kind), q.Of)
			record(q.From)
		}
	}
	b = append(b, w.off, byte(w.faults), byte(w.writes), byte(w.orders), w.objects)
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}
