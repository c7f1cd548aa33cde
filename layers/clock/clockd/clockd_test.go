package clockd

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestSane(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 6, 1, 0, 0, 0, 0, time.UTC) }
	for _, tt := range []struct {
		name             string
		now, build, last time.Time
		want             time.Time
	}{
		{"no clock", year(1970), year(2026), time.Time{}, year(2026)},
		{"an old kernel's", year(2019), year(2026), time.Time{}, year(2026)},
		{"saved", year(1970), year(2026), year(2028), year(2028)},
		{"back from the drawer", year(2033), year(2026), year(2027), year(2033)},
		{"a broken battery's", year(2038), year(2026), year(2027), year(2027)},
		{"saved while broken", year(2026), year(2026), year(2038), year(2026)},
		{"an old card", year(2027), year(2026), year(2020), year(2027)},
	} {
		if got := Sane(tt.now, tt.build, tt.last); !got.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestSave(t *testing.T) {
	name := filepath.Join(t.TempDir(), "timesync", "clock")
	if got := Saved(name); !got.IsZero() {
		t.Errorf("nothing saved: %v", got)
	}
	for _, now := range []time.Time{time.Unix(1_800_000_000, 0), time.Unix(1_800_003_600, 0)} {
		if err := Save(name, now); err != nil {
			t.Fatal(err)
		}
		if got := Saved(name); !got.Equal(now) {
			t.Errorf("%v, want %v", got, now)
		}
	}
}

func TestSources(t *testing.T) {
	c := Config{Network: "10.42.0.0/16", Servers: []string{"10.42.1.1", "10.42.1.2"}}
	const head = "# Written at each start from picube/node.yaml on the boot partition.\n"
	for own, want := range map[string]string{
		"10.42.1.1": head + "server 10.42.1.2 iburst minpoll 4 maxpoll 6\nallow 10.42.0.0/16\nlocal stratum 10 orphan\n",
		"10.42.1.9": head + "server 10.42.1.1 iburst minpoll 4 maxpoll 6\nserver 10.42.1.2 iburst minpoll 4 maxpoll 6\n",
	} {
		if got := c.Sources(own); got != want {
			t.Errorf("%s:\n%s", own, got)
		}
	}
}

func TestWatch(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps []time.Duration // of the clock, in each pause; 0: Follow ends, and is called again
		want  int
	}{
		{"goes on", []time.Duration{20 * time.Second, 25 * time.Second, 0, time.Hour}, 0},
		{"forward", []time.Duration{20 * time.Second, 9000 * time.Hour, 20 * time.Second}, 0},
		{"a second back", []time.Duration{-time.Second, 5 * time.Minute}, 0},
		{"three hours back", []time.Duration{20 * time.Second, -3 * time.Hour, 3 * time.Minute, 20 * time.Second}, 1},
		{"while nobody looks", []time.Duration{-3 * time.Hour, 0, 0, 3 * time.Minute, 0, time.Hour}, 1},
		{"twice", []time.Duration{-3 * time.Hour, 2 * time.Minute, -3 * time.Hour, 2 * time.Minute, time.Minute, time.Minute}, 1},
		{"soon again", []time.Duration{-3 * time.Hour, 4 * time.Minute, -3 * time.Hour, 4 * time.Minute}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Date(2026, 11, 22, 23, 0, 0, 0, time.UTC)
			left, got := test.steps, 0
			w := Watch{Now: func() time.Time { return now }}
			w.Pause = func(context.Context, time.Duration) error {
				if len(left) == 0 {
					return context.Canceled
				}
				step := left[0]
				now, left = now.Add(step), left[1:]
				if step == 0 {
					return context.DeadlineExceeded
				}
				return nil
			}
			for {
				err := w.Follow(t.Context(), func() error { got++; return nil })
				if errors.Is(err, context.Canceled) {
					break
				}
			}
			if got != test.want {
				t.Errorf("told %d times, want %d", got, test.want)
			}
		})
	}
}
