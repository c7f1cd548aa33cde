// Package status tells a person or a program how a node is: on the command
// line always, as a page and as metrics where the blueprint asks for it.
package status

import (
	_ "embed"
	"errors"
	"slices"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/status/statusd"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-status.service
var service []byte

// Layer puts the command into the path, and the page onto the network.
type Layer struct{}

// Name returns "status".
func (Layer) Name() string { return statusd.Section }

// Packages returns nothing.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply makes "picube-node status" callable by its plain name.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	err := t.Symlink("../lib/picube/picube-node", "/usr/bin/picube-node")
	if r.Cube.Status == nil {
		return err
	}
	return errors.Join(err, unit.Install(t, "picube-status.service", service))
}

// Node says where the page is.
func (Layer) Node(p *plan.Plan, n *plan.Node, conf *nodeconf.Node, _ *tree.Tree) error {
	cube := p.Cubes[slices.IndexFunc(p.Cubes, func(c *plan.Cube) bool { return c.Spec.Name == n.Cube })].Spec
	if cube.Status == nil {
		return nil
	}
	return conf.SetLayer(statusd.Section, statusd.Config{Port: cube.Status.Port})
}
