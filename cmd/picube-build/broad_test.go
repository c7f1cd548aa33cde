//go:build broad

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
)

// broadBlueprint is a card with the judge's broad list. Its kernel is the
// board's.
func broadBlueprint(t *testing.T) string {
	t.Helper()
	list, err := os.ReadFile("../../builder/judge/testdata/broad.packages")
	if err != nil {
		t.Fatal(err)
	}
	var packages strings.Builder
	for name := range strings.FieldsSeq(string(list)) {
		if !strings.HasPrefix(name, "linux-image-") {
			fmt.Fprintf(&packages, "    %q,\n", name)
		}
	}
	return `cube "broad" {
  nodes    = 1
  packages = [
` + packages.String() + `  ]
  debconf = {
    "tzdata/Areas"                        = "Europe"
    "tzdata/Zones/Europe"                 = "Berlin"
    "locales/locales_to_be_generated"     = "en_US.UTF-8 UTF-8, de_DE.UTF-8 UTF-8"
    "locales/default_environment_locale"  = "en_US.UTF-8"
  }
}
`
}

// reinstalled are packages with scripts that a card must be able to install
// once more.
var reinstalled = []string{"ca-certificates", "cron", "dbus", "openssh-server", "ssl-cert"}

// settled waits until a system has started all that it will, what is left to
// its first boot included, and tells its state.
const settled = `while s=$(systemctl is-system-running); [ "$s" = starting ] || [ "$s" = initializing ]; do sleep 5; done; echo "$s"`

// TestBroadCard is a card with more than 560 packages, some of which only the
// first boot can configure. The power fails in the middle of that; the next
// boot finishes it, and the card is one that dpkg and apt are content with.
func TestBroadCard(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "broad.hcl")
	if err := os.WriteFile(file, []byte(broadBlueprint(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	cards := buildFile(t, file)
	e := newEmulator(t)
	n := cards.start(t, e, "rpi1", 1, func(c *emulator.Card) {
		c.Size, c.Segment, c.CPUs, c.Memory = 8<<30, "broad", 2, 2048
	})
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	for _, line := range []string{`configuring \d+ packages: `, `Setting up ssl-cert`} {
		lines, err := n.WaitConsole(ctx, regexp.MustCompile(line))
		if err != nil {
			t.Fatal(err)
		}
		t.Log(lines)
	}
	n.PullPlug()
	if err := n.PlugIn(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitStage(ctx, emulator.Login); err != nil {
		t.Fatal(err)
	}
	healthy := func() {
		t.Helper()
		if got := ask(t, n, settled); got != "running" {
			t.Errorf("the card is %s", got)
		}
		for command, want := range map[string]string{
			"systemctl --failed --no-legend":         "",
			"sudo dpkg --audit":                      "",
			"dpkg -l | sed 1,5d | grep -v ^ii; true": "",
		} {
			if got := ask(t, n, command); got != want {
				t.Errorf("%s: %q, want %q", command, got, want)
			}
		}
	}
	healthy()
	t.Logf("first boot:\n%s", ask(t, n, "sudo journalctl --no-pager -o short-monotonic -u picube-configure; systemd-analyze; free -m; df -h /"))
	for command, want := range map[string]string{
		"LC_ALL=de_DE.UTF-8 date -d 2026-03-01 +%B":                         "März",
		"date -d 2026-01-01 +%Z":                                            "CET",
		"sudo -u postgres psql -Atc 'select 1'":                             "1",
		"sudo test -s /etc/ssl/private/ssl-cert-snakeoil.key && echo there": "there",
	} {
		if got := ask(t, n, command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	for _, name := range reinstalled {
		upload(t, n, cards, deb(t, file, name), "/tmp/"+name+".deb")
	}
	t.Log(ask(t, n, "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y --reinstall /tmp/"+strings.Join(reinstalled, ".deb /tmp/")+".deb"))
	healthy()
}
