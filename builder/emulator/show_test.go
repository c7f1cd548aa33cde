//go:build long

package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/report"
)

// TestShow runs what `picube-build boot` does, in its three ways.
func TestShow(t *testing.T) {
	ctx := testContext(t)
	c := newCards(t)
	cubes := t.TempDir()
	folder := filepath.Join(cubes, "picube")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"ssh_config": "Host *\n\tUser pirate\n",
		"kubeconfig": "apiVersion: v1\nkind: Config\nclusters:\n- name: picube\n  cluster:\n    server: https://rpi1.local:6443\n- name: gone\n  cluster:\n    server: https://gone.local:6443\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := shortDir(t)
	config := Config{Now: time.Now, Dir: dir}
	options := func(out *bytes.Buffer) Options {
		return Options{Cards: []Card{c.card(1, ""), c.card(2, "")}, Until: Login, Timeout: 4 * time.Minute, Out: out, Access: cubes}
	}

	t.Run("lines", func(t *testing.T) {
		var out bytes.Buffer
		if err := Show(ctx, config, options(&out)); err != nil {
			t.Fatal(err)
		}
		t.Log(out.String())
		for _, want := range []string{`(?m)^ +\d+\.\ds  rpi1 +kernel$`, `(?m)^ +\d+\.\ds  rpi2 +login$`, `(?m)^NODE  ADDRESS    LOGIN$`, `(?m)^rpi2  10\.42\.1\.2  \d+\.\ds$`} {
			if !regexp.MustCompile(want).MatchString(out.String()) {
				t.Errorf("no line like %s", want)
			}
		}
	})

	t.Run("JSON, until Ctrl-C", func(t *testing.T) {
		var out bytes.Buffer
		o := options(&out)
		o.Mode, o.Until = report.JSON, Off
		ctx, interrupt := context.WithCancel(ctx)
		defer interrupt()
		hurry := make(chan struct{})
		o.Hurry = hurry
		ended := make(chan error, 1)
		go func() { ended <- Show(ctx, config, o) }()
		checkAccess(t, ctx, folder)
		interrupt()
		close(hurry)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(out.String()) {
			var m message
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(folder, "*.emulator")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})

	t.Run("a table, a node that panics", func(t *testing.T) {
		var out bytes.Buffer
		o := options(&out)
		o.Mode, o.Save = report.Live, t.TempDir()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		o.Tick = tick.C
		o.Cards = []Card{c.card(1, ""), c.card(2, "guest.panic=1")}
		err := Show(ctx, config, o)
		var failed *NodeError
		if !errors.As(err, &failed) || failed.Node != "rpi2" || !strings.Contains(err.Error(), "is kept in "+o.Save) {
			t.Errorf("%v", err)
		}
		if b, _ := os.ReadFile(filepath.Join(o.Save, "rpi2.console")); !bytes.Contains(b, []byte("told to panic")) {
			t.Error("the console was not kept")
		}
		if !strings.Contains(out.String(), "NODE  STAGE") {
			t.Errorf("no table: %q", out.String())
		}
	})

	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// checkAccess uses the files that lead the host's programs to the nodes.
func checkAccess(t *testing.T, ctx context.Context, folder string) {
	t.Helper()
	port := regexp.MustCompile(`Host rpi2\n\tHostName 127.0.0.1\n\tPort (\d+)\n`)
	for ctx.Err() == nil {
		time.Sleep(200 * time.Millisecond)
		b, _ := os.ReadFile(filepath.Join(folder, "ssh_config.emulator"))
		m := port.FindSubmatch(b)
		if m == nil {
			continue
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+string(m[1]))
		if err != nil {
			continue
		}
		greeting := make([]byte, 8)
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _ := conn.Read(greeting)
		conn.Close()
		if string(greeting[:n]) == "SSH-2.0-" {
			break
		}
	}
	b, err := os.ReadFile(filepath.Join(folder, "kubeconfig.emulator"))
	want := regexp.MustCompile(`server: https://127\.0\.0\.1:\d+\n +tls-server-name: rpi1\.local\n`)
	if err != nil || !want.Match(b) {
		t.Errorf("kubeconfig: %s %v", b, err)
	}
}
