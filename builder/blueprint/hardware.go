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
	// The modules that exist, columns by rows.
	geometries = []string{"16x1", "16x2", "20x2", "20x4", "40x2"}
)

// Pins of the header are called by their GPIO numbers, 0 to 27.
const (
	lastPin = 27
	noPin   = -1
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

func (s *section) displays(nodes []*Node) []Display {
	var list []Display
	for _, b := range s.blocks.OfType("display") {
		d := Display{Kind: b.Labels[0], Range: b.DefRange}
		switch d.Kind {
		case "hd44780":
			s := s.section(b, s.ctx, []string{"on", "address", "bus", "columns", "rows"})
			address := 0x27
			d.Bus, d.Columns, d.Rows = 1, 16, 2
			// The 7-bit addresses that I2C doesn't reserve.
			if s.integer("address", &address, 0x03, 0x77) || !s.has("address") {
				d.Address = uint8(address)
			}
			s.integer("bus", &d.Bus, 0, 22)
			s.integer("columns", &d.Columns, 1, 40)
			s.integer("rows", &d.Rows, 1, 4)
			if g := fmt.Sprintf("%dx%d", d.Columns, d.Rows); !slices.Contains(geometries, g) {
				s.errorf(s.at("columns"), "Unknown display size", "There is no display of %d columns and %d rows. Choose from: %s.", d.Columns, d.Rows, strings.Join(geometries, ", "))
			}
			d.On = s.nodesOf(nodes, firstOf(nodes))
		case "console":
			d.On = s.section(b, s.ctx, []string{"on"}).nodesOf(nodes, names(nodes))
		default:
			kinds := []string{"hd44780", "console"}
			s.errorf(b.LabelRanges[0], "Unknown display", "There is no display %q.%s Choose from: %s.", d.Kind, didYouMean(d.Kind, kinds), strings.Join(kinds, ", "))
		}
		list = append(list, d)
	}
	return list
}

func firstOf(nodes []*Node) []string {
	if len(nodes) == 0 {
		return nil
	}
	return []string{nodes[0].Name}
}

func (s *section) fans(nodes []*Node) []Fan {
	var list []Fan
	for _, b := range s.blocks.OfType("fan") {
		f := Fan{Kind: b.Labels[0], Pin: noPin, Tach: noPin, Range: b.DefRange}
		switch f.Kind {
		case "gpio":
			s := s.section(b, s.ctx, []string{"on", "pin", "start", "stop", "tach"})
			f.Pin, f.Start, f.Stop = 18, 60, 50
			s.pins(&f)
			s.temperatures("stop", &f.Stop, "start", &f.Start)
			f.On = s.nodesOf(nodes, firstOf(nodes))
		case "pwm":
			s := s.section(b, s.ctx, []string{"on", "pin", "start", "stop", "full", "min_duty", "tach"})
			f.Pin, f.Start, f.Stop, f.Full, f.MinDuty = 18, 55, 50, 70, 0.3
			s.pins(&f)
			s.temperatures("stop", &f.Stop, "start", &f.Start)
			s.temperatures("start", &f.Start, "full", &f.Full)
			s.number("min_duty", &f.MinDuty, 0, 1)
			f.On = s.nodesOf(nodes, firstOf(nodes))
		case "firmware":
			s := s.section(b, s.ctx, []string{"on", "start", "full"})
			f.Start, f.Full = 50, 70
			s.temperatures("start", &f.Start, "full", &f.Full)
			f.On = s.nodesOf(nodes, names(nodes))
		case "always":
			f.On = s.section(b, s.ctx, []string{"on"}).nodesOf(nodes, names(nodes))
		default:
			kinds := []string{"gpio", "pwm", "firmware", "always"}
			s.errorf(b.LabelRanges[0], "Unknown fan", "There is no fan %q.%s Choose from: %s.", f.Kind, didYouMean(f.Kind, kinds), strings.Join(kinds, ", "))
		}
		list = append(list, f)
	}
	return list
}

func (s *section) pins(f *Fan) {
	if !s.integer("pin", &f.Pin, 0, lastPin) && s.has("pin") {
		f.Pin = noPin
	}
	s.integer("tach", &f.Tach, 0, lastPin)
}

// temperatures reads a pair of which the first must be the lower one.
func (s *section) temperatures(low string, lowDst *float64, high string, highDst *float64) {
	given := s.number(low, lowDst, 0, 100)
	given = s.number(high, highDst, 0, 100) || given
	if given && *lowDst >= *highDst {
		s.errorf(s.at(high), "Temperatures reversed", "%q (%g °C) must be below %q (%g °C).", low, *lowDst, high, *highDst)
	}
}

// checkPins finds pins of a node's header that two things want.
func (s *section) checkPins(c *Cube) {
	type pin struct {
		node   string
		number int
	}
	taken := map[pin]string{}
	for _, n := range c.Nodes {
		taken[pin{n.Name, 14}], taken[pin{n.Name, 15}] = "the serial console", "the serial console"
	}
	reported := map[hcl.Range]bool{}
	take := func(on []string, number int, by string, at hcl.Range) {
		for _, node := range on {
			if number == noPin || reported[at] {
				continue
			}
			if owner, ok := taken[pin{node, number}]; ok && owner != by {
				s.errorf(at, "Pin used twice", "On %q, GPIO %d is used by %s already, so %s can't have it.", node, number, owner, by)
				reported[at] = true
			}
			taken[pin{node, number}] = by
		}
	}
	for _, d := range c.Displays {
		if d.Kind == "hd44780" && d.Bus <= 1 {
			by := fmt.Sprintf("I2C bus %d", d.Bus)
			take(d.On, d.Bus*2, by, d.Range)
			take(d.On, d.Bus*2+1, by, d.Range)
		}
	}
	for i, f := range c.Fans {
		take(f.On, f.Pin, fmt.Sprintf("fan %d", i+1), f.Range)
		take(f.On, f.Tach, fmt.Sprintf("the tachometer of fan %d", i+1), f.Range)
	}
	lcds := map[string]hcl.Range{}
	for _, d := range c.Displays {
		for _, node := range d.On {
			k := fmt.Sprintf("%s %d %d", node, d.Bus, d.Address)
			if d.Address == 0 {
				continue // not on the bus, or wrong and reported
			}
			if first, ok := lcds[k]; ok {
				s.errorf(d.Range, "Address used twice", "On %q, the display at %s has the I2C address 0x%02x already.", node, first, d.Address)
				continue
			}
			lcds[k] = d.Range
		}
	}
}
