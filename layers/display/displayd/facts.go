package displayd

import (
	"fmt"
	"strings"
	"time"

	"github.com/picube/picube-build/layers/status/statusd"
)

// StateOf turns a node's status into what a display shows.
func StateOf(s statusd.Status, now time.Time) State {
	address, _, _ := strings.Cut(s.Address, "/")
	f := Facts{
		Host: s.Hostname, Cube: s.Cube, Role: s.Role, Now: now,
		Address: address, Addresses: strings.Join(s.Addresses, " "),
		Load: fmt.Sprintf("%.2f", s.Load), Stage: s.Stage, Cluster: s.ClusterView,
		Uptime: uptime(time.Duration(s.Uptime) * time.Second),
	}
	if s.Memory.Total > 0 {
		f.Memory = percent(s.Memory.Used())
		f.MemoryFree = fmt.Sprintf("%dM", s.Memory.Available>>20)
	}
	if s.Disk.Total > 0 {
		f.Disk = percent(s.Disk.Used())
	}
	if s.Temperature != nil {
		f.Temperature = fmt.Sprintf("%.1f°C", *s.Temperature)
	}
	if s.Voltage != nil {
		f.Voltage = fmt.Sprintf("%.2fV", *s.Voltage)
	}
	if s.WiFi != nil {
		f.WiFi = s.WiFi.String()
	}
	if s.Fan != nil {
		f.Fan = s.Fan.String()
	}
	return State{Facts: f, Problems: s.Problems, Progress: progress(s)}
}

func percent(part float64) string { return fmt.Sprintf("%.0f%%", part*100) }

func uptime(d time.Duration) string {
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	if days > 0 {
		return fmt.Sprintf("%dd %dh", days, hours)
	}
	return fmt.Sprintf("%d:%02d", hours, minutes)
}

// progress is what a node still does before it is what it is meant to be, as
// its stages tell (see cmd/picube-node).
func progress(s statusd.Status) string {
	if s.Uptime > progressFor.Seconds() {
		return ""
	}
	switch s.Stage {
	case "", "userspace":
		return "starting"
	case "grown":
		return "configuring"
	case "ready":
		return ""
	}
	if s.Role == "node" {
		return ""
	}
	if s.ClusterView != "" {
		return s.ClusterView
	}
	return "starting the cluster"
}
