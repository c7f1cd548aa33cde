// Package mdns makes nodes known as <name>.local to people and to each other.
package mdns

import (
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// Layer asks for avahi, whose packages need no further setting.
type Layer struct{}

// Name returns "mdns".
func (Layer) Name() string { return "mdns" }

// Packages returns the responder and the resolver's module.
func (Layer) Packages(*plan.Root) []string { return []string{"avahi-daemon", "libnss-mdns"} }

// Apply has nothing to add.
func (Layer) Apply(*plan.Root, *tree.Tree) error { return nil }
