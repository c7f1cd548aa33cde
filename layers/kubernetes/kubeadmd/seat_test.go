package kubeadmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/joind"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/nodeconf"
)

// union is the cluster of alpha, of which beta and gamma became parts: one node of
// each cube, at 127.77.1.1 to 127.77.3.1, with an API and an etcd that are lists.
type union struct {
	t           *testing.T
	cluster     cluster
	api         *fakeAPI
	members     []etcdMember
	etcdCluster string
	serves      map[string]bool // whose API server answers
	leader      *Merging
	guests      []*Engine
	record      merge.Record
	now         time.Time
	cut         int // the programs that run until one is cut off
	ran         map[string][]string
}

func newUnion(t *testing.T) *union {
	t.Helper()
	return newUnionOf(t, true)
}

// newUnionOf leaves out the stand-ins of etcd where there are real ones.
func newUnionOf(t *testing.T, standIns bool) *union {
	t.Helper()
	c := newCluster(t, 1)
	u := &union{
		t: t, cluster: c, api: &fakeAPI{objects: map[string]object{}}, etcdCluster: "7", serves: map[string]bool{"alpha1": true}, now: time.Unix(1800000000, 0),
		members: []etcdMember{{ID: "1", Name: "alpha1", PeerURLs: []string{"https://127.77.1.1:2380"}}}, ran: map[string][]string{},
		record: merge.Record{ID: "a", Cube: "alpha", Phase: merge.Alone, Version: 1, Term: 1, Guests: []merge.Guest{
			{ID: "b", Cube: "beta", Term: 2, State: merge.Absorbed}, {ID: "c", Cube: "gamma", Term: 2, State: merge.Absorbed},
		}},
	}
	var peers []nodeconf.Peer
	var cubes []Cube
	for i, cube := range []string{"alpha", "beta", "gamma"} {
		p := nodeconf.Peer{Name: cube + "1", Cube: cube, Address: fmt.Sprintf("127.77.%d.1", i+1)}
		peers, cubes = append(peers, p), append(cubes, Cube{Name: cube, ControlPlane: []Member{member(p)}})
		u.api.objects["/api/v1/nodes/"+p.Name] = object{
			"metadata": object{"name": p.Name}, "status": object{"conditions": []any{object{"type": "Ready", "status": "True"}}},
		}
	}
	for i, p := range peers {
		conf := config(1)
		conf.Cubes, conf.Home, conf.Merge = cubes, p.Cube, Merge{Mode: "auto"}
		own := &nodeconf.Node{Hostname: p.Name, Cube: p.Cube, Cluster: "picube", Peers: peers, Network: nodeconf.Network{Interface: "eth0", Address: p.Address + "/16"}}
		e, _ := engine(t, own, conf)
		e.Run, e.Now, e.DropBridge = u.run(e), func() time.Time { return u.now }, func() error { return nil }
		for _, issued := range []struct{ authority, name, authorityFile, certificate, key string }{
			{"kubernetes", nodeUser(p.Name), AuthorityCertificate, NodeCertificate, NodeKey},
			{"kubernetes", "picube:" + p.Name, AuthorityCertificate, AdminCertificate, AdminKey},
			{"etcd", "picube:" + p.Name, etcdAuthority, EtcdCertificate, EtcdKey},
		} {
			pair, ca := c.issue(t, issued.authority, secrets.Request{Purpose: issued.name, CommonName: issued.name, Client: true})
			if err := errors.Join(e.write(issued.authorityFile, ca), e.write(issued.certificate, pair.Certificate), e.write(issued.key, pair.Key)); err != nil {
				t.Fatal(err)
			}
		}
		m := merge.Membership{Home: "abc"[i : i+1], Cluster: "a", Cube: "alpha", Term: 2}
		if err := errors.Join(e.KeepMembership(m), e.write(done, nil), e.choose()); err != nil {
			t.Fatal(err)
		}
		pair, _ := c.issue(t, "kubernetes", secrets.Request{Purpose: "api", CommonName: p.Name, Server: true, IP: ips("127.0.0.1", p.Address)})
		if standIns {
			s := c.serve(t, "etcd", p.Address, etcdPort, http.HandlerFunc(u.etcd))
			t.Cleanup(func() { s.Close() })
		}
		for _, s := range []*http.Server{
			c.serveWith(t, pair, "kubernetes", p.Address, APIPort, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/readyz" && !u.serves[p.Name] {
					http.Error(w, "not ready", http.StatusInternalServerError)
				} else if r.URL.Path != "/readyz" {
					u.api.ServeHTTP(w, r)
				}
			})),
		} {
			t.Cleanup(func() { s.Close() })
		}
		if i > 0 {
			u.guests = append(u.guests, e)
			u.home(e)
			continue
		}
		l, err := e.NewMerging()
		if err != nil {
			t.Fatal(err)
		}
		u.leader, l.thawed = l, true
	}
	proxy := c.serve(t, "kubernetes", "127.0.0.1", ProxyPort, u.api)
	t.Cleanup(func() { proxy.Close() })
	return u
}

