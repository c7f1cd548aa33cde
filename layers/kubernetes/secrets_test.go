package kubernetes

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/kubernetes/upstream"
	"github.com/picube/picube-build/layers/nodeconf"
)

// twoNodes is a plan of a control plane, rpi1, and a worker, rpi2.
func twoNodes() *plan.Plan {
	k := &blueprint.Kubernetes{
		Version: "1.34.4", PodSubnet: netip.MustParsePrefix("10.244.0.0/16"), ServiceSubnet: netip.MustParsePrefix("10.96.0.0/12"),
		Manifests: []string{"things/web.yaml"},
	}
	cube := &blueprint.Cube{Name: "picube", Cluster: "picube", Kubernetes: k}
	p := &plan.Plan{Cubes: []*plan.Cube{{Spec: cube}}}
	for i, role := range []string{plan.RoleControlPlane, plan.RoleWorker} {
		p.Cubes[0].Nodes = append(p.Cubes[0].Nodes, &plan.Node{
			Name: fmt.Sprintf("rpi%d", i+1), Cube: "picube", Cluster: "picube", Number: i + 1, Role: role, Root: role,
			Address: netip.MustParsePrefix(fmt.Sprintf("10.42.1.%d/16", i+1)), Spec: &blueprint.Node{Labels: map[string]string{"disk": "ssd"}},
		})
		p.Roots = append(p.Roots, &plan.Root{Name: role, Arch: "arm64", Role: role, Cube: cube})
	}
	return p
}

func testLayer(t *testing.T) *Layer {
	t.Helper()
	folder := secrets.Open(t.TempDir(), bytes.NewReader(make([]byte, 1<<10)))
	have := &set{Set: &upstream.Set{Release: upstream.Release{Version: "v1.34.4", Pause: "3.10.1"}}}
	return &Layer{
		Identity: folder.Cluster, Introductions: folder.Introductions,
		ReadFile: func(name string) ([]byte, error) { return []byte("# " + name), nil },
		sets:     map[string]*set{plan.RoleControlPlane: have, plan.RoleWorker: have},
	}
}

// card returns the secret files of a node's card by the path they will have,
// and its part of node.yaml.
func card(t *testing.T, l *Layer, p *plan.Plan, n *plan.Node) (map[string][]byte, kubeadmd.Config) {
	t.Helper()
	conf, boot := &nodeconf.Node{Hostname: n.Name, Network: nodeconf.Network{Address: n.Address.String()}}, tree.New(0)
	if err := l.Node(p, n, conf, boot); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for at, inode := range boot.All() {
		if inode.IsDir() {
			continue
		}
		data, err := boot.ReadFile(at)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(at, "/"+nodeconf.IdentityDir)] = data
	}
	var c kubeadmd.Config
	if _, err := conf.Layer(kubeadmd.Section, &c); err != nil {
		t.Fatal(err)
	}
	return files, c
}

func TestCards(t *testing.T) {
	l, p := testLayer(t), twoNodes()
	for i, want := range [][]string{
		{
			"/etc/kubernetes/picube/admin.crt", "/etc/kubernetes/picube/admin.key", "/etc/kubernetes/picube/etcd.crt", "/etc/kubernetes/picube/etcd.key",
			"/etc/kubernetes/picube/node.crt", "/etc/kubernetes/picube/node.key",
			"/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/etcd/ca.key",
			"/etc/kubernetes/pki/front-proxy-ca.crt", "/etc/kubernetes/pki/front-proxy-ca.key", "/etc/kubernetes/pki/sa.key", "/etc/kubernetes/pki/sa.pub",
			"/usr/lib/picube/manifests/blueprint-01-web.yaml",
		},
		{"/etc/kubernetes/picube/node.crt", "/etc/kubernetes/picube/node.key", "/etc/kubernetes/pki/ca.crt"},
	} {
		files, c := card(t, l, p, p.Cubes[0].Nodes[i])
		var got []string
		for at := range files {
			got = append(got, at)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("node %d: the card holds %q", i+1, got)
		}
		if len(c.ControlPlane) != 1 || c.ControlPlane[0].Address != "10.42.1.1" || c.Labels["disk"] != "ssd" || c.Version != "v1.34.4" {
			t.Errorf("node %d: node.yaml says %+v", i+1, c)
		}
		// Where all cubes begin one cluster, node.yaml is as it always was.
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"cubes:", "merge:", "home:"} {
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("node %d: node.yaml says %s: %s", i+1, word, text)
			}
		}
	}
}

