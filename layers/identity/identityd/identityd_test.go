package identityd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/picube/picube-build/layers/nodeconf"
)

func card(t *testing.T, change func(*nodeconf.Node)) Identity {
	t.Helper()
	n := &nodeconf.Node{
		Hostname: "rpi3", MachineID: strings.Repeat("ab", 16), Cube: "picube",
		Network: nodeconf.Network{Interface: "eth0", Address: "10.42.1.3/16", DHCP: true},
		Peers:   []nodeconf.Peer{{Name: "rpi1", Address: "10.42.1.1"}, {Name: "rpi3", Address: "10.42.1.3"}},
	}
	if change != nil {
		change(n)
	}
	id := Identity{Root: t.TempDir(), Boot: t.TempDir(), Disk: "1a2b3c4d"}
	yaml, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(id.Boot, nodeconf.Path), string(yaml))
	put(t, filepath.Join(id.Boot, nodeconf.IdentityDir, "etc/ssh/ssh_host_ed25519_key"), "secret")
	put(t, filepath.Join(id.Root, "etc/machine-id"), "uninitialized\n")
	put(t, filepath.Join(id.Root, "etc/fstab"), "LABEL=rootfs / ext4\nLABEL=bootfs /boot/firmware vfat\n")
	return id
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestApply(t *testing.T) {
	id := card(t, nil)
	for range 2 { // the second start finds everything done
		if _, err := id.Apply(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"etc/hostname":                 "rpi3\n",
		"etc/machine-id":               strings.Repeat("ab", 16) + "\n",
		"etc/ssh/ssh_host_ed25519_key": "secret",
		"etc/fstab":                    "PARTUUID=1a2b3c4d-02 / ext4\nPARTUUID=1a2b3c4d-01 /boot/firmware vfat\n",
	} {
		got, err := os.ReadFile(filepath.Join(id.Root, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	info, err := os.Stat(filepath.Join(id.Root, "etc/ssh/ssh_host_ed25519_key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("host key: %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(id.Boot, nodeconf.IdentityDir)); !os.IsNotExist(err) {
		t.Errorf("the secrets are still on the boot partition: %v", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(*nodeconf.Node)
		want   string
	}{
		"host name":  {func(n *nodeconf.Node) { n.Hostname = "../etc" }, "hostname"},
		"machine id": {func(n *nodeconf.Node) { n.MachineID = "0" }, "machineID"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			id := card(t, test.change)
			if _, err := id.Apply(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %s", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(id.Root, "etc/hostname")); err == nil {
				t.Error("something was applied all the same")
			}
		})
	}
}

// TestEdited edits node.yaml on a card that has started before.
func TestEdited(t *testing.T) {
	wifi := []nodeconf.WiFi{{SSID: "WLAN", PSK: "correct horse", Country: "DE", Hidden: true}, {SSID: "open", Country: "DE"}}
	for _, tt := range []struct {
		name, text string // text: instead of a change
		change     func(*nodeconf.Node)
		want       string            // the error, empty: it is applied
		files      map[string]string // what is on the card then
	}{
		{"name and address", "", func(n *nodeconf.Node) {
			n.Hostname, n.Network.Address, n.Network.DNS = "kitchen", "10.42.1.30/16", []string{"192.168.1.1"}
		}, "", map[string]string{
			"etc/hostname":                          "kitchen\n",
			"etc/systemd/network/10-picube.network": "# Written at each start from picube/node.yaml on the boot partition.\n[Match]\nName=eth0\n\n[Network]\nAddress=10.42.1.30/16\nDHCP=yes\nDNS=192.168.1.1\nLinkLocalAddressing=ipv6\nConfigureWithoutCarrier=yes\n\n[Link]\nRequiredForOnline=no\n",
		}},
		{"name alone", "", func(n *nodeconf.Node) { n.Hostname = "kitchen" }, "", map[string]string{
			"etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tkitchen\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n\n# The nodes of this cluster on the cubes' wire.\n10.42.1.1\trpi1\n10.42.1.3\tkitchen\n",
		}},
		{"wifi", "", func(n *nodeconf.Node) { n.WiFi = wifi }, "", map[string]string{
			"etc/wpa_supplicant/wpa_supplicant-wlan0.conf": "# Written at each start from picube/node.yaml on the boot partition.\nctrl_interface=DIR=/run/wpa_supplicant\ncountry=DE\nsae_pwe=2\n\nnetwork={\n\tssid=574c414e\n\tscan_ssid=1\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256\n\tproto=RSN\n\tieee80211w=1\n\tpsk=KEY\n}\n\nnetwork={\n\tssid=6f70656e\n\tkey_mgmt=NONE\n}\n",
		}},
		{"no YAML", "hostname: [", nil, "node.yaml: yaml: line 1: did not find expected node content", nil},
		{"unknown keys", "hostnme: x\nnetwork:\n  addr: y\n", nil, "node.yaml: line 1: field hostnme not found\nnode.yaml: line 3: field addr not found", nil},
		{"empty", "", nil, "node.yaml: EOF", nil},
		{"everything wrong", "", func(n *nodeconf.Node) {
			n.Hostname, n.MachineID, n.Network = "Kitchen!", "1", nodeconf.Network{Interface: "eth 0", Address: "10.42.1.3", DNS: []string{"router"}}
			n.WiFi = []nodeconf.WiFi{{PSK: "short", Country: "Germany"}}
		}, `node.yaml: hostname: cannot use "Kitchen!": lower-case letters, digits and hyphens, at most 63
node.yaml: machineID: cannot use it: 32 lower-case hex digits
node.yaml: network: interface: cannot use "eth 0"
node.yaml: network: address: cannot use "10.42.1.3": an IPv4 address with the length of its network, like 10.42.1.3/16
node.yaml: network: dns: cannot use "router": an address, like 192.168.1.1
node.yaml: wifi: ssid: cannot use "": 1 to 32 bytes
node.yaml: wifi: psk of "": cannot use it: 8 to 63 characters, or 64 hex digits
node.yaml: wifi: country: cannot use "Germany": two capital letters, like DE`, nil},
		{"another's address", "", func(n *nodeconf.Node) { n.Network.Address = "10.42.1.1/16" }, "node.yaml: network: address: cannot use 10.42.1.1: it is that of rpi1", nil},
		{"in a cluster", "", func(n *nodeconf.Node) { n.Role, n.Hostname = "worker", "kitchen" },
			"node.yaml: hostname kitchen, address 10.42.1.3/16: cannot change in a cluster, which knows its nodes by them: build another card", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := card(t, nil)
			put(t, filepath.Join(id.Root, "etc/wpa_supplicant/README"), "")
			if _, err := id.Apply(); err != nil {
				t.Fatal(err)
			}
			text := tt.text
			if tt.change != nil {
				edited, err := os.ReadFile(filepath.Join(card(t, tt.change).Boot, nodeconf.Path))
				if err != nil {
					t.Fatal(err)
				}
				text = string(edited)
			}
			put(t, filepath.Join(id.Boot, nodeconf.Path), text)
			n, err := id.Apply()
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Err.Error() != tt.want {
					t.Fatalf("got  %v\nwant %s", err, tt.want)
				}
				tt.files = map[string]string{"etc/hostname": "rpi3\n"}
				if n == nil || n.Hostname != "rpi3" {
					t.Errorf("the node is %v", n)
				}
			}
			for name, want := range tt.files {
				want = strings.Replace(want, "KEY", "e1cf409e7e87c36c9eed68051a39f9d08b03751b0a49d1e22a19c4281d320c21", 1)
				if got, err := os.ReadFile(filepath.Join(id.Root, name)); err != nil || string(got) != want {
					t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, got, want)
				}
			}
		})
	}
}

// TestWiFiNeedsLayer adds a network to a card that can't join any.
func TestWiFiNeedsLayer(t *testing.T) {
	id := card(t, func(n *nodeconf.Node) { n.WiFi = []nodeconf.WiFi{{SSID: "WLAN", Country: "DE"}} })
	if _, err := id.Apply(); err == nil || err.Error() != "node.yaml: wifi: cannot join a network: this card was built without a wifi block" {
		t.Error(err)
	}
}
