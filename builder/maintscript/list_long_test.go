//go:build long

package maintscript_test

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
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/maintscript"
	"github.com/picube/picube-build/builder/source"
	"github.com/picube/picube-build/builder/tree"
)

// wishes is what a node of the five-node cube holds beside the base system.
var wishes = strings.Fields(`systemd systemd-sysv udev dbus linux-image-arm64 raspi-firmware initramfs-tools iproute2
	openssh-server avahi-daemon libnss-mdns wpasupplicant firmware-brcm80211 wireless-regdb containerd runc iptables
	conntrack ethtool socat kmod ca-certificates chrony i2c-tools sudo`)

// modules keeps depmod's work, as the builder does.
type modules map[string][]byte

func (m modules) Get(key string) ([]byte, bool)     { b, ok := m[key]; return b, ok }
func (m modules) Put(key string, data []byte) error { m[key] = data; return nil }

// cube opens the packages of the five-node cube, from the user's cache after
// the first time.
func cube(t testing.TB) []dpkg.Archive {
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache := source.New(source.Config{Dir: filepath.Join(dir, "picube-test"), Now: time.Now})
	archives, err := archive.Debian("trixie", archive.HostMirrors(os.DirFS("/etc/apt")))
	if err != nil {
		t.Fatal(err)
	}
	wish := debian.Wish{Set: "node"}
	for _, w := range wishes {
		r, err := resolve.ParseRequest(w, "the test")
		if err != nil {
			t.Fatal(err)
		}
		wish.Requests = append(wish.Requests, r)
	}
	_, sets, err := debian.Resolve(t.Context(), archive.Config{Cache: cache, Arch: "arm64", Now: time.Now()}, archives, []debian.Wish{wish})
	if err != nil {
		t.Fatal(err)
	}
	store := deb.NewStore(filepath.Join(dir, "picube-test", "decoded"), time.Now)
	t.Cleanup(func() { store.Close() })
	o := &debian.Opener{Cache: cache, Store: store, Mirrors: debian.Mirrors(archives), Update: "picube-build update"}
	opened, err := o.Open(t.Context(), sets[0].Packages)
	if err != nil {
		t.Fatal(err)
	}
	var out []dpkg.Archive
	for _, p := range opened {
		out = append(out, dpkg.Archive{Control: p.Control, Entries: p.Entries})
	}
	return out
}

// TestCube configures every package of the five-node cube.
func TestCube(t *testing.T) {
	archives := cube(t)
	report, err := maintscript.Configure(t.Context(), tree.New(1793491200), archives, maintscript.Options{Arch: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range report.Packages {
		if p.Status != dpkg.Installed {
			t.Errorf("%s is %s: %v", p.Name, p.Status, p.Why)
		}
	}
	if len(report.Packages) != len(archives) || len(report.Kernels) != 1 {
		t.Errorf("%d packages of %d, kernels %v", len(report.Packages), len(archives), report.Kernels)
	}
}

// BenchmarkCube is the whole of it but depmod, which has a cache of its own.
func BenchmarkCube(b *testing.B) {
	archives := cube(b)
	o := maintscript.Options{Arch: "arm64", Depmod: modules{}}
	if _, err := maintscript.Configure(context.Background(), tree.New(1793491200), archives, o); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := maintscript.Configure(context.Background(), tree.New(1793491200), archives, o); err != nil {
			b.Fatal(err)
		}
	}
}
