package kubeadmd

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/joind"
)

// cluster issues what lies on cards.
type cluster struct {
	id *secrets.Cluster
}

func newCluster(t *testing.T, seed byte) cluster {
	t.Helper()
	id, err := secrets.Open(t.TempDir(), bytes.NewReader(bytes.Repeat([]byte{seed}, 64))).Cluster("picube")
	if err != nil {
		t.Fatal(err)
	}
	return cluster{id}
}

func (c cluster) issue(t *testing.T, authority string, r secrets.Request) (secrets.Pair, []byte) {
	t.Helper()
	a, err := c.id.Authority(authority, authority)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return pair, a.Certificate()
}

// controlPlane is the n-th of three control-plane nodes with its card's files;
// their addresses are 127.77.0.n.
func (c cluster) controlPlane(t *testing.T, n int) (*Engine, *[]string) {
	t.Helper()
	conf := config(3)
	for i := range conf.ControlPlane {
		conf.ControlPlane[i].Address = "127.77.0." + strconv.Itoa(i+1)
	}
	own := node(n, "control-plane")
	own.Network.Address = conf.ControlPlane[n-1].Address + "/16"
	e, ran := engine(t, own, conf)
	pair, ca := c.issue(t, "kubernetes", secrets.Request{Purpose: "node", CommonName: "system:node:" + own.Hostname, Client: true})
	client, etcd := c.issue(t, "etcd", secrets.Request{Purpose: "client", CommonName: own.Hostname, Client: true})
	for name, data := range map[string][]byte{
		AuthorityCertificate: ca, NodeCertificate: pair.Certificate, NodeKey: pair.Key,
		etcdAuthority: etcd, EtcdCertificate: client.Certificate, EtcdKey: client.Key,
	} {
		if err := e.write(name, data); err != nil {
			t.Fatal(err)
		}
	}
	return e, ran
}

func listen(t *testing.T, address string, port int) net.Listener {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), uint16(port))))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (e *Engine) serve(t *testing.T) {
	t.Helper()
	address, err := nodeAddress(e.Node)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, address, PeerPort)
	go func() { _ = e.ServePeers(t.Context(), l) }()
}

// A node whose card was flashed anew meets one that is a member already, one
// that is none, and then one of another cluster.
func TestLook(t *testing.T) {
	ours := newCluster(t, 1)
	first, _ := ours.controlPlane(t, 1)
	second, _ := ours.controlPlane(t, 2)
	look := func() joind.Sight { return (&Network{Engine: first}).Look(t.Context()) }
	if got := look(); got != (joind.Sight{}) {
		t.Errorf("alone: %+v", got)
	}
	second.serve(t)
	if got, want := look(), (joind.Sight{Reachable: 1}); got != want {
		t.Errorf("one that waits: %+v", got)
	}
	first.serve(t)
	if got, want := (&Network{Engine: second}).Look(t.Context()), (joind.Sight{Reachable: 1, Before: 1}); got != want {
		t.Errorf("one that comes first: %+v", got)
	}
	if err := second.write(done, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := look(), (joind.Sight{Reachable: 1, Members: 1}); got != want {
		t.Errorf("one that comes up: %+v", got)
	}
	theirs := newCluster(t, 2)
	stranger, _ := theirs.controlPlane(t, 3)
	stranger.serve(t)
	if got, want := look(), (joind.Sight{Reachable: 1, Members: 1}); got != want {
		t.Errorf("a stranger counts: %+v", got)
	}
	defer theirs.serve(t, "kubernetes", "127.77.0.3", APIPort, http.NotFoundHandler()).Close()
	if got, want := look(), (joind.Sight{Reachable: 1, Members: 1, Stranger: "127.77.0.3"}); got != want {
		t.Errorf("a stranger's API: %+v", got)
	}
}

// serve answers with a server's certificate of the cluster.
func (c cluster) serve(t *testing.T, authority, address string, port int, h http.Handler) *http.Server {
	t.Helper()
	pair, _ := c.issue(t, authority, secrets.Request{Purpose: "server", CommonName: address, Server: true, IP: []net.IP{net.ParseIP(address)}})
	return c.serveWith(t, pair, authority, address, port, h)
}

func (c cluster) serveWith(t *testing.T, pair secrets.Pair, authority, address string, port int, h http.Handler) *http.Server {
	t.Helper()
	_, ca := c.issue(t, authority, secrets.Request{})
	key, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	s := &http.Server{Handler: h}
	t.Cleanup(func() { s.Close() })
	l := tls.NewListener(listen(t, address, port), &tls.Config{Certificates: []tls.Certificate{key}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	go func() { _ = s.Serve(l) }()
	return s
}

// A node whose card was flashed anew takes out of etcd what it was, and
// nothing else; one that still has its data leaves etcd alone.
func TestForget(t *testing.T) {
	ours := newCluster(t, 1)
	e, ran := ours.controlPlane(t, 1)
	var removed []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v3/cluster/member/list":
			_, _ = w.Write([]byte(`{"header": {"raft_term": "3"}, "members": [
				{"ID": "10276657743932975437", "name": "rpi1", "peerURLs": ["https://127.77.0.1:2380"], "clientURLs": ["https://127.77.0.1:2379"]},
				{"ID": "2", "name": "rpi2", "peerURLs": ["https://127.77.0.2:2380"]},
				{"ID": "3", "peerURLs": ["https://127.77.0.1:2380"], "isLearner": true}]}`))
		case "/v3/cluster/member/remove":
			var question struct {
				ID string `json:"ID"`
			}
			if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
				t.Error(err)
			}
			removed = append(removed, question.ID)
			_, _ = w.Write([]byte("{}"))
		default:
			http.NotFound(w, r)
		}
	})
	defer ours.serve(t, "etcd", "127.77.0.2", etcdPort, handler).Close()
	if err := e.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"10276657743932975437", "3"}; !slices.Equal(removed, want) || len(*ran) == 0 {
		t.Errorf("removed %q, ran %q", removed, *ran)
	}
	removed = nil
	if err := os.MkdirAll(filepath.Join(e.Root, etcdData), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := e.Join(t.Context()); err != nil || removed != nil {
		t.Errorf("with data: removed %q, %v", removed, err)
	}
}
