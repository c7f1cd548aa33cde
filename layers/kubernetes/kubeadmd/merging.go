package kubeadmd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/nodeconf"
)

// Merging is what a control-plane node does while its cluster becomes part of
// another one, or takes another one in.
type Merging struct {
	Engine *Engine
	// Own is the cluster's API; At is one of each API server of a cube.
	Own API
	At  func(cube string) (API, error)
	// Servers are those of the own cluster, one by one.
	Servers []API

	handed handed
	gave   time.Time // when it was handed over
	// given are the objects that the leader has, by name, as they were sent.
	given map[string]sent
	// withdrawn and forgotten are guests of which no objects and no nodes are
	// left, with their term.
	withdrawn, forgotten map[string]uint64
	thawed               bool                 // nothing is left of a freeze
	freezing             time.Time            // since when this node knows of one
	unseen               map[string]time.Time // workers that neither cluster has, since when
	spreading            spreading
}

// NewMerging returns what the node can do with its cluster.
func (e *Engine) NewMerging() (*Merging, error) {
	own, err := e.APIOf(e.Config.Home)
	if err != nil {
		return nil, err
	}
	m := &Merging{Engine: e, Own: own, At: e.APIOf, withdrawn: map[string]uint64{}, forgotten: map[string]uint64{}, unseen: map[string]time.Time{}}
	for _, c := range e.cube(e.Config.Home) {
		server, err := e.apiAt([]Member{c})
		if err != nil {
			return nil, err
		}
		m.Servers = append(m.Servers, server)
	}
	return m, nil
}

// NewRecord is that of the node's cluster where it has none yet.
func (e *Engine) NewRecord(ctx context.Context) (merge.Record, error) {
	client, err := e.etcdClient()
	if err != nil {
		return merge.Record{}, err
	}
	defer client.CloseIdleConnections()
	born, err := e.era(ctx, client, e.Now().Unix())
	if err != nil {
		return merge.Record{}, fmt.Errorf("etcd: %w", err)
	}
	return merge.Record{Cube: e.Config.Home, Born: born, Kubernetes: e.Config.Version}, nil
}

// handed is what was handed over last.
type handed struct {
	id     string
	term   uint64
	frozen bool // and that was all
}

// sent is an object at the leader.
type sent struct {
	path   string
	of     resource
	digest [sha256.Size]byte // of what was sent
	why    string            // it is not the same there
}

// lostAfter is the time after which nobody waits for a worker, deadAfter that for
// an API server, startAfter that for a workload at the leader.
const (
	lostAfter  = 10 * time.Minute
	deadAfter  = 2 * time.Minute
	startAfter = time.Minute
)

// Leads reports whether the node's etcd leads: of several control-plane nodes
// one acts. Where that of another cube's node does, it is the first of this one.
func (m *Merging) Leads(ctx context.Context) (bool, error) {
	home := m.Engine.cube(m.Engine.Config.Home)
	if len(home) == 1 {
		return true, nil
	}
	client, err := m.Engine.etcdClient()
	if err != nil {
		return false, err
	}
	defer client.CloseIdleConnections()
	status, err := m.Engine.etcdStatus(ctx, client)
	if err != nil {
		return false, fmt.Errorf("etcd: %w", err)
	}
	listed, err := m.Engine.etcdMembers(ctx)
	if err != nil {
		return false, fmt.Errorf("etcd: %w", err)
	}
	i := slices.IndexFunc(listed, func(e etcdMember) bool { return e.ID == status.Leader })
	if i >= 0 && !slices.ContainsFunc(home, func(h Member) bool { return h.Name == listed[i].Name }) {
		return home[0].Name == m.Engine.Node.Hostname, nil
	}
	return status.leads(), nil
}

