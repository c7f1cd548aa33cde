package upstream

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/gomodule/proxytest"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/oci"
)

// published are modules in the places of the real ones, with programs that
// say their version and no more.
func published() []proxytest.Module {
	const program = "package main\n\nimport \"k8s.io/component-base/version\"\n\nfunc main() { println(version.Get()) }\n"
	kubernetes := proxytest.Module{Path: module, Version: "v1.34.4", Files: map[string]string{
		"go.mod": "module " + module + "\n\ngo 1.24\n\nrequire k8s.io/component-base v0.0.0\n\n" +
			"replace k8s.io/component-base => ./staging/src/k8s.io/component-base\n",
		constants: constantsText,
	}}
	for _, name := range append(nodePrograms(), "kube-apiserver", "kube-controller-manager", "kube-scheduler") {
		kubernetes.Files["cmd/"+name+"/main.go"] = program
	}
	return []proxytest.Module{
		kubernetes,
		{Path: module, Version: "v1.33.7"},
		{Path: module, Version: "v1.35.0-rc.1"},
		{Path: "k8s.io/component-base", Version: "v0.34.4", Files: map[string]string{
			"version/version.go": "package version\n\nvar gitVersion, gitMajor, gitMinor = \"v0\", \"\", \"\"\n\nfunc Get() string { return gitVersion + gitMajor + gitMinor }\n",
		}},
		{Path: "go.etcd.io/etcd/server/v3", Version: "v3.6.5", Files: map[string]string{"main.go": "package main\n\nfunc main() {}\n"}},
		{Path: "go.etcd.io/etcd/etcdutl/v3", Version: "v3.6.5", Files: map[string]string{"main.go": "package main\n\nfunc main() {}\n"}},
		{Path: "github.com/coredns/coredns", Version: "v1.12.1", Files: map[string]string{"coredns.go": "package main\n\nfunc main() {}\n"}},
	}
}

func testModules(t *testing.T, proxy *proxytest.Proxy) Modules {
	t.Helper()
	pause := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(pause, []byte("pause"), 0o700); err != nil {
		t.Fatal(err)
	}
	store := oci.NewStore(t.TempDir())
	t.Cleanup(func() { store.Close() })
	return Modules{
		Compiler: gomodule.Compiler{Env: proxy.Env(t, os.Environ()), Cache: t.TempDir()}, Store: store,
		Pause: func(context.Context, string) (string, error) { return pause, nil },
	}
}

// A proxy that breaks off half-way through a build ends it; the next build
// goes on where that one stopped, and later ones need no proxy.
func TestModules(t *testing.T) {
	proxy := proxytest.New(t, published()...)
	sources := Sources{Modules: testModules(t, proxy), Say: t.Logf}
	w := Wish{Version: "v1.34.4", From: FromModules}
	locked, err := sources.Lock(t.Context(), w, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range locked {
		got = append(got, in.Name+" "+in.Version)
	}
	if want := "[kubernetes/source v1.34.4 kubernetes/etcd v3.6.5 kubernetes/etcdutl v3.6.5 kubernetes/coredns v1.12.1]"; fmt.Sprint(got) != want || !w.Fits(locked) {
		t.Errorf("locked %v, want %s", got, want)
	}

	const part = "/k8s.io/component-base/@v/v0.34.4.zip"
	proxy.Fail(func(path string) bool { return path == part })
	_, err = sources.Get(t.Context(), w, locked, "arm64")
	if err == nil || !strings.Contains(err.Error(), "component-base@v0.34.4") {
		t.Errorf("error %v", err)
	}
	proxy.Fail(nil)
	set, err := sources.Get(t.Context(), w, locked, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if n := proxy.Asked("/k8s.io/kubernetes/@v/v1.34.4.zip"); n != 1 {
		t.Errorf("what had arrived was downloaded %d times", n)
	}
	for _, name := range nodePrograms() {
		f, err := elf.Open(set.Programs[name])
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != elf.EM_AARCH64 {
			t.Errorf("%s: machine %v", name, f.Machine)
		}
		f.Close()
	}
	// What the linker was told is in the program.
	if text, err := os.ReadFile(set.Programs["kubelet"]); err != nil || !strings.Contains(string(text), "v1.34.4") {
		t.Errorf("the kubelet does not know its version: %v", err)
	}
	var images []string
	for _, img := range append(set.ControlPlane, set.Node...) {
		images = append(images, img.Name)
	}
	if len(images) != 6 || images[3] != "registry.k8s.io/etcd:3.6.5-0" || images[4] != "registry.k8s.io/coredns/coredns:v1.12.1" {
		t.Errorf("images %q", images)
	}

	proxy.Fail(func(string) bool { return true })
	again, err := sources.Get(t.Context(), w, locked, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	for i, img := range again.ControlPlane {
		if img.Manifest.Digest != set.ControlPlane[i].Manifest.Digest {
			t.Errorf("%s: another image", img.Name)
		}
	}

	// A lock from before etcdutl belonged to it holds.
	old := slices.DeleteFunc(slices.Clone(locked), func(in lock.Input) bool { return in.Name == etcdutl })
	if _, err := sources.Get(t.Context(), w, old, "arm64"); err != nil || len(old) != 3 {
		t.Errorf("a lock of %d inputs: %v", len(old), err)
	}

	// A module that is not what was locked never gets onto a card.
	locked[1].SHA256 = strings.Repeat("0", 64)
	if _, err := sources.Get(t.Context(), w, locked, "arm64"); err == nil || !strings.Contains(err.Error(), "module go.etcd.io/etcd/server/v3 v3.6.5: its checksum is ") {
		t.Errorf("error %v", err)
	}
}

func TestUnknownModuleVersion(t *testing.T) {
	proxy := proxytest.New(t, published()...)
	sources := Sources{Modules: testModules(t, proxy), Say: t.Logf}
	for version, nearest := range map[string]string{"v1.34.9": "v1.34.4", "v1.35.0": "v1.33.7 v1.34.4"} {
		_, err := sources.Lock(t.Context(), Wish{Version: version, From: FromModules}, "arm64")
		var unknown *ErrVersion
		if !errors.As(err, &unknown) || strings.Join(unknown.Nearest, " ") != nearest {
			t.Errorf("%s: error %v, want one that names %s", version, err, nearest)
		}
	}

	// A release server that answers knows the versions, even where there is no
	// proxy to ask.
	proxy.Fail(func(string) bool { return true })
	u := newUpstream(t)
	sources.Download = func(string) Download { return u.download(t) }
	_, err := sources.Lock(t.Context(), Wish{Version: "v1.34.99", From: FromAuto}, "arm64")
	if err == nil || err.Error() != "Kubernetes v1.34.99: cannot find this version; the nearest ones are v1.34.4, v1.35.0" {
		t.Errorf("error %v", err)
	}
}
