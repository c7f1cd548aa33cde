package kubeadmd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/nodeconf"
)

func ips(list ...string) []net.IP {
	var out []net.IP
	for _, text := range list {
		out = append(out, net.ParseIP(text))
	}
	return out
}

// cube is a control-plane node, 127.77.0.1, with its card's files, and workers
// after it, the last of them in a cube of its own.
func (c cluster) cube(t *testing.T, controlPlanes, workers int) []*Engine {
	t.Helper()
	conf := config(controlPlanes)
	conf.EtcdImage, conf.Backups = "registry.k8s.io/etcd:3.6.5-0", Backups{Every: time.Hour, Keep: 2}
	for i := range conf.ControlPlane {
		conf.ControlPlane[i].Address = fmt.Sprintf("127.77.0.%d", i+1)
	}
	var peers []nodeconf.Peer
	for i := range controlPlanes + workers {
		n := node(i+1, "worker")
		if i == controlPlanes+workers-1 {
			n.Cube = "other"
		}
		peers = append(peers, nodeconf.Peer{Name: n.Hostname, Address: fmt.Sprintf("127.77.0.%d", i+1), Cube: n.Cube})
	}
	ca, err := c.id.Authority("kubernetes", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	var all []*Engine
	for i, p := range peers {
		own := node(i+1, "worker")
		own.Cube, own.Peers, own.Network.Address = p.Cube, peers, p.Address+"/16"
		e, _ := engine(t, own, conf)
		pair, authority := c.issue(t, "kubernetes", secrets.Request{Purpose: "node/" + p.Name, CommonName: nodeUser(p.Name), Client: true})
		client, etcd := c.issue(t, "etcd", secrets.Request{Purpose: "client", CommonName: p.Name, Client: true})
		files := map[string][]byte{AuthorityCertificate: authority, NodeCertificate: pair.Certificate, NodeKey: pair.Key}
		if i < controlPlanes {
			files[authorityKey], files[etcdAuthority], files[EtcdCertificate], files[EtcdKey] = caKey, etcd, client.Certificate, client.Key
		}
		for name, data := range files {
			if err := e.write(name, data); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, e)
	}
	return all
}

// gateway is an etcd's, with one era and what else a test sets.
type gateway struct {
	mu       sync.Mutex
	revision int64
	database []byte
	era      []byte
	changed  int // last modified revision of what counts
	broken   bool
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var question struct {
		Key, Value []byte
		Success    []json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch r.URL.Path {
	case "/v3/maintenance/status":
		fmt.Fprintf(w, `{"header":{"cluster_id":"7","member_id":"18446744073709551615","revision":"%d"},"version":"3.6.5","leader":"18446744073709551615"}`, g.revision)
	case "/v3/kv/range":
		if g.era != nil && string(question.Key) == eraKey {
			fmt.Fprintf(w, `{"kvs":[{"value":%q,"mod_revision":"2"}],"count":"1"}`, base64.StdEncoding.EncodeToString(g.era))
			return
		}
		fmt.Fprint(w, `{"header":{}}`)
	case "/v3/kv/put":
		g.era = question.Value
		fmt.Fprint(w, `{}`)
	case "/v3/kv/txn":
		fmt.Fprintf(w, `{"succeeded":true,"responses":[{"response_range":{"kvs":[{"mod_revision":"%d"}],"count":"%d"}},{"response_range":{}}]}`, g.changed, len(question.Success))
	case "/v3/maintenance/snapshot":
		hash := sha256.Sum256(g.database)
		for chunk := range slices.Chunk(g.database, 32<<10) {
			fmt.Fprintf(w, `{"result":{"remaining_bytes":"1","blob":%q}}`+"\n", base64.StdEncoding.EncodeToString(chunk))
		}
		if g.broken {
			fmt.Fprint(w, `{"error":{"code":13,"message":"disk failed"}}`)
			return
		}
		fmt.Fprintf(w, `{"result":{"blob":%q}}`, base64.StdEncoding.EncodeToString(hash[:]))
	default:
		http.NotFound(w, r)
	}
}

// snapshot is what etcdutl is to be given.
func (g *gateway) snapshot() []byte {
	hash := sha256.Sum256(g.database)
	return append(bytes.Clone(g.database), hash[:]...)
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>8 ^ i)
	}
	return b
}

// serving starts the gateway and all workers.
func (c cluster) serving(t *testing.T, nodes []*Engine) *gateway {
	t.Helper()
	g := &gateway{revision: 12345, database: noise(200 << 10), era: []byte("1700000000")}
	s := c.serve(t, "etcd", "127.77.0.1", etcdPort, g)
	t.Cleanup(func() { s.Close() })
	for _, n := range nodes[1:] {
		n.serve(t)
	}
	return g
}

