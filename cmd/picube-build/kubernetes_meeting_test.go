//go:build cluster

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
)

// TestMergeTen is what a merge costs: a cube of two nodes with ten Deployments
// goes into one of three, as against two nodes that come freshly. It tells the
// times; whether they are good depends on the host.
func TestMergeTen(t *testing.T) {
	out := buildCluster(t, "ten.hcl", 0, 0)
	m := &meeting{e: newEmulator(t), outages: newOutages()}
	alpha, gamma, beta := cubeOf{out, "alpha", 1, 3}, cubeOf{out, "gamma", 3, 2}, cubeOf{out, "beta", 2, 2}
	m.alpha = alpha.start(t, m.e, "alpha", nil)
	defer func() { m.report(t) }()
	alpha.ready(t, m.alpha)

	begin := time.Now()
	m.beta = gamma.start(t, m.e, "alpha", nil)
	gamma.ready(t, m.alpha)
	fresh := time.Since(begin)
	for i := range gamma.nodes {
		m.e.Node(gamma.node(i)).PullPlug()
		m.alpha.eventually(t, "delete node "+gamma.node(i), "deleted")
	}

	m.beta = beta.start(t, m.e, "beta", nil)
	beta.ready(t, m.beta)
	m.beta.apply(t, objects(t, out, "beta.yaml"))
	text := objects(t, out, "garden.yaml")
	for i := range 9 {
		m.beta.apply(t, strings.ReplaceAll(text, "garden", fmt.Sprint("garden", i)))
	}
	const available = `get deployments -A -l moves=together -o jsonpath='{.items[?(@.status.availableReplicas==1)].metadata.name}'`
	all := func(c cluster) {
		c.eventually(t, "-n shop get deployment web -o jsonpath={.status.availableReplicas}", "1")
		for i := range 9 {
			c.eventually(t, available, fmt.Sprint("garden", i))
		}
	}
	all(m.beta)
	for _, n := range m.e.Nodes() {
		if !strings.HasPrefix(n.Name(), "gamma") {
			go m.outages.watch(t.Context(), n)
		}
	}

	begin, _ = m.plug(t)
	beta.ready(t, m.alpha)
	nodes := time.Since(begin)
	all(m.alpha)
	t.Logf("two fresh nodes are Ready %s after they were switched on; a cube of two with ten Deployments %s after it was plugged in, and all of them are available after %s",
		fresh.Round(time.Second), nodes.Round(time.Second), time.Since(begin).Round(time.Second))
	t.Log(m.outages)
	if n := m.outages.misled(); n > 0 {
		t.Errorf("%d times another pod answered in the place of the shop", n)
	}
}

// cubeOf is a cube of a blueprint that was built.
type cubeOf struct {
	out, name     string
	number, nodes int
}

func (c cubeOf) node(i int) string { return fmt.Sprint(c.name, i+1) }

// start switches all nodes of the cube on, on a wire; it returns the cluster as
// the first of them would see it.
func (c cubeOf) start(t *testing.T, e *emulator.Emulator, wire string, change func(*emulator.Card)) cluster {
	t.Helper()
	cards := openCards(t, filepath.Join(c.out, c.name))
	var first *emulator.Node
	for i := range c.nodes {
		n := cards.start(t, e, c.node(i), i+1, func(card *emulator.Card) {
			card.Size, card.CPUs, card.Segment = 8<<30, 1, wire
			card.Address = netip.AddrFrom4([4]byte{10, 42, byte(c.number), byte(i + 1)})
			if change != nil {
				change(card)
			}
		})
		if first == nil {
			first = n
		}
	}
	return cluster{cards, first}
}

// ready waits until a cluster has the cube's nodes, Ready.
func (c cubeOf) ready(t *testing.T, in cluster) {
	t.Helper()
	for i := range c.nodes {
		in.eventually(t, "get node "+c.node(i)+" --no-headers", " Ready ")
	}
}

// TestMergeVersions has cubes meet whose clusters run different versions of
// Kubernetes: they stay two, and say what to do.
func TestMergeVersions(t *testing.T) {
	out := buildCluster(t, "merge.hcl", 0, 0)
	older := filepath.Join(t.TempDir(), "older")
	blueprint := filepath.Join(filepath.Dir(out), "picube.hcl")
	text, err := os.ReadFile(blueprint)
	if err != nil {
		t.Fatal(err)
	}
	// The same identity in the same place, as it was some months ago.
	if err := errors.Join(os.WriteFile(blueprint, bytes.Replace(text, []byte("1.34.4"), []byte("1.34.3"), 1), 0o600),
		os.Remove(filepath.Join(filepath.Dir(out), "picube.lock.hcl"))); err != nil {
		t.Fatal(err)
	}
	c := host()
	c.stdout, c.stderr = io.Discard, os.Stderr
	if code := run(t.Context(), []string{"build", "-o", older, blueprint}, c); code != exitDone {
		t.Fatalf("build: exit code %d", code)
	}
	e := newEmulator(t)
	m := &meeting{e: e, alpha: cubeOf{out, "alpha", 1, 1}.start(t, e, "alpha", nil), outages: newOutages()}
	m.beta = cubeOf{older, "beta", 2, 1}.start(t, e, "beta", nil)
	defer m.report(t)
	for _, c := range []cluster{m.alpha, m.beta} {
		ready(t, c.first)
	}
	m.alpha.eventually(t, "get nodes --no-headers", " v1.34.4")
	m.beta.eventually(t, "get nodes --no-headers", " v1.34.3")
	m.plug(t)
	says(t, m.beta.first, "can't follow the cluster of alpha: it runs Kubernetes v1.34.4, this one v1.34.3; upgrade the lower one")
	time.Sleep(2 * time.Minute)
	for _, c := range []cluster{m.alpha, m.beta} {
		if nodes := c.eventually(t, "get nodes --no-headers", " Ready "); strings.Count(nodes, "\n") != 0 || !strings.HasPrefix(nodes, c.first.Name()) {
			t.Errorf("%s is not alone: %s", c.first.Name(), nodes)
		}
	}
}
