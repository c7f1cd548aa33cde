// Package scripttest runs shell scripts over small trees, for the tests of
// the programs that maintainer scripts call.
package scripttest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/maintscript/coreutils"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// Epoch is the time of all trees here: day 20000 of shadow(5).
const Epoch = 20000 * 86400

// Tree makes a tree: a path that ends in "/" is a directory, a text that
// starts with "-> " a link, a path with a mode before it ("0640 /etc/x") has
// that mode.
func Tree(t *testing.T, files map[string]string) *tree.Tree {
	t.Helper()
	tr := tree.New(Epoch)
	for _, dir := range []string{"/etc", "/tmp", "/usr/bin", "/usr/sbin", "/usr/lib", "/var/lib"} {
		check(t, tr.MkdirAll(dir, 0o755))
	}
	for link, target := range map[string]string{"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib"} {
		check(t, tr.Symlink(target, link))
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		text := files[path]
		perm := uint32(0o644)
		if mode, rest, found := strings.Cut(path, " "); found {
			if _, err := fmt.Sscanf(mode, "%o", &perm); err != nil {
				t.Fatal(err)
			}
			path = rest
		}
		switch {
		case strings.HasSuffix(path, "/"):
			check(t, tr.MkdirAll(strings.TrimSuffix(path, "/"), 0o755))
			continue
		case strings.Contains(path[1:], "/"):
			check(t, tr.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755))
		}
		if target, found := strings.CutPrefix(text, "-> "); found {
			check(t, tr.Symlink(target, path))
			continue
		}
		check(t, tr.WriteFile(path, []byte(text), perm))
	}
	return tr
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Run runs a script with coreutils and the given programs and returns what it
// printed, standard error among it, and its exit status if that is not 0.
func Run(t *testing.T, tr *tree.Tree, programs map[string]shell.Command, script string) string {
	t.Helper()
	all := coreutils.Commands()
	maps.Copy(all, programs)
	for name := range all {
		if !strings.Contains(name, "/") && !tr.Exists("/usr/bin/"+name) {
			check(t, tr.WriteFile("/usr/bin/"+name, []byte("\x7fELF"), 0o755))
		}
	}
	s := shell.New(shell.Config{Tree: tr, Lookup: func(name string) shell.Command { return all[name] }})
	var out bytes.Buffer
	status, err := s.Run(t.Context(), shell.Script{
		Name: "script", Text: []byte("#!/bin/sh\n" + script), Stdout: &out, Stderr: &out,
		Env: map[string]string{"PATH": "/usr/sbin:/usr/bin", "DPKG_MAINTSCRIPT_PACKAGE": "pkg"},
	})
	if err != nil {
		fmt.Fprintf(&out, "error: %v\n", err)
	}
	if status != 0 {
		fmt.Fprintf(&out, "status %d\n", status)
	}
	return out.String()
}

// Dump lists what lies below the paths: mode, owner unless it is root, link
// target or text.
func Dump(tr *tree.Tree, paths ...string) []string {
	var out []string
	for _, top := range paths {
		for p, n := range tr.Below(top) {
			line := fmt.Sprintf("%s %o", p, n.Perm())
			if n.UID != 0 || n.GID != 0 {
				line += fmt.Sprintf(" %d:%d", n.UID, n.GID)
			}
			switch {
			case n.IsDir():
				if p == top {
					continue
				}
				line += " dir"
			case n.IsSymlink():
				line = p + " -> " + n.Target
			default:
				text, _ := tr.ReadFile(p)
				line += " " + strings.ReplaceAll(strings.TrimSuffix(string(text), "\n"), "\n", "|")
			}
			out = append(out, line)
		}
	}
	return out
}
