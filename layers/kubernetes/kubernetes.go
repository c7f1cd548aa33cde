// Package kubernetes puts Kubernetes on the cards: the programs and images of
// one release (see upstream), the units and settings they run with, and each
// node's own certificates. kubeadmd is what the node does with them.
package kubernetes

import (
	"context"
	"crypto/x509"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/oci"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/kubernetes/upstream"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed files
var files embed.FS

// Upstream gets Kubernetes.
type Upstream interface {
	// Lock finds out what a version is made of.
	Lock(ctx context.Context, w upstream.Wish, arch string) ([]lock.Input, error)
	// Get returns what was locked.
	Get(ctx context.Context, w upstream.Wish, locked []lock.Input, arch string) (*upstream.Set, error)
}

// Images gets the blueprint's own images from their registries.
type Images interface {
	Find(ctx context.Context, image, arch string) (digest string, size int64, err error)
	Pull(ctx context.Context, image, digest, arch string) (containerd.Image, error)
}

// Layer is Kubernetes by kubeadm.
type Layer struct {
	Upstream Upstream
	Images   Images
	// Identity returns a cluster's authorities.
	Identity func(cluster string) (*secrets.Cluster, error)
	// Introductions returns those of a cluster (package introduction), by cube.
	Introductions func(cluster string) (map[string][]byte, error)
	// ReadFile reads a file that the blueprint names.
	ReadFile func(name string) ([]byte, error)
	// Temp is a folder for files that exist only while a root is made.
	Temp string

	found  map[released][]lock.Input
	locked []lock.Input
	sets   map[string]*set // by root
	open   []*os.File
}

// released is what roots may have in common; it is looked for once.
type released struct {
	upstream.Wish
	arch string
}

// set is what a root holds.
type set struct {
	*upstream.Set
	own []containerd.Image // the blueprint's
}

// Name returns "kubernetes".
func (*Layer) Name() string { return "kubernetes" }

// Packages returns what the kubelet and kube-proxy call.
func (*Layer) Packages(r *plan.Root) []string {
	if r.Cube.Kubernetes == nil {
		return nil
	}
	return []string{
		"conntrack", "containerd", "containernetworking-plugins", "ethtool", "iptables", "kmod", "runc", "socat", "util-linux",
	}
}

func wish(k *blueprint.Kubernetes) upstream.Wish {
	return upstream.Wish{Version: "v" + k.Version, From: k.Source, Mirror: strings.TrimSuffix(k.Mirror, "/")}
}

// imagePrefix begins the names of the blueprint's images in the lock.
const imagePrefix = "image/"

func imageInput(image, arch string) (lock.Input, error) {
	full, err := oci.FullName(image)
	return lock.Input{Name: imagePrefix + arch + "/" + full, Version: full[strings.LastIndexAny(full, ":")+1:]}, err
}

// Lock finds out what a root's Kubernetes and images are made of.
func (l *Layer) Lock(ctx context.Context, r *plan.Root) ([]lock.Input, error) {
	k := r.Cube.Kubernetes
	if k == nil {
		return nil, nil
	}
	inputs, err := l.find(ctx, released{wish(k), r.Arch})
	var unknown *upstream.ErrVersion
	if errors.As(err, &unknown) {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Unknown version", Detail: unknown.Error() + ".", Subject: k.Range.Ptr()}}
	}
	if err != nil {
		return nil, err
	}
	for _, image := range k.Images {
		in, err := imageInput(image, r.Arch)
		if err != nil {
			return nil, err
		}
		digest, size, err := l.Images.Find(ctx, image, r.Arch)
		if err != nil {
			return nil, err
		}
		in.Source, in.Size, in.SHA256 = "registry", size, digest
		inputs = append(inputs, in)
	}
	return inputs, nil
}

func (l *Layer) find(ctx context.Context, r released) ([]lock.Input, error) {
	if inputs, ok := l.found[r]; ok {
		return slices.Clone(inputs), nil
	}
	inputs, err := l.Upstream.Lock(ctx, r.Wish, r.arch)
	if err != nil {
		return nil, err
	}
	if l.found == nil {
		l.found = map[released][]lock.Input{}
	}
	l.found[r] = inputs
	return slices.Clone(inputs), nil
}

// Locked takes a lock's inputs and returns those that a root needs; of one
// that is not there it can tell only name and version.
func (l *Layer) Locked(r *plan.Root, inputs []lock.Input) ([]lock.Input, error) {
	l.locked = inputs
	k := r.Cube.Kubernetes
	if k == nil {
		return nil, nil
	}
	var wanted []lock.Input
	if w := wish(k); w.Fits(inputs) {
		for _, in := range inputs {
			if upstream.IsInput(in) {
				wanted = append(wanted, in)
			}
		}
	} else {
		wanted = append(wanted, w.Missing())
	}
	for _, image := range k.Images {
		in, err := imageInput(image, r.Arch)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, in)
	}
	return wanted, nil
}

