package kubeadmd

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/layers/cluster/joind"
	"github.com/picube/picube-build/layers/nodeconf"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s", name, got)
	}
}

func node(number int, role string) *nodeconf.Node {
	return &nodeconf.Node{
		Hostname: fmt.Sprintf("rpi%d", number), Cube: "picube", Cluster: "picube", Number: number, Role: role,
		Network: nodeconf.Network{Interface: "eth0", Address: fmt.Sprintf("10.42.1.%d/16", number)},
	}
}

func config(controlPlanes int) Config {
	c := Config{Version: "v1.34.4", PauseImage: "registry.k8s.io/pause:3.10.1", PodSubnet: "10.244.0.0/16", ServiceSubnet: "10.96.0.0/12"}
	for i := range controlPlanes {
		c.ControlPlane = append(c.ControlPlane, Member{Name: fmt.Sprintf("rpi%d", i+1), Address: fmt.Sprintf("10.42.1.%d", i+1)})
	}
	return c
}

func TestKubeadm(t *testing.T) {
	one := config(1)
	one.Labels, one.Taints = map[string]string{"disk": "ssd", "arm": "a53"}, []string{"gpu=none:NoSchedule"}
	one.APIServerArgs = map[string]string{"event-ttl": "1h0m0s"}
	for name, test := range map[string]struct {
		config Config
		node   int
		join   bool
	}{
		"init.yaml":       {config: one, node: 1},
		"init-three.yaml": {config: config(3), node: 1},
		"join.yaml":       {config: config(3), node: 2, join: true},
	} {
		got, err := test.config.Kubeadm(node(test.node, "control-plane"), test.join)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
	}
}

// engine is one whose programs are noted, not run.
func engine(t *testing.T, n *nodeconf.Node, c Config) (*Engine, *[]string) {
	t.Helper()
	var ran []string
	wait := func(_ context.Context, url string) error {
		ran = append(ran, "wait "+url)
		return nil
	}
	pause := func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return &Engine{Node: n, Config: c, Root: t.TempDir(), Wait: wait, Now: time.Now, Say: func(string) {}, Pause: pause, Run: func(_ context.Context, name string, args ...string) error {
		ran = append(ran, name+" "+strings.Join(args, " "))
		return nil
	}}, &ran
}

// files returns what the engine wrote, by path.
func files(t *testing.T, e *Engine) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(e.Root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		all[strings.TrimPrefix(p, e.Root)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWorker(t *testing.T) {
	c := config(1)
	c.Labels, c.Taints = map[string]string{"disk": "ssd"}, []string{"gpu=none:NoSchedule"}
	e, ran := engine(t, node(2, "worker"), c)
	for range 2 { // a second start changes nothing
		*ran = nil
		if err := e.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e.IsControlPlane() || e.MayBegin() {
			t.Error("a worker takes itself for a control plane")
		}
		if err := e.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !e.IsMember() {
		t.Error("not a member after joining")
	}
	if want := []string{"systemctl --no-block start kubelet.service kube-proxy.service"}; !slices.Equal(*ran, want) {
		t.Errorf("the second start ran %q", *ran)
	}
	var b bytes.Buffer
	all := files(t, e)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "--- %s\n%s", name, all[name])
	}
	golden(t, "worker.txt", b.Bytes())
}

// withAuthority puts the certificate on the card that each has.
func withAuthority(t *testing.T, e *Engine) {
	t.Helper()
	if err := e.write(AuthorityCertificate, []byte("the authority\n")); err != nil {
		t.Fatal(err)
	}
}

func TestControlPlane(t *testing.T) {
	e, ran := engine(t, node(1, "control-plane"), config(1))
	withAuthority(t, e)
	for _, step := range []func(context.Context) error{e.Prepare, e.Begin} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !e.IsControlPlane() || !e.MayBegin() || !e.IsMember() {
		t.Error("the first control plane must begin, and know that it has")
	}
	var programs []string
	for _, line := range *ran {
		programs = append(programs, strings.Join(strings.Fields(line)[:2], " "))
	}
	if want := []string{"systemctl --no-block", "kubeadm init", "wait http://127.0.0.1:2381/readyz", "kubeadm init", "wait https://127.0.0.1:7443/readyz", "kubeadm init", "kubeadm init", "systemctl --no-block", "kubectl --kubeconfig"}; !slices.Equal(programs, want) {
		t.Errorf("ran %q", *ran)
	}
	golden(t, "cluster-info.yaml", []byte(files(t, e)["/"+strings.TrimPrefix(clusterInfo, "/")]))
	for name := range Patches() {
		if _, ok := files(t, e)["/"+strings.TrimPrefix(patchDir, "/")+"/"+name]; !ok {
			t.Errorf("patch %s is missing", name)
		}
	}
}

// The plug is pulled in each of the steps: the node is no member yet, and the
// next start does what is left.
func TestCutOff(t *testing.T) {
	e, ran := engine(t, node(1, "control-plane"), config(1))
	withAuthority(t, e)
	run := e.Run
	for left := len(e.beginning()); left > 0; left-- {
		calls := 0
		e.Run = func(ctx context.Context, name string, args ...string) error {
			if calls++; calls > 1 {
				return context.Canceled
			}
			return run(ctx, name, args...)
		}
		if err := e.Begin(t.Context()); err == nil || e.IsMember() {
			t.Errorf("%d steps left: error %v, member %t", left, err, e.IsMember())
		}
	}
	*ran, e.Run = nil, run
	if err := e.Begin(t.Context()); err != nil || !e.IsMember() || slices.ContainsFunc(*ran, func(line string) bool { return strings.HasPrefix(line, "kubeadm") }) {
		t.Errorf("after all steps: error %v, member %t, ran %q", err, e.IsMember(), *ran)
	}
}

// A member that was promoted, though kubeadm does not know it, is in the
// cluster; the next step of joining follows.
func TestPromoted(t *testing.T) {
	e, ran := engine(t, node(2, "control-plane"), config(3))
	withAuthority(t, e)
	votes := false
	note := e.Run
	e.Run = func(ctx context.Context, name string, args ...string) error {
		_ = note(ctx, name, args...)
		<-ctx.Done() // it tries and tries
		return ctx.Err()
	}
	s := step{done: func(context.Context) bool {
		was := votes
		votes = true // from the second look on
		return was
	}}
	if err := e.unlessDone(t.Context(), s, "join"); err != nil || len(*ran) != 1 {
		t.Errorf("promoted while it ran: %v, ran %q", err, *ran)
	}
	if err := e.unlessDone(t.Context(), s, "join"); err != nil || len(*ran) != 1 {
		t.Errorf("promoted before: %v, ran %q", err, *ran)
	}
	e.Run = note
	if err := e.kubeadm(t.Context(), "join", joined, joinPhases(), e.joining()); err != nil || e.count(joined) != len(e.joining()) {
		t.Errorf("join: %v, %d steps", err, e.count(joined))
	}
	for i, step := range e.joining() {
		for _, phase := range step.phases {
			if !slices.Contains(joinPhases(), phase) {
				t.Errorf("step %d: kubeadm has no phase %q", i+1, phase)
			}
		}
	}
}

func TestDNS(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.96.0.0/12": "10.96.0.10", "10.43.7.0/24": "10.43.7.10", "10.0.0.0/30": "serviceSubnet: cannot hold a name server: 10.0.0.0/30 is too small",
	} {
		got, err := Config{ServiceSubnet: subnet}.DNS()
		text := got.String()
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%s: %s, want %s", subnet, text, want)
		}
	}
}

