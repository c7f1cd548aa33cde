package debian_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/source"
)

func noPause(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func now() time.Time { return archivetest.Now }

func newCache(dir string, offline bool) *source.Cache {
	return source.New(source.Config{Dir: dir, Offline: offline, Now: now, Pause: noPause})
}

var curl = archivetest.Deb{Package: "curl", Arch: "arm64", Version: "8.14-1", Fields: "Depends: libc6 (>= 2.41)",
	Data: []archivetest.Member{archivetest.File("/usr/bin/curl", 0o755, "curl")}}

func newArchive(t *testing.T) *archivetest.Archive {
	return archivetest.New(t, "trixie").Add(
		curl,
		archivetest.Deb{Package: "libc6", Arch: "arm64", Version: "2.41-12", Fields: "Section: libs"},
		archivetest.Deb{Package: "dpkg", Arch: "arm64", Version: "1.22", Fields: "Essential: yes\nDepends: libc6"},
		archivetest.Deb{Package: "mc", Version: "4.8"},
	)
}

func wish(t *testing.T, names ...string) []debian.Wish {
	w := debian.Wish{Set: "node"}
	for _, n := range names {
		r, err := resolve.ParseRequest(n, "picube.hcl")
		if err != nil {
			t.Fatal(err)
		}
		w.Requests = append(w.Requests, r)
	}
	return []debian.Wish{w}
}

func resolved(t *testing.T, a *archivetest.Archive, dir string, names ...string) *lock.Lock {
	t.Helper()
	c := archive.Config{Cache: newCache(dir, false), Arch: "arm64", Now: now(), Pause: noPause}
	suites, sets, err := debian.Resolve(context.Background(), c, []archive.Archive{a.Archive()}, wish(t, names...))
	if err != nil {
		t.Fatal(err)
	}
	return &lock.Lock{Created: now(), Suites: suites, Sets: sets}
}

func opener(t *testing.T, a *archivetest.Archive, dir string, offline bool) *debian.Opener {
	store := deb.NewStore(filepath.Join(dir, "decoded"), now)
	t.Cleanup(func() { store.Close() })
	return &debian.Opener{Cache: newCache(dir, offline), Store: store, Date: now(),
		Mirrors: debian.Mirrors([]archive.Archive{a.Archive()}), Update: "picube-build update picube.hcl"}
}

func TestResolveAndOpen(t *testing.T) {
	a := newArchive(t)
	dir := t.TempDir()
	l := resolved(t, a, dir, "curl")
	set := l.Set("node", "arm64")
	var got []string
	for _, p := range set.Packages {
		got = append(got, p.Name+" "+p.Version+" by "+p.By)
	}
	if want := "curl 8.14-1 by picube.hcl, dpkg 1.22 by the base system, libc6 2.41-12 by dpkg"; strings.Join(got, ", ") != want {
		t.Errorf("got %s", strings.Join(got, ", "))
	}
	again, diags := lock.Parse("x", l.Bytes())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	archives := []archive.Archive{a.Archive()}
	if err := again.Check("x.lock.hcl", "x.hcl", debian.Wanted("arm64", archives, wish(t, "curl"))); err != nil {
		t.Error(err)
	}
	err := again.Check("x.lock.hcl", "x.hcl", debian.Wanted("arm64", archives, wish(t, "curl", "mc")))
	if want := `x.lock.hcl: does not fit the blueprint: package mc is new: run "picube-build update x.hcl"`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	for _, offline := range []bool{false, true} {
		o := opener(t, a, dir, offline)
		told := 0
		o.Done = func(lock.Package) { told++ }
		packages, err := o.Open(context.Background(), again.Sets[0].Packages)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range packages {
			if !strings.Contains(string(p.Control["control"]), "Package: "+set.Packages[i].Name+"\n") {
				t.Errorf("package %d is %s", i, p.Control["control"])
			}
		}
		if told != 3 {
			t.Errorf("told of %d packages", told)
		}
	}
}

var port = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

func openError(t *testing.T, o *debian.Opener, packages []lock.Package) string {
	t.Helper()
	_, err := o.Open(context.Background(), packages)
	if err == nil {
		return ""
	}
	return port.ReplaceAllString(err.Error(), "URL")
}

// TestSuperseded takes locked versions off the mirror.
func TestSuperseded(t *testing.T) {
	a := newArchive(t)
	l := resolved(t, a, t.TempDir(), "curl")
	packages := l.Sets[0].Packages
	cached := t.TempDir()
	if msg := openError(t, opener(t, a, cached, false), packages); msg != "" {
		t.Fatal(msg)
	}
	old := map[string][]byte{}
	for _, p := range packages[:2] {
		a.Edit(p.Path, func(b []byte) []byte { old[p.Path] = b; return nil })
	}
	if msg := openError(t, opener(t, a, cached, false), packages); msg != "" {
		t.Errorf("what the cache has is enough, but: %s", msg)
	}
	want := `package curl 8.14-1 arm64: not found: URL/pool/main/c/curl/curl_8.14-1_arm64.deb: 404 Not Found: the mirror has this version no longer: run "picube-build update picube.hcl" to renew the lock
package dpkg 1.22 arm64: not found: URL/pool/main/d/dpkg/dpkg_1.22_arm64.deb: 404 Not Found: the mirror has this version no longer: run "picube-build update picube.hcl" to renew the lock`
	if msg := openError(t, opener(t, a, t.TempDir(), false), packages); msg != want {
		t.Errorf("got\n%s\nwant\n%s", msg, want)
	}
	snapshot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, "/archive/debian/20250715T150640Z/")
		if !ok || old[path] == nil {
			http.NotFound(w, r)
			return
		}
		w.Write(old[path])
	}))
	defer snapshot.Close()
	o := opener(t, a, t.TempDir(), false)
	o.Snapshot = snapshot.URL + "/archive"
	if msg := openError(t, o, packages); msg != "" {
		t.Errorf("with a snapshot archive: %s", msg)
	}
}

