package shell

import (
	"bytes"
	"context"
	"io"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// DefaultPath is the PATH of a process that was given none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// exec runs the program that p.Args names, in a process of its own.
func (r *run) exec(ctx context.Context, p *Process) int {
	r.step()
	r.enter()
	defer r.leave()
	if len(p.Args) == 0 {
		return 127
	}
	dirs, ok := p.Env["PATH"]
	if !ok {
		dirs = DefaultPath
	}
	prog, status := r.find(p, p.Args[0], dirs)
	if status != 0 {
		return status
	}
	return r.start(ctx, p, prog)
}

// find looks a program up in a PATH, or where its path says; the status is 127
// if there is none and 126 if it cannot be executed.
func (r *run) find(p *Process, name, dirs string) (file string, status int) {
	if name == "" {
		return "", 127
	}
	if strings.Contains(name, "/") {
		return p.Path(name), r.executable(p, p.Path(name))
	}
	status = 127
	for _, dir := range strings.Split(dirs, ":") {
		file := p.Path(path.Join(dir, name))
		switch r.executable(p, file) {
		case 0:
			return file, 0
		case 126:
			status = 126
		}
	}
	return "", status
}

func (r *run) executable(p *Process, file string) int {
	n, err := p.Stat(file)
	switch {
	case err != nil:
		return 127
	case !n.IsRegular() || n.Mode&0o111 == 0:
		return 126
	}
	return 0
}

// start runs the program at file, an absolute path.
func (r *run) start(ctx context.Context, p *Process, file string) int {
	if c := r.command(p.Args[0], file); c != nil {
		defer func() { r.held -= p.held }()
		return r.protect(func() int { return c(ctx, p) })
	}
	n, err := p.Stat(file)
	if err != nil {
		return 127
	}
	interpreter, ok := shebang(n)
	if !ok {
		r.stop(&UnknownCommandError{p.Args[0]})
	}
	text, err := p.Tree.ReadFile(file)
	if err != nil {
		return 126
	}
	if strings.Contains(p.Args[0], "/") {
		file = p.Args[0]
	}
	args := append([]string{file}, p.Args[1:]...)
	return r.interpret(p, file, text, args, interpreter == "bash")
}

// command returns what stands in for the program at file.
func (r *run) command(name, file string) Command {
	lookup := r.shell.cfg.Lookup
	base := path.Base(file)
	switch path.Base(path.Dir(file)) {
	case "bin", "sbin":
	default:
		if lookup == nil {
			return nil
		}
		return lookup(file)
	}
	switch base {
	case "sh", "dash", "bash":
		return shCommand
	}
	if lookup == nil {
		return nil
	}
	if c := lookup(file); c != nil {
		return c
	}
	if c := lookup(base); c != nil {
		return c
	}
	// A link of the alternatives system: awk is mawk.
	if real, err := r.shell.cfg.Tree.RealPath(file); err == nil && path.Base(real) != base {
		return lookup(path.Base(real))
	}
	return nil
}

// shebang returns the shell a file wants to be run by; a text without a #!
// line is run by sh, as execvp does.
func shebang(n *tree.Inode) (string, bool) {
	if n.Content == nil {
		return "sh", true
	}
	head := make([]byte, min(256, n.Size()))
	if _, err := n.Content.ReadAt(head, 0); err != nil && err != io.EOF {
		return "", false
	}
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "sh", bytes.IndexByte(head, 0) < 0
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) > 1 && path.Base(fields[0]) == "env" {
		fields = fields[1:]
	}
	if len(fields) == 0 {
		return "", false
	}
	switch base := path.Base(fields[0]); base {
	case "sh", "dash", "bash":
		return base, true
	}
	return "", false
}
