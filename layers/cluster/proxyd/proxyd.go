// Package proxyd is every node's way to the cluster's API: a TCP proxy on the
// loopback address that knows all control-plane nodes. So nothing on a node
// names one of them, and no address has to float between them.
//
// It does not look into the connections: both ends check each other's
// certificates.
package proxyd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// dialTimeout bounds one attempt: on the cubes' wire a living node answers
	// within milliseconds, a slow card under load within some seconds.
	dialTimeout = 4 * time.Second
	// keepAlive finds out that a control-plane node lost its power, which
	// closes no connection.
	keepAlive = 10 * time.Second
)

// Proxy forwards connections to the first backend that takes them.
type Proxy struct {
	log      *slog.Logger
	backends atomic.Pointer[[]string]
	good     atomic.Int64 // index of the backend that last answered
}

// New returns a proxy to backends ("10.42.1.1:6443").
func New(log *slog.Logger, backends ...string) *Proxy {
	p := &Proxy{log: log}
	p.Set(backends)
	return p
}

// Set replaces the backends; connections that stand are not touched.
func (p *Proxy) Set(backends []string) { p.backends.Store(&backends) }

// Serve accepts connections until ctx ends; it returns when all are closed.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("proxy: cannot accept connections: %w", err)
		}
		connections.Go(func() {
			defer c.Close()
			p.forward(ctx, c.(*net.TCPConn))
		})
	}
}

func (p *Proxy) forward(ctx context.Context, client *net.TCPConn) {
	server, err := p.dial(ctx)
	if err != nil {
		p.log.Debug("no control plane answers", "error", err)
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer stop()
	var both sync.WaitGroup
	for _, dir := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		both.Go(func() {
			_, err := io.Copy(dir[1], dir[0])
			if err != nil { // a reset must reach the other side at once
				dir[1].Close()
				return
			}
			_ = dir[1].CloseWrite()
		})
	}
	both.Wait()
}

// dial connects to a backend, the one that answered last first.
func (p *Proxy) dial(ctx context.Context) (*net.TCPConn, error) {
	backends := *p.backends.Load()
	if len(backends) == 0 {
		return nil, errors.New("no control-plane node is known")
	}
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive / 2, Count: 3}}
	first := p.good.Load()
	var errs []error
	for i := range int64(len(backends)) {
		at := (first + i) % int64(len(backends))
		c, err := dialer.DialContext(ctx, "tcp", backends[at])
		if err == nil {
			p.good.Store(at)
			return c.(*net.TCPConn), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
