package coreutils_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/maintscript/coreutils"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// The files that every snippet finds in its working directory.
var startFiles = map[string]string{
	"a.txt":   "first line\nsecond line\n",
	"b.txt":   "b one\nb two, no newline",
	"dir/x":   "x\n",
	"dir/y":   "y\n",
	".hidden": "",
}

type outcome struct {
	status         int
	stdout, stderr string
	files          map[string]string
}

// TestCommands runs every snippet with the real programs and with ours and
// compares output, exit status, whether anything was said on stderr, and the
// files that are left.
func TestCommands(t *testing.T) { differential(t, "dash", "testdata/commands.txt") }

func differential(t *testing.T, program, table string) {
	real, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range snippets(t, table) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			text := s.text
			want := runReal(t, real, text)
			got := runOurs(t, program, text)
			if got.status != want.status || got.stdout != want.stdout || (got.stderr == "") != (want.stderr == "") {
				t.Errorf("%s\ngot  status %d, stdout %q, stderr %q\nwant status %d, stdout %q, stderr %q",
					text, got.status, got.stdout, got.stderr, want.status, want.stdout, want.stderr)
			}
			names := map[string]bool{}
			for name := range got.files {
				names[name] = true
			}
			for name := range want.files {
				names[name] = true
			}
			for name := range names {
				if strings.HasPrefix(name, "err") { // messages, worded our own way
					continue
				}
				g, okG := got.files[name]
				w, okW := want.files[name]
				if g != w || okG != okW {
					t.Errorf("%s\nfile %s: got %q, %t; want %q, %t", text, name, g, okG, w, okW)
				}
			}
		})
	}
}

type snippet struct{ name, text string }

// snippets reads a table: each snippet follows a line "### name".
func snippets(t testing.TB, table string) []snippet {
	data, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	var list []snippet
	for _, entry := range strings.Split("\n"+string(data), "\n### ")[1:] {
		name, text, _ := strings.Cut(entry, "\n")
		list = append(list, snippet{name, text})
	}
	return list
}

func runReal(t *testing.T, program, text string) outcome {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	work, script := filepath.Join(dir, "w"), filepath.Join(dir, "script")
	for name, content := range startFiles {
		p := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(program, script)
	cmd.Dir, cmd.Stdout, cmd.Stderr = work, &stdout, &stderr
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=/root", "TMPDIR=" + dir, "PWD=" + work}
	cmd.Run()
	o := outcome{status: cmd.ProcessState.ExitCode(), files: map[string]string{}}
	fs.WalkDir(os.DirFS(work), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, _ := os.ReadFile(filepath.Join(work, p))
			o.files[p] = strings.ReplaceAll(string(b), dir, "")
		}
		return nil
	})
	o.stdout, o.stderr = strings.ReplaceAll(stdout.String(), dir, ""), stderr.String()
	return o
}

// testTree returns a tree with the start files under /w and every command
// that there is.
func testTree(t testing.TB) *tree.Tree {
	root := tree.New(1_000_000_000)
	for _, dir := range []string{"/w/dir", "/tmp", "/usr/bin", "/etc"} {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"sh", "dash", "bash"}
	for name := range coreutils.Commands() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		root.WriteFile("/usr/bin/"+name, []byte("\x7fELF\x00"), 0o755)
	}
	for name, content := range startFiles {
		root.WriteFile("/w/"+name, []byte(content), 0o644)
	}
	root.Symlink("usr/bin", "/bin")
	return root
}

func runOurs(t *testing.T, program, text string) outcome {
	root := testTree(t)
	commands := coreutils.Commands()
	var stdout, stderr bytes.Buffer
	sh := shell.New(shell.Config{Tree: root, Lookup: func(name string) shell.Command { return commands[name] }})
	if program == "bash" {
		text = "#!/bin/bash\n" + text
	}
	status, err := sh.Run(context.Background(), shell.Script{
		Name: "/script", Text: []byte(text), Dir: "/w",
		Env:    map[string]string{"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/root", "PWD": "/w", "TMPDIR": "/tmp"},
		Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil {
		t.Errorf("%s\nstopped: %v", text, err)
	}
	o := outcome{status: status, stdout: stdout.String(), stderr: stderr.String(), files: map[string]string{}}
	for p, n := range root.Below("/w") {
		if n.IsRegular() {
			b, err := root.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			o.files[strings.TrimPrefix(p, "/w/")] = string(b)
		}
	}
	return o
}
