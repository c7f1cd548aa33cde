package kubeadmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// PeerPort is where the nodes tell each other whether they belong to a cluster
// already, and which backups of it they hold; clusters ask each other there. It decides whether a node whose
// card was flashed anew may begin one: the others may be members that have not
// come up yet. Workers also take backups there, and hand them out.
const PeerPort = 7444

// peer is what a node says of itself.
type peer struct {
	Member  bool   `json:"member"`
	Backups []held `json:"backups,omitempty"` // told to control-plane nodes only
	// Of is whose it is where there may be several clusters.
	Of *merge.Membership `json:"of,omitempty"`
	// Seated is that it is of that cluster's control plane, and of another cube.
	Seated bool `json:"seated,omitempty"`
	// Seats are the nodes of whom it knows that they are.
	Seats []string `json:"seats,omitempty"`
	// Told stands for the introductions that it has.
	Told string `json:"told,omitempty"`
}

// isAway reports whether the node is of another cluster than its cube began.
func (p peer) isAway() bool { return p.Of != nil && p.Of.Cluster != p.Of.Home }

// ServePeers answers the other nodes until ctx ends. Both sides show the
// certificate of their card.
func (e *Engine) ServePeers(ctx context.Context, l net.Listener) error {
	conf, err := e.serverConfig()
	if err != nil {
		return err
	}
	server := &http.Server{
		ReadTimeout: lookTimeout, WriteTimeout: lookTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // strangers' handshakes
		Handler:  e.peerHandler(),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(tls.NewListener(l, conf)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("peers: %w", err)
	}
	return nil
}

func (e *Engine) peerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		p := peer{Member: e.IsMember(), Told: e.told()}
		if e.fromControlPlane(r) {
			p.Backups, _ = e.vault().list()
		}
		if e.Merges() {
			if m, err := e.Membership(); err == nil {
				p.Of, p.Seated, p.Seats = &m, e.IsSeated() && p.Member, e.knownSeats(m.Cube)
			}
		}
		_ = json.NewEncoder(w).Encode(p)
	})
	mux.HandleFunc("PUT "+introductionPath, e.takeOver)
	if e.Merges() {
		mux.HandleFunc("POST "+mergePath, e.question)
	}
	if !e.IsControlPlane() {
		vault := e.vault()
		vault.tidy()
		mux.HandleFunc("PUT "+backupsPath+"{name}", e.controlPlaneOnly(vault.take))
		mux.HandleFunc("GET "+backupsPath+"{name}", e.controlPlaneOnly(vault.hand))
	}
	return mux
}

// fromControlPlane reports whether a control-plane node asks, of the node's
// cluster or of the one that its cube began. A worker's card, which may be
// anybody's by now, must not see what others hold.
func (e *Engine) fromControlPlane(r *http.Request) bool {
	leaf := r.TLS.PeerCertificates[0]
	if cube := e.CubeOf(leaf); cube != "" && cube == e.Config.Home {
		return true
	}
	return slices.ContainsFunc(e.Config.ControlPlane, func(m Member) bool { return e.isOf(leaf, m.Name) })
}

func (e *Engine) controlPlaneOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !e.fromControlPlane(r) {
			http.Error(w, "only for control-plane nodes", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

// nodeUser is a node's name in its certificate, as Kubernetes wants it.
func nodeUser(name string) string { return "system:node:" + name }

// dialTimeout is how long a node that is off is waited for.
const dialTimeout = 3 * time.Second

// client speaks with one node and nobody else.
func (e *Engine) client(m Member) (*http.Client, error) {
	conf, err := e.tlsConfig(e.identityFor(m.Name))
	if err != nil {
		return nil, err
	}
	if e.isForeign(m.Name) {
		conf.ServerName = inCommon
	}
	// A node's certificate is one of a client, here of the one that answers.
	roots := conf.RootCAs
	conf.InsecureSkipVerify = true // in favour of:
	conf.VerifyConnection = func(c tls.ConnectionState) error { return verify(c, roots, nodeUser(m.Name)) }
	dialer := &net.Dialer{Timeout: dialTimeout}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: conf, DisableKeepAlives: true, TLSHandshakeTimeout: lookTimeout, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return impatient{c}, nil
		},
	}}, nil
}

// impatient ends a connection whose other side is silent: a node whose plug was
// pulled says no word of it, and others wait behind it.
type impatient struct{ net.Conn }

// stall is how long the other side may take nothing, silence how long nothing
// may move at all: a card takes its time to write.
const (
	stall   = 30 * time.Second
	silence = 5 * time.Minute
)

func (c impatient) Write(p []byte) (int, error) {
	now := time.Now()
	if err := errors.Join(c.SetWriteDeadline(now.Add(stall)), c.SetReadDeadline(now.Add(silence))); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c impatient) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.SetReadDeadline(time.Now().Add(silence))
	}
	return n, err
}

// ask asks a node what it is.
func (e *Engine) ask(ctx context.Context, m Member) (peer, error) {
	client, err := e.client(m)
	if err != nil {
		return peer{}, err
	}
	client.Timeout = lookTimeout
	data, err := get(ctx, client, peerURL(m, "/"))
	if err != nil {
		return peer{}, err
	}
	var p peer
	return p, json.Unmarshal(data, &p)
}

func peerURL(m Member, path string) string {
	return fmt.Sprintf("https://%s:%d%s", m.Address, PeerPort, path)
}

func verify(c tls.ConnectionState, roots *x509.CertPool, name string) error {
	leaf := c.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return err
	}
	if leaf.Subject.CommonName != name {
		return fmt.Errorf("answers as %q, not %q", leaf.Subject.CommonName, name)
	}
	return nil
}
