// Package report shows how far a build is: bars on a terminal, plain lines
// elsewhere, JSON lines for programs. Counting is one atomic addition, so
// whatever moves bytes may report each of its steps.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mode is how progress is shown.
type Mode int

// Lines are for logs, Live is for terminals that know ANSI's escape sequences
// (ECMA-48), JSON is one Event per line.
const (
	Lines Mode = iota
	Live
	JSON
)

// Events of long phases come at most this often.
const (
	linesEvery = 10 * time.Second
	jsonEvery  = time.Second
)

// bytesFrom is the total from which a phase is taken to count bytes: nothing
// else that a build counts gets so high.
const bytesFrom = 100_000

// Options is what a Reporter needs of the host.
type Options struct {
	Out  io.Writer
	Mode Mode
	// Now is the clock, Tick is when to show what has changed; ten times a
	// second looks smooth. Without Tick only beginnings and ends are shown.
	Now  func() time.Time
	Tick <-chan time.Time
	// Width is the terminal's, in columns. Nil: 80.
	Width func() int
	// Verbose shows what Detail says.
	Verbose bool
	// Trace records phases and steps; nil: nothing does.
	Trace *Trace
}

// Reporter shows progress. Its methods may be called at the same time.
type Reporter struct {
	Options
	mu     sync.Mutex
	phases []*phase // under way, in the order of their beginnings
	drawn  int      // lines of the display on the terminal
	frame  int      // of the spinner
	done   chan struct{}
	idle   sync.WaitGroup
	close  sync.Once
}

type phase struct {
	name   string
	total  int64
	start  time.Time
	told   time.Time // when the last line about it was written
	count  atomic.Int64
	finish sync.Once
	traced func(done int64)
}

// New starts a Reporter; Close stops it.
func New(o Options) *Reporter {
	if o.Width == nil {
		o.Width = func() int { return 80 }
	}
	r := &Reporter{Options: o, done: make(chan struct{})}
	if o.Tick != nil {
		r.idle.Go(r.loop)
	}
	return r
}

func (r *Reporter) loop() {
	for {
		select {
		case <-r.done:
			return
		case <-r.Tick:
			r.tick()
		}
	}
}

// Close takes the display off the terminal.
func (r *Reporter) Close() {
	r.close.Do(func() {
		close(r.done)
		r.idle.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.erase()
	})
}

// Phase begins something that takes time. total is its size in bytes or steps,
// 0 if unknown; advance adds to what is done, end ends the phase.
func (r *Reporter) Phase(name string, total int64) (advance func(n int64), end func()) {
	p := &phase{name: name, total: total, start: r.Now(), traced: r.Trace.begin(name)}
	p.told = p.start
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phases = append(r.phases, p)
	switch r.Mode {
	case Lines:
		fmt.Fprintf(r.Out, "%s ...\n", name)
	case JSON:
		r.event(Event{Event: "begin", Phase: name, Total: total})
	}
	return func(n int64) { p.count.Add(n) }, func() { p.finish.Do(func() { r.end(p) }) }
}

func (r *Reporter) end(p *phase) {
	elapsed := r.Now().Sub(p.start)
	p.traced(p.count.Load())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phases = slices.DeleteFunc(r.phases, func(q *phase) bool { return q == p })
	if r.Mode == JSON {
		r.event(Event{Event: "end", Phase: p.name, Done: p.count.Load(), Total: p.total, Seconds: seconds(elapsed)})
		return
	}
	r.print(p.summary(elapsed))
}

// Step begins a part of a phase, which only a trace shows.
func (r *Reporter) Step(name string) (end func()) {
	traced := r.Trace.begin(name)
	return func() { traced(0) }
}

// Info says something worth knowing.
func (r *Reporter) Info(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Mode == JSON {
		r.event(Event{Event: "info", Message: text})
		return
	}
	r.print(text)
}

// Detail says what is worth knowing only to those who asked for more.
func (r *Reporter) Detail(format string, args ...any) {
	if r.Verbose {
		r.Info(format, args...)
	}
}

// Event is one line of JSON.
type Event struct {
	Event   string  `json:"event"` // begin, progress, end, info
	Time    string  `json:"time"`  // RFC 3339
	Phase   string  `json:"phase,omitempty"`
	Done    int64   `json:"done,omitempty"`  // bytes or steps
	Total   int64   `json:"total,omitempty"` // bytes or steps
	Seconds float64 `json:"seconds,omitempty"`
	Message string  `json:"message,omitempty"`
}

