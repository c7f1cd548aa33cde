//go:build cluster

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/announce"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
)

// shop is the port of every node where the Deployment of beta's users answers.
const shop = 30081

// meeting is two cubes of two nodes, each with a cluster of its own, alpha's
// the elder.
type meeting struct {
	e           *emulator.Emulator
	alpha, beta cluster // as their control planes see them
	one         bool    // they are one cluster
	met         bool    // they have been together since they were what they are kept as
	held        bool    // beta follows only when it is told to
	outages     *outages
}

// TestMerge is the promise that cubes which meet become one, and what homes and
// thieves do meanwhile. Each part begins where it has to, so that -run may ask
// for any of them, and one that fails leaves the next one what it needs.
func TestMerge(t *testing.T) {
	m := meet(t)
	for _, part := range []struct {
		name string
		test func(t *testing.T)
	}{
		{"a forged announcement", m.forged},
		{"a stolen worker card", m.stolen},
		{"together", m.together},
		{"undone", m.undone},
		{"again", m.again},
		{"the cable is cut in the hand-over", m.cableCut(merge.HandOver)},
		{"the cable is cut while workers leave", m.cableCut(merge.Workers)},
		{"the cable is cut while it closes", m.cableCut(merge.Closing)},
		{"the plug of the leader is pulled", m.leaderDies},
		{"both have a node of one name", m.namesakes},
		{"the cable is cut while it asks", m.cableCut(merge.Asking)},
		{"the cable is cut while it keeps a snapshot", m.cableCut(merge.Snapshot)},
	} {
		begin := time.Now()
		if !t.Run(part.name, part.test) {
			m.report(t)
		}
		t.Logf("%s: %s", part.name, time.Since(begin).Round(time.Second))
	}
}

// meet switches both cubes on, each on a wire of its own, and gives them
// something to do.
func meet(t *testing.T) *meeting {
	t.Helper()
	out := buildCluster(t, "merge.hcl", 0, 0)
	e := newEmulator(t)
	alpha, beta := cubeOf{out, "alpha", 1, 2}, cubeOf{out, "beta", 2, 2}
	m := &meeting{e: e, alpha: alpha.start(t, e, "alpha", nil), outages: newOutages()}
	ready(t, m.alpha.first)
	// Each cube has a clock of its own.
	m.beta = beta.start(t, e, "beta", func(c *emulator.Card) { c.Clock = time.Now().Add(3 * time.Hour) })
	for _, n := range e.Nodes() {
		ready(t, n)
	}
	for _, c := range []struct {
		cluster
		name, deployment string
	}{{m.alpha, "alpha", "deployment garden"}, {m.beta, "beta", "-n shop deployment web"}} {
		for number := 1; number <= 2; number++ {
			c.eventually(t, fmt.Sprintf("get node %s%d --no-headers", c.name, number), " Ready ")
		}
		if nodes := c.eventually(t, "get nodes --no-headers", c.name); strings.Count(nodes, "\n") != 1 {
			t.Fatalf("%s is not alone: %s", c.name, nodes)
		}
		c.apply(t, objects(t, out, c.name+".yaml"))
		c.eventually(t, "get "+c.deployment+" -o jsonpath={.status.readyReplicas}", "1")
	}
	if t.Failed() {
		m.report(t)
		t.FailNow()
	}
	begin := time.Now()
	if err := e.Keep(); err != nil {
		t.Fatal(err)
	}
	t.Logf("kept what they are in %s", time.Since(begin).Round(time.Second))
	for _, n := range e.Nodes() {
		go m.outages.watch(t.Context(), n)
	}
	return m
}

