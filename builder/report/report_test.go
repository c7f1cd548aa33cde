package report

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that only the test moves.
type clock struct{ now time.Time }

func (c *clock) after(d time.Duration) { c.now = c.now.Add(d) }

// story tells the same build in each mode.
func story(mode Mode, verbose bool) string {
	var out strings.Builder
	c := &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r := New(Options{Out: &out, Mode: mode, Now: func() time.Time { return c.now }, Verbose: verbose, Width: func() int { return 60 }})
	advance, end := r.Phase("download", 200e6)
	count, endRoot := r.Phase("root arm64", 0)
	advance(50e6)
	c.after(10 * time.Second)
	r.tick()
	r.Info("mirror %s answers slowly", "deb.example.org")
	r.Detail("package %s: from the cache", "htop")
	advance(150e6)
	c.after(10 * time.Second)
	end()
	end() // once more changes nothing
	count(3)
	r.tick()
	endRoot()
	r.Close()
	r.Close()
	return out.String()
}

func TestModes(t *testing.T) {
	tests := []struct {
		name    string
		mode    Mode
		verbose bool
		want    string
	}{{
		name: "lines", mode: Lines, verbose: true,
		want: `download ...
root arm64 ...
download:  25 %, 50.0 MB of 200.0 MB, 5.0 MB/s, 30s left
root arm64: 10s
mirror deb.example.org answers slowly
package htop: from the cache
download     20s, 200.0 MB, 10.0 MB/s
root arm64: 3, 20s
root arm64   20s, 3
`,
	}, {
		name: "live", mode: Live,
		want: `download     [######..................]  25 %, 50.0 MB of 2
root arm64   / 10s
<up 2>mirror deb.example.org answers slowly
download     [######..................]  25 %, 50.0 MB of 2
root arm64   - 10s
<up 2>download     20s, 200.0 MB, 10.0 MB/s
root arm64   \ 20s
<up 1>root arm64   | 3, 20s
<up 1>root arm64   20s, 3
`,
	}, {
		name: "JSON", mode: JSON,
		want: `{"event":"begin","time":"2026-01-02T03:04:05Z","phase":"download","total":200000000}
{"event":"begin","time":"2026-01-02T03:04:05Z","phase":"root arm64"}
{"event":"progress","time":"2026-01-02T03:04:15Z","phase":"download","done":50000000,"total":200000000}
{"event":"progress","time":"2026-01-02T03:04:15Z","phase":"root arm64"}
{"event":"info","time":"2026-01-02T03:04:15Z","message":"mirror deb.example.org answers slowly"}
{"event":"end","time":"2026-01-02T03:04:25Z","phase":"download","done":200000000,"total":200000000,"seconds":20}
{"event":"progress","time":"2026-01-02T03:04:25Z","phase":"root arm64","done":3}
{"event":"end","time":"2026-01-02T03:04:25Z","phase":"root arm64","done":3,"seconds":20}
`,
	}}
	for _, test := range tests {
		got := story(test.mode, test.verbose)
		for n, escape := range []string{"\x1b[1A\x1b[J", "\x1b[2A\x1b[J"} {
			got = strings.ReplaceAll(got, escape, "<up "+string(rune('1'+n))+">")
		}
		if got != test.want {
			t.Errorf("%s:\n%s\nwant:\n%s", test.name, got, test.want)
		}
	}
}

// TestManyAtOnce is for the race detector.
func TestManyAtOnce(t *testing.T) {
	var out strings.Builder
	ticks := make(chan time.Time)
	r := New(Options{Out: &out, Mode: JSON, Now: func() time.Time { return time.Unix(0, 0) }, Tick: ticks})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			advance, end := r.Phase("p", 1000)
			for range 1000 {
				advance(1)
			}
			r.Info("done")
			end()
		})
	}
	for range 20 {
		ticks <- time.Time{}
	}
	wg.Wait()
	r.Close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 8*3 {
		t.Errorf("%d lines, want 24", len(lines))
	}
	for _, line := range lines {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if e.Event == "end" && e.Done != 1000 {
			t.Errorf("a phase ended at %d", e.Done)
		}
	}
}

func BenchmarkAdvance(b *testing.B) {
	r := New(Options{Out: &strings.Builder{}, Now: time.Now})
	advance, end := r.Phase("p", int64(b.N))
	for b.Loop() {
		advance(1)
	}
	end()
}
