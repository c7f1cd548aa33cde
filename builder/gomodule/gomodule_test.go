package gomodule

import (
	"debug/elf"
	"os"
	"strings"
	"testing"
)

func TestBuild(t *testing.T) {
	c := Compiler{Env: os.Environ(), Cache: t.TempDir()}
	m := Module{Path: "rsc.io/quote", Version: "v1.5.2", Programs: map[string]string{"buggy": "rsc.io/quote/buggy"}}
	if _, err := c.Build(t.Context(), m, "arm64"); err == nil {
		t.Error("a package that is no program was compiled")
	}
	m = Module{Path: "golang.org/x/tools", Version: "v0.30.0", Programs: map[string]string{"stress": "golang.org/x/tools/cmd/stress"}}
	r, err := c.Build(t.Context(), m, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(r.Programs["stress"])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != elf.EM_AARCH64 {
		t.Errorf("machine %v", f.Machine)
	}
	if !strings.HasPrefix(r.Sum, "h1:") || !strings.HasPrefix(r.Go, "go1.") {
		t.Errorf("result %+v", r)
	}
	c.Env = []string{"PATH=/nowhere"} // what is compiled needs no compiler
	if _, err := open(dirOf(t, r.Programs["stress"]), m); err != nil {
		t.Error(err)
	}
}

func dirOf(t *testing.T, file string) string {
	t.Helper()
	return file[:strings.LastIndex(file, "/")]
}

func TestUnknownVersion(t *testing.T) {
	c := Compiler{Env: os.Environ(), Cache: t.TempDir(), Offline: true}
	_, err := c.Download(t.Context(), "golang.org/x/tools", "v0.0.1-nosuch")
	if err == nil || !strings.HasPrefix(err.Error(), "module golang.org/x/tools: cannot get version v0.0.1-nosuch") {
		t.Errorf("error %v", err)
	}
}