// home is what a control-plane node shelved when it left.
func (u *union) home(e *Engine) {
	u.t.Helper()
	m, err := e.Membership()
	if err = errors.Join(err, e.write(manifestsHome+"/etcd.yaml", []byte("home")), e.write(etcdDir+"."+m.Home+"/member/db", []byte("home")), e.write(entered, []byte("a"))); err != nil {
		u.t.Fatal(err)
	}
}

// isHome holds that nothing of it was lost.
func (u *union) isHome(e *Engine) {
	u.t.Helper()
	m, err := e.Membership()
	if err != nil {
		u.t.Fatal(err)
	}
	for _, file := range []string{manifestsHome + "/etcd.yaml", etcdDir + "." + m.Home + "/member/db"} {
		if text, _ := os.ReadFile(filepath.Join(e.Root, file)); string(text) != "home" {
			u.t.Fatalf("%s: %s is %q", e.Node.Hostname, file, text)
		}
	}
	if e.exists(manifestsHome + "/kube-apiserver.yaml") {
		u.t.Fatalf("%s: another cluster's API server is to start at home", e.Node.Hostname)
	}
}

// etcd is a gateway that lists members and removes them.
func (u *union) etcd(w http.ResponseWriter, r *http.Request) {
	var question struct {
		ID string `json:"ID"`
	}
	_ = json.NewDecoder(r.Body).Decode(&question)
	u.members = slices.DeleteFunc(u.members, func(m etcdMember) bool { return m.ID == question.ID })
	_ = json.NewEncoder(w).Encode(map[string]any{"header": map[string]string{"cluster_id": u.etcdCluster}, "members": u.members})
}

// run does what a program of a node would do.
func (u *union) run(e *Engine) func(context.Context, string, ...string) error {
	return func(_ context.Context, name string, args ...string) error {
		line := name + " " + strings.Join(args, " ")
		u.ran[e.Node.Hostname] = append(u.ran[e.Node.Hostname], line)
		if u.cut--; u.cut == 0 {
			return context.Canceled
		}
		if name != "kubeadm" {
			return nil
		}
		skipped := strings.Split(args[slices.Index(args, "--skip-phases")+1], ",")
		does := func(phase string) bool { return !slices.Contains(skipped, phase) }
		if does("kubelet-start") || does("kubelet-wait-bootstrap") {
			u.t.Errorf("%s: kubeadm is to start a kubelet that runs: %s", e.Node.Hostname, line)
		}
		address := e.Config.ControlPlane[slices.IndexFunc(e.Config.ControlPlane, func(m Member) bool { return m.Name == e.Node.Hostname })].Address
		isIt := func(m etcdMember) bool { return m.isOf(e.Node.Hostname, address) }
		var errs []error
		if does("etcd-join") && !slices.ContainsFunc(u.members, isIt) {
			u.members = append(u.members, etcdMember{ID: e.Node.Hostname, Name: e.Node.Hostname, PeerURLs: []string{"https://" + address + ":2380"}})
			errs = append(errs, e.write(etcdData+"/db", []byte("guest")), e.write(manifestsDir+"/etcd.yaml", []byte("guest")))
		}
		if does("control-plane-prepare/control-plane") {
			u.serves[e.Node.Hostname] = true
			errs = append(errs, e.write(manifestsDir+"/kube-apiserver.yaml", []byte("guest")))
		}
		return errors.Join(errs...)
	}
}

