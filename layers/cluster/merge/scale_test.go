package merge

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// What things cost on the wire, in bytes with all headers: an announcement
// besides its record (certificate, signature, UDP, IP, Ethernet), and a
// question with its answer over a new TLS connection.
const (
	packetOverhead = 700
	questionBytes  = 4000
)

// How long things take on small boards, in seconds.
const (
	snapshotTime = 10
	handOverTime = 30
	restartTime  = 90
	decideEvery  = 5
)

// fleet is many cubes on one wire, second by second. Their first nodes are
// their control planes.
type fleet struct {
	settings Settings
	rand     *rand.Rand
	loss     float64
	now      int
	cubes    []*fleetCube
	nodes    []*fleetNode
	byID     map[string]*fleetCube

	packets, questions int
	// window is each node's bytes of the present minute, busiest the most that
	// one had in any; of them the announcements alone.
	window, announced      []int
	busiest, mostAnnounced int
}

type fleetCube struct {
	rec       Record
	gone      bool
	heard     []Record
	at        map[string]int // when each was heard last
	reply     Reply
	askAgain  int
	announced int // when
	toldOf    uint64
	snap      uint64
	snapDone  int
	handed    int // done when; 0: not begun
	handedFor Phase
	frozen    bool
}

type fleetNode struct {
	m       Membership
	cube    int
	control bool
	name    string
	readyAt int
}

func newFleet(cubes, nodes int, loss float64, seed uint64) *fleet {
	f := &fleet{settings: Settings{Mode: Auto}, rand: rand.New(rand.NewPCG(seed, 2)), loss: loss, byID: map[string]*fleetCube{}}
	for i := range cubes {
		id := fmt.Sprintf("%016x", f.rand.Uint64())
		c := &fleetCube{at: map[string]int{}, rec: Record{
			ID: id, Cube: fmt.Sprintf("cube%02d", i), Born: 1_790_000_000 + f.rand.Int64N(1000), Kubernetes: "v1.34.4", Phase: Alone,
		}}
		c.announced = -f.rand.IntN(int(Interval(cubes) / time.Second))
		f.cubes = append(f.cubes, c)
		f.byID[id] = c
		for k := range nodes {
			f.nodes = append(f.nodes, &fleetNode{
				m: Membership{Home: id, Cluster: id, Cube: c.rec.Cube}, cube: i, control: k == 0, name: fmt.Sprintf("rpi%d", len(f.nodes)+1),
			})
		}
	}
	f.window, f.announced = make([]int, len(f.nodes)), make([]int, len(f.nodes))
	return f
}

func (f *fleet) interval() int { return int(Interval(len(f.cubes)) / time.Second) }

func (f *fleet) perCube() int { return len(f.nodes) / len(f.cubes) }

// run returns the seconds until there is one cluster; zero: none came.
func (f *fleet) run(limit int) int {
	for f.now = 1; f.now < limit; f.now++ {
		for i, c := range f.cubes {
			if !c.gone {
				f.tell(i, c)
				if f.now%decideEvery == i%decideEvery {
					f.decide(i, c)
				}
			}
		}
		if f.now%60 == 0 {
			f.busiest, f.mostAnnounced = max(f.busiest, slices.Max(f.window)), max(f.mostAnnounced, slices.Max(f.announced))
			clear(f.window)
			clear(f.announced)
		}
		if f.one() {
			return f.now
		}
	}
	return 0
}

func (f *fleet) one() bool {
	for _, n := range f.nodes {
		if n.m.Cluster != f.nodes[0].m.Cluster && n.m.Cluster != "" || n.readyAt > f.now {
			return false
		}
	}
	for _, n := range f.nodes[1:] {
		if n.m.Cluster != f.nodes[0].m.Cluster {
			return false
		}
	}
	return true
}

// tell announces what is due; all nodes on the wire get it, but for the lost.
func (f *fleet) tell(i int, c *fleetCube) {
	if !c.rec.Due(c.toldOf, time.Duration(f.now-c.announced)*time.Second, len(f.cubes)) {
		return
	}
	c.announced, c.toldOf = f.now, c.rec.Version
	told := c.rec.Announcement()
	text, err := json.Marshal(told)
	if err != nil {
		panic(err)
	}
	f.packets++
	for n, nd := range f.nodes {
		f.window[n] += len(text) + packetOverhead
		f.announced[n] += len(text) + packetOverhead
		if nd.readyAt > f.now || f.rand.Float64() < f.loss {
			continue
		}
		if nd.m.Cluster == told.ID || nd.m.Home == told.ID {
			f.nodeStep(n, NodeSight{Heard: []Record{told}})
		}
		if to := f.cubes[nd.cube]; nd.control && !to.gone && nd.cube != i {
			to.heard = Hear(to.heard, told)
			to.at[told.ID] = f.now
		}
	}
}

