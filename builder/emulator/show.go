package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/report"
)

// Options is what `picube-build boot` shows, and until when.
type Options struct {
	Cards   []Card
	Until   Stage         // Off: until ctx ends
	Keep    bool          // go on after Until until ctx ends
	Timeout time.Duration // for reaching Until; 0: none but the silence of a node
	Console string        // show this node's console instead of a table, and type on it
	Capture bool          // keep what passes the wire, beside the consoles

	Out   io.Writer
	In    io.Reader // typed on Console; nil: nothing
	Mode  report.Mode
	Width func() int       // of the terminal, for report.Live; nil: 80
	Tick  <-chan time.Time // when report.Live draws

	// Access holds a folder per cube, named like its segment, with ssh_config
	// and perhaps kubeconfig. While the machines run, *.emulator beside them
	// leads to the machines. Empty: no way in for the host's programs.
	Access string
	// Save is where the consoles go if something fails; empty: nowhere.
	Save string
	// Hurry ends machines at once that are shutting down: a second Ctrl-C.
	Hurry <-chan struct{}
}

const (
	// shutdownLimit is how long machines may take to shut down, on a quick host.
	shutdownLimit = 30 * time.Second
	apiPort       = 6443
)

// Show starts cards, shows how they come up and, when Until is reached, the
// times they took. It returns an error if one of them fails, or if ctx ends
// before Until is reached. When ctx ends (Ctrl-C) the machines are shut down as
// a person would do it; when Until is reached they just end. In any case
// nothing is left of them.
func Show(ctx context.Context, c Config, o Options) error {
	if len(o.Cards) == 0 {
		return errors.New("emulator: cannot start without cards")
	}
	d := newDisplay(o, c.Now)
	c.Events = d.event
	if c.CPUs == 0 {
		c.CPUs = shareCPUs(runtime.NumCPU(), len(o.Cards))
	}
	e, err := New(c)
	if err != nil {
		return err
	}
	defer e.Close()
	reached, err := show(ctx, e, d, o)
	d.close()
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		d.note("shutting the nodes down; Ctrl-C again pulls their plugs")
		if err = nil; !reached && o.Until != Off {
			err = fmt.Errorf("cannot wait longer for stage %v: %w", o.Until, context.Cause(ctx))
		}
		shutdown(e, o.Hurry)
	case err != nil && o.Save != "":
		saved, saveErr := e.Save(o.Save)
		err = errors.Join(err, saveErr)
		if len(saved) > 0 {
			err = fmt.Errorf("%w\nwhat the nodes said is kept in %s", err, strings.Join(saved, ", "))
		}
	}
	return errors.Join(err, e.Close())
}

// show reports whether Until was reached.
func show(ctx context.Context, e *Emulator, d *display, o Options) (reached bool, err error) {
	if err := setUp(e, d, o); err != nil {
		return false, err
	}
	if o.Access != "" {
		a, err := giveAccess(e, o.Access)
		if err != nil {
			return false, err
		}
		defer a.remove()
	}
	d.start()
	reach, cancel := ctx, context.CancelFunc(func() {})
	if o.Timeout > 0 {
		reach, cancel = context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("the limit of %v is over", o.Timeout))
	}
	defer cancel()
	if err := bringUp(reach, e.Nodes(), o.Until); err != nil {
		return false, err
	}
	if o.Until != Off {
		d.summary(e.Nodes(), o.Until, !o.Keep)
		if !o.Keep {
			return true, nil
		}
	}
	return true, watch(ctx, e.Nodes())
}

// setUp adds the nodes, off, and what is to be seen of them.
func setUp(e *Emulator, d *display, o Options) error {
	if o.Capture {
		if err := e.Capture(); err != nil {
			return err
		}
	}
	for _, card := range o.Cards {
		n, err := e.add(card)
		if err != nil {
			return fmt.Errorf("node %s: %w", card.Name, err)
		}
		d.add(n)
	}
	if o.Console == "" {
		return nil
	}
	n := e.Node(o.Console)
	if n == nil {
		return fmt.Errorf("node %s: cannot show the console of one that is not started", o.Console)
	}
	n.attach(o.Out, o.In)
	return nil
}

// bringUp switches nodes on, as many at a time as the host can do something
// for, and waits until all have reached a stage.
func bringUp(ctx context.Context, nodes []*Node, until Stage) error {
	width := make(chan struct{}, max(1, runtime.NumCPU()/max(1, nodes[0].card.CPUs)))
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		select {
		case width <- struct{}{}:
		case <-ctx.Done():
			return errors.Join(g.Wait(), context.Cause(ctx))
		}
		if err := n.PlugIn(ctx); err != nil {
			return err
		}
		g.Go(func() error {
			err := n.WaitStage(ctx, Userspace)
			<-width
			if err != nil || until == Off {
				return err
			}
			return n.WaitStage(ctx, until)
		})
	}
	return g.Wait()
}

// watch waits until ctx ends or a node fails. One that switches itself off has
// not failed.
func watch(ctx context.Context, nodes []*Node) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		g.Go(func() error {
			for {
				n.mu.Lock()
				changed, err := n.changed, n.err
				n.mu.Unlock()
				if err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-changed:
				}
			}
		})
	}
	return g.Wait()
}

func shutdown(e *Emulator, hurry <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(float64(shutdownLimit)*e.Pace()))
	defer cancel()
	go func() {
		select {
		case <-hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	e.Shutdown(ctx)
}

// shareCPUs gives each of some nodes its part of the host's CPUs.
func shareCPUs(host, nodes int) int { return min(4, max(1, host/nodes)) }
