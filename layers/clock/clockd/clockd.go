// Package clockd decides what time it may be when a node starts, and where
// the node gets the right one from.
package clockd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Section is the layer's name in node.yaml.
const Section = "clock"

// Config is the layer's section.
type Config struct {
	Network string   `yaml:"network"` // that may ask for the time: "10.42.0.0/16"
	Servers []string `yaml:"servers"` // addresses of the nodes that serve it
}

// Where things lie on a node.
const (
	// ConfFile is the part of chrony's configuration that is the node's own.
	ConfFile = "/etc/chrony/conf.d/picube.conf"
	// SavedFile is the file whose modification time systemd starts the clock
	// with if nothing later is known (systemd(1)). systemd-timesyncd would keep
	// it, which chrony replaces.
	SavedFile = "/var/lib/systemd/timesync/clock"
)

// maxAhead is how long a cube may lie in a drawer. A clock that is later than
// that is broken: a battery's, or one that was never set.
const maxAhead = 10 * 365 * 24 * time.Hour

// Sane returns the time to go on with: now, unless it is before the build or
// the last time that was saved, or so late that it can't be true.
func Sane(now, build, saved time.Time) time.Time {
	floor := build
	if saved.After(build) && saved.Before(build.Add(maxAhead)) {
		floor = saved
	}
	if now.Before(floor) || now.After(floor.Add(maxAhead)) {
		return floor
	}
	return now
}

// Saved returns the last time that was saved, or zero.
func Saved(name string) time.Time {
	info, err := os.Stat(name)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Save saves the time, without writing anything but the file's inode.
func Save(name string, now time.Time) error {
	err := os.Chtimes(name, now, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		return err
	}
	return os.Chtimes(name, now, now)
}

// Sources is the cluster's part of chrony.conf(5) for the node with that
// address. A node that has no other time takes that of its cluster. Among
// those that serve it, chrony's orphan mode lets one lead while none of them
// knows better; its stratum is so high that any real server wins.
func (c Config) Sources(own string) string {
	var b strings.Builder
	b.WriteString("# Written at each start from picube/node.yaml on the boot partition.\n")
	for _, s := range c.Servers {
		if s != own {
			fmt.Fprintf(&b, "server %s iburst minpoll 4 maxpoll 6\n", s)
		}
	}
	if slices.Contains(c.Servers, own) {
		fmt.Fprintf(&b, "allow %s\nlocal stratum 10 orphan\n", c.Network)
	}
	return b.String()
}
