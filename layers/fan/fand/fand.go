// Package fand cools a node: it switches a fan through the GPIO character
// device or sets its speed through the kernel's PWM.
//
// A fan that nobody minds must turn. So it begins at full speed, gets it on
// every doubt, and when the daemon ends. A GPIO line would fall back to an
// input when the process that holds it dies; therefore systemd keeps a second
// handle to it (sd_pid_notify_with_fds(3), FDSTORE).
//
// Not supported: fans that turn when the line is low.
package fand

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"syscall"
	"time"

	"github.com/picube/picube-build/layers/status/statusd"
)

// Section is the layer's name in node.yaml.
const Section = "fan"

// Config is the layer's section.
type Config struct {
	Fans []Fan `yaml:"fans"`
	// StatusPort is where the cube's nodes tell their temperature, 0: nowhere.
	StatusPort int `yaml:"statusPort,omitempty"`
}

// Fan is one fan of the node. Temperatures are in °C.
type Fan struct {
	Kind    string  `yaml:"kind"`              // "gpio", "pwm", "firmware", "always"
	Chip    string  `yaml:"chip,omitempty"`    // label of the GPIO chip
	Pin     int     `yaml:"pin,omitempty"`     // its line
	Device  string  `yaml:"device,omitempty"`  // pwm: the controller's node in the device tree
	Channel int     `yaml:"channel,omitempty"` // pwm: of the controller
	Start   float64 `yaml:"start,omitempty"`
	Stop    float64 `yaml:"stop,omitempty"`
	Full    float64 `yaml:"full,omitempty"`
	MinDuty float64 `yaml:"minDuty,omitempty"`
	Tach    *int    `yaml:"tach,omitempty"`   // line of the tachometer
	Sensor  string  `yaml:"sensor,omitempty"` // "soc", or "cube": the hottest of its nodes
}

// Output is what turns the fan.
type Output interface {
	// Set gives the fan a speed, 0 to 1.
	Set(duty float64) error
}

// Tachometer counts the fan's turns.
type Tachometer interface {
	// Pulses returns how many there were since the start, two for each turn.
	Pulses() (uint64, error)
}

// Times of the loop.
const (
	every      = 2 * time.Second
	stallAfter = 3 // looks at a fan that should turn and doesn't
	maxWait    = 30 * time.Second
)

// Daemon minds one fan.
type Daemon struct {
	Curve Curve
	// Open gets hold of the fan; its tachometer is nil if it has none.
	Open func() (Output, Tachometer, error)
	// Temperature returns °C.
	Temperature func(context.Context) (float64, error)
	Tell        func(statusd.Fan) error
	Now         func() time.Time
	Pause       func(context.Context, time.Duration) error
	Log         *slog.Logger

	told    statusd.Fan
	problem string
}

// Run minds the fan until ctx ends, and leaves it at full speed.
func (d *Daemon) Run(ctx context.Context) error {
	wait := every
	for {
		began := d.Now()
		err := d.run(ctx)
		if ctx.Err() != nil {
			return err
		}
		if d.Now().Sub(began) > maxWait {
			wait = every
		}
		d.report("cannot drive the fan: "+err.Error(), statusd.Fan{Kind: d.Curve.Kind})
		if d.Pause(ctx, wait) != nil {
			return nil
		}
		wait = min(2*wait, maxWait)
	}
}

func (d *Daemon) run(ctx context.Context) error {
	out, tach, err := d.Open()
	if err != nil {
		return err
	}
	if err := out.Set(1); err != nil {
		return err
	}
	watch := stallWatch{tach: tach}
	for {
		if d.Pause(ctx, every) != nil {
			return out.Set(1)
		}
		state := statusd.Fan{Kind: d.Curve.Kind}
		celsius, err := d.Temperature(ctx)
		problem := ""
		if err != nil {
			celsius, problem = math.NaN(), err.Error()
		} else {
			state.Temperature = &celsius
		}
		state.Duty = d.Curve.Next(celsius, d.Now())
		if watch.stalled() {
			state.Duty, problem = 1, "it stands still"
		}
		if err := out.Set(state.Duty); err != nil {
			return err
		}
		state.RPM = watch.look(state.Duty, d.Now())
		d.report(problem, state)
	}
}

// report tells what changed, and logs a problem once.
func (d *Daemon) report(problem string, state statusd.Fan) {
	if problem != d.problem {
		if problem != "" {
			d.Log.Warn(problem)
		} else {
			d.Log.Info("the fan is well again")
		}
		d.problem = problem
	}
	state.Problem = problem
	if same(state, d.told) {
		return
	}
	if err := d.Tell(state); err != nil {
		d.Log.Warn("cannot tell the fan's state", "error", err)
		return
	}
	d.told = state
}

// same reports whether nothing worth writing down has changed.
func same(a, b statusd.Fan) bool {
	near := func(a, b *float64) bool { return (a == nil) == (b == nil) && (a == nil || math.Abs(*a-*b) < 1) }
	slow := func(a, b *int) bool {
		return (a == nil) == (b == nil) && (a == nil || math.Abs(float64(*a-*b)) < 100)
	}
	return a.Kind == b.Kind && a.Duty == b.Duty && a.Problem == b.Problem && near(a.Temperature, b.Temperature) && slow(a.RPM, b.RPM)
}

// stallWatch notices a fan that should turn and doesn't.
type stallWatch struct {
	tach   Tachometer
	pulses uint64
	at     time.Time
	still  int // looks in a row
}

func (w *stallWatch) stalled() bool { return w.still >= stallAfter }

// look returns the turns per minute since the last look, or nil.
func (w *stallWatch) look(duty float64, now time.Time) *int {
	if w.tach == nil {
		return nil
	}
	pulses, err := w.tach.Pulses()
	if err != nil {
		return nil
	}
	first := w.at.IsZero()
	seen, elapsed := pulses-w.pulses, now.Sub(w.at)
	w.pulses, w.at = pulses, now
	if first || elapsed <= 0 {
		return nil
	}
	if duty > 0 && seen == 0 {
		w.still++
	} else {
		w.still = 0
	}
	speed := rpm(seen, elapsed)
	return &speed
}

// Full lets every fan turn as fast as it can, for when nobody minds it. A line
// that the service manager keeps is busy: it stays as the daemon left it, at
// its end high, and the next daemon takes it over.
func Full(open []func() (Output, Tachometer, error)) error {
	var errs []error
	for _, o := range open {
		out, _, err := o()
		if err == nil {
			err = out.Set(1)
		}
		if !errors.Is(err, syscall.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
