package kubeadmd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// Times of spreading.
const (
	// settles is how long a merge may be undone before its cube gets a seat in the
	// control plane; as soon as something that was handed over is changed, it can't
	// be undone in any case. touchedEvery is how often that is looked at: it reads
	// all objects.
	settles      = time.Hour
	touchedEvery = 5 * time.Minute
	// joins is how long a node may take to become a member, failedFor how long one
	// that did not is not asked again.
	joins     = time.Hour
	failedFor = 24 * time.Hour
	// handsOff is the time in which all others stop to call a member that leaves.
	handsOff = time.Minute
	// upTimeout is for one question whether an API server is ready.
	upTimeout = 20 * time.Second
)

// roleLabels are those that kubeadm gives a control-plane node.
func roleLabels() []string {
	return []string{"node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"}
}

// spreading is what a node remembers while its cluster's control plane changes.
type spreading struct {
	absorbed map[merge.Guest]time.Time // since when this node knows
	asked    map[merge.Guest]time.Time // when it was looked whether that can be undone
	touched  map[merge.Guest]bool      // it can't
	failed   map[string]time.Time      // nodes that did not manage to join, since when
	joining  string
	since    time.Time // that it joins
	leaving  string
	told     time.Time // that it leaves
	left     map[string]uint64
}

func (s *spreading) init() {
	if s.absorbed == nil {
		*s = spreading{
			absorbed: map[merge.Guest]time.Time{}, asked: map[merge.Guest]time.Time{}, touched: map[merge.Guest]bool{},
			failed: map[string]time.Time{}, left: map[string]uint64{},
		}
	}
}

