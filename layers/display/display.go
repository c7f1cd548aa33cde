// Package display gives nodes a face: an LCD on I2C, or the screen.
package display

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/display/displayd"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-display.service
var service []byte

// farewell is run by systemd when nothing else runs any more and the file
// systems are written (systemd-shutdown(8)); $1 is "poweroff", "halt" or
// "reboot".
const farewell = `#!/bin/sh
[ "$1" = reboot ] || exec ` + nodeconf.Program + ` farewell
`

const (
	farewellFile = "/usr/lib/systemd/system-shutdown/picube-display"
	modulesFile  = "/usr/lib/modules-load.d/picube-display.conf"
)

// modules are loaded by nobody else: i2c-dev has no device of its own that
// udev could see. The bus's driver is loaded through the device tree.
const modules = "i2c-dev\n"

// Layer installs the display's daemon where the blueprint has a display.
type Layer struct{}

// Name returns "display".
func (Layer) Name() string { return displayd.Section }

// Packages returns nothing: picube-node asks the kernel itself.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply installs the unit. On nodes of the cube without a display it stays
// unused.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	if len(r.Cube.Displays) == 0 {
		return nil
	}
	return errors.Join(
		t.MkdirAll("/usr/lib/modules-load.d", 0o755),
		t.WriteFile(modulesFile, []byte(modules), 0o644),
		t.MkdirAll("/usr/lib/systemd/system-shutdown", 0o755),
		t.WriteFile(farewellFile, []byte(farewell), 0o755),
		unit.Install(t, "picube-display.service", service),
	)
}

// Node writes the node's displays into node.yaml.
func (Layer) Node(p *plan.Plan, n *plan.Node, conf *nodeconf.Node, _ *tree.Tree) error {
	board, ok := firmware.Lookup(n.Board)
	if !ok {
		return fmt.Errorf("cannot find board %q", n.Board)
	}
	cube := p.Cubes[slices.IndexFunc(p.Cubes, func(c *plan.Cube) bool { return c.Spec.Name == n.Cube })].Spec
	var section displayd.Config
	for _, d := range cube.Displays {
		if slices.Contains(d.On, n.Name) {
			section.Displays = append(section.Displays, Configure(d, board))
		}
	}
	if len(section.Displays) == 0 {
		return nil
	}
	return conf.SetLayer(displayd.Section, section)
}

// Configure turns a blueprint's display into the daemon's.
func Configure(d blueprint.Display, board firmware.Board) displayd.Display {
	out := displayd.Display{
		Kind: d.Kind, Bus: d.Bus, Controller: board.Header.I2C[d.Bus].Controller, Address: int(d.Address),
		Columns: d.Columns, Rows: d.Rows, Seconds: d.Seconds, Backlight: d.Backlight, Farewell: d.Farewell,
	}
	if d.Kind == "console" {
		out.Bus, out.Controller = 0, ""
	}
	for _, p := range d.Pages {
		out.Pages = append(out.Pages, displayd.Page{Lines: p.Lines})
	}
	for _, g := range d.Glyphs {
		out.Glyphs = append(out.Glyphs, displayd.Glyph{Name: g.Name, Rows: g.Rows})
	}
	return out
}