func (r *Reporter) event(e Event) {
	e.Time = r.Now().UTC().Format(time.RFC3339Nano)
	line, err := json.Marshal(e)
	if err != nil {
		return // numbers and text always marshal
	}
	_, _ = r.Out.Write(append(line, '\n'))
}

// tick shows what has changed.
func (r *Reporter) tick() {
	r.Trace.sample()
	now := r.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.Mode {
	case Live:
		r.erase()
		r.draw(now)
	case Lines:
		for _, p := range r.due(now, linesEvery) {
			fmt.Fprintln(r.Out, p.progress(now))
		}
	case JSON:
		for _, p := range r.due(now, jsonEvery) {
			r.event(Event{Event: "progress", Phase: p.name, Done: p.count.Load(), Total: p.total})
		}
	}
}

func (r *Reporter) due(now time.Time, every time.Duration) []*phase {
	var due []*phase
	for _, p := range r.phases {
		if now.Sub(p.told) >= every {
			p.told = now
			due = append(due, p)
		}
	}
	return due
}

// print writes a line that stays, above the display.
func (r *Reporter) print(line string) {
	r.erase()
	fmt.Fprintln(r.Out, line)
	if r.Mode == Live {
		r.draw(r.Now())
	}
}

func (r *Reporter) erase() {
	if r.drawn > 0 {
		fmt.Fprintf(r.Out, "\x1b[%dA\x1b[J", r.drawn)
		r.drawn = 0
	}
}

func (r *Reporter) draw(now time.Time) {
	select {
	case <-r.done:
		return
	default:
	}
	r.frame++
	var b strings.Builder
	width := max(r.Width()-1, 20)
	for _, p := range r.phases {
		b.WriteString(cut(p.bar(now, r.frame), width))
		b.WriteByte('\n')
	}
	r.drawn = len(r.phases)
	_, _ = io.WriteString(r.Out, b.String())
}

// cut shortens a line: one that wraps would break the display.
func cut(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:width])
}

const barWidth = 24

// bar is a phase's line on a terminal.
func (p *phase) bar(now time.Time, frame int) string {
	if p.total <= 0 {
		return fmt.Sprintf("%-12s %c %s", p.name, `|/-\`[frame%4], p.progressText(now))
	}
	full := int(p.share() * barWidth)
	return fmt.Sprintf("%-12s [%s%s] %s", p.name, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), p.progressText(now))
}

// progress is a phase's line in a log.
func (p *phase) progress(now time.Time) string { return p.name + ": " + p.progressText(now) }

func (p *phase) share() float64 {
	return min(float64(p.count.Load())/float64(p.total), 1)
}

func (p *phase) progressText(now time.Time) string {
	elapsed, done := now.Sub(p.start), p.count.Load()
	if p.total <= 0 {
		return joined(p.amount(done), p.rate(done, elapsed), duration(elapsed))
	}
	left := ""
	if done > 0 && done < p.total && elapsed >= time.Second {
		left = duration(time.Duration(float64(elapsed)*float64(p.total-done)/float64(done))) + " left"
	}
	return joined(fmt.Sprintf("%3.0f %%", math.Floor(p.share()*100)), p.amount(done)+" of "+p.amount(p.total), p.rate(done, elapsed), left)
}

// summary is the line that stays of a phase.
func (p *phase) summary(elapsed time.Duration) string {
	done := p.count.Load()
	return fmt.Sprintf("%-12s %s", p.name, joined(duration(elapsed), p.amount(done), p.rate(done, elapsed)))
}

func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func (p *phase) bytes() bool { return max(p.total, p.count.Load()) >= bytesFrom }

func (p *phase) amount(n int64) string {
	switch {
	case p.bytes():
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n > 0 || p.total > 0:
		return fmt.Sprint(n)
	}
	return ""
}

func (p *phase) rate(n int64, elapsed time.Duration) string {
	if !p.bytes() || n == 0 || elapsed < 100*time.Millisecond {
		return ""
	}
	return fmt.Sprintf("%.1f MB/s", float64(n)/1e6/elapsed.Seconds())
}

func duration(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }
