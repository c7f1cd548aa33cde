//go:build broad || bases

package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/builder/lock"
)

// deb returns where the build has cached a package.
func deb(t *testing.T, blueprint, name string) string {
	t.Helper()
	l, err := lock.Read(lock.Path(blueprint))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := testCLI(t)
	cache, err := c.cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range l.Sets {
		for _, p := range set.Packages {
			if p.Name == name {
				return filepath.Join(cache, "downloads", p.SHA256)
			}
		}
	}
	t.Fatalf("package %s: cannot find it in the lock", name)
	return ""
}

// upload copies a file to a node.
func upload(t *testing.T, n *emulator.Node, cards built, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := n.Dial(t.Context(), 22)
	if err != nil {
		t.Fatal(err)
	}
	client, channels, requests, err := ssh.NewClientConn(conn, net.JoinHostPort(n.Address().String(), "22"), &ssh.ClientConfig{
		User: "pirate", Auth: []ssh.AuthMethod{ssh.PublicKeys(cards.key)},
		HostKeyCallback: ssh.FixedHostKey(cards.hostKey(t, n.Name())),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(client, channels, requests)
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	session.Stdin = f
	if err := session.Run("cat >" + to); err != nil {
		t.Fatal(err)
	}
}