func (f *fleet) nodeStep(n int, v NodeSight) {
	nd := f.nodes[n]
	v.Name, v.Cube, v.ControlPlane = nd.name, f.cubes[nd.cube].rec.Cube, nd.control
	before := nd.m
	nd.m = nd.m.Step(v)
	if nd.m.Cluster != before.Cluster {
		nd.readyAt = f.now + restartTime
		if nd.control && before.Cluster == before.Home {
			f.cubes[nd.cube].gone = true
		}
	}
}

func (f *fleet) decide(i int, c *fleetCube) {
	silence := int(Silence(len(f.cubes)) / time.Second)
	c.heard = slices.DeleteFunc(c.heard, func(h Record) bool { return f.now-c.at[h.ID] > silence })
	v := Sight{Heard: c.heard, Replies: []Reply{c.reply}, Snapshot: c.snap, Frozen: c.frozen, Term: c.rec.Term}
	v.Handed = c.handed != 0 && c.handed <= f.now && c.handedFor == c.rec.Phase
	for _, n := range f.nodes {
		if n.m.Home == c.rec.ID && n.control || n.m.Cluster != c.rec.ID && n.m.Home != c.rec.ID {
			continue
		}
		ready := n.readyAt <= f.now
		v.Workers = append(v.Workers, Worker{Name: n.name, Here: ready && n.m.Cluster == c.rec.ID, There: ready && n.m.Cluster == c.rec.Leader})
	}
	next, actions := f.settings.Step(c.rec, v)
	c.rec = next
	for _, a := range actions {
		switch a.Do {
		case DoAsk:
			f.ask(i, c, a)
		case DoSnapshot:
			if c.snapDone == 0 {
				c.snapDone = f.now + snapshotTime
			}
			if f.now >= c.snapDone {
				c.snap, c.snapDone = c.rec.Term, 0
			}
		case DoFreeze, DoThaw:
			c.frozen = a.Do == DoFreeze
		case DoHandOver:
			if c.handed == 0 || c.handedFor != c.rec.Phase {
				c.handed, c.handedFor = f.now+handOverTime, c.rec.Phase
			}
		case DoWithdraw:
		}
	}
}

func (f *fleet) ask(i int, c *fleetCube, a Action) {
	to := f.byID[a.To]
	if f.now < c.askAgain || to.gone {
		return
	}
	j := slices.Index(f.cubes, to)
	f.questions++
	f.window[i*f.perCube()] += questionBytes
	f.window[j*f.perCube()] += questionBytes
	to.rec, c.reply = f.settings.Answer(to.rec, a.Request, false)
	if c.reply.Verdict == Later {
		c.askAgain = f.now + f.interval()
	}
}

// TestScale shows how a merge grows with its size.
func TestScale(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-14s %5s %10s %8s %9s %18s %18s\n", "cubes x nodes", "loss", "time", "packets", "questions", "announced B/s/node", "busiest node B/s")
	for _, size := range []struct {
		cubes, nodes int
		loss         float64
	}{{2, 2, 0}, {4, 4, 0}, {8, 4, 0}, {8, 4, 0.2}, {16, 4, 0}, {64, 5, 0}} {
		f := newFleet(size.cubes, size.nodes, size.loss, 1)
		took := f.run(24 * 3600)
		if took == 0 {
			t.Fatalf("%d cubes of %d are not one cluster after a day", size.cubes, size.nodes)
		}
		fmt.Fprintf(&table, "%-14s %4.0f%% %10s %8d %9d %18d %18d\n", fmt.Sprintf("%d x %d", size.cubes, size.nodes), 100*size.loss,
			time.Duration(took)*time.Second, f.packets, f.questions, f.mostAnnounced/60, f.busiest/60)
		if f.mostAnnounced/60 > 1000 {
			t.Errorf("%d cubes of %d: announcements are %d B/s for a node", size.cubes, size.nodes, f.mostAnnounced/60)
		}
	}
	t.Log(table.String())
}
