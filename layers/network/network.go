// Package network gives every node its fixed address on the cubes' wire
// besides what a router hands out. The address itself is the node's own and
// comes from picube/node.yaml (see layers/identity).
package network

import (
	"errors"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/unit"
)

// Layer sets up systemd-networkd and systemd-resolved.
type Layer struct{}

// Name returns "network".
func (Layer) Name() string { return "network" }

// Packages returns what networkd needs beside it.
func (Layer) Packages(*plan.Root) []string { return []string{"iproute2", "systemd-resolved"} }

// resolved leaves .local to avahi, which speaks mDNS for the whole node; two
// responders on one port would each miss half of the answers.
const resolved = `[Resolve]
MulticastDNS=no
LLMNR=no
`

// Apply enables networkd. Nothing waits for it: a cube without a router is a
// cube that is complete.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	return errors.Join(
		t.MkdirAll("/etc/systemd/resolved.conf.d", 0o755),
		t.WriteFile("/etc/systemd/resolved.conf.d/picube.conf", []byte(resolved), 0o644),
		unit.Enable(t, "systemd-networkd.service"),
		unit.Enable(t, "systemd-resolved.service"),
		unit.Mask(t, "systemd-networkd-wait-online.service"),
	)
}
