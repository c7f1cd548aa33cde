package debian_test

import (
	"context"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/debian/resolve"
)

// TestInstalled adds packages to what is there, of which nothing is upgraded.
func TestInstalled(t *testing.T) {
	a := newArchive(t).Add(
		archivetest.Deb{Package: "needs-new", Fields: "Depends: libc6 (>= 2.41)"},
		archivetest.Deb{Package: "needs-virtual", Fields: "Depends: lsb-base"},
		archivetest.Deb{Package: "lsb-base"},
		archivetest.Deb{Package: "needs-old", Fields: "Depends: libc6 (>= 2.36), mc"},
	)
	further := archivetest.New(t, "stable").Add(archivetest.Deb{Package: "mc", Version: "4.7"})
	further.Name = "further"
	pinned := further.Archive()
	pinned.Pin = 990
	installed := []index.Package{
		{Name: "libc6", Version: "2.36-9", Arch: "arm64", Suite: "the image"},
		{Name: "sysvinit-utils", Version: "3", Arch: "arm64", Suite: "the image", Provides: "lsb-base (= 11)"},
	}
	resolveOn := func(name string) (string, error) {
		r, err := resolve.ParseRequest(name, "x.hcl")
		if err != nil {
			t.Fatal(err)
		}
		c := archive.Config{Cache: newCache(t.TempDir(), false), Arch: "arm64", Now: now(), Pause: noPause}
		_, sets, err := debian.Resolve(context.Background(), c, []archive.Archive{a.Archive(), pinned},
			[]debian.Wish{{Set: "node", Requests: []resolve.Request{r}, Installed: installed}})
		var got []string
		for _, s := range sets {
			for _, p := range s.Packages {
				got = append(got, p.Name+" "+p.Version+" of "+p.Archive)
			}
		}
		return strings.Join(got, ", "), err
	}
	if got, err := resolveOn("needs-old"); err != nil || got != "mc 4.7 of further, needs-old 1.0 of debian" {
		t.Errorf("got %s: %v", got, err)
	}
	if got, err := resolveOn("needs-virtual"); err != nil || got != "needs-virtual 1.0 of debian" {
		t.Errorf("got %s: %v", got, err)
	}
	if got, err := resolveOn("libc6"); err != nil || got != "" {
		t.Errorf("what is there is enough, got %s: %v", got, err)
	}
	if _, err := resolveOn("needs-new"); err == nil || !strings.Contains(err.Error(), "available is libc6 2.36-9 in the image") {
		t.Errorf("got %v", err)
	}
}
