package report

import (
	"strings"
	"testing"
	"time"
)

func TestTrace(t *testing.T) {
	c := &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	var used Usage
	trace := NewTrace(func() time.Time { return c.now }, func() Usage { return used })
	r := New(Options{Out: &strings.Builder{}, Now: func() time.Time { return c.now }, Trace: trace})
	advance, end := r.Phase("cards", 5)
	c.after(time.Second)
	endStep := r.Step("rpi1: copy")
	c.after(time.Second)
	used = Usage{CPU: 3 * time.Second, Memory: 5e6}
	r.tick()
	endStep()
	r.Step("rpi1: sum")() // in the same row
	advance(5)
	end()
	end()
	var got strings.Builder
	if _, err := trace.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(got.String())
	want := strings.Fields(`{ "displayTimeUnit": "ms", "traceEvents": [
		{ "name": "processors", "ph": "C", "ts": 2000000, "dur": 0, "pid": 1, "tid": 0, "args": { "busy": 1.5 } },
		{ "name": "memory", "ph": "C", "ts": 2000000, "dur": 0, "pid": 1, "tid": 0, "args": { "MB": 5 } },
		{ "name": "rpi1: copy", "ph": "X", "ts": 1000000, "dur": 1000000, "pid": 1, "tid": 1, "args": { "cpu seconds": 3 } },
		{ "name": "rpi1: sum", "ph": "X", "ts": 2000000, "dur": 0, "pid": 1, "tid": 1, "args": { "cpu seconds": 0 } },
		{ "name": "cards", "ph": "X", "ts": 0, "dur": 2000000, "pid": 1, "tid": 0, "args": { "cpu seconds": 3, "done": 5 } }
	] }`)
	if strings.Join(lines, " ") != strings.Join(want, " ") {
		t.Errorf("%s\nwant %s", strings.Join(lines, " "), strings.Join(want, " "))
	}
}
