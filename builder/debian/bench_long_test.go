//go:build long

package debian_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/resolve"
	"github.com/picube/picube-build/builder/source"
)

// BenchmarkResolve is what an update costs once the indices are in the cache.
func BenchmarkResolve(b *testing.B) {
	dir, err := os.UserCacheDir()
	if err != nil {
		b.Fatal(err)
	}
	archives, err := archive.Debian("trixie", archive.HostMirrors(os.DirFS("/etc/apt")))
	if err != nil {
		b.Fatal(err)
	}
	w := debian.Wish{Set: "node"}
	for _, name := range wishes {
		r, err := resolve.ParseRequest(name, "picube.hcl")
		if err != nil {
			b.Fatal(err)
		}
		w.Requests = append(w.Requests, r)
	}
	offline := false
	resolveOnce := func() {
		cache := source.New(source.Config{Dir: filepath.Join(dir, "picube-test"), Now: time.Now, Offline: offline})
		c := archive.Config{Cache: cache, Arch: "arm64", Now: time.Now()}
		if _, _, err := debian.Resolve(context.Background(), c, archives, []debian.Wish{w}); err != nil {
			b.Fatal(err)
		}
	}
	resolveOnce()
	offline = true
	b.ReportAllocs()
	for b.Loop() {
		resolveOnce()
	}
}
