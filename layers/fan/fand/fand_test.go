package fand

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/layers/status/statusd"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestCurve(t *testing.T) {
	sensorGone := math.NaN()
	for _, tt := range []struct {
		name  string
		curve Curve
		temps []float64
		want  []float64
	}{
		{"switch", Curve{Kind: "gpio", Start: 60, Stop: 50}, []float64{40, 55, 59.9, 60, 55, 50, 49.9, 55, 60, sensorGone},
			[]float64{0, 0, 0, 1, 1, 1, 0, 0, 1, 1}},
		{"speed", Curve{Kind: "pwm", Start: 50, Stop: 45, Full: 70, MinDuty: 0.3}, []float64{49, 50, 50, 60, 70, 90, 60, 47, 45, 44, 47, 50, 50, sensorGone},
			// The first 1 is the spin-up.
			[]float64{0, 1, 0.3, 0.65, 1, 1, 0.65, 0.3, 0.3, 0, 0, 1, 0.3, 1}},
	} {
		var got []float64
		for i, c := range tt.temps {
			got = append(got, tt.curve.Next(c, start.Add(time.Duration(i)*every)))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// rig is a fan on a bench: it turns as it is told, unless it is held.
type rig struct {
	duty    float64
	history []string
	pulses  uint64
	held    bool
	refuse  error
}

func (r *rig) Set(duty float64) error {
	if r.refuse != nil {
		return r.refuse
	}
	if r.duty != duty {
		r.history = append(r.history, fmt.Sprint(duty))
	}
	r.duty = duty
	return nil
}

func (r *rig) Pulses() (uint64, error) { return r.pulses, nil }

func TestDaemon(t *testing.T) {
	r := &rig{}
	zone := &fstest.MapFile{Data: []byte("40000\n")}
	root := fstest.MapFS{"sys/class/thermal/thermal_zone0/temp": zone}
	now := start
	ctx, stop := context.WithCancel(t.Context())
	var log strings.Builder
	var told []string
	step := 0
	steps := []struct {
		temp string
		do   func()
		want string // the speed at the step's end
	}{
		{"40000", nil, "0"},
		{"40000", nil, "0"},
		{"65000", nil, "1"},
		{"55000", nil, "1"},
		{"45000", nil, "0"},
		{"no", nil, "1"},
		{"45000", nil, "0"},
		{"65000", func() { r.held = true }, "1"},
		{"65000", nil, "1"}, {"65000", nil, "1"}, {"65000", nil, "1"},
		{"45000", nil, "1"}, // stalled: full speed whatever the temperature
		{"45000", func() { r.held = false }, "1"},
		{"45000", nil, "0"},
		{"45000", func() { r.refuse = errors.New("the line is gone") }, "0"},
		{"45000", func() { r.refuse = nil }, "1"}, // full speed on every new beginning
		{"45000", nil, "0"},
	}
	d := &Daemon{
		Curve:       Curve{Kind: "gpio", Start: 60, Stop: 50},
		Open:        func() (Output, Tachometer, error) { return r, r, nil },
		Temperature: SoC(root),
		Tell: func(f statusd.Fan) error {
			told = append(told, fmt.Sprintf("%s %s", f, f.Problem))
			return nil
		},
		Now: func() time.Time { return now },
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	d.Pause = func(ctx context.Context, wait time.Duration) error {
		if step == 0 && r.duty != 1 {
			t.Errorf("at the beginning the speed is %v", r.duty)
		}
		if step > 0 && step <= len(steps) {
			if got := fmt.Sprint(r.duty); got != steps[step-1].want {
				t.Errorf("step %d (%s): speed %s, want %s", step, steps[step-1].temp, got, steps[step-1].want)
			}
		}
		if step == len(steps) {
			stop()
			return ctx.Err()
		}
		zone.Data = []byte(steps[step].temp + "\n")
		if steps[step].do != nil {
			steps[step].do()
		}
		step++
		now = now.Add(wait)
		if r.duty > 0 && !r.held {
			r.pulses += uint64(r.duty * 70 * wait.Seconds())
		}
		return nil
	}
	_ = d.Run(ctx)
	if r.duty != 1 {
		t.Errorf("at the end the speed is %v", r.duty)
	}
	for _, want := range []string{"cannot read a temperature", "it stands still", "cannot drive the fan: the line is gone", "the fan is well again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("nothing about %q in the log:\n%s", want, log.String())
		}
	}
	if !strings.Contains(strings.Join(told, "\n"), "on 2100 rpm ") {
		t.Errorf("told:\n%s", strings.Join(told, "\n"))
	}
}

// TestPWM drives files as the kernel has them in sysfs.
func TestPWM(t *testing.T) {
	sys := t.TempDir()
	other, chip := filepath.Join(sys, "class/pwm/pwmchip0"), filepath.Join(sys, "class/pwm/pwmchip1")
	for dir, node := range map[string]string{other: "pwm@7e20c800", chip: "pwm@7e20c000"} {
		for _, d := range []string{"device", "pwm0"} {
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/firmware/devicetree/base/soc/"+node, filepath.Join(dir, "device/of_node")); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"export", "pwm0/period", "pwm0/duty_cycle", "pwm0/enable"} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte("0\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(f string) string {
		data, err := os.ReadFile(filepath.Join(chip, "pwm0", f))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	p, err := OpenPWM(sys, "pwm@7e20c000", 0)
	if err != nil {
		t.Fatal(err)
	}
	for duty, want := range map[float64]string{0: "0", 0.3: "12000", 1: "40000"} {
		for _, f := range []string{"duty_cycle", "enable"} { // sysfs has no longer contents to overwrite
			if err := os.Truncate(filepath.Join(chip, "pwm0", f), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Set(duty); err != nil {
			t.Fatal(err)
		}
		if got := read("duty_cycle"); got != want || read("enable") != "1" {
			t.Errorf("%v: duty cycle %s, want %s", duty, got, want)
		}
	}
	if got := read("period"); got != "40000" {
		t.Errorf("period %s", got)
	}
	if _, err := OpenPWM(sys, "pwm@1", 0); err == nil {
		t.Error("a controller that is not there")
	}
	if _, err := OpenPWM(sys, "pwm@7e20c000", 7); err == nil {
		t.Error("a channel that is not there")
	}
}

func TestHottest(t *testing.T) {
	warm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"hostname":"rpi2","temperatureCelsius":66.5}`)
	}))
	defer warm.Close()
	off := httptest.NewServer(nil)
	off.Close()
	nonsense := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }))
	defer nonsense.Close()
	var ownErr error
	h := &Hottest{
		Own:  func(context.Context) (float64, error) { return 50, ownErr },
		URLs: []string{off.URL, warm.URL, nonsense.URL}, HTTP: http.DefaultClient, Now: func() time.Time { return start },
	}
	if got, err := h.Temperature(t.Context()); err != nil || got != 66.5 {
		t.Errorf("%v %v", got, err)
	}
	ownErr = errors.New("no sensor")
	if _, err := h.Temperature(t.Context()); err == nil {
		t.Error("no error without a sensor")
	}
}

func TestFull(t *testing.T) {
	a, b, kept := &rig{refuse: errors.New("gone")}, &rig{}, &rig{refuse: syscall.EBUSY}
	open := func(r *rig) func() (Output, Tachometer, error) {
		return func() (Output, Tachometer, error) { return r, nil, nil }
	}
	if err := Full([]func() (Output, Tachometer, error){open(a), open(b)}); err == nil || b.duty != 1 {
		t.Errorf("error %v, second fan at %v", err, b.duty)
	}
	if err := Full([]func() (Output, Tachometer, error){open(kept)}); err != nil {
		t.Errorf("a line that is kept: %v", err)
	}
}

func TestTold(t *testing.T) {
	var last statusd.Fan
	told := Told{Tell: func(f statusd.Fan) error { last = f; return nil }}
	a, b := told.Add(statusd.Fan{Kind: "pwm"}), told.Add(statusd.Fan{Kind: "gpio"})
	for _, tt := range []struct {
		tell func(statusd.Fan) error
		fan  statusd.Fan
		want string
	}{
		{b, statusd.Fan{Kind: "gpio"}, "pwm "},
		{b, statusd.Fan{Kind: "gpio", Problem: "it stands still"}, "gpio it stands still"},
		{a, statusd.Fan{Kind: "pwm", Duty: 0.5}, "gpio it stands still"},
		{b, statusd.Fan{Kind: "gpio"}, "pwm "},
	} {
		if err := tt.tell(tt.fan); err != nil || last.Kind+" "+last.Problem != tt.want {
			t.Errorf("after %+v: %+v, want %s (%v)", tt.fan, last, tt.want, err)
		}
	}
}