func decode(t *testing.T, data []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no PEM: %q", data)
	}
	return block.Bytes
}

// Who has a worker's card in hand is that worker, and nobody else.
func TestStolenWorkerCard(t *testing.T) {
	l, p := testLayer(t), twoNodes()
	controlPlane, _ := card(t, l, p, p.Cubes[0].Nodes[0])
	stolen, _ := card(t, l, p, p.Cubes[0].Nodes[1])

	// No key on it is a key of the control plane's card.
	for at, data := range controlPlane {
		if !strings.HasSuffix(at, ".key") {
			continue
		}
		for other, key := range stolen {
			if bytes.Contains(key, decode(t, data)) || bytes.Equal(key, data) {
				t.Errorf("%s of the worker holds %s of the control plane", other, at)
			}
		}
	}
	pair, err := tls.X509KeyPair(stolen[kubeadmd.NodeCertificate], stolen[kubeadmd.NodeKey])
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := cert.Subject.String(); got != "CN=system:node:rpi2,O=system:nodes" || cert.IsCA || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("the worker's certificate says %s, authority %t, use %v", got, cert.IsCA, cert.ExtKeyUsage)
	}

	// To etcd and behind the front proxy it is nobody: who could ask etcd
	// could do without the API server.
	for _, authority := range []string{"/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/front-proxy-ca.crt"} {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(controlPlane[authority]) {
			t.Fatalf("%s holds no certificate", authority)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			t.Errorf("the worker is known to %s", authority)
		}
	}
	// Nor can it say that it is the API server to those who trust the cluster.
	own := x509.NewCertPool()
	own.AppendCertsFromPEM(stolen[kubeadmd.AuthorityCertificate])
	for _, name := range []string{"127.0.0.1", "rpi1.local", "kubernetes"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: own, DNSName: name}); err == nil {
			t.Errorf("the worker may answer as %s", name)
		}
	}

	// What it signs is worth nothing to the API server, which checks as this
	// does.
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(stolen[kubeadmd.AuthorityCertificate]) {
		t.Fatal("no authority on the card")
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: usages}); err != nil {
		t.Errorf("the worker itself is refused: %v", err)
	}
	forged := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "thief", Organization: []string{"system:masters"}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0), ExtKeyUsage: usages, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	signer := pair.PrivateKey.(crypto.Signer)
	der, err := x509.CreateCertificate(nil, forged, cert, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	between := x509.NewCertPool()
	between.AddCert(cert)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: usages}); err == nil {
		t.Error("a certificate that a worker signed is taken")
	}
}

// The cluster's own rules hand out no certificate but the asker's.
func TestNodeRights(t *testing.T) {
	text, err := files.ReadFile("files/manifests/nodes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	harmless := []string{"system:node-proxier", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"}
	bindings := 0
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var b struct {
			Kind    string
			RoleRef struct{ Name string } `yaml:"roleRef"`
		}
		if err := dec.Decode(&b); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if b.Kind != "ClusterRoleBinding" {
			continue
		}
		bindings++
		if !slices.Contains(harmless, b.RoleRef.Name) {
			t.Errorf("every node may do what %q may", b.RoleRef.Name)
		}
	}
	if bindings == 0 {
		t.Error("no bindings")
	}
}

