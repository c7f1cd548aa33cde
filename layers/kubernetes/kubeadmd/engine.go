package kubeadmd

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/picube/picube-build/layers/nodeconf"
)

// Engine does what joining needs on one node.
type Engine struct {
	Node   *nodeconf.Node
	Config Config
	Root   string // "/" on a node
	// Run runs a program of the node to its end.
	Run func(ctx context.Context, name string, args ...string) error
	// Wait waits until a URL of the node answers.
	Wait func(ctx context.Context, url string) error
	Now  func() time.Time
	// Say is told, in words for a person, what the node is doing.
	Say func(string)
	// Pause waits; it returns early with ctx's error.
	Pause func(ctx context.Context, d time.Duration) error
}

// New reads the engine's part of node.yaml; ok says whether it has one.
func New(n *nodeconf.Node, log io.Writer) (e *Engine, ok bool, err error) {
	e = &Engine{Node: n, Root: "/", Run: runner{log}.run, Now: time.Now, Say: func(string) {}}
	e.Wait = e.answers
	ok, err = n.Layer(Section, &e.Config)
	if ok && err == nil && len(e.Config.ControlPlane) == 0 {
		err = errors.New("node.yaml: kubernetes: controlPlane: names no node")
	}
	return e, ok, err
}

// Backends are the addresses of the API servers.
func (e *Engine) Backends() []string {
	var out []string
	for _, m := range e.Config.ControlPlane {
		out = append(out, fmt.Sprintf("%s:%d", m.Address, APIPort))
	}
	return out
}

// MayBegin reports whether the node is the one that begins a new cluster.
func (e *Engine) MayBegin() bool { return e.Node.Hostname == e.Config.ControlPlane[0].Name }

// IsControlPlane reports whether the node is to run the API.
func (e *Engine) IsControlPlane() bool {
	for _, m := range e.Config.ControlPlane {
		if m.Name == e.Node.Hostname {
			return true
		}
	}
	return false
}

// done marks the end of Begin or Join: what came before it may have been cut
// off anywhere.
const done = stateDir + "/member"

// IsMember reports whether the node has become a member before.
func (e *Engine) IsMember() bool {
	_, err := os.Stat(filepath.Join(e.Root, done))
	return err == nil
}

// Prepare writes what the node's programs run with, whatever comes next. It
// may run at every start.
func (e *Engine) Prepare(ctx context.Context) error {
	server := "https://" + endpoint()
	node, err := KubeConfig(server, "system:node:"+e.Node.Hostname, AuthorityCertificate, NodeCertificate, NodeKey)
	if err != nil {
		return err
	}
	proxy, err := e.Config.KubeProxy(e.Node)
	if err != nil {
		return err
	}
	// The kubelet has the certificate of its card, which outlives it: to ask for
	// another one would be one more thing that a wrong clock can break, and
	// another start of the kubelet in the busiest minutes of a control plane.
	errs := []error{e.write(nodeConfig, node), e.write(kubeletConf, node), e.write(proxyConfig, proxy)}
	if e.IsControlPlane() {
		admin, err := KubeConfig(server, "admin", AuthorityCertificate, AdminCertificate, AdminKey)
		errs = append(errs, err, e.write(AdminConfig, admin))
		for name, text := range Patches() {
			errs = append(errs, e.write(path.Join(patchDir, name), []byte(text)))
		}
	}
	return errors.Join(append(errs, e.nameServer(ctx))...)
}

// nameServer lets the node's resolver answer on the node's address: pods can't
// reach the one on the loopback address, and a copy of the name servers of the
// moment would be wrong tomorrow, or empty, which CoreDNS does not survive.
func (e *Engine) nameServer(ctx context.Context) error {
	address, err := nodeAddress(e.Node)
	if err != nil {
		return err
	}
	if err := e.write(resolvConf, []byte("nameserver "+address+"\n")); err != nil {
		return err
	}
	text := []byte("[Resolve]\nDNSStubListenerExtra=" + address + "\n")
	if old, err := os.ReadFile(filepath.Join(e.Root, resolvedConf)); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := e.write(resolvedConf, text); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(e.Root, resolvedConf), 0o644); err != nil { // resolved is not root
		return err
	}
	return e.systemctl(ctx, "restart", "systemd-resolved.service")
}

// Work makes the node a worker. Its certificate came with the card, so there
// is nobody to ask: the kubelet registers as soon as an API answers.
func (e *Engine) Work(ctx context.Context) error {
	address, err := nodeAddress(e.Node)
	if err != nil {
		return err
	}
	kubelet, err := e.Config.kubelet()
	if err != nil {
		return err
	}
	text, err := documents(kubelet)
	if err != nil {
		return err
	}
	var flags []string
	for _, a := range args(e.Config.kubeletArgs(e.Node, address)) {
		flags = append(flags, fmt.Sprintf("--%s=%s", a["name"], a["value"]))
	}
	for _, t := range e.Config.Taints {
		flags = append(flags, "--register-with-taints="+t)
	}
	if err := errors.Join(
		e.write(kubeletDefault, []byte("KUBELET_EXTRA_ARGS="+strings.Join(flags, " ")+"\n")),
		e.write(kubeletConfig, text),
	); err != nil {
		return err
	}
	if err := e.systemctl(ctx, "start", "kubelet.service", "kube-proxy.service"); err != nil {
		return err
	}
	return e.write(done, nil)
}

