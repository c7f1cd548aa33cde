package upstream

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/oci"
)

// Modules compiles Kubernetes from the Go module proxy.
type Modules struct {
	Compiler gomodule.Compiler
	Store    *oci.Store
	// Pause returns the host file of our pause program for an architecture:
	// upstream's is not Go.
	Pause func(ctx context.Context, arch string) (string, error)
}

// Find returns the release of a version ("v1.34.4") and the modules that make
// it, which are downloaded by that.
func (m Modules) Find(ctx context.Context, version string) (Release, []lock.Input, error) {
	all, err := m.Compiler.Versions(ctx, module)
	if err != nil {
		return Release{}, nil, err
	}
	exact, nearest := choose(all, version)
	if exact == "" {
		return Release{}, nil, &ErrVersion{Version: version, Nearest: nearest}
	}
	goVersion, err := m.Compiler.GoVersion(ctx)
	if err != nil {
		return Release{}, nil, err
	}
	r, err := m.release(ctx, exact)
	if err != nil {
		return Release{}, nil, err
	}
	var inputs []lock.Input
	for _, mod := range modules(r) {
		in, err := m.input(ctx, mod)
		if err != nil {
			return Release{}, nil, err
		}
		in.Source = FromModules + ", compiled with " + goVersion
		inputs = append(inputs, in)
	}
	return r, inputs, nil
}

func (m Modules) release(ctx context.Context, version string) (Release, error) {
	src, err := m.Compiler.Download(ctx, module, version)
	if err != nil {
		return Release{}, err
	}
	text, err := os.ReadFile(filepath.Join(src.Dir, filepath.FromSlash(constants)))
	if err != nil {
		return Release{}, err
	}
	return versions(text, version)
}

// input describes a module by the hash that go.sum has of it.
func (m Modules) input(ctx context.Context, mod gomodule.Module) (lock.Input, error) {
	src, err := m.Compiler.Download(ctx, mod.Path, mod.Version)
	if err != nil {
		return lock.Input{}, err
	}
	info, err := os.Stat(src.Zip)
	if err != nil {
		return lock.Input{}, err
	}
	sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(src.Sum, "h1:"))
	if err != nil {
		return lock.Input{}, fmt.Errorf("module %s: cannot read the checksum %q", mod.Path, src.Sum)
	}
	name := Source
	if mod.Path != module {
		name = inputPrefix + path.Base(strings.TrimSuffix(strings.TrimSuffix(mod.Path, "/v3"), "/server"))
	}
	return lock.Input{
		Name: name, Version: mod.Version, Path: path.Join(mod.Path, "@v", mod.Version+".zip"),
		Size: info.Size(), SHA256: hex.EncodeToString(sum),
	}, nil
}

// Get returns everything for an architecture, made of the locked modules. The
// images that it makes are of 1970, as are upstream's: with a time of their
// own, every new lock would make the same images anew.
func (m Modules) Get(ctx context.Context, locked []lock.Input, arch string) (*Set, error) {
	source := find(locked, Source)
	r, err := m.release(ctx, source.Version)
	if err != nil {
		return nil, err
	}
	for _, mod := range modules(r) {
		in, err := m.input(ctx, mod)
		if err != nil {
			return nil, err
		}
		want := find(locked, in.Name)
		// Locks from before there were backups don't know it. Its version is etcd's.
		if want.Name == "" && in.Name == etcdutl {
			continue
		}
		if want.SHA256 != in.SHA256 {
			return nil, fmt.Errorf("module %s %s: its checksum is %s, the lock has %q", mod.Path, mod.Version, in.SHA256, want.SHA256)
		}
	}
	set := &Set{Release: r, Programs: map[string]string{}}
	programs := map[string]string{} // all, by name
	for _, module := range modules(r) {
		res, err := m.Compiler.Build(ctx, module, arch)
		if err != nil {
			return nil, err
		}
		for name, file := range res.Programs {
			programs[name] = file
		}
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
			files := map[string]string{at: programs[name]}
			if name == "etcd" {
				files["/usr/local/bin/etcdutl"] = programs["etcdutl"]
			}
			img, err := m.Store.Make(oci.Program{
				Image: r.image(name), Files: files,
				Entrypoint: []string{at}, Arch: arch,
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

// etcdutl is the input of the program that restores a backup of etcd.
const etcdutl = inputPrefix + "etcdutl"

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
			// A module of its own, so that nothing else is compiled anew for it.
			Path: "go.etcd.io/etcd/etcdutl/v3", Version: etcdVersion(r.Etcd),
			Programs: map[string]string{"etcdutl": "go.etcd.io/etcd/etcdutl/v3"},
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
	const pkg = "k8s.io/component-base/version"
	return fmt.Sprintf("-X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s", pkg, version, pkg, major, pkg, minor)
}
