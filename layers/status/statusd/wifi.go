package statusd

import "strings"

// WrongPassword is the state of a radio that a network keeps turning away;
// that the password is the reason is only likely.
const WrongPassword = "wrong password?"

// readWiFi understands wpa_supplicant's answers to STATUS (lines of
// name=value) and LIST_NETWORKS (a heading, then lines of id, SSID, BSSID and
// flags, divided by tabs).
func readWiFi(status, networks string) WiFi {
	values := map[string]string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	switch values["wpa_state"] {
	case "COMPLETED":
		return WiFi{State: "connected", SSID: values["ssid"]}
	case "INTERFACE_DISABLED":
		return WiFi{State: "switched off"}
	}
	for line := range strings.Lines(networks) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) >= 4 && strings.Contains(f[3], "[TEMP-DISABLED]") {
			return WiFi{State: WrongPassword, SSID: f[1]}
		}
	}
	return WiFi{State: "searching", SSID: values["ssid"]}
}
