//go:build cluster

package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
)

// introduced is two cubes of one node each that were built apart.
type introduced struct {
	e            *emulator.Emulator
	home, friend cluster
}

// TestIntroduction is the promise that two blueprints become one by two files:
// the host leads though it is the younger one, and an undo gives the guest back
// what it was.
func TestIntroduction(t *testing.T) {
	i := introduce(t)
	defer i.report(t)
	for _, part := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"together", i.together},
		{"one that nobody can take", i.refused},
		{"the plug of the guest is pulled", i.guestDies},
		{"undone", i.undone},
	} {
		begin := time.Now()
		if !t.Run(part.name, part.test) {
			return
		}
		t.Logf("%s: %s", part.name, time.Since(begin).Round(time.Second))
	}
}

// introduce builds both, puts the files on their cards and switches them on. The
// guest is the first, and has something of its own, before the host is there.
func introduce(t *testing.T) *introduced {
	t.Helper()
	out := map[string]string{}
	for _, cube := range []string{"home", "friend"} {
		out[cube] = buildCluster(t, cube+".hcl", 1, 1)
	}
	files := t.TempDir()
	c := host()
	c.stdout, c.stderr = io.Discard, os.Stderr
	args := []string{"introduce", "-o", files}
	for _, cube := range []string{"home", "friend"} {
		args = append(args, filepath.Join(filepath.Dir(out[cube]), "picube.hcl"))
	}
	if code := run(t.Context(), args, c); code != exitDone {
		t.Fatalf("introduce: exit code %d", code)
	}
	i := &introduced{e: newEmulator(t)}
	start := func(cube string, number int) cluster {
		cards := openCards(t, filepath.Join(out[cube], cube))
		image := filepath.Join(cards.dir, cube+"1.img")
		file := filepath.Join(files, "introduction-"+cube, filepath.FromSlash(introduction.Path))
		if out, err := exec.Command("mcopy", "-i", fmt.Sprintf("%s@@%d", image, 8<<20), file, "::/"+introduction.Path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		n := cards.start(t, i.e, cube+"1", 1, func(c *emulator.Card) {
			c.Size, c.CPUs, c.Address = 8<<30, 1, netip.AddrFrom4([4]byte{10, 42, byte(number), 1})
		})
		return cluster{cards, n}
	}
	i.friend = start("friend", 2)
	ready(t, i.friend.first)
	says(t, i.friend.first, "introduced to the cluster of home as a guest")
	i.friend.apply(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: menu, namespace: default}\ndata: {setting: soup}\n")
	if nodes := i.friend.eventually(t, "get nodes --no-headers", "friend1"); strings.Contains(nodes, "\n") {
		t.Fatalf("friend is not alone: %s", nodes)
	}
	i.home = start("home", 1)
	ready(t, i.home.first)
	says(t, i.home.first, "introduced to the cluster of friend")
	return i
}

// together waits until they are one, by themselves.
func (i *introduced) together(t *testing.T) {
	begin := time.Now()
	i.home.eventually(t, "get node friend1 --no-headers", " Ready ")
	t.Logf("%s after the host was ready: friend1 is ready in its cluster", time.Since(begin).Round(time.Second))
	i.home.eventually(t, "get configmap menu -o jsonpath={.data.setting}", "soup")
	i.home.eventually(t, "get nodes -L topology.kubernetes.io/zone --no-headers", "friend")
	if t.Failed() {
		t.FailNow()
	}
	// The host's identity is everybody's, by the laptop too; the guest's former
	// control plane is its administrator.
	if body, err := i.home.asLaptop(t, "home1", "/api/v1/nodes/friend1"); err != nil || !strings.Contains(body, `"10.42.2.1"`) {
		t.Errorf("the laptop asks: %.200s, %v", body, err)
	}
	i.friend.eventually(t, "get nodes -o name", "home1")
	for _, n := range []*emulator.Node{i.home.first, i.friend.first} {
		t.Logf("%s: %s", n.Name(), ask(t, n, "picube-node status; sudo picube-node merge status"))
	}
	// What a control plane keeps secret came with no introduction.
	listing := ask(t, i.friend.first, "sudo ls /etc/kubernetes/picube/introduced /etc/kubernetes/manifests; sudo grep certificate /etc/kubernetes/kubelet.conf; sudo grep clientCAFile /var/lib/kubelet/config.yaml")
	if t.Log(listing); strings.Contains(listing, "introduced/node.key") || strings.Contains(listing, "ca.key") || strings.Contains(listing, "etcd.yaml") || strings.Count(listing, "introduced/") < 3 {
		t.Errorf("the guest runs with %s", listing)
	}
	// Its pods are served like all others: the host's API reaches its kubelet.
	i.home.eventually(t, "get --raw /api/v1/nodes/friend1/proxy/healthz", "ok")
}

// refused puts a file on a card that is none of its identity's: the node says so
// and goes on.
func (i *introduced) refused(t *testing.T) {
	const restarts = "systemctl show -P NRestarts picube-join"
	before := ask(t, i.home.first, restarts)
	ask(t, i.home.first, "printf 'PCI1\\0\\0\\0\\2{}0' | sudo tee /boot/firmware/picube/introduction-x.bin >/dev/null; sync")
	statusSays := func(want bool) {
		t.Helper()
		var status string
		for begin := time.Now(); time.Since(begin) < 10*time.Minute; time.Sleep(5 * time.Second) {
			status = look(t, i.home.first, "picube-node status")
			if strings.Contains(status, "refused: introduction: another identity signed it") == want {
				return
			}
		}
		t.Errorf("it is refused: %v: %s", !want, status)
	}
	statusSays(true)
	ask(t, i.home.first, "sudo rm /boot/firmware/picube/introduction-x.bin")
	statusSays(false)
	if after := ask(t, i.home.first, restarts); after != before {
		t.Errorf("picube-join started anew: %s times, %s before", after, before)
	}
}

// guestDies pulls the plug of a guest that is away from home.
func (i *introduced) guestDies(t *testing.T) {
	begin := time.Now()
	i.friend.first.PullPlug()
	plugIn(t, i.friend.first)
	ready(t, i.friend.first)
	i.home.eventually(t, "get node friend1 --no-headers", " Ready ")
	i.home.eventually(t, "get --raw /api/v1/nodes/friend1/proxy/healthz", "ok")
	t.Logf("%s after its plug was pulled, friend1 is back in the host's cluster", time.Since(begin).Round(time.Second))
}

// undone gives the guest its own cluster and its own identity back.
func (i *introduced) undone(t *testing.T) {
	begin := time.Now()
	t.Log(ask(t, i.friend.first, "sudo picube-node merge undo"))
	i.friend.gone(t, "get nodes -o name", "home1")
	i.friend.eventually(t, "get node friend1 --no-headers", " Ready ")
	i.friend.eventually(t, "get configmap menu -o jsonpath={.data.setting}", "soup")
	t.Logf("%s after the undo: friend is a cluster again", time.Since(begin).Round(time.Second))
	// An API server that starts on one processor makes sure of its own roles for
	// minutes after it serves everything else.
	body, err := i.friend.asLaptop(t, "friend1", "/readyz")
	for begin := time.Now(); body != "ok" && time.Since(begin) < patience; time.Sleep(5 * time.Second) {
		body, err = i.friend.asLaptop(t, "friend1", "/readyz")
	}
	if err != nil || body != "ok" {
		t.Errorf("the guest's laptop asks: %q, %v", body, err)
	}
	i.home.gone(t, "get configmaps -o name", "menu")
	i.home.gone(t, "get nodes -o name", "friend1")
	if status := ask(t, i.friend.first, "sudo picube-node merge status"); !strings.Contains(status, string(merge.Alone)) || !strings.Contains(status, "until it is told") {
		t.Errorf("friend: %s", status)
	}
	if in := ask(t, i.friend.first, "sudo grep -l introduced /etc/kubernetes/kubelet.conf /etc/kubernetes/picube/node.conf /var/lib/kubelet/config.yaml || true"); in != "" {
		t.Errorf("at home it uses what it had of the host: %s", in)
	}
}

// report is what helps to understand how it went.
func (i *introduced) report(t *testing.T) {
	for _, c := range []cluster{i.home, i.friend} {
		for _, command := range []string{
			"date; uptime; ip -br addr show eth0", "picube-node status; sudo picube-node merge status",
			"sudo journalctl --no-pager -o short-precise -u picube-join -n 300", "systemctl --failed --no-legend; systemctl show -P NRestarts picube-join",
			"sudo journalctl --no-pager -o cat -u kubelet -g 'x509|certificate|Unauthorized' -n 20", "sudo crictl ps -a 2>/dev/null | tail -20",
			"sudo kubectl --request-timeout=1m --kubeconfig /etc/kubernetes/picube/admin.conf get nodes,pods -A -o wide",
		} {
			t.Logf("%s: %s\n%s", c.first.Name(), command, look(t, c.first, command))
		}
	}
}
