package identityd

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/picube/picube-build/layers/nodeconf"
)

var (
	hostname      = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	machineID     = regexp.MustCompile(`^[0-9a-f]{32}$`)
	interfaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,14}$`)
	country       = regexp.MustCompile(`^[A-Z]{2}$`)
	hexKey        = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
)

// check returns all mistakes in a node.yaml.
func (id Identity) check(n *nodeconf.Node) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("node.yaml: "+format, args...)) }
	if !hostname.MatchString(n.Hostname) {
		wrong("hostname: cannot use %q: lower-case letters, digits and hyphens, at most 63", n.Hostname)
	}
	if !machineID.MatchString(n.MachineID) {
		wrong("machineID: cannot use it: 32 lower-case hex digits")
	}
	if !interfaceName.MatchString(n.Network.Interface) {
		wrong("network: interface: cannot use %q", n.Network.Interface)
	}
	address, err := netip.ParsePrefix(n.Network.Address)
	if err != nil || !address.Addr().Is4() {
		wrong("network: address: cannot use %q: an IPv4 address with the length of its network, like 10.42.1.3/16", n.Network.Address)
	}
	for _, a := range n.Network.DNS {
		if _, err := netip.ParseAddr(a); err != nil {
			wrong("network: dns: cannot use %q: an address, like 192.168.1.1", a)
		}
	}
	at := slices.IndexFunc(n.Peers, func(p nodeconf.Peer) bool { return p.Address == address.Addr().String() })
	self := slices.IndexFunc(n.Peers, func(p nodeconf.Peer) bool { return p.Name == n.Hostname })
	switch {
	case n.Role != "node" && n.Role != "" && (self < 0 || self != at):
		wrong("hostname %s, address %s: cannot change in a cluster, which knows its nodes by them: build another card", n.Hostname, n.Network.Address)
	case self >= 0 && at >= 0 && self != at:
		wrong("network: address: cannot use %s: it is that of %s", address.Addr(), n.Peers[at].Name)
	}
	id.checkWiFi(n.WiFi, wrong)
	return errors.Join(errs...)
}

func (id Identity) checkWiFi(networks []nodeconf.WiFi, wrong func(string, ...any)) {
	if len(networks) == 0 {
		return
	}
	if _, err := os.Stat(filepath.Join(id.Root, filepath.Dir(wifiFile))); err != nil {
		wrong("wifi: cannot join a network: this card was built without a wifi block")
	}
	for _, w := range networks {
		if n := len(w.SSID); n == 0 || n > 32 {
			wrong("wifi: ssid: cannot use %q: 1 to 32 bytes", w.SSID)
		}
		if n := len(w.PSK); w.PSK != "" && !hexKey.MatchString(w.PSK) && (n < 8 || n > 63) {
			wrong("wifi: psk of %q: cannot use it: 8 to 63 characters, or 64 hex digits", w.SSID)
		}
		if !country.MatchString(w.Country) {
			wrong("wifi: country: cannot use %q: two capital letters, like DE", w.Country)
		}
	}
}