// control sees who may be and who is of the control plane. As long as there are
// too few cubes there is nothing to see.
func (m *Merging) control(ctx context.Context, r merge.Record) ([]merge.Control, error) {
	guests := map[string]merge.Guest{} // by cube
	for _, g := range r.Guests {
		if g.State == merge.Absorbed && !g.Left {
			guests[g.Cube] = g
		}
	}
	if len(r.Spread) == 0 && len(guests) < spreadCubes-1 {
		return nil, nil
	}
	m.spreading.init()
	ready, err := m.Own.nodes(ctx)
	if err != nil {
		return nil, err
	}
	listed, err := m.Engine.etcdMembers(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	var out []merge.Control
	for _, cube := range m.Engine.Config.Cubes {
		for _, node := range cube.ControlPlane {
			if m.Engine.isForeign(node.Name) {
				continue // its card has the secrets of another identity
			}
			isReady, known := ready[node.Name]
			c := merge.Control{Name: node.Name, Cube: cube.Name, Home: cube.Name == m.Engine.Config.Home, Known: known, Ready: isReady}
			for _, e := range listed {
				if e.isOf(node.Name, node.Address) {
					c.Listed, c.Votes = true, e.Name != "" && !e.IsLearner
				}
			}
			c.Up = c.Votes && c.Ready && m.answers(ctx, node)
			if g, ok := guests[cube.Name]; ok && !c.Votes && c.Ready {
				c.Settled = m.isSettled(ctx, g)
			}
			c.Lost = m.isLost(merge.Worker{Name: node.Name, Here: isReady}) || m.hasFailed(r, c)
			out = append(out, c)
		}
	}
	return out, nil
}

// answers reports whether the API server of a node is ready.
func (m *Merging) answers(ctx context.Context, node Member) bool {
	api, err := m.server(node)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	code, _, err := api.do(ctx, http.MethodGet, "/readyz"+withoutRoles, "", nil)
	api.Client.CloseIdleConnections()
	return err == nil && code == http.StatusOK
}

// isSettled reports whether the merge of a guest can't be undone any more, or
// could have been for long enough.
func (m *Merging) isSettled(ctx context.Context, g merge.Guest) bool {
	s, now := &m.spreading, m.Engine.Now()
	if s.absorbed[g].IsZero() {
		s.absorbed[g] = now
	}
	if s.touched[g] || now.Sub(s.absorbed[g]) > settles {
		return true
	}
	if now.Sub(s.asked[g]) < touchedEvery {
		return false
	}
	s.asked[g] = now
	intact, err := m.Untouched(ctx, g.ID)
	s.touched[g] = err == nil && !intact
	return s.touched[g]
}

// hasFailed reports whether a node did not manage to join, lately.
func (m *Merging) hasFailed(r merge.Record, c merge.Control) bool {
	s, now := &m.spreading, m.Engine.Now()
	if since, ok := s.failed[c.Name]; ok && now.Sub(since) < failedFor {
		return true
	}
	delete(s.failed, c.Name)
	if n := len(r.Spread); n == 0 || r.Spread[n-1].Name != c.Name || c.Votes {
		return false
	}
	if s.joining != c.Name {
		s.joining, s.since = c.Name, now
	}
	if now.Sub(s.since) < joins {
		return false
	}
	s.joining, s.failed[c.Name] = "", now
	return true
}

// spread tells the nodes of other cubes what they are to be in the control plane,
// and takes off etcd's list who has to go.
func (m *Merging) spread(ctx context.Context, r merge.Record) error {
	m.spreading.init()
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := m.Own.get(ctx, "/api/v1/nodes", &list); err != nil {
		return err
	}
	for _, cube := range m.Engine.Config.Cubes {
		if cube.Name == m.Engine.Config.Home {
			continue
		}
		for _, node := range cube.ControlPlane {
			i := slices.IndexFunc(list.Items, func(n nodeObject) bool { return n.Metadata.Name == node.Name })
			if i >= 0 {
				old := list.Items[i].Metadata.Labels[seatLabel]
				if label := m.label(ctx, r, node, old); label != old {
					if err := m.Own.label(ctx, node.Name, label); err != nil {
						return err
					}
				}
			}
			if node.Name != r.Resigning {
				continue
			}
			if err := m.resign(ctx, node); err != nil {
				return err
			}
		}
	}
	return nil
}

// label is what the label of a node's seat is to be; empty: it has none.
func (m *Merging) label(ctx context.Context, r merge.Record, node Member, old string) string {
	switch {
	case node.Name == r.Resigning:
		return seatLeaving
	case !slices.ContainsFunc(r.Spread, func(s merge.Seat) bool { return s.Name == node.Name }):
		return ""
	case old == seatMember || m.votes(ctx, node) && m.answers(ctx, node):
		return seatMember
	}
	return seatJoining
}

func (m *Merging) votes(ctx context.Context, node Member) bool {
	listed, err := m.Engine.etcdMembers(ctx)
	return err == nil && slices.ContainsFunc(listed, func(e etcdMember) bool {
		return e.isOf(node.Name, node.Address) && e.Name != "" && !e.IsLearner
	})
}

// resign takes a node off etcd's list, when nobody calls it any more.
func (m *Merging) resign(ctx context.Context, node Member) error {
	s, now := &m.spreading, m.Engine.Now()
	if s.leaving != node.Name {
		s.leaving, s.told = node.Name, now
	}
	if now.Sub(s.told) < handsOff {
		return nil
	}
	if err := m.Engine.strike(ctx, node); err != nil {
		return fmt.Errorf("%s: cannot take it off etcd's list: %w", node.Name, err)
	}
	s.leaving = ""
	return nil
}

// forget deletes the nodes of a cube that left for good, when they are gone.
func (m *Merging) forget(ctx context.Context, r merge.Record, guest string) error {
	m.spreading.init()
	i := slices.IndexFunc(r.Guests, func(g merge.Guest) bool { return g.ID == guest })
	if i < 0 || m.spreading.left[guest] == r.Guests[i].Term {
		return nil
	}
	nodes, err := m.Own.nodes(ctx)
	if err != nil {
		return err
	}
	stay := false
	for _, p := range m.Engine.Node.Peers {
		ready, known := nodes[p.Name]
		switch {
		case !known || m.Engine.homeOf(p.Cube) != r.Guests[i].Cube:
		case ready:
			stay = true
		default:
			if err := m.Own.evacuate(ctx, p.Name); err != nil {
				return err
			}
		}
	}
	if !stay {
		m.spreading.left[guest] = r.Guests[i].Term
	}
	return nil
}

// server is the API of one node alone.
func (m *Merging) server(node Member) (API, error) { return m.Engine.apiAt([]Member{node}) }

// label gives a node the label of its seat, or takes it and those of its role.
func (a API) label(ctx context.Context, node, seat string) error {
	labels := object{seatLabel: seat}
	if seat == "" {
		labels[seatLabel] = nil
		for _, l := range roleLabels() {
			labels[l] = nil
		}
	}
	body, err := json.Marshal(object{"metadata": object{"labels": labels}})
	if err != nil {
		return err
	}
	code, answer, err := a.asMerge().do(ctx, http.MethodPatch, "/api/v1/nodes/"+node, "application/merge-patch+json", body)
	if err == nil && code/100 != 2 && code != http.StatusNotFound {
		err = fmt.Errorf("%d %s", code, message(answer))
	}
	if err != nil {
		return fmt.Errorf("node %s: cannot label it: %w", node, err)
	}
	return nil
}

// etcdMembers asks the node's own etcd for all members.
func (e *Engine) etcdMembers(ctx context.Context) ([]etcdMember, error) {
	client, err := e.etcdClient()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	url, err := e.etcdURL("cluster/member/list")
	if err != nil {
		return nil, err
	}
	var list struct {
		Members []etcdMember `json:"members"`
	}
	err = post(ctx, client, url, map[string]bool{"linearizable": true}, &list)
	return list.Members, err
}

// strike takes a node off the list of the node's own etcd.
func (e *Engine) strike(ctx context.Context, node Member) error {
	listed, err := e.etcdMembers(ctx)
	if err != nil {
		return err
	}
	client, err := e.etcdClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	url, err := e.etcdURL("cluster/member/remove")
	if err != nil {
		return err
	}
	for _, m := range listed {
		if m.isOf(node.Name, node.Address) {
			if err := post(ctx, client, url, map[string]string{"ID": m.ID}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