// objects are those of one of the test's files, with the image of a build.
func objects(t *testing.T, out, file string) string {
	t.Helper()
	blueprint, err := os.ReadFile(filepath.Join(filepath.Dir(out), "picube.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("testdata/cluster", file))
	if err != nil {
		t.Fatal(err)
	}
	image := regexp.MustCompile(`images += \["(.+)"\]`).FindSubmatch(blueprint)
	return strings.ReplaceAll(string(text), "IMAGE", string(image[1]))
}

// apply makes objects, without logging all of their text.
func (c cluster) apply(t *testing.T, objects string) {
	t.Helper()
	out, err := "", error(nil)
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Second) {
		if out, err = c.kubectl(t, "apply -f - <<'END'\n"+objects+"END\n"); err == nil {
			t.Log(out)
			return
		}
	}
	t.Fatal(out, err)
}

// neverMet makes the cubes what they were before they met.
func (m *meeting) neverMet(t *testing.T) {
	t.Helper()
	m.e.SplitSegments("alpha", "beta")
	if !m.met {
		return
	}
	begin := time.Now()
	if err := m.e.Recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.one, m.met, m.held = false, false, false
	for _, c := range []cluster{m.alpha, m.beta} {
		c.eventually(t, "get --raw /readyz", "ok")
	}
	t.Logf("they have never met, as %s ago", time.Since(begin).Round(time.Second))
}

// plug connects the cubes; what it returns is for awaitPhase.
func (m *meeting) plug(t *testing.T) (begin time.Time, lines int) {
	t.Helper()
	m.met = true
	lines, begin = len(m.beta.first.Console()), time.Now()
	m.outages.forget()
	m.e.JoinSegments("alpha", "beta")
	if m.held {
		t.Log(ask(t, m.beta.first, "sudo picube-node merge"))
	}
	return begin, lines
}

// awaitPhase waits until beta's cluster says that it is in a phase.
func (m *meeting) awaitPhase(t *testing.T, phase merge.Phase, lines int) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(100 * time.Millisecond) {
		for _, line := range since(m.beta.first, lines) {
			if strings.Contains(line, "phase="+string(phase)) {
				t.Logf("%s: %s", time.Since(begin).Round(time.Second), line)
				return
			}
		}
	}
	t.Fatalf("beta was never in the phase %s", phase)
}

// since returns the lines of a console after some that were there.
func since(n *emulator.Node, lines int) []string {
	all := n.Console()
	return all[min(lines, len(all)):]
}

// together plugs the cubes together, and without a hand on a keyboard they are
// one.
func (m *meeting) together(t *testing.T) {
	m.neverMet(t)
	begin, _ := m.plug(t)
	m.becomeOne(t, begin)
}

// again plugs cubes together that have been one and were told to part.
func (m *meeting) again(t *testing.T) {
	if !m.held {
		m.undone(t)
	}
	m.e.SplitSegments("alpha", "beta")
	begin, _ := m.plug(t)
	m.becomeOne(t, begin)
}

// becomeOne waits for it, and looks at all that was promised.
func (m *meeting) becomeOne(t *testing.T, begin time.Time) {
	t.Helper()
	for _, name := range []string{"beta2", "beta1", "alpha1", "alpha2"} {
		m.alpha.eventually(t, "get node "+name+" --no-headers", " Ready ")
		t.Logf("%s after they were plugged together: %s is ready", time.Since(begin).Round(time.Second), name)
	}
	if t.Failed() {
		t.FailNow()
	}
	m.one = true
	m.alpha.eventually(t, "get nodes -L topology.kubernetes.io/zone -o wide", "beta")
	m.alpha.eventually(t, "-n shop get deployment web -o jsonpath={.status.readyReplicas}", "1")
	t.Logf("%s after they were plugged together: everything runs", time.Since(begin).Round(time.Second))
	t.Log(m.outages)
	if n := m.outages.misled(); n > 0 {
		t.Errorf("%d times another pod answered in the place of the shop", n)
	}
	m.alpha.eventually(t, "-n shop get configmap menu -o jsonpath={.data.setting}", "soup")
	m.alpha.eventually(t, "get configmap clash -o jsonpath={.data.setting}", "alpha")
	m.alpha.eventually(t, "get deployment garden -o jsonpath={.status.readyReplicas}", "1")
	reported := regexp.MustCompile(`ConfigMap default/clash`)
	var said strings.Builder
	for _, n := range []*emulator.Node{m.alpha.first, m.beta.first} {
		fmt.Fprintf(&said, "%s: %s\n%s\n", n.Name(), look(t, n, "picube-node status"), look(t, n, "sudo journalctl --no-pager -o cat -u picube-join -g clash"))
	}
	events, err := m.alpha.kubectl(t, "get events -A")
	fmt.Fprintf(&said, "events: %s %v\n", events, err)
	if !reported.MatchString(said.String()) {
		t.Errorf("nobody says that both have a ConfigMap \"clash\":\n%s", said.String())
	}
	for _, n := range m.e.Nodes() {
		if answer, err := get(t.Context(), n); err != nil || !strings.Contains(answer, "says soup") {
			t.Errorf("the shop at %s: %q, %v", n.Name(), answer, err)
		}
	}
	if files := ask(t, m.beta.first, "sudo find /var/lib/picube -path '*merge*' -type f -size +10k -exec ls -l {} +"); files == "" {
		t.Errorf("no snapshot is kept on beta1: %s", look(t, m.beta.first, "sudo find /var/lib/picube -type f | xargs sudo ls -l"))
	} else {
		t.Log(files)
	}
}

