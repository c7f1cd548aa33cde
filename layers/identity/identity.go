// Package identity makes a node out of a card: what tells it from the other
// nodes lies on its boot partition and is applied when it starts.
package identity

import (
	_ "embed"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-identity.service
var service []byte

// Layer installs the unit that applies picube/node.yaml at each start.
type Layer struct{}

// Name returns "identity".
func (Layer) Name() string { return "identity" }

// Packages returns nothing: picube-node needs no help here.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply leaves the machine id to the first boot: systemd takes a missing file
// for its own first boot and would preset every unit. So it does with this one,
// but our initramfs is there first. On someone else's image it is not: an empty
// file is for systemd to fill in, with the id on the kernel's command line.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	id := "uninitialized\n"
	if r.Cube.Base.Kind == blueprint.BaseImage {
		id = ""
	}
	if err := t.WriteFile("/etc/machine-id", []byte(id), 0o444); err != nil {
		return err
	}
	if err := t.RemoveAll("/etc/hostname"); err != nil {
		return err
	}
	return unit.Install(t, "picube-identity.service", service)
}
