package upstream

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/oci"
	"github.com/picube/picube-build/builder/source"
)

const constantsText = `package constants

const (
	CoreDNSVersion = "v1.12.1"
	DefaultEtcdVersion = "3.6.5-0"
	PauseVersion = "3.10.1"
)
`

// upstreamServer speaks both protocols of a release: files with their
// checksums, and a registry.
type upstreamServer struct {
	*httptest.Server
	files map[string][]byte
	// failAfter is how many bytes of files are sent before the connection
	// breaks; 0: it never does.
	failAfter atomic.Int64
	gone      bool // whether it is gone for good then
	down      atomic.Bool

	mu    sync.Mutex
	asked []string // paths that were asked for, "PATH from N" for the rest of a file
}

func (u *upstreamServer) note(r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := r.URL.Path
	if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		at += " from " + strings.TrimSuffix(from, "-")
	}
	if r.Method == http.MethodGet {
		u.asked = append(u.asked, at)
	}
}

// forget returns what was asked for until now.
func (u *upstreamServer) forget() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := u.asked
	u.asked = nil
	return asked
}

func newUpstream(t *testing.T) *upstreamServer {
	t.Helper()
	var src bytes.Buffer
	zw := gzip.NewWriter(&src)
	tw := tar.NewWriter(zw)
	for _, f := range []struct{ name, text string }{{"LICENSES/a", "text"}, {constants, constantsText}} {
		if err := tw.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	u := &upstreamServer{files: map[string][]byte{"/release/v1.34.4/kubernetes-src.tar.gz": src.Bytes()}}
	for _, name := range nodePrograms() {
		u.files["/release/v1.34.4/bin/linux/arm64/"+name] = bytes.Repeat([]byte("program "+name+"\n"), 20000)
	}
	for name, data := range u.files {
		if !strings.HasSuffix(name, ".txt") {
			u.files[name+".sha256"] = fmt.Appendf(nil, "%x\n", sha256.Sum256(data))
		}
	}
	u.files["/release/stable-1.34.txt"], u.files["/release/stable.txt"] = []byte("v1.34.4\n"), []byte("v1.35.0")
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u.down.Load() {
			panic(http.ErrAbortHandler)
		}
		u.note(r)
		if strings.HasPrefix(r.URL.Path, "/v2/") {
			images.ServeHTTP(w, r)
			return
		}
		data, ok := u.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if n := u.failAfter.Load(); n > 0 && int64(len(data)) > n && r.Method == http.MethodGet && r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:n])
			w.(http.Flusher).Flush()
			u.down.Store(u.gone)
			panic(http.ErrAbortHandler) // the plug of the server
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(u.Close)
	r := Release{Version: "v1.34.4", Etcd: "3.6.5-0", CoreDNS: "v1.12.1", Pause: "3.10.1"}
	for _, image := range append(controlPlaneImages(), nodeImages()...) {
		u.push(t, strings.TrimPrefix(r.image(image), Registry))
	}
	return u
}

func (u *upstreamServer) push(t *testing.T, image string) {
	t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(u.URL, "http://") + image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(2000, 2)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = "linux", "arm64", "v8"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
}

