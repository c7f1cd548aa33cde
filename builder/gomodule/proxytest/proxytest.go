// Package proxytest is a module proxy for tests: it speaks the protocol of
// go.dev/ref/mod#goproxy-protocol for the modules that a test makes up.
//
// Not supported: paths with upper-case letters.
package proxytest

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/semver"
)

// Module is one version of a module.
type Module struct {
	Path, Version string
	Files         map[string]string // text by name; go.mod is made when it is missing
}

// Proxy serves modules.
type Proxy struct {
	*httptest.Server

	mu       sync.Mutex
	asked    map[string]int // how often, by path
	fails    func(path string) bool
	versions map[string][]string
	files    map[string][]byte
}

// New starts a proxy.
func New(t testing.TB, modules ...Module) *Proxy {
	t.Helper()
	p := &Proxy{asked: map[string]int{}, versions: map[string][]string{}, files: map[string][]byte{}}
	for _, m := range modules {
		files := map[string]string{"go.mod": "module " + m.Path + "\n\ngo 1.24\n"}
		maps.Copy(files, m.Files)
		at := "/" + m.Path + "/@v/" + m.Version
		p.versions[m.Path] = append(p.versions[m.Path], m.Version)
		p.files[at+".info"] = fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, m.Version)
		p.files[at+".mod"] = []byte(files["go.mod"])
		p.files[at+".zip"] = archive(t, m.Path+"@"+m.Version+"/", files)
	}
	for module, versions := range p.versions {
		semver.Sort(versions)
		p.files["/"+module+"/@v/list"] = []byte(strings.Join(versions, "\n") + "\n")
		p.files["/"+module+"/@latest"] = p.files["/"+module+"/@v/"+versions[len(versions)-1]+".info"]
	}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func archive(t testing.TB, prefix string, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w, err := zw.Create(prefix + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	fails := p.fails != nil && p.fails(r.URL.Path)
	p.mu.Unlock()
	data, ok := p.files[r.URL.Path]
	switch {
	case !ok:
		http.NotFound(w, r)
	case fails && path.Ext(r.URL.Path) == ".zip":
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler) // the connection breaks
	case fails:
		http.Error(w, "out of order", http.StatusServiceUnavailable)
	default:
		_, _ = w.Write(data)
	}
}

// Fail says what fails from now on: archives break off half-way, all else is
// answered with an error. Nil: nothing does.
func (p *Proxy) Fail(fails func(path string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails = fails
}

// Asked tells how often a path was asked for.
func (p *Proxy) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// Env turns the host's environment into that of a go command that knows nothing
// but the proxy, with an empty module cache of its own.
func (p *Proxy) Env(t testing.TB, host []string) []string {
	t.Helper()
	env := append(slices.Clone(host), "GOPROXY="+p.URL, "GOSUMDB=off", "GOTOOLCHAIN=local", "GOMODCACHE="+t.TempDir(), "GONOPROXY=", "GOPRIVATE=")
	t.Cleanup(func() { // it is read-only
		cmd := exec.Command("go", "clean", "-modcache")
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go clean: %v: %s", err, out)
		}
	})
	return env
}
