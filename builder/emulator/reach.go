package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator/gateway"
)

const (
	sshPort    = 22
	retryAfter = 500 * time.Millisecond
	// On a quick machine; both grow with what this one needs.
	dialLimit  = 20 * time.Second // for one attempt
	loginLimit = 90 * time.Second // for all of them
)

// Dial connects to a TCP port of the node, over its address on the cubes' wire.
func (n *Node) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	c, err := n.e.gateway.DialContext(ctx, netip.AddrPortFrom(n.card.Address, port))
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.card.Name, err)
	}
	return c, nil
}

// Run executes a command on the node over ssh and returns what it printed on
// its standard output. An error holds what it printed on standard error. While
// the node does not answer it tries again.
func (n *Node) Run(ctx context.Context, command string) (string, error) {
	client, err := n.ssh(ctx)
	if err != nil {
		return "", n.failed(fmt.Errorf("cannot run %q: %w", command, err))
	}
	session, err := client.NewSession()
	if err != nil {
		n.hangUp(client)
		return "", n.failed(fmt.Errorf("cannot run %q: %w", command, err))
	}
	defer session.Close()
	defer context.AfterFunc(ctx, func() { n.hangUp(client) })()
	var stdout, stderr bytes.Buffer
	session.Stdout, session.Stderr = &stdout, &stderr
	if err := session.Run(command); err != nil {
		var exit *ssh.ExitError
		if !errors.As(err, &exit) {
			n.hangUp(client)
			err = errors.Join(err, context.Cause(ctx))
		}
		return stdout.String(), fmt.Errorf("node %s: %s: %w: %s", n.card.Name, command, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// ssh returns a connection to the node's ssh server, one for all commands.
func (n *Node) ssh(ctx context.Context) (*ssh.Client, error) {
	if n.card.Key == nil {
		return nil, errors.New("cannot log in without a key")
	}
	began := n.e.config.Now()
	for {
		n.mu.Lock()
		client := n.client
		n.mu.Unlock()
		if client != nil {
			return client, nil
		}
		client, err := n.login(ctx)
		if err == nil {
			n.mu.Lock()
			if n.run == nil {
				n.mu.Unlock()
				client.Close()
				return nil, errors.New("it is off")
			}
			n.client = client
			n.mu.Unlock()
			return client, nil
		}
		if float64(n.e.config.Now().Sub(began)) > float64(loginLimit)*n.e.Pace() {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-time.After(retryAfter):
		}
	}
}

func (n *Node) login(ctx context.Context) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(float64(dialLimit)*n.e.Pace()))
	defer cancel()
	conn, err := n.Dial(ctx, sshPort)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	check := ssh.InsecureIgnoreHostKey()
	if n.card.HostKey != nil {
		check = ssh.FixedHostKey(n.card.HostKey)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, n.card.Name, &ssh.ClientConfig{
		User:            n.card.User,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(n.card.Key)},
		HostKeyCallback: check,
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// hangUp forgets a connection that does not work any more.
func (n *Node) hangUp(client *ssh.Client) {
	n.mu.Lock()
	if n.client == client {
		n.client = nil
	}
	n.mu.Unlock()
	client.Close()
}

// forward is a port of the host that leads to a node.
type forward struct {
	listener net.Listener
	cancel   context.CancelFunc
}

func (f *forward) close() {
	f.cancel()
	f.listener.Close()
}

// Forward lets the host's programs reach a port of the node at a port of the
// host's own, "127.0.0.1:6443"; port 0 takes a free one. It returns the port's
// address and lasts until the emulator is closed.
func (n *Node) Forward(listen string, port uint16) (net.Addr, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("node %s: port %s: cannot give way to it: %w", n.card.Name, listen, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.e.mu.Lock()
	n.e.forwards = append(n.e.forwards, &forward{l, cancel})
	n.e.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(ctx, c, port)
		}
	}()
	return l.Addr(), nil
}

func (n *Node) serve(ctx context.Context, c net.Conn, port uint16) {
	defer c.Close()
	to, err := n.Dial(ctx, port)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { c.Close(); to.Close() })()
	gateway.Splice(c, to)
}
