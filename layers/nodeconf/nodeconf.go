// Package nodeconf is the contract between the builder and the program on the
// card: the file picube/node.yaml on the boot partition, written by layers at
// build time, read by picube-node, and editable by a person on any laptop.
//
// Secrets never stand in it. What is secret and a node's own (host keys, the
// node's certificate) lies as files under picube/identity/ on the boot
// partition until the first boot has moved it to the root file system.
package nodeconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"gopkg.in/yaml.v3"
)

// Where things lie on a card.
const (
	// BootDir is where the boot partition is mounted.
	BootDir = "/boot/firmware"
	// Path is the file's place on the boot partition.
	Path = "picube/node.yaml"
	// IdentityDir holds the node's secrets on the boot partition until the
	// first boot; below it lie files at the path they are moved to
	// (picube/identity/etc/ssh/ssh_host_ed25519_key).
	IdentityDir = "picube/identity"
	// StateDir is where picube-node keeps what it must remember.
	StateDir = "/var/lib/picube"
	// Program is where picube-node lies.
	Program = "/usr/lib/picube/picube-node"
)

// MaxSize bounds node.yaml.
const MaxSize = 1 << 20

// Node is the content of node.yaml.
type Node struct {
	Hostname  string `yaml:"hostname"`
	MachineID string `yaml:"machineID"` // 32 hex digits, machine-id(5)
	Cube      string `yaml:"cube"`
	Cluster   string `yaml:"cluster"`
	Number    int    `yaml:"number"` // 1 is the cube's first node
	Role      string `yaml:"role"`   // "node", "control-plane" or "worker"
	Board     string `yaml:"board"`
	// NotBefore is the build's time, RFC 3339: no clock is right before it.
	NotBefore string  `yaml:"notBefore"`
	Network   Network `yaml:"network"`
	// WiFi are networks that a person has added by hand; those of the blueprint
	// lie among the node's secrets. With any here, they take their place.
	WiFi  []WiFi `yaml:"wifi,omitempty"`
	Peers []Peer `yaml:"peers,omitempty"` // every node of the cluster known at build time, itself included
	// Layers holds each layer's own section, by the layer's name.
	Layers map[string]yaml.Node `yaml:"layers,omitempty"`
}

// Network says how the node is reached.
type Network struct {
	Interface string   `yaml:"interface"`     // "eth0"
	Address   string   `yaml:"address"`       // on the cubes' wire, with prefix length: "10.42.1.1/16"
	DHCP      bool     `yaml:"dhcp"`          // besides the fixed address
	DNS       []string `yaml:"dns,omitempty"` // name servers besides those that DHCP tells
}

// WiFi is a wireless network.
type WiFi struct {
	SSID    string `yaml:"ssid"`
	PSK     string `yaml:"psk,omitempty"` // passphrase, or 64 hex digits; empty: an open network
	Country string `yaml:"country"`       // ISO 3166-1
	Hidden  bool   `yaml:"hidden,omitempty"`
}

// Peer is another node of the cluster.
type Peer struct {
	Name    string `yaml:"name"`
	Address string `yaml:"address"` // without prefix length
	Cube    string `yaml:"cube"`
	Role    string `yaml:"role"`
}

// Parse reads node.yaml; unknown keys and a second document are errors.
func Parse(data []byte) (*Node, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("node.yaml: cannot read %d bytes, the limit is %d", len(data), MaxSize)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	n := &Node{}
	if err := dec.Decode(n); err != nil {
		var wrong *yaml.TypeError
		if !errors.As(err, &wrong) {
			return nil, fmt.Errorf("node.yaml: %w", err)
		}
		var errs []error
		for _, text := range wrong.Errors { // "line 2: field hostnme not found in type nodeconf.Node"
			text, _, _ = strings.Cut(text, " in type ")
			errs = append(errs, fmt.Errorf("node.yaml: %s", text))
		}
		return nil, errors.Join(errs...)
	}
	if err := dec.Decode(&yaml.Node{}); err != io.EOF {
		return nil, fmt.Errorf("node.yaml: cannot hold more than one document")
	}
	return n, nil
}

// Marshal writes node.yaml.
func (n *Node) Marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, fmt.Errorf("node %q: cannot write node.yaml: %w", n.Hostname, err)
	}
	return b.Bytes(), enc.Close()
}

// SetLayer stores a layer's section.
func (n *Node) SetLayer(name string, v any) error {
	var section yaml.Node
	if err := section.Encode(v); err != nil {
		return fmt.Errorf("node %q: layer %s: cannot encode its section: %w", n.Hostname, name, err)
	}
	if n.Layers == nil {
		n.Layers = map[string]yaml.Node{}
	}
	n.Layers[name] = section
	return nil
}

// Layer decodes a layer's section into v and reports whether there is one.
func (n *Node) Layer(name string, v any) (bool, error) {
	section, ok := n.Layers[name]
	if !ok {
		return false, nil
	}
	if err := section.Decode(v); err != nil {
		return true, fmt.Errorf("node.yaml: layer %s: %w", name, err)
	}
	return true, nil
}
