// Package statusd collects what there is to know about a running node.
package statusd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/picube/picube-build/layers/nodeconf"
)

// What picube-node's own daemons tell each other.
const (
	// StageFile holds the last stage that the node reached.
	StageFile = "/run/picube/stage"
	// ClusterFile holds, in words, what the node is doing in its cluster.
	ClusterFile = "/run/picube/cluster"
	// FanFile holds a Fan in JSON.
	FanFile = "/run/picube/fan.json"
	// BackupFile holds a Backup in JSON.
	BackupFile = "/run/picube/backup.json"
	// MistakesFile holds, a line each, why node.yaml was not applied.
	MistakesFile = "/run/picube/mistakes"
)

// Status is a node's state. Zero values mean "not known".
type Status struct {
	Hostname    string   `json:"hostname"`
	Cube        string   `json:"cube"`
	Cluster     string   `json:"cluster"`
	Role        string   `json:"role"`
	Board       string   `json:"board,omitempty"` // as the device tree tells
	Address     string   `json:"address"`
	Addresses   []string `json:"addresses,omitempty"` // all of them
	Stage       string   `json:"stage,omitempty"`
	ClusterView string   `json:"clusterView,omitempty"` // what the node is doing in its cluster, in words
	Uptime      float64  `json:"uptimeSeconds"`
	Load        float64  `json:"load1"`
	Memory      Memory   `json:"memory"`
	Disk        Memory   `json:"disk"` // the root file system
	Temperature *float64 `json:"temperatureCelsius,omitempty"`
	Voltage     *float64 `json:"voltage,omitempty"`
	Throttled   []string `json:"throttled,omitempty"` // what slows the processor down
	Wear        *int     `json:"wearPercent,omitempty"`
	Fan         *Fan     `json:"fan,omitempty"`
	WiFi        *WiFi    `json:"wifi,omitempty"`
	Backup      *Backup  `json:"backup,omitempty"`
	FailedUnits []string `json:"failedUnits,omitempty"`
	Mistakes    []string `json:"mistakes,omitempty"` // in node.yaml, which was not applied
	Problems    []string `json:"problems,omitempty"` // in words, the worst first
}

// Memory is in bytes.
type Memory struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
}

// Used is the part in use, 0 to 1.
func (m Memory) Used() float64 {
	if m.Total == 0 {
		return 0
	}
	return 1 - float64(m.Available)/float64(m.Total)
}

// Fan is what the fan's daemon tells.
type Fan struct {
	Kind        string   `json:"kind"`
	Duty        float64  `json:"duty"`          // 0 to 1
	RPM         *int     `json:"rpm,omitempty"` // where there is a tachometer
	Temperature *float64 `json:"temperatureCelsius,omitempty"`
	Problem     string   `json:"problem,omitempty"`
}

func (f Fan) String() string {
	text := fmt.Sprintf("%.0f%%", f.Duty*100)
	switch {
	case f.Kind == "firmware":
		text = "by the firmware"
	case f.Duty == 0:
		text = "off"
	case f.Duty == 1 && f.Kind != "pwm":
		text = "on"
	}
	if f.RPM != nil {
		text += fmt.Sprintf(" %d rpm", *f.RPM)
	}
	return text
}

// Backup is what a control-plane node knows of its cluster's backups.
type Backup struct {
	Time     *time.Time `json:"time,omitempty"` // of the newest that this node has left since it started
	Bytes    int64      `json:"bytes,omitempty"`
	Holders  []string   `json:"holders,omitempty"`  // workers that have it
	Problem  string     `json:"problem,omitempty"`  // why there is no newer one
	Restored *time.Time `json:"restored,omitempty"` // of the backup that the node was made from
}

func (b Backup) String() string {
	const layout = "2006-01-02 15:04 MST"
	var parts []string
	if b.Time != nil {
		parts = append(parts, fmt.Sprintf("%s, %d KiB with %s", b.Time.Format(layout), (b.Bytes+1023)>>10, strings.Join(b.Holders, ", ")))
	}
	if b.Restored != nil {
		parts = append(parts, "this node was restored from one of "+b.Restored.Format(layout))
	}
	return strings.Join(parts, "; ")
}

