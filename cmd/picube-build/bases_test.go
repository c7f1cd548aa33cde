//go:build bases

package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
)

var lockFile = flag.String("lock", "", "lock to build the Raspberry Pi 2's cards with, where a mirror lags behind")

// reach waits for nodes to let somebody log in.
func reach(t *testing.T, nodes ...*emulator.Node) {
	t.Helper()
	for _, n := range nodes {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		err := n.WaitStage(ctx, emulator.Login)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// running waits for all that a node starts, and wants nothing to have failed.
func running(t *testing.T, n *emulator.Node) {
	t.Helper()
	if got := ask(t, n, "systemctl is-system-running --wait; true"); got != "running" {
		t.Errorf("%s is %s: %s", n.Name(), got, ask(t, n, "systemctl --failed --no-legend; systemctl list-jobs"))
	}
}

// TestRaspberryPi2 runs a 32-bit card in the board that it is for, on one wire
// with a 64-bit one of the same cube.
func TestRaspberryPi2(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "two.hcl")
	if err := os.WriteFile(file, []byte("cube \"two\" {\n  nodes = 2\n  board = \"virt\"\n  node \"rpi2\" { board = \"rpi2\" }\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if *lockFile != "" {
		text, err := os.ReadFile(*lockFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "two.lock.hcl"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cards := buildFile(t, file)
	e := newEmulator(t)
	pi := cards.start(t, e, "rpi2", 2, func(c *emulator.Card) { c.Segment, c.Board, c.Machine = "two", "rpi2", emulator.MachineRaspi2B })
	virt := cards.start(t, e, "rpi1", 1, func(c *emulator.Card) { c.Segment, c.Board, c.CPUs = "two", "virt", 1 })
	reach(t, pi, virt)
	for command, want := range map[string]string{
		"hostname":                  "rpi2",
		"dpkg --print-architecture": "armhf",
		"sudo dpkg --audit":         "",
	} {
		if got := ask(t, pi, command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	if got := ask(t, pi, "tr -d '\\0' </proc/device-tree/model; uname -r"); !strings.HasPrefix(got, "Raspberry Pi 2 Model B") || !strings.HasSuffix(got, "-armmp") {
		t.Errorf("the board is %q", got)
	}
	for _, peer := range []string{"10.42.1.1", "rpi1.local"} {
		ask(t, pi, "ping -c 3 -W 10 "+peer)
	}
	for _, peer := range []string{"10.42.1.2", "rpi2.local"} {
		ask(t, virt, "ping -c 3 -W 10 "+peer)
	}
	running(t, pi)
	t.Log(ask(t, pi, "ip -br addr; free -m; systemd-analyze"))
}