func TestCNI(t *testing.T) {
	got, err := CNI(netip.MustParsePrefix("10.244.1.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cni.json", append(got, '\n'))
}

const nodeList = `{"items": [
 {"metadata": {"name": "rpi1"}, "spec": {"podCIDR": "10.244.0.0/24"}, "status": {
   "addresses": [{"type": "Hostname", "address": "rpi1"}, {"type": "InternalIP", "address": "10.42.1.1"}],
   "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}},
 {"metadata": {"name": "rpi2"}, "spec": {"podCIDR": "10.244.1.0/24"}, "status": {
   "addresses": [{"type": "InternalIP", "address": "10.42.1.2"}], "conditions": [{"type": "Ready", "status": "Unknown"}]}},
 {"metadata": {"name": "rpi3"}, "spec": {}, "status": {"addresses": [{"type": "InternalIP", "address": "10.42.1.3"}]}},
 {"metadata": {"name": "odd"}, "spec": {"podCIDR": "10.244.9.0/24"}, "status": {"addresses": [{"type": "InternalIP", "address": "nonsense"}]}}
]}`

func TestRead(t *testing.T) {
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := json.Unmarshal([]byte(nodeList), &list); err != nil {
		t.Fatal(err)
	}
	prefix, address := netip.MustParsePrefix, netip.MustParseAddr
	for name, test := range map[string]struct {
		view   joind.View
		routes Routes
	}{
		"rpi1": {joind.View{Registered: true, Ready: true, Nodes: 4, NodesReady: 1},
			Routes{Own: prefix("10.244.0.0/24"), Nodes: map[netip.Prefix]netip.Addr{prefix("10.244.1.0/24"): address("10.42.1.2")}}},
		"rpi2": {joind.View{Registered: true, Nodes: 4, NodesReady: 1},
			Routes{Own: prefix("10.244.1.0/24"), Nodes: map[netip.Prefix]netip.Addr{prefix("10.244.0.0/24"): address("10.42.1.1")}}},
		"new": {joind.View{Nodes: 4, NodesReady: 1},
			Routes{Nodes: map[netip.Prefix]netip.Addr{prefix("10.244.0.0/24"): address("10.42.1.1"), prefix("10.244.1.0/24"): address("10.42.1.2")}}},
	} {
		view, routes := read(list.Items, name)
		if view != test.view || routes.Own != test.routes.Own || !maps.Equal(routes.Nodes, test.routes.Nodes) {
			t.Errorf("%s: %+v %+v", name, view, routes)
		}
	}
}
