package displayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/layers/display/hd44780sim"
	"github.com/picube/picube-build/layers/status/statusd"
)

var noon = time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC)

func sample() statusd.Status {
	t := 48.3
	rpm := 2100
	return statusd.Status{
		Hostname: "rpi1", Cube: "picube", Role: "control-plane", Address: "10.42.1.1/16", Stage: "ready",
		ClusterView: "ready, 5 of 5 nodes are", Uptime: 4*86400 + 7*3600, Load: 0.42, Temperature: &t,
		Memory: statusd.Memory{Total: 900 << 20, Available: 600 << 20},
		Fan:    &statusd.Fan{Kind: "pwm", Duty: 0.6, RPM: &rpm}, WiFi: &statusd.WiFi{State: "connected", SSID: "Würzburg"},
	}
}

// desk is a display on a desk, with a clock that only the display moves.
type desk struct {
	module *hd44780sim.Module
	daemon *Daemon
	status statusd.Status
	start  time.Time
	log    strings.Builder
	stop   context.CancelFunc
	// each is called at every pause, with the time since the start.
	each func(time.Duration)
}

func newDesk(d Display) *desk {
	k := &desk{module: hd44780sim.New(hd44780sim.Options{Columns: d.Columns, Rows: d.Rows}), status: sample(), start: noon}
	k.module.Sleep(time.Second)
	origin := k.module.Now()
	k.daemon = &Daemon{
		Display: d,
		Face:    NewLCDFace(d, func() (Bus, error) { return k.module, nil }, k.module.Sleep),
		Now:     func() time.Time { return k.start.Add(k.module.Now() - origin) },
		State:   func(context.Context) State { return StateOf(k.status, k.daemon.Now()) },
		Log:     slog.New(slog.NewTextHandler(&k.log, nil)),
		Pause: func(ctx context.Context, d time.Duration) error {
			if k.each != nil {
				k.each(k.module.Now() - origin)
			}
			k.module.Sleep(d)
			return ctx.Err()
		},
	}
	return k
}

func (k *desk) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	k.stop = cancel
	if err := k.daemon.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if f := k.module.Faults(); len(f) > 0 {
		t.Errorf("%d instructions were lost: %s", len(f), f[0])
	}
	if k.module.Held() > 20*time.Millisecond {
		t.Errorf("the bus was held for %v", k.module.Held())
	}
}

// watch returns every different sight within a time.
func (k *desk) watch(t *testing.T, d time.Duration) []string {
	t.Helper()
	var seen []string
	k.each = func(at time.Duration) {
		sight := strings.Join(k.module.Lines(), "|")
		if len(seen) == 0 || seen[len(seen)-1] != sight {
			seen = append(seen, sight)
		}
		if at > d {
			k.stop()
		}
	}
	k.run(t)
	return seen
}

func TestPages(t *testing.T) {
	for _, tt := range []struct {
		columns, rows int
		want          []string
	}{
		{20, 4, []string{
			"rpi1 control-plane  |10.42.1.1           |                    |                    ",
			"Sun 22 Nov 12:30    |up 4d 7h            |                    |                    ",
			"CPU 48.3°C          |load 0.42 mem 33%   |                    |                    ",
			"cluster             |ready, 5 of 5 nodes |                    |                    ",
			"cluster             |eady, 5 of 5 nodes a|                    |                    ",
			"cluster             |ady, 5 of 5 nodes ar|                    |                    ",
			"cluster             |dy, 5 of 5 nodes are|                    |                    ",
			"fan 60% 2100 rpm    |Wi-Fi Würzburg      |                    |                    ",
			"rpi1 control-plane  |10.42.1.1           |                    |                    ",
		}},
		{40, 2, []string{
			"rpi1 control-plane                      |10.42.1.1                               ",
			"Sun 22 Nov 12:30                        |up 4d 7h                                ",
			"CPU 48.3°C                              |load 0.42 mem 33%                       ",
			"cluster                                 |ready, 5 of 5 nodes are                 ",
			"fan 60% 2100 rpm                        |Wi-Fi Würzburg                          ",
			"rpi1 control-plane                      |10.42.1.1                               ",
		}},
	} {
		k := newDesk(Display{Columns: tt.columns, Rows: tt.rows})
		if diff := cmp.Diff(tt.want, k.watch(t, 22*time.Second)); diff != "" {
			t.Errorf("%dx%d (-want +got):\n%s", tt.columns, tt.rows, diff)
		}
	}
}

func TestSmallDisplays(t *testing.T) {
	k := newDesk(Display{Columns: 16, Rows: 1, Pages: []Page{{Lines: []string{"{{.Host}}", "{{.WiFi}}"}}, {Lines: []string{"{{.Voltage}}"}}}})
	want := []string{"rpi1            ", "Würzburg        ", "rpi1            "}
	if diff := cmp.Diff(want, k.watch(t, 9*time.Second)); diff != "" {
		t.Error(diff)
	}
	k = newDesk(Display{Columns: 16, Rows: 2, Seconds: 2, Pages: []Page{{Lines: []string{`{{glyph "up"}}{{.Load}}`, "{{.Nothing}}"}}},
		Glyphs: []Glyph{{Name: "up", Rows: []string{"..#..", ".###.", "#####", "..#..", "..#..", "..#..", "..#..", "....."}}}})
	want = []string{"\ue0000.42           |?               "}
	if diff := cmp.Diff(want, k.watch(t, 5*time.Second)); diff != "" {
		t.Error(diff)
	}
	if got := k.module.Glyph(0); got != [8]byte{4, 14, 31, 4, 4, 4, 4, 0} {
		t.Errorf("glyph %v", got)
	}
}