func TestOpenBad(t *testing.T) {
	a := newArchive(t)
	l := resolved(t, a, t.TempDir(), "curl")
	packages := l.Sets[0].Packages[:1]
	path := packages[0].Path
	tests := []struct {
		name string
		edit func([]byte) []byte
		want string
	}{
		{"wrong content", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "package curl 8.14-1 arm64: URL/" + path + ": has SHA-256 "},
		{"truncated", func(b []byte) []byte { return b[:len(b)/2] }, "package curl 8.14-1 arm64: URL/" + path + ": ends after "},
		{"longer", func(b []byte) []byte { return append(b, 0) }, "package curl 8.14-1 arm64: URL/" + path + ": has more than "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			a.Edit(path, test.edit)
			defer a.Publish()
			if msg := openError(t, opener(t, a, dir, false), packages); !strings.HasPrefix(msg, test.want) {
				t.Errorf("got %s", msg)
			}
			if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 && !strings.HasSuffix(left[0], ".part") {
				t.Errorf("left in the cache: %v", left)
			}
		})
	}
	if msg := openError(t, opener(t, a, t.TempDir(), true), packages); msg != "package curl 8.14-1 arm64: not in the cache, and this build is offline" {
		t.Errorf("got %s", msg)
	}
}

// TestHostile has an archive vouch for a package that is no good.
func TestHostile(t *testing.T) {
	evil := archivetest.File("../../etc/passwd", 0o644, "evil")
	evil.Raw = true
	a := archivetest.New(t, "trixie").Add(archivetest.Deb{Package: "evil", Data: []archivetest.Member{evil}})
	dir := t.TempDir()
	l := resolved(t, a, dir, "evil")
	want := `package evil: cannot read data.tar.xz: member "../../etc/passwd": path with ".." could lead out of the tree`
	if msg := openError(t, opener(t, a, dir, false), l.Sets[0].Packages); msg != want {
		t.Errorf("got %s", msg)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "decoded")); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

// TestUnsatisfied reports the wishes of all sets at once.
func TestUnsatisfied(t *testing.T) {
	a := newArchive(t)
	wishes := append(wish(t, "crul"), wish(t, "mc (>= 5)")...)
	wishes[1].Set = "other"
	c := archive.Config{Cache: newCache(t.TempDir(), false), Arch: "arm64", Now: now(), Pause: noPause}
	_, _, err := debian.Resolve(context.Background(), c, []archive.Archive{a.Archive()}, wishes)
	want := "package crul: there is no such package, but picube.hcl asks for it; did you mean curl?\n" +
		"package mc (>= 5): cannot be had: picube.hcl asks for it -> available is mc 4.8 in trixie"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
