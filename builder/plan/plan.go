// Package plan turns a blueprint into what will be built: nodes with names,
// roles and addresses, and the root file systems they share. It does no I/O,
// so the same blueprint and lock give the same plan anywhere.
package plan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
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
	Blueprint string  `json:"blueprint"` // the file's name without folder and extension
	Cubes     []*Cube `json:"cubes"`
	Roots     []*Root `json:"roots"` // sorted by name
	// Changes are what it means for cards that were built before; nil: there are
	// none, or nobody asked.
	Changes *Changes `json:"changes,omitempty"`
}

// Cube is a cube with its nodes placed.
type Cube struct {
	Spec  *blueprint.Cube
	Nodes []*Node
}

// MarshalJSON shows what was placed, not the blueprint again.
func (c *Cube) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name    string       `json:"name"`
		Cluster string       `json:"cluster"`
		Number  int          `json:"number"`
		Network netip.Prefix `json:"network"`
		Nodes   []*Node      `json:"nodes"`
	}{c.Spec.Name, c.Spec.Cluster, c.Spec.Number, c.Spec.Network.Prefix, c.Nodes})
}

// Node is one card.
type Node struct {
	Name    string `json:"name"`
	Cube    string `json:"cube"`
	Cluster string `json:"cluster"`
	Number  int    `json:"number"`
	Board   string `json:"board"`
	Role    string `json:"role"`
	// Home is the cube to whose cluster the node belongs before clusters merge;
	// empty where the cubes begin one cluster.
	Home    string          `json:"home,omitempty"`
	Address netip.Prefix    `json:"address"` // on the cubes' wire
	Root    string          `json:"root"`    // the Root's name
	Spec    *blueprint.Node `json:"-"`
}

// Root is a root file system, written once and shared by its nodes: all nodes
// that agree in everything that lies on it.
type Root struct {
	Name     string          `json:"name"` // "arm64", "arm64-worker", "arm64-2": unique in the plan, stable for one blueprint
	Arch     string          `json:"arch"` // Debian's name: arm64, armhf
	Role     string          `json:"role"`
	Boards   []string        `json:"boards"`             // sorted
	Cube     *blueprint.Cube `json:"-"`                  // the first cube that uses it: base, users, settings
	Requests []Request       `json:"requests"`           // packages asked for, sorted by name
	Packages []Package       `json:"packages,omitempty"` // as locked, sorted by name; empty before there is a lock
	Data     []Package       `json:"data,omitempty"`     // likewise: those that the build reads and does not install
	// Left are the packages that the first boot has to configure; nil: not
	// known before they are downloaded.
	Left []Left `json:"left,omitzero"`
	// Key is the digest of everything that the blueprint says of what lies on
	// the root, secrets included: they are hidden in the Cube's own JSON.
	Key [sha256.Size]byte `json:"-"`
}

// Request is a package that somebody asked for by name.
type Request struct {
	Name string `json:"name"`
	By   string `json:"by"` // "base", "layer ssh", `cube "picube"`, "board rpi3"; several: "base, layer ssh"
}

// Package is a package as the lock has it.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	Path    string `json:"path"`    // in the archive, never with a host
	Archive string `json:"archive"` // the lock's name of the archive it comes from
	Size    int64  `json:"size"`    // of the .deb, in bytes
	SHA256  string `json:"sha256"`
	Why     string `json:"why"` // "base", or who depends on it
}

// Left is a package that the first boot has to configure.
type Left struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Board is what a plan must know of a board.
type Board struct {
	Arch     string   // Debian's name
	Packages []string // kernel, firmware
	Raspios  []string // the same with Raspberry Pi's kernel
}

// Options is what a plan is made with.
type Options struct {
	Boards map[string]Board
	Base   []string // packages that every root holds
	// OnImage are those on someone else's image, which has a kernel, firmware
	// and a system of its own.
	OnImage []string
	// Layers returns what the layers ask for on a root, with By filled in.
	// The root has everything but its packages. Nil: nothing.
	Layers func(*Root) []Request
}

