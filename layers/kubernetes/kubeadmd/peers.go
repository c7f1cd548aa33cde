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
	"time"
)

// PeerPort is where control-plane nodes tell each other whether they belong to
// a cluster already. It decides whether a node whose card was flashed anew may
// begin one: the others may be members that have not come up yet.
const PeerPort = 7444

// peer is what a control-plane node says of itself.
type peer struct {
	Member bool `json:"member"`
}

// ServePeers answers the other control-plane nodes until ctx ends. Both sides
// show the certificate of their card.
func (e *Engine) ServePeers(ctx context.Context, l net.Listener) error {
	conf, err := e.tlsConfig()
	if err != nil {
		return err
	}
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, conf.RootCAs
	server := &http.Server{
		ReadTimeout: lookTimeout, WriteTimeout: lookTimeout,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // strangers' handshakes
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(peer{Member: e.IsMember()})
		}),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(tls.NewListener(l, conf)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("peers: %w", err)
	}
	return nil
}

// ask asks a control-plane node what it is.
func (e *Engine) ask(ctx context.Context, m Member) (peer, error) {
	conf, err := e.tlsConfig()
	if err != nil {
		return peer{}, err
	}
	// A node's certificate is one of a client, here of the one that answers.
	roots := conf.RootCAs
	conf.InsecureSkipVerify = true // in favour of:
	conf.VerifyConnection = func(c tls.ConnectionState) error { return verify(c, roots, "system:node:"+m.Name) }
	client := &http.Client{Timeout: lookTimeout, Transport: &http.Transport{
		TLSClientConfig: conf, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
	}}
	data, err := get(ctx, client, fmt.Sprintf("https://%s:%d/", m.Address, PeerPort))
	if err != nil {
		return peer{}, err
	}
	var p peer
	return p, json.Unmarshal(data, &p)
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
