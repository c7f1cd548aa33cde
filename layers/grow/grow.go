// Package grow lets the root file system fill the card at the first boot.
package grow

import (
	_ "embed"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-grow.service
var service []byte

// Layer installs the unit that grows the root.
type Layer struct{}

// Name returns "grow".
func (Layer) Name() string { return "grow" }

// Packages returns nothing: picube-node asks the kernel itself.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply installs the unit.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	return unit.Install(t, "picube-grow.service", service)
}
