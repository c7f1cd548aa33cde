//go:build cluster || bases

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator"
)

// patience is for one thing that a cluster on slow machines has to do.
const patience = 30 * time.Minute

// openCards reads what a build left for the laptop.
func openCards(t *testing.T, cube string) built {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(cube, "id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return built{dir: cube, key: key}
}

// cluster is the running one.
type cluster struct {
	built
	first *emulator.Node
}

// kubectl runs on the first control-plane node and returns what it printed.
func (c cluster) kubectl(t *testing.T, args string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := c.first.Run(ctx, "sudo kubectl --request-timeout=5m --kubeconfig /etc/kubernetes/picube/admin.conf "+args)
	return strings.TrimSpace(out), err
}

// eventually repeats a question until the answer contains what is wanted.
func (c cluster) eventually(t *testing.T, args, want string) string {
	t.Helper()
	begin, out, err, told := time.Now(), "", error(nil), time.Duration(0)
	for time.Since(begin) < patience {
		if out, err = c.kubectl(t, args); err == nil && strings.Contains(out, want) {
			t.Logf("%s: %s (%s)", args, out, time.Since(begin).Round(time.Second))
			return out
		}
		if waited := time.Since(begin).Round(time.Second); waited > told+2*time.Minute {
			t.Logf("%s: %q, %v (%s)", args, out, err, waited)
			told = waited
		}
		time.Sleep(5 * time.Second)
	}
	t.Errorf("%s: %q, %v; want %q", args, out, err, want)
	return out
}

// ready waits until a node is ready in its cluster.
func ready(t *testing.T, n *emulator.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := n.WaitStage(ctx, emulator.Ready); err != nil {
		t.Fatal(err)
	}
	_, stages := n.Stage()
	t.Logf("%s: %v", n.Name(), stages)
}
