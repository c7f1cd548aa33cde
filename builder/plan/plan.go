// Package plan turns a blueprint into what will be built: nodes with names,
// roles and addresses, and the root file systems they share. It does no I/O,
// so the same blueprint and lock give the same plan anywhere.
package plan

import (
	"net/netip"

	"github.com/picube/picube-build/builder/blueprint"
)

// Roles a node can have.
const (
	RoleNode         = "node" // no cluster software
	RoleControlPlane = "control-plane"
	RoleWorker       = "worker"
)

// Plan is everything that will be built.
type Plan struct {
	Blueprint string // the file's name without folder and extension
	Cubes     []*Cube
	Roots     []*Root // sorted by name
}

// Cube is a cube with its nodes placed.
type Cube struct {
	Spec  *blueprint.Cube
	Nodes []*Node
}

// Node is one card.
type Node struct {
	Name    string
	Cube    string
	Cluster string
	Number  int
	Board   string
	Role    string
	Address netip.Prefix // on the cubes' wire
	Root    string       // the Root's name
	Spec    *blueprint.Node
}

// Root is a root file system, written once and shared by its nodes: all nodes
// that agree in everything that lies on it.
type Root struct {
	Name     string // "arm64", "arm64-2": unique in the plan, stable for one blueprint
	Arch     string // Debian's name: arm64, armhf
	Role     string
	Boards   []string        // sorted
	Cube     *blueprint.Cube // the first cube that uses it: base, users, settings
	Requests []Request       // packages asked for, sorted by name
	Packages []Package       // as locked, sorted by name; empty before there is a lock
}

// Request is a package that somebody asked for by name.
type Request struct {
	Name string
	By   string // "base", "layer ssh", `cube "picube"`, `board rpi3`
}

// Package is a package as the lock has it.
type Package struct {
	Name    string
	Version string
	Arch    string
	Path    string // in the archive, never with a host
	Archive string // the lock's name of the archive it comes from
	Size    int64
	SHA256  string
	Why     string // "base", or who depends on it
}
