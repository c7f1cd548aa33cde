package kubeadmd

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// A node whose blueprint has several clusters keeps in a file whose it is. It is
// read at every start; whatever else the node does follows from it.
const (
	membershipFile = stateDir + "/membership.json"
	// orderFile holds what a person wants of a node that is away from home.
	orderFile = stateDir + "/merge-order"
)

// Merges reports whether there are clusters that may become one.
func (e *Engine) Merges() bool { return len(e.Config.Cubes) > 1 }

// Membership is what the node keeps. At home before it heard of its cluster, it
// has no cluster yet.
func (e *Engine) Membership() (merge.Membership, error) {
	m, err := e.membership()
	if err == nil && m.Cube != e.Config.Home && e.cube(m.Cube) == nil {
		err = fmt.Errorf("%s: cannot find the cube %q in node.yaml or an introduction", membershipFile, m.Cube)
	}
	return m, err
}

func (e *Engine) membership() (merge.Membership, error) {
	m := merge.Membership{Cube: e.Config.Home}
	text, err := os.ReadFile(filepath.Join(e.Root, membershipFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("%s: %w", membershipFile, err)
	}
	return m, nil
}

// KeepMembership stores it for good.
func (e *Engine) KeepMembership(m merge.Membership) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := e.write(membershipFile, text); err != nil {
		return err
	}
	return syncDir(filepath.Join(e.Root, stateDir))
}

// choose makes the control plane the one of the cluster that the node is of.
func (e *Engine) choose() error {
	if !e.Merges() {
		return nil
	}
	if e.cube(e.Config.Home) == nil {
		return fmt.Errorf("node.yaml: kubernetes: home: cannot find %q among the cubes", e.Config.Home)
	}
	m, err := e.Membership()
	if err != nil {
		return err
	}
	e.at = m.Cube
	e.Config.ControlPlane = slices.Concat(e.cube(m.Cube), e.seated(m))
	return nil
}

// cube returns the control plane of a cube; nil: it has none.
func (e *Engine) cube(name string) []Member {
	i := slices.IndexFunc(e.Config.Cubes, func(c Cube) bool { return c.Name == name })
	if i < 0 || len(e.Config.Cubes[i].ControlPlane) == 0 {
		return nil
	}
	return e.Config.Cubes[i].ControlPlane
}

// IsHomeControlPlane reports whether the node is of the control plane of the
// cluster that its cube began, wherever it is now.
func (e *Engine) IsHomeControlPlane() bool {
	return slices.ContainsFunc(e.cube(e.Config.Home), func(m Member) bool { return m.Name == e.Node.Hostname })
}

// CubeOf returns the cube whose control plane a node is of, by its certificate;
// empty: of none.
func (e *Engine) CubeOf(leaf *x509.Certificate) string {
	for _, c := range e.Config.Cubes {
		if slices.ContainsFunc(c.ControlPlane, func(m Member) bool { return e.isOf(leaf, m.Name) }) {
			return c.Name
		}
	}
	return ""
}

// homeOf returns the cube to whose cluster the nodes of a cube belong at first:
// one without a control plane of its own is of the first one's.
func (e *Engine) homeOf(cube string) string {
	if e.cube(cube) != nil {
		return cube
	}
	return e.Config.Cubes[0].Name
}

// ours are the answers of nodes that know of the cluster that the node's cube
// began, wherever they are now. If they are away and nobody told this node to
// come home, its cluster is no more.
func (e *Engine) ours(answers []answer) ([]answer, error) {
	if !e.Merges() {
		// Who is away was introduced, and will tell this node.
		if i := slices.IndexFunc(answers, func(a answer) bool { return a.isAway() }); i >= 0 {
			return nil, fmt.Errorf("its cluster became part of the cluster of %s", answers[i].Of.Cube)
		}
		return answers, nil
	}
	m, err := e.Membership()
	if err != nil {
		return nil, err
	}
	var out []answer
	for _, a := range answers {
		switch away := a.isAway() && e.homeOf(a.Cube) == e.Config.Home; {
		case away && m.Home == "":
			return nil, fmt.Errorf("its cluster became part of the cluster of %s", a.Of.Cube)
		case away || e.isWith(a.peer):
			out = append(out, a)
		}
	}
	return out, nil
}

// Adopt asks nodes of the own cube where they belong: a card that was flashed
// anew does not know that its cluster became part of another one.
func (e *Engine) Adopt(ctx context.Context) (merge.Membership, bool) {
	var own []Member
	for _, p := range e.Node.Peers {
		if p.Cube == e.Node.Cube && p.Name != e.Node.Hostname {
			own = append(own, member(p))
		}
	}
	for _, m := range e.cube(e.Config.Home) {
		if m.Name != e.Node.Hostname && !slices.Contains(own, m) {
			own = append(own, m)
		}
	}
	for _, m := range own {
		p, err := e.ask(ctx, m)
		if err == nil && p.isAway() {
			return *p.Of, true
		}
	}
	return merge.Membership{}, false
}

// Order writes down what a person wants of a node that is away.
func (e *Engine) Order(o merge.Order) error { return e.write(orderFile, []byte(o)) }

// TakeOrder returns it once.
func (e *Engine) TakeOrder() merge.Order {
	file := filepath.Join(e.Root, orderFile)
	text, err := os.ReadFile(file)
	if err != nil || os.Remove(file) != nil {
		return merge.None
	}
	return merge.Order(strings.TrimSpace(string(text)))
}
