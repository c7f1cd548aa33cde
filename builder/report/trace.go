package report

import (
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"
)

// Trace records how long phases and their steps take and what the process uses
// meanwhile, in the Trace Event Format that chrome://tracing and
// https://ui.perfetto.dev show. The methods of a nil Trace do nothing.
type Trace struct {
	now   func() time.Time
	usage func() Usage

	mu     sync.Mutex
	start  time.Time
	last   sampled
	lanes  []bool // whether something is under way in a row of the display
	events []traceEvent
}

// Usage is what a process has used so far.
type Usage struct {
	CPU    time.Duration // of all its threads
	Memory int64         // bytes that it holds now
}

type sampled struct {
	at  time.Time
	cpu time.Duration
}

// traceEvent is one event of the format; times are in microseconds.
type traceEvent struct {
	Name string             `json:"name"`
	Kind string             `json:"ph"` // "X": from when to when; "C": a counter's value
	At   int64              `json:"ts"`
	For  int64              `json:"dur"`
	PID  int                `json:"pid"`
	Lane int                `json:"tid"`
	Args map[string]float64 `json:"args"`
}

// NewTrace starts a trace.
func NewTrace(now func() time.Time, usage func() Usage) *Trace {
	start := now()
	return &Trace{now: now, usage: usage, start: start, last: sampled{start, usage().CPU}}
}

// begin starts an event; end, which is to be called once, is told how many
// bytes or steps were done.
func (t *Trace) begin(name string) (end func(done int64)) {
	if t == nil {
		return func(int64) {}
	}
	from, before := t.now(), t.usage()
	t.mu.Lock()
	defer t.mu.Unlock()
	lane := slices.Index(t.lanes, false)
	if lane < 0 {
		lane = len(t.lanes)
		t.lanes = append(t.lanes, true)
	}
	t.lanes[lane] = true
	return func(done int64) {
		to, after := t.now(), t.usage()
		args := map[string]float64{"cpu seconds": (after.CPU - before.CPU).Seconds()}
		if done > 0 {
			args["done"] = float64(done)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.lanes[lane] = false
		t.events = append(t.events, traceEvent{
			Name: name, Kind: "X", At: t.since(from), For: to.Sub(from).Microseconds(), PID: 1, Lane: lane, Args: args,
		})
	}
}

// sample notes what the process uses now.
func (t *Trace) sample() {
	if t == nil {
		return
	}
	now, u := t.now(), t.usage()
	t.mu.Lock()
	defer t.mu.Unlock()
	counter := func(name, unit string, value float64) {
		t.events = append(t.events, traceEvent{Name: name, Kind: "C", At: t.since(now), PID: 1, Args: map[string]float64{unit: value}})
	}
	if wall := now.Sub(t.last.at).Seconds(); wall > 0 {
		counter("processors", "busy", (u.CPU-t.last.cpu).Seconds()/wall)
		counter("memory", "MB", float64(u.Memory)/1e6)
		t.last = sampled{now, u.CPU}
	}
}

func (t *Trace) since(at time.Time) int64 { return at.Sub(t.start).Microseconds() }

// WriteTo writes what was recorded so far.
func (t *Trace) WriteTo(w io.Writer) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, err := json.MarshalIndent(map[string]any{"displayTimeUnit": "ms", "traceEvents": t.events}, "", " ")
	if err != nil {
		return 0, err
	}
	n, err := w.Write(append(text, '\n'))
	return int64(n), err
}
