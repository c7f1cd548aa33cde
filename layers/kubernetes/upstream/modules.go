package upstream

import (
	"context"
	"fmt"
	"strings"

	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/oci"
)

// Modules compiles Kubernetes from the Go module proxy.
type Modules struct {
	Compiler gomodule.Compiler
	Store    *oci.Store
	// Pause returns the host file of our pause program for an architecture:
	// upstream's is not Go.
	Pause func(ctx context.Context, arch string) (string, error)
	// Progress begins the report on one module, in packages; may be nil.
	Progress func(module string) (advance func(done, total int), end func())
}

// Get returns everything for an architecture. Epoch is the time that made
// images carry.
func (m Modules) Get(ctx context.Context, r Release, arch string, epoch int64) (*Set, error) {
	set := &Set{Release: r, Programs: map[string]string{}}
	programs := map[string]string{} // all, by name
	for _, module := range modules(r) {
		compiler, end := m.Compiler, func() {}
		if m.Progress != nil {
			compiler.Progress, end = m.Progress(module.Path)
		}
		res, err := compiler.Build(ctx, module, arch)
		end()
		if err != nil {
			return nil, err
		}
		for name, file := range res.Programs {
			programs[name] = file
		}
		set.Inputs = append(set.Inputs, Input{Name: module.Path, Version: module.Version, Digest: res.Sum, From: "modules"})
	}
	pause, err := m.Pause(ctx, arch)
	if err != nil {
		return nil, err
	}
	programs["pause"] = pause
	for _, name := range nodePrograms() {
		set.Programs[name] = programs[name]
	}
	makeAll := func(names []string) ([]containerd.Image, error) {
		var images []containerd.Image
		for _, name := range names {
			at := "/usr/local/bin/" + name
			if name == "pause" || name == "coredns" {
				at = "/" + name // where upstream's images have it
			}
			img, err := m.Store.Make(oci.Program{
				Image: r.image(name), Files: map[string]string{at: programs[name]},
				Entrypoint: []string{at}, Arch: arch, Epoch: epoch,
			})
			if err != nil {
				return nil, err
			}
			img.Pinned = name == "pause"
			images = append(images, img)
		}
		return images, nil
	}
	if set.ControlPlane, err = makeAll(controlPlaneImages()); err != nil {
		return nil, err
	}
	if set.Node, err = makeAll(nodeImages()); err != nil {
		return nil, err
	}
	return set, nil
}

// modules are the modules that make a release.
func modules(r Release) []gomodule.Module {
	names := append(nodePrograms(), "kube-apiserver", "kube-controller-manager", "kube-scheduler")
	kubernetes := gomodule.Module{
		Path: module, Version: r.Version,
		// The parts under staging are published as v0.x.y of v1.x.y.
		Staging:  "v0." + strings.TrimPrefix(r.Version, "v1."),
		Programs: map[string]string{},
		LDFlags:  versionFlags(r.Version),
	}
	for _, name := range names {
		kubernetes.Programs[name] = module + "/cmd/" + name
	}
	return []gomodule.Module{
		kubernetes,
		{
			Path: "go.etcd.io/etcd/server/v3", Version: etcdVersion(r.Etcd),
			Programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"},
		},
		{
			Path: "github.com/coredns/coredns", Version: r.CoreDNS,
			Programs: map[string]string{"coredns": "github.com/coredns/coredns"},
		},
	}
}

// etcdVersion is the module version of an image tag: "3.6.5-0" is the first
// packaging of v3.6.5.
func etcdVersion(tag string) string {
	version, _, _ := strings.Cut(tag, "-")
	return "v" + version
}

// versionFlags tell the programs their version, as upstream's build does:
// kubeadm compares it, and the API server shows it.
func versionFlags(version string) string {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			fmt.Sprintf("-X %s.gitVersion=%s", pkg, version),
			fmt.Sprintf("-X %s.gitMajor=%s", pkg, major),
			fmt.Sprintf("-X %s.gitMinor=%s", pkg, minor),
			fmt.Sprintf("-X %s.gitTreeState=clean", pkg),
		)
	}
	return strings.Join(flags, " ")
}
