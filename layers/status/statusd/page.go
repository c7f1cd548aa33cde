package statusd

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/picube/picube-build/layers/nodeconf"
)

// Section is the layer's name in node.yaml.
const Section = "status"

// Config is the layer's section.
type Config struct {
	Port int `yaml:"port"` // of the page, on all addresses
}

// page needs nothing but itself: a cube may have no internet. It is
// text/template's since html/template would make the program a megabyte
// larger; what comes from outside goes through "html".
//
//go:embed page.html
var page string

// Row is a line of the page.
type Row struct{ Name, Text string }

// Link leads to another node's page.
type Link struct {
	Name, URL string
	Own       bool
}

// Handler serves the page, the same as JSON and as metrics. Nothing can be
// changed through it.
func Handler(n *nodeconf.Node, c Config, status func(context.Context) Status) (http.Handler, error) {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return nil, err
	}
	var links []Link
	for _, p := range n.Peers {
		links = append(links, Link{Name: p.Name, Own: p.Name == n.Hostname,
			URL: "http://" + net.JoinHostPort(p.Address, strconv.Itoa(c.Port)) + "/"})
	}
	mux := http.NewServeMux()
	answer := func(pattern, kind string, write func(io.Writer, Status) error) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			var b bytes.Buffer
			if err := write(&b, status(r.Context())); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
			_, _ = w.Write(b.Bytes()) // nobody is there any more
		})
	}
	answer("/{$}", "text/html; charset=utf-8", func(w io.Writer, s Status) error {
		return t.Execute(w, struct {
			Status Status
			Rows   []Row
			Links  []Link
		}{s, s.rows(), links})
	})
	answer("/status.json", "application/json", func(w io.Writer, s Status) error { return json.NewEncoder(w).Encode(s) })
	answer("/metrics", "text/plain; version=0.0.4; charset=utf-8", func(w io.Writer, s Status) error { return s.Metrics(w) })
	return mux, nil
}

// Serve answers until ctx ends.
func Serve(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: http.MaxBytesHandler(h, 1<<10), ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// Metrics writes the state in Prometheus' text format, version 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func (s Status) Metrics(w io.Writer) error {
	var b strings.Builder
	gauge := func(name, help, labels string, v float64) {
		if help != "" {
			fmt.Fprintf(&b, "# HELP picube_%s %s\n# TYPE picube_%s gauge\n", name, help, name)
		}
		fmt.Fprintf(&b, "picube_%s%s %s\n", name, labels, strconv.FormatFloat(v, 'g', -1, 64))
	}
	flag := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	gauge("info", "What this node is.", labels("node", s.Hostname, "cube", s.Cube, "cluster", s.Cluster, "role", s.Role, "board", s.Board), 1)
	if s.Stage != "" {
		gauge("stage", "How far the node has come since it was switched on.", labels("stage", s.Stage), 1)
	}
	gauge("uptime_seconds", "Time since the node was switched on.", "", s.Uptime)
	gauge("load1", "Load average of the last minute.", "", s.Load)
	gauge("memory_total_bytes", "Memory.", "", float64(s.Memory.Total))
	gauge("memory_available_bytes", "Memory that programs can still have.", "", float64(s.Memory.Available))
	gauge("disk_total_bytes", "Size of the root file system.", "", float64(s.Disk.Total))
	gauge("disk_available_bytes", "Free on the root file system.", "", float64(s.Disk.Available))
	if s.Temperature != nil {
		gauge("temperature_celsius", "Temperature of the processor.", "", *s.Temperature)
	}
	if s.Voltage != nil {
		gauge("voltage_volts", "Voltage that the firmware measures.", "", *s.Voltage)
	}
	gauge("throttled", "Whether the processor is slowed down.", "", flag(len(s.Throttled) > 0))
	if s.Wear != nil {
		gauge("card_wear_ratio", "Part of the card's life that is over, 0 to 1.", "", float64(*s.Wear)/100)
	}
	if s.Fan != nil {
		gauge("fan_duty_ratio", "Speed that the fan is told, 0 to 1.", labels("kind", s.Fan.Kind), s.Fan.Duty)
		if s.Fan.RPM != nil {
			gauge("fan_rpm", "Turns of the fan per minute.", "", float64(*s.Fan.RPM))
		}
	}
	if s.WiFi != nil {
		gauge("wifi_connected", "Whether the node is in a wireless network.", "", flag(s.WiFi.State == "connected"))
	}
	gauge("problems", "Number of problems.", "", float64(len(s.Problems)))
	_, err := io.WriteString(w, b.String())
	return err
}

// labels are name and value by turns.
func labels(pairs ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var list []string
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, pairs[i]+`="`+escape.Replace(pairs[i+1])+`"`)
	}
	return "{" + strings.Join(list, ",") + "}"
}
