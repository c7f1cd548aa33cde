package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/report"
)

// bootFlags are what a person may want of the machines.
type bootFlags struct {
	build    buildFlags
	rebuild  bool
	until    string
	timeout  time.Duration
	keep     bool
	console  string
	nodes    []string
	memory   int
	cpus     int
	machine  string
	internet bool
	capture  bool
	save     string
	cardSize int64
}

func (c *cli) bootCommand() *cobra.Command {
	var f bootFlags
	cmd := &cobra.Command{
		Use:   "boot BLUEPRINT",
		Short: "Start the cards in QEMU, on one wire",
		Long: `boot starts the very cards that would be flashed, copy-on-write, in QEMU on a
wire in this process, and shows the cube coming up. It needs no privilege and
leaves nothing behind. While it runs, out/CUBE/ssh_config.emulator and
kubeconfig.emulator lead to the machines.`,
		Example:           "  picube-build boot blueprints/picube.hcl --until login\n  picube-build boot blueprints/picube.hcl --nodes rpi1 --console rpi1",
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], f.build.vars)
			if err != nil {
				return err
			}
			if f.rebuild {
				if err := c.build(cmd.Context(), bp, f.build); err != nil {
					return err
				}
			}
			return c.boot(cmd.Context(), bp, f)
		},
	}
	flags := cmd.Flags()
	f.build.vars.add(cmd)
	flags.StringVarP(&f.build.out, "output", "o", "out", "`folder` of the cards")
	flags.BoolVar(&f.rebuild, "build", false, "build the cards first")
	flags.StringVar(&f.until, "until", "", "end when every node has reached this `stage`: "+strings.Join(stages(), ", "))
	flags.DurationVar(&f.timeout, "timeout", 0, "how long that may take")
	flags.BoolVar(&f.keep, "keep", false, "go on afterwards, until Ctrl-C")
	flags.StringVar(&f.console, "console", "", "show the console of this `node`, and type on it")
	flags.StringSliceVar(&f.nodes, "nodes", nil, "start only these nodes, by host `name`")
	flags.IntVar(&f.memory, "memory", 0, "`MiB` of memory per node (default 1024)")
	flags.IntVar(&f.cpus, "cpus", 0, "processors per node")
	flags.StringVar(&f.machine, "board", emulator.MachineVirt, "QEMU's `machine`: virt, raspi3b, ...")
	flags.BoolVar(&f.internet, "internet", false, "open a way out")
	flags.BoolVar(&f.capture, "capture", false, "keep what passes the wire (pcap)")
	flags.StringVar(&f.save, "save", "", "`folder` for consoles if something fails")
	flags.Int64Var(&f.cardSize, "card-size", 4, "size of the simulated cards in `GiB`")
	return cmd
}

// stages are those that --until takes.
func stages() []string {
	var names []string
	for s := emulator.Kernel; s <= emulator.Ready; s++ {
		names = append(names, s.String())
	}
	return names
}

func (c *cli) boot(ctx context.Context, bp *blueprint.Blueprint, f bootFlags) error {
	var until emulator.Stage
	if f.until != "" {
		s, err := emulator.ParseStage(f.until)
		if err != nil {
			return usageError{err}
		}
		until = s
	}
	p, err := planRequests(bp)
	if err != nil {
		return err
	}
	cards, err := c.cards(p, bp.Path, f)
	if err != nil {
		return err
	}
	o := emulator.Options{
		Cards: cards, Until: until, Keep: f.keep, Timeout: f.timeout, Console: f.console, Capture: f.capture,
		Out: c.stdout, In: c.stdin, Mode: report.Lines, Save: f.save,
		Access: filepath.Join(f.build.out, p.Cubes[0].Spec.Name),
	}
	if out, ok := c.stdout.(*os.File); ok && c.isTerminal(out) {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		o.Mode, o.Tick, o.Width = report.Live, tick.C, func() int { return width(out) }
	}
	if c.json {
		o.Mode = report.JSON
	}
	return emulator.Show(ctx, emulator.Config{Now: time.Now, CPUs: f.cpus, Memory: f.memory, Internet: f.internet}, o)
}

// cards are the images of the nodes to start.
func (c *cli) cards(p *plan.Plan, path string, f bootFlags) ([]emulator.Card, error) {
	var cards []emulator.Card
	var missing []string
	for _, n := range p.Nodes() {
		if len(f.nodes) > 0 && !slices.Contains(f.nodes, n.Name) {
			continue
		}
		image := filepath.Join(f.build.out, n.Cube, n.Name+".img")
		info, err := os.Stat(image)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, image)
			continue
		case err != nil:
			return nil, err
		}
		cards = append(cards, emulator.Card{
			Name: n.Name, Image: image, Size: max(f.cardSize<<30, info.Size()),
			Address: n.Address.Addr(), Segment: n.Cube, Board: n.Board, Machine: f.machine,
		})
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s: cannot find the card; build it first: picube-build boot --build %s", strings.Join(missing, ", "), path)
	}
	if len(cards) == 0 {
		return nil, usagef("node %s: cannot find it in the blueprint", strings.Join(f.nodes, ", "))
	}
	return cards, nil
}