// undo takes the merge back: beta is as it was, and alpha has nothing of it.
func (m *meeting) undo(t *testing.T) {
	t.Helper()
	begin := time.Now()
	m.held = true
	m.outages.forget()
	t.Log(ask(t, m.beta.first, "sudo picube-node merge undo"))
	for _, name := range []string{"beta1", "beta2"} {
		m.ownEventually(t, "get node "+name+" --no-headers", " Ready ")
		t.Logf("%s after the undo: %s is ready", time.Since(begin).Round(time.Second), name)
	}
	m.ownEventually(t, "-n shop get deployment web -o jsonpath={.status.readyReplicas}", "1")
	m.ownEventually(t, "get configmap clash -o jsonpath={.data.setting}", "beta")
	if t.Failed() {
		t.FailNow()
	}
	m.one = false
	t.Log(m.outages)
	m.alpha.gone(t, "get namespaces -o name", "shop")
	m.alpha.gone(t, "get nodes -o name", "beta")
	m.alpha.eventually(t, "get configmap clash -o jsonpath={.data.setting}", "alpha")
	t.Logf("%s after the undo: both are as they were", time.Since(begin).Round(time.Second))
}

// ownEventually is eventually of beta's own cluster. Until its nodes are back
// what beta's control plane calls the API may still be alpha's.
func (m *meeting) ownEventually(t *testing.T, args, want string) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Second) {
		nodes, err := m.beta.kubectl(t, "get nodes -o name")
		if err == nil && !strings.Contains(nodes, "alpha") {
			m.beta.eventually(t, args, want)
			return
		}
	}
	t.Fatal("beta has no cluster of its own again")
}

// undone is a part of its own: it needs cubes that are one.
func (m *meeting) undone(t *testing.T) {
	if !m.one {
		m.together(t)
	}
	m.undo(t)
}

// gone waits until an answer lacks a word.
func (c cluster) gone(t *testing.T, args, word string) {
	t.Helper()
	out, err := "", error(nil)
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Second) {
		if out, err = c.kubectl(t, args); err == nil && !strings.Contains(out, word) {
			t.Logf("%s: no %s any more (%s)", args, word, time.Since(begin).Round(time.Second))
			return
		}
	}
	t.Errorf("%s: %q, %v; want no %q", args, out, err, word)
}

// cableCut cuts the cable between the cubes in a phase, and mends it.
func (m *meeting) cableCut(phase merge.Phase) func(t *testing.T) {
	return func(t *testing.T) {
		m.neverMet(t)
		begin, lines := m.plug(t)
		m.awaitPhase(t, phase, lines)
		m.e.SplitSegments("alpha", "beta")
		t.Logf("%s: the cable is cut", time.Since(begin).Round(time.Second))
		time.Sleep(2 * time.Minute)
		for _, n := range []*emulator.Node{m.alpha.first, m.beta.first} {
			t.Logf("%s without the cable: %s", n.Name(), look(t, n, "picube-node status"))
		}
		m.alpha.eventually(t, "get --raw /readyz", "ok")
		m.e.JoinSegments("alpha", "beta")
		t.Logf("%s: the cable is mended", time.Since(begin).Round(time.Second))
		m.becomeOne(t, begin)
	}
}