// turn is what happens within a minute.
func (u *union) turn() {
	u.t.Helper()
	u.now = u.now.Add(time.Minute)
	var v merge.Sight
	if err := u.leader.See(u.t.Context(), u.record, &v); err != nil {
		u.t.Fatal(err)
	}
	s := merge.Settings{Mode: merge.Auto}
	next, actions := s.Step(u.record, v)
	u.record = next
	for _, a := range actions {
		if err := u.leader.Do(u.t.Context(), u.record, a); err != nil {
			u.t.Fatal(err)
		}
	}
	for _, e := range append(slices.Clone(u.guests), u.leader.Engine) {
		u.look(e)
	}
	for _, e := range u.guests {
		u.isHome(e)
	}
}

// look lets a node see what it is to be, and become it; what is cut off it does
// again next time.
func (u *union) look(e *Engine) {
	u.t.Helper()
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := u.leader.Own.get(u.t.Context(), "/api/v1/nodes", &list); err != nil {
		u.t.Fatal(err)
	}
	err := e.observe(u.t.Context(), list.Items)
	if err != nil && !errors.Is(err, joind.ErrChanged) {
		u.t.Fatal(err)
	}
	if err := errors.Join(e.choose(), e.Hold()); err != nil {
		u.t.Fatal(err)
	}
	if e.Settle(u.t.Context()) != nil || !e.IsControlPlane() || e.Resume(u.t.Context()) != nil || e.IsMember() {
		return
	}
	if err := e.Join(u.t.Context()); errors.Is(err, joind.ErrChanged) {
		u.look(e)
	}
}

func (u *union) names() (names []string) {
	for _, m := range u.members {
		names = append(names, m.Name)
	}
	return names
}

// until turns until something holds.
func (u *union) until(what string, holds func() bool) {
	u.t.Helper()
	for range 100 {
		if holds() {
			return
		}
		u.turn()
	}
	u.t.Fatalf("never %s: members %q, record %+v, nodes %v", what, u.names(), u.record, u.api.objects)
}