// TestDay follows a display through what can happen to it.
func TestDay(t *testing.T) {
	k := newDesk(Display{Columns: 16, Rows: 2, Backlight: "07:00-22:00"})
	k.status.Uptime, k.status.Stage, k.status.ClusterView = 5, "grown", ""
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	type event struct {
		at   time.Duration
		do   func()
		want string // what is seen shortly afterwards
	}
	events := []event{
		{sec(0.3), func() {}, "rpi1            |configuring     "},
		{sec(3), func() { k.status.Stage = "configured"; k.status.ClusterView = "beginning a cluster" }, "rpi1            |eginning a clust"},
		{sec(15), func() { k.status = sample() }, "Sun 22 Nov 12:30|up 4d 7h        "},
		{sec(20), func() { k.status.Problems = []string{"low voltage"} }, "! rpi1          |low voltage     "},
		{sec(23.6), func() { k.status.Problems = nil }, "i1 control-plane|10.42.1.1       "},
		{sec(28), k.module.Unplug, "                |                "},
		{sec(60), k.module.Plug, "CPU 48.3°C      |load 0.42 mem 33"},
		{sec(100), func() { k.module.Unplug(); k.module.Plug() }, "*"},
	}
	next, checkAt := 0, time.Duration(-1)
	k.each = func(at time.Duration) {
		if checkAt >= 0 && at >= checkAt {
			got, want := strings.Join(k.module.Lines(), "|"), events[next-1].want
			if want != "*" && got != want {
				t.Errorf("%v: %q, want %q", at, got, want)
			}
			if strings.Trim(got, " |") == "" && want == "*" {
				t.Errorf("%v: still dark\n%s", at, k.log.String())
			}
			checkAt = -1
		}
		if next < len(events) && checkAt < 0 && at >= events[next].at {
			events[next].do()
			next++
			checkAt = at + 2500*time.Millisecond
			if next == 7 { // the module was plugged in again: the longest wait
				checkAt = at + maxWait + time.Second
			}
		}
		if next == len(events) && checkAt < 0 {
			k.stop()
		}
	}
	k.run(t)
	if got := k.module.Lines(); !slices.Equal(got, []string{"      rpi1      ", " shutting down  "}) {
		t.Errorf("at the end: %q", got)
	}
	if n := strings.Count(k.log.String(), "will try again"); n < 2 || n > 4 {
		t.Errorf("%d messages for two failures:\n%s", n, k.log.String())
	}
	if err := Goodbye(k.daemon.Display, k.daemon.Face, "rpi1"); err != nil {
		t.Fatal(err)
	}
	if got := k.module.Lines(); !slices.Equal(got, []string{"      rpi1      ", "Power may be cut"}) {
		t.Errorf("the last words: %q", got)
	}
}

func TestLit(t *testing.T) {
	for _, tt := range []struct {
		backlight string
		hour      int
		want      bool
	}{
		{"", 3, true}, {"on", 3, true}, {"off", 12, false}, {"07:00-22:00", 6, false}, {"07:00-22:00", 7, true},
		{"07:00-22:00", 22, false}, {"22:00-07:00", 23, true}, {"22:00-07:00", 6, true}, {"22:00-07:00", 12, false},
	} {
		if got := lit(tt.backlight, time.Date(2026, 1, 1, tt.hour, 0, 0, 0, time.UTC)); got != tt.want {
			t.Errorf("%q at %d: %v", tt.backlight, tt.hour, got)
		}
	}
}

func TestCheckLine(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"{{.Host}} up", ""},
		{`{{.Now.Format "15:04"}}{{if .Fan}}x{{else}}{{.Load}}{{end}}{{with .Fan}}{{.}}{{end}}`, ""},
		{`{{glyph "heart"}}{{printf "%5s" .Load}}`, ""},
		{"ab {{.Hots}}", "column 6: there is no fact .Hots; there are: .Host"},
		{"{{if .Fan}}{{.Load}}{{else}}{{.Nope}}{{end}}", "column 31: there is no fact .Nope"},
		{"{{.Host}} {{.Host", "column 11: unclosed action"},
		{"{{.Host}} {{nope .Host}}", `column 11: function "nope" not defined`},
		{"{{.Host}} {{if .Fan}} x", "column 11: unexpected EOF"},
		{"{{.Host}}{{end}}", "column 10: unexpected {{end}}"},
		{`{{glyph "tree"}}`, `column 9: there is no glyph "tree" in this display`},
		{"{{.Now.Fomrat}}", "column 7: .Now has no Fomrat"},
		{"{{with .Fan}}{{$.Nope}}{{end}}", "column 17: there is no fact .Nope"},
		{"a\nb", "column 2: a line has no line break"},
		{`{{template "x"}}`, "column 12: there are no other templates"},
	} {
		err := CheckLine(tt.text, []string{"heart"})
		got := fmt.Sprint(err)
		if err == nil {
			got = ""
		}
		if (tt.want == "") != (got == "") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.want)
		}
		var te *TemplateError
		if err != nil && !errors.As(err, &te) {
			t.Errorf("%s: %T", tt.text, err)
		}
	}
}

// TestDefaultPages holds that the pages everybody sees are right.
func TestDefaultPages(t *testing.T) {
	for _, p := range DefaultPages() {
		for _, line := range p.Lines {
			if err := CheckLine(line, nil); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}
