// Package fan cools nodes.
package fan

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/fan/fand"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-fan.service
var service []byte

// overlay is the name of the device tree overlay for a PWM line.
const overlay = "picube-fan"

// Layer installs the fan's daemon where the blueprint has a fan, and tells the
// firmware, which runs long before, to let it turn.
type Layer struct{}

// Name returns "fan".
func (Layer) Name() string { return fand.Section }

// Packages returns nothing: picube-node asks the kernel itself.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply installs the unit, and lets config.txt include the node's own lines.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	fans := r.Cube.Fans
	if len(fans) == 0 {
		return nil
	}
	return errors.Join(firmware.IncludeOwn(t), unit.Install(t, "picube-fan.service", service))
}

// Node writes the node's fans into node.yaml and its lines for config.txt.
func (Layer) Node(p *plan.Plan, n *plan.Node, conf *nodeconf.Node, boot *tree.Tree) error {
	board, ok := firmware.Lookup(n.Board)
	if !ok {
		return fmt.Errorf("cannot find board %q", n.Board)
	}
	cube := p.Cubes[slices.IndexFunc(p.Cubes, func(c *plan.Cube) bool { return c.Spec.Name == n.Cube })].Spec
	var section fand.Config
	var lines []string
	for _, f := range cube.Fans {
		if !slices.Contains(f.On, n.Name) {
			continue
		}
		section.Fans = append(section.Fans, configure(f, board))
		if f.Sensor == "cube" && cube.Status != nil {
			section.StatusPort = cube.Status.Port
		}
		if f.Kind == "pwm" {
			lines = append(lines, fmt.Sprintf("dtoverlay=%s-%d", overlay, f.Pin))
			file := fmt.Sprintf("/overlays/%s-%d.dtbo", overlay, f.Pin)
			if err := errors.Join(boot.MkdirAll("/overlays", 0o755),
				boot.WriteFile(file, firmware.PWMOverlay(board.Header.PWM[f.Pin]), 0o644)); err != nil {
				return err
			}
		}
		lines = append(lines, configTxt(f)...)
	}
	if len(section.Fans) == 0 {
		return nil
	}
	if board.IsPi() && len(lines) > 0 {
		if err := boot.WriteFile("/"+firmware.OwnConfig, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return conf.SetLayer(fand.Section, section)
}

func configure(f blueprint.Fan, board firmware.Board) fand.Fan {
	out := fand.Fan{Kind: f.Kind}
	if f.Kind != "gpio" && f.Kind != "pwm" {
		return out
	}
	out.Chip, out.Pin, out.Start, out.Stop, out.Full, out.MinDuty, out.Sensor = board.Header.GPIO, f.Pin, f.Start, f.Stop, f.Full, f.MinDuty, f.Sensor
	if f.Kind == "pwm" {
		out.Device, out.Channel = firmware.PWMNode, board.Header.PWM[f.Pin].Channel
	}
	if f.Tach >= 0 {
		out.Tach = &f.Tach
	}
	return out
}

// configTxt is what the firmware does for a fan
// (https://www.raspberrypi.com/documentation/computers/config_txt.html, gpio
// and dtparam): a pin is high from the first seconds on, the tachometer's is
// pulled up, and the Pi 5's own header follows four temperatures.
func configTxt(f blueprint.Fan) []string {
	var lines []string
	if f.Kind == "gpio" || f.Kind == "pwm" {
		lines = append(lines, fmt.Sprintf("gpio=%d=op,dh", f.Pin))
	}
	if f.Tach >= 0 {
		lines = append(lines, fmt.Sprintf("gpio=%d=ip,pu", f.Tach))
	}
	if f.Kind == "firmware" {
		lines = append(lines, "dtparam=cooling_fan=on")
		for i, speed := range []int{75, 125, 175, 255} {
			milli := int((f.Start + (f.Full-f.Start)*float64(i)/3) * 1000)
			lines = append(lines,
				fmt.Sprintf("dtparam=fan_temp%d=%d", i, milli),
				fmt.Sprintf("dtparam=fan_temp%d_hyst=5000", i),
				fmt.Sprintf("dtparam=fan_temp%d_speed=%d", i, speed))
		}
	}
	return lines
}
