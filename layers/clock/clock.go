// Package clock gives boards without a clock a time that is never before the
// build's nor before the last one they had, that the nodes of a cluster agree
// on without the internet, and that a time server mends once one is there.
package clock

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/clock/clockd"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-clock.service
var service []byte

//go:embed picube-clock-save.service
var saveService []byte

//go:embed picube-clock-save.timer
var saveTimer []byte

// epochFile is what systemd takes the earliest possible time from: its
// modification time (systemd(1), "System clock epoch"). Nothing is started
// before that, so nothing looks at a certificate before it is valid.
const epochFile = "/usr/lib/clock-epoch"

// vendorUnits is where units lie that others start.
const vendorUnits = "/usr/lib/systemd/system/"

// Layer sets the earliest time, the zone and the time server.
type Layer struct{}

// Name returns "clock".
func (Layer) Name() string { return clockd.Section }

// Packages returns the time server and the zones.
func (Layer) Packages(*plan.Root) []string { return []string{"chrony", "tzdata"} }

// Apply writes the epoch, the zone and chrony's configuration.
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
		t.MkdirAll("/etc/chrony", 0o755),
		t.WriteFile("/etc/chrony/chrony.conf", []byte(chronyConf(r.Cube.Time.Servers)), 0o644),
		t.WriteFile(vendorUnits+"picube-clock-save.service", saveService, 0o644),
		unit.Install(t, "picube-clock-save.timer", saveTimer),
		unit.Install(t, "picube-clock.service", service),
	)
}

// chronyConf is chrony.conf(5). The cluster's own part is the node's: see
// clockd.Sources.
func chronyConf(servers []string) string {
	var b strings.Builder
	b.WriteString("# Written by picube-build. Further sources go into sources.d, settings into conf.d.\n\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "server %s iburst\n", s)
	}
	if len(servers) == 0 {
		b.WriteString("pool 2.debian.pool.ntp.org iburst\n")
	}
	b.WriteString(`
# Servers that DHCP tells, an administrator's, and the cluster's own.
sourcedir /run/chrony-dhcp
sourcedir /etc/chrony/sources.d
confdir /etc/chrony/conf.d

keyfile /etc/chrony/chrony.keys
driftfile /var/lib/chrony/chrony.drift
ntsdumpdir /var/lib/chrony
logdir /var/log/chrony
maxupdateskew 100.0
rtcsync
leapseclist /usr/share/zoneinfo/leap-seconds.list

# A cube may find a time server after weeks on its own: its clocks jump then,
# whenever it is, since slewing would take as long as they were alone.
makestep 1 -1
`)
	return b.String()
}

// maxServers is how many nodes of a cluster serve its time when nobody else
// does; each of them asks all the others.
const maxServers = 5

// Node names the nodes that serve the cluster's time: the control plane's
// first, which are on whenever the cluster is.
func (Layer) Node(p *plan.Plan, n *plan.Node, conf *nodeconf.Node, _ *tree.Tree) error {
	var members []*plan.Node
	for _, m := range p.Nodes() {
		if m.Cluster == n.Cluster {
			members = append(members, m)
		}
	}
	slices.SortStableFunc(members, func(a, b *plan.Node) int { return rank(a) - rank(b) })
	section := clockd.Config{Network: n.Address.Masked().String()}
	for _, m := range members[:min(maxServers, len(members))] {
		section.Servers = append(section.Servers, m.Address.Addr().String())
	}
	return conf.SetLayer(clockd.Section, section)
}

func rank(n *plan.Node) int {
	if n.Role == plan.RoleControlPlane {
		return 0
	}
	return 1
}
