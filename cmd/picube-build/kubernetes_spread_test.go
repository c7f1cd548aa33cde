//go:build cluster

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestMergeSpreads has three cubes of one node meet, each with a cluster of its
// own: they become one, whose control plane is in all three of them once nobody
// can undo that, and so it answers though one has no power. One cube then splits
// off: it is a cluster again, and the others are one without a trace of its node,
// with one member, since two would be worse.
func TestMergeSpreads(t *testing.T) {
	out := buildCluster(t, "spread.hcl", 0, 0)
	m := &meeting{e: newEmulator(t), outages: newOutages()}
	cubes := []cubeOf{{out, "alpha", 1, 1}, {out, "beta", 2, 1}, {out, "gamma", 3, 1}}
	var all []cluster
	defer func() { m.report(t) }()
	for i, c := range cubes {
		all = append(all, c.start(t, m.e, c.name, nil))
		m.alpha, m.beta = all[0], all[min(i, 1)]
	}
	for i, c := range cubes {
		c.ready(t, all[i])
		all[i].apply(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: of-%s, namespace: default}\ndata: {from: %[1]s}\n", c.name))
	}
	begin := time.Now()
	since := func() time.Duration { return time.Since(begin).Round(time.Second) }
	m.e.JoinSegments("alpha", "beta")
	m.e.JoinSegments("beta", "gamma")
	for _, c := range cubes {
		c.ready(t, m.alpha)
		m.alpha.eventually(t, "get configmap of-"+c.name+" -o jsonpath={.data.from}", c.name)
	}
	t.Logf("%s after they were plugged together: they are one", since())
	for _, c := range cubes[1:] {
		m.alpha.eventually(t, "annotate --overwrite configmap of-"+c.name+" touched=yes", "annotated")
	}
	spread(t, m.alpha, "alpha1", "beta1", "gamma1")
	t.Logf("%s: the control plane is in three cubes", since())
	if zones := m.alpha.eventually(t, "get nodes -L topology.kubernetes.io/zone -l node-role.kubernetes.io/control-plane --no-headers", "gamma1"); strings.Count(zones, "\n") != 2 {
		t.Errorf("control-plane nodes: %s", zones)
	}
	for _, c := range cubes {
		m.alpha.eventually(t, fmt.Sprintf("--server https://10.42.%d.1:6443 get --raw /readyz", c.number), "ok")
	}
	if t.Failed() {
		t.FailNow()
	}

	m.alpha.first.PullPlug()
	begin = time.Now()
	m.beta.eventually(t, "get configmap of-gamma -o jsonpath={.data.from}", "gamma")
	m.beta.eventually(t, "annotate --overwrite configmap of-gamma without=alpha", "annotated")
	t.Logf("%s after alpha lost its power: the API takes what is written", since())
	plugIn(t, m.alpha.first)
	m.alpha.eventually(t, "get configmap of-gamma -o jsonpath={.metadata.annotations.without}", "alpha")
	cubes[0].ready(t, m.alpha)
	spread(t, m.alpha, "alpha1", "beta1", "gamma1")

	begin = time.Now()
	gamma := all[2]
	t.Log(ask(t, gamma.first, "sudo picube-node merge split"))
	spread(t, m.alpha, "alpha1")
	t.Logf("%s after gamma was told to split off: one member is left", since())
	m.alpha.gone(t, "get nodes -o name", "gamma")
	for _, c := range cubes[:2] {
		c.ready(t, m.alpha)
	}
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Second) {
		if nodes, err := gamma.kubectl(t, "get nodes -o name"); err == nil && !strings.Contains(nodes, "alpha") {
			break
		}
	}
	cubes[2].ready(t, gamma)
	gamma.gone(t, "get nodes -o name", "alpha")
	gamma.eventually(t, "get configmap of-gamma -o jsonpath={.data.from}", "gamma")
	t.Logf("%s: gamma is a cluster of its own", since())
}

// spread waits until etcd has these members and no others, all with a vote.
func spread(t *testing.T, c cluster, names ...string) {
	t.Helper()
	const list = "-n kube-system exec etcd-alpha1 -- etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt" +
		" --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key member list"
	out, err, told := "", error(nil), time.Now()
	for begin := time.Now(); time.Since(begin) < 2*patience; time.Sleep(10 * time.Second) {
		if out, err = c.kubectl(t, list); err == nil && strings.Count(out, "\n") == len(names)-1 {
			right := 0
			for _, line := range strings.Split(out, "\n") { // ID, status, name, peer addresses, client addresses, is a learner
				f := strings.Split(line, ", ")
				for _, name := range names {
					if len(f) == 6 && f[1] == "started" && f[2] == name && f[5] == "false" {
						right++
					}
				}
			}
			if right == len(names) {
				t.Logf("etcd has these members:\n%s", out)
				return
			}
		}
		if time.Since(told) > 2*time.Minute {
			told = time.Now()
			t.Logf("etcd's members: %s, %v; %s", out, err, look(t, c.first, "sudo picube-node merge status; picube-node status"))
		}
	}
	t.Fatalf("etcd's members: %s, %v; want %q", out, err, names)
}