func (u *upstreamServer) download(t *testing.T) Download {
	t.Helper()
	address, err := url.Parse(u.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store := oci.NewStore(filepath.Join(dir, "images"))
	t.Cleanup(func() { store.Close() })
	return Download{
		URL: u.URL, Registry: address.Host, Client: u.Client(), Store: store,
		Files: source.Config{
			Dir: filepath.Join(dir, "downloads"), Client: u.Client(), Now: time.Now, Parallel: 1,
			Pause: func(context.Context, time.Duration) error { return nil },
		},
	}
}

func TestRelease(t *testing.T) {
	u := newUpstream(t)
	d := u.download(t)
	sources := Sources{Download: func(string) Download { return d }, Say: t.Logf}
	w := Wish{Version: "v1.34.4", From: FromAuto}
	locked, err := sources.Lock(t.Context(), w, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if !w.Fits(locked) || (Wish{Version: "v1.34.4", From: FromModules}).Fits(locked) || (Wish{Version: "v1.34.5", From: FromAuto}).Fits(locked) {
		t.Errorf("what was locked fits the wrong wishes: %+v", locked[0])
	}
	if want := 1 + len(nodePrograms()) + len(controlPlaneImages()) + len(nodeImages()); len(locked) != want {
		t.Errorf("%d inputs, want %d", len(locked), want)
	}
	phases := map[string][2]int64{} // total and done
	d.Phase = func(name string, total int64) (func(int64), func()) {
		phases[name] = [2]int64{total}
		return func(n int64) { phases[name] = [2]int64{total, phases[name][1] + n} }, func() {}
	}
	set, err := sources.Get(t.Context(), w, locked, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, name := range nodePrograms() {
		size += int64(len(u.files["/release/v1.34.4/bin/linux/arm64/"+name]))
	}
	if want := map[string][2]int64{"get Kubernetes": {size, size}, "get images": {6, 6}}; !maps.Equal(phases, want) {
		t.Errorf("progress %v, want %v", phases, want)
	}
	clear(phases)
	if _, err := sources.Get(t.Context(), w, locked, "arm64"); err != nil || len(phases) > 0 {
		t.Errorf("what is there was got again: %v, %v", err, phases)
	}
	for _, name := range nodePrograms() {
		got, err := os.ReadFile(set.Programs[name])
		if err != nil || !bytes.Equal(got, u.files["/release/v1.34.4/bin/linux/arm64/"+name]) {
			t.Errorf("%s: %v, %d bytes", name, err, len(got))
		}
	}
	var names []string
	for _, img := range append(set.ControlPlane, set.Node...) {
		names = append(names, img.Name)
	}
	const want = "registry.k8s.io/kube-apiserver:v1.34.4 registry.k8s.io/kube-controller-manager:v1.34.4 registry.k8s.io/kube-scheduler:v1.34.4 " +
		"registry.k8s.io/etcd:3.6.5-0 registry.k8s.io/coredns/coredns:v1.12.1 registry.k8s.io/pause:3.10.1"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("images %s", got)
	}
}

// An image that was tagged anew does not come onto the cards.
func TestReleaseByDigest(t *testing.T) {
	u := newUpstream(t)
	d := u.download(t)
	locked, err := d.Find(t.Context(), "v1.34.4", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	const image = "/etcd:3.6.5-0"
	u.push(t, image)
	set, err := d.Get(t.Context(), locked, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := set.ControlPlane[3].Manifest.Digest, "sha256:"+find(locked, "kubernetes/arm64/registry.k8s.io"+image).SHA256; got != want {
		t.Errorf("etcd %s, want %s", got, want)
	}
}

// A server that breaks off half-way is asked for the rest alone.
func TestReleaseResumes(t *testing.T) {
	u := newUpstream(t)
	d := u.download(t)
	locked, err := d.Find(t.Context(), "v1.34.4", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	u.failAfter.Store(100_000)
	if _, err := d.Get(t.Context(), locked, "arm64"); err != nil {
		t.Errorf("a server that breaks off and comes back: %v", err)
	}
}

// A server that is gone half-way through ends the build; the next one goes on
// where that one stopped.
func TestReleaseGoesOn(t *testing.T) {
	u := newUpstream(t)
	u.gone = true
	d := u.download(t)
	locked, err := d.Find(t.Context(), "v1.34.4", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	// kubectl is the third of four programs, and larger than the others.
	const kubectl = "/release/v1.34.4/bin/linux/arm64/kubectl"
	at := slices.IndexFunc(locked, func(in lock.Input) bool { return "/"+in.Path == kubectl })
	u.files[kubectl] = bytes.Repeat([]byte("larger"), 100_000)
	locked[at].Size, locked[at].SHA256 = 600_000, fmt.Sprintf("%x", sha256.Sum256(u.files[kubectl]))
	u.failAfter.Store(400_000)
	if _, err := d.Get(t.Context(), locked, "arm64"); err == nil || !strings.Contains(err.Error(), "kubectl v1.34.4") {
		t.Errorf("error %v", err)
	}
	u.down.Store(false)
	u.forget()
	if _, err := d.Get(t.Context(), locked, "arm64"); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, at := range u.forget() {
		if !strings.HasPrefix(at, "/v2/") {
			files = append(files, path.Base(at))
		}
	}
	if got := strings.Join(files, ", "); got != "kubectl from 400000, kube-proxy" {
		t.Errorf("the next build asked for %s", got)
	}
	if _, err := d.Get(t.Context(), locked, "arm64"); err != nil {
		t.Fatal(err)
	}
	if asked := u.forget(); len(asked) > 0 {
		t.Errorf("everything was there, and %q was asked for", asked)
	}
}

// A mirror has the files below its URL and the images on its host, with or
// without TLS.
func TestMirror(t *testing.T) {
	u := newUpstream(t)
	var dialer net.Dialer
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if !strings.HasPrefix(address, "mirror.example:") {
			return nil, fmt.Errorf("asked %s", address)
		}
		return dialer.DialContext(ctx, network, strings.TrimPrefix(u.URL, "http://"))
	}}}
	d := u.download(t)
	d.URL, d.Registry, d.Client, d.Options = ReleaseURL, Registry, client, []remote.Option{remote.WithTransport(client.Transport)}
	d.Files.Client = client
	for file, data := range maps.Clone(u.files) {
		delete(u.files, file)
		u.files["/kube"+file] = data
	}
	sources := Sources{Download: d.Mirror, Say: t.Logf}
	w := Wish{Version: "v1.34.4", From: FromMirror, Mirror: "http://mirror.example/kube"}
	locked, err := sources.Lock(t.Context(), w, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if !w.Fits(locked) || (Wish{Version: "v1.34.4", From: FromRelease}).Fits(locked) {
		t.Errorf("what was locked fits the wrong wishes: %+v", locked[0])
	}
	for _, in := range locked {
		if strings.Contains(in.Name+in.Path+in.Source, "mirror.example") {
			t.Errorf("the lock names the mirror: %+v", in)
		}
	}
	set, err := sources.Get(t.Context(), w, locked, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Node[1].Name; got != "registry.k8s.io/pause:3.10.1" {
		t.Errorf("image %s", got)
	}
	if d := d.Mirror("https://mirror.example/kube"); d.URL != "https://mirror.example/kube" || d.Registry != "mirror.example" {
		t.Errorf("with TLS: %s, %s", d.URL, d.Registry)
	}
}

func TestUnknownVersion(t *testing.T) {
	d := newUpstream(t).download(t)
	_, err := d.Find(t.Context(), "v1.34.99", "arm64")
	var unknown *ErrVersion
	if !errors.As(err, &unknown) || strings.Join(unknown.Nearest, " ") != "v1.34.4 v1.35.0" {
		t.Errorf("error %v", err)
	}
}

// Damaged content is not a reason to take another source.
func TestDamagedRelease(t *testing.T) {
	u := newUpstream(t)
	const file = "/release/v1.34.4/kubernetes-src.tar.gz"
	u.files[file][20] ^= 1
	sources := Sources{Download: func(string) Download { return u.download(t) }, Say: t.Logf}
	_, err := sources.Lock(t.Context(), Wish{Version: "v1.34.4", From: FromAuto}, "arm64")
	if !errors.Is(err, source.ErrMismatch) {
		t.Errorf("error %v", err)
	}
}

// Without a release server, auto says so and turns to the modules; release
// and mirror do not.
func TestFallback(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	var said []string
	sources := Sources{
		Modules: Modules{Compiler: gomodule.Compiler{Env: []string{"PATH=/nowhere"}}},
		Download: func(string) Download {
			return Download{URL: gone.URL, Client: http.DefaultClient, Files: source.Config{
				Dir: t.TempDir(), Now: time.Now, Pause: func(context.Context, time.Duration) error { return nil },
			}}
		},
		Say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	}
	for from, modules := range map[string]bool{FromAuto: true, FromRelease: false, FromMirror: false} {
		said = nil
		_, err := sources.Lock(t.Context(), Wish{Version: "v1.34.4", From: from}, "arm64")
		if err == nil || strings.Contains(err.Error(), module) != modules || (len(said) == 1) != modules {
			t.Errorf("%s: error %v, said %q", from, err, said)
		}
	}
}

func TestFits(t *testing.T) {
	locked := []lock.Input{{Name: Source, Version: "v1.34.4", Source: FromModules + ", compiled with go1.26.8"}}
	for w, want := range map[Wish]bool{
		{"v1.34.4", FromAuto, ""}: true, {"v1.34.4", FromModules, ""}: true, {"v1.34.4", FromRelease, ""}: false, {"v1.34.5", FromAuto, ""}: false,
	} {
		if got := w.Fits(locked); got != want {
			t.Errorf("%+v: %t", w, got)
		}
	}
}
