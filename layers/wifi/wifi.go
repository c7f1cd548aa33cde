// Package wifi lets nodes join wireless networks, as their way out; the
// cluster keeps to the wire.
//
// Not supported: networks that ask for more than a key (802.1X), access
// points of one's own.
package wifi

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/nodeconf"
)

const (
	// configFile is what wpa_supplicant@wlan0.service reads. It holds keys, so
	// it travels with the node's other secrets.
	configFile = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"
	// wantedBy starts the supplicant when there is a radio: a node without one
	// would wait for it.
	wantedBy    = "/etc/systemd/system/sys-subsystem-net-devices-wlan0.device.wants"
	networkFile = "/etc/systemd/network/20-picube-wifi.network"
	dropIn      = "/etc/systemd/system/wpa_supplicant@.service.d/picube.conf"
)

// network lets the wireless network be the way out where the wire has none. A
// router on the wire has the better metric (systemd's default is 1024), and
// the cluster's addresses are on the wire alone.
const network = `[Match]
Name=wlan0

[Network]
DHCP=yes
LinkLocalAddressing=ipv6

[DHCPv4]
RouteMetric=2048

[IPv6AcceptRA]
RouteMetric=2048

[Link]
RequiredForOnline=no
`

// service keeps the supplicant from nodes that have no network to join, lifts
// a radio's soft block, and lets nothing give up for good.
const service = `[Unit]
ConditionPathExists=/etc/wpa_supplicant/wpa_supplicant-%i.conf
StartLimitIntervalSec=0

[Service]
ExecStartPre=-` + nodeconf.Program + ` unblock
Restart=always
RestartSec=5
`

// Layer sets up wpa_supplicant and networkd.
type Layer struct{}

// Name returns "wifi".
func (Layer) Name() string { return "wifi" }

// Packages returns the supplicant, the radios' firmware and the rules of all
// countries.
func (Layer) Packages(r *plan.Root) []string {
	if len(r.Cube.WiFi) == 0 {
		return nil
	}
	return []string{"firmware-brcm80211", "wireless-regdb", "wpasupplicant"}
}

// Apply sets up what all nodes share.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	if len(r.Cube.WiFi) == 0 {
		return nil
	}
	return errors.Join(
		t.MkdirAll(wantedBy, 0o755),
		t.Symlink("/usr/lib/systemd/system/wpa_supplicant@.service", wantedBy+"/wpa_supplicant@wlan0.service"),
		t.MkdirAll(path.Dir(dropIn), 0o755),
		t.WriteFile(dropIn, []byte(service), 0o644),
		t.MkdirAll(path.Dir(networkFile), 0o755),
		t.WriteFile(networkFile, []byte(network), 0o644),
		t.MkdirAll(path.Dir(configFile), 0o755),
	)
}

// Node puts the node's networks among its secrets.
func (Layer) Node(p *plan.Plan, n *plan.Node, _ *nodeconf.Node, boot *tree.Tree) error {
	cube := p.Cubes[slices.IndexFunc(p.Cubes, func(c *plan.Cube) bool { return c.Spec.Name == n.Cube })].Spec
	var networks []blueprint.WiFi
	for _, w := range cube.WiFi {
		if slices.Contains(w.On, n.Name) {
			networks = append(networks, w)
		}
	}
	if len(networks) == 0 {
		return nil
	}
	text, err := Config(networks)
	if err != nil {
		return err
	}
	file := "/" + path.Join(nodeconf.IdentityDir, configFile)
	return errors.Join(boot.MkdirAll(path.Dir(file), 0o755), boot.WriteFile(file, []byte(text), 0o600))
}

var hashed = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

// Config is the configuration of wpa_supplicant (wpa_supplicant.conf(5)).
// Names are written in hexadecimal: they may hold any bytes. Who may become
// root may ask for the radio's state without that.
func Config(networks []blueprint.WiFi) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by picube-build from the blueprint.\nctrl_interface=DIR=/run/wpa_supplicant GROUP=sudo\ncountry=%s\nsae_pwe=2\n", networks[0].Country)
	for _, w := range networks {
		fmt.Fprintf(&b, "\nnetwork={\n\tssid=%x\n", w.SSID)
		if w.Hidden {
			b.WriteString("\tscan_ssid=1\n")
		}
		if w.Priority > 0 {
			fmt.Fprintf(&b, "\tpriority=%d\n", w.Priority)
		}
		switch w.Security {
		case "open":
			b.WriteString("\tkey_mgmt=NONE\n")
		case "wpa3":
			// SAE derives a key of its own from the passphrase each time, so
			// the card has to hold it.
			fmt.Fprintf(&b, "\tkey_mgmt=SAE\n\tieee80211w=2\n\tsae_password=%x\n", string(w.PSK))
		default:
			key, err := Key(w)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "\tkey_mgmt=WPA-PSK WPA-PSK-SHA256\n\tproto=RSN\n\tieee80211w=1\n\tpsk=%s\n", key)
		}
		b.WriteString("}\n")
	}
	return b.String(), nil
}

// Key is the network's key, 64 hexadecimal digits: what WPA2 makes of a
// passphrase (IEEE 802.11-2020, annex J.4), so that the passphrase itself, which
// may open other doors too, is on no card.
func Key(w blueprint.WiFi) (string, error) {
	if hashed.MatchString(string(w.PSK)) {
		return strings.ToLower(string(w.PSK)), nil
	}
	key, err := pbkdf2.Key(sha1.New, string(w.PSK), w.SSID, 4096, 32)
	if err != nil {
		return "", fmt.Errorf("Wi-Fi %q: cannot make its key: %w", w.SSID, err)
	}
	return hex.EncodeToString(key), nil
}
