//go:build long

package debian_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/source"
)

// wishes is what a node of the five-node cube holds beside the base system.
var wishes = strings.Fields(`systemd systemd-sysv udev dbus linux-image-arm64 raspi-firmware initramfs-tools iproute2
	openssh-server avahi-daemon libnss-mdns wpasupplicant firmware-brcm80211 wireless-regdb containerd runc iptables
	conntrack ethtool socat kmod ca-certificates chrony i2c-tools sudo`)

// TestRealArchive resolves, downloads and decodes what a card holds.
func TestRealArchive(t *testing.T) {
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache := source.New(source.Config{Dir: filepath.Join(dir, "picube-test"), Now: time.Now})
	archives, err := archive.Debian("trixie", archive.HostMirrors(os.DirFS("/etc/apt")))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	lap := func() time.Duration {
		d := time.Since(start)
		start = time.Now()
		return d.Round(time.Millisecond)
	}
	suites, sets, err := debian.Resolve(context.Background(), archive.Config{Cache: cache, Arch: "arm64", Now: time.Now()}, archives, wish(t, wishes...))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resolved in %v", lap())
	l := &lock.Lock{Created: start, Suites: suites, Sets: sets}
	path := filepath.Join(t.TempDir(), "x.lock.hcl")
	if err := l.Write(path); err != nil {
		t.Fatal(err)
	}
	t.Logf("lock written in %v", lap())
	if l, err = lock.Read(path); err != nil {
		t.Fatal(err)
	}
	t.Logf("lock of %d bytes read in %v", len(l.Bytes()), lap())
	packages := l.Sets[0].Packages
	var total int64
	for _, p := range packages {
		total += p.Size
		t.Logf("%s %s: %s", p.Name, p.Version, strings.Join(l.Sets[0].Why(p.Name), " -> "))
	}
	// It was 180 in November 2026; point releases change little.
	if len(packages) < 150 || len(packages) > 210 {
		t.Errorf("%d packages", len(packages))
	}
	t.Logf("%d packages, %d MB", len(packages), total>>20)
	store := deb.NewStore(filepath.Join(t.TempDir(), "decoded"), time.Now)
	defer store.Close()
	o := &debian.Opener{Cache: cache, Store: store, Mirrors: debian.Mirrors(archives), Update: "picube-build update"}
	lap()
	for _, state := range []string{"cold", "warm"} {
		opened, err := o.Open(context.Background(), packages)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: opened in %v", state, lap())
		var entries, files, links, dirs, bytes int64
		owner := map[string]string{}
		for _, p := range opened {
			for _, e := range p.Entries() {
				entries++
				switch n := e.Inode; {
				case n.IsDir():
					dirs++
					continue
				case n.IsSymlink():
					links++
				case n.IsRegular():
					files++
					bytes += n.Size()
				}
				if other := owner[e.Path]; other != "" {
					t.Errorf("%s is in %s and in %s", e.Path, other, p.File.Name)
				}
				owner[e.Path] = p.File.Name
			}
		}
		t.Logf("%s: %d entries: %d files with %d MB, %d directories, %d symbolic links in %v", state, entries, files, bytes>>20, dirs, links, lap())
	}
}
