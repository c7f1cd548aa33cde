package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// dump lists a tree, one entry a line.
func dump(t *Tree) []string {
	var out []string
	for p, n := range t.All() {
		line := fmt.Sprintf("%s %o %d:%d x%d", p, n.Mode, n.UID, n.GID, n.Links())
		if n.IsSymlink() {
			line += " -> " + n.Target
		}
		if n.IsRegular() {
			data, _ := t.ReadFile(p)
			line += fmt.Sprintf(" %q", data)
		}
		out = append(out, line)
	}
	return out
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// merged is a small usr-merged system.
func merged(t *testing.T) *Tree {
	tr := New(1700000000)
	must(t,
		tr.MkdirAll("/usr/bin", 0o755), tr.Mkdir("/usr/lib", 0o755),
		tr.Symlink("usr/bin", "/bin"), tr.Symlink("/usr/lib", "/lib"),
		tr.WriteFile("/bin/sh", []byte("dash"), 0o755),
		tr.Link("/usr/bin/sh", "/usr/bin/dash"),
	)
	return tr
}

func TestLinksLeadInside(t *testing.T) {
	tr := merged(t)
	must(t, tr.Symlink("../../../../etc", "/usr/up"), tr.Mkdir("/etc", 0o755), tr.WriteFile("/usr/up/passwd", nil, 0o644),
		tr.Symlink("b", "/a"), tr.Symlink("a", "/b"))
	tests := map[string]string{
		"/lib/../bin/sh":     "/usr/bin/sh",
		"/usr/up/passwd":     "/etc/passwd",
		"/../../bin/missing": "/usr/bin/missing",
		"//usr/./bin//":      "/usr/bin",
		"/":                  "/",
		"/bin":               "/usr/bin",
	}
	for p, want := range tests {
		if got, err := tr.RealPath(p); err != nil || got != want {
			t.Errorf("RealPath(%q) = %q, %v; want %q", p, got, err, want)
		}
	}
	for p, want := range map[string]error{"/a/x": ErrLoop, "/bin/sh/x": ErrNotDir, "/none/x": fs.ErrNotExist, "/bin/sh/": ErrNotDir} {
		if _, err := tr.Stat(p); !errors.Is(err, want) {
			t.Errorf("Stat(%q): %v, want %v", p, err, want)
		}
	}
}

func TestRollback(t *testing.T) {
	tr := merged(t)
	before := dump(tr)
	mark := tr.Mark()
	must(t,
		tr.WriteFile("/bin/sh", []byte("other"), 0o700),
		tr.Chmod("/bin/dash", 0o4755), tr.Chown("/bin", 5, 6), tr.Lchown("/bin", 7, 8),
		tr.SetXattr("/bin/sh", "security.capability", "x"), tr.SetModTime("/bin", 5),
		tr.Rename("/usr/lib", "/usr/lib64"), tr.Remove("/lib"),
		tr.Mknod("/null", TypeChar|0o666, 1, 3),
		tr.RemoveAll("/usr/bin"),
	)
	inner := tr.Mark()
	must(t, tr.MkdirAll("/x/y/z", 0o755))
	tr.Commit(inner)
	tr.Rollback(mark)
	if after := dump(tr); !slices.Equal(before, after) {
		t.Errorf("after the rollback:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
	if n, _ := tr.Stat("/bin/sh"); len(n.Xattrs) > 0 || n.Links() != 2 {
		t.Errorf("attributes %v, %d links", n.Xattrs, n.Links())
	}
}

func TestRefusals(t *testing.T) {
	tr := merged(t)
	tests := map[string]struct {
		err  error
		want error
	}{
		"mkdir over a file":      {tr.Mkdir("/bin/sh", 0o755), fs.ErrExist},
		"mkdir without a parent": {tr.Mkdir("/a/b", 0o755), fs.ErrNotExist},
		"write to a directory":   {tr.WriteFile("/usr", nil, 0o644), ErrIsDir},
		"remove a full one":      {tr.Remove("/usr"), ErrNotEmpty},
		"remove the root":        {tr.RemoveAll("/"), ErrInvalid},
		"rename into itself":     {tr.Rename("/usr", "/usr/bin/x"), ErrInvalid},
		"rename over a full one": {tr.Rename("/usr/lib", "/usr/bin"), ErrNotEmpty},
		"link a directory":       {tr.Link("/usr", "/u"), ErrIsDir},
		"put over a directory":   {tr.Put("/usr", &Inode{Mode: TypeRegular}), ErrIsDir},
		"a name too long":        {tr.Mkdir("/"+strings.Repeat("x", 256), 0o755), ErrInvalid},
	}
	for name, test := range tests {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", name, test.err, test.want)
		}
	}
}
