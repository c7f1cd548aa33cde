//go:build long || cluster || broad || bases || hardware

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator"
)

// built are the five cards of the shipped blueprint, made once for all tests
// from Debian's real archive.
type built struct {
	blueprint string
	out       string
	dir       string // out/picube
	key       ssh.Signer
}

// testCLI is a command whose cache outlives the test, so that the archive is
// asked once.
func testCLI(t *testing.T) (*cli, *bytes.Buffer) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := host()
	c.env["XDG_CACHE_HOME"] = filepath.Join(cache, "picube-test")
	c.stdout, c.stderr = &out, os.Stderr
	return c, &out
}

func buildCards(t *testing.T, name string) built {
	t.Helper()
	dir := t.TempDir()
	src, err := os.ReadFile(filepath.Join("testdata/cards", name))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, src, 0o600); err != nil {
		t.Fatal(err)
	}
	return buildFile(t, file)
}

// buildFile builds a blueprint whose only cube has the file's name.
func buildFile(t *testing.T, file string) built {
	t.Helper()
	out := filepath.Join(filepath.Dir(file), "out")
	c, _ := testCLI(t)
	if code := run(t.Context(), []string{"build", "-o", out, file}, c); code != exitDone {
		t.Fatalf("build: exit code %d", code)
	}
	cube := filepath.Join(out, strings.TrimSuffix(filepath.Base(file), ".hcl"))
	pem, err := os.ReadFile(filepath.Join(cube, "id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return built{blueprint: file, out: out, dir: cube, key: key}
}

// hostKey reads a node's key from known_hosts.
func (b built) hostKey(t *testing.T, node string) ssh.PublicKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "known_hosts"))
	if err != nil {
		t.Fatal(err)
	}
	for len(text) > 0 {
		_, hosts, key, _, rest, err := ssh.ParseKnownHosts(text)
		if err != nil {
			t.Fatal(err)
		}
		if hosts[0] == node {
			return key
		}
		text = rest
	}
	t.Fatalf("no host key of %s", node)
	return nil
}

// start puts a node's card into a machine.
func (b built) start(t *testing.T, e *emulator.Emulator, name string, number int, change func(*emulator.Card)) *emulator.Node {
	t.Helper()
	card := emulator.Card{
		Name: name, Image: filepath.Join(b.dir, name+".img"), Size: 4 << 30,
		Address: netip.MustParseAddr(fmt.Sprintf("10.42.1.%d", number)), Segment: "picube", Board: "rpi3",
		User: "pirate", Key: b.key, HostKey: b.hostKey(t, name),
	}
	if change != nil {
		change(&card)
	}
	n, err := e.Start(t.Context(), card)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ask runs a command on a node and returns what it printed, trimmed.
func ask(t *testing.T, n *emulator.Node, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := n.Run(ctx, command)
	if err != nil {
		t.Errorf("%s: %s: %v", n.Name(), command, err)
	}
	return strings.TrimSpace(out)
}

func newEmulator(t *testing.T) *emulator.Emulator { return emulatorOf(t, emulator.Config{}) }

func emulatorOf(t *testing.T, c emulator.Config) *emulator.Emulator {
	t.Helper()
	c.Now = time.Now
	c.Events = func(ev emulator.Event) { t.Logf("%7.1fs  %s %v %v", ev.Since.Seconds(), ev.Node, ev.Stage, ev.Err) }
	e, err := emulator.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			files, err := e.Save(filepath.Join(os.TempDir(), "picube-failed", t.Name()))
			t.Log("consoles: ", files, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}
