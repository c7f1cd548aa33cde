package blueprint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Pins of the header are called by their GPIO numbers, 0 to 27.
const (
	lastPin = 27
	noPin   = -1
)

func (s *section) fans(nodes []*Node) []Fan {
	var list []Fan
	for _, b := range s.blocks.OfType("fan") {
		f := Fan{Kind: b.Labels[0], Pin: noPin, Tach: noPin, Range: b.DefRange}
		switch f.Kind {
		case "gpio":
			s := s.section(b, s.ctx, []string{"on", "pin", "start", "stop", "tach", "sensor"})
			f.Pin, f.Start, f.Stop = 18, 60, 50
			s.pins(&f)
			s.temperatures("stop", &f.Stop, "start", &f.Start)
			f.On = s.nodesOf(nodes, firstOf(nodes))
			s.checkFan(&f, nodes)
		case "pwm":
			s := s.section(b, s.ctx, []string{"on", "pin", "start", "stop", "full", "min_duty", "tach", "sensor"})
			f.Pin, f.Start, f.Stop, f.Full, f.MinDuty = 18, 55, 50, 70, 0.3
			s.pins(&f)
			s.temperatures("stop", &f.Stop, "start", &f.Start)
			s.temperatures("start", &f.Start, "full", &f.Full)
			s.number("min_duty", &f.MinDuty, 0, 1)
			f.On = s.nodesOf(nodes, firstOf(nodes))
			s.checkFan(&f, nodes)
		case "firmware":
			s := s.section(b, s.ctx, []string{"on", "start", "full"})
			f.Start, f.Full = 50, 70
			s.temperatures("start", &f.Start, "full", &f.Full)
			f.On = s.nodesOf(nodes, names(nodes))
			s.checkFan(&f, nodes)
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
	f.Sensor = "soc"
	s.choice("sensor", &f.Sensor, "soc", "cube")
}

// temperatures reads a pair of which the first must be the lower one.
func (s *section) temperatures(low string, lowDst *float64, high string, highDst *float64) {
	given := s.number(low, lowDst, 0, 100)
	given = s.number(high, highDst, 0, 100) || given
	if given && *lowDst >= *highDst {
		s.errorf(s.at(high), "Temperatures reversed", "%q (%g °C) must be below %q (%g °C).", low, *lowDst, high, *highDst)
	}
}

// checkFan finds the first board that can't have such a fan.
func (s *section) checkFan(f *Fan, nodes []*Node) {
	for _, n := range nodes {
		board, ok := s.boardByName(n.Board)
		if !ok || !slices.Contains(f.On, n.Name) {
			continue
		}
		_, hasPWM := board.PWM[f.Pin]
		switch {
		case f.Kind == "firmware" && !board.FanHeader:
			s.errorf(s.at("on"), "Board without a fan header", `The node %q is a %s, whose firmware drives no fan. Use fan "gpio", "pwm" or "always", or list the nodes that have a header in "on".`, n.Name, n.Board)
			return
		case f.Kind == "pwm" && len(board.PWM) == 0:
			s.errorf(s.at("on"), "Board without PWM", `The node %q is a %s, which has no PWM. Use fan "gpio".`, n.Name, n.Board)
			return
		case f.Kind == "pwm" && f.Pin != noPin && !hasPWM:
			s.errorf(s.at("pin"), "Pin without PWM", "GPIO %d of a %s has no PWM. Choose from: %s.", f.Pin, n.Board, joinInts(board.PWM))
			return
		case f.Kind == "gpio" || f.Kind == "pwm":
			for _, p := range []struct {
				name string
				pin  int
			}{{"pin", f.Pin}, {"tach", f.Tach}} {
				if p.pin >= board.Pins {
					s.errorf(s.at(p.name), "Pin missing", "The node %q is a %s, which has the GPIO lines 0 to %d.", n.Name, n.Board, board.Pins-1)
					return
				}
			}
		}
	}
}

// checkSensors refuses a fan that asks other nodes which tell nobody.
func (s *section) checkSensors(c *Cube) {
	for _, f := range c.Fans {
		if f.Sensor == "cube" && c.Status == nil {
			s.errorf(f.Range, "Nodes tell no temperature", `With sensor = "cube" the fan follows the hottest node, and nodes tell their temperature on their status page. Add the block: status {}.`)
		}
	}
}

// checkPins finds pins of a node's header that two things want, and the other
// things that only one can have: PWM channels and addresses.
func (s *section) checkPins(c *Cube) {
	boards := map[string]Board{}
	for _, n := range c.Nodes {
		boards[n.Name], _ = s.boardByName(n.Board)
	}
	type thing struct {
		node string
		name string
	}
	taken := map[thing]string{}
	for node, b := range boards {
		for pin, by := range b.Taken {
			taken[thing{node, gpio(pin)}] = by
		}
	}
	reported := map[hcl.Range]bool{}
	take := func(node, name, by string, at hcl.Range) {
		if reported[at] {
			return
		}
		k := thing{node, name}
		if owner, ok := taken[k]; ok && owner != by {
			summary := "Pin used twice"
			if !strings.HasPrefix(name, "GPIO") {
				summary = "PWM used twice"
			}
			s.errorf(at, summary, "On %q, %s is used by %s already, so %s can't have it.", node, name, owner, by)
			reported[at] = true
		}
		taken[k] = by
	}
	for _, d := range c.Displays {
		for _, node := range d.On {
			if pins, ok := boards[node].I2C[d.Bus]; ok && d.Kind == "hd44780" {
				by := fmt.Sprintf("I2C bus %d", d.Bus)
				take(node, gpio(pins[0]), by, d.Range)
				take(node, gpio(pins[1]), by, d.Range)
			}
		}
	}
	for i, f := range c.Fans {
		for _, node := range f.On {
			by := fmt.Sprintf("fan %d", i+1)
			if f.Pin != noPin {
				take(node, gpio(f.Pin), by, f.Range)
			}
			if channel, ok := boards[node].PWM[f.Pin]; ok && f.Kind == "pwm" {
				take(node, fmt.Sprintf("PWM channel %d", channel), by, f.Range)
			}
			if f.Tach != noPin {
				take(node, gpio(f.Tach), "the tachometer of "+by, f.Range)
			}
		}
	}
	s.checkDisplays(c.Displays)
}

func gpio(pin int) string { return fmt.Sprintf("GPIO %d", pin) }

// checkDisplays finds displays of one node that can't be told apart.
func (s *section) checkDisplays(displays []Display) {
	seen := map[string]hcl.Range{}
	for _, d := range displays {
		if d.Kind == "hd44780" && d.Address == 0 {
			continue // wrong and reported
		}
		for _, node := range d.On {
			k := fmt.Sprintf("%s %s %d %d", d.Kind, node, d.Bus, d.Address)
			first, ok := seen[k]
			switch {
			case !ok:
				seen[k] = d.Range
			case d.Kind == "console":
				s.errorf(d.Range, "Duplicate display", "On %q, the console is the display at %s already.", node, first)
			default:
				s.errorf(d.Range, "Address used twice", "On %q, the display at %s has the I2C address 0x%02x already.", node, first, d.Address)
			}
		}
	}
}