// Prepare gets what a root holds.
func (l *Layer) Prepare(ctx context.Context, r *plan.Root) error {
	k := r.Cube.Kubernetes
	if k == nil {
		return nil
	}
	got, err := l.Upstream.Get(ctx, wish(k), l.locked, r.Arch)
	if err != nil {
		return err
	}
	s := &set{Set: got}
	for _, image := range k.Images {
		in, err := imageInput(image, r.Arch)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(l.locked, func(o lock.Input) bool { return o.Name == in.Name })
		if i < 0 {
			return fmt.Errorf("image %s: cannot find it in the lock", image)
		}
		img, err := l.Images.Pull(ctx, image, l.locked[i].SHA256, r.Arch)
		if err != nil {
			return err
		}
		s.own = append(s.own, img)
	}
	if l.sets == nil {
		l.sets = map[string]*set{}
	}
	l.sets[r.Name] = s
	return nil
}

// Close closes the programs that roots read from.
func (l *Layer) Close() error {
	var errs []error
	for _, f := range l.open {
		errs = append(errs, f.Close())
	}
	l.open = nil
	return errors.Join(errs...)
}

// Apply puts everything on a root that its nodes share. No secret is among it.
func (l *Layer) Apply(r *plan.Root, t *tree.Tree) error {
	if r.Cube.Kubernetes == nil {
		return nil
	}
	set := l.sets[r.Name]
	for _, name := range []string{"kubeadm", "kubelet", "kubectl", "kube-proxy"} {
		if err := l.program(t, "/usr/bin/"+name, set.Programs[name]); err != nil {
			return err
		}
	}
	images := slices.Concat(set.Node, set.own)
	if r.Role == plan.RoleControlPlane {
		images = append(images, set.ControlPlane...)
	}
	if err := containerd.Put(t, images, l.Temp); err != nil {
		return err
	}
	return errors.Join(l.settings(t, set), manifests(t))
}

