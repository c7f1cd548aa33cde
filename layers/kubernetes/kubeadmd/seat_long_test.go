//go:build long

package kubeadmd

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/secrets"
)

// What is asked of etcd while a control plane grows and shrinks, a real one
// answers as the others' stand-in does: a learner has no vote, who is struck off
// is not listed any more, and nobody is whose loss would be that of the majority.
func TestSeatsOfEtcd(t *testing.T) {
	program, _ := realEtcd(t)
	u := newUnionOf(t, false)
	alpha, beta, gamma := u.leader.Engine, u.guests[0], u.guests[1]
	address := func(e *Engine) string { a, _ := nodeAddress(e.Node); return a }
	initial := ""
	start := func(e *Engine, state string) (stop func()) {
		t.Helper()
		a := address(e)
		pair, _ := u.cluster.issue(t, "etcd", secrets.Request{Purpose: "server", CommonName: "server", Server: true, Client: true, IP: ips(a, "127.0.0.1")})
		file := func(name string) string { return filepath.Join(e.Root, name) }
		for name, data := range map[string][]byte{"server.crt": pair.Certificate, "server.key": pair.Key} {
			if err := e.write(name, data); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(program, "--name", e.Node.Hostname, "--data-dir", file(etcdDir),
			"--listen-client-urls", "https://"+a+":2379", "--advertise-client-urls", "https://"+a+":2379",
			"--listen-peer-urls", "https://"+a+":2380", "--initial-advertise-peer-urls", "https://"+a+":2380",
			"--initial-cluster", initial, "--initial-cluster-state", state,
			"--client-cert-auth", "--trusted-ca-file", file(etcdAuthority), "--cert-file", file("server.crt"), "--key-file", file("server.key"),
			"--peer-client-cert-auth", "--peer-trusted-ca-file", file(etcdAuthority), "--peer-cert-file", file("server.crt"), "--peer-key-file", file("server.key"))
		if err := os.MkdirAll(file(etcdDir), 0o700); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop = sync.OnceFunc(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if text := log.String(); t.Failed() {
				t.Logf("etcd of %s said:\n%s", e.Node.Hostname, text[max(0, len(text)-3000):])
			}
		})
		t.Cleanup(stop)
		return stop
	}
	eventually := func(what string, holds func() bool) {
		t.Helper()
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(200 * time.Millisecond) {
			if holds() {
				return
			}
		}
		listed, err := alpha.etcdMembers(t.Context())
		t.Fatalf("never %s: %+v, %v", what, listed, err)
	}
	count := func() int {
		listed, err := alpha.etcdMembers(t.Context())
		if err != nil {
			return 0
		}
		return len(listed)
	}
	ask := func(call string, question any, answer any) error {
		client := etcdOf(t, alpha)
		defer client.CloseIdleConnections()
		url, err := alpha.etcdURL("cluster/member/" + call)
		if err != nil {
			t.Fatal(err)
		}
		return post(t.Context(), client, url, question, answer)
	}
	join := func(e *Engine) (stop func()) {
		t.Helper()
		peer := "https://" + address(e) + ":2380"
		var added struct {
			Member etcdMember `json:"member"`
		}
		eventually("a learner is added", func() bool {
			return ask("add", map[string]any{"peerURLs": []string{peer}, "isLearner": true}, &added) == nil
		})
		if listed, err := e.isListed(t.Context()); err != nil || !listed {
			t.Fatalf("%s is not listed: %v", e.Node.Hostname, err)
		}
		initial += "," + e.Node.Hostname + "=" + peer
		stop = start(e, "existing")
		if u.leader.votes(t.Context(), Member{Name: e.Node.Hostname, Address: address(e)}) {
			t.Error("a learner votes")
		}
		eventually("a learner is promoted", func() bool { return ask("promote", map[string]string{"ID": added.Member.ID}, nil) == nil })
		eventually("it votes", func() bool { return e.votes(t.Context()) })
		return stop
	}
	initial = "alpha1=https://" + address(alpha) + ":2380"
	start(alpha, "new")
	eventually("alpha is there", func() bool { return count() == 1 })
	if leads, err := u.leader.Leads(t.Context()); err != nil || !leads {
		t.Errorf("leads %v, %v", leads, err)
	}
	join(beta)
	stop := join(gamma)
	if err := errors.Join(gamma.write(seatOf, []byte("a")), gamma.choose(), gamma.knowEtcd(t.Context())); err != nil {
		t.Fatal(err)
	}
	if id, err := os.ReadFile(filepath.Join(gamma.Root, seatEtcd)); err != nil || len(id) < 10 {
		t.Errorf("it is a member of %q, %v", id, err)
	}
	if may, err := gamma.MayLeave(t.Context()); may || err != nil {
		t.Errorf("a member may leave: %v", err)
	}
	stop()
	eventually("what the dead one leaves behind answers", func() bool { return count() == 3 })
	if err := alpha.strike(t.Context(), Member{Name: "beta1", Address: address(beta)}); err == nil || !strings.Contains(err.Error(), "member/remove") {
		t.Errorf("one of two that are left was struck off: %v", err)
	}
	eventually("the dead one is struck off", func() bool {
		return alpha.strike(t.Context(), Member{Name: "gamma1", Address: address(gamma)}) == nil && count() == 2
	})
	if may, err := gamma.MayLeave(t.Context()); !may || err != nil {
		t.Errorf("who is no member may not leave: %v", err)
	}
	eventually("the last one is struck off", func() bool {
		return alpha.strike(t.Context(), Member{Name: "beta1", Address: address(beta)}) == nil && count() == 1
	})
}
