package identityd

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/picube/picube-build/layers/nodeconf"
)

// wifiFile is where the wifi layer lets wpa_supplicant read its networks.
const wifiFile = "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"

// wifi is the configuration of wpa_supplicant (wpa_supplicant.conf(5)).
func wifi(networks []nodeconf.WiFi) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written at each start from picube/node.yaml on the boot partition.\nctrl_interface=DIR=/run/wpa_supplicant\ncountry=%s\nsae_pwe=2\n", networks[0].Country)
	for _, w := range networks {
		fmt.Fprintf(&b, "\nnetwork={\n\tssid=%x\n", w.SSID)
		if w.Hidden {
			b.WriteString("\tscan_ssid=1\n")
		}
		if w.PSK == "" {
			b.WriteString("\tkey_mgmt=NONE\n}\n")
			continue
		}
		fmt.Fprintf(&b, "\tkey_mgmt=WPA-PSK WPA-PSK-SHA256\n\tproto=RSN\n\tieee80211w=1\n\tpsk=%s\n}\n", key(w))
	}
	return b.String()
}

// key is what WPA2 makes of passphrase and name (IEEE 802.11-2020, J.4.1).
func key(w nodeconf.WiFi) string {
	if hexKey.MatchString(w.PSK) {
		return strings.ToLower(w.PSK)
	}
	raw, err := pbkdf2.Key(sha1.New, w.PSK, []byte(w.SSID), 4096, 32)
	if err != nil { // only keys too long or too short are refused
		return ""
	}
	return hex.EncodeToString(raw)
}