func (l *Layer) program(t *tree.Tree, at, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	l.open = append(l.open, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return t.WriteContent(at, io.NewSectionReader(f, 0, info.Size()), 0o755)
}

func (l *Layer) settings(t *tree.Tree, set *set) error {
	var errs []error
	read := func(name string) []byte {
		data, err := files.ReadFile("files/" + name)
		errs = append(errs, err)
		return data
	}
	put := func(at string, data []byte) {
		errs = append(errs, t.MkdirAll(path.Dir(at), 0o755), t.WriteFile(at, data, 0o644))
	}
	put("/etc/containerd/config.toml", fmt.Appendf(nil, string(read("containerd.toml")), set.Release.PauseImage()))
	put("/etc/systemd/system/containerd.service.d/picube.conf", read("containerd.conf"))
	put("/etc/modules-load.d/picube-kubernetes.conf", read("modules.conf"))
	put("/etc/sysctl.d/90-picube-kubernetes.conf", read("sysctl.conf"))
	// Debian's plugins are not where everybody else's are.
	errs = append(errs,
		t.MkdirAll("/opt/cni", 0o755), t.Symlink("/usr/lib/cni", "/opt/cni/bin"),
		t.MkdirAll("/etc/cni/net.d", 0o755), t.MkdirAll("/etc/kubernetes/manifests", 0o755),
		unit.Install(t, "kubelet.service", read("kubelet.service")),
		unit.Install(t, "kube-proxy.service", read("kube-proxy.service")),
		unit.Enable(t, "containerd.service"),
	)
	return errors.Join(errs...)
}

// manifests are the objects that every cluster gets when it begins.
func manifests(t *tree.Tree) error {
	names, err := files.ReadDir("files/manifests")
	if err != nil {
		return err
	}
	if err := t.MkdirAll(kubeadmd.Manifests, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		data, err := files.ReadFile("files/manifests/" + name.Name())
		if err != nil {
			return err
		}
		if err := t.WriteFile(path.Join(kubeadmd.Manifests, name.Name()), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manifests adds the blueprint's own objects. They lie on the control plane's
// cards and not on the root that they share: another manifest, another card,
// but not another root.
func (l *Layer) manifests(k *blueprint.Kubernetes, files map[string][]byte) error {
	for i, name := range k.Manifests {
		text, err := l.ReadFile(name)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", name, err)
		}
		files[fmt.Sprintf("%s/blueprint-%02d-%s", kubeadmd.Manifests, i+1, path.Base(filepath.ToSlash(name)))] = text
	}
	return nil
}

// Names of the authorities as kubeadm gives them.
const (
	clusterAuthority = "kubernetes"
	etcdAuthority    = "etcd-ca"
	proxyAuthority   = "front-proxy-ca"
)

// Node writes a node's part of node.yaml, and its certificates as files that
// its first boot takes from the boot partition.
func (l *Layer) Node(p *plan.Plan, n *plan.Node, conf *nodeconf.Node, boot *tree.Tree) error {
	set := l.sets[n.Root]
	if set == nil {
		return nil // a root without Kubernetes
	}
	root := p.Roots[slices.IndexFunc(p.Roots, func(r *plan.Root) bool { return r.Name == n.Root })]
	k := root.Cube.Kubernetes
	section := kubeadmd.Config{
		Version: set.Release.Version, PauseImage: set.Release.PauseImage(),
		PodSubnet: k.PodSubnet.String(), ServiceSubnet: k.ServiceSubnet.String(),
		Labels: n.Spec.Labels, Taints: n.Spec.Taints, KubeletArgs: k.KubeletArgs, APIServerArgs: k.APIServerArgs,
		Backups: kubeadmd.Backups{Every: k.Backups.Every, Keep: k.Backups.Keep},
	}
	if n.Role == plan.RoleControlPlane {
		section.EtcdImage = set.Release.EtcdImage()
	}
	section.ControlPlane = members(p.ControlPlane(n.Cluster, n.Home))
	if n.Home != "" {
		section.Home, section.Merge = n.Home, kubeadmd.Merge{Mode: k.Merge.Mode, Lead: k.Merge.Lead}
		for _, c := range p.Beginners(n.Cluster) {
			section.Cubes = append(section.Cubes, kubeadmd.Cube{Name: c.Spec.Name, ControlPlane: members(p.ControlPlane(n.Cluster, c.Spec.Name))})
		}
	}
	if err := conf.SetLayer(kubeadmd.Section, section); err != nil {
		return err
	}
	id, err := l.Identity(n.Cluster)
	if err != nil {
		return err
	}
	if err := l.introductions(id, n, boot); err != nil {
		return err
	}
	secret, err := nodeSecrets(id, n)
	if err != nil {
		return err
	}
	if n.Role == plan.RoleControlPlane {
		if err := l.manifests(k, secret); err != nil {
			return err
		}
	}
	for at, data := range secret {
		file := "/" + path.Join(nodeconf.IdentityDir, at)
		if err := errors.Join(boot.MkdirAll(path.Dir(file), 0o755), boot.WriteFile(file, data, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// introductions puts those onto a card that were made for its identity.
func (l *Layer) introductions(id *secrets.Cluster, n *plan.Node, boot *tree.Tree) error {
	all, err := l.Introductions(n.Cluster)
	if err != nil || len(all) == 0 {
		return err
	}
	ca, err := id.Authority("kubernetes", clusterAuthority)
	if err != nil {
		return err
	}
	authority, err := x509.ParseCertificate(decodePEM(ca.Certificate()))
	if err != nil {
		return err
	}
	for cube, data := range all {
		if _, err := introduction.Open(data, authority); err != nil {
			return fmt.Errorf("introduction to %q: %w", cube, err)
		}
		file := "/" + introduction.PathOf(cube)
		if err := errors.Join(boot.MkdirAll(path.Dir(file), 0o755), boot.WriteFile(file, data, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

func members(nodes []*plan.Node) []kubeadmd.Member {
	var list []kubeadmd.Member
	for _, n := range nodes {
		list = append(list, kubeadmd.Member{Name: n.Name, Address: n.Address.Addr().String()})
	}
	return list
}

// nodeSecrets are the files that make a node a member. A worker gets the
// cluster's public certificate and its own, which is good for nothing but
// being this node; only control-plane nodes can issue others.
func nodeSecrets(id *secrets.Cluster, n *plan.Node) (map[string][]byte, error) {
	ca, err := id.Authority("kubernetes", clusterAuthority)
	if err != nil {
		return nil, err
	}
	node, err := ca.Issue(nodeRequest(n.Name))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{
		kubeadmd.AuthorityCertificate: ca.Certificate(),
		kubeadmd.NodeCertificate:      node.Certificate,
		kubeadmd.NodeKey:              node.Key,
	}
	if n.Role != plan.RoleControlPlane {
		return out, nil
	}
	admin, err := ca.Issue(adminRequest("picube:" + n.Name))
	if err != nil {
		return nil, err
	}
	out[kubeadmd.AdminCertificate], out[kubeadmd.AdminKey] = admin.Certificate, admin.Key
	etcd, err := id.Authority("etcd", etcdAuthority)
	if err != nil {
		return nil, err
	}
	client, err := etcd.Issue(secrets.Request{Purpose: "client/" + n.Name, CommonName: "picube:" + n.Name, Client: true})
	if err != nil {
		return nil, err
	}
	out[kubeadmd.EtcdCertificate], out[kubeadmd.EtcdKey] = client.Certificate, client.Key
	account := id.ECDSA("service-accounts")
	const pki = "/etc/kubernetes/pki/"
	if out[pki+"sa.key"], err = secrets.KeyPEM(account); err != nil {
		return nil, err
	}
	if out[pki+"sa.pub"], err = secrets.PublicPEM(account); err != nil {
		return nil, err
	}
	for at, name := range map[string][2]string{
		"ca": {"kubernetes", clusterAuthority}, "etcd/ca": {"etcd", etcdAuthority}, "front-proxy-ca": {"front-proxy", proxyAuthority},
	} {
		a, err := id.Authority(name[0], name[1])
		if err != nil {
			return nil, err
		}
		if out[pki+at+".key"], err = a.Key(); err != nil {
			return nil, err
		}
		out[pki+at+".crt"] = a.Certificate()
	}
	return out, nil
}

// nodeRequest is for the certificate by which a node is known in its cluster.
func nodeRequest(name string) secrets.Request {
	return secrets.Request{
		Purpose: "node/" + name, CommonName: "system:node:" + name, Organization: []string{"system:nodes"}, Client: true,
	}
}

// adminRequest is for that of somebody who may do everything, from the first
// minute on, before the cluster knows any role.
func adminRequest(name string) secrets.Request {
	return secrets.Request{Purpose: "admin/" + name, CommonName: name, Organization: []string{"system:masters"}, Client: true}
}
