package wifi

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/blueprint"
)

// TestKey has the examples of IEEE 802.11-2020, annex J.4.2.
func TestKey(t *testing.T) {
	for _, tt := range []struct{ ssid, psk, want string }{
		{"IEEE", "password", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"},
		{"ThisIsASSID", "ThisIsAPassword", "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af"},
		{"any", "F42C6FC52DF0EBEF9EBB4B90B38A5F902E83FE1B135A70E23AED762E9710A12E", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"},
	} {
		got, err := Key(blueprint.WiFi{SSID: []byte(tt.ssid), PSK: blueprint.Secret(tt.psk)})
		if err != nil || got != tt.want {
			t.Errorf("%s: %s %v", tt.ssid, got, err)
		}
	}
}

func TestConfig(t *testing.T) {
	got, err := Config([]blueprint.WiFi{
		{SSID: []byte("IEEE"), PSK: "password", Security: "auto", Country: "DE", Priority: 10},
		{SSID: []byte{0xff, 0, 0x22}, Security: "open", Country: "DE", Hidden: true},
		{SSID: []byte("new"), PSK: `a"b\c d e`, Security: "wpa3", Country: "DE"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `# Written by picube-build from the blueprint.
ctrl_interface=DIR=/run/wpa_supplicant GROUP=sudo
country=DE
sae_pwe=2

network={
	ssid=49454545
	key_mgmt=WPA-PSK WPA-PSK-SHA256
	proto=RSN
	ieee80211w=1
	psk=f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e
	priority=10
}

network={
	ssid=ff0022
	scan_ssid=1
	key_mgmt=NONE
}

network={
	ssid=6e6577
	key_mgmt=SAE
	ieee80211w=2
	sae_password=6122625c6320642065
}
`
	if diff := cmp.Diff(strings.Replace(want, "\tpriority=10\n", "", 1), strings.Replace(got, "\tpriority=10\n", "", 1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(got, "\tpriority=10\n") || strings.Contains(got, "=\"password") {
		t.Error(got)
	}
}

// TestPassphrase is wpa_passphrase's opinion of a key.
func TestPassphrase(t *testing.T) {
	tool, err := exec.LookPath("wpa_passphrase")
	if err != nil {
		t.Fatal("wpa_passphrase is missing: install wpasupplicant")
	}
	w := blueprint.WiFi{SSID: []byte("Würzburg WLAN"), PSK: "correct horse ~battery"}
	out, err := exec.Command(tool, string(w.SSID), string(w.PSK)).Output()
	if err != nil {
		t.Fatal(err)
	}
	key, err := Key(w)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "\tpsk="+key+"\n") {
		t.Errorf("%s, wpa_passphrase says:\n%s", key, out)
	}
}
