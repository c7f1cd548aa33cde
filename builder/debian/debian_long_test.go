//go:build long

package debian_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/relation"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/source"
)

// wishes is what a node of the five-node cube holds beside the base system.
var wishes = strings.Fields(`apt systemd systemd-sysv udev dbus linux-image-arm64 raspi-firmware initramfs-tools iproute2
	openssh-server avahi-daemon libnss-mdns wpasupplicant firmware-brcm80211 wireless-regdb containerd runc iptables
	conntrack ethtool socat kmod ca-certificates chrony i2c-tools sudo`)

// realCache is shared by the long tests of all packages and by later runs.
func realCache(t testing.TB) *source.Cache {
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return source.New(source.Config{Dir: filepath.Join(dir, "picube-test"), Now: time.Now})
}

func realChoices(t testing.TB, cache *source.Cache) ([]resolve.Choice, []archive.Archive) {
	mirrors := archive.HostMirrors(os.DirFS("/etc/apt"))
	archives, err := archive.Debian("trixie", mirrors)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	x, err := archive.Load(context.Background(), archive.Config{Cache: cache, Arch: "arm64", Now: time.Now()}, archives)
	if err != nil {
		t.Fatal(err)
	}
	loaded := time.Now()
	u, err := resolve.NewUniverse("arm64", x.Packages)
	if err != nil {
		t.Fatal(err)
	}
	requests := u.Base("the base system")
	for _, w := range wishes {
		requests = append(requests, resolve.Request{Relation: relation.Relation{Name: w}, By: "picube.hcl"})
	}
	indexed := time.Now()
	choices, err := u.Resolve(requests, resolve.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packages loaded in %v, indexed in %v, %d chosen in %v", len(x.Packages), loaded.Sub(start), indexed.Sub(loaded), len(choices), time.Since(indexed))
	return choices, archives
}

// TestRealArchive resolves, downloads and decodes what a card holds.
func TestRealArchive(t *testing.T) {
	cache := realCache(t)
	choices, archives := realChoices(t, cache)
	var objects []source.Object
	var total, installed int64
	for _, c := range choices {
		for _, a := range archives {
			if a.Name == c.Archive {
				objects = append(objects, object(c.Package, a))
			}
		}
		total += c.Size
		installed += c.InstalledSize
		t.Logf("%s: %s", c.Package, strings.Join(c.Why, " -> "))
	}
	t.Logf("%d packages, %d MB, installed %d MB", len(choices), total>>20, installed>>10)
	start := time.Now()
	paths, err := cache.Fetch(context.Background(), objects...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fetched in %v", time.Since(start))
	var files []deb.File
	for i, c := range choices {
		files = append(files, deb.File{Name: c.Name, Path: paths[i], SHA256: c.SHA256, Size: c.Size})
	}
	store := deb.NewStore(filepath.Join(t.TempDir(), "decoded"), time.Now)
	defer store.Close()
	for _, state := range []string{"cold", "warm"} {
		start = time.Now()
		packages, err := store.OpenAll(context.Background(), files, nil)
		if err != nil {
			t.Fatal(err)
		}
		opened := time.Since(start)
		var entries, regular, links, dirs, bytes int64
		for _, p := range packages {
			for _, e := range p.Entries() {
				entries++
				switch {
				case e.Inode.IsDir():
					dirs++
				case e.Inode.IsSymlink():
					links++
				case e.Inode.IsRegular():
					regular++
					bytes += e.Inode.Size()
				}
			}
		}
		t.Logf("%s: opened in %v; %d entries: %d files with %d MB, %d directories, %d symbolic links", state, opened, entries, regular, bytes>>20, dirs, links)
	}
}

func object(p *index.Package, a archive.Archive) source.Object {
	return source.Object{Name: p.String(), URLs: archive.URLs(a.URLs, a.Name, p.Filename, "", time.Time{}), SHA256: p.SHA256, Size: p.Size}
}
