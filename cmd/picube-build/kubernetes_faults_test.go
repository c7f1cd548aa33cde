//go:build cluster

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
)

// long1970 is when a board without a clock believes to be.
func long1970() time.Time { return time.Unix(0, 0) }

// says waits for words on a node's console.
func says(t *testing.T, n *emulator.Node, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	match, err := n.WaitConsole(ctx, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s says %q", n.Name(), match[0])
}

func plugIn(t *testing.T, n *emulator.Node) {
	t.Helper()
	if err := n.PlugIn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// strangers are the cards of a cluster of the same names and addresses, and
// another identity.
func strangers(t *testing.T) built {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile("testdata/cluster/cluster.hcl")
	if err != nil {
		t.Fatal(err)
	}
	plain := regexp.MustCompile(`(?m)^ *(images|manifests) .*\n`).ReplaceAllString(string(text), "")
	plain = strings.NewReplacer("NODES", "3", "CONTROL", "1").Replace(plain)
	if err := os.WriteFile(filepath.Join(dir, "picube.hcl"), []byte(plain), 0o600); err != nil {
		t.Fatal(err)
	}
	c := host()
	c.stdout, c.stderr = io.Discard, os.Stderr
	if code := run(t.Context(), []string{"build", "--node", "rpi3", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "picube.hcl")}, c); code != exitDone {
		t.Fatalf("build: exit code %d", code)
	}
	return openCards(t, filepath.Join(dir, "out", "picube"))
}

// TestClusterFaults is what homes do to two small cubes of one cluster, one
// thing after the other, without internet.
func TestClusterFaults(t *testing.T) {
	out := buildCluster(t, "cubes.hcl", 0, 0)
	alpha, beta := openCards(t, filepath.Join(out, "alpha")), openCards(t, filepath.Join(out, "beta"))
	e := newEmulator(t)
	larger := func(c *emulator.Card) { c.Size, c.CPUs = 8<<30, 2 }
	first := alpha.start(t, e, "rpi1", 1, larger)
	c := cluster{alpha, first}
	var worker *emulator.Node
	for _, fault := range []struct {
		name string
		test func(t *testing.T)
	}{{
		"the plug is pulled while the cluster begins", func(t *testing.T) {
			for _, moment := range []string{
				"beginning a cluster", `Creating static Pod manifest for local etcd`,
				`static Pod manifest for "kube-apiserver"`, `static Pod manifest for "kube-controller-manager"`, "Applied essential addon: CoreDNS",
			} {
				says(t, first, moment)
				first.PullPlug()
				plugIn(t, first)
			}
		},
	}, {
		"the other cube was alone, and believes it is 1970", func(t *testing.T) {
			worker = beta.start(t, e, "rpi2", 1, func(c *emulator.Card) {
				larger(c)
				c.Segment, c.Clock, c.Address = "beta", long1970(), netip.MustParseAddr("10.42.2.1")
			})
			says(t, worker, "looking for the cluster: 0 of 1 control-plane nodes answer")
			ready(t, first)
			c.eventually(t, "create configmap kept --from-literal=word=once", "created")
			e.JoinSegments("picube", "beta")
			ready(t, worker)
			c.eventually(t, "get node rpi2 --no-headers", " Ready ")
			c.eventually(t, "get node -L topology.kubernetes.io/zone --no-headers", "beta")
			c.eventually(t, "get deployment web -o jsonpath={.status.readyReplicas}", "1")
		},
	}, {
		"the plug of a joining worker is pulled, and there is no router", func(t *testing.T) {
			worker.PullPlug()
			if err := worker.PlugInCard(t.Context(), filepath.Join(beta.dir, "rpi2.img")); err != nil {
				t.Fatal(err)
			}
			says(t, worker, "joining as a worker")
			e.SetDHCP(false)
			for _, n := range []*emulator.Node{worker, first} {
				n.PullPlug()
			}
			for _, n := range []*emulator.Node{worker, first} { // the worker first
				plugIn(t, n)
			}
			ready(t, first)
			ready(t, worker)
			c.eventually(t, "get configmap kept -o jsonpath={.data.word}", "once")
			// A dummy interface stands in, since kubeadm and services want a default route.
			if routes := ask(t, first, "ip route show default"); strings.Contains(routes, "via") {
				t.Errorf("there is a router: %s", routes)
			}
		},
	}, {
		"a router comes, and gives other addresses after a reboot", func(t *testing.T) {
			e.ForgetLeases()
			e.SetDHCP(true)
			for _, n := range []*emulator.Node{worker, first} {
				n.PullPlug()
			}
			for _, n := range []*emulator.Node{worker, first} {
				plugIn(t, n)
			}
			for _, n := range []*emulator.Node{worker, first} {
				ready(t, n)
				want := n.Lease().String() + "/"
				if got := ask(t, n, "ip -4 -br addr show eth0"); !strings.Contains(got, want) {
					t.Errorf("%s: no lease %s: %s", n.Name(), want, got)
				}
			}
			client := c.eventually(t, "get pod -l app=client --field-selector spec.nodeName=rpi1 -o jsonpath={.items[0].metadata.name}", "client-")
			c.eventually(t, "exec "+client+" -- /web get http://web/after-all", "of rpi2 says hello")
			c.eventually(t, "logs deployment/web", "request for /after-all from")
		},
	}, {
		"a stranger's card", func(t *testing.T) {
			stranger := strangers(t).start(t, e, "rpi3", 3, larger)
			says(t, stranger, "refused: 10.42.1.1 is the control plane of another cluster")
			if out := c.eventually(t, "get nodes --no-headers", "rpi2"); strings.Contains(out, "rpi3") {
				t.Errorf("the stranger came in: %s", out)
			}
		},
	}} {
		if !t.Run(fault.name, fault.test) {
			return
		}
	}
}

// TestClusterOfThree kills each node of a control plane of three once: the API
// answers, a new pod starts, and the node comes back on a new card.
func TestClusterOfThree(t *testing.T) {
	e, c := startCluster(t, openCards(t, filepath.Join(buildCluster(t, "cluster.hcl", 3, 3), "picube")), 3)
	// Not too often: each question is a handshake for a processor that has enough to do.
	api := &outages{what: "the API", ask: readyz, want: "ok", pause: 10 * time.Second}
	api.forget()
	for _, n := range e.Nodes() {
		go api.watch(t.Context(), n)
	}
	for i, dead := range e.Nodes() {
		begin := time.Now()
		dead.PullPlug()
		c.first = e.Nodes()[(i+1)%3]
		c.eventually(t, "get --raw /readyz", "ok")
		image := c.eventually(t, "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", "/web:1")
		pod := fmt.Sprintf("after%d", i+1)
		c.eventually(t, "run "+pod+" --restart=Never --image="+image+" --overrides='{\"spec\":{\"nodeName\":\""+c.first.Name()+"\"}}'", "created")
		c.eventually(t, "get pod "+pod+" -o jsonpath={.status.phase}", "Running")
		if err := dead.PlugInCard(t.Context(), filepath.Join(c.dir, dead.Name()+".img")); err != nil {
			t.Fatal(err)
		}
		ready(t, dead)
		c.eventually(t, "get node "+dead.Name()+" --no-headers", " Ready ")
		t.Logf("%s after its plug was pulled %s is back on a new card\n%s", time.Since(begin).Round(time.Second), dead.Name(), api)
		api.forget()
	}
	t.Log(c.kubectl(t, "get pods -A -o wide"))
}

// readyz asks a control-plane node whether it serves, as anybody may.
func readyz(ctx context.Context, n *emulator.Node) (string, error) {
	answer, err := fetch(ctx, n, 6443, "https://"+n.Name()+"/readyz")
	if err == nil && answer != "ok" {
		err = fmt.Errorf("%s is not ready: %s", n.Name(), answer)
	}
	return answer, err
}

// TestClusterRestore flashes the card of the only control plane anew: it comes
// back with what its worker holds for it, and asks when that is gone, too.
func TestClusterRestore(t *testing.T) {
	e, c := startCluster(t, openCards(t, filepath.Join(buildCluster(t, "cluster.hcl", 2, 1), "picube")), 2)
	worker := e.Nodes()[1]
	flash := func() {
		t.Helper()
		c.first.PullPlug()
		if err := c.first.PlugInCard(t.Context(), filepath.Join(c.dir, "rpi1.img")); err != nil {
			t.Fatal(err)
		}
	}
	c.eventually(t, "create configmap kept --from-literal=word=once", "created")
	t.Log(ask(t, c.first, "sudo picube-node backup"))
	t.Log(ask(t, worker, "sudo ls -l /var/lib/picube/backups; ps -o rss,args -C picube-node"))
	t.Log(ask(t, c.first, "picube-node status; ps -o rss,args -C picube-node"))
	c.eventually(t, "create configmap late --from-literal=word=lost", "created")

	flash()
	says(t, c.first, "restored the backup of .* UTC.*")
	ready(t, c.first)
	c.eventually(t, "get configmap kept -o jsonpath={.data.word}", "once")
	if out, err := c.kubectl(t, "get configmap late"); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("what came after the backup: %q, %v", out, err)
	}
	for _, n := range e.Nodes() {
		c.eventually(t, "get node "+n.Name()+" --no-headers", " Ready ")
	}
	c.eventually(t, "get deployment web -o jsonpath={.status.readyReplicas}", "1")
	if out := ask(t, c.first, "picube-node status"); !strings.Contains(out, "this node was restored from one of ") {
		t.Errorf("its status: %s", out)
	}
	t.Log(c.kubectl(t, "get pods -A -o wide"))

	ask(t, worker, "sudo rm -r /var/lib/picube/backups")
	flash()
	says(t, c.first, "its cluster exists, but no backup was found; `sudo picube-node begin --empty` starts an empty one")
	ask(t, c.first, "sudo picube-node begin --empty")
	if out := ask(t, c.first, "for i in $(seq 100); do sudo test -d /var/lib/etcd/member && echo begun && exit; sleep 3; done"); out != "begun" {
		t.Errorf("told to begin: %q", out)
	}
}
