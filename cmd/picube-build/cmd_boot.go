package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/report"
	"github.com/picube/picube-build/firmware"
)

// bootFlags are what a person may want of the machines.
type bootFlags struct {
	build    buildFlags
	rebuild  bool
	stale    bool
	until    string
	timeout  time.Duration
	keep     bool
	console  string
	boards   []string
	memory   int
	cpus     int
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
kubeconfig.emulator lead to the machines.

The nodes share the host's processors, at least one each and at most four, and
are switched on in turn, so that no more of them start than there are processors
for. Each has 1 GiB of memory. Time limits grow with what the host needs: five
nodes on two processors take minutes.`,
		Example: `  picube-build boot blueprints/picube.hcl --until login
  picube-build boot blueprints/picube.hcl --nodes rpi1 --console rpi1
  picube-build boot blueprints/picube.hcl --nodes rpi1,rpi3 --board rpi3`,
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], f.build.vars)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if !signal.Ignored(syscall.SIGHUP) { // not below nohup
				var stop context.CancelFunc
				ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
				defer stop()
			}
			return c.boot(ctx, bp, f)
		},
	}
	flags := cmd.Flags()
	f.build.vars.add(cmd)
	flags.StringVarP(&f.build.out, "output", "o", "out", "`folder` of the cards")
	flags.BoolVar(&f.rebuild, "build", false, "build the cards first")
	flags.BoolVar(&f.stale, "stale", false, "start cards that are not what the blueprint says now")
	flags.StringVar(&f.until, "until", "", "end when every node has reached this `stage`: "+strings.Join(stages(), ", "))
	flags.DurationVar(&f.timeout, "timeout", 0, "how long that may take")
	flags.BoolVar(&f.keep, "keep", false, "go on afterwards, until Ctrl-C")
	flags.StringVar(&f.console, "console", "", "show the console of this `node`, and type on it")
	flags.StringSliceVar(&f.build.nodes, "nodes", nil, "start only these nodes, by host `name`")
	flags.IntVar(&f.memory, "memory", 0, "`MiB` of memory per node (default 1024)")
	flags.IntVar(&f.cpus, "cpus", 0, "processors per node (default: its share of the host's)")
	flags.StringSliceVar(&f.boards, "board", nil, "run this `node` as its real board, where QEMU has it: slow")
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
	until, err := f.stage()
	if err != nil {
		return err
	}
	p, err := planRequests(bp)
	if err != nil {
		return err
	}
	cards, err := f.cards(p, until)
	if err != nil {
		return err
	}
	if err := c.freshen(ctx, bp, f, cards); err != nil {
		return err
	}
	second, stop := secondInterrupt()
	defer stop()
	o := emulator.Options{
		Cards: cards, Until: until, Keep: f.keep, Timeout: f.timeout, Console: f.console, Capture: f.capture,
		Out: c.stdout, In: c.stdin, Mode: report.Lines, Save: f.save, Hurry: second,
		Access: f.build.out,
	}
	if in, ok := c.stdin.(*os.File); ok && f.console != "" {
		defer typing(in)()
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

func (f bootFlags) stage() (emulator.Stage, error) {
	if f.until == "" {
		return emulator.Off, nil
	}
	s, err := emulator.ParseStage(f.until)
	if err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// cards are those of the nodes to start, whether they are there or not.
func (f bootFlags) cards(p *plan.Plan, until emulator.Stage) ([]emulator.Card, error) {
	var cards []emulator.Card
	unknown := slices.Concat(f.build.nodes, f.boards)
	for _, n := range p.Nodes() {
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return name == n.Name })
		if len(f.build.nodes) > 0 && !slices.Contains(f.build.nodes, n.Name) {
			continue
		}
		if until >= emulator.Joined && n.Role == plan.RoleNode {
			return nil, usagef("stage %v: cannot wait for it: node %s has no cluster to join, as its cube has no kubernetes block", until, n.Name)
		}
		machine := emulator.MachineVirt
		if slices.Contains(f.boards, n.Name) {
			board, _ := firmware.Lookup(n.Board)
			if machine = board.QEMU.Machine; machine == "" {
				return nil, usagef("node %s: cannot run it as its real board: QEMU has no %s", n.Name, n.Board)
			}
		}
		cards = append(cards, emulator.Card{
			Name: n.Name, Image: filepath.Join(f.build.out, n.Cube, n.Name+".img"), Size: f.cardSize << 30,
			Address: n.Address.Addr(), Segment: n.Cube, Board: n.Board, Machine: machine,
		})
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, usagef("node %s: cannot find it in the blueprint", strings.Join(slices.Compact(unknown), ", "))
	}
	return cards, nil
}

// freshen builds the cards if that was asked for. Else it looks whether they
// are those that the blueprint describes now, and offers to build them if not.
func (c *cli) freshen(ctx context.Context, bp *blueprint.Blueprint, f bootFlags, cards []emulator.Card) error {
	if f.rebuild {
		return c.build(ctx, bp, f.build)
	}
	var missing, stale []string
	for _, card := range cards {
		if _, err := os.Stat(card.Image); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, card.Image)
		}
	}
	fault := fmt.Errorf("%s: cannot find the card", strings.Join(missing, ", "))
	if len(missing) == 0 {
		if f.stale {
			return nil
		}
		var err error
		if stale, err = c.staleCards(ctx, bp, f.build); err != nil || len(stale) == 0 {
			return err
		}
		fault = fmt.Errorf("node %s: the card is not what the blueprint says now", strings.Join(stale, ", "))
	}
	in, ok := c.stdin.(*os.File)
	if !ok || !c.isTerminal(in) || c.json {
		hint := "build it first"
		if len(stale) > 0 {
			hint = "start it all the same with --stale, or build it first"
		}
		return fmt.Errorf("%w; %s: picube-build boot --build %s", fault, hint, bp.Path)
	}
	fmt.Fprintf(c.stderr, "%v. Build now? [Y/n] ", fault)
	build, err := yes(ctx, in)
	switch {
	case err != nil:
		return err
	case build:
		return c.build(ctx, bp, f.build)
	case len(missing) > 0:
		return fault
	}
	return nil
}

// yes reads a line of one answer, which is no if it begins with an n. It leaves
// what follows to others.
func yes(ctx context.Context, in io.Reader) (bool, error) {
	line := make(chan string, 1)
	go func() {
		var answer []byte
		for b := make([]byte, 1); ; answer = append(answer, b[0]) {
			if n, err := in.Read(b); n == 0 || err != nil {
				line <- "no"
				return
			}
			if b[0] == '\n' {
				line <- strings.ToLower(strings.TrimSpace(string(answer)))
				return
			}
		}
	}()
	select {
	case answer := <-line:
		return !strings.HasPrefix(answer, "n"), nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// staleCards are the nodes whose cards a build would make anew.
func (c *cli) staleCards(ctx context.Context, bp *blueprint.Blueprint, flags buildFlags) ([]string, error) {
	reporter := c.reporter()
	defer reporter.Close()
	b, err := c.builder(bp, flags, reporter)
	if err != nil {
		return nil, err
	}
	return b.Stale(ctx)
}

// secondInterrupt returns a channel that is closed at the second Ctrl-C, which
// would otherwise end this process at once and leave the run's files behind.
// The third one does.
func secondInterrupt() (second <-chan struct{}, stop func()) {
	signals, closed, done := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer signal.Stop(signals)
		for range 2 {
			select {
			case <-signals:
			case <-done:
				return
			}
		}
		close(closed)
	}()
	return closed, func() { close(done) }
}
