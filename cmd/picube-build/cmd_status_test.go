package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/kubernetes"
	"github.com/picube/picube-build/layers/status/statusd"
)

// sshNode answers as a node does, with its host key, to one user's key.
func sshNode(t *testing.T, host ssh.Signer, user ssh.PublicKey, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conf := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), user.Marshal()) {
			return nil, errors.New("no such key")
		}
		return nil, nil
	}}
	conf.AddHostKey(host)
	serve := func(conn net.Conn) {
		_, channels, requests, err := ssh.NewServerConn(conn, conf)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			channel, requests, err := c.Accept()
			if err != nil {
				return
			}
			for r := range requests {
				_ = r.Reply(r.Type == "exec", nil)
				if r.Type != "exec" {
					continue
				}
				var exit [4]byte
				if !strings.Contains(string(r.Payload), "picube-node status --json") {
					exit[3] = 127
				}
				_, _ = io.WriteString(channel, answer)
				_, _ = channel.SendRequest("exit-status", false, exit[:])
				channel.Close()
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

func signer(t *testing.T) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, key
}

// Of a cube of five one node is well, one too hot, one off, one says nonsense
// and one has the wrong host key; the cluster knows a sixth.
func TestStatus(t *testing.T) {
	out := t.TempDir()
	dir := filepath.Join(out, "picube")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	user, key := signer(t)
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	cool, hot := 48.3, 85.0
	status := func(s statusd.Status) string {
		s.FindProblems()
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	answers := []string{
		status(statusd.Status{Role: "control-plane", Stage: "ready", ClusterView: "ready, 2 of 5 nodes are", Temperature: &cool}),
		status(statusd.Status{Role: "worker", Stage: "joined", ClusterView: "joined, not ready yet", Temperature: &hot}),
		"", "nonsense", status(statusd.Status{}),
	}
	config, known := "# ssh -F ssh_config NODE\n", ""
	where := map[string]string{}
	for i, answer := range answers {
		host, _ := signer(t)
		name, address := fmt.Sprintf("rpi%d", i+1), fmt.Sprintf("10.42.1.%d", i+1)
		config += fmt.Sprintf("\nHost %s\n\tHostName %s.local\n\tHostKeyAlias %s\n", name, name, name)
		told := host
		if i == 4 {
			told, _ = signer(t)
		}
		known += fmt.Sprintf("%s,%s.local,%s %s", name, name, address, ssh.MarshalAuthorizedKey(told.PublicKey()))
		if i != 2 {
			// The first is found by its name, the others only by their address.
			where[net.JoinHostPort(map[bool]string{true: name + ".local", false: address}[i == 0], "22")] = sshNode(t, host, user.PublicKey(), answer)
		}
	}
	config += fmt.Sprintf("\nHost *\n\tUserKnownHostsFile %q\n\tStrictHostKeyChecking yes\n\tUser pirate\n\tIdentityFile %q\n", filepath.Join(dir, "known_hosts"), filepath.Join(dir, "id_ed25519"))
	id, err := secrets.Open(t.TempDir(), rand.Reader).Cluster("picube")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := kubernetes.Kubeconfig(id, kubernetes.Context{Name: "picube", Server: "https://rpi1.local:6443"})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"ssh_config": []byte(config), "known_hosts": []byte(known), "id_ed25519": pem.EncodeToMemory(block), "kubeconfig": kubeconfig} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	where["10.42.1.1:6443"] = api(t, id)
	c := &cli{env: map[string]string{}}
	all, err := c.askNodes(t.Context(), out, 5*time.Second, func(ctx context.Context, network, address string) (net.Conn, error) {
		to, ok := where[address]
		if !ok {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("no route to host")}
		}
		return (&net.Dialer{}).DialContext(ctx, network, to)
	})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := printNodes(&got, all); err != nil {
		t.Fatal(err)
	}
	want := `CUBE    NODE  ROLE           STAGE   KUBERNETES  VERSION  TEMP  REMARKS
picube  rpi1  control-plane  ready   Ready       1.34.4   48°C  
picube  rpi2  worker         joined  NotReady    1.34.4   85°C  too hot: 85°C; joined, not ready yet
picube  rpi3  -              -       -           -        -     does not answer: no route to host
picube  rpi4  -              -       -           -        -     does not answer: cannot read its answer: invalid character 'o' in literal null (expecting 'u')
picube  rpi5  -              -       -           -        -     does not answer: ssh: handshake failed: knownhosts: key mismatch
other   rpi9  worker         -       Ready       1.34.4   -     does not answer: its card was not built here
`
	if got.String() != want {
		t.Errorf("got\n%s", got.String())
	}
	if _, err := c.askNodes(t.Context(), t.TempDir(), time.Second, nil); err == nil || !strings.Contains(err.Error(), "cannot find a cube's ssh_config in it") {
		t.Errorf("an empty folder: %v", err)
	}
}

