//go:build cluster

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
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
	"golang.org/x/crypto/ssh"
	"gopkg.in/yaml.v3"

	"github.com/picube/picube-build/builder/emulator"
)

var clusterNodes = flag.Int("cluster-nodes", 2, "how many cards TestCluster switches on")

// patience is for one thing that a cluster on slow machines has to do.
const patience = 30 * time.Minute

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

// openCards reads what a build left for the laptop.
func openCards(t *testing.T, cube string) built {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(cube, "id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return built{dir: cube, key: key}
}

// cluster is the running one.
type cluster struct {
	built
	first *emulator.Node
}

// kubectl runs on the first control-plane node and returns what it printed.
func (c cluster) kubectl(t *testing.T, args string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := c.first.Run(ctx, "sudo kubectl --request-timeout=5m --kubeconfig /etc/kubernetes/picube/admin.conf "+args)
	return strings.TrimSpace(out), err
}

// eventually repeats a question until the answer contains what is wanted.
func (c cluster) eventually(t *testing.T, args, want string) string {
	t.Helper()
	begin, out, err := time.Now(), "", error(nil)
	for time.Since(begin) < patience {
		if out, err = c.kubectl(t, args); err == nil && strings.Contains(out, want) {
			t.Logf("%s: %s (%s)", args, out, time.Since(begin).Round(time.Second))
			return out
		}
		time.Sleep(5 * time.Second)
	}
	t.Errorf("%s: %q, %v; want %q", args, out, err, want)
	return out
}

// asLaptop asks the API with the kubeconfig that the build wrote, under the
// names that it answers to.
func (c cluster) asLaptop(t *testing.T, server, path string) (string, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA string `yaml:"certificate-authority-data"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
		Users []struct {
			User struct {
				Certificate string `yaml:"client-certificate-data"`
				Key         string `yaml:"client-key-data"`
			} `yaml:"user"`
		} `yaml:"users"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	plain := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pair, err := tls.X509KeyPair(plain(config.Users[0].User.Certificate), plain(config.Users[0].User.Key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(plain(config.Clusters[0].Cluster.CA))
	client := http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.first.Dial(ctx, 6443)
		},
	}}
	resp, err := client.Get("https://" + server + ":6443" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// startCluster switches all nodes on at once and waits until each is ready.
func startCluster(t *testing.T, cards built, nodes int) (*emulator.Emulator, cluster) {
	t.Helper()
	e := newEmulator(t)
	var all []*emulator.Node
	for i := range nodes {
		n := cards.start(t, e, fmt.Sprintf("rpi%d", i+1), i+1, func(c *emulator.Card) {
			if c.Size, c.CPUs = 8<<30, 2; i >= 3 {
				c.CPUs = 1 // enough for a worker, and the host has few
			}
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
	t.Run("checks", func(t *testing.T) {
		c.eventually(t, "get --raw '/readyz?verbose'", "readyz check passed")
		t.Log(ask(t, c.first, "sudo kubeadm certs check-expiration 2>/dev/null"))
		t.Log(c.kubectl(t, "get pods -A -o wide"))
	})
	for _, n := range e.Nodes() {
		for _, command := range []string{"free -m", "ps -eo rss,comm --sort=-rss | head -15"} {
			t.Logf("%s: %s\n%s", n.Name(), command, ask(t, n, command))
		}
		if failed := ask(t, n, "systemctl --failed --no-legend"); failed != "" {
			t.Errorf("%s: failed: %s", n.Name(), failed)
		}
	}
}