func heldBy(t *testing.T, e *Engine) []held {
	t.Helper()
	all, err := e.vault().list()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// With four workers, three hold it, and the one in another cube is among them.
func TestTakeBackup(t *testing.T) {
	ours := newCluster(t, 1)
	nodes := ours.cube(t, 1, 4)
	g := ours.serving(t, nodes)
	taken, err := nodes[0].TakeBackup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"rpi5", "rpi2", "rpi3"}; !slices.Equal(taken.Holders, want) || taken.Backup.Revision != 12345 || taken.Backup.Era != 1700000000 {
		t.Errorf("taken %v", taken)
	}
	file := filepath.Join(t.TempDir(), "db")
	if err := nodes[0].fetch(t.Context(), nodes[0].Member(5), taken.Backup, file); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, g.snapshot()) {
		t.Errorf("came back as %d bytes, %v", len(got), err)
	}
	// On the worker's card nothing of it can be read.
	sealed, err := os.ReadFile(filepath.Join(nodes[4].Root, backupsDir, taken.Backup.String()))
	if err != nil || bytes.Contains(sealed, g.database[:64]) || int64(len(sealed)) != taken.Size {
		t.Errorf("%d bytes on the card, %d taken, %v", len(sealed), taken.Size, err)
	}

	// etcd fails half-way: nothing of it stays anywhere.
	g.broken = true
	g.revision++
	if _, err := nodes[0].TakeBackup(t.Context()); err == nil || !strings.Contains(err.Error(), "disk failed") {
		t.Errorf("error %v", err)
	}
	for _, n := range nodes[1:] {
		left := []string{""}
		for tries := 0; len(left) > 0 && tries < 100; tries++ { // it learns of it a moment later
			time.Sleep(50 * time.Millisecond)
			left, _ = filepath.Glob(filepath.Join(n.Root, backupsDir, ".*"))
		}
		if len(left) > 0 || len(heldBy(t, n)) > 1 {
			t.Errorf("%s: %q, %v", n.Node.Hostname, left, heldBy(t, n))
		}
	}
	// A worker whose card is full costs only its own copy.
	g.broken = false
	if err := errors.Join(os.RemoveAll(filepath.Join(nodes[1].Root, backupsDir)), os.WriteFile(filepath.Join(nodes[1].Root, backupsDir), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	taken, err = nodes[0].TakeBackup(t.Context())
	if want := []string{"rpi5", "rpi3"}; err != nil || !slices.Equal(taken.Holders, want) {
		t.Errorf("taken %v, %v", taken, err)
	}
}

// Member is the form in which a node is asked, by its number.
func (e *Engine) Member(number int) Member { return member(e.Node.Peers[number-1]) }

// A worker's card lets whoever finds it neither see, take nor leave backups, and
// another cluster's card not even knock.
func TestStolenCard(t *testing.T) {
	ours := newCluster(t, 1)
	nodes := ours.cube(t, 1, 2)
	ours.serving(t, nodes)
	taken, err := nodes[0].TakeBackup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stolen, victim := nodes[1], nodes[0].Member(3)
	if p, err := stolen.ask(t.Context(), victim); err != nil || len(p.Backups) > 0 {
		t.Errorf("it sees %v, %v", p, err)
	}
	if p, err := nodes[0].ask(t.Context(), victim); err != nil || len(p.Backups) != 1 {
		t.Errorf("the control plane sees %v, %v", p, err)
	}
	newer := taken.Backup
	newer.Revision++
	if err := stolen.push(t.Context(), victim, newer, strings.NewReader("forged")); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Errorf("it pushes: %v", err)
	}
	resp, err := mustClient(t, stolen, victim).Get(peerURL(victim, backupsPath+taken.Backup.String()))
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("it fetches: %v, %v", resp, err)
	}
	for _, name := range []string{"..%2f..%2fetc%2fpasswd", "x", "1-2-3-4", "01-2-3", "1--2-3"} {
		resp, err := mustClient(t, nodes[0], victim).Get(peerURL(victim, backupsPath+name))
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	stranger := newCluster(t, 2).cube(t, 1, 2)[0]
	if _, err := stranger.ask(t.Context(), victim); err == nil {
		t.Error("another cluster's control plane is answered")
	}
	if all := heldBy(t, nodes[2]); len(all) != 1 || all[0].Name != taken.Backup {
		t.Errorf("the worker holds %v", all)
	}
}