// leaderDies pulls the plug of alpha's control plane while beta hands over.
func (m *meeting) leaderDies(t *testing.T) {
	m.neverMet(t)
	begin, lines := m.plug(t)
	m.awaitPhase(t, merge.HandOver, lines)
	m.alpha.first.PullPlug()
	t.Logf("%s: the leader's plug is pulled", time.Since(begin).Round(time.Second))
	time.Sleep(2 * time.Minute)
	t.Logf("beta1 without its leader: %s", look(t, m.beta.first, "picube-node status"))
	m.ownEventually(t, "-n shop get configmap menu -o jsonpath={.data.setting}", "soup")
	plugIn(t, m.alpha.first)
	t.Logf("%s: it is plugged in again", time.Since(begin).Round(time.Second))
	m.becomeOne(t, begin)
}

// namesakes has alpha know a node by the name of one of beta's: nothing is handed
// over before somebody does something about it.
func (m *meeting) namesakes(t *testing.T) {
	m.neverMet(t)
	m.alpha.apply(t, "apiVersion: v1\nkind: Node\nmetadata: {name: beta2}\nstatus: {addresses: [{type: InternalIP, address: 10.42.1.9}]}\n")
	begin, lines := m.plug(t)
	says(t, m.beta.first, "can't follow the cluster of alpha: it has other nodes named beta2; build these cards with another hostname")
	time.Sleep(time.Minute)
	for _, line := range since(m.beta.first, lines) {
		if strings.Contains(line, "phase="+string(merge.Snapshot)) || strings.Contains(line, "phase="+string(merge.HandOver)) {
			t.Errorf("it goes on all the same: %s", line)
		}
	}
	m.alpha.gone(t, "get namespaces -o name", "shop")
	m.beta.eventually(t, "-n shop annotate configmap menu still=ours", "annotated")
	m.alpha.eventually(t, "delete node beta2", "deleted")
	m.becomeOne(t, begin)
}

// forged tells both cubes of a cluster that is elder than theirs, in ways that
// nobody may believe.
func (m *meeting) forged(t *testing.T) {
	m.neverMet(t)
	elder := func(cube string) merge.Record {
		return merge.Record{ID: "ffffffffffffffff", Cube: cube, Born: 1, Kubernetes: "v1.34.4", Version: 1 << 40, Term: 1 << 40, Phase: merge.Alone}
	}
	stolen := m.certificate(t, "alpha2")
	other := selfMade(t, "system:node:alpha1")
	var packets [][]byte
	for _, pair := range []tls.Certificate{stolen, other} {
		for _, cube := range []string{"alpha", "beta"} {
			packet, err := announce.Seal(elder(cube), pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey))
			if err != nil {
				t.Fatal(err)
			}
			packets = append(packets, packet, packet[:len(packet)/2])
		}
	}
	packets = append(packets, bytes.Repeat([]byte{'x'}, announce.MaxSize))
	m.undisturbed(t, func() {
		for _, name := range []string{"alpha2", "beta2"} {
			script := fmt.Sprintf("sudo ip route replace %s/32 dev eth0\n", announce.Group)
			for _, p := range packets {
				script += fmt.Sprintf("for i in 1 2 3; do base64 -d <<<%s >/dev/udp/%s/%d; done\n", base64.StdEncoding.EncodeToString(p), announce.Group, announce.Port)
			}
			ask(t, m.e.Node(name), script)
		}
	})
	for _, n := range []*emulator.Node{m.alpha.first, m.beta.first} {
		if status := ask(t, n, "picube-node status"); !strings.Contains(status, "cube is here, it is left alone") {
			t.Errorf("%s says nothing of a stranger: %s", n.Name(), status)
		}
	}
}

