package identityd

import (
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
