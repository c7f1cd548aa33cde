package blueprint

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones are checked without the host's files

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/text/language"
)

var (
	pskHex     = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	serverName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.:-]{0,251}[a-zA-Z0-9])?$`)
)

func (s *section) time(t *Time) {
	b := s.one("time")
	if b == nil {
		return
	}
	s = s.section(b, s.ctx, []string{"zone", "servers"})
	if s.text("zone", &t.Zone) {
		if _, err := time.LoadLocation(t.Zone); err != nil || t.Zone == "" || t.Zone == "Local" {
			s.errorf(s.at("zone"), "Unknown time zone", `There is no time zone %q; zones are called by continent and city, like "Europe/Berlin".`, t.Zone)
		}
	}
	if s.list("servers", &t.Servers) {
		s.each("servers", "Invalid time server", t.Servers, func(name string) string {
			if !serverName.MatchString(name) {
				return fmt.Sprintf("%q is neither a host name nor an address.", name)
			}
			return ""
		})
	}
}

// defaultPort is where the status page is.
const defaultPort = 8080

func (s *section) status() *Status {
	b := s.one("status")
	if b == nil {
		return nil
	}
	st := &Status{Port: defaultPort}
	s.section(b, s.ctx, []string{"port"}).integer("port", &st.Port, 1, 65535)
	return st
}

func (s *section) wifis(nodes []*Node) []WiFi {
	var list []WiFi
	country, countryAt := "", hcl.Range{}
	for _, b := range s.blocks.OfType("wifi") {
		s := s.section(b, s.ctx, []string{"ssid", "ssid_hex", "psk", "security", "country!", "hidden", "priority", "on"})
		w := WiFi{Security: "auto", Range: b.DefRange}
		s.ssid(&w)
		s.choice("security", &w.Security, "auto", "wpa2", "wpa3", "open")
		s.psk(&w)
		if s.text("country", &w.Country) {
			if why := checkCountry(w.Country); why != "" {
				s.errorf(s.at("country"), "Unknown country", "%s", why)
			} else if country == "" {
				country, countryAt = w.Country, b.DefRange
			} else if w.Country != country {
				s.errorf(s.at("country"), "Different countries", "A radio obeys the rules of one country, and %s says %q.", countryAt, country)
			}
		}
		s.boolean("hidden", &w.Hidden)
		s.integer("priority", &w.Priority, 0, 1000)
		w.On = s.nodesOf(nodes, names(nodes))
		for _, n := range nodes {
			if board, ok := s.boardByName(n.Board); ok && !board.WiFi && slices.Contains(w.On, n.Name) {
				s.errorf(s.at("on"), "Board without Wi-Fi", `The node %q is a %s, which has no Wi-Fi. List the nodes that have it in "on".`, n.Name, n.Board)
				break
			}
		}
		list = append(list, w)
	}
	return list
}

// ssid reads a network's name. IEEE 802.11 allows any 1 to 32 bytes, HCL's
// text is UTF-8: the rest is written in hexadecimal.
func (s *section) ssid(w *WiFi) {
	var text, digits string
	given := s.text("ssid", &text)
	givenHex := s.text("ssid_hex", &digits)
	at := "ssid"
	switch {
	case s.has("ssid") && s.has("ssid_hex"):
		s.errorf(s.at("ssid_hex"), "Two names", `Give either "ssid" or "ssid_hex".`)
		return
	case !s.has("ssid") && !s.has("ssid_hex"):
		s.errorf(s.header, "Missing required argument", `The argument "ssid" is required, but no definition was found.`)
		return
	case given:
		w.SSID = []byte(text)
	case givenHex:
		at = "ssid_hex"
		raw, err := hex.DecodeString(digits)
		if err != nil {
			s.errorf(s.at(at), "Invalid SSID", `"ssid_hex" must be an even number of hexadecimal digits.`)
			return
		}
		w.SSID = raw
	default:
		return
	}
	if len(w.SSID) < 1 || len(w.SSID) > 32 {
		s.errorf(s.at(at), "Invalid SSID", "The name of a wireless network has 1 to 32 bytes, this one has %d.", len(w.SSID))
	}
}

// psk reads a passphrase or key; its text never stands in a message.
func (s *section) psk(w *WiFi) {
	given := s.secret("psk", &w.PSK)
	switch {
	case w.Security == "open":
		if s.has("psk") {
			s.errorf(s.at("psk"), "Open network with a key", `A network with security = "open" has no "psk".`)
		}
		return
	case !s.has("psk"):
		s.errorf(s.header, "Network without a key", `Give the network's passphrase as "psk", or say security = "open".`)
		return
	case !given:
		return
	}
	psk := string(w.PSK)
	if w.Security == "wpa3" {
		s.add(&hcl.Diagnostic{
			Severity: hcl.DiagWarning, Summary: "Passphrase in clear", Subject: s.at("security").Ptr(),
			Detail: "WPA3 works with the passphrase alone, not with its hash, so it will lie in clear on the card, readable for root. " +
				`Where the network speaks WPA2 too, security = "auto" needs the hash only.`,
		})
	}
	if pskHex.MatchString(psk) && w.Security != "wpa3" {
		return
	}
	printable := strings.IndexFunc(psk, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	switch {
	case len(psk) < 8 || len(psk) > 63:
		s.errorf(s.at("psk"), "Invalid passphrase", "A passphrase has 8 to 63 characters (or 64 hexadecimal digits with WPA2), this one has %d.", len(psk))
	case !printable:
		s.errorf(s.at("psk"), "Invalid passphrase", "A passphrase has ASCII characters only (IEEE 802.11, annex J.4).")
	}
}

func checkCountry(code string) string {
	region, err := language.ParseRegion(code)
	region = region.Canonicalize() // UK is GB
	hint := ""
	if err == nil && region.IsCountry() && len(region.String()) == 2 {
		if region.String() == code {
			return ""
		}
		hint = fmt.Sprintf(" Did you mean %q?", region)
	}
	return fmt.Sprintf("%q isn't the two-letter code of a country (ISO 3166-1), like \"DE\" or \"US\".%s", code, hint)
}
