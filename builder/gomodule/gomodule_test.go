package gomodule

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/gomodule/proxytest"
)

// Two modules as Kubernetes' are: one has parts that its go.mod replaces by
// folders, and which are published as modules of their own.
func whole() []proxytest.Module {
	const main = "package main\n\nimport \"example.org/part\"\n\nfunc main() { println(part.Text) }\n"
	return []proxytest.Module{
		{Path: "example.org/part", Version: "v0.4.0", Files: map[string]string{"part.go": "package part\n\nvar Text = \"nobody\"\n"}},
		{Path: "example.org/whole", Version: "v1.4.0", Files: map[string]string{
			"go.mod":         "module example.org/whole\n\ngo 1.24\n\nrequire example.org/part v0.0.0\n\nreplace example.org/part => ./staging/part\n",
			"cmd/one/one.go": main, "cmd/two/two.go": main,
		}},
	}
}

func module(programs ...string) Module {
	m := Module{
		Path: "example.org/whole", Version: "v1.4.0", Staging: "v0.4.0", Programs: map[string]string{},
		LDFlags: "-X example.org/part.Text=somebody",
	}
	for _, name := range programs {
		m.Programs[name] = "example.org/whole/cmd/" + name
	}
	return m
}

func TestBuild(t *testing.T) {
	c := Compiler{Env: proxytest.New(t, whole()...).Env(t, os.Environ()), Cache: t.TempDir()}
	type phase struct{ total, done int64 }
	phases := map[string]*phase{}
	c.Phase = func(name string, total int64) (func(int64), func()) {
		p := &phase{total: total}
		phases[name] = p
		return func(n int64) { p.done += n }, func() {}
	}
	r, err := c.Build(t.Context(), module("one", "two"), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range r.Programs {
		f, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != elf.EM_AARCH64 {
			t.Errorf("%s: machine %v", name, f.Machine)
		}
		f.Close()
	}
	if !strings.HasPrefix(r.Sum, "h1:") || !strings.HasPrefix(r.Go, "go1.") || len(r.Programs) != 2 {
		t.Errorf("result %+v", r)
	}
	// The go command may know the packages from an earlier test.
	if p := phases["compile example.org/whole"]; p == nil || p.done < 2*linking || p.done > p.total {
		t.Errorf("compiling: %+v", p)
	}
	if p := phases["get example.org/whole"]; p == nil || p.done != 1 { // the other one was there already
		t.Errorf("downloading: %+v", p)
	}
	clear(phases)
	if _, err := c.Build(t.Context(), module("one", "two"), "arm64"); err != nil || len(phases) > 0 {
		t.Errorf("what is compiled was compiled again: %v, %v", err, phases)
	}
	c.Cache = t.TempDir()
	again, err := c.Build(t.Context(), module("one", "two"), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	for name := range r.Programs {
		if a, b := read(t, r.Programs[name]), read(t, again.Programs[name]); a != b {
			t.Errorf("%s comes out another", name)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The flags reach the program, and so do the published parts.
func TestFlags(t *testing.T) {
	c := Compiler{Env: proxytest.New(t, whole()...).Env(t, os.Environ()), Cache: t.TempDir()}
	r, err := c.Build(t.Context(), module("one"), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(read(t, r.Programs["one"]), "somebody") {
		t.Error("the program does not know what it was told")
	}
}

func TestMissingProgram(t *testing.T) {
	c := Compiler{Env: proxytest.New(t, whole()...).Env(t, os.Environ()), Cache: t.TempDir()}
	_, err := c.Build(t.Context(), module("one", "three"), "arm64")
	if err == nil || !strings.Contains(err.Error(), "cmd/three") {
		t.Errorf("error %v", err)
	}
	if entries, err := os.ReadDir(c.Cache); err != nil || len(entries) > 0 {
		t.Errorf("what failed left %v, %v", entries, err)
	}
}

// A proxy that breaks off half-way costs nothing but what was under way.
func TestResume(t *testing.T) {
	proxy := proxytest.New(t, whole()...)
	c := Compiler{Env: proxy.Env(t, os.Environ()), Cache: t.TempDir()}
	proxy.Fail(func(path string) bool {
		return strings.HasPrefix(path, "/example.org/part/") && filepath.Ext(path) == ".zip"
	})
	_, err := c.Build(t.Context(), module("one"), "arm64")
	if err == nil || !strings.HasPrefix(err.Error(), "module example.org/whole v1.4.0: cannot get what it needs: ") ||
		!strings.Contains(err.Error(), "example.org/part@v0.4.0") {
		t.Errorf("error %v", err)
	}
	if entries, err := os.ReadDir(c.Cache); err != nil || len(entries) > 0 {
		t.Errorf("what failed left %v, %v", entries, err)
	}
	proxy.Fail(nil)
	if _, err := c.Build(t.Context(), module("one"), "arm64"); err != nil {
		t.Error(err)
	}
	if n := proxy.Asked("/example.org/whole/@v/v1.4.0.zip"); n != 1 {
		t.Errorf("what had arrived was downloaded %d times", n)
	}
	// What is there needs no proxy.
	proxy.Fail(func(string) bool { return true })
	c.Offline = true
	if _, err := c.Build(t.Context(), module("one", "two"), "arm64"); err != nil {
		t.Error(err)
	}
}

func TestVersions(t *testing.T) {
	proxy := proxytest.New(t, append(whole(), proxytest.Module{Path: "example.org/whole", Version: "v1.3.9"})...)
	c := Compiler{Env: proxy.Env(t, os.Environ()), Cache: t.TempDir()}
	if got, err := c.Versions(t.Context(), "example.org/whole"); err != nil || fmt.Sprint(got) != "[v1.3.9 v1.4.0]" {
		t.Errorf("versions %v, %v", got, err)
	}
	_, err := c.Download(t.Context(), "example.org/whole", "v1.9.0")
	if err == nil || !strings.HasPrefix(err.Error(), "module example.org/whole: cannot get version v1.9.0: ") {
		t.Errorf("error %v", err)
	}
}