// stolen asks both control planes with the certificate of a worker's card, and
// with one that somebody made.
func (m *meeting) stolen(t *testing.T) {
	m.neverMet(t)
	m.undisturbed(t, func() {
		for _, n := range []*emulator.Node{m.alpha.first, m.beta.first} {
			for _, q := range []struct {
				who  string
				pair tls.Certificate
				kind merge.Kind
				want int // 0: it does not even get through the handshake
			}{
				{"a worker of alpha", m.certificate(t, "alpha2"), merge.Admit, http.StatusForbidden},
				{"a worker of alpha", m.certificate(t, "alpha2"), merge.Commit, http.StatusForbidden},
				{"a worker of beta", m.certificate(t, "beta2"), merge.Release, http.StatusForbidden},
				{"a worker of beta", m.certificate(t, "beta2"), merge.Where, http.StatusOK},
				{"a stranger", selfMade(t, "system:node:alpha1"), merge.Admit, 0},
				{"nobody", tls.Certificate{}, merge.Where, 0},
			} {
				status, answer, err := question(t, n, q.pair, merge.Request{Kind: q.kind, From: merge.Record{ID: "ffffffffffffffff", Cube: "alpha", Term: 1 << 40, Kubernetes: "v1.34.4"}})
				if status != q.want {
					t.Errorf("%s asks %s %s: %d %s %v; want %d", q.who, n.Name(), q.kind, status, answer, err, q.want)
				}
			}
		}
	})
}

// undisturbed holds that what somebody does changes nothing in either cluster.
func (m *meeting) undisturbed(t *testing.T, do func()) {
	t.Helper()
	before := map[string]int{}
	for _, n := range m.e.Nodes() {
		before[n.Name()] = len(n.Console())
	}
	do()
	time.Sleep(time.Minute)
	for _, n := range m.e.Nodes() {
		for _, line := range since(n, before[n.Name()]) {
			if strings.Contains(line, "phase=") || strings.Contains(line, "follow") || strings.Contains(line, "panic") {
				t.Errorf("%s: %s", n.Name(), line)
			}
		}
		t.Logf("%s: %s", n.Name(), ask(t, n, "picube-node status; systemctl is-active picube-join; systemctl show -P NRestarts picube-join"))
	}
	for name, c := range map[string]cluster{"alpha": m.alpha, "beta": m.beta} {
		if nodes := c.eventually(t, "get nodes --no-headers", " Ready "); strings.Count(nodes, "\n") != 1 || strings.Count(nodes, name) != 2 {
			t.Errorf("the cluster of %s has become another: %s", name, nodes)
		}
	}
}

// certificate is the one on the image of a node's card.
func (m *meeting) certificate(t *testing.T, node string) tls.Certificate {
	t.Helper()
	cards := m.alpha
	if strings.HasPrefix(node, "beta") {
		cards = m.beta
	}
	file := func(path string) []byte {
		var out bytes.Buffer
		h := host()
		h.stdout, h.stderr = &out, os.Stderr
		if code := run(t.Context(), []string{"inspect", filepath.Join(cards.dir, node+".img"), "/boot/firmware/picube/identity" + path}, h); code != exitDone {
			t.Fatalf("inspect %s: exit code %d", path, code)
		}
		return out.Bytes()
	}
	pair, err := tls.X509KeyPair(file(kubeadmd.NodeCertificate), file(kubeadmd.NodeKey))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// selfMade is a certificate of an authority that nobody knows.
func selfMade(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// question puts one to a node as another cluster would.
func question(t *testing.T, n *emulator.Node, pair tls.Certificate, q merge.Request) (int, string, error) {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{InsecureSkipVerify: true}
	if pair.Certificate != nil {
		conf.Certificates = []tls.Certificate{pair}
	}
	client := http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		TLSClientConfig: conf, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.Dial(ctx, kubeadmd.PeerPort) },
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://peer/merge", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// get asks the shop at one node.
func get(ctx context.Context, n *emulator.Node) (string, error) {
	return fetch(ctx, n, shop, "http://shop/probe")
}

// fetch gets what a node has at a URL, in a connection of its own, whatever the
// status: an answer of somebody else is one, too.
func fetch(ctx context.Context, n *emulator.Node, port uint16, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.Dial(ctx, port) },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return string(answer), err
}

// outages are the longest times for which something did not answer: at each
// node, and at none of them.
type outages struct {
	what  string
	ask   func(context.Context, *emulator.Node) (string, error)
	want  string        // in an answer of the right one
	pause time.Duration // between two questions to a node

	mu      sync.Mutex
	last    map[string]time.Time
	longest map[string]time.Duration
	from    map[string]string // who answered last, in order to tell of a move
	moves   []string
	wrong   int // answers of others in its place
}

const anywhere = "all nodes"

func newOutages() *outages {
	o := &outages{what: "the shop", ask: get, want: " says soup", pause: 2 * time.Second}
	o.forget()
	return o
}

func (o *outages) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.last, o.longest, o.from, o.moves = map[string]time.Time{anywhere: now}, map[string]time.Duration{}, map[string]string{}, nil
	o.wrong = 0
}

