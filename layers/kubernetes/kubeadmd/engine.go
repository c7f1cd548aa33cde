package kubeadmd

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
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
	// Signal and DropBridge act on the node's processes and its pods' network.
	Signal     func(pid int, s syscall.Signal) error
	DropBridge func() error
	Runtime    Runtime

	answer atomic.Pointer[Answerer]
	at     string // the cube that began the cluster that the node works for; empty: there is one
	news   atomic.Pointer[func(string)]

	// What the node was told by introductions, and the authority of the identity
	// that takes the place of its own, if one does.
	foreign []introduction.Cube
	host    *x509.Certificate
	kept    [][]byte
	taking  sync.Mutex
}

// Answerer answers another cluster's question.
type Answerer func(ctx context.Context, q merge.Request) (merge.Reply, error)

// SetAnswer says who does; nil: there is no control plane here that could.
func (e *Engine) SetAnswer(a Answerer) { e.answer.Store(&a) }

// SetNews says who is told of an introduction that another node brought.
func (e *Engine) SetNews(tell func(said string)) { e.news.Store(&tell) }

// New reads the engine's part of node.yaml; ok says whether it has one.
func New(n *nodeconf.Node, log io.Writer) (e *Engine, ok bool, err error) {
	e = &Engine{Node: n, Root: "/", Run: runner{log}.run, Now: time.Now, Say: func(string) {}}
	e.Wait = e.answers
	ok, err = n.Layer(Section, &e.Config)
	if ok && err == nil && len(e.Config.ControlPlane) == 0 {
		err = errors.New("node.yaml: kubernetes: controlPlane: names no node")
	}
	if ok && err == nil {
		// TakeIntroduction tells of one that is damaged.
		_ = e.introduce()
		err = e.choose()
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

// IsMember reports whether the node has become a member before, of the kind that
// it is to be.
func (e *Engine) IsMember() bool { return e.exists(e.done()) }

func (e *Engine) done() string {
	if e.IsSeated() {
		return seatDone
	}
	return done
}

// Prepare writes what the node's programs run with, whatever comes next. It
// may run at every start.
func (e *Engine) Prepare(ctx context.Context) error {
	return errors.Join(e.settings(), e.nameServer(ctx))
}

func (e *Engine) settings() error {
	server, id := "https://"+endpoint(), e.present()
	node, err := KubeConfig(server, "system:node:"+e.Node.Hostname, id.authority, id.node, NodeKey)
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
	if e.IsControlPlane() || e.host != nil && e.IsHomeControlPlane() {
		admin, err := KubeConfig(server, "admin", id.authority, id.admin, AdminKey)
		errs = append(errs, err, e.write(AdminConfig, admin))
	}
	if e.IsControlPlane() {
		for name, text := range Patches() {
			errs = append(errs, e.write(path.Join(patchDir, name), []byte(text)))
		}
	}
	return errors.Join(errs...)
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
	kubelet, err := e.Config.kubelet(e.present().authority)
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

// furnish gives a new cluster its first objects.
func (e *Engine) furnish(ctx context.Context) error {
	info, err := e.clusterInfo()
	if err != nil {
		return err
	}
	if err := e.write(clusterInfo, info); err != nil {
		return err
	}
	return e.Run(ctx, "kubectl", "--kubeconfig", filepath.Join(e.Root, AdminConfig), "apply",
		"--server-side", "--force-conflicts", "--validate=false",
		"-f", filepath.Join(e.Root, Manifests), "-f", filepath.Join(e.Root, clusterInfo))
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