// WiFi is how the radio is.
type WiFi struct {
	State string `json:"state"` // "connected", "searching", "wrong password?"
	SSID  string `json:"ssid,omitempty"`
}

func (w WiFi) String() string {
	if w.State == "connected" {
		return w.SSID
	}
	return w.State
}

// Collect reads the state from a root file system: "/" on a node. What only
// the kernel or another program tells is in Live.
func Collect(root fs.FS, n *nodeconf.Node) Status {
	s := Status{
		Hostname: n.Hostname, Cube: n.Cube, Cluster: n.Cluster, Role: n.Role, Address: n.Network.Address,
		Board:       strings.TrimRight(read(root, "proc/device-tree/model"), "\x00"),
		Stage:       read(root, StageFile[1:]),
		ClusterView: read(root, ClusterFile[1:]),
		Uptime:      number(first(read(root, "proc/uptime"))),
		Load:        number(first(read(root, "proc/loadavg"))),
		Memory:      memory(read(root, "proc/meminfo")),
		Throttled:   throttled(root),
		Wear:        wear(root),
	}
	if c, err := Temperature(root, ThermalZone); err == nil {
		s.Temperature = &c
	}
	if v := hwmon(root, "rpi_volt", "in0_input"); v != "" {
		volts := number(v) / 1000
		s.Voltage = &volts
	}
	if text := read(root, MistakesFile[1:]); text != "" {
		s.Mistakes = strings.Split(text, "\n")
	}
	var f Fan
	if json.Unmarshal([]byte(read(root, FanFile[1:])), &f) == nil {
		s.Fan = &f
	}
	var b Backup
	if json.Unmarshal([]byte(read(root, BackupFile[1:])), &b) == nil {
		s.Backup = &b
	}
	return s
}

// ThermalZone is the folder of the processor's sensor.
const ThermalZone = "sys/class/thermal/thermal_zone0"

// Temperature reads a thermal zone, in °C.
func Temperature(root fs.FS, zone string) (float64, error) {
	text := read(root, path.Join(zone, "temp"))
	milli, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("/%s/temp: cannot read a temperature", zone)
	}
	return float64(milli) / 1000, nil
}

// hwmon reads a file of the hardware monitor of that name
// (Documentation/hwmon/sysfs-interface.rst).
func hwmon(root fs.FS, name, file string) string {
	dirs, _ := fs.Glob(root, "sys/class/hwmon/hwmon*")
	for _, dir := range dirs {
		if read(root, dir+"/name") == name {
			return read(root, dir+"/"+file)
		}
	}
	return ""
}

// throttled asks the firmware, where the kernel passes the question on:
// Raspberry Pi's own does, with the bits of vcgencmd get_throttled; others
// have an alarm for the voltage at most.
func throttled(root fs.FS) []string {
	var reasons []string
	files, _ := fs.Glob(root, "sys/devices/platform/soc*/soc*:firmware/get_throttled")
	for _, f := range files {
		bits, _ := strconv.ParseUint(strings.TrimPrefix(read(root, f), "0x"), 16, 32)
		for i, reason := range []string{"low voltage", "frequency capped", "throttled", "soft temperature limit"} {
			if bits>>i&1 != 0 {
				reasons = append(reasons, reason)
			}
		}
	}
	if len(reasons) == 0 && hwmon(root, "rpi_volt", "in0_lcrit_alarm") == "1" {
		reasons = append(reasons, "low voltage")
	}
	return reasons
}

