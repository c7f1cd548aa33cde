package clockd

import (
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
