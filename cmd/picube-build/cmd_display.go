package main

import (
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/display"
	"github.com/picube/picube-build/layers/display/displayd"
	"github.com/picube/picube-build/layers/display/hd44780sim"
	"github.com/picube/picube-build/layers/status/statusd"
)

func (c *cli) displayCommand() *cobra.Command {
	var vars variableFlags
	var out string
	cmd := &cobra.Command{
		Use:   "display BLUEPRINT",
		Short: "Paint what a blueprint's LCDs will show",
		Long: `Paint what a blueprint's LCDs will show: one picture for each screen, with
made-up values, through the display's own driver and a simulated module.`,
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(_ *cobra.Command, args []string) error {
			bp, err := c.load(args[0], vars)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			return c.paint(bp, out)
		},
	}
	vars.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "out/display", "write the pictures into this `folder`")
	return cmd
}

func (c *cli) paint(bp *blueprint.Blueprint, out string) error {
	painted := 0
	for _, cube := range bp.Cubes {
		for i, d := range cube.Displays {
			if d.Kind != "hd44780" || len(d.On) == 0 {
				continue
			}
			screens, err := displayd.Screens(display.Configure(d, firmware.Board{}), sampleStatus(cube, d.On[0]), time.Date(2026, 7, 14, 15, 9, 0, 0, time.UTC))
			if err != nil {
				return err
			}
			for n, lines := range screens {
				name := filepath.Join(out, fmt.Sprintf("%s-display%d-%02d.png", cube.Name, i+1, n+1))
				if err := paintScreen(name, d, lines); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				fmt.Fprintln(c.stdout, name)
				painted++
			}
		}
	}
	if painted == 0 {
		return usagef("cannot paint anything: the blueprint has no display \"hd44780\"")
	}
	return nil
}

func paintScreen(name string, d blueprint.Display, lines []string) error {
	m := hd44780sim.New(hd44780sim.Options{Columns: d.Columns, Rows: d.Rows})
	m.Sleep(time.Second)
	f := displayd.NewLCDFace(display.Configure(d, firmware.Board{}), func() (displayd.Bus, error) { return m, nil }, m.Sleep)
	if err := f.Open(); err != nil {
		return err
	}
	if err := f.Show(lines); err != nil {
		return err
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := png.Encode(file, m.Picture()); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// sampleStatus is a node about which everything is known.
func sampleStatus(cube *blueprint.Cube, node string) statusd.Status {
	celsius, volts, rpm := 48.3, 1.2, 2100
	s := statusd.Status{
		Hostname: node, Cube: cube.Name, Role: "node", Stage: "ready", Uptime: 4*86400 + 7*3600, Load: 0.42,
		Memory: statusd.Memory{Total: 922 << 20, Available: 683 << 20}, Disk: statusd.Memory{Total: 29 << 30, Available: 24 << 30},
		Temperature: &celsius, Voltage: &volts,
	}
	for _, n := range cube.Nodes {
		if n.Name == node {
			s.Address = n.Address.String()
			s.Addresses = []string{s.Address, "192.168.178.31"}
		}
	}
	if cube.Kubernetes != nil {
		s.Role, s.ClusterView = "control-plane", fmt.Sprintf("ready, %d of %d nodes are", len(cube.Nodes), len(cube.Nodes))
	}
	if len(cube.Fans) > 0 {
		s.Fan = &statusd.Fan{Kind: cube.Fans[0].Kind, Duty: 1, RPM: &rpm}
	}
	if len(cube.WiFi) > 0 {
		s.WiFi = &statusd.WiFi{State: "connected", SSID: string(cube.WiFi[0].SSID)}
	}
	return s
}
