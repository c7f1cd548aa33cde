package shell_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/maintscript/coreutils"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

func run(t testing.TB, root *tree.Tree, text string, limits shell.Limits) (status int, stdout string, err error) {
	commands := coreutils.Commands()
	var out bytes.Buffer
	sh := shell.New(shell.Config{Tree: root, Limits: limits, Lookup: func(name string) shell.Command { return commands[name] }})
	status, err = sh.Run(context.Background(), shell.Script{
		Name: "pkg.postinst", Text: []byte(text), Dir: "/w", Stdout: &out, Stderr: &out,
	})
	return status, out.String(), err
}

// TestStopped runs scripts that must be stopped rather than fail, however
// they guard themselves.
func TestStopped(t *testing.T) {
	small := shell.Limits{Steps: 20000, Depth: 50, Output: 1 << 20, Processes: 20, Memory: 1 << 16, Time: 5 * time.Second}
	unknown := &shell.UnknownCommandError{}
	limit := &shell.LimitError{}
	unsupported := &shell.UnsupportedError{}
	for _, test := range []struct {
		name, script string
		want         any
		line         int
	}{
		{"unknown command", "true\nmystery a || true\necho no", &unknown, 2},
		{"unknown in condition", "if mystery; then :; fi", &unknown, 1},
		{"unknown in substitution", "x=1\n\nx=$(mystery) || :", &unknown, 3},
		{"unknown in pipeline", "echo | mystery | cat || true", &unknown, 1},
		{"unknown in background", "mystery &\nwait\ntrue", &unknown, 1},
		{"unknown by xargs", "echo a | xargs mystery || true", &unknown, 1},
		{"unknown by path", "/usr/bin/mystery || true", &unknown, 1},
		{"unknown by exec", "(exec mystery) || true", &unknown, 1},
		{"unknown in trap", "trap mystery EXIT", &unknown, 1},
		{"unknown in sh -c", "sh -c 'mystery || true'", &unknown, 1},
		{"unknown in function", "f() {\n  mystery\n}\nf || true", &unknown, 2},
		{"unknown interpreter", "/w/script.pl || true", &unknown, 1},
		{"endless loop", "while :; do :; done", &limit, 1},
		{"endless empty loop", "while true\ndo continue\ndone", &limit, 2},
		{"endless recursion", "f() { f; }; f", &limit, 1},
		{"endless eval", "x='eval \"$x\"'; eval \"$x\"", &limit, 1},
		{"endless script", "echo '. ./x' >x; . ./x", &limit, 1},
		{"script that calls itself", "echo './y' >y; chmod +x y; ./y", &limit, 1},
		{"fork bomb", "f() { f | f & }; f; wait", &limit, 1},
		{"many processes", "while :; do cat | cat & done", &limit, 1},
		{"endless output", "yes", &limit, 1},
		{"endless file", "yes >big", &limit, 1},
		{"endless append", "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done >>big", &limit, 1},
		{"growing variable", "x=aaaa; while :; do x=$x$x; done", &limit, 1},
		{"growing substitution", "x=$(yes)", &limit, 1},
		{"growing arguments", "set -- a; while :; do set -- \"$@\" \"$@\"; done", &limit, 1},
		{"growing line", "yes | tr -d '\\n' | read x", &limit, 1},
		{"syntax error", "echo a\nif then", new(error), 2},
		{"process substitution", "#!/bin/bash\ncat <(echo a)", &unsupported, 2},
		{"unknown option", "sort --compress-program=x a.txt || true", &unsupported, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			root := testTree(t)
			root.WriteFile("/usr/bin/mystery", []byte("\x7fELF\x00"), 0o755)
			root.WriteFile("/w/script.pl", []byte("#!/usr/bin/perl\n"), 0o755)
			_, out, err := run(t, root, test.script, small)
			var stopped *shell.Error
			if !errors.As(err, &stopped) || !errors.As(err, test.want) {
				t.Fatalf("error %v, output %.200q", err, out)
			}
			if stopped.Line != test.line && test.line > 0 {
				t.Errorf("line %d, want %d: %v", stopped.Line, test.line, err)
			}
		})
	}
}

// TestExists: what the tree holds exists, emulated or not.
func TestExists(t *testing.T) {
	root := testTree(t)
	root.WriteFile("/usr/bin/mystery", []byte("\x7fELF\x00"), 0o755)
	status, out, err := run(t, root, `
		command -v mystery
		which mystery
		[ -x /usr/bin/mystery ] && echo there
		command -v absent || echo absent
		absent || echo $?`, shell.Limits{})
	want := "/usr/bin/mystery\n/usr/bin/mystery\nthere\nabsent\npkg.postinst: 6: absent: not found\n127\n"
	if status != 0 || err != nil || out != want {
		t.Errorf("status %d, error %v, output %q, want %q", status, err, out, want)
	}
}