// New plans a valid blueprint. The diagnostics are about what no blueprint
// can know alone, such as a board without an architecture.
func New(bp *blueprint.Blueprint, o Options) (*Plan, hcl.Diagnostics) {
	name := filepath.Base(bp.Path)
	p := &Plan{Blueprint: strings.TrimSuffix(name, filepath.Ext(name))}
	var diags hcl.Diagnostics
	roots := rootSet{options: o, byKey: map[[sha256.Size]byte]*Root{}, names: map[string]bool{}}
	controlPlane := map[string]bool{}
	for _, c := range bp.Cubes {
		if c.Kubernetes == nil {
			continue
		}
		for _, name := range slices.Concat(c.Kubernetes.ControlPlane, c.ControlPlane) {
			controlPlane[name] = true
		}
	}
	for _, spec := range bp.Cubes {
		c := &Cube{Spec: spec}
		for _, n := range spec.Nodes {
			board, ok := o.Boards[n.Board]
			if !ok {
				diags = append(diags, &hcl.Diagnostic{
					Severity: hcl.DiagError,
					Summary:  "Unknown board",
					Detail:   fmt.Sprintf("Nothing is known of the board %q of the node %q.", n.Board, n.Name),
					Subject:  n.Range.Ptr(),
				})
				continue
			}
			node := &Node{
				Name: n.Name, Cube: spec.Name, Cluster: spec.Cluster, Number: n.Number, Board: n.Board,
				Role:    role(spec, controlPlane[n.Name]),
				Home:    spec.Home,
				Address: netip.PrefixFrom(n.Address, spec.Network.Prefix.Bits()),
				Spec:    n,
			}
			node.Root = roots.find(spec, node, board.Arch).Name
			c.Nodes = append(c.Nodes, node)
		}
		p.Cubes = append(p.Cubes, c)
	}
	p.Roots = roots.finish(p)
	if diags.HasErrors() {
		return nil, diags
	}
	return p, diags
}

func role(c *blueprint.Cube, controlPlane bool) string {
	switch {
	case c.Kubernetes == nil:
		return RoleNode
	case controlPlane:
		return RoleControlPlane
	}
	return RoleWorker
}

// Nodes returns the nodes of all cubes, in the blueprint's order.
func (p *Plan) Nodes() []*Node {
	var nodes []*Node
	for _, c := range p.Cubes {
		nodes = append(nodes, c.Nodes...)
	}
	return nodes
}

// Beginners returns the cubes that begin clusters of their own within one
// cluster: the one to which cubes without a control plane belong, then the
// others in the blueprint's order; none where all cubes begin one.
func (p *Plan) Beginners(cluster string) []*Cube {
	var cubes []*Cube
	for _, c := range p.Cubes {
		if c.Spec.Cluster != cluster || len(c.Spec.ControlPlane) == 0 {
			continue
		}
		at := len(cubes)
		if len(c.Spec.Kubernetes.ControlPlane) > 0 {
			at = 0
		}
		cubes = slices.Insert(cubes, at, c)
	}
	return cubes
}

// ControlPlane returns the control-plane nodes of the cluster that begins in a
// home cube (see Node.Home).
func (p *Plan) ControlPlane(cluster, home string) []*Node {
	return slices.DeleteFunc(p.Nodes(), func(n *Node) bool {
		return n.Cluster != cluster || n.Home != home || n.Role != RoleControlPlane
	})
}

