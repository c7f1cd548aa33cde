// Package status tells a person or a script how a node is.
package status

import (
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// Layer puts the command into the path.
type Layer struct{}

// Name returns "status".
func (Layer) Name() string { return "status" }

// Packages returns nothing.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply makes "picube-node status" callable by its plain name.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	return t.Symlink("../lib/picube/picube-node", "/usr/bin/picube-node")
}