func mustClient(t *testing.T, e *Engine, m Member) *http.Client {
	t.Helper()
	c, err := e.client(m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What is kept when backups of a cluster, of its restored self and of one that
// was begun by mistake come in, and what is refused.
func TestVault(t *testing.T) {
	v := vault{dir: filepath.Join(t.TempDir(), "backups"), keep: 2, max: 10}
	take := func(name, content string, length int64) int {
		r := httptest.NewRequest(http.MethodPut, backupsPath+name, strings.NewReader(content))
		r.ContentLength = length
		r.SetPathValue("name", name)
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		v.take(w, r)
		return w.Code
	}
	for _, test := range []struct {
		name, content string
		length        int64
		code          int
		kept          string
	}{
		{"5-10-100", "a", 1, 204, "5-10-100"},
		{"5-11-90", "b", -1, 204, "5-11-90 5-10-100"}, // a clock that was wrong
		{"5-12-101", "0123456789", 10, 204, "5-12-101 5-11-90"},
		{"5-13-102", "0123456789x", 11, 413, "5-12-101 5-11-90"},
		{"5-13-102", "0123456789x", -1, 413, "5-12-101 5-11-90"},
		{"../5-13-102", "a", 1, 400, "5-12-101 5-11-90"},
		{"6-1-103", "a", 1, 204, "6-1-103 5-12-101"}, // begun anew: the old one's last stays
		{"6-2-104", "a", 1, 204, "6-2-104 6-1-103 5-12-101"},
		{"6-3-105", "a", 1, 204, "6-3-105 6-2-104 5-12-101"},
	} {
		if code := take(test.name, test.content, test.length); code != test.code {
			t.Errorf("%s: status %d", test.name, code)
		}
		all, err := v.list()
		var names []string
		for _, h := range all {
			names = append(names, h.Name.String())
		}
		if got := strings.Join(names, " "); got != test.kept || err != nil {
			t.Errorf("after %s there are %s, %v", test.name, got, err)
		}
	}
	left := filepath.Join(v.dir, unfinished+"1")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v.tidy()
	if entries, err := os.ReadDir(v.dir); err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// deadlines is a recorder that takes them.
type deadlines struct{ *httptest.ResponseRecorder }

func (*deadlines) SetReadDeadline(time.Time) error  { return nil }
func (*deadlines) SetWriteDeadline(time.Time) error { return nil }

// When a backup is due: not before its time, not when only heartbeats were
// written, later when it is large, and at once when the clock was set back.
func TestDue(t *testing.T) {
	ours := newCluster(t, 1)
	nodes := ours.cube(t, 1, 1)
	e, g := nodes[0], ours.serving(t, nodes)
	now := time.Unix(1764000000, 0)
	e.Now = func() time.Time { return now }
	k := &keeper{}
	turn := func(why string, want time.Duration, takes bool) {
		t.Helper()
		taken, wait, err := k.turn(t.Context(), e)
		if err != nil || wait != want || takes != (len(taken.Holders) > 0) {
			t.Errorf("%s: %v, wait %v, %v", why, taken, wait, err)
		}
	}
	turn("no member", time.Minute, false)
	if err := e.write(done, nil); err != nil {
		t.Fatal(err)
	}
	turn("the first", time.Hour, true)
	now = now.Add(10 * time.Minute)
	turn("too early", 50*time.Minute, false)
	k = &keeper{changes: k.changes}
	now = now.Add(50 * time.Minute)
	turn("nothing but heartbeats", time.Hour, false)
	g.changed++
	g.revision++
	turn("a change", time.Hour, true)
	now = now.Add(24 * time.Hour)
	turn("a day later", time.Hour, true)
	now = now.Add(-48 * time.Hour)
	turn("the clock was wrong", time.Hour, true)
	large := held{Backup{Time: now.Unix()}, maxDaily / 4}
	if due := large.due(time.Hour).Sub(now); due != 6*time.Hour {
		t.Errorf("128 MiB are due after %v", due)
	}
}

// sealed is a backup's bytes.
func sealed(t testing.TB, key sealKey, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := key.seal(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSeal(t *testing.T) {
	e := newCluster(t, 1).cube(t, 1, 0)[0]
	key := func(name string) sealKey {
		k, err := e.sealKey(name)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	content := noise(300 << 10)
	good := sealed(t, key("1-2-3"), content)
	var out bytes.Buffer
	if err := key("1-2-3").open(&out, bytes.NewReader(good)); err != nil || !bytes.Equal(out.Bytes(), content) {
		t.Fatalf("%d bytes, %v", out.Len(), err)
	}
	if err := key("1-3-3").open(io.Discard, bytes.NewReader(good)); err == nil {
		t.Error("opened under another name")
	}
	theirs, err := newCluster(t, 2).cube(t, 1, 0)[0].sealKey("1-2-3")
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.open(io.Discard, bytes.NewReader(good)); err == nil {
		t.Error("opened by another cluster")
	}
	for n := 0; n < len(good); n += 997 {
		if err := key("1-2-3").open(io.Discard, bytes.NewReader(good[:n])); err == nil {
			t.Errorf("whole with %d of %d bytes", n, len(good))
		}
		bad := bytes.Clone(good)
		bad[n] ^= 1
		if err := key("1-2-3").open(io.Discard, bytes.NewReader(bad)); err == nil {
			t.Errorf("genuine with another byte %d", n)
		}
	}
	if err := key("1-2-3").open(io.Discard, bytes.NewReader(append(bytes.Clone(good), 0))); err == nil {
		t.Error("whole with a byte too many")
	}
}

func FuzzOpen(f *testing.F) {
	key := sealKey(bytes.Repeat([]byte{7}, 32))
	f.Add(sealed(f, key, []byte("content")))
	f.Add([]byte("age-encryption.org/v1\n-> picube-backup\nAAAA\n--- AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		if err := key.open(&out, bytes.NewReader(data)); err == nil && out.String() != "content" {
			t.Errorf("opened as %q", out.String())
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	hash := sha256.Sum256([]byte("db"))
	f.Add(fmt.Appendf(nil, `{"result":{"blob":"ZGI="}}{"result":{"blob":%q}}`, base64.StdEncoding.EncodeToString(hash[:])))
	f.Add([]byte(`{"error":{"message":"no"}}`))
	f.Add([]byte(`{"result":{"blob":""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		if copySnapshot(&out, bytes.NewReader(data)) != nil {
			return
		}
		n := out.Len() - sha256.Size
		if n < 0 || sha256.Sum256(out.Bytes()[:n]) != [sha256.Size]byte(out.Bytes()[n:]) {
			t.Errorf("took %d bytes as whole", out.Len())
		}
	})
}

func FuzzParseBackup(f *testing.F) {
	f.Add("1-2-3")
	f.Fuzz(func(t *testing.T, name string) {
		if b, err := ParseBackup(name); err == nil && (b.String() != name || filepath.Base(name) != name) {
			t.Errorf("%q is %v", name, b)
		}
	})
}

// restorer stands in for ctr and etcdutl: it makes of a snapshot what etcd
// would start with.
func restorer(t *testing.T, e *Engine, fails *bool) {
	t.Helper()
	e.Run = func(_ context.Context, name string, args ...string) error {
		if path := strings.TrimPrefix(name, e.Root); path == "/run/picube/etcd/usr/local/bin/etcdutl" {
			if *fails {
				return errors.New("the plug was pulled")
			}
			text := strings.ReplaceAll(strings.Join(args, " "), e.Root, "")
			if want := "snapshot restore /var/lib/etcd.picube/snapshot.db --data-dir /var/lib/etcd.picube/etcd --name rpi1 " +
				"--initial-cluster rpi1=https://127.77.0.1:2380 --initial-advertise-peer-urls https://127.77.0.1:2380 --bump-revision 1000000000 --mark-compacted"; text != want {
				t.Errorf("etcdutl %s", text)
			}
			db, err := os.ReadFile(args[2])
			return errors.Join(err, os.MkdirAll(filepath.Join(args[4], "member"), 0o700), os.WriteFile(filepath.Join(args[4], "member", "db"), db, 0o600))
		}
		return nil
	}
}

// A card that was flashed anew meets what there is: nobody; nodes that are no
// members; members without a backup, until a person speaks; forged and damaged
// backups beside a good one; and a pulled plug.
func TestRecall(t *testing.T) {
	ours := newCluster(t, 1)
	nodes := ours.cube(t, 1, 2)
	var said []string
	fresh := func() *Engine {
		e := ours.cube(t, 1, 2)[0]
		said = nil
		e.Say = func(text string) { said = append(said, text) }
		return e
	}
	began := func(e *Engine) string {
		data, _ := os.ReadFile(filepath.Join(e.Root, etcdData, "db"))
		return string(data)
	}
	e := fresh()
	clock := time.Now()
	e.Now = func() time.Time { return clock }
	waited := time.Duration(0)
	e.Pause = func(ctx context.Context, d time.Duration) error {
		waited += d
		clock = clock.Add(d)
		return ctx.Err()
	}
	if err := e.recall(t.Context()); err != nil || said != nil || waited > starting+askPause {
		t.Errorf("nobody there: %v, said %q, waited %v", err, said, waited)
	}
	g := ours.serving(t, nodes)
	if err := fresh().recall(t.Context()); err != nil || said != nil {
		t.Errorf("the first start: %v, said %q", err, said)
	}

	if err := nodes[2].write(done, nil); err != nil {
		t.Fatal(err)
	}
	e = fresh()
	asked := 0
	e.Pause = func(ctx context.Context, _ time.Duration) error {
		if asked++; asked == 3 {
			return e.BeginEmpty()
		}
		return ctx.Err()
	}
	if err := e.recall(t.Context()); err != nil || asked != 3 || began(e) != "" {
		t.Errorf("members without a backup: %v, asked %d", err, asked)
	}
	if want := "its cluster exists, but no backup was found; `sudo picube-node begin --empty` starts an empty one"; len(said) != 3 || said[0] != want {
		t.Errorf("said %q", said)
	}
	if err := nodes[1].BeginEmpty(); err == nil || err.Error() != "rpi2 is not the node that begins the cluster: rpi1 is" {
		t.Errorf("a worker begins: %v", err)
	}

	// One of three looks again, since the other two may have come meanwhile.
	ofThree := fresh()
	ofThree.Config.ControlPlane = append(ofThree.Config.ControlPlane, Member{"rpi8", "127.77.0.8"}, Member{"rpi9", "127.77.0.9"})
	if err := ofThree.recall(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "others of the control plane") {
		t.Errorf("one of three: %v", err)
	}

	taken, err := nodes[0].TakeBackup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// One worker lies: what it has is older, or damaged, or nothing of ours.
	claims := taken.Backup
	claims.Revision += 1000
	dir := filepath.Join(nodes[1].Root, backupsDir)
	good, err := os.ReadFile(filepath.Join(dir, taken.Backup.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, claims.String()), good, 0o600),
		os.WriteFile(filepath.Join(dir, taken.Backup.String()), good[:len(good)/2], 0o600),
	); err != nil {
		t.Fatal(err)
	}
	e = fresh()
	fails := true
	restorer(t, e, &fails)
	cut, cancel := context.WithCancel(t.Context())
	e.Pause = func(context.Context, time.Duration) error { cancel(); return cut.Err() }
	if err := e.recall(cut); !errors.Is(err, context.Canceled) || began(e) != "" || e.exists(restoreDir) {
		t.Errorf("the plug is pulled: %v, began %q", err, began(e))
	}
	if last := said[len(said)-1]; !strings.HasPrefix(last, "its cluster exists, but its backups cannot be restored: ") {
		t.Errorf("said %q", said)
	}
	fails = false
	e.Now = func() time.Time { return time.Unix(taken.Backup.Time, 0).Add(3 * time.Hour) }
	if err := e.recall(t.Context()); err != nil || began(e) != string(g.snapshot()) {
		t.Errorf("%v, began with %d bytes", err, len(began(e)))
	}
	if last := said[len(said)-1]; !strings.HasPrefix(last, "restored the backup of 20") || !strings.HasSuffix(last, " UTC, 3h0m old") {
		t.Errorf("said %q", said)
	}
	if from, ok := e.Restored(); !ok || from != taken.Backup {
		t.Errorf("restored from %v", from)
	}
	said = nil
	if err := e.recall(t.Context()); err != nil || said != nil {
		t.Errorf("once more: %v, said %q", err, said)
	}
}

// A backup is never in memory as a whole: neither where it is taken nor where
// it goes, here all in one process.
func TestBackupMemory(t *testing.T) {
	ours := newCluster(t, 1)
	nodes := ours.cube(t, 1, 3)
	g := ours.serving(t, nodes)
	g.database = bytes.Repeat(noise(64<<10), 16<<20/(64<<10))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(24 << 20)) // the database and little more
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ended, most := make(chan struct{}), uint64(0)
	var sampler sync.WaitGroup
	sampler.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(5 * time.Millisecond):
				runtime.ReadMemStats(&during)
				most = max(most, during.HeapAlloc)
			}
		}
	})
	taken, err := nodes[0].TakeBackup(t.Context())
	close(ended)
	sampler.Wait()
	if err != nil || len(taken.Holders) != 3 {
		t.Fatalf("%v, %v", taken, err)
	}
	grown := int64(most) - int64(before.HeapAlloc)
	t.Logf("%v: %d KiB more of memory at most", taken, grown>>10)
	if grown > 16<<20 {
		t.Errorf("%d KiB more of memory", grown>>10)
	}
}