func (o *outages) watch(ctx context.Context, n *emulator.Node) {
	for ; ctx.Err() == nil; time.Sleep(o.pause) {
		if answer, err := o.ask(ctx, n); err == nil {
			o.answered(n.Name(), strings.TrimSpace(answer))
		}
	}
}

func (o *outages) answered(at, by string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	right := strings.Contains(by, o.want)
	if !right {
		o.wrong++
		by += " (wrong)"
	}
	for _, who := range []string{at, anywhere} {
		if !right {
			break
		}
		if last, ok := o.last[who]; ok {
			o.longest[who] = max(o.longest[who], now.Sub(last))
		}
		o.last[who] = now
	}
	if o.from[at] != by {
		o.from[at] = by
		o.moves = append(o.moves, fmt.Sprintf("%s  %s: %s", now.Format(time.TimeOnly), at, by))
	}
}

// misled counts the answers of pods that are not the shop.
func (o *outages) misled() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wrong
}

// String tells them, up to now.
func (o *outages) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for _, at := range slices.Sorted(maps.Keys(o.last)) {
		fmt.Fprintf(&b, "%s was away at %s for at most %s\n", o.what, at, max(o.longest[at], time.Since(o.last[at])).Round(time.Second))
	}
	return b.String() + strings.Join(o.moves, "\n")
}

// look runs a command on a node that may be in any state.
func look(t *testing.T, n *emulator.Node, command string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	out, err := n.Run(ctx, command)
	if err != nil {
		return fmt.Sprint(strings.TrimSpace(out), err)
	}
	return strings.TrimSpace(out)
}

// report is what helps to understand how it went.
func (m *meeting) report(t *testing.T) {
	for _, n := range m.e.Nodes() {
		if stage, _ := n.Stage(); stage == emulator.Off {
			continue
		}
		for _, command := range []string{
			"date; uptime; free -m | head -2; ip -br addr show eth0", "picube-node status; sudo picube-node merge status",
			"sudo journalctl --no-pager -o short-precise -u picube-join -n 400", "systemctl --failed --no-legend",
			"sudo crictl ps -a 2>/dev/null | tail -20", "sudo find /var/lib/picube -type f -size -1M -newer /etc/machine-id | xargs sudo ls -l",
		} {
			t.Logf("%s: %s\n%s", n.Name(), command, look(t, n, command))
		}
	}
	for _, c := range []cluster{m.alpha, m.beta} {
		for _, args := range []string{"get nodes -o wide", "get pods -A -o wide", "get events -A --sort-by=.lastTimestamp | tail -60", "-n kube-system get configmaps -o name"} {
			t.Logf("%s: kubectl %s\n%s", c.first.Name(), args, look(t, c.first, "sudo kubectl --request-timeout=1m --kubeconfig /etc/kubernetes/picube/admin.conf "+args))
		}
	}
	t.Log(m.outages)
}
