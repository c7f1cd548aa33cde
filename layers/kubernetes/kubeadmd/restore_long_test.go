//go:build long

package kubeadmd

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/secrets"
)

// realEtcd compiles etcd and etcdutl for this machine, of the version that the
// cards of Kubernetes 1.34.4 have.
func realEtcd(t *testing.T) (etcd, etcdutl string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	c := gomodule.Compiler{Env: os.Environ(), Cache: filepath.Join(cache, "picube-test", "modules")}
	build := func(name, path string) string {
		r, err := c.Build(t.Context(), gomodule.Module{Path: path, Version: "v3.6.5", Programs: map[string]string{name: path}}, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		return r.Programs[name]
	}
	return build("etcd", "go.etcd.io/etcd/server/v3"), build("etcdutl", "go.etcd.io/etcd/etcdutl/v3")
}

// startEtcd starts etcd as kubeadm's manifest of it does, on a control plane's
// data; it is stopped by the returned function.
func startEtcd(t *testing.T, program string, e *Engine) (stop func()) {
	t.Helper()
	const address = "127.77.0.1"
	file := func(name string) string { return filepath.Join(e.Root, name) }
	cmd := exec.Command(program, "--name", e.Node.Hostname, "--data-dir", file(etcdDir),
		"--listen-client-urls", "https://"+address+":2379", "--advertise-client-urls", "https://"+address+":2379",
		"--listen-peer-urls", "https://"+address+":2380", "--initial-advertise-peer-urls", "https://"+address+":2380",
		"--initial-cluster", e.Node.Hostname+"=https://"+address+":2380",
		"--client-cert-auth", "--trusted-ca-file", file(etcdAuthority), "--cert-file", file("server.crt"), "--key-file", file("server.key"),
		"--peer-client-cert-auth", "--peer-trusted-ca-file", file(etcdAuthority), "--peer-cert-file", file("server.crt"), "--peer-key-file", file("server.key"))
	if err := os.MkdirAll(file(etcdDir), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "etcd.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("etcd said:\n%s", text)
		}
	}
	t.Cleanup(stop)
	client := etcdOf(t, e)
	defer client.CloseIdleConnections()
	for range 600 {
		if s, err := e.etcdStatus(t.Context(), client); err == nil && s.leads() {
			return stop
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	t.Fatalf("etcd does not answer: %s", text)
	return nil
}

func etcdOf(t *testing.T, e *Engine) *http.Client {
	t.Helper()
	client, err := e.etcdClient()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func call(t *testing.T, client *http.Client, e *Engine, call string, question any) etcdKeys {
	t.Helper()
	url, err := e.etcdURL(call)
	if err != nil {
		t.Fatal(err)
	}
	var raw json.RawMessage
	var keys etcdKeys
	if err := post(t.Context(), client, url, question, &raw); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(raw, &keys) // not of every call
	return keys
}

// A real etcd leaves a backup with two workers; its card is lost; a new one
// restores it with the real etcdutl, and a real etcd has everything.
func TestRealEtcd(t *testing.T) {
	etcd, etcdutl := realEtcd(t)
	ours := newCluster(t, 1)
	nodes := ours.cube(t, 1, 2)
	e := nodes[0]
	ours.withEtcdServer(t, e)
	stop := startEtcd(t, etcd, e)
	client := etcdOf(t, e)
	put := func(key, value string) {
		t.Helper()
		call(t, client, e, "kv/put", map[string]any{"key": []byte(key), "value": []byte(value)})
	}
	for range 300 { // more than one message of a snapshot
		put("/registry/configmaps/default/kept", string(slices.Repeat([]byte("once"), 1000)))
	}
	put("/registry/secrets/default/one", "1")
	changes := func() string {
		t.Helper()
		text, err := e.changes(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := changes()
	for _, key := range heartbeats() {
		put(key+"x", "beat")
	}
	if got := changes(); got != before {
		t.Errorf("heartbeats count: %s, before %s", got, before)
	}
	put("/registry/services/x", "new")
	created := changes()
	call(t, client, e, "kv/deleterange", map[string]any{"key": []byte("/registry/services/x")})
	if deleted := changes(); created == before || deleted == created {
		t.Errorf("changes: %s, created %s, deleted %s", before, created, deleted)
	}
	for _, n := range nodes[1:] {
		n.serve(t)
		if err := n.write(done, nil); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := e.TakeBackup(t.Context())
	if err != nil || len(taken.Holders) != 2 {
		t.Fatalf("%v, %v", taken, err)
	}
	t.Log(taken)
	status, err := e.etcdStatus(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	put("/registry/configmaps/default/late", "lost")
	stop()

	again := ours.cube(t, 1, 2)[0]
	ours.withEtcdServer(t, again)
	again.Run = func(ctx context.Context, name string, args ...string) error {
		if name == "ctr" {
			if args[3] == "mount" {
				bin := filepath.Join(again.Root, etcdTools, "usr/local/bin")
				return errors.Join(os.MkdirAll(bin, 0o700), os.Symlink(etcdutl, filepath.Join(bin, "etcdutl")))
			}
			return nil
		}
		out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	if err := again.recall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if from, ok := again.Restored(); !ok || from != taken.Backup {
		t.Errorf("restored from %v", from)
	}
	e, client = again, etcdOf(t, again)
	startEtcd(t, etcd, e)
	keys := call(t, client, e, "kv/range", map[string]any{"key": []byte("/registry/configmaps/"), "range_end": []byte("/registry/configmaps0")})
	if keys.Count != 1 || len(keys.Values[0].Value) != 4000 {
		t.Errorf("restored %d keys", keys.Count)
	}
	after, err := e.etcdStatus(t.Context(), client)
	if err != nil || after.Header.Revision < status.Header.Revision+1_000_000_000 || after.Header.Member != status.Header.Member {
		t.Errorf("before %+v, after %+v, %v", status, after, err)
	}
	next, err := e.TakeBackup(t.Context())
	if err != nil || next.Backup.Era != taken.Backup.Era || next.Backup.compare(taken.Backup) <= 0 {
		t.Errorf("after %v comes %v, %v", taken, next, err)
	}
}

// withEtcdServer gives a control plane the certificate that kubeadm makes for
// etcd.
func (c cluster) withEtcdServer(t *testing.T, e *Engine) {
	t.Helper()
	pair, _ := c.issue(t, "etcd", secrets.Request{Purpose: "server", CommonName: "server", Server: true, Client: true, IP: ips("127.77.0.1")})
	for name, data := range map[string][]byte{"server.crt": pair.Certificate, "server.key": pair.Key} {
		if err := e.write(name, data); err != nil {
			t.Fatal(err)
		}
	}
}
