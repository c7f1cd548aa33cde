package kubeadmd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/announce"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/nodeconf"
)

// introducedNodes are of two blueprints with one cluster each, whose first node
// is the control plane: home1 and home2 of the host, friend1 and friend2 of the
// guest, 127.78.1.1 to 127.78.2.2.
func introducedNodes(cube string, n int) nodeconf.Peer {
	net := map[string]int{"home": 1, "friend": 2}[cube]
	return nodeconf.Peer{Name: fmt.Sprint(cube, n), Address: fmt.Sprintf("127.78.%d.%d", net, n), Cube: cube}
}

// alone is a node of one cluster with its card's files.
func (c cluster) alone(t *testing.T, cube string, n int) (*Engine, *[]string) {
	t.Helper()
	p := introducedNodes(cube, n)
	conf := config(1)
	conf.ControlPlane = []Member{member(introducedNodes(cube, 1))}
	e, ran := engine(t, &nodeconf.Node{
		Hostname: p.Name, Cube: cube, Cluster: "picube", Peers: []nodeconf.Peer{introducedNodes(cube, 1), introducedNodes(cube, 2)},
		Network: nodeconf.Network{Interface: "eth0", Address: p.Address + "/16"},
	}, conf)
	e.Signal, e.DropBridge = func(int, syscall.Signal) error { return nil }, func() error { return nil }
	pair, ca := c.issue(t, "kubernetes", nodeRequest(p.Name))
	files := map[string][]byte{AuthorityCertificate: ca, NodeCertificate: pair.Certificate, NodeKey: pair.Key}
	if n == 1 {
		admin, _ := c.issue(t, "kubernetes", adminRequest(p.Name))
		files[AdminCertificate], files[AdminKey] = admin.Certificate, admin.Key
	}
	for file, data := range files {
		if err := e.write(file, data); err != nil {
			t.Fatal(err)
		}
	}
	return e, ran
}

func nodeRequest(node string) secrets.Request {
	return secrets.Request{Purpose: "node/" + node, CommonName: nodeUser(node), Organization: []string{"system:nodes"}, Client: true}
}

func adminRequest(node string) secrets.Request {
	return secrets.Request{Purpose: "admin/" + node, CommonName: introduction.AdminUser(node), Organization: []string{"system:masters"}, Client: true}
}

func (c cluster) authority(t *testing.T) (*secrets.Authority, *x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	a, err := c.id.Authority("kubernetes", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParseECPrivateKey(der(text))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der(a.Certificate()))
	if err != nil {
		t.Fatal(err)
	}
	return a, certificate, key
}

func der(text []byte) []byte {
	block, _ := pem.Decode(text)
	return block.Bytes
}

