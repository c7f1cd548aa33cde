//go:build handover

package kubeadmd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/layers/cluster/merge"
)

// program compiles a program for this machine.
func program(t *testing.T, name string, m gomodule.Module) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	c := gomodule.Compiler{Env: os.Environ(), Cache: filepath.Join(cache, "picube-test", "modules")}
	r, err := c.Build(t.Context(), m, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	return r.Programs[name]
}

func start(t *testing.T, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), text[max(0, len(text)-3000):])
		}
		log.Close()
	})
}

type bearer struct{ http.RoundTripper }

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer secret")
	return b.RoundTripper.RoundTrip(r)
}

// realAPI is an API server of the cards' version with a part of etcd of its own.
func realAPI(t *testing.T, server, etcd, prefix string, port int) API {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	account, accounts, tokens := filepath.Join(dir, "sa.key"), filepath.Join(dir, "sa.pub"), filepath.Join(dir, "tokens")
	if err := os.WriteFile(account, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(accounts, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tokens, []byte("secret,admin,1,system:masters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, server, "--etcd-servers", etcd, "--etcd-prefix", prefix, "--cert-dir", dir, "--bind-address", "127.0.0.1",
		"--advertise-address", "127.0.0.1", "--secure-port", fmt.Sprint(port), "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-key-file", accounts, "--service-account-signing-key-file", account, "--service-account-issuer", "https://picube",
		"--token-auth-file", tokens, "--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount")
	a := API{URL: fmt.Sprintf("https://127.0.0.1:%d", port), Client: &http.Client{Transport: bearer{&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}}}
	for range 1200 {
		if code, _, err := a.do(t.Context(), http.MethodGet, "/readyz", "", nil); err == nil && code == http.StatusOK {
			return a
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the API server does not answer")
	return a
}

func TestHandOverReal(t *testing.T) {
	etcd := program(t, "etcd", gomodule.Module{
		Path: "go.etcd.io/etcd/server/v3", Version: "v3.6.5", Programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"},
	})
	const flags = "-X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
	server := program(t, "kube-apiserver", gomodule.Module{
		Path: "k8s.io/kubernetes", Version: "v1.34.4", Staging: "v0.34.4", LDFlags: flags,
		Programs: map[string]string{"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver"},
	})
	start(t, etcd, "--data-dir", t.TempDir(), "--listen-client-urls", "http://127.78.0.1:2379", "--advertise-client-urls", "http://127.78.0.1:2379",
		"--listen-peer-urls", "http://127.78.0.1:2380")
	from := realAPI(t, server, "http://127.78.0.1:2379", "/beta", 26443)
	to := realAPI(t, server, "http://127.78.0.1:2379", "/alpha", 26444)
	apply := func(a API, path, body string) {
		t.Helper()
		code, answer, err := a.do(t.Context(), http.MethodPatch, path+"?fieldManager=user", "application/apply-patch+yaml", []byte(body))
		if err != nil || code/100 != 2 {
			t.Fatalf("%s: %v %d %s", path, err, code, message(answer))
		}
	}
	const template = `{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}`
	deployment := func(name string, replicas int) (path, body string) {
		return "/apis/apps/v1/namespaces/default/deployments/" + name, fmt.Sprintf(
			`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":%q},"spec":{"replicas":%d,"selector":{"matchLabels":{"a":"b"}},"template":%s}}`, name, replicas, template)
	}
	for i := range 10 {
		path, body := deployment(fmt.Sprintf("web%d", i), 2)
		apply(from, path, body)
	}
	path, body := deployment("both", 2)
	apply(from, path, body)
	_, body = deployment("both", 5)
	apply(to, path, body)
	apply(from, "/api/v1/namespaces/shop", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`)
	apply(from, "/api/v1/namespaces/shop/configmaps/c", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"b"}}`)
	apply(from, "/api/v1/namespaces/shop/secrets/s", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"b"}}`)
	apply(from, "/api/v1/namespaces/shop/services/w", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"w"},"spec":{"type":"NodePort","selector":{"a":"b"},"ports":[{"port":80,"nodePort":30080}]}}`)
	apply(from, "/apis/batch/v1/namespaces/shop/jobs/j", `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j"},"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`)
	apply(from, "/api/v1/persistentvolumes/disk", `{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"disk"},"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"local":{"path":"/srv"},"claimRef":{"name":"d","namespace":"shop","uid":"1"},"nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"In","values":["rpi6"]}]}]}}}}`)
	apply(from, "/api/v1/namespaces/shop/persistentvolumeclaims/d", `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"d"},"spec":{"volumeName":"disk","storageClassName":"","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`)
	for range 2 {
		begun := time.Now()
		h, err := HandOver(t.Context(), from, to, "beta/1")
		text, _ := json.Marshal(h)
		t.Logf("%s in %s", text, time.Since(begun))
		if err != nil {
			t.Error(err)
		}
		if h.Objects != 18 || len(h.Conflicts) != 1 || h.Conflicts[0] != "Deployment default/both: another one is there" {
			t.Errorf("handed over %+v", h)
		}
	}
	there, err := to.read(t.Context(), path)
	if err != nil || at(there, "spec", "replicas") != 5.0 {
		t.Errorf("an object of the leader was changed: %v, %v", there, err)
	}
	leader := Merging{Own: to}
	if intact, err := leader.Untouched(t.Context(), "beta/1"); err != nil || !intact {
		t.Errorf("somebody changed what was handed over: %v", err)
	}
	apply(to, "/api/v1/namespaces/shop/configmaps/c", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"b":"c"}}`)
	if intact, err := leader.Untouched(t.Context(), "beta/1"); err != nil || intact {
		t.Errorf("nobody changed what was handed over: %v", err)
	}
	gone, err := to.withdrawable(t.Context(), "beta/1")
	if err != nil {
		t.Fatal(err)
	}
	if err := to.delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	left, err := to.userObjects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range left {
		names = append(names, describe(o))
	}
	slices.Sort(names)
	if want := []string{"ConfigMap shop/c", "Deployment default/both", "Namespace shop"}; !slices.Equal(names, want) {
		t.Errorf("left after the withdrawal: %q", names)
	}
	freezes(t, from)
}

// freezes holds that a cluster refuses users' writes, and nothing else, and takes
// them again.
func freezes(t *testing.T, a API) {
	t.Helper()
	until := func(want bool) {
		t.Helper()
		begun := time.Now()
		for refuses, err := a.refuses(t.Context()); refuses != want; refuses, err = a.refuses(t.Context()) {
			if err != nil || time.Since(begun) > time.Minute {
				t.Fatalf("refuses writes: %v, %v", refuses, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("refuses writes: %v after %s", want, time.Since(begun))
	}
	store := RecordStore{API: a, Random: rand.Reader, New: func(context.Context) (merge.Record, error) { return merge.Record{Cube: "beta"}, nil }}
	kept, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(false)
	if err := a.freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(true)
	if err := errors.Join(
		store.Save(t.Context(), kept), a.tell(t.Context(), "beta1", reasonMerge, "frozen", time.Now()), a.deleteNode(t.Context(), "beta1"), a.thaw(t.Context()),
	); err != nil {
		t.Errorf("the merge itself is refused: %v", err)
	}
	until(false)
}
