package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const threeNodes = `
cube "picube" {
  nodes = 2
}
cube "other" {
  nodes   = 1
  cluster = "other"
  kubernetes {}
}
`

// TestBootRefuses starts what can't be started. The cards are files that are
// there and hold nothing.
func TestBootRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "three.hcl")
	for name, text := range map[string]string{
		"three.hcl": threeNodes, "out/picube/rpi1.img": "", "out/picube/rpi2.img": "",
		"out/picube/ssh_config": "", "old/qemu-system-aarch64": "#!/bin/sh\necho QEMU emulator version 6.2.0\n",
		"new/qemu-system-aarch64": "#!/bin/sh\necho QEMU emulator version 10.0.0\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		args []string
		qemu string
		code int
		want string
	}{
		{"no such stage", []string{"--until", "logn"}, "new", exitUsage, `stage "logn": cannot wait for it: stages are`},
		{"no such node", []string{"--nodes", "rpi1,rpi9,rpi8"}, "new", exitUsage, "node rpi8, rpi9: cannot find it in the blueprint"},
		{"no such board's node", []string{"--board", "rpi7"}, "new", exitUsage, "node rpi7: cannot find it in the blueprint"},
		{"no cluster to join", []string{"--until", "ready", "--nodes", "rpi1"}, "new", exitUsage,
			"stage ready: cannot wait for it: node rpi1 has no cluster to join, as its cube has no kubernetes block"},
		{"no card", nil, "new", exitFailed, "other-1.img: cannot find the card; build it first: picube-build boot --build " + file},
		{"stale cards", []string{"--nodes", "rpi1,rpi2"}, "new", exitFailed,
			"node rpi1, rpi2: the card is not what the blueprint says now; start it all the same with --stale, or build it first: picube-build boot --build " + file},
		{"no QEMU", []string{"--nodes", "rpi1", "--stale"}, "none", exitFailed,
			"node rpi1: QEMU: cannot find qemu-system-aarch64: install it with\n  Debian, Ubuntu:  apt install qemu-system-arm\n  Fedora:          dnf install qemu-system-aarch64\n  macOS:           brew install qemu\n  Windows:         winget install"},
		{"QEMU too old", []string{"--nodes", "rpi1", "--stale"}, "old", exitFailed, "node rpi1: QEMU: cannot use version 6.2: it must be 7.2 or later"},
		{"too little memory", []string{"--nodes", "rpi1,rpi2", "--stale", "--memory", "100000000"}, "new", exitFailed, "the nodes would need 100000000 MiB in all, the host has"},
		{"no such console", []string{"--nodes", "rpi1", "--stale", "--console", "rpi2"}, "new", exitFailed, "node rpi2: cannot show the console of one that is not started"},
		{"an empty card", []string{"--nodes", "rpi1", "--stale"}, "new", exitFailed, "node rpi1: card"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			t.Setenv("PATH", filepath.Join(dir, test.qemu))
			var stderr bytes.Buffer
			c := host()
			c.env["XDG_CACHE_HOME"] = filepath.Join(dir, "cache")
			c.stdin, c.stdout, c.stderr = strings.NewReader(""), io.Discard, &stderr
			args := append([]string{"boot", "-o", filepath.Join(dir, "out"), file}, test.args...)
			if code := run(t.Context(), args, c); code != test.code || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit code %d, want %d:\n%s\nwant %s", code, test.code, &stderr, test.want)
			}
			for _, place := range []string{tmp, filepath.Join(dir, "out/picube")} {
				if left, _ := filepath.Glob(filepath.Join(place, "*.emulator")); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestYes(t *testing.T) {
	for text, want := range map[string]bool{"\n": true, "y\nmore": true, "Yes\r\n": true, "No \nmore": false, "N\n": false, "": false, "y": false} {
		in := strings.NewReader(text)
		got, err := yes(t.Context(), in)
		if got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if rest, _ := io.ReadAll(in); strings.HasSuffix(text, "more") != (string(rest) == "more") {
			t.Errorf("%q: %q is left", text, rest)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never, w := io.Pipe()
	defer w.Close()
	if _, err := yes(ctx, never); !errors.Is(err, context.Canceled) {
		t.Errorf("Ctrl-C: %v", err)
	}
}