func TestKubeconfig(t *testing.T) {
	l, p := testLayer(t), twoNodes()
	files, err := l.LaptopFiles(p, p.Cubes[0])
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `yaml:"server"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
		Users []struct {
			User map[string]string `yaml:"user"`
		} `yaml:"users"`
	}
	if err := yaml.Unmarshal(files["kubeconfig"], &config); err != nil {
		t.Fatal(err)
	}
	if got := config.Clusters[0].Cluster.Server; got != "https://rpi1.local:6443" {
		t.Errorf("server %s", got)
	}
	if len(config.Users[0].User) != 2 {
		t.Errorf("user %v", config.Users[0].User)
	}
	p.Cubes[0].Nodes[0].Role = plan.RoleWorker
	if _, err := Contexts(p, "picube"); err == nil {
		t.Error("a cluster without a control plane has a server")
	}
}

// Two cubes begin clusters, a third belongs to the first one's: all know both,
// and only control planes can issue certificates.
func TestCubes(t *testing.T) {
	l, p := testLayer(t), twoNodes()
	k := p.Cubes[0].Spec.Kubernetes
	k.Merge = blueprint.Merge{Mode: "ask", Lead: "beta"}
	p.Cubes[0].Spec.ControlPlane = []string{"rpi1"}
	k.ControlPlane = []string{"rpi1"}
	for i, c := range []blueprint.Cube{{Name: "beta", ControlPlane: []string{"beta-1"}, Home: "beta"}, {Name: "gamma", Home: "picube"}} {
		c.Cluster, c.Kubernetes = "picube", &blueprint.Kubernetes{Version: k.Version, PodSubnet: k.PodSubnet, ServiceSubnet: k.ServiceSubnet, Merge: k.Merge}
		n := &plan.Node{
			Name: c.Name + "-1", Cube: c.Name, Cluster: "picube", Number: 1, Home: c.Home, Role: plan.RoleWorker, Root: plan.RoleWorker,
			Address: netip.MustParsePrefix(fmt.Sprintf("10.42.%d.1/16", i+2)), Spec: &blueprint.Node{},
		}
		if c.ControlPlane != nil {
			n.Role, n.Root = plan.RoleControlPlane, plan.RoleControlPlane
		}
		p.Cubes = append(p.Cubes, &plan.Cube{Spec: &c, Nodes: []*plan.Node{n}})
	}
	for _, n := range p.Cubes[0].Nodes {
		n.Home = "picube"
	}
	alpha, beta := kubeadmd.Member{Name: "rpi1", Address: "10.42.1.1"}, kubeadmd.Member{Name: "beta-1", Address: "10.42.2.1"}
	for _, n := range p.Nodes() {
		files, c := card(t, l, p, n)
		want := alpha
		if n.Cube == "beta" {
			want = beta
		}
		if len(c.ControlPlane) != 1 || c.ControlPlane[0] != want || c.Home != n.Home || c.Merge != (kubeadmd.Merge{Mode: "ask", Lead: "beta"}) {
			t.Errorf("%s: node.yaml says %+v", n.Name, c)
		}
		if len(c.Cubes) != 2 || c.Cubes[0].Name != "picube" || c.Cubes[0].ControlPlane[0] != alpha || c.Cubes[1].Name != "beta" || c.Cubes[1].ControlPlane[0] != beta {
			t.Errorf("%s: cubes %+v", n.Name, c.Cubes)
		}
		if got := files["/etc/kubernetes/pki/ca.key"] != nil; got != (n.Role == plan.RoleControlPlane) {
			t.Errorf("%s: has the authority's key: %v", n.Name, got)
		}
	}
	contexts, err := Contexts(p, "picube")
	if want := []Context{{"picube", "https://rpi1.local:6443"}, {"picube-beta", "https://beta-1.local:6443"}}; err != nil || !slices.Equal(contexts, want) {
		t.Errorf("contexts %v, %v", contexts, err)
	}
}
