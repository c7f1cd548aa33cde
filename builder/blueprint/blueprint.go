// Package blueprint reads what a user wrote: one HCL file that describes one
// or more cubes of Raspberry Pis. Parse returns a Blueprint that is valid in
// itself, every default filled in, or diagnostics with the lines at fault.
//
// The language is HCL's native syntax (https://github.com/hashicorp/hcl,
// hclsyntax/spec.md) with one addition: numbers may be written in hexadecimal
// (0x27), as I2C addresses always are. The JSON form of HCL isn't read.
package blueprint

import (
	"net/netip"
	"time"

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
	Cluster  string // shared by the cubes of one cluster
	Number   int    // the cube's place in the address plan, from 1
	Base     Base
	Packages []string          // beyond what base and layers bring, sorted
	Debconf  map[string]string `json:",omitempty"` // answers by question ("tzdata/Areas")
	Users    []User
	Network  Network
	Nodes    []*Node // by number

	// ControlPlane are the nodes with which the cube begins a cluster of its own,
	// by host name, and Home is the cube to whose cluster its nodes belong before
	// clusters merge. Both are empty where all cubes begin one cluster.
	ControlPlane []string `json:",omitempty"`
	Home         string   `json:",omitempty"`

	WiFi       []WiFi      `json:",omitempty"`
	Kubernetes *Kubernetes `json:",omitempty"`
	Displays   []Display   `json:",omitempty"`
	Fans       []Fan       `json:",omitempty"`
	Status     *Status     `json:",omitempty"`
	Time       Time

	Range hcl.Range `json:"-"` // of the block's header

	controlPlaneAt hcl.Range
}

// Node is one Raspberry Pi, overrides applied.
type Node struct {
	Name     string            // host name
	Number   int               // from 1
	Board    string            // a name of Options.Boards
	Packages []string          `json:",omitempty"` // this node's own, sorted
	Address  netip.Addr        // on the cubes' wire
	Labels   map[string]string `json:",omitempty"`
	Taints   []string          `json:",omitempty"`
	Range    hcl.Range         `json:"-"` // of the node block, or the cube's
}

// Base is the distribution below everything.
type Base struct {
	Kind       string // "debian", "raspios" or "image"
	Suite      string // "trixie"; of an image it is the image's own
	Components []string
	Mirror     string // empty: the host's own, else Debian's public one
	Snapshot   string // empty or the base of a snapshot archive
	Recommends bool
	Source     string    `json:",omitempty"` // of an image: a URL, or a path from the blueprint's folder
	SHA256     string    `json:",omitempty"` // of the image as it is downloaded
	Archives   []Archive `json:",omitempty"` // further ones
}

// User is an account on every node.
type User struct {
	Name           string
	AuthorizedKeys []string
	PasswordHash   Secret // crypt(3) form; empty: no password login
	Sudo           bool
	Groups         []string
	Shell          string
	// GenerateKey asks the builder for a key pair: the user gave no way in.
	GenerateKey bool
}

// Secret is text that must not be shown. Printing it in any form gives
// "(sensitive)"; string(s) is the text itself.
type Secret string

// Redacted stands wherever a secret would.
const Redacted = "(sensitive)"

// String hides the text, unless there is none.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return Redacted
}

// GoString hides the text from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the text from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

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
	PSK      Secret // 8 to 63 characters or 64 hex digits; empty: open
	Security string // "auto" (WPA2, where WPA3 is spoken too), "wpa2", "wpa3" or "open"
	Country  string // ISO 3166-1 alpha-2
	Hidden   bool
	Priority int
	On       []string  // host names
	Range    hcl.Range `json:"-"`
}

// Kubernetes says what cluster the nodes form.
type Kubernetes struct {
	Version       string
	ControlPlane  []string // host names; none in a cube that joins another's
	PodSubnet     netip.Prefix
	ServiceSubnet netip.Prefix
	Source        string // auto, release, modules, mirror
	Mirror        string // base URL, with source "mirror"
	Manifests     []string
	Images        []string
	KubeletArgs   map[string]string
	APIServerArgs map[string]string
	Backups       Backups
	Merge         Merge     `json:",omitzero"` // zero where all cubes begin one cluster
	Range         hcl.Range `json:"-"`
}

// Backups is how often the cluster's state is saved on workers, and how many
// each of them keeps.
type Backups struct {
	Every time.Duration // 0: never
	Keep  int
}

// Merge is what the clusters of several cubes do when they meet.
type Merge struct {
	Mode  string    // "auto", "ask" or "off"
	Lead  string    `json:",omitempty"` // a cube; empty: the eldest cluster's
	Range hcl.Range `json:"-"`          // of its block; empty: there is none
}

// Display is an LCD or the console as the cube's face.
type Display struct {
	Kind      string // "hd44780" or "console"
	On        []string
	Address   uint8
	Bus       int
	Columns   int
	Rows      int
	Seconds   float64   // each screen is shown
	Backlight string    `json:",omitempty"` // "on", "off" or the hours it is on: "07:00-22:00"
	Farewell  string    `json:",omitempty"` // empty: the usual words
	Pages     []Page    `json:",omitempty"` // none: the usual ones
	Glyphs    []Glyph   `json:",omitempty"`
	Range     hcl.Range `json:"-"`
}

// Page is what a display shows at one time; its lines are templates.
type Page struct {
	Lines []string
}

// Glyph is a character of the user's own: eight rows of five dots, # or a dot.
type Glyph struct {
	Name string
	Rows []string
}

// Fan is how a node is cooled.
type Fan struct {
	Kind    string // gpio, pwm, firmware, always
	On      []string
	Pin     int
	Start   float64   // °C
	Stop    float64   // °C
	Full    float64   // °C, pwm: full speed from here
	MinDuty float64   // pwm: the slowest speed that still turns the fan, 0 to 1
	Tach    int       // pin of the tachometer; -1: none
	Sensor  string    `json:",omitempty"` // "soc", or "cube": the hottest of its nodes
	Range   hcl.Range `json:"-"`
}

// Time is the zone and where time comes from.
type Time struct {
	Zone    string
	Servers []string
}

// Status is the page that tells how a node is, and its metrics.
type Status struct {
	Port int
}

// Board is what the language must know of a board.
type Board struct {
	Name string // "rpi3"
	Arch string // Debian's name: arm64, armhf
	WiFi bool   // has a radio
	// NotOnDebian says why a card with Debian's own kernel would not start it;
	// empty: it would.
	NotOnDebian string
	// NotOnRaspios says why one with Raspberry Pi's kernel would not.
	NotOnRaspios string
	FanHeader    bool // has a fan's plug that the firmware drives
	Pins         int  // GPIO lines on its header, counted from 0
	// Taken are the pins of the header that are never free, and by what.
	Taken map[int]string
	// PWM are the channels of the pins that have one.
	PWM map[int]int
	// I2C are the pins of each bus on the header.
	I2C map[int][2]int
}
