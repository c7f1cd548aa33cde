package statusd

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// WrongPassword is the state of a radio that a network keeps turning away;
// that the password is the reason is only likely.
const WrongPassword = "wrong password?"

// readWiFi understands wpa_supplicant's answers to STATUS (lines of
// name=value) and LIST_NETWORKS (a heading, then lines of id, SSID, BSSID and
// flags, divided by tabs).
func readWiFi(status, networks string) WiFi {
	values := map[string]string{}
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		values[key] = value
	}
	switch values["wpa_state"] {
	case "COMPLETED":
		return WiFi{State: "connected", SSID: name(values["ssid"])}
	case "INTERFACE_DISABLED":
		return WiFi{State: "switched off"}
	}
	for line := range strings.Lines(networks) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) >= 4 && strings.Contains(f[3], "[TEMP-DISABLED]") {
			return WiFi{State: WrongPassword, SSID: name(f[1])}
		}
	}
	return WiFi{State: "searching", SSID: name(values["ssid"])}
}

// name is a network's name, of which wpa_supplicant escapes all bytes that are
// no ASCII character, and quotation marks. A name that is no text stays
// escaped.
func name(escaped string) string {
	plain, err := strconv.Unquote(`"` + escaped + `"`)
	if err != nil || !utf8.ValidString(plain) || strings.ContainsFunc(plain, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return escaped
	}
	return plain
}