// allPhases are the phases of kubeadm init, in its order.
func allPhases() []string {
	return []string{
		"preflight", "certs", "kubeconfig", "etcd", "control-plane/apiserver", "control-plane/controller-manager",
		"control-plane/scheduler", "kubelet-start", "wait-control-plane", "upload-config", "upload-certs",
		"mark-control-plane", "bootstrap-token", "kubelet-finalize", "addon/coredns", "addon/kube-proxy", "show-join-command",
	}
}

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
		{phases: []string{"certs", "kubeconfig", "etcd", "kubelet-start"}, wait: "http://127.0.0.1:2381/readyz"},
		{phases: []string{"control-plane/apiserver"}, wait: "https://" + endpoint() + "/readyz"},
		{phases: []string{"control-plane/controller-manager", "upload-config", "mark-control-plane"}},
		{phases: []string{"control-plane/scheduler", "addon/coredns"}},
	}
}

type step struct {
	phases []string
	wait   string // URL that must answer 200; may be empty
}

// apiPause is the time between two questions whether something answers: each
// is a handshake for a server that has enough to do.
const apiPause = 5 * time.Second

// begun counts the steps of Begin that are behind the node.
const begun = stateDir + "/begun"

// Begin makes a new cluster. Cut off anywhere, it goes on with the step that
// it was in: kubeadm takes what is there and writes the rest anew.
func (e *Engine) Begin(ctx context.Context) error {
	config, err := e.Config.Kubeadm(e.Node, false)
	if err != nil {
		return err
	}
	file := stateDir + "/kubeadm.yaml"
	if err := e.write(file, config); err != nil {
		return err
	}
	steps := e.beginning()
	if e.steps() == 0 {
		if err := e.recall(ctx); err != nil {
			return err
		}
	}
	for i := e.steps(); i < len(steps); i++ {
		step := steps[i]
		skipped := slices.DeleteFunc(allPhases(), func(p string) bool { return slices.Contains(step.phases, p) })
		if err := e.Run(ctx, "kubeadm", "init", "--config", filepath.Join(e.Root, file),
			"--skip-phases", strings.Join(skipped, ","), "--ignore-preflight-errors", "all"); err != nil {
			return err
		}
		if step.wait != "" {
			if err := e.Wait(ctx, step.wait); err != nil {
				return err
			}
		}
		if err := e.write(begun, []byte(strconv.Itoa(i+1))); err != nil {
			return err
		}
	}
	return e.finish(ctx)
}

// steps reads how many steps of Begin are done.
func (e *Engine) steps() int {
	text, err := os.ReadFile(filepath.Join(e.Root, begun))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// answers waits until a URL of the node answers. The kubelet starts what fails
// again, so there is nothing to give up.
func (e *Engine) answers(ctx context.Context, url string) error {
	conf, err := e.tlsConfig()
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

// Join makes the node a further control-plane node of the cluster.
func (e *Engine) Join(ctx context.Context) error {
	config, err := e.Config.Kubeadm(e.Node, true)
	if err != nil {
		return err
	}
	file := stateDir + "/kubeadm.yaml"
	if err := e.write(file, config); err != nil {
		return err
	}
	if err := e.forget(ctx); err != nil {
		return err
	}
	if err := e.Run(ctx, "kubeadm", "join", "--config", filepath.Join(e.Root, file), "--skip-phases", "preflight", "--ignore-preflight-errors", "all"); err != nil {
		return err
	}
	return e.finish(ctx)
}

func (e *Engine) finish(ctx context.Context) error {
	if err := e.systemctl(ctx, "enable", "--now", "kubelet.service", "kube-proxy.service"); err != nil {
		return err
	}
	info, err := e.clusterInfo()
	if err != nil {
		return err
	}
	if err := e.write(clusterInfo, info); err != nil {
		return err
	}
	if err := e.Run(ctx, "kubectl", "--kubeconfig", filepath.Join(e.Root, AdminConfig), "apply",
		"--server-side", "--force-conflicts", "--validate=false",
		"-f", filepath.Join(e.Root, Manifests), "-f", filepath.Join(e.Root, clusterInfo)); err != nil {
		return err
	}
	return e.write(done, nil)
}

// clusterInfo is an object without which "kubeadm join" asks for ten minutes and
// gives up, whatever it knows already. It belongs to the phase that makes
// bootstrap tokens. Nobody may read it who could not read what is in it anyway.
func (e *Engine) clusterInfo() ([]byte, error) {
	authority, err := os.ReadFile(filepath.Join(e.Root, AuthorityCertificate))
	if err != nil {
		return nil, err
	}
	config, err := documents(document{
		"apiVersion": "v1", "kind": "Config",
		"clusters": []document{{"name": "", "cluster": document{
			"server": "https://" + endpoint(), "certificate-authority-data": base64.StdEncoding.EncodeToString(authority),
		}}},
	})
	if err != nil {
		return nil, err
	}
	return documents(document{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": document{"name": "cluster-info", "namespace": "kube-public"},
		"data":     document{"kubeconfig": string(config)},
	})
}

func (e *Engine) systemctl(ctx context.Context, args ...string) error {
	return e.Run(ctx, "systemctl", append([]string{"--no-block"}, args...)...)
}

// runner runs programs and shows what they print.
type runner struct{ log io.Writer }

func (r runner) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var tail bytes.Buffer
	cmd.Stdout, cmd.Stderr = r.log, io.MultiWriter(r.log, &tail)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "KUBECONFIG=", "HOME=/root")
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(tail.String()), "\n")
		return fmt.Errorf("%s %s: %w: %s", name, args[0], err, lines[len(lines)-1])
	}
	return nil
}

// write replaces a file unless it holds the content already. It may hold a
// secret's name but no secret, yet nobody but root has to read it.
func (e *Engine) write(name string, data []byte) error {
	file := filepath.Join(e.Root, name)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".picube-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(fs.FileMode(0o600)), tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return os.Rename(tmp.Name(), file)
}
