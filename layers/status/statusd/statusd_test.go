package statusd

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/picube/picube-build/layers/nodeconf"
)

func TestCollect(t *testing.T) {
	root := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/device-tree/model":               "Raspberry Pi 3 Model B Rev 1.2\x00",
		"proc/uptime":                          "61.25 100.00\n",
		"proc/loadavg":                         "0.42 0.30 0.10 1/90 1234\n",
		"proc/meminfo":                         "MemTotal:         945000 kB\nMemFree:           1 kB\nMemAvailable:     700000 kB\n",
		"sys/class/thermal/thermal_zone0/temp": "48312\n",
		"run/picube/stage":                     "configured\n",
		"run/picube/backup.json":               `{"time":"2026-11-22T10:00:00Z","bytes":1025,"holders":["rpi2","rpi3"],"problem":"no worker answers","restored":"2026-11-21T09:00:00Z"}`,
	} {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	n := &nodeconf.Node{Hostname: "rpi1", Cube: "picube", Cluster: "picube", Role: "node", Network: nodeconf.Network{Address: "10.42.1.1/16"}}
	var b strings.Builder
	s := Collect(root, n)
	s.FindProblems()
	if err := s.Print(&b); err != nil {
		t.Fatal(err)
	}
	const want = `PROBLEM      backup: no worker answers
node         rpi1 (node of cube picube, cluster picube)
board        Raspberry Pi 3 Model B Rev 1.2
address      10.42.1.1/16
stage        configured
up           61 s, load 0.42
memory       683 of 922 MiB available
temperature  48.3 °C
backup       2026-11-22 10:00 UTC, 2 KiB with rpi2, rpi3; this node was restored from one of 2026-11-21 09:00 UTC
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
