package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/picube/picube-build/layers/status/statusd"
)

// maxStatus bounds what a node may say of itself.
const maxStatus = 1 << 20

// door is the way to a node over ssh.
type door struct {
	name       string
	hosts      []string // where it may be: its .local name, its address
	user       string
	knownHosts string
	identity   string // file; may be empty
}

// readSSHConfig reads a file of the build's own: of ssh_config(5) it knows no
// more than is in there.
func readSSHConfig(file string) ([]door, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	var doors []door
	all := map[string]string{} // of "Host *"
	inAll := false
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSpace(sc.Text()), " ")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		switch {
		case key == "Host":
			if inAll = value == "*"; !inAll {
				doors = append(doors, door{name: value})
			}
		case inAll:
			all[key] = value
		case key == "HostName" && len(doors) > 0:
			doors[len(doors)-1].hosts = []string{value}
		}
	}
	known := all["UserKnownHostsFile"]
	addresses, err := knownAddresses(known)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i := range doors {
		d := &doors[i]
		d.user, d.knownHosts, d.identity = all["User"], known, all["IdentityFile"]
		if a := addresses[d.name]; a != "" {
			d.hosts = append(d.hosts, a)
		}
	}
	return doors, nil
}

// knownAddresses reads the nodes' addresses on the cubes' wire from the build's
// own known_hosts: not every laptop can look up .local names.
func knownAddresses(file string) (map[string]string, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		names, _, _ := strings.Cut(line, " ")
		list := strings.Split(names, ",")
		if last := list[len(list)-1]; net.ParseIP(last) != nil {
			out[list[0]] = last
		}
	}
	return out, nil
}

// userKeys are the keys of the person at the laptop, for users that have their
// own.
type userKeys struct {
	agent   net.Conn
	signers []ssh.Signer
}

func (c *cli) userKeys() *userKeys {
	k := &userKeys{}
	if socket := c.env["SSH_AUTH_SOCK"]; socket != "" {
		if conn, err := net.Dial("unix", socket); err == nil {
			k.agent = conn
			k.signers, _ = agent.NewClient(conn).Signers()
		}
	}
	home := cmp.Or(c.env["HOME"], c.env["USERPROFILE"])
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		if s, err := readSigner(filepath.Join(home, ".ssh", name)); err == nil {
			k.signers = append(k.signers, s)
		}
	}
	return k
}

func (k *userKeys) close() {
	if k.agent != nil {
		_ = k.agent.Close()
	}
}

func readSigner(file string) (ssh.Signer, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(pem)
}

// status asks the node how it is.
func (d door) status(ctx context.Context, keys *userKeys, dial dial) (statusd.Status, error) {
	var s statusd.Status
	signers := keys.signers
	if d.identity != "" {
		own, err := readSigner(d.identity)
		if err != nil {
			return s, err
		}
		signers = []ssh.Signer{own}
	}
	known, err := knownhosts.New(d.knownHosts)
	if err != nil {
		return s, err
	}
	conn, err := dialAny(ctx, dial, d.hosts, "22")
	if err != nil {
		return s, plain(err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// Its key is known by its name, whatever address it has today.
	c, channels, requests, err := ssh.NewClientConn(conn, net.JoinHostPort(d.name, "22"), &ssh.ClientConfig{
		User: d.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)}, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		HostKeyCallback: func(host string, _ net.Addr, key ssh.PublicKey) error {
			return known(host, &net.TCPAddr{}, key)
		},
	})
	if err != nil {
		conn.Close()
		return s, inTime(ctx, err)
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return s, inTime(ctx, err)
	}
	out := &bounded{max: maxStatus}
	session.Stdout = out
	if err := session.Run("picube-node status --json"); err != nil {
		return s, inTime(ctx, err)
	}
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		return s, fmt.Errorf("cannot read its answer: %w", err)
	}
	return s, nil
}

// inTime says that time was up where that is the cause.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return plain(ctx.Err())
	}
	return err
}

// dialAny connects to the first of several names of the same host that answers.
func dialAny(ctx context.Context, dial dial, hosts []string, port string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(hosts))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, host := range hosts {
		go func() {
			conn, err := dial(ctx, "tcp", net.JoinHostPort(host, port))
			results <- result{conn, err}
		}()
	}
	err := fmt.Errorf("has no address")
	for i := range hosts {
		r := <-results
		if r.err != nil {
			err = r.err
			continue
		}
		go func() { // those that come too late
			for range len(hosts) - i - 1 {
				if late := <-results; late.conn != nil {
					_ = late.conn.Close()
				}
			}
		}()
		return r.conn, nil
	}
	return nil, err
}

// bounded is a buffer that takes no more than max bytes.
type bounded struct {
	bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, fmt.Errorf("the answer is larger than %d bytes", b.max)
	}
	return b.Buffer.Write(p)
}
