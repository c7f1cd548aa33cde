// Package clock gives boards without a clock a time that is never before the
// build's and that a time server mends once one is there.
package clock

import (
	"errors"
	"fmt"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// epochFile is what systemd takes the earliest possible time from: its
// modification time (systemd(1), "System clock epoch").
const epochFile = "/usr/lib/clock-epoch"

// Layer sets the earliest time and the zone.
type Layer struct{}

// Name returns "clock".
func (Layer) Name() string { return "clock" }

// Packages returns the time server and the zones.
func (Layer) Packages(*plan.Root) []string { return []string{"chrony", "tzdata"} }

// Apply writes the epoch and the zone.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	zone := r.Cube.Time.Zone
	if zone == "" {
		zone = "Etc/UTC"
	}
	file := "/usr/share/zoneinfo/" + zone
	if !t.Exists(file) {
		return fmt.Errorf("time zone %q: cannot find it in tzdata", zone)
	}
	return errors.Join(
		t.WriteFile(epochFile, nil, 0o644),
		t.SetModTime(epochFile, t.Epoch()),
		t.RemoveAll("/etc/localtime"),
		t.Symlink(file, "/etc/localtime"),
		t.WriteFile("/etc/timezone", []byte(zone+"\n"), 0o644),
	)
}
