// Package displayd shows how a node is, on a character LCD or on the screen.
//
// The LCD is an HD44780 behind a PCF8574 on I2C, driven through /dev/i2c-N:
// Debian's kernel has no driver for it. The driver is ours because those that
// exist (tinygo.org/x/drivers/hd44780i2c) drop the bus's errors, so nobody
// would notice a module that was unplugged, write each nibble in transactions
// of its own, and wait for a second at the start.
//
// Not supported: modules with two controllers (40x4), the 5x10 font, dimming
// (the expander has one line for the backlight), buttons.
package displayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Section is the layer's name in node.yaml.
const Section = "display"

// Config is the layer's section.
type Config struct {
	Displays []Display `yaml:"displays"`
}

// Display is one display of the node.
type Display struct {
	Kind       string  `yaml:"kind"`                 // "hd44780" or "console"
	Bus        int     `yaml:"bus,omitempty"`        // number of the I2C bus
	Controller string  `yaml:"controller,omitempty"` // its node in the device tree: "i2c@7e804000"
	Address    int     `yaml:"address,omitempty"`
	Columns    int     `yaml:"columns"`
	Rows       int     `yaml:"rows"`
	Seconds    float64 `yaml:"seconds,omitempty"`   // for each screen
	Backlight  string  `yaml:"backlight,omitempty"` // "on", "off", or hours: "07:00-22:00"
	Farewell   string  `yaml:"farewell,omitempty"`
	Pages      []Page  `yaml:"pages,omitempty"`
	Glyphs     []Glyph `yaml:"glyphs,omitempty"`
}

// Glyph is a character of one's own.
type Glyph struct {
	Name string   `yaml:"name"`
	Rows []string `yaml:"rows"` // eight rows of five dots, "#" or "1" is dark
}

// Farewell is what a display says last, unless the blueprint has other words.
const Farewell = "Power may be cut"

func (d Display) glyphNames() []string {
	var names []string
	for _, g := range d.Glyphs {
		names = append(names, g.Name)
	}
	return names
}

// Face is something that shows lines.
type Face interface {
	// Open makes it ready for Show, whatever state it is in.
	Open() error
	// Show shows as many lines as the display has, each of its width.
	Show(lines []string) error
	Light(on bool) error
	// Check fails if Open is needed again.
	Check() error
	Close() error
}

// Times of the loop.
const (
	tick      = scrollStep
	refresh   = 2 * time.Second        // of what is shown, and of the look at the module
	firstWait = 200 * time.Millisecond // after a failure; the bus appears late in the boot
	maxWait   = 15 * time.Second
)

// Daemon runs one display.
type Daemon struct {
	Display Display
	Face    Face
	State   func(context.Context) State
	Now     func() time.Time
	Pause   func(context.Context, time.Duration) error
	Log     *slog.Logger
}

// Run shows the node until ctx ends, whatever happens to the display.
func (d *Daemon) Run(ctx context.Context) error {
	s, err := newShow(d.Display)
	if err != nil { // node.yaml was changed by hand
		d.Log.Warn("cannot use the display's pages, showing the usual ones", "error", err)
		d.Display.Pages = nil
		if s, err = newShow(d.Display); err != nil {
			return err
		}
	}
	wait, said := firstWait, "nothing yet"
	for ctx.Err() == nil {
		err := d.run(ctx, s, func() {
			if said != "" {
				d.Log.Info("the display shows how the node is")
			}
			wait, said = firstWait, ""
		})
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != said { // once, not every few seconds
			said = text
			d.Log.Warn("will try again", "error", err)
		}
		if d.Pause(ctx, wait) != nil {
			break
		}
		wait = min(2*wait, maxWait)
	}
	return nil
}

// run shows the node until something fails.
func (d *Daemon) run(ctx context.Context, s *show, opened func()) (err error) {
	if err := d.Face.Open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Face.Close()) }()
	var next time.Time
	var state State
	for {
		now := d.Now()
		if !now.Before(next) || now.Before(next.Add(-time.Hour)) { // or the clock was set back
			if err := d.Face.Check(); err != nil {
				return err
			}
			state, next = d.State(ctx), now.Add(refresh)
			if err := s.update(now, state); err != nil {
				d.Log.Debug("cannot show a page", "error", err)
			}
			if err := d.Face.Light(lit(d.Display.Backlight, now) || len(state.Problems) > 0); err != nil {
				return err
			}
		}
		if err := d.Face.Show(s.frame(now)); err != nil {
			return err
		}
		opened()
		if d.Pause(ctx, tick) != nil {
			return d.Face.Show(center([]string{state.Facts.Host, "shutting down"}, d.Display))
		}
	}
}

// Goodbye shows the display's last words; the node is about to lose its power.
func Goodbye(d Display, f Face, host string) error {
	if err := f.Open(); err != nil {
		return err
	}
	text := d.Farewell
	if text == "" {
		text = Farewell
	}
	lines := []string{host, text}
	if d.Rows == 1 {
		lines = []string{text}
	}
	return errors.Join(f.Light(true), f.Show(center(lines, d)), f.Close())
}

// center lays lines out in the middle of the display; what doesn't fit is cut.
func center(lines []string, d Display) []string {
	out := make([]string, d.Rows)
	for i := range out {
		text := []rune{}
		if i < len(lines) {
			text = []rune(lines[i])
		}
		if len(text) > d.Columns {
			text = text[:d.Columns]
		}
		left := (d.Columns - len(text)) / 2
		out[i] = strings.Repeat(" ", left) + string(text) + strings.Repeat(" ", d.Columns-len(text)-left)
	}
	return out
}

// lit reports whether the backlight is on at that time of day.
func lit(backlight string, now time.Time) bool {
	switch backlight {
	case "", "on":
		return true
	case "off":
		return false
	}
	from, to, err := Hours(backlight)
	if err != nil {
		return true
	}
	minute := now.Hour()*60 + now.Minute()
	if from <= to {
		return from <= minute && minute < to
	}
	return from <= minute || minute < to // over midnight
}

// Hours reads "07:00-22:00" as minutes of the day.
func Hours(text string) (from, to int, err error) {
	a, b, ok := strings.Cut(text, "-")
	from, err1 := minutes(a)
	to, err2 := minutes(b)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("cannot read %q as hours, like 07:00-22:00", text)
	}
	return from, to, nil
}

func minutes(text string) (int, error) {
	t, err := time.Parse("15:04", strings.TrimSpace(text))
	return t.Hour()*60 + t.Minute(), err
}

// Dots reads a glyph's rows; each is five of "#", "1" for dark and ".", " ",
// "0" for light.
func (g Glyph) Dots() ([8]byte, error) {
	var dots [8]byte
	if len(g.Rows) != 8 {
		return dots, fmt.Errorf("glyph %q: cannot use %d rows, a character has 8", g.Name, len(g.Rows))
	}
	for i, row := range g.Rows {
		bits, err := strconv.ParseUint(strings.NewReplacer("#", "1", ".", "0", " ", "0").Replace(row), 2, 5)
		if err != nil || len(row) != 5 {
			return dots, fmt.Errorf("glyph %q: cannot use row %d, %q: a row has 5 dots, # or .", g.Name, i+1, row)
		}
		dots[i] = byte(bits)
	}
	return dots, nil
}

// RunAll runs the displays side by side.
func RunAll(ctx context.Context, daemons []*Daemon) error {
	errs := make([]error, len(daemons))
	var all sync.WaitGroup
	for i, d := range daemons {
		all.Go(func() { errs[i] = d.Run(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}