// See adds to a sight what the cluster's state says.
func (m *Merging) See(ctx context.Context, r merge.Record, v *merge.Sight) error {
	v.Snapshot = m.Engine.snapshotOf(r.ID)
	switch r.Phase {
	case merge.Alone:
		control, err := m.control(ctx, r)
		if v.Control = control; err != nil || m.thawed {
			return err
		}
		frozen, err := m.Own.isFreezing(ctx)
		if err == nil && !frozen {
			frozen, err = m.Own.isCordoned(ctx)
		}
		m.thawed, v.Frozen = err == nil && !frozen, frozen
		return err
	case merge.Asking:
		v.Clash, v.Blind = m.clash(ctx, r.LeaderCube)
	case merge.HandOver:
		v.Handed = m.isHanded(r) && m.runs(ctx, r)
	case merge.Workers:
		return m.seeWorkers(ctx, r, v)
	case merge.Closing:
		frozen, err := m.isFrozen(ctx)
		v.Frozen = frozen
		v.Handed = frozen && m.handed == handed{r.ID, r.Term, true}
		return err
	}
	return nil
}

// isHanded reports whether everything was handed over at least once.
func (m *Merging) isHanded(r merge.Record) bool {
	return m.handed.id == r.ID && m.handed.term == r.Term
}

// runs reports whether the leader runs the workloads that run here, so that nobody
// misses those of the workers when they leave. What cannot start there, for want
// of room or of a node's volume, is not waited for long.
func (m *Merging) runs(ctx context.Context, r merge.Record) bool {
	if m.Engine.Now().Sub(m.gave) > startAfter {
		return true
	}
	leader, err := m.At(r.LeaderCube)
	if err != nil {
		return false
	}
	missing, err := leader.idle(ctx, func(o object) bool { return text(o, "metadata", "annotations", mergedFrom) == r.ID })
	if err != nil || len(missing) == 0 {
		return err == nil
	}
	here, err := m.Own.idle(ctx, isUsers)
	return err == nil && !slices.ContainsFunc(missing, func(name string) bool { return !slices.Contains(here, name) })
}

