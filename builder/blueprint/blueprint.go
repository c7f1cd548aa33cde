// Package blueprint reads what a user wrote: one HCL file that describes one
// or more cubes of Raspberry Pis. Parse returns a Blueprint that is valid in
// itself, every default filled in, or diagnostics with the lines at fault.
package blueprint

import (
	"net/netip"

	"github.com/hashicorp/hcl/v2"
)

// Blueprint is one parsed and valid file.
type Blueprint struct {
	Path  string // as given by the user
	Cubes []*Cube
}

// Cube is a group of nodes on one table.
type Cube struct {
	Name     string
	Cluster  string // the cube's name unless several cubes make one cluster
	Number   int    // the cube's place in its cluster's address plan, from 1
	Base     Base
	Packages []string          // beyond what base and layers bring, sorted
	Debconf  map[string]string // answers by question ("tzdata/Areas")
	Users    []User
	Network  Network
	Nodes    []*Node // by number

	WiFi       []WiFi
	Kubernetes *Kubernetes
	Displays   []Display
	Fans       []Fan
	Time       Time

	Range hcl.Range // of the block's header
}

// Node is one Raspberry Pi, overrides applied.
type Node struct {
	Name     string // host name
	Number   int    // from 1
	Board    string // a name of firmware's board table
	Packages []string
	Address  netip.Addr // on the cubes' wire; zero: by number
	Labels   map[string]string
	Taints   []string
	Range    hcl.Range // of the node block, or the cube's
}

// Base is the distribution below everything.
type Base struct {
	Kind       string // "debian"
	Suite      string // "trixie"
	Components []string
	Mirror     string // empty: the host's own, else Debian's public one
	Snapshot   string // empty or the base of a snapshot archive
	Recommends bool
}

// User is an account on every node.
type User struct {
	Name           string
	AuthorizedKeys []string
	PasswordHash   string // crypt(3) form; empty: no password login
	Sudo           bool
	Groups         []string
	Shell          string
}

// Network is the cubes' wire and the way out.
type Network struct {
	Interface string       // "eth0"
	Prefix    netip.Prefix // of the cubes' wire: 10.42.0.0/16
	DHCP      bool
	DNS       []netip.Addr
}

// WiFi is one wireless network.
type WiFi struct {
	SSID     []byte // 1 to 32 bytes
	PSK      string // 8 to 63 characters or 64 hex digits; empty: open
	Country  string // ISO 3166-1 alpha-2
	Hidden   bool
	Priority int
	Range    hcl.Range
}

// Kubernetes says what cluster the nodes form.
type Kubernetes struct {
	Version       string
	ControlPlane  []string // host names
	PodSubnet     netip.Prefix
	ServiceSubnet netip.Prefix
	Source        string // auto, release, modules, mirror
	Manifests     []string
	Images        []string
	KubeletArgs   map[string]string
	APIServerArgs map[string]string
	Range         hcl.Range
}

// Display is an LCD or the console as the cube's face.
type Display struct {
	Kind    string // "hd44780" or "console"
	On      []string
	Address uint8
	Bus     int
	Columns int
	Rows    int
	Range   hcl.Range
}

// Fan is how a node is cooled.
type Fan struct {
	Kind  string // gpio, pwm, firmware, always
	On    []string
	Pin   int
	Start float64 // °C
	Stop  float64 // °C
	Range hcl.Range
}

// Time is the zone and where time comes from.
type Time struct {
	Zone    string
	Servers []string
}
