package kubeadmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/merged"
	"github.com/picube/picube-build/layers/nodeconf"
)

// twoCubes are of two nodes each, of which the first is the control plane:
// 127.77.1.1 to 127.77.2.2.
func twoCubes(t *testing.T) (conf Config, peers []nodeconf.Peer) {
	t.Helper()
	conf = config(1)
	for i, cube := range []string{"alpha", "beta"} {
		for n := 1; n <= 2; n++ {
			p := nodeconf.Peer{Name: cube + string(rune('0'+n)), Cube: cube, Address: "127.77." + string(rune('1'+i)) + "." + string(rune('0'+n))}
			peers = append(peers, p)
			if n == 1 {
				conf.Cubes = append(conf.Cubes, Cube{Name: cube, ControlPlane: []Member{member(p)}})
			}
		}
	}
	conf.Merge = Merge{Mode: "auto"}
	return conf, peers
}

// nodeOf is a node of two cubes with its card's files.
func (c cluster) nodeOf(t *testing.T, name string) (*Engine, *[]string) {
	t.Helper()
	conf, peers := twoCubes(t)
	i := slices.IndexFunc(peers, func(p nodeconf.Peer) bool { return p.Name == name })
	own := &nodeconf.Node{
		Hostname: name, Cube: peers[i].Cube, Cluster: "picube", Peers: peers,
		Network: nodeconf.Network{Interface: "eth0", Address: peers[i].Address + "/16"},
	}
	conf.Home = own.Cube
	e, ran := engine(t, own, conf)
	e.Signal, e.DropBridge = func(int, syscall.Signal) error { return nil }, func() error { return nil }
	pair, ca := c.issue(t, "kubernetes", secrets.Request{Purpose: "node", CommonName: nodeUser(name), Client: true})
	for file, data := range map[string][]byte{AuthorityCertificate: ca, NodeCertificate: pair.Certificate, NodeKey: pair.Key} {
		if err := e.write(file, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.choose(); err != nil {
		t.Fatal(err)
	}
	return e, ran
}

func TestRecordStore(t *testing.T) {
	api := serve(t, &fakeAPI{objects: map[string]object{}})
	s := RecordStore{API: api, Random: bytes.NewReader([]byte("12345678abcdefgh")), New: func(context.Context) (merge.Record, error) {
		return merge.Record{Cube: "alpha", Born: 7, Kubernetes: "v1.34.4"}, nil
	}}
	first, err := s.Load(t.Context())
	want := merge.Record{ID: "3132333435363738", Cube: "alpha", Born: 7, Kubernetes: "v1.34.4", Version: 1, Term: 1, Phase: merge.Alone}
	if err != nil || first.Record.ID != want.ID || first.Record.Phase != want.Phase || first.Record.Born != 7 {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := s.Load(t.Context())
	if err != nil || second.Record.ID != want.ID {
		t.Fatalf("%+v, %v", second, err)
	}
	second.Record.Term = 2
	if err := s.Save(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), first); !errors.Is(err, merged.ErrChanged) {
		t.Errorf("what somebody else changed: %v", err)
	}
	if _, err := s.order(t.Context(), merge.Undo); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Load(t.Context()); err != nil || k.Order != merge.Undo || k.Record.Term != 2 {
		t.Errorf("%+v, %v", k, err)
	}
}

// A cluster gives all it has to another one, takes no more writes, and what it
// handed over is withdrawn again, but for what somebody changed.
func TestMerging(t *testing.T) {
	const apps, core = "/apis/apps/v1/namespaces/default/deployments/", "/api/v1/namespaces/default/"
	const jobs = "/apis/batch/v1/namespaces/default/jobs/"
	suspended := func(f *fakeAPI, job string) any { return at(f.objects[jobs+job], "spec", "suspend") }
	from := &fakeAPI{objects: map[string]object{
		apps + "web":                    parse(t, `{"metadata":{"name":"web","namespace":"default"},"spec":{"replicas":2},"status":{"availableReplicas":1}}`),
		apps + "broken":                 parse(t, `{"metadata":{"name":"broken","namespace":"default"},"spec":{"replicas":1}}`),
		"/api/v1/nodes/beta1":           parse(t, `{"metadata":{"name":"beta1"}}`),
		"/api/v1/nodes/beta2":           parse(t, `{"metadata":{"name":"beta2"},"spec":{"unschedulable":true}}`),
		jobs + "runs":                   parse(t, `{"metadata":{"name":"runs","namespace":"default"},"spec":{"template":{}}}`),
		jobs + "ends":                   parse(t, `{"metadata":{"name":"ends","namespace":"default"},"spec":{"template":{}}}`),
		jobs + "waits":                  parse(t, `{"metadata":{"name":"waits","namespace":"default"},"spec":{"suspend":true}}`),
		jobs + "failed":                 parse(t, `{"metadata":{"name":"failed","namespace":"default"},"spec":{},"status":{"conditions":[{"type":"Failed","status":"True"}]}}`),
		core + "configmaps/gone":        parse(t, `{"metadata":{"name":"gone","namespace":"default"},"data":{"a":"b"}}`),
		core + "configmaps/clash":       parse(t, `{"metadata":{"name":"clash","namespace":"default"},"data":{"a":"beta"}}`),
		"/api/v1/namespaces/shop":       parse(t, `{"metadata":{"name":"shop"}}`),
		"/api/v1/persistentvolumes/pv1": parse(t, `{"metadata":{"name":"pv1"},"spec":{}}`),
	}}
	to := &fakeAPI{objects: map[string]object{core + "configmaps/clash": parse(t, `{"metadata":{"name":"clash","namespace":"default"},"data":{"a":"alpha"}}`)}}
	own, leader := serve(t, from), serve(t, to)
	e, _ := newCluster(t, 1).nodeOf(t, "beta1")
	m := &Merging{Engine: e, Own: own, unseen: map[string]time.Time{}, Servers: []API{own}, At: func(string) (API, error) { return leader, nil }}
	r := merge.Record{ID: "b", Cube: "beta", Term: 2, Phase: merge.HandOver, Leader: "a", LeaderCube: "alpha"}
	see := func() merge.Sight {
		t.Helper()
		var v merge.Sight
		if err := m.See(t.Context(), r, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	do := func(what merge.Do) {
		t.Helper()
		if err := m.Do(t.Context(), r, merge.Action{Do: what, To: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if see().Handed {
		t.Error("handed over before it was")
	}
	do(merge.DoHandOver)
	if see().Handed || to.objects[apps+"web"] == nil {
		t.Error("handed over before it runs at the leader")
	}
	applied := to.applied
	do(merge.DoHandOver)
	if to.applied != applied {
		t.Error("handed over again while it starts there")
	}
	set(to.objects[apps+"web"], 1.0, "status", "availableReplicas")
	if !see().Handed {
		t.Error("not handed over, for one that runs nowhere")
	}
	delete(to.objects[apps+"web"], "status")
	later := time.Now().Add(2 * startAfter)
	e.Now = func() time.Time { return later }
	if !see().Handed {
		t.Error("what does not start at the leader stops the merge")
	}
	e.Now = time.Now
	if suspended(to, "runs") != true || suspended(from, "runs") != nil || to.objects[jobs+"failed"] != nil {
		t.Errorf("Jobs run in both clusters, or once more: %v", to.objects)
	}
	set(from.objects[jobs+"ends"], "now", "status", "completionTime")
	list := text(to.objects[configMaps+"/picube-merge-conflicts-beta"], "data", "objects")
	if list != "ConfigMap default/clash: another one is there" {
		t.Errorf("conflicts %q", list)
	}
	for _, f := range []*fakeAPI{from, to} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(f.objects)), func(p string) bool { return strings.HasPrefix(p, eventsPath) }) {
			t.Error("nobody is told of the conflict")
		}
	}
	r.Phase = merge.Alone
	if see().Frozen {
		t.Error("nothing was stopped yet")
	}
	node := func(name string) object { return from.objects["/api/v1/nodes/"+name] }
	do(merge.DoCordon)
	do(merge.DoCordon)
	if at(node("beta1"), "spec", "unschedulable") != true || !isCordoned(node("beta1")) || isCordoned(node("beta2")) || !see().Frozen {
		t.Errorf("cordoned %v", from.objects)
	}
	do(merge.DoThaw)
	if at(node("beta1"), "spec", "unschedulable") == true || at(node("beta2"), "spec", "unschedulable") != true || see().Frozen {
		t.Errorf("uncordoned %v", from.objects)
	}
	do(merge.DoCordon)
	r.Phase = merge.Closing
	delete(from.objects, core+"configmaps/gone")
	if v := see(); v.Frozen || v.Handed {
		t.Errorf("before it closes: %+v", v)
	}
	do(merge.DoHandOver) // what is still written afterwards would be lost
	if see().Handed {
		t.Error("handed over without a freeze")
	}
	do(merge.DoFreeze)
	do(merge.DoFreeze)
	if v := see(); !v.Frozen || v.Handed {
		t.Errorf("frozen: %+v", v)
	}
	// What the leader had is gone there, or on its way: it is given once more.
	delete(to.objects, "/api/v1/namespaces/shop")
	handOver := func() error { return m.Do(t.Context(), r, merge.Action{Do: merge.DoHandOver, To: "a"}) }
	if err := handOver(); err == nil || !strings.Contains(err.Error(), "the leader does not have Namespace shop any more") || see().Handed {
		t.Errorf("what the leader has lost: %v", err)
	}
	do(merge.DoHandOver)
	set(to.objects["/api/v1/namespaces/shop"], "now", "metadata", "deletionTimestamp")
	if err := handOver(); err == nil || !strings.Contains(err.Error(), "Namespace shop") {
		t.Errorf("what the leader is about to delete: %v", err)
	}
	if err := handOver(); err == nil || !strings.Contains(err.Error(), "Namespace shop: an earlier one is still being deleted there") {
		t.Errorf("what the leader still deletes: %v", err)
	}
	delete(to.objects, "/api/v1/namespaces/shop")
	do(merge.DoHandOver)
	if !see().Handed || to.objects[core+"configmaps/gone"] != nil {
		t.Errorf("closed, but the leader has %v", to.objects[core+"configmaps/gone"])
	}
	if suspended(to, "runs") != false || suspended(from, "runs") != true || suspended(to, "waits") != true || to.objects[jobs+"ends"] != nil {
		t.Errorf("closed, and Jobs are %v and here %v", to.objects, from.objects)
	}
	if at(to.objects[jobs+"runs"], "metadata", "annotations", suspendedJob) != nil {
		t.Error("the leader's Job says that it was suspended")
	}
	dead := API{URL: "https://127.77.9.9:1", Client: own.Client}
	m.Servers = append(m.Servers, dead)
	var v merge.Sight
	if err := m.See(t.Context(), r, &v); err == nil {
		t.Error("nobody waits for an API server that does not answer")
	}
	now := time.Now().Add(2 * deadAfter)
	e.Now = func() time.Time { return now }
	if !see().Frozen {
		t.Error("one API server that is dead stops the merge")
	}
	r.Phase = merge.Alone
	if !see().Frozen {
		t.Error("nothing is left of the freeze")
	}
	do(merge.DoThaw)
	if see().Frozen {
		t.Error("still frozen")
	}
	if isCordoned(node("beta1")) {
		t.Error("still cordoned")
	}
	if suspended(from, "runs") != false || suspended(from, "waits") != true || at(from.objects[jobs+"runs"], "metadata", "annotations", suspendedJob) != nil {
		t.Errorf("Jobs do not go on: %v", from.objects)
	}

	l := &Merging{Engine: e, Own: leader, withdrawn: map[string]uint64{}, forgotten: map[string]uint64{}}
	for _, name := range []string{"alpha1", "alpha2", "beta1", "beta2"} {
		to.objects["/api/v1/nodes/"+name] = parse(t, `{"metadata":{"name":"`+name+`"}}`)
	}
	if intact, err := l.Untouched(t.Context(), "b"); !intact || err != nil {
		t.Errorf("touched: %v", err)
	}
	taken := to.objects["/api/v1/persistentvolumes/pv1"]
	delete(to.objects, "/api/v1/persistentvolumes/pv1")
	if intact, err := l.Untouched(t.Context(), "b"); intact || err != nil {
		t.Errorf("deleted: %v", err)
	}
	to.objects["/api/v1/persistentvolumes/pv1"] = taken
	touched := to.objects[apps+"web"]
	set(touched, []any{object{"manager": "picube-merge-b"}, object{"manager": "kubectl-edit"}}, "metadata", "managedFields")
	if intact, err := l.Untouched(t.Context(), "b"); intact || err != nil {
		t.Errorf("untouched: %v", err)
	}
	lead := merge.Record{ID: "a", Guests: []merge.Guest{{ID: "b", Term: 2, State: merge.Released}}}
	withdraw := func(kept merge.Record, withdrawn uint64) error {
		text, err := json.Marshal(kept)
		if err != nil {
			t.Fatal(err)
		}
		to.objects[recordPath] = object{"data": object{recordField: string(text)}}
		l.withdrawn["b"] = withdrawn
		return l.Do(t.Context(), lead, merge.Action{Do: merge.DoWithdraw, To: "b", Request: merge.Request{From: merge.Record{Cube: "beta"}}})
	}
	// Let in again while somebody looked for what is to be deleted: objects, or, when
	// those are gone, nodes.
	again := merge.Record{ID: "a", Guests: []merge.Guest{{ID: "b", Term: 4, State: merge.Admitted}}}
	for _, withdrawn := range []uint64{0, 2} {
		if err := withdraw(again, withdrawn); err != nil || to.objects["/api/v1/namespaces/shop"] == nil || to.objects["/api/v1/nodes/beta2"] == nil {
			t.Errorf("what it hands over is deleted, or a node that joins: %v", err)
		}
	}
	if err := withdraw(lead, 0); err != nil {
		t.Fatal(err)
	}
	for path, stays := range map[string]bool{apps + "web": true, core + "configmaps/clash": true, "/api/v1/namespaces/shop": false, "/api/v1/persistentvolumes/pv1": false, "/api/v1/nodes/beta1": false, "/api/v1/nodes/alpha2": true} {
		if (to.objects[path] != nil) != stays {
			t.Errorf("%s: stays %v", path, !stays)
		}
	}
}

// A worker that was told to leave is of the old cluster until it says otherwise,
// and then nothing there waits for it.
func TestWorkersLeave(t *testing.T) {
	c := newCluster(t, 1)
	e, _ := c.nodeOf(t, "beta1")
	worker, _ := c.nodeOf(t, "beta2")
	worker.serve(t)
	const ready = `{"metadata":{"name":"NAME"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`
	node := func(name string) object { return parse(t, strings.ReplaceAll(ready, "NAME", name)) }
	const pod = "/api/v1/namespaces/default/pods/web"
	from := &fakeAPI{objects: map[string]object{
		"/api/v1/nodes/beta1": node("beta1"), "/api/v1/nodes/beta2": node("beta2"), pod: parse(t, `{"metadata":{"name":"web","namespace":"default"}}`),
	}}
	to := &fakeAPI{objects: map[string]object{}}
	own, leader := serve(t, from), serve(t, to)
	m := &Merging{Engine: e, Own: own, unseen: map[string]time.Time{}, At: func(string) (API, error) { return leader, nil }}
	r := merge.Record{ID: "b", Cube: "beta", Term: 2, Phase: merge.Workers, Leader: "a", LeaderCube: "alpha", Leaving: "beta2"}
	see := func(want merge.Worker) {
		t.Helper()
		var v merge.Sight
		if err := m.See(t.Context(), r, &v); err != nil || !slices.Equal(v.Workers, []merge.Worker{want}) {
			t.Errorf("%+v, %v; want %+v", v.Workers, err, want)
		}
	}
	see(merge.Worker{Name: "beta2", Here: true})
	if from.objects[pod] == nil {
		t.Error("its pod is gone before it left")
	}
	if err := worker.KeepMembership(merge.Membership{Home: "b", Cluster: "a", Cube: "alpha", Term: 2}); err != nil {
		t.Fatal(err)
	}
	see(merge.Worker{Name: "beta2", Left: true})
	if from.objects[pod] != nil || from.objects["/api/v1/nodes/beta2"] != nil {
		t.Errorf("it left, and the old cluster has %v", from.objects)
	}
	now := time.Now().Add(2 * lostAfter)
	e.Now = func() time.Time { return now }
	see(merge.Worker{Name: "beta2", Left: true, Lost: true})
	to.objects["/api/v1/nodes/beta2"] = node("beta2")
	see(merge.Worker{Name: "beta2", Left: true, There: true})
}

// A control plane whose node is switched on starts one part after the other,
// wherever the plug was pulled before; once it runs, nothing stops it again.
func TestHold(t *testing.T) {
	c := newCluster(t, 1)
	parts := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	there := func(e *Engine) (out []string) {
		for _, p := range parts {
			if e.exists(manifestsDir + "/" + p + ".yaml") {
				out = append(out, p)
			}
		}
		return out
	}
	for cutAt := range 4 {
		e, _ := c.nodeOf(t, "alpha1")
		for _, p := range parts {
			if err := e.write(manifestsDir+"/"+p+".yaml", []byte(p)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(e.Hold(), os.Remove(filepath.Join(e.Root, switchedOn))); err != nil {
			t.Fatal(err)
		}
		if got := there(e); !slices.Equal(got, parts) {
			t.Errorf("a node that begins its cluster has only %q", got)
		}
		if err := errors.Join(e.write(etcdData+"/db", nil), e.write(done, nil), e.Hold()); err != nil {
			t.Fatal(err)
		}
		var waited []string
		e.Wait = func(_ context.Context, url string) error {
			waited = append(waited, fmt.Sprint(url, there(e)))
			if len(waited) == cutAt {
				return context.Canceled
			}
			return nil
		}
		if err := e.Resume(t.Context()); (err != nil) != (cutAt == 1 || cutAt == 2) {
			t.Errorf("cut at %d: %v", cutAt, err)
		}
		if cutAt > 0 && cutAt < 3 {
			if err := errors.Join(os.Remove(filepath.Join(e.Root, switchedOn)), e.Hold()); err != nil {
				t.Fatal(err)
			}
			waited = waited[:0]
			e.Wait = func(_ context.Context, url string) error {
				waited = append(waited, fmt.Sprint(url, there(e)))
				return nil
			}
			if err := e.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{etcdReady + "[etcd]", "https://127.0.0.1:6443/readyz[etcd kube-apiserver]"}; !slices.Equal(waited, want) {
			t.Errorf("cut at %d: waited for %q", cutAt, waited)
		}
		if err := errors.Join(e.Hold(), e.Resume(t.Context())); err != nil {
			t.Fatal(err)
		}
		if got := there(e); !slices.Equal(got, parts) || e.exists(manifestsHome) {
			t.Errorf("cut at %d: has only %q", cutAt, got)
		}
	}
}

// A control plane leaves for another cluster, is cut off at every step, and
// comes home.
func TestSettle(t *testing.T) {
	c := newCluster(t, 1)
	for cutAt := range 4 {
		e, ran := c.nodeOf(t, "beta1")
		for file, data := range map[string]string{
			manifestsDir + "/etcd.yaml": "etcd", manifestsDir + "/kube-apiserver.yaml": "api", manifestsDir + "/kube-scheduler.yaml": "s", etcdData + "/db": "objects", done: "", cniFile: "{}", kubepods + "/cgroup.procs": "77\n", kubepods + "/cgroup.kill": "",
		} {
			if err := e.write(file, []byte(data)); err != nil {
				t.Fatal(err)
			}
		}
		away := merge.Membership{Home: "b", Cluster: "a", Cube: "alpha", Term: 2}
		if err := errors.Join(e.KeepMembership(away), e.choose()); err != nil {
			t.Fatal(err)
		}
		if e.IsControlPlane() || e.MayBegin() || !e.IsHomeControlPlane() || e.Backends()[0] != "127.77.1.1:6443" {
			t.Errorf("away it is %v", e.Backends())
		}
		run, drop, pause := e.Run, e.DropBridge, e.Pause
		cut := context.Canceled
		switch cutAt {
		case 1:
			e.Run = func(context.Context, string, ...string) error { return cut }
		case 2:
			e.DropBridge = func() error { return cut }
		case 3:
			e.Pause = func(context.Context, time.Duration) error { return cut }
		}
		if err := e.Settle(t.Context()); (err != nil) != (cutAt > 0) {
			t.Errorf("cut at %d: %v", cutAt, err)
		}
		e.Run, e.DropBridge, e.Pause = run, drop, pause
		if err := e.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		for file, there := range map[string]bool{
			manifestsDir: true, manifestsDir + "/etcd.yaml": false, etcdData: false, etcdDir + ".b/member/db": true,
			manifestsHome + "/etcd.yaml": true, cniFile: false, done: true,
		} {
			if e.exists(file) != there {
				t.Errorf("cut at %d: away: %s is there: %v", cutAt, file, !there)
			}
		}
		if text, _ := os.ReadFile(filepath.Join(e.Root, kubepods, "cgroup.kill")); string(text) != "1" {
			t.Error("pods live on")
		}
		*ran = nil
		if err := e.Settle(t.Context()); err != nil || *ran != nil {
			t.Errorf("once more: %q, %v", *ran, err)
		}
		if err := errors.Join(e.KeepMembership(away.Return("beta")), e.choose(), e.Settle(t.Context())); err != nil {
			t.Fatal(err)
		}
		begun := *ran
		*ran = nil
		if cutAt > 0 { // a pulled plug while it comes back
			if err := e.moveManifests(manifestsHome, manifestsDir, "etcd.yaml"); err != nil {
				t.Fatal(err)
			}
		}
		var waited []string
		e.Wait = func(_ context.Context, url string) error {
			waited = append(waited, fmt.Sprint(url, e.exists(manifestsDir+"/etcd.yaml"), e.exists(manifestsDir+"/kube-apiserver.yaml"), e.exists(manifestsDir+"/kube-scheduler.yaml")))
			return nil
		}
		if err := e.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{etcdReady + "true false false", "https://127.0.0.1:6443/readyztrue true false"}; !slices.Equal(waited, want) {
			t.Errorf("cut at %d: home: waited for %q", cutAt, waited)
		}
		for file, there := range map[string]bool{manifestsDir + "/etcd.yaml": true, manifestsDir + "/kube-scheduler.yaml": true, etcdData + "/db": true, etcdDir + ".b": false, manifestsHome: false} {
			if e.exists(file) != there {
				t.Errorf("cut at %d: home: %s is there: %v", cutAt, file, !there)
			}
		}
		if !e.IsControlPlane() || !strings.Contains(strings.Join(begun, "\n"), "enable --now kubelet.service") {
			t.Errorf("home: ran %q", begun)
		}
	}
}

// A card that was flashed anew while its cluster was away has no state to put
// back: at home it begins, or restores.
func TestSettleFresh(t *testing.T) {
	e, _ := newCluster(t, 1).nodeOf(t, "beta1")
	away := merge.Membership{Home: "b", Cluster: "a", Cube: "alpha", Term: 2}
	if err := errors.Join(e.KeepMembership(away), e.choose(), e.Settle(t.Context()), e.write(done, nil)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.KeepMembership(away.Return("beta")), e.choose(), e.Settle(t.Context())); err != nil {
		t.Fatal(err)
	}
	e.Wait = func(_ context.Context, url string) error {
		t.Errorf("waits for %s", url)
		return nil
	}
	if err := e.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e.IsMember() || !e.MayBegin() {
		t.Error("takes itself for a member without any state")
	}
}

// Only a cluster's own control plane speaks for it; a worker, whose card may be
// stolen, may ask where its cluster went.
func TestQuestions(t *testing.T) {
	c := newCluster(t, 1)
	alpha, _ := c.nodeOf(t, "alpha1")
	beta, _ := c.nodeOf(t, "beta1")
	thief, _ := c.nodeOf(t, "beta2")
	stranger, _ := newCluster(t, 2).nodeOf(t, "beta1")
	asked := 0
	alpha.SetAnswer(func(_ context.Context, q merge.Request) (merge.Reply, error) {
		asked++
		return merge.Reply{From: "a", Kind: q.Kind, Verdict: merge.Yes}, nil
	})
	alpha.serve(t)
	question := func(k merge.Kind, cube string) merge.Request {
		return merge.Request{Kind: k, From: merge.Record{ID: "b", Cube: cube, Term: 1}}
	}
	if reply, err := beta.Ask(t.Context(), "alpha", question(merge.Admit, "beta")); err != nil || reply.Verdict != merge.Yes {
		t.Errorf("%+v, %v", reply, err)
	}
	if _, err := thief.Ask(t.Context(), "alpha", question(merge.Where, "")); err != nil {
		t.Errorf("a worker asks where: %v", err)
	}
	for _, k := range []merge.Kind{merge.Admit, merge.Commit, merge.Release} {
		if _, err := thief.Ask(t.Context(), "alpha", question(k, "beta")); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("a worker asks %s: %v", k, err)
		}
	}
	if _, err := beta.Ask(t.Context(), "alpha", question(merge.Commit, "alpha")); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("for another's cluster: %v", err)
	}
	if _, err := stranger.Ask(t.Context(), "alpha", question(merge.Admit, "beta")); err == nil {
		t.Error("a stranger is answered")
	}
	if asked != 2 {
		t.Errorf("%d questions were answered", asked)
	}
	alpha.SetAnswer(nil)
	if _, err := beta.Ask(t.Context(), "alpha", question(merge.Admit, "beta")); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("without a control plane: %v", err)
	}
}

// A card that was flashed anew learns from another one of its cube that its
// cluster is part of another one, and begins none.
func TestAdopt(t *testing.T) {
	c := newCluster(t, 1)
	fresh, _ := c.nodeOf(t, "beta1")
	other, _ := c.nodeOf(t, "beta2")
	other.serve(t)
	if _, ok := fresh.Adopt(t.Context()); ok {
		t.Error("the other is at home")
	}
	away := merge.Membership{Home: "b", Cluster: "a", Cube: "alpha", Term: 2}
	if err := other.KeepMembership(away); err != nil {
		t.Fatal(err)
	}
	if m, ok := fresh.Adopt(t.Context()); !ok || m != away {
		t.Errorf("%+v %v", m, ok)
	}
	now := time.Unix(0, 0)
	fresh.Now = func() time.Time { now = now.Add(starting); return now }
	if err := fresh.Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "part of the cluster of alpha") {
		t.Errorf("began: %v", err)
	}
}

// Nodes that were of several clusters hold backups of each: a control plane can
// open its own only.
func TestSealedByCube(t *testing.T) {
	c := newCluster(t, 1)
	a, err := c.id.Authority("kubernetes", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	private, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	var keys []sealKey
	for _, name := range []string{"alpha1", "beta1"} {
		e, _ := c.nodeOf(t, name)
		if err := e.write(authorityKey, private); err != nil {
			t.Fatal(err)
		}
		key, err := e.sealKey("1-2-3")
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	if bytes.Equal(keys[0], keys[1]) {
		t.Error("one cube's cluster can open another one's backups")
	}
}
