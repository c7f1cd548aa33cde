package dropin

import (
	"path"
	"slices"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

func TestList(t *testing.T) {
	files := tree.New(0)
	for _, p := range []string{
		"/etc/x.d/20-b.conf", "/etc/x.d/.hidden.conf", "/etc/x.d/readme",
		"/usr/lib/x.d/10-a.conf", "/usr/lib/x.d/20-b.conf", "/usr/lib/x.d/9-c.conf",
	} {
		if err := files.MkdirAll(path.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := files.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Symlink("usr/lib", "/lib"); err != nil {
		t.Fatal(err)
	}
	got := List(files, ".conf", "/etc/x.d", "/run/x.d", "/lib/x.d")
	want := []string{"/usr/lib/x.d/10-a.conf", "/etc/x.d/20-b.conf", "/usr/lib/x.d/9-c.conf"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