// wear is how much of its life a card has behind it, in steps of 10 %. Only
// eMMC tells (JESD84-B51, DEVICE_LIFE_TIME_EST_TYP_A and B).
func wear(root fs.FS) *int {
	worst := 0
	for _, w := range strings.Fields(read(root, "sys/block/mmcblk0/device/life_time")) {
		if v, err := strconv.ParseUint(w, 0, 8); err == nil && v <= 11 {
			worst = max(worst, int(v)*10)
		}
	}
	if worst == 0 {
		return nil
	}
	return &worst
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

// Limits beyond which a node has a problem.
const (
	tooHot   = 80 // °C; the firmware slows the processor down there
	fullDisk = 0.95
	fullRAM  = 0.95
	worn     = 90 // percent
)

// FindProblems fills in Problems from everything else.
func (s *Status) FindProblems() {
	s.Problems = nil
	add := func(is bool, format string, args ...any) {
		if is {
			s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
		}
	}
	if s.Temperature != nil {
		add(*s.Temperature >= tooHot, "too hot: %.0f°C", *s.Temperature)
	}
	if s.Fan != nil {
		add(s.Fan.Problem != "", "fan: %s", s.Fan.Problem)
	}
	for _, m := range s.Mistakes {
		add(true, "%s", m)
	}
	add(len(s.Throttled) > 0, "%s", strings.Join(s.Throttled, ", "))
	add(s.Disk.Used() > fullDisk, "card is full: %.0f%%", s.Disk.Used()*100)
	add(s.Memory.Used() > fullRAM, "memory is full: %.0f%%", s.Memory.Used()*100)
	if s.Wear != nil {
		add(*s.Wear >= worn, "card is worn: %d%%", *s.Wear)
	}
	if s.Backup != nil {
		add(s.Backup.Problem != "", "backup: %s", s.Backup.Problem)
	}
	if s.WiFi != nil {
		add(s.WiFi.State == WrongPassword, "Wi-Fi: %s", s.WiFi.State)
	}
	for _, u := range s.FailedUnits {
		add(true, "failed: %s", strings.TrimSuffix(u, ".service"))
	}
}

// Print writes the state for a person.
func (s Status) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range s.Problems {
		fmt.Fprintf(tw, "PROBLEM\t%s\n", p)
	}
	for _, r := range s.rows() {
		fmt.Fprintf(tw, "%s\t%s\n", r.Name, r.Text)
	}
	return tw.Flush()
}

// rows are what is known, in words.
func (s Status) rows() []Row {
	var rows []Row
	row := func(known bool, name, format string, args ...any) {
		if known {
			rows = append(rows, Row{name, fmt.Sprintf(format, args...)})
		}
	}
	row(true, "node", "%s (%s of cube %s, cluster %s)", s.Hostname, s.Role, s.Cube, s.Cluster)
	row(s.Board != "", "board", "%s", s.Board)
	row(true, "address", "%s", s.Address)
	row(len(s.Addresses) > 0, "all addresses", "%s", strings.Join(s.Addresses, " "))
	row(s.WiFi != nil, "Wi-Fi", "%s", s.WiFi)
	row(s.Stage != "", "stage", "%s", s.Stage)
	row(s.ClusterView != "", "cluster", "%s", s.ClusterView)
	row(true, "up", "%.0f s, load %.2f", s.Uptime, s.Load)
	row(true, "memory", "%d of %d MiB available", s.Memory.Available>>20, s.Memory.Total>>20)
	row(s.Disk.Total > 0, "card", "%d of %d MiB available", s.Disk.Available>>20, s.Disk.Total>>20)
	if s.Wear != nil {
		row(true, "wear", "%d %%", *s.Wear)
	}
	if s.Temperature != nil {
		row(true, "temperature", "%.1f °C", *s.Temperature)
	}
	if s.Voltage != nil {
		row(true, "voltage", "%.2f V", *s.Voltage)
	}
	if s.Backup != nil {
		row(s.Backup.String() != "", "backup", "%s", s.Backup)
	}
	row(s.Fan != nil, "fan", "%s", s.Fan)
	return rows
}

// SetStage records a stage and announces it on the console, where the
// emulator and a person with a serial cable read it.
func SetStage(stage string) error {
	if err := write(StageFile, []byte(stage+"\n")); err != nil {
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

// SetCluster records, in words, what the node is doing in its cluster.
func SetCluster(text string) error { return write(ClusterFile, []byte(text+"\n")) }

// SetFan records how the fan is.
func SetFan(f Fan) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return write(FanFile, data)
}

// SetBackup records how the cluster's backups are.
func SetBackup(b Backup) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return write(BackupFile, data)
}

// write replaces a file that others read while it is written.
func write(name string, data []byte) error {
	if err := os.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
