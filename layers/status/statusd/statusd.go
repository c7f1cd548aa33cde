// Package statusd collects what there is to know about a running node.
package statusd

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/picube/picube-build/layers/nodeconf"
)

// StageFile holds the last stage that the node reached.
const StageFile = "/run/picube/stage"

// Status is a node's state. Zero values mean "not known".
type Status struct {
	Hostname    string   `json:"hostname"`
	Cube        string   `json:"cube"`
	Cluster     string   `json:"cluster"`
	Role        string   `json:"role"`
	Board       string   `json:"board,omitempty"` // as the device tree tells
	Address     string   `json:"address"`
	Stage       string   `json:"stage,omitempty"`
	Uptime      float64  `json:"uptimeSeconds"`
	Load        float64  `json:"load1"`
	Memory      Memory   `json:"memory"`
	Temperature *float64 `json:"temperatureCelsius,omitempty"`
}

// Memory is in bytes.
type Memory struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
}

// Collect reads the state from a root file system: "/" on a node.
func Collect(root fs.FS, n *nodeconf.Node) Status {
	s := Status{
		Hostname: n.Hostname, Cube: n.Cube, Cluster: n.Cluster, Role: n.Role, Address: n.Network.Address,
		Board:  strings.TrimRight(read(root, "proc/device-tree/model"), "\x00"),
		Stage:  read(root, StageFile[1:]),
		Uptime: number(first(read(root, "proc/uptime"))),
		Load:   number(first(read(root, "proc/loadavg"))),
		Memory: memory(read(root, "proc/meminfo")),
	}
	if t := read(root, "sys/class/thermal/thermal_zone0/temp"); t != "" {
		celsius := number(t) / 1000
		s.Temperature = &celsius
	}
	return s
}

func read(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func first(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

func number(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v
}

func memory(text string) Memory {
	var m Memory
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), ":")
		kib := int64(number(first(strings.TrimSpace(value))))
		switch key {
		case "MemTotal":
			m.Total = kib << 10
		case "MemAvailable":
			m.Available = kib << 10
		}
	}
	return m
}

// Print writes the state for a person.
func (s Status) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(tw, name+"\t"+format+"\n", args...) }
	row("node", "%s (%s of cube %s, cluster %s)", s.Hostname, s.Role, s.Cube, s.Cluster)
	if s.Board != "" {
		row("board", "%s", s.Board)
	}
	row("address", "%s", s.Address)
	if s.Stage != "" {
		row("stage", "%s", s.Stage)
	}
	row("up", "%.0f s, load %.2f", s.Uptime, s.Load)
	row("memory", "%d of %d MiB available", s.Memory.Available>>20, s.Memory.Total>>20)
	if s.Temperature != nil {
		row("temperature", "%.1f °C", *s.Temperature)
	}
	return tw.Flush()
}

// SetStage records a stage and announces it on the console, where the
// emulator and a person with a serial cable read it.
func SetStage(stage string) error {
	if err := os.MkdirAll(path.Dir(StageFile), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(StageFile, []byte(stage+"\n"), 0o644); err != nil {
		return err
	}
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer console.Close()
	_, err = fmt.Fprintf(console, "\r\npicube: stage %s\r\n", stage)
	return err
}