// Of three cubes of one cluster the second was followed by the first, whose own
// API is gone, and the third is alone; one node is still in both lists.
func TestStatusOfCubes(t *testing.T) {
	cubes := []string{"alpha", "beta", "gamma"}
	var all []nodeReport
	for _, cube := range cubes {
		for _, number := range []string{"1", "2"} {
			all = append(all, nodeReport{Cube: cube, Name: cube + number, Error: "off"})
		}
	}
	node := func(cube, name string, ready bool) clusterNode {
		return clusterNode{name: name, zone: cube, kubernetesNode: kubernetesNode{Ready: ready, Role: "worker", Version: "1.34.4"}}
	}
	var got bytes.Buffer
	if err := printNodes(&got, join(all, []clusterReport{
		{name: "home", cubes: cubes, err: "connection refused"},
		{name: "home-beta", home: "beta", cubes: cubes, nodes: []clusterNode{
			node("alpha", "alpha1", true), node("alpha", "alpha2", true), node("beta", "beta1", true), node("gamma", "gamma1", false), node("new", "new1", true),
		}},
		{name: "home-gamma", home: "gamma", cubes: cubes, nodes: []clusterNode{node("gamma", "gamma1", true), node("new", "new1", false)}},
		{name: "other", cubes: []string{"other"}, nodes: []clusterNode{node("other", "alpha1", true)}},
	})); err != nil {
		t.Fatal(err)
	}
	const want = `CLUSTER     CUBE   NODE    ROLE    STAGE  KUBERNETES  VERSION  TEMP  REMARKS
home-beta   alpha  alpha1  worker  -      Ready       1.34.4   -     does not answer: off
home-beta   alpha  alpha2  worker  -      Ready       1.34.4   -     does not answer: off
home-beta   beta   beta1   worker  -      Ready       1.34.4   -     does not answer: off
-           beta   beta2   -       -      -           -        -     does not answer: off
home-gamma  gamma  gamma1  worker  -      Ready       1.34.4   -     does not answer: off
-           gamma  gamma2  -       -      -           -        -     does not answer: off
home-beta   new    new1    worker  -      Ready       1.34.4   -     does not answer: its card was not built here
other       other  alpha1  worker  -      Ready       1.34.4   -     does not answer: its card was not built here
`
	if got.String() != want {
		t.Errorf("got\n%s", got.String())
	}
}

// api answers with the cluster's nodes.
func api(t *testing.T, id *secrets.Cluster) string {
	t.Helper()
	ca, err := id.Authority("kubernetes", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(secrets.Request{Purpose: "server", CommonName: "server", Server: true, DNS: []string{"rpi1.local"}})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		node := func(name, zone, labels, ready string) string {
			return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"topology.kubernetes.io/zone":%q%s}},"status":{"conditions":[{"type":"Ready","status":%q}],"nodeInfo":{"kubeletVersion":"v1.34.4"}}}`, name, zone, labels, ready)
		}
		fmt.Fprintf(w, `{"items":[%s,%s,%s]}`, node("rpi1", "picube", `,"node-role.kubernetes.io/control-plane":""`, "True"),
			node("rpi2", "picube", "", "Unknown"), node("rpi9", "other", "", "True"))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
