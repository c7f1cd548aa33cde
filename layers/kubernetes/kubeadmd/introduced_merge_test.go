package kubeadmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/announce"
	"github.com/picube/picube-build/layers/cluster/merge/merged"
)

// hurry is how much faster than the world the clocks of the test go.
const hurry = 20

type fastClock struct{ begun time.Time }

func (c fastClock) now() time.Time { return c.begun.Add(hurry * time.Since(c.begun)) }

func (c fastClock) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d / hurry):
		return nil
	}
}

// side is a cluster of one control-plane node: all of it but the API server's
// and etcd's insides is as on a card.
type side struct {
	*Engine
	api        *fakeAPI
	mu         sync.Mutex // of the API's objects
	controller *merged.Controller
	follower   *merged.Follower
	order      merge.Order
	running    sync.WaitGroup
}

func (s *side) has(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.api.objects[path] != nil
}

// controlPlaneOf starts one. Its etcd says when the cluster began.
func (c cluster) controlPlaneOf(t *testing.T, cube, era string, introduction []byte, clock fastClock, announce func(merge.Record)) *side {
	t.Helper()
	e, _ := c.alone(t, cube, 1)
	a, _, _ := c.authority(t)
	key, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	client, etcd := c.issue(t, "etcd", secrets.Request{Purpose: "client", CommonName: cube, Client: true})
	for name, data := range map[string][]byte{authorityKey: key, etcdAuthority: etcd, EtcdCertificate: client.Certificate, EtcdKey: client.Key} {
		if err := e.write(name, data); err != nil {
			t.Fatal(err)
		}
	}
	s := &side{Engine: e.take(t, introduction), api: &fakeAPI{objects: map[string]object{
		"/api/v1/namespaces/default/configmaps/" + cube: parse(t, `{"metadata":{"name":"`+cube+`","namespace":"default"},"data":{"a":"b"}}`),
	}}}
	s.Now, s.Pause = clock.now, clock.pause
	address := introducedNodes(cube, 1).Address
	c.serve(t, "etcd", address, etcdPort, &gateway{revision: 7, database: noise(1 << 10), era: []byte(era)})
	pair, _ := c.issue(t, "kubernetes", secrets.Request{Purpose: "api", CommonName: "api", Server: true, IP: []net.IP{net.IPv4(127, 0, 0, 1)}})
	c.serveWith(t, pair, "kubernetes", address, APIPort, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.api.ServeHTTP(w, r)
	}))
	works, err := s.NewMerging()
	if err != nil {
		t.Fatal(err)
	}
	heard, log := merged.NewHeard(2, clock.now), slog.New(slog.DiscardHandler)
	s.follower = &merged.Follower{
		Name: s.Node.Hostname, Cube: cube, ControlPlane: true, Heard: heard, Asker: s.Engine, Keep: s.KeepMembership,
		Order: func() (o merge.Order) { o, s.order = s.order, merge.None; return o },
		Adopt: s.Adopt, Say: func(text string) { t.Logf("%s: %s", cube, text) }, Now: clock.now, Pause: clock.pause, Log: log,
	}
	s.controller = &merged.Controller{
		Settings: merge.Settings{Mode: merge.Mode(s.Config.Merge.Mode), Hosts: s.Hosts()}, Cubes: 2,
		Store: RecordStore{API: works.Own, New: s.NewRecord, Random: rand.Reader}, Works: works, Asker: s.Engine, Heard: heard,
		Term: s.follower.Term, Announce: func(r merge.Record) error { announce(r); return nil },
		Say: func(text string, _ bool) {
			if text != "" {
				t.Logf("%s: %s", cube, text)
			}
		},
		Now: clock.now, Pause: clock.pause, Log: log,
	}
	s.SetAnswer(func(ctx context.Context, q merge.Request) (merge.Reply, error) {
		return s.controller.Answer(ctx, q, works.Untouched)
	})
	s.serve(t)
	return s
}

// run does what the node does for its own cluster.
func (s *side) run(ctx context.Context) {
	s.running.Go(func() { _ = s.controller.Run(ctx) })
	s.running.Go(func() { _ = s.controller.RunAnnouncements(ctx) })
}

// Two clusters of two identities become one over TLS, the elder one's objects at
// its host, and an undo parts them again.
func TestIntroducedMerge(t *testing.T) {
	host, guest := newCluster(t, 1), newCluster(t, 2)
	forHost, forGuest := introductionsOf(t, host, guest, nil)
	clock := fastClock{time.Now()}
	var sides []*side
	tell := func(by *side, r merge.Record) {
		pair, err := by.Certificate()
		if err != nil {
			t.Error(err)
			return
		}
		packet, err := announce.Seal(r, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Error(err)
			return
		}
		for _, s := range sides {
			pool, err := s.Authority()
			if err != nil {
				t.Error(err)
				return
			}
			r, err := announce.Trust{Authority: pool, CubeOf: s.CubeOf, Now: time.Now}.Open(packet)
			if err != nil {
				t.Errorf("%s does not believe %s: %v", s.Node.Hostname, by.Node.Hostname, err)
				continue
			}
			s.follower.Heard.Hear(r)
		}
	}
	var home, friend *side
	home = host.controlPlaneOf(t, "home", "2000", forHost, clock, func(r merge.Record) { tell(home, r) })
	friend = guest.controlPlaneOf(t, "friend", "1000", forGuest, clock, func(r merge.Record) { tell(friend, r) })
	sides = []*side{home, friend}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(func() {
		cancel()
		home.running.Wait()
		friend.running.Wait()
	})
	home.run(ctx)
	atHome, leave := context.WithCancel(ctx)
	friend.run(atHome)
	m, err := friend.Membership()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = friend.follower.Run(ctx, m); err != nil || m.Cube != "home" || m.Home == m.Cluster {
		t.Fatalf("%+v, %v", m, err)
	}
	leave()
	friend.running.Wait()
	const object = "/api/v1/namespaces/default/configmaps/friend"
	if !home.has(object) || friend.has("/api/v1/namespaces/default/configmaps/home") {
		t.Error("its objects are not at the host")
	}
	if text := friend.snapshotOf(m.Home); text == 0 {
		t.Error("no snapshot was kept")
	}
	away := friend.restart(t)
	if away.IsControlPlane() || away.present() != hostIdentity() || !strings.HasPrefix(away.Backends()[0], "127.78.1.1:") {
		t.Errorf("the guest works for %v", away.Backends())
	}

	friend.order = merge.Undo
	if m, err = friend.follower.Run(ctx, m); err != nil || m.Cluster != m.Home || m.Cube != "friend" {
		t.Fatalf("%+v, %v", m, err)
	}
	back := friend.restart(t)
	if !back.IsControlPlane() || back.present() != ownIdentity() {
		t.Errorf("at home it works for %v", back.Backends())
	}
	friend.run(ctx)
	friend.running.Go(func() { _, _ = friend.follower.Run(ctx, m) })
	for home.has(object) && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	if home.has(object) || !friend.has(object) {
		t.Error("the host still has what was undone")
	}
}