// Root returns the root of that name, or nil.
func (p *Plan) Root(name string) *Root {
	i := slices.IndexFunc(p.Roots, func(r *Root) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return p.Roots[i]
}

// rootSet gathers the roots while nodes are placed.
type rootSet struct {
	options Options
	byKey   map[[sha256.Size]byte]*Root
	names   map[string]bool
	list    []*Root
}

// find returns the root that a node shares with those like it.
func (s *rootSet) find(c *blueprint.Cube, n *Node, arch string) *Root {
	k := rootKey(c, n, arch)
	if r, ok := s.byKey[k]; ok {
		if !slices.Contains(r.Boards, n.Board) {
			r.Boards = append(r.Boards, n.Board)
		}
		return r
	}
	name := arch
	if n.Role != RoleNode {
		name += "-" + n.Role
	}
	for i, stem := 2, name; s.names[name]; i++ {
		name = fmt.Sprintf("%s-%d", stem, i)
	}
	r := &Root{Name: name, Arch: arch, Role: n.Role, Boards: []string{n.Board}, Cube: c, Key: k}
	s.byKey[k], s.names[name] = r, true
	s.list = append(s.list, r)
	return r
}

// rootKey is everything that lies on a root file system. What is a node's own
// lies on its boot partition and isn't part of it.
func rootKey(c *blueprint.Cube, n *Node, arch string) [sha256.Size]byte {
	users := slices.Clone(c.Users)
	hashes := make([]string, len(users))
	for i, u := range users {
		hashes[i] = string(u.PasswordHash) // hidden in the user's own JSON
	}
	var kubernetes blueprint.Kubernetes
	if c.Kubernetes != nil {
		kubernetes = *c.Kubernetes
		// The role says it, and node.yaml.
		kubernetes.ControlPlane, kubernetes.Merge = nil, blueprint.Merge{}
	}
	k, err := json.Marshal([]any{
		arch, n.Role, c.Base, users, hashes, packagesOf(c, n.Spec), c.Debconf, c.Time, kubernetes, features(c),
	})
	if err != nil {
		panic(err) // strings and slices always marshal
	}
	return sha256.Sum256(k)
}

// features are what of a cube's hardware asks for something on its roots:
// programs, units. How they are set is each node's own.
func features(c *blueprint.Cube) []string {
	var list []string
	if len(c.WiFi) > 0 {
		list = append(list, "wifi")
	}
	for _, d := range c.Displays {
		list = append(list, "display "+d.Kind)
	}
	for _, f := range c.Fans {
		list = append(list, "fan "+f.Kind)
	}
	if c.Status != nil {
		list = append(list, "status")
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func packagesOf(c *blueprint.Cube, n *blueprint.Node) []string {
	all := slices.Concat(c.Packages, n.Packages)
	slices.Sort(all)
	return slices.Compact(all)
}

// finish fills in who asks for which package.
func (s *rootSet) finish(p *Plan) []*Root {
	for _, r := range s.list {
		slices.Sort(r.Boards)
		asked := requests{}
		if r.Cube.Base.Kind == blueprint.BaseImage {
			asked.add("base", s.options.OnImage...)
		} else {
			asked.add("base", s.options.Base...)
			for _, b := range r.Boards {
				board := s.options.Boards[b]
				if r.Cube.Base.Kind == blueprint.BaseRaspios {
					board.Packages = board.Raspios
				}
				asked.add("board "+b, board.Packages...)
			}
		}
		for _, c := range p.Cubes {
			for _, n := range c.Nodes {
				if n.Root == r.Name {
					asked.add(fmt.Sprintf("cube %q", n.Cube), c.Spec.Packages...)
					asked.add(fmt.Sprintf("node %q", n.Name), n.Spec.Packages...)
				}
			}
		}
		if s.options.Layers != nil {
			for _, q := range s.options.Layers(r) {
				asked.add(q.By, q.Name)
			}
		}
		r.Requests = asked.sorted()
	}
	slices.SortFunc(s.list, func(a, b *Root) int { return strings.Compare(a.Name, b.Name) })
	return s.list
}

// requests are package names and who asks for them, in the order of asking.
type requests map[string][]string

func (q requests) add(by string, names ...string) {
	for _, name := range names {
		if !slices.Contains(q[name], by) {
			q[name] = append(q[name], by)
		}
	}
}

func (q requests) sorted() []Request {
	list := []Request{}
	for name, by := range q {
		list = append(list, Request{Name: name, By: strings.Join(by, ", ")})
	}
	slices.SortFunc(list, func(a, b Request) int { return strings.Compare(a.Name, b.Name) })
	return list
}
