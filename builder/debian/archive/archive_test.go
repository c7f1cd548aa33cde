package archive_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/source"
)

// loader loads archives with one cache, as successive runs would.
type loader struct {
	dir     string
	offline bool
	now     time.Time
	before  func(archive, suite string) time.Time
	paused  func() // called instead of waiting for a mirror
}

func newLoader(t *testing.T) *loader {
	return &loader{dir: t.TempDir(), now: archivetest.Now, paused: func() {}}
}

func (l *loader) load(archives ...archive.Archive) (*archive.Index, error) {
	now := func() time.Time { return l.now }
	cache := source.New(source.Config{Dir: l.dir, Offline: l.offline, Now: now,
		Pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	return archive.Load(context.Background(), archive.Config{Cache: cache, Arch: "arm64", Now: l.now, NotBefore: l.before,
		Pause: func(ctx context.Context, _ time.Duration) error { l.paused(); return ctx.Err() }}, archives)
}

func dump(x *archive.Index, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var list []string
	for _, r := range x.Releases {
		list = append(list, r.Archive+"/"+r.Suite+" "+r.Version+" of "+r.Date.Format(time.DateTime))
	}
	for _, p := range x.Packages {
		list = append(list, p.Archive+"/"+p.Suite+": "+p.String()+" at "+p.Filename)
	}
	return strings.Join(list, "\n")
}

var port = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

func check(t *testing.T, l *loader, want string, archives ...archive.Archive) {
	t.Helper()
	got := port.ReplaceAllString(dump(l.load(archives...)), "URL")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

var curl = archivetest.Deb{Package: "curl", Arch: "arm64", Version: "8.14-1"}

const curlDump = `debian/trixie 13.1 of 2025-07-15 14:06:40
debian/trixie: curl 8.14-1 arm64 at pool/main/c/curl/curl_8.14-1_arm64.deb`

func TestLoad(t *testing.T) {
	a := archivetest.New(t, "trixie").Add(curl)
	security := archivetest.New(t, "trixie-security").Add(archivetest.Deb{Package: "curl", Arch: "arm64", Version: "8.14-1+deb13u1"})
	security.Name = "debian-security"
	l := newLoader(t)
	want := `debian/trixie 13.1 of 2025-07-15 14:06:40
debian-security/trixie-security 13.1 of 2025-07-15 14:06:40
debian/trixie: curl 8.14-1 arm64 at pool/main/c/curl/curl_8.14-1_arm64.deb
debian-security/trixie-security: curl 8.14-1+deb13u1 arm64 at pool/main/c/curl/curl_8.14-1+deb13u1_arm64.deb`
	check(t, l, want, a.Archive(), security.Archive())
	before := len(a.Requests())
	check(t, l, want, a.Archive(), security.Archive())
	if got := a.Requests()[before:]; len(got) != 1 || got[0] != "dists/trixie/InRelease" {
		t.Errorf("the second load asked for %v", got)
	}
	l.offline = true
	check(t, l, want, a.Archive(), security.Archive())
	if got := a.Requests()[before:]; len(got) != 1 {
		t.Errorf("the offline load asked for %v", got[1:])
	}
	empty := newLoader(t)
	empty.offline = true
	check(t, empty, "error: archive debian: suite trixie: InRelease: not in the cache, and this build is offline", a.Archive())
}

func TestNotAutomatic(t *testing.T) {
	for _, want := range []bool{false, true} {
		a := archivetest.New(t, "trixie")
		a.NotAutomatic = want
		x, err := newLoader(t).load(a.Add(curl).Archive())
		if err != nil || x.Packages[0].NotAutomatic != want {
			t.Errorf("got %+v, %v", x, err)
		}
	}
}

const inRelease = "dists/trixie/InRelease"

func replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }
}

func TestBadRelease(t *testing.T) {
	const prefix = "error: archive debian: suite trixie: URL/dists/trixie/InRelease: "
	expired, err := openpgp.NewEntity("test", "", "test@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 24 * 60 * 60,
		Time: func() time.Time { return time.Unix(archivetest.Epoch, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		edit func(*archivetest.Archive)
		want string // a part
	}{
		{"tampered", func(a *archivetest.Archive) { a.Edit(inRelease, replace("main", "evil")) },
			prefix + "no good signature: key KEY: openpgp: invalid signature"},
		{"other key", func(a *archivetest.Archive) { a.Key = archivetest.NewKey(t); a.Publish() },
			prefix + "no good signature: key KEY: openpgp: signature made by unknown entity"},
		{"expired key", func(a *archivetest.Archive) { a.Key = expired; a.Publish() },
			prefix + "no good signature: key KEY: openpgp: key expired"},
		{"unsigned", func(a *archivetest.Archive) {
			a.Edit(inRelease, func([]byte) []byte { return []byte("Suite: trixie\n") })
		},
			prefix + "not a clear-signed file"},
		{"text before", func(a *archivetest.Archive) {
			a.Edit(inRelease, func(b []byte) []byte { return append([]byte("Suite: x\n\n"), b...) })
		}, prefix + "not a clear-signed file"},
		{"text behind", func(a *archivetest.Archive) {
			a.Edit(inRelease, func(b []byte) []byte { return append(b, "Suite: x\n"...) })
		}, prefix + "unsigned text follows the signature"},
		{"truncated", func(a *archivetest.Archive) {
			a.Edit(inRelease, func(b []byte) []byte { return b[:len(b)-100] })
		}, prefix + "not a clear-signed file"},
		{"expired", func(a *archivetest.Archive) {
			a.ValidUntil = archivetest.Now.Add(-time.Minute)
			a.Publish()
		}, prefix + "it expired on 2025-07-15 15:05 UTC: the mirror is out of date, or this computer's clock is wrong"},
		{"of the future", func(a *archivetest.Archive) {
			a.Date = archivetest.Now.Add(25 * time.Hour)
			a.Publish()
		}, prefix + "it is of 2025-07-16 16:06 UTC, which is in the future: check this computer's clock"},
		{"other suite", func(a *archivetest.Archive) {
			a.Edit(inRelease, func([]byte) []byte {
				return archivetest.Sign(t, a.Key, "Suite: stable\nCodename: sid\nDate: Tue, 15 Jul 2025 14:06:40 UTC\nSHA256:\n")
			})
		}, prefix + "it is of suite stable (sid), not of trixie"},
		{"no date", func(a *archivetest.Archive) {
			a.Edit(inRelease, func([]byte) []byte { return archivetest.Sign(t, a.Key, "Suite: trixie\n") })
		}, prefix + `field Date: "" is no date`},
		{"odd digest", func(a *archivetest.Archive) {
			a.Edit(inRelease, func([]byte) []byte {
				return archivetest.Sign(t, a.Key, "Suite: trixie\nDate: Tue, 15 Jul 2025 14:06:40 UTC\nSHA256:\n 12 34 x\n")
			})
		}, prefix + `field SHA256: "12 34 x" is not a digest, a size and a name`},
		{"no index", func(a *archivetest.Archive) { a.Arch = "riscv64"; a.Publish() },
			"error: archive debian: suite trixie: main/binary-arm64/Packages: the suite has no such index: wrong component or architecture?"},
		{"missing", func(a *archivetest.Archive) { a.Edit(inRelease, func([]byte) []byte { return nil }) },
			"error: archive debian: suite trixie: not found: URL/dists/trixie/InRelease: 404 Not Found"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := archivetest.New(t, "trixie").Add(curl)
			good := a.Archive()
			test.edit(a)
			if a.Key == expired { // it is the right one all the same
				good.Keys = archivetest.PublicKey(t, expired)
			}
			l := newLoader(t)
			got := port.ReplaceAllString(dump(l.load(good)), "URL")
			got = regexp.MustCompile(`key [0-9A-F]{16}`).ReplaceAllString(got, "key KEY")
			if !strings.HasPrefix(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if left, _ := filepath.Glob(l.dir + "/releases/*"); len(left) > 0 && test.name != "no index" {
				t.Errorf("left in the cache: %v", left)
			}
		})
	}
}

// TestReplay serves an older Release, validly signed, after a newer one.
func TestReplay(t *testing.T) {
	a := archivetest.New(t, "trixie").Add(curl)
	l := newLoader(t)
	check(t, l, curlDump, a.Archive())
	a.Date = a.Date.Add(-time.Minute)
	a.Publish()
	want := "error: archive debian: suite trixie: URL/dists/trixie/InRelease: it is of 2025-07-15 14:05 UTC, but one of 2025-07-15 14:06 UTC was seen before: " +
		"the mirror is out of date, or somebody replays old packages"
	check(t, l, want, a.Archive())
	// A fresh cache does not know, but a lock does.
	l = newLoader(t)
	l.before = func(archive, suite string) time.Time { return archivetest.Now.Add(-time.Hour) }
	check(t, l, want, a.Archive())
	// A second mirror that is up to date helps.
	b := archivetest.New(t, "trixie").Add(curl)
	b.Key = a.Key
	b.Publish()
	both := a.Archive()
	both.URLs = append(both.URLs, b.URL())
	check(t, l, curlDump, both)
}

// TestMidSync has a mirror whose index is not that of its Release, until the
// loader has waited.
func TestMidSync(t *testing.T) {
	for name, breakIt := range map[string]func([]byte) []byte{
		"absent": func([]byte) []byte { return nil },
		"wrong":  func(b []byte) []byte { b[0] ^= 1; return b },
		"short":  func(b []byte) []byte { return b[:len(b)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			a := archivetest.New(t, "trixie").Add(curl)
			var byHash string
			for _, f := range a.Files() {
				if strings.Contains(f, "by-hash") {
					byHash = f
				}
			}
			a.Clear().Add(curl)
			a.Edit(byHash, breakIt)
			l := newLoader(t)
			waited := 0
			l.paused = func() {
				if waited++; waited == 2 {
					a.Publish()
				}
			}
			check(t, l, curlDump, a.Archive())
			if waited != 2 {
				t.Errorf("waited %d times", waited)
			}
			a.Clear().Add(curl)
			a.Edit(byHash, breakIt)
			l = newLoader(t)
			if got := dump(l.load(a.Archive())); !strings.Contains(got, "main/binary-arm64/Packages: the mirror does not have what its InRelease lists; it may be in the middle of an update: ") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// TestDamagedCache damages every file of the cache.
func TestDamagedCache(t *testing.T) {
	a := archivetest.New(t, "trixie").Add(curl)
	l := newLoader(t)
	check(t, l, curlDump, a.Archive())
	damaged := 0
	filepath.Walk(l.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		damaged++
		return os.WriteFile(path, []byte("damaged"), 0o644)
	})
	if damaged != 3 {
		t.Errorf("%d files in the cache", damaged)
	}
	check(t, l, curlDump, a.Archive())
	l.offline = true
	check(t, l, curlDump, a.Archive())
}

func TestBadIndex(t *testing.T) {
	a := archivetest.New(t, "trixie").Add(archivetest.Deb{Package: "curl", Version: "x"})
	check(t, newLoader(t), `error: archive debian: suite trixie: main/binary-arm64/Packages: package "curl": version "x": it does not start with a digit`, a.Archive())
}

func TestKeys(t *testing.T) {
	a := archivetest.New(t, "trixie").Add(curl).Archive()
	a.Keys = append(archivetest.PublicKey(t, archivetest.NewKey(t)), a.Keys...)
	check(t, newLoader(t), curlDump, a)
	for keys, want := range map[string]string{
		"":       "it is empty",
		"no key": "openpgp: ",
		"-----BEGIN PGP PUBLIC KEY BLOCK-----\nx": "openpgp: ",
	} {
		a.Keys = []byte(keys)
		if got := dump(newLoader(t).load(a)); !strings.HasPrefix(got, "error: archive debian: cannot read its keys: "+want) {
			t.Errorf("%q: got %s", keys, got)
		}
	}
	debian, err := archive.Debian("trixie", archive.Mirrors{Debian: []string{"http://127.0.0.1:1/debian"}})
	if err != nil || len(debian) != 2 {
		t.Fatal(err)
	}
	if got := dump(newLoader(t).load(debian...)); !strings.Contains(got, "InRelease") && !strings.Contains(got, "no mirror") {
		t.Errorf("got %s", got)
	}
}

func TestHostMirrors(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, "[http://ftp.debian.org/debian] [http://security.debian.org/debian-security]"},
		{"one-line", map[string]string{"sources.list": `# deb http://commented.example/debian trixie main
deb http://a.example/debian/ trixie main contrib # comment
deb-src http://src.example/debian trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://b.example/x/debian-security trixie-security main
deb cdrom:[Debian]/ trixie main
deb
debug http://c.example/debian trixie main
`}, "[http://a.example/debian] [https://b.example/x/debian-security]"},
		{"deb822", map[string]string{"sources.list.d/debian.sources": `Types: deb deb-src
# a comment
URIs: http://a.example/debian http://b.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian-security
Suites: bookworm-security
Components: main
Enabled: no

Types: deb
URIs: http://a.example/debian-security
Suites: bookworm-security
Components: main
`}, "[http://a.example/debian http://b.example/debian] [http://a.example/debian-security]"},
		{"not Debian", map[string]string{
			"sources.list":                 "deb http://archive.ubuntu.com/ubuntu noble main\n",
			"sources.list.d/docker.list":   "deb https://docker.example/linux/debian trixie stable\n",
			"sources.list.d/other.list":    "deb [signed-by=/usr/share/keyrings/other.gpg] http://other.example/debian trixie main\n",
			"sources.list.d/raspi.sources": "Types: deb\nURIs: http://archive.raspberrypi.com/debian/\nSuites: trixie\nComponents: main\n",
			"sources.list.d/bad.sources":   "nonsense",
			"sources.list.d/x.list.save":   "deb http://saved.example/debian trixie main\n",
			"sources.list.d/user.list":     "deb http://user:password@private.example/debian trixie main\n",
		}, "[http://ftp.debian.org/debian] [http://security.debian.org/debian-security]"},
	}
	for _, test := range tests {
		etc := fstest.MapFS{}
		for name, text := range test.files {
			etc[name] = &fstest.MapFile{Data: []byte(text)}
		}
		m := archive.HostMirrors(etc)
		if got := fmt.Sprint(m.Debian, m.Security); got != test.want {
			t.Errorf("%s: got %s", test.name, got)
		}
	}
}

func TestURLs(t *testing.T) {
	got := archive.URLs([]string{"http://a.example/debian/", "http://b.example"}, "debian", "pool/main/c/curl.deb", "https://snapshot.example/archive", time.Unix(1_750_000_000, 0))
	want := "http://a.example/debian/pool/main/c/curl.deb http://b.example/pool/main/c/curl.deb " +
		"https://snapshot.example/archive/debian/20250615T150640Z/pool/main/c/curl.deb"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v", got)
	}
}