// A control plane spreads over three cubes once nothing can be undone any more;
// one of them leaves for good, and it is one member again. A plug is pulled at
// each program that runs for it.
func TestSpread(t *testing.T) {
	for _, cut := range []int{0, 1, 2, 3, 4, 5, 9} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			u := newUnion(t)
			u.cut = cut
			u.turn()
			u.now = u.now.Add(settles - 2*time.Minute)
			u.turn()
			if len(u.record.Spread) > 0 {
				t.Fatalf("spread though all can be undone: %q", u.names())
			}
			most := 0
			u.until("three members", func() bool {
				if n := len(u.members); n > most+1 {
					t.Fatalf("from %d members to %d", most, n)
				} else {
					most = n
				}
				return len(u.members) == 3 && u.serves["gamma1"] && len(u.leader.Engine.Config.ControlPlane) == 3
			})
			u.turn()
			for _, e := range append(u.guests, u.leader.Engine) {
				if got, want := strings.Join(e.Backends(), " "), "127.77.1.1:6443 127.77.2.1:6443 127.77.3.1:6443"; got != want || !e.IsMember() {
					t.Errorf("%s calls %s, member: %v", e.Node.Hostname, got, e.IsMember())
				}
			}
			seats, beta := u.record.Spread, u.guests[0]
			u.turn()
			if !slices.Equal(seats, u.record.Spread) || u.record.Resigning != "" {
				t.Errorf("it does not rest: %+v", u.record)
			}
			// A node that is switched on keeps its parts apart from those of home.
			if err := errors.Join(remove(filepath.Join(beta.Root, switchedOn)), beta.Hold()); err != nil {
				t.Fatal(err)
			}
			if !beta.exists(seatManifests+"/kube-apiserver.yaml") || beta.exists(manifestsDir+"/kube-apiserver.yaml") {
				t.Error("its API server does not wait for etcd")
			}
			u.isHome(beta)
			// A plug that is pulled when it is about to go home, either.
			m, err := beta.Membership()
			if err = errors.Join(err, beta.KeepMembership(m.Return("beta")), beta.choose(), remove(filepath.Join(beta.Root, switchedOn)), beta.Hold()); err != nil {
				t.Fatal(err)
			}
			u.isHome(beta)
			if err := errors.Join(beta.KeepMembership(m), beta.choose()); err != nil {
				t.Fatal(err)
			}
			if may, err := beta.MayLeave(t.Context()); may || err != nil {
				t.Errorf("a member may leave: %v", err)
			}
			record, reply := merge.Settings{Mode: merge.Auto}.Answer(u.record, merge.Request{Kind: merge.Release, From: merge.Record{ID: "b", Cube: "beta", Term: 2}}, true)
			if reply.Verdict != merge.No || !strings.Contains(reply.Why, "split") {
				t.Errorf("undone: %+v, %+v", record, reply)
			}
			u.record, _ = merge.Settings{Mode: merge.Auto}.Answer(u.record, merge.Request{Kind: merge.Leave, From: merge.Record{ID: "b", Cube: "beta", Term: 2}}, true)
			u.until("one member", func() bool { return len(u.members) == 1 && len(u.record.Spread) == 0 })
			u.turn()
			for _, e := range u.guests {
				if may, err := e.MayLeave(t.Context()); !may || err != nil {
					t.Errorf("%s may not leave: %v", e.Node.Hostname, err)
				}
				for _, file := range []string{seatDir, etcdData, manifestsDir + "/etcd.yaml", manifestsDir + "/kube-apiserver.yaml"} {
					if e.exists(file) {
						t.Errorf("%s still has %s", e.Node.Hostname, file)
					}
				}
				if e.IsControlPlane() || !e.IsMember() {
					t.Errorf("%s is no worker", e.Node.Hostname)
				}
			}
			if u.api.objects["/api/v1/nodes/beta1"] == nil {
				t.Error("a node that is still there was deleted")
			}
			set(u.api.objects["/api/v1/nodes/beta1"], []any{}, "status", "conditions")
			u.turn()
			if u.api.objects["/api/v1/nodes/beta1"] != nil || u.api.objects["/api/v1/nodes/gamma1"] == nil {
				t.Errorf("who left is not forgotten, or others are: %v", u.api.objects)
			}
		})
	}
}

