package kubeadmd

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// step is a part of what kubeadm does, after which the node has time to breathe.
type step struct {
	phases []string
	then   func() error // is done after them; may be nil
	wait   string       // URL that must answer 200; may be empty
	// done reports that the step's end is reached, whatever kubeadm says; may
	// be nil.
	done func(context.Context) bool
}

// initPhases are the phases of kubeadm init, in its order.
func initPhases() []string {
	return []string{
		"preflight", "certs", "kubeconfig", "etcd", "control-plane/apiserver", "control-plane/controller-manager",
		"control-plane/scheduler", "kubelet-start", "wait-control-plane", "upload-config", "upload-certs",
		"mark-control-plane", "bootstrap-token", "kubelet-finalize", "addon/coredns", "addon/kube-proxy", "show-join-command",
	}
}

// joinPhases are those of kubeadm join.
func joinPhases() []string {
	return []string{
		"preflight", "control-plane-prepare/download-certs", "control-plane-prepare/certs", "control-plane-prepare/kubeconfig",
		"control-plane-prepare/control-plane", "check-etcd", "kubelet-start", "etcd-join", "kubelet-wait-bootstrap",
		"control-plane-join/etcd", "control-plane-join/mark-control-plane", "wait-control-plane",
	}
}

const etcdReady = "http://127.0.0.1:2381/readyz"

// beginning are the phases by which a cluster begins, with what must answer
// after each group. Started all at once, the components of a small board
// starve each other: those without etcd or API end after a while and are
// started again, and kubeadm, asking each of them twice a second, takes a
// quarter of what there is.
//
// The others it does without: kube-proxy is a unit of every node, there are no
// bootstrap tokens, the kubelet's certificate is on the card, and the checks
// look for what a card is known to have.
func (e *Engine) beginning() []step {
	return []step{
		{phases: []string{"certs", "kubeconfig", "etcd", "kubelet-start"}, then: e.backdate, wait: etcdReady},
		{phases: []string{"control-plane/apiserver"}, wait: "https://" + endpoint() + "/readyz"},
		{phases: []string{"control-plane/controller-manager", "upload-config", "mark-control-plane"}},
		{phases: []string{"control-plane/scheduler", "addon/coredns"}},
	}
}

// joining are the phases by which a control plane grows, for the same reason:
// an API server without etcd is of no use.
//
// kubeadm gives each question to etcd two seconds. If a member was promoted and
// the answer took longer, it goes on promoting it until its time is over, and
// so it does when it is started again, since it takes a promoted member for one
// that it must promote (MemberPromote, Kubernetes 1.34). So it is the members'
// list that says when that step is done.
//
// Who was a worker has a kubelet that runs and keeps its configuration: kubeadm
// refuses a node that is ready.
func (e *Engine) joining() []step {
	kubelet, bootstrap := []string{"kubelet-start"}, []string{"kubelet-wait-bootstrap"}
	if e.IsSeated() {
		kubelet, bootstrap = nil, nil
	}
	return []step{
		{phases: append([]string{"control-plane-prepare/certs", "control-plane-prepare/kubeconfig"}, kubelet...), then: e.backdate},
		{phases: []string{"check-etcd", "etcd-join"}, wait: etcdReady, done: e.votes},
		{phases: []string{"control-plane-prepare/control-plane"}, wait: fmt.Sprintf("https://127.0.0.1:%d/readyz%s", APIPort, withoutRoles)},
		{phases: append(bootstrap, "control-plane-join/mark-control-plane")},
	}
}

// withoutRoles leaves out of readiness that an API server has read each role
// that a cluster is born with. They have been there since the cluster began, it
// serves without them, and several hundred reads one after the other, each with
// the consent of a majority, took a board under load eight minutes.
const withoutRoles = "?exclude=poststarthook/rbac/bootstrap-roles"

// begun counts the steps of Begin that are behind the node, joined those of Join.
const (
	begun  = stateDir + "/begun"
	joined = stateDir + "/joined"
)

