// Package cluster lets nodes find each other and become one cluster, whatever
// the engine. What runs on the node is below it: joind decides, proxyd is the
// way to the API.
package cluster

import (
	_ "embed"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-join.service
var service []byte

// Layer installs the unit that joins.
type Layer struct{}

// Name returns "cluster".
func (Layer) Name() string { return "cluster" }

// Packages returns nothing: the engine asks for what it needs.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply installs the unit where there is a cluster to join.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	if r.Role == plan.RoleNode {
		return nil
	}
	return unit.Install(t, "picube-join.service", service)
}
