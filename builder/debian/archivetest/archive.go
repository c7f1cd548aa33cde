package archivetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/picube/picube-build/builder/debian/archive"
)

// Now is the time at which the tests' archives are looked at.
var Now = time.Unix(Epoch, 0).UTC().Add(30 * 24 * time.Hour)

// Archive is a signed archive with one suite and the component main, served
// by HTTP. Change its fields, then call Publish to have them served.
type Archive struct {
	Name       string // "debian"
	Suite      string
	Arch       string // "arm64"
	Date       time.Time
	ValidUntil time.Time // zero: none
	// NotAutomatic marks a suite such as backports.
	NotAutomatic bool
	Key          *openpgp.Entity

	t      testing.TB
	server *httptest.Server
	debs   []Deb

	mu       sync.Mutex
	files    map[string][]byte // by path below the URL
	requests []string
}

// New starts an archive without packages. Its server stops with the test.
func New(t testing.TB, suite string) *Archive {
	t.Helper()
	a := &Archive{Name: "debian", Suite: suite, Arch: "arm64", Date: Now.Add(-time.Hour), Key: NewKey(t), t: t, files: map[string][]byte{}}
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.server.Close)
	a.Publish()
	return a
}

// NewKey returns a new signing key.
func NewKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	key, err := openpgp.NewEntity("test", "", "test@example.org", signing)
	if err != nil {
		t.Fatalf("cannot make a key: %v", err)
	}
	return key
}

var signing = &packet.Config{
	Algorithm: packet.PubKeyAlgoEdDSA,
	Time:      func() time.Time { return time.Unix(Epoch, 0) },
}

// Add adds packages and publishes them.
func (a *Archive) Add(debs ...Deb) *Archive {
	a.t.Helper()
	a.debs = append(a.debs, debs...)
	a.Publish()
	return a
}

// Clear takes all packages out of the archive, its pool included.
func (a *Archive) Clear() *Archive {
	a.debs = nil
	a.mu.Lock()
	clear(a.files)
	a.mu.Unlock()
	return a
}

// URL returns the archive's address.
func (a *Archive) URL() string { return a.server.URL }

// Archive returns what a loader needs.
func (a *Archive) Archive() archive.Archive {
	return archive.Archive{Name: a.Name, URLs: []string{a.URL()}, Suites: []string{a.Suite}, Components: []string{"main"}, Keys: PublicKey(a.t, a.Key)}
}

// PublicKey returns an armoured public key.
func PublicKey(t testing.TB, key *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = key.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatalf("cannot write a key: %v", err)
	}
	return b.Bytes()
}

// Publish makes the index, the signed InRelease and the pool anew.
func (a *Archive) Publish() {
	a.t.Helper()
	var packages strings.Builder
	pool := map[string][]byte{}
	for _, d := range a.debs {
		b := d.Build(a.t)
		pool[d.Filename()] = b
		fmt.Fprintf(&packages, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", d.Stanza(), d.Filename(), len(b), sha256.Sum256(b))
	}
	dir := "main/binary-" + a.Arch
	plain := []byte(packages.String())
	compressed := Compress(a.t, "xz", 0, plain)
	var release strings.Builder
	fmt.Fprintf(&release, "Origin: Test\nSuite: %s\nCodename: %s\nVersion: 13.1\nDate: %s\n", a.Suite, a.Suite, a.Date.UTC().Format(time.RFC1123))
	if !a.ValidUntil.IsZero() {
		fmt.Fprintf(&release, "Valid-Until: %s\n", a.ValidUntil.UTC().Format(time.RFC1123))
	}
	if a.NotAutomatic {
		release.WriteString("NotAutomatic: yes\n")
	}
	fmt.Fprintf(&release, "Acquire-By-Hash: yes\nArchitectures: all %s\nComponents: main\nSHA256:\n", a.Arch)
	fmt.Fprintf(&release, " %x %d %s/Packages\n %x %d %s/Packages.xz\n",
		sha256.Sum256(plain), len(plain), dir, sha256.Sum256(compressed), len(compressed), dir)

	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.files, pool)
	dists := "dists/" + a.Suite + "/"
	a.files[dists+"InRelease"] = Sign(a.t, a.Key, release.String())
	a.files[dists+dir+"/Packages.xz"] = compressed
	a.files[dists+dir+fmt.Sprintf("/by-hash/SHA256/%x", sha256.Sum256(compressed))] = compressed
}

// Sign clear-signs a text.
func Sign(t testing.TB, key *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, signing)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatalf("cannot sign: %v", err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// Files returns the paths that are served, sorted.
func (a *Archive) Files() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.files))
}

// Edit changes a served file; a nil result removes it. Publish makes it anew.
func (a *Archive) Edit(path string, edit func([]byte) []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.files[path]
	if !ok {
		a.t.Fatalf("the archive has no %s", path)
	}
	if b = edit(bytes.Clone(b)); b == nil {
		delete(a.files, path)
		return
	}
	a.files[path] = b
}

// Requests returns the paths asked for so far, in order.
func (a *Archive) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

func (a *Archive) serve(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	a.mu.Lock()
	a.requests = append(a.requests, path)
	b, ok := a.files[path]
	a.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}