// Begin makes a new cluster. Cut off anywhere, it goes on with the step that
// it was in: kubeadm takes what is there and writes the rest anew.
func (e *Engine) Begin(ctx context.Context) error {
	if e.count(begun) == 0 {
		if err := e.recall(ctx); err != nil {
			return err
		}
	}
	if err := e.kubeadm(ctx, "init", begun, initPhases(), e.beginning()); err != nil {
		return err
	}
	if err := e.startServices(ctx); err != nil {
		return err
	}
	if err := e.furnish(ctx); err != nil {
		return err
	}
	return e.write(done, nil)
}

// Join makes the node a further control-plane node of the cluster, and goes on
// like Begin when it was cut off.
func (e *Engine) Join(ctx context.Context) error {
	if err := e.forget(ctx); err != nil {
		return err
	}
	counter := joined
	if e.IsSeated() {
		counter = seatJoined
		if err := e.isTold(ctx); err != nil {
			return err
		}
		if e.count(counter) == 0 {
			if err := e.forgetCertificate(); err != nil {
				return err
			}
		}
	}
	if err := e.kubeadm(ctx, "join", counter, joinPhases(), e.joining()); err != nil {
		return err
	}
	if e.IsSeated() {
		if err := e.knowEtcd(ctx); err != nil {
			return err
		}
	}
	if err := e.startServices(ctx); err != nil {
		return err
	}
	return e.write(e.done(), nil)
}

func (e *Engine) startServices(ctx context.Context) error {
	return e.systemctl(ctx, "enable", "--now", "kubelet.service", "kube-proxy.service")
}

// kubeadm runs those of its steps that are not behind the node, and counts them.
func (e *Engine) kubeadm(ctx context.Context, verb, counter string, all []string, steps []step) error {
	config, err := e.Config.Kubeadm(e.Node, verb == "join")
	if err != nil {
		return err
	}
	file := stateDir + "/kubeadm.yaml"
	if err := e.write(file, config); err != nil {
		return err
	}
	for i := e.count(counter); i < len(steps); i++ {
		step := steps[i]
		if e.IsSeated() {
			if err := e.isTold(ctx); err != nil {
				return err
			}
		}
		skipped := slices.DeleteFunc(slices.Clone(all), func(p string) bool { return slices.Contains(step.phases, p) })
		if err := e.unlessDone(ctx, step, verb, "--config", filepath.Join(e.Root, file),
			"--skip-phases", strings.Join(skipped, ","), "--ignore-preflight-errors", "all"); err != nil {
			return err
		}
		if step.then != nil {
			if err := step.then(); err != nil {
				return err
			}
		}
		if step.wait != "" {
			if err := e.Wait(ctx, step.wait); err != nil {
				return err
			}
		}
		if err := e.write(counter, []byte(strconv.Itoa(i+1))); err != nil {
			return err
		}
	}
	return nil
}

// unlessDone runs kubeadm until it ends or its step is seen to be done.
func (e *Engine) unlessDone(ctx context.Context, s step, args ...string) error {
	if s.done == nil {
		return e.Run(ctx, "kubeadm", args...)
	}
	if s.done(ctx) {
		return nil
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for e.Pause(running, donePause) == nil {
			if s.done(running) {
				stop()
				return
			}
		}
	}()
	err := e.Run(running, "kubeadm", args...)
	if err != nil && ctx.Err() == nil && s.done(ctx) {
		return nil
	}
	return err
}

// count reads how many steps are behind the node.
func (e *Engine) count(counter string) int {
	text, err := os.ReadFile(filepath.Join(e.Root, counter))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// apiPause is the time between two questions whether something answers: each
// is a handshake for a server that has enough to do. donePause is the same for
// a step that kubeadm mostly ends by itself.
const (
	apiPause  = 5 * time.Second
	donePause = 30 * time.Second
)

// answers waits until a URL of the node answers. The kubelet starts what fails
// again, so there is nothing to give up.
func (e *Engine) answers(ctx context.Context, url string) error {
	conf, err := e.tlsConfig(e.present())
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: conf}}
	defer client.CloseIdleConnections()
	for {
		if _, err := get(ctx, client, url); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(apiPause):
		}
	}
}