// introductionsOf are the files for both sides.
func introductionsOf(t *testing.T, host, guest cluster, change func(*introduction.Introduction)) (forHost, forGuest []byte) {
	t.Helper()
	a, certificate, hostKey := host.authority(t)
	_, _, guestKey := guest.authority(t)
	said := introduction.Introduction{Cluster: "picube", Issued: 1000, Authority: certificate.Raw}
	for _, cube := range []string{"home", "friend"} {
		first, second := introducedNodes(cube, 1), introducedNodes(cube, 2)
		said.Cubes = append(said.Cubes, introduction.Cube{
			Name:         cube,
			ControlPlane: []introduction.Member{{Name: first.Name, Address: first.Address}},
			Workers:      []introduction.Member{{Name: second.Name, Address: second.Address}},
		})
	}
	if change != nil {
		change(&said)
	}
	forHost, err := introduction.Seal(said, hostKey)
	if err != nil {
		t.Fatal(err)
	}
	certify := func(r secrets.Request) []byte {
		pair, _ := guest.issue(t, "kubernetes", r)
		c, err := x509.ParseCertificate(der(pair.Certificate))
		if err != nil {
			t.Fatal(err)
		}
		text, err := a.Certify(r, c.PublicKey.(*ecdsa.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		return der(text)
	}
	said.Certificates = map[string][]byte{"friend1": certify(nodeRequest("friend1")), "friend2": certify(nodeRequest("friend2"))}
	said.Admins = map[string][]byte{"friend1": certify(adminRequest("friend1"))}
	if forGuest, err = introduction.Seal(said, guestKey); err != nil {
		t.Fatal(err)
	}
	return forHost, forGuest
}

// restart is what a node knows after it began anew.
func (e *Engine) restart(t *testing.T) *Engine {
	t.Helper()
	n := *e.Node
	n.Peers = slices.DeleteFunc(slices.Clone(n.Peers), func(p nodeconf.Peer) bool { return p.Cube != n.Cube })
	conf := config(1)
	conf.ControlPlane = []Member{member(introducedNodes(n.Cube, 1))}
	again := &Engine{
		Node: &n, Config: conf, Root: e.Root, Wait: e.Wait, Now: e.Now, Say: e.Say, Pause: e.Pause, Run: e.Run,
		Signal: e.Signal, DropBridge: e.DropBridge,
	}
	if err := errors.Join(again.introduce(), again.choose(), again.installHost()); err != nil {
		t.Fatal(err)
	}
	again.SetNews(func(string) {})
	return again
}

// take has a node take an introduction.
func (e *Engine) take(t *testing.T, data []byte) *Engine {
	t.Helper()
	if said, err := e.TakeIntroduction(data); err != nil || said == "" {
		t.Fatalf("%q, %v", said, err)
	}
	if said, err := e.TakeIntroduction(data); err != nil || said != "" {
		t.Errorf("once more: %q, %v", said, err)
	}
	return e.restart(t)
}

// Nodes of two identities ask each other, over TLS, when both were introduced,
// and not before.
func TestIntroducedNodes(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	forHost, forGuest := introductionsOf(t, host, guest, nil)
	home, _ := host.alone(t, "home", 1)
	friend, _ := guest.alone(t, "friend", 1)
	if home.Merges() || friend.Merges() {
		t.Error("they know each other before")
	}
	friend = friend.take(t, forGuest)
	if want := []string{"home"}; !slices.Equal(friend.Hosts(), want) || friend.Config.Home != "friend" || friend.Config.Merge.Mode != "auto" || !friend.IsControlPlane() {
		t.Errorf("friend1: hosts %q, %+v", friend.Hosts(), friend.Config)
	}
	question := func(k merge.Kind) merge.Request {
		return merge.Request{Kind: k, From: merge.Record{ID: "f", Cube: "friend", Term: 1}}
	}
	answer := func(from string) Answerer {
		return func(_ context.Context, q merge.Request) (merge.Reply, error) {
			return merge.Reply{From: from, Kind: q.Kind, Verdict: merge.Yes}, nil
		}
	}
	friend.SetAnswer(answer("f"))
	friend.serve(t)
	// friend2 was not introduced yet.
	second, _ := guest.alone(t, "friend", 2)
	if p, err := second.ask(t.Context(), member(introducedNodes("friend", 1))); err != nil || p.Told == "" {
		t.Errorf("its own worker asks: %+v, %v", p, err)
	}

	if _, err := friend.Ask(t.Context(), "home", question(merge.Admit)); err == nil {
		t.Error("nobody answers, and says yes")
	}
	old := home.restart(t)
	ctx, cancel := context.WithCancel(t.Context())
	old.SetAnswer(answer("h"))
	l := listen(t, "127.78.1.1", PeerPort)
	ended := make(chan error)
	go func() { ended <- old.ServePeers(ctx, l) }()
	if _, err := friend.Ask(t.Context(), "home", question(merge.Admit)); err == nil || !strings.Contains(err.Error(), "404") && !strings.Contains(err.Error(), "403") {
		t.Errorf("the host was not introduced: %v", err)
	}
	cancel()
	<-ended

	home = home.take(t, forHost)
	if want := []string{"home"}; !slices.Equal(home.Hosts(), want) {
		t.Errorf("home1: hosts %q", home.Hosts())
	}
	home.SetAnswer(answer("h"))
	home.serve(t)
	if reply, err := friend.Ask(t.Context(), "home", question(merge.Admit)); err != nil || reply.From != "h" {
		t.Errorf("introduced: %+v, %v", reply, err)
	}
	if reply, err := home.Ask(t.Context(), "friend", question(merge.Where)); err != nil || reply.From != "f" {
		t.Errorf("the host asks: %+v, %v", reply, err)
	}
	worker := second.take(t, forGuest)
	if _, err := worker.Ask(t.Context(), "home", question(merge.Admit)); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a worker speaks for its cluster: %v", err)
	}
	if _, err := worker.Ask(t.Context(), "home", question(merge.Where)); err != nil {
		t.Errorf("a worker asks where: %v", err)
	}
	stranger, _ := newCluster(t, 3).alone(t, "friend", 1)
	if _, err := stranger.ask(t.Context(), member(introducedNodes("home", 1))); err == nil {
		t.Error("a stranger is answered")
	}
}

// Whoever was introduced tells the others of its blueprint, and nobody else.
func TestPassOn(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	_, forGuest := introductionsOf(t, host, guest, nil)
	first, _ := guest.alone(t, "friend", 1)
	second, _ := guest.alone(t, "friend", 2)
	first = first.take(t, forGuest)
	second.serve(t)
	if err := first.PassOn(t.Context(), first.Node.Peers); err == nil || !strings.Contains(err.Error(), "just starting") {
		t.Errorf("it took one that it can't tell of: %v", err)
	}
	var news []string
	second.SetNews(func(said string) { news = append(news, said) })
	for range 2 {
		if err := first.PassOn(t.Context(), first.Node.Peers); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"introduced to the cluster of home as a guest"}; !slices.Equal(news, want) {
		t.Errorf("told %q", news)
	}
	if second = second.restart(t); !second.Merges() || second.told() != first.told() {
		t.Error("friend2 does not know")
	}
	if err := second.PassOn(t.Context(), second.Node.Peers); err != nil {
		t.Error(err)
	}
}

// Only what the introduction allows is believed on the wire.
func TestIntroducedAnnouncements(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	forHost, forGuest := introductionsOf(t, host, guest, nil)
	home, _ := host.alone(t, "home", 1)
	friend, _ := guest.alone(t, "friend", 1)
	before := map[string]*Engine{"home": home.restart(t), "friend": friend.restart(t)}
	home, friend = home.take(t, forHost), friend.take(t, forGuest)
	believes := func(e *Engine, by *Engine, cube string) error {
		t.Helper()
		pool, err := e.Authority()
		if err != nil {
			t.Fatal(err)
		}
		pair, err := by.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		packet, err := announce.Seal(merge.Record{ID: "x", Cube: cube}, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		_, err = announce.Trust{Authority: pool, CubeOf: e.CubeOf, Now: time.Now}.Open(packet)
		return err
	}
	forger, _ := guest.alone(t, "home", 1) // whoever has the guest's authority
	for name, test := range map[string]struct {
		who, by *Engine
		cube    string
		want    string
	}{
		"the host of itself":          {home, home, "home", ""},
		"the guest of itself":         {friend, friend, "friend", ""},
		"the guest to the host":       {home, friend, "friend", ""},
		"the host to the guest":       {friend, home, "home", ""},
		"the guest as the host":       {home, friend, "home", "cannot speak for"},
		"another's authority":         {friend, forger, "home", "not of a control plane"},
		"to a host without one":       {before["home"], friend, "friend", "not of a control plane"},
		"to a guest without one":      {before["friend"], home, "home", announce.ErrStranger.Error()},
		"without one to the host":     {home, before["friend"], "friend", announce.ErrStranger.Error()},
		"without one to its own kind": {friend, before["friend"], "friend", ""},
	} {
		if err := believes(test.who, test.by, test.cube); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What can't be taken changes nothing, and says why.
func TestRefusedIntroductions(t *testing.T) {
	host, guest, third := newCluster(t, 1), newCluster(t, 2), newCluster(t, 3)
	forHost, forGuest := introductionsOf(t, host, guest, nil)
	changed := func(change func(*introduction.Introduction)) []byte {
		_, data := introductionsOf(t, host, guest, change)
		return data
	}
	other := changed(func(i *introduction.Introduction) { i.Cluster = "other" })
	_, byAnother := introductionsOf(t, third, guest, func(i *introduction.Introduction) { i.Issued = 2000 })
	_, fromThird := introductionsOf(t, host, third, nil)
	asHost, _ := introductionsOf(t, guest, third, func(i *introduction.Introduction) {
		i.Cubes[0].Name, i.Cubes[0].ControlPlane[0].Name, i.Cubes[0].ControlPlane[0].Address = "third", "third1", "127.78.3.1"
	})
	away := func(e *Engine) *Engine {
		e = e.take(t, forGuest)
		if err := e.KeepMembership(merge.Membership{Home: "f", Cluster: "h", Cube: "home", Term: 2}); err != nil {
			t.Fatal(err)
		}
		return e.restart(t)
	}
	anew := func(e *Engine) *Engine {
		pair, _ := guest.issue(t, "kubernetes", secrets.Request{Purpose: "anew", CommonName: "system:node:friend1", Client: true})
		if err := errors.Join(e.write(NodeKey, pair.Key), e.write(NodeCertificate, pair.Certificate)); err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, test := range map[string]struct {
		data   []byte
		before func(*Engine) *Engine
		want   string
	}{
		"somebody else's":       {fromThird, nil, "another identity signed it"},
		"the host's":            {forHost, nil, "another identity signed it"},
		"damaged":               {bytes.Replace(forGuest, []byte("127.78.1.1"), []byte("127.78.1.7"), 1), nil, "another identity signed it"},
		"cut off":               {forGuest[:100], nil, "cannot find its end"},
		"empty":                 {nil, nil, "cannot find its beginning"},
		"of another cluster":    {other, nil, `for nodes of the cluster "other"`},
		"its card is a new one": {forGuest, anew, "its card was built anew"},
		"expired": {forGuest, func(e *Engine) *Engine {
			e.Now = func() time.Time { return time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC) }
			return e
		}, "expired on 2074-01-01"},
		"another control plane": {changed(func(i *introduction.Introduction) { i.Cubes[1].ControlPlane[0].Address = "127.78.2.9" }), nil, "knows another control plane"},
		"a name twice": {changed(func(i *introduction.Introduction) {
			i.Cubes[0].Workers[0].Address = "127.78.2.2"
			i.Cubes[1].Workers = nil
		}), nil, "there is one of this name or address"},
		"nobody else":        {changed(func(i *introduction.Introduction) { i.Cubes = i.Cubes[1:] }), nil, "no other cluster"},
		"a guest as a host":  {asHost, func(e *Engine) *Engine { return e.take(t, forGuest) }, "a host and a guest at once"},
		"another host":       {byAnother, away, "the node is of the cluster of home"},
		"without its leader": {changed(func(i *introduction.Introduction) { i.Issued, i.Cubes[0].Name = 2000, "house" }), away, "the node is of the cluster of home"},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := guest.alone(t, "friend", 1)
			if test.before != nil {
				e = test.before(e)
			}
			before := files(t, e)
			said, err := e.TakeIntroduction(test.data)
			if err == nil || !strings.Contains(err.Error(), test.want) || said != "" {
				t.Errorf("%q, %v", said, err)
			}
			if after := files(t, e); !maps.Equal(before, after) {
				t.Error("it changed something")
			}
		})
	}
	t.Run("damaged on the card", func(t *testing.T) {
		e, _ := guest.alone(t, "friend", 1)
		e = e.take(t, forGuest)
		if err := os.Truncate(filepath.Join(e.Root, introductionsDir, byHost), 100); err != nil {
			t.Fatal(err)
		}
		n := *e.Node
		n.Peers = n.Peers[:2]
		e = &Engine{Node: &n, Config: config(1), Root: e.Root, Now: time.Now}
		e.Config.ControlPlane = []Member{member(introducedNodes("friend", 1))}
		if err := e.introduce(); err == nil || e.Merges() || e.choose() != nil {
			t.Errorf("takes a part of one: %v", err)
		}
		if said, err := e.TakeIntroduction(forGuest); said == "" || err != nil {
			t.Errorf("put right: %q, %v", said, err)
		}
	})
	t.Run("a newer one, at home", func(t *testing.T) {
		e, _ := guest.alone(t, "friend", 1)
		e = e.take(t, forGuest)
		e = e.take(t, byAnother)
		if said, err := e.TakeIntroduction(forGuest); said != "" || err != nil {
			t.Errorf("the older one: %q, %v", said, err)
		}
	})
	t.Run("a host of two", func(t *testing.T) {
		e, _ := guest.alone(t, "friend", 1)
		e = e.take(t, asHost)
		second, _ := introductionsOf(t, guest, third, func(i *introduction.Introduction) {
			i.Cubes[0] = introduction.Cube{Name: "fourth", ControlPlane: []introduction.Member{{Name: "fourth1", Address: "127.78.4.1"}}}
		})
		e = e.take(t, second)
		if len(e.Config.Cubes) != 3 || !slices.Equal(e.Hosts(), []string{"friend"}) {
			t.Errorf("%+v, hosts %q", e.Config.Cubes, e.Hosts())
		}
	})
}

// A guest's control plane leaves for its host and comes home, with the plug
// pulled at every step. What came with its card is never touched.
func TestSettleAsGuest(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	_, forGuest := introductionsOf(t, host, guest, nil)
	card := []string{AuthorityCertificate, NodeCertificate, NodeKey, AdminCertificate, AdminKey}
	for cutAt := range 5 {
		e, _ := guest.alone(t, "friend", 1)
		e = e.take(t, forGuest)
		for file, data := range map[string]string{
			manifestsDir + "/etcd.yaml": "etcd", etcdData + "/db": "objects", done: "", kubeletConfig: "of kubeadm", kubeletConf: "of kubeadm",
		} {
			if err := e.write(file, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		original := map[string]string{}
		for _, name := range card {
			original[name] = files(t, e)[name]
		}
		move := func(m merge.Membership) {
			t.Helper()
			if err := e.KeepMembership(m); err != nil {
				t.Fatal(err)
			}
			run, drop := e.Run, e.DropBridge
			steps := 0
			cut := func() error {
				if steps++; steps == cutAt {
					return context.Canceled
				}
				return nil
			}
			e.Run = func(ctx context.Context, name string, args ...string) error {
				return errors.Join(cut(), run(ctx, name, args...))
			}
			e.DropBridge = cut
			e = e.restart(t)
			// A cleanup that fails (the second step) stops nothing; going away has three.
			if err := e.Settle(t.Context()); (err != nil) != (cutAt == 1 || cutAt == 3 || cutAt == 4 && m.Cluster == m.Home) {
				t.Errorf("cut at %d: %v", cutAt, err)
			}
			e.Run, e.DropBridge = run, drop
			e = e.restart(t)
			if err := e.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := e.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !e.IsControlPlane() {
				if err := e.Work(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range card {
				if files(t, e)[name] != original[name] {
					t.Errorf("%s of its card was changed", name)
				}
			}
		}
		uses := func(want identity) {
			t.Helper()
			all := files(t, e)
			for file, part := range map[string]string{
				kubeletConf: "client-certificate: " + want.node + "\n", nodeConfig: "certificate-authority: " + want.authority + "\n",
				kubeletConfig: "clientCAFile: " + want.authority + "\n", AdminConfig: "client-certificate: " + want.admin + "\n",
			} {
				if !strings.Contains(all[file], part) {
					t.Errorf("cut at %d: %s lacks %q:\n%s", cutAt, file, part, all[file])
				}
			}
		}
		away := merge.Membership{Home: "f", Cluster: "h", Cube: "home", Term: 2}
		move(away)
		uses(hostIdentity())
		if e.IsControlPlane() || e.exists(etcdData) || !e.exists(etcdDir+".f/member/db") || e.Backends()[0] != "127.78.1.1:6443" {
			t.Errorf("cut at %d: away, it is %v", cutAt, e.Backends())
		}
		for _, secret := range []string{pkiDir + "/ca.key", introducedDir + "/node.key", introducedDir + "/ca.key"} {
			if e.exists(secret) {
				t.Errorf("%s is there", secret)
			}
		}
		move(away.Return("friend"))
		uses(ownIdentity())
		if !e.IsControlPlane() || !e.exists(etcdData+"/db") {
			t.Errorf("cut at %d: at home, it is %v", cutAt, e.Backends())
		}
	}
}

// A guest is its host's administrator by the new certificate, and its own
// cluster's by the old one.
func TestIntroducedAPI(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	_, forGuest := introductionsOf(t, host, guest, nil)
	friend, _ := guest.alone(t, "friend", 1)
	friend = friend.take(t, forGuest)
	for cube, c := range map[string]cluster{"home": host, "friend": guest} {
		var who string
		pair, _ := c.issue(t, "kubernetes", secrets.Request{Purpose: "api", CommonName: "api", Server: true, IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
		c.serveWith(t, pair, "kubernetes", introducedNodes(cube, 1).Address, APIPort, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
			_, _ = w.Write([]byte(`{"items":[]}`))
		}))
		api, err := friend.APIOf(cube)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := api.nodes(t.Context()); err != nil || who != "picube:friend1" {
			t.Errorf("%s: %q, %v", cube, who, err)
		}
	}
}

// A guest's control plane whose card was flashed anew, and does not know of any
// introduction, begins nothing while the others of its blueprint are away.
func TestFlashedAnewAsGuest(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	_, forGuest := introductionsOf(t, host, guest, nil)
	worker, _ := guest.alone(t, "friend", 2)
	worker = worker.take(t, forGuest)
	begin := func() error {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		l := listen(t, "127.78.2.2", PeerPort)
		ended := make(chan error)
		go func() { ended <- worker.ServePeers(ctx, l) }()
		anew, _ := guest.alone(t, "friend", 1)
		err := anew.recall(t.Context())
		cancel()
		<-ended
		return err
	}
	if err := begin(); err != nil {
		t.Errorf("the worker is at home: %v", err)
	}
	if err := worker.KeepMembership(merge.Membership{Home: "f", Cluster: "h", Cube: "home", Term: 2}); err != nil {
		t.Fatal(err)
	}
	worker = worker.restart(t)
	if err := begin(); err == nil || !strings.Contains(err.Error(), "became part of the cluster of home") {
		t.Errorf("the worker is away: %v", err)
	}
}

// A host's backups are left with its guests' nodes, as soon as these are of its
// cluster; before, nobody waits for them.
func TestBackupHolders(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	forHost, forGuest := introductionsOf(t, host, guest, nil)
	home, _ := host.alone(t, "home", 1)
	home = home.take(t, forHost)
	holders := func() (names []string) {
		for _, a := range home.askWorkers(t.Context()) {
			names = append(names, a.Name)
		}
		return names
	}
	if got := holders(); !slices.Equal(got, []string{"home2"}) {
		t.Errorf("the guest is off: %q", got)
	}
	worker, _ := guest.alone(t, "friend", 2)
	worker = worker.take(t, forGuest)
	for cube, want := range map[string][]string{"friend": {"home2"}, "home": {"friend2", "home2"}} {
		if err := worker.KeepMembership(merge.Membership{Home: "f", Cluster: cube, Cube: cube, Term: 2}); err != nil {
			t.Fatal(err)
		}
		worker = worker.restart(t)
		ctx, cancel := context.WithCancel(t.Context())
		l := listen(t, "127.78.2.2", PeerPort)
		ended := make(chan error)
		go func() { ended <- worker.ServePeers(ctx, l) }()
		got := holders()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the guest works for %s: %q", cube, got)
		}
		if cube == "home" {
			if err := home.push(t.Context(), member(introducedNodes("friend", 2)), Backup{1, 2, 3}, strings.NewReader("sealed")); err != nil {
				t.Error(err)
			}
		}
		cancel()
		<-ended
	}
}