// clash finds nodes that have the name of one of the leader's, at another address;
// of the same address it is the node itself, from an earlier merge.
func (m *Merging) clash(ctx context.Context, cube string) (names []string, blind bool) {
	leader, err := m.At(cube)
	if err != nil {
		return nil, true
	}
	own, err := m.Own.addresses(ctx)
	if err != nil {
		return nil, true
	}
	theirs, err := leader.addresses(ctx)
	if err != nil {
		return nil, true
	}
	for name, address := range own {
		if other, ok := theirs[name]; ok && other != address {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, false
}

// isFrozen reports whether no API server takes writes. One that does not answer
// is given time to hear of it; it may be gone for good.
func (m *Merging) isFrozen(ctx context.Context) (bool, error) {
	freezing, err := m.Own.isFreezing(ctx)
	if err != nil || !freezing {
		m.freezing = time.Time{}
		return false, err
	}
	now := m.Engine.Now()
	if m.freezing.IsZero() {
		m.freezing = now
	}
	refusing := 0
	for _, s := range m.Servers {
		frozen, err := s.refuses(ctx)
		switch {
		case err != nil && now.Sub(m.freezing) < deadAfter, err == nil && !frozen:
			return false, err
		case err == nil:
			refusing++
		}
	}
	return refusing > 0, nil
}

// seeWorkers finds out where they are. One that arrived is of this cluster no
// longer.
func (m *Merging) seeWorkers(ctx context.Context, r merge.Record, v *merge.Sight) error {
	here, err := m.Own.nodes(ctx)
	if err != nil {
		return err
	}
	leader, err := m.At(r.LeaderCube)
	var there map[string]bool
	if err == nil {
		there, err = leader.nodes(ctx)
	}
	far := err != nil // whoever left can't be seen
	if far {
		clear(m.unseen)
	}
	left := r.Leaving != "" && m.hasLeft(ctx, r.Leaving)
	if _, known := here[r.Leaving]; known && left {
		if err := m.Own.evacuate(ctx, r.Leaving); err != nil {
			return err
		}
		here[r.Leaving] = false
	}
	if _, known := here[r.Leaving]; !known && r.Leaving != "" {
		here[r.Leaving] = false
	}
	for name, ready := range here {
		if m.Engine.isControlPlane(name) {
			continue
		}
		w := merge.Worker{Name: name, Here: ready, There: there[name], Left: left && name == r.Leaving}
		w.Lost = !far && m.isLost(w)
		if w.There {
			if err := m.Own.deleteNode(ctx, name); err != nil {
				return err
			}
		}
		v.Workers = append(v.Workers, w)
	}
	slices.SortFunc(v.Workers, func(a, b merge.Worker) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// hasLeft reports whether a node says that it is of another cluster.
func (m *Merging) hasLeft(ctx context.Context, name string) bool {
	peers := m.Engine.Node.Peers
	i := slices.IndexFunc(peers, func(p nodeconf.Peer) bool { return p.Name == name })
	if i < 0 {
		return false
	}
	p, err := m.Engine.ask(ctx, member(peers[i]))
	return err == nil && p.Of != nil && p.Of.Cube != m.Engine.Config.Home
}

func (m *Merging) isLost(w merge.Worker) bool {
	if w.Here || w.There {
		delete(m.unseen, w.Name)
		return false
	}
	now := m.Engine.Now()
	since, ok := m.unseen[w.Name]
	if !ok {
		m.unseen[w.Name], since = now, now
	}
	return now.Sub(since) > lostAfter
}

// Do does an action.
func (m *Merging) Do(ctx context.Context, r merge.Record, a merge.Action) error {
	switch a.Do {
	case merge.DoSnapshot:
		if m.Engine.snapshotOf(r.ID) == r.Term {
			return nil
		}
		return m.Engine.keepSnapshot(ctx, r)
	case merge.DoHandOver:
		return m.handOver(ctx, r)
	case merge.DoCordon:
		m.thawed = false
		return m.Own.cordon(ctx)
	case merge.DoFreeze:
		m.thawed = false
		return m.Own.freeze(ctx)
	case merge.DoThaw:
		// The freeze says that there may be such: it goes last.
		if err := m.Own.resumeJobs(ctx); err != nil {
			return err
		}
		if err := m.Own.uncordon(ctx); err != nil {
			return err
		}
		return m.Own.thaw(ctx)
	case merge.DoSpread:
		return m.spread(ctx, r)
	case merge.DoForget:
		return m.forget(ctx, r, a.To)
	case merge.DoWithdraw:
		return m.withdraw(ctx, r, a.To, a.Request.From.Cube)
	}
	return fmt.Errorf("cannot do %q", a.Do)
}

// withdraw deletes what a guest had handed over and its nodes, when they are
// gone, once for each of its terms.
func (m *Merging) withdraw(ctx context.Context, r merge.Record, guest, cube string) error {
	i := slices.IndexFunc(r.Guests, func(g merge.Guest) bool { return g.ID == guest })
	if i < 0 {
		return nil
	}
	term := r.Guests[i].Term
	if m.withdrawn[guest] != term {
		gone, err := m.Own.withdrawable(ctx, guest)
		if err != nil {
			return fmt.Errorf("withdrawing what was handed over: %w", err)
		}
		if released, err := m.isReleased(ctx, r.Guests[i]); err != nil || !released {
			return err
		}
		if err := m.Own.delete(ctx, gone); err != nil {
			return fmt.Errorf("withdrawing what was handed over: %w", err)
		}
		m.withdrawn[guest] = term
	}
	if m.forgotten[guest] == term {
		return nil
	}
	nodes, err := m.Own.nodes(ctx)
	if err != nil {
		return err
	}
	if released, err := m.isReleased(ctx, r.Guests[i]); err != nil || !released {
		return err
	}
	for _, p := range m.Engine.Node.Peers {
		ready, known := nodes[p.Name]
		switch {
		case !known || m.Engine.homeOf(p.Cube) != cube:
		case ready:
			return nil // it has not left yet
		default:
			if err := m.Own.deleteNode(ctx, p.Name); err != nil {
				return err
			}
		}
	}
	m.forgotten[guest] = term
	return nil
}

// isReleased reads anew whether a guest still is what an action was decided for: it
// may have been let in again since, and hand over.
func (m *Merging) isReleased(ctx context.Context, g merge.Guest) (bool, error) {
	gone := func(context.Context) (merge.Record, error) { return merge.Record{}, errors.New("it is gone") }
	kept, err := RecordStore{API: m.Own, New: gone}.Load(ctx)
	return err == nil && slices.Contains(kept.Record.Guests, g), err
}

func (m *Merging) handOver(ctx context.Context, r merge.Record) error {
	frozen := r.Phase == merge.Closing
	if frozen {
		var err error
		if frozen, err = m.isFrozen(ctx); err != nil || !frozen {
			return err
		}
	} else if m.isHanded(r) {
		return nil // what is written from now on goes when it closes
	}
	leader, err := m.At(r.LeaderCube)
	if err != nil {
		return err
	}
	if !m.isHanded(r) {
		m.given = nil
	}
	as := forNow
	if frozen {
		if err := m.Own.suspendJobs(ctx); err != nil {
			return fmt.Errorf("handing over: %w", err)
		}
		as = forLeader
	}
	h, err := handOver(ctx, m.Own, leader, r.ID, m.given, as)
	if err == nil && frozen {
		err = leader.prune(ctx, r.ID, m.given, h.present)
	}
	// The last look before this cluster ends: what the leader took, somebody may
	// have deleted there since.
	if err == nil && frozen {
		var lacks []string
		if lacks, err = leader.lacks(ctx, r.ID, h); len(lacks) > 0 {
			m.given = nil // all of it is given again
			err = fmt.Errorf("the leader does not have %s any more", strings.Join(lacks, ", "))
		}
	}
	if err == nil {
		err = m.report(ctx, leader, r, h)
	}
	if err != nil {
		return fmt.Errorf("handing over: %w", err)
	}
	m.handed, m.given, m.gave = handed{r.ID, r.Term, frozen}, h.given, m.Engine.Now()
	return nil
}

// report leaves at the leader, who stays, what it did not take, and how much it
// did.
func (m *Merging) report(ctx context.Context, leader API, r merge.Record, h Handed) error {
	name := conflicts + r.Cube
	old, err := leader.read(ctx, configMaps+"/"+name)
	if err != nil {
		return err
	}
	list := strings.Join(h.Conflicts, "\n")
	given := strconv.Itoa(h.lasting())
	told := text(old, "data", "objects") == list
	if told && text(old, "data", "origin") == r.ID && text(old, "data", "given") == given {
		return nil
	}
	o := object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": name, "namespace": "kube-system"},
		"data": object{"objects": list, "origin": r.ID, "given": given},
	}
	method, path := http.MethodPost, configMaps
	if old != nil {
		method, path = http.MethodPut, configMaps+"/"+name
	}
	code, answer, err := leader.asMerge().send(ctx, method, path, o)
	if err == nil && code/100 != 2 {
		err = fmt.Errorf("conflicts: %d %s", code, message(answer))
	}
	if err != nil || list == "" || told {
		return err
	}
	words := fmt.Sprintf("%d objects of the cluster of %s were left out, here are others: %s", len(h.Conflicts), r.Cube, strings.Join(h.Conflicts, "; "))
	now := m.Engine.Now()
	return errors.Join(
		leader.tell(ctx, m.Engine.cube(r.LeaderCube)[0].Name, reasonConflict, words, now),
		m.Own.tell(ctx, m.Engine.Node.Hostname, reasonConflict, words, now),
	)
}

// Tell leaves an event.
func (m *Merging) Tell(ctx context.Context, words string) error {
	return m.Own.tell(ctx, m.Engine.Node.Hostname, reasonMerge, words, m.Engine.Now())
}

// Untouched reports whether nobody changed or deleted what a cluster handed over.
func (m *Merging) Untouched(ctx context.Context, guest string) (bool, error) {
	return m.Own.isIntact(ctx, guest)
}