// TestConfined: links do not lead out, and the host's files are not seen.
func TestConfined(t *testing.T) {
	root := testTree(t)
	root.Symlink("../../../../../../../../../etc/passwd", "/w/up")
	_, out, err := run(t, root, `cat up /etc/passwd /proc/self/environ; echo x >up; cat /etc/passwd; cat ../../../../w/a.txt`, shell.Limits{})
	if err != nil || !strings.HasSuffix(out, "\nx\nfirst line\nsecond line\n") || strings.Contains(out, "root:") {
		t.Errorf("error %v, output %q", err, out)
	}
}

// TestRollback: a script that is stopped leaves nothing behind once the
// caller rolls back.
func TestRollback(t *testing.T) {
	root := testTree(t)
	before := dump(root)
	mark := root.Mark()
	root.WriteFile("/usr/bin/mystery", []byte("\x7fELF\x00"), 0o755)
	_, _, err := run(t, root, `echo new >>a.txt; rm b.txt; mv dir d2; chmod 700 /tmp; exec 3>>a.txt; echo x >&3; mystery`, shell.Limits{})
	if err == nil {
		t.Fatal("not stopped")
	}
	root.Rollback(mark)
	if after := dump(root); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func dump(root *tree.Tree) string {
	var b strings.Builder
	for p, n := range root.All() {
		b.WriteString(p)
		if n.IsRegular() {
			data, _ := root.ReadFile(p)
			b.Write(data)
		}
		b.WriteByte(byte('0' + n.Perm()%7))
		b.WriteByte('\n')
	}
	return b.String()
}

// TestDebconf: a conversation over descriptor 3 with a server that answers on
// standard input, as debconf's confmodule has it.
func TestDebconf(t *testing.T) {
	answers := &bytes.Buffer{}
	var asked []string
	server := writer(func(b []byte) (int, error) {
		asked = append(asked, strings.TrimSpace(string(b)))
		answers.WriteString("0 yes\n")
		return len(b), nil
	})
	sh := shell.New(shell.Config{Tree: testTree(t)})
	var errs bytes.Buffer
	status, err := sh.Run(context.Background(), shell.Script{
		Name: "x.config", Dir: "/w", Stdin: answers, Stdout: server, Stderr: &errs,
		Text: []byte("exec 3>&1 1>&2\necho GET a/b >&3\nread -r code answer\necho \"$code $answer\"\n"),
	})
	if status != 0 || err != nil || errs.String() != "0 yes\n" || len(asked) != 1 || asked[0] != "GET a/b" {
		t.Errorf("status %d, error %v, asked %q, said %q", status, err, asked, errs.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestCancelled: a run ends soon after its context does.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	sh := shell.New(shell.Config{Tree: testTree(t), Limits: shell.Limits{Steps: 1 << 40}})
	_, err := sh.Run(ctx, shell.Script{Name: "x", Text: []byte("while :; do x=$(:); done")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func FuzzRun(f *testing.F) {
	for _, table := range []string{"testdata/dash.txt", "testdata/bash.txt"} {
		for _, s := range snippets(f, table) {
			f.Add(s.text, table == "testdata/bash.txt")
		}
	}
	limits := shell.Limits{Steps: 2000, Depth: 30, Output: 1 << 18, Processes: 10, Memory: 1 << 14, Time: 2 * time.Second}
	f.Fuzz(func(t *testing.T, script string, bash bool) {
		if bash {
			script = "#!/bin/bash\n" + script
		}
		_, _, err := run(t, testTree(t), script, limits)
		if err != nil && strings.Contains(err.Error(), "goroutine") {
			t.Error(err) // a panic inside
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("too slow")
		}
	})
}

func BenchmarkRun(b *testing.B) {
	script := `set -e
case "$1" in configure) ;; esac
for i in 1 2 3 4 5 6 7 8 9 10; do
	x=$(basename "/usr/lib/$i.so" .so)
	if [ -e "/w/$x" ] || ! grep -q line /w/a.txt; then exit 1; fi
	printf '%s\n' "$x" | sed 's/1/2/' >>/w/out
done`
	b.ReportAllocs()
	for b.Loop() {
		if status, out, err := run(b, testTree(b), script, shell.Limits{}); status != 0 || err != nil {
			b.Fatal(status, out, err)
		}
	}
}