// A cube that is merely unplugged loses neither its seat nor its node, and a
// control-plane card that was flashed anew meanwhile finds the others.
func TestSeatStays(t *testing.T) {
	u := newUnion(t)
	u.turn()
	u.now = u.now.Add(settles)
	u.until("three members", func() bool { return len(u.members) == 3 && len(u.leader.Engine.Config.ControlPlane) == 3 })
	set(u.api.objects["/api/v1/nodes/gamma1"], []any{}, "status", "conditions")
	u.serves["gamma1"] = false
	for range 4 {
		u.now = u.now.Add(time.Hour)
		u.turn()
	}
	if len(u.members) != 3 || u.api.objects["/api/v1/nodes/gamma1"] == nil || len(u.record.Spread) != 2 {
		t.Errorf("members %q, record %+v", u.names(), u.record)
	}
	// Somebody begins a cluster in alpha's place: its word is not enough to give up
	// what may be all that is left of the old one.
	members, beta := u.members, u.guests[0]
	u.members, u.etcdCluster = u.members[:1], "8"
	if err := beta.observe(t.Context(), nil); err != nil && !errors.Is(err, joind.ErrChanged) {
		t.Fatal(err)
	}
	if beta.exists(seatLost) || !beta.exists(etcdData) {
		t.Error("its data is given up for a cluster that began anew")
	}
	u.members, u.etcdCluster = members, "7"
	u.turn()
	for _, e := range u.guests {
		e.serve(t)
	}
	fresh := u.leader.Engine
	if err := errors.Join(remove(filepath.Join(fresh.Root, seatsFile)), remove(filepath.Join(fresh.Root, done)), remove(filepath.Join(fresh.Root, membershipFile)), fresh.choose()); err != nil {
		t.Fatal(err)
	}
	if len(fresh.Config.ControlPlane) != 1 {
		t.Fatalf("knows %v", fresh.Config.ControlPlane)
	}
	u.serves["alpha1"] = false
	network := &Network{Engine: fresh}
	if sight := network.Look(t.Context()); !sight.Changed {
		t.Fatalf("%+v", sight)
	}
	if err := fresh.choose(); err != nil {
		t.Fatal(err)
	}
	if sight := network.Look(t.Context()); sight.Members != 2 || !sight.Serves || sight.Changed {
		t.Errorf("%+v of %v", sight, fresh.Config.ControlPlane)
	}
}

// What every cube that may be one of three is made with from the beginning.
func TestCertificateNames(t *testing.T) {
	c := config(1)
	c.Cubes = []Cube{{"a", c.ControlPlane}, {"b", []Member{{"b1", "10.42.2.1"}}}, {"c", []Member{{"c1", "10.42.3.1"}}}}
	if names := c.names(); !slices.Contains(names, "b1.local") || !slices.Contains(names, "10.42.3.1") || len(names) != 2+9 {
		t.Errorf("an API server answers to %q", names)
	}
	if c.election()["leader-elect"] != "true" || config(1).election()["leader-elect"] != "false" {
		t.Error("who may be one of three has to be elected, who is alone need not")
	}
}

// Two clusters may have nodes of one name: the one that follows would lose its
// own to the leader's.
func TestClash(t *testing.T) {
	node := func(address string) object {
		return parse(t, `{"metadata":{"name":"x"},"status":{"addresses":[{"type":"InternalIP","address":"`+address+`"}]}}`)
	}
	nodes := func(of map[string]string) API {
		f := &fakeAPI{objects: map[string]object{}}
		for name, address := range of {
			o := node(address)
			set(o, name, "metadata", "name")
			f.objects["/api/v1/nodes/"+name] = o
		}
		return serve(t, f)
	}
	own := nodes(map[string]string{"rpi1": "10.42.2.1", "rpi2": "10.42.2.2", "rpi3": "10.42.2.3", "rpi4": "10.42.2.4"})
	leader := nodes(map[string]string{"rpi3": "10.42.1.3", "rpi1": "10.42.1.1", "rpi2": "10.42.2.2"})
	m := &Merging{Engine: &Engine{Root: t.TempDir()}, Own: own, At: func(string) (API, error) { return leader, nil }}
	var v merge.Sight
	if err := m.See(t.Context(), merge.Record{Phase: merge.Asking, LeaderCube: "alpha"}, &v); err != nil || v.Blind || !slices.Equal(v.Clash, []string{"rpi1", "rpi3"}) {
		t.Errorf("%+v, %v", v, err)
	}
	m.At = func(string) (API, error) { return API{}, errors.New("off") }
	if _, blind := m.clash(t.Context(), "alpha"); !blind {
		t.Error("who can't look sees no clash")
	}
}
