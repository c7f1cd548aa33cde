//go:build cluster

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"gopkg.in/yaml.v3"

	"github.com/picube/picube-build/builder/emulator"
)

var (
	clusterNodes = flag.Int("cluster-nodes", 2, "how many cards TestCluster switches on")
	clusterLoad  = flag.Duration("cluster-load", 0, "how long TestCluster keeps its cluster under load in the end")
)

// webImage compiles the test's own program and puts it into a registry of this
// process; it returns the image's name.
func webImage(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "web")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/cluster/web")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "web", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = "linux", "arm64", "v8"
	config.Config = v1.Config{Entrypoint: []string{"/web"}}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	image := strings.TrimPrefix(srv.URL, "http://") + "/web:1"
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return image
}

// buildCluster builds the cards of one of the test's blueprints and returns the
// folder that has a folder for each cube.
func buildCluster(t *testing.T, blueprint string, nodes, controlPlanes int) string {
	t.Helper()
	dir := t.TempDir()
	fill := strings.NewReplacer("IMAGE", webImage(t), "NODES", fmt.Sprint(nodes), "CONTROL", fmt.Sprint(controlPlanes))
	for from, to := range map[string]string{blueprint: "picube.hcl", "web.yaml": "web.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata/cluster", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), []byte(fill.Replace(string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	c := host()
	c.stdout, c.stderr = io.Discard, os.Stderr
	if code := run(t.Context(), []string{"build", "-o", filepath.Join(dir, "out"), filepath.Join(dir, "picube.hcl")}, c); code != exitDone {
		t.Fatalf("build: exit code %d", code)
	}
	t.Logf("built the cards in %s", time.Since(begin).Round(time.Second))
	return filepath.Join(dir, "out")
}

// asLaptop asks the API with the kubeconfig that the build wrote, under the
// names that it answers to.
func (c cluster) asLaptop(t *testing.T, server, path string) (string, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	var config kubeconfig
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	user := config.Users[0].User
	status, body, err := c.ask(t, user.Certificate, user.Key, config.Clusters[0].Cluster.Authority, http.MethodGet, "https://"+server+":6443"+path, "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return body, err
}

// ask is a request to the API by whoever has a certificate.
func (c cluster) ask(t *testing.T, certificate, key, authority []byte, method, url, body string) (int, string, error) {
	t.Helper()
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	client := http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.first.Dial(ctx, 6443)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// stolen asks with what lies on the image of a worker's card, of which nobody
// but its node may make anything.
func (c cluster) stolen(t *testing.T, worker, other string) {
	file := func(path string) []byte {
		var out bytes.Buffer
		h := host()
		h.stdout, h.stderr = &out, os.Stderr
		image := filepath.Join(c.dir, worker+".img")
		if code := run(t.Context(), []string{"inspect", image, "/boot/firmware/picube/identity/etc/kubernetes" + path}, h); code != exitDone {
			t.Fatalf("inspect %s: exit code %d", path, code)
		}
		return out.Bytes()
	}
	certificate, key, authority := file("/picube/node.crt"), file("/picube/node.key"), file("/pki/ca.crt")
	request := certificateRequest(t, "system:node:"+other)
	const api = "https://rpi1:6443"
	for _, q := range []struct {
		does, method, path, body string
		want                     int
	}{
		{"sees itself", http.MethodGet, "/api/v1/nodes/" + worker, "", http.StatusOK},
		{"reads all secrets", http.MethodGet, "/api/v1/secrets", "", http.StatusForbidden},
		{"reads others' settings", http.MethodGet, "/api/v1/configmaps", "", http.StatusForbidden},
		{"changes another node", http.MethodPatch, "/api/v1/nodes/" + other, `{"metadata":{"labels":{"stolen":"yes"}}}`, http.StatusForbidden},
		{"reports another node's state", http.MethodPatch, "/api/v1/nodes/" + other + "/status", `{"status":{"phase":"Terminated"}}`, http.StatusForbidden},
		{"deletes another node", http.MethodDelete, "/api/v1/nodes/" + other, "", http.StatusForbidden},
		{"makes itself a control plane", http.MethodPatch, "/api/v1/nodes/" + worker, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`, http.StatusForbidden},
		{"starts a pod elsewhere", http.MethodPost, "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"stolen","annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"nodeName":"` + other + `","containers":[{"name":"a","image":"a"}]}}`, http.StatusForbidden},
		{"takes all rights", http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"stolen"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"system:nodes"}]}`, http.StatusForbidden},
		{"asks for another node's certificate", http.MethodPost, "/apis/certificates.k8s.io/v1/certificatesigningrequests", `{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":"stolen"},"spec":{"request":"` + request + `","signerName":"kubernetes.io/kube-apiserver-client-kubelet","usages":["digital signature","client auth"]}}`, http.StatusForbidden},
		{"grants its own wish", http.MethodPut, "/apis/certificates.k8s.io/v1/certificatesigningrequests/stolen/approval", `{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":"stolen"},"status":{"conditions":[{"type":"Approved","status":"True"}]}}`, http.StatusForbidden},
	} {
		status, answer, err := c.ask(t, certificate, key, authority, q.method, api+q.path, q.body)
		if err != nil || status != q.want {
			t.Errorf("a stolen card %s: %d, %v; want %d: %s", q.does, status, err, q.want, answer)
		}
	}
}

// certificateRequest is a request for a node's certificate (PKCS #10), as the
// API takes it.
func certificateRequest(t *testing.T, name string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// load has a pod on each node keep all processors busy, and rolls a Deployment
// over again and again: nothing that a cluster consists of starts anew meanwhile.
func (c cluster) load(t *testing.T, nodes []*emulator.Node, length time.Duration) {
	const restarts = `get pods -A -o jsonpath='{range .items[*]}{.metadata.namespace}{"/"}{.metadata.name}{" "}{.status.containerStatuses[*].restartCount}{"\n"}{end}'`
	const units = "systemctl show -P NRestarts containerd kubelet kube-proxy picube-join | xargs"
	before := map[string]string{}
	for _, n := range nodes {
		before[n.Name()] = ask(t, n, units)
	}
	image := c.eventually(t, "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", "/web:1")
	c.eventually(t, "apply -f - <<'END'\n"+`apiVersion: apps/v1
kind: DaemonSet
metadata: {name: burn, namespace: default}
spec:
  selector: {matchLabels: {app: burn}}
  template:
    metadata: {labels: {app: burn}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: burn, image: "`+image+`", args: [burn]}]
END
`, "created")
	c.eventually(t, "get daemonset burn -o jsonpath={.status.numberReady}", fmt.Sprint(len(nodes)))
	rounds := 0
	for begin := time.Now(); time.Since(begin) < length; rounds++ {
		c.eventually(t, "rollout restart deployment/web", "restarted")
		c.eventually(t, "rollout status deployment/web --timeout=10m", "successfully rolled out")
		time.Sleep(20 * time.Second)
	}
	text := c.eventually(t, restarts, "kube-system/etcd-")
	c.eventually(t, "delete daemonset burn", "deleted")
	for _, n := range nodes {
		if after := ask(t, n, units); after != before[n.Name()] {
			t.Errorf("%s: units started anew: %s before, %s after", n.Name(), before[n.Name()], after)
		}
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); strings.HasPrefix(line, "kube-system/") && strings.Trim(strings.Join(f[1:], ""), "0") != "" {
			t.Errorf("started anew: %s", line)
		}
	}
	t.Logf("%v under load, %d times rolled over\n%s", length, rounds, text)
}

// startCluster switches all nodes on at once and waits until each is ready.
func startCluster(t *testing.T, cards built, nodes int) (*emulator.Emulator, cluster) {
	t.Helper()
	e := newEmulator(t)
	var all []*emulator.Node
	for i := range nodes {
		n := cards.start(t, e, fmt.Sprintf("rpi%d", i+1), i+1, func(c *emulator.Card) {
			// A node may use what the others leave of the host; of many more
			// processors than that has, all would wait for each other.
			c.Size, c.CPUs = 8<<30, min(2, (2*runtime.NumCPU()+nodes-1)/nodes)
		})
		if door, err := n.Forward("127.0.0.1:0", 22); err != nil {
			t.Fatal(err)
		} else {
			t.Logf("%s: ssh -p %s -i %s/id_ed25519 pirate@127.0.0.1", n.Name(), door.String()[len("127.0.0.1:"):], cards.dir)
		}
		all = append(all, n)
	}
	for _, n := range all {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		if err := n.WaitStage(ctx, emulator.Ready); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, stages := n.Stage()
		t.Logf("%s: %v", n.Name(), stages)
	}
	return e, cluster{cards, all[0]}
}

// TestCluster is the promise: switched on, and it is a Kubernetes cluster,
// without internet.
func TestCluster(t *testing.T) {
	e, c := startCluster(t, openCards(t, filepath.Join(buildCluster(t, "cluster.hcl", *clusterNodes, 1), "picube")), *clusterNodes)
	for _, n := range e.Nodes() {
		c.eventually(t, "get node "+n.Name()+" --no-headers", " Ready ")
	}
	for _, server := range []string{"rpi1.local", "rpi1", "10.42.1.1", "127.0.0.1"} {
		if body, err := c.asLaptop(t, server, "/readyz"); err != nil || body != "ok" {
			t.Errorf("the laptop asks %s: %q, %v", server, body, err)
		}
	}
	c.eventually(t, "-n kube-system get deployment coredns -o jsonpath={.status.readyReplicas}", "2")
	c.eventually(t, "get deployment web -o jsonpath={.status.readyReplicas}", "1")
	c.eventually(t, "get daemonset client -o jsonpath={.status.numberReady}", fmt.Sprint(*clusterNodes))
	client := c.eventually(t, "get pod -l app=client --field-selector spec.nodeName=rpi1 -o jsonpath={.items[0].metadata.name}", "client-")
	pod := c.eventually(t, "get pod -l app=web -o jsonpath={.items[0].status.podIP}", "10.244.")
	for _, url := range []string{
		"http://" + pod + ":8080/pod", "http://web/service", "http://web.default.svc.cluster.local/full-name",
		"http://10.42.1.1:30080/node-port", "http://10.42.1.2:30080/node-port",
	} {
		c.eventually(t, "exec "+client+" -- /web get "+url, "of rpi2 says hello")
	}
	c.eventually(t, "logs deployment/web", "request for /service from")
	c.eventually(t, "get node -o jsonpath='{.items[*].metadata.labels.topology\\.kubernetes\\.io/zone}'", "picube picube")
	t.Run("rolling update", func(t *testing.T) {
		c.eventually(t, "set env deployment/web SHADE=blue", "updated")
		c.eventually(t, "rollout status deployment/web --timeout=5m", "successfully rolled out")
		c.eventually(t, "exec "+client+" -- /web get http://web/updated", "says hello")
	})
	t.Run("job", func(t *testing.T) {
		image := c.eventually(t, "get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", "/web:1")
		c.eventually(t, "create job fetch --image="+image+" -- /web get http://web/job", "created")
		c.eventually(t, "get job fetch -o jsonpath={.status.succeeded}", "1")
	})
	t.Run("stolen worker card", func(t *testing.T) { c.stolen(t, "rpi2", "rpi1") })
	t.Run("checks", func(t *testing.T) {
		c.eventually(t, "get --raw '/readyz?verbose'", "readyz check passed")
		t.Log(ask(t, c.first, "sudo kubeadm certs check-expiration 2>/dev/null"))
		t.Log(c.kubectl(t, "get pods -A -o wide"))
	})
	if *clusterLoad > 0 {
		t.Run("load", func(t *testing.T) { c.load(t, e.Nodes(), *clusterLoad) })
	}
	for _, n := range e.Nodes() {
		for _, command := range []string{"free -m", "ps -eo rss,comm --sort=-rss | head -15",
			"sudo sh -c '" + memory + "'"} {
			t.Logf("%s: %s\n%s", n.Name(), command, ask(t, n, command))
		}
		if failed := ask(t, n, "systemctl --failed --no-legend"); failed != "" {
			t.Errorf("%s: failed: %s", n.Name(), failed)
		}
	}
}
