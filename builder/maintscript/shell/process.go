package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Command is a program that a script may call; it returns the exit status.
//
// A command reads and writes only through p. A read or write may not return:
// a process whose pipe nobody reads any more, or whose script was stopped by
// a limit, ends there and then, by a panic that the shell recovers. So a
// command uses its streams on the goroutine it was called on and needs no
// clean-up beyond what defer does.
type Command func(ctx context.Context, p *Process) int

// Process is a running program: what it was given and the world it sees.
type Process struct {
	Args   []string          // Args[0] is the name it was called by
	Env    map[string]string // exported variables
	Dir    string            // working directory, absolute
	Umask  uint32
	Tree   *tree.Tree
	Stdin  io.Reader // never nil; a closed descriptor reads as empty
	Stdout io.Writer // never nil; a closed descriptor fails every write
	Stderr io.Writer

	files files
	run   *run
	held  int64
}

// Call says how to run a program. What is left zero is taken from the
// process, or from the shell's defaults, that runs it.
type Call struct {
	Args   []string
	Env    map[string]string
	Dir    string
	Umask  *uint32
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Run runs another program to its end as execvp would find it and returns its
// exit status: 127 if the tree has no such program, 126 if it is not
// executable. A program that the tree has but nobody emulates ends the whole
// script with an *UnknownCommandError; Run does not return then.
func (p *Process) Run(ctx context.Context, c Call) int {
	q := *p
	q.Args, q.files, q.held = c.Args, maps.Clone(p.files), 0
	if c.Env != nil {
		q.Env = c.Env
	}
	if c.Dir != "" {
		q.Dir = c.Dir
	}
	if c.Umask != nil {
		q.Umask = *c.Umask
	}
	if c.Stdin != nil {
		q.Stdin = c.Stdin
	}
	if c.Stdout != nil {
		q.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		q.Stderr = c.Stderr
	}
	return p.run.exec(ctx, &q)
}

// Hold counts bytes that a command keeps in memory until it ends. When all
// commands together hold more than Limits.Held the whole script is stopped; it
// does not return then.
func (p *Process) Hold(n int) {
	p.held += int64(n)
	if p.run.held += int64(n); p.run.held > p.run.shell.cfg.Limits.Held {
		p.run.stop(&LimitError{"bytes held by commands", p.run.shell.cfg.Limits.Held})
	}
}

// File returns the open descriptor n, 3 or higher, for reading and writing;
// nil if it is not open.
func (p *Process) File(n int) io.ReadWriter {
	if f := p.files[n]; f != nil {
		return f
	}
	return nil
}

// Path returns name as an absolute path seen from the working directory. It
// is not cleaned, so that "link/.." means what it means to the kernel.
func (p *Process) Path(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	if name == "" {
		return ""
	}
	return strings.TrimSuffix(p.Dir, "/") + "/" + name
}

// Name returns the base name the program was called by.
func (p *Process) Name() string { return path.Base(p.Args[0]) }

// Errorf writes a message to Stderr with the program's name before it and a
// newline after it.
func (p *Process) Errorf(format string, args ...any) {
	fmt.Fprintf(p.Stderr, "%s: %s\n", p.Name(), fmt.Sprintf(format, args...))
}

// Stat returns what name leads to; devices such as /dev/null exist although
// no tree holds them.
func (p *Process) Stat(name string) (*tree.Inode, error) { return stat(p.Tree, p.Path(name), true) }

// Lstat is Stat for a link itself.
func (p *Process) Lstat(name string) (*tree.Inode, error) { return stat(p.Tree, p.Path(name), false) }

// Open opens a file for reading. The name may be a device, /dev/stdin among
// them.
func (p *Process) Open(name string) (io.ReadCloser, error) {
	return p.OpenFile(name, OpenRead)
}

// Create opens a file for writing, empty, made with the umask if it is new.
func (p *Process) Create(name string) (io.WriteCloser, error) {
	return p.OpenFile(name, OpenWrite|OpenCreate|OpenTruncate)
}

// Append opens a file for writing at its end, made with the umask if it is
// new.
func (p *Process) Append(name string) (io.WriteCloser, error) {
	return p.OpenFile(name, OpenWrite|OpenCreate|OpenAppend)
}

// OpenFile opens a file as open(2) does.
func (p *Process) OpenFile(name string, flags OpenFlag) (*File, error) {
	return p.run.open(p, p.Path(name), flags, 0o666&^p.Umask)
}

// ReadFile returns a whole file, at most tree.MaxFile bytes.
func (p *Process) ReadFile(name string) ([]byte, error) {
	f, err := p.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f)
}

// WriteFile replaces a file's content; a new file is made with the umask.
func (p *Process) WriteFile(name string, data []byte) error {
	f, err := p.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(data)
	return err
}

// ReadAll reads r to its end, at most tree.MaxFile bytes.
func ReadAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, tree.MaxFile+1))
	if err == nil && len(b) > tree.MaxFile {
		err = fmt.Errorf("input is larger than %d bytes", int64(tree.MaxFile))
	}
	return b, err
}

// Reason returns the text that strerror(3) has for a file error, as the
// programs of a Debian system print it.
func Reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "No such file or directory"
	case errors.Is(err, fs.ErrExist):
		return "File exists"
	case errors.Is(err, fs.ErrPermission):
		return "Permission denied"
	case errors.Is(err, tree.ErrNotDir):
		return "Not a directory"
	case errors.Is(err, tree.ErrIsDir):
		return "Is a directory"
	case errors.Is(err, tree.ErrNotEmpty):
		return "Directory not empty"
	case errors.Is(err, tree.ErrLoop):
		return "Too many levels of symbolic links"
	case errors.Is(err, tree.ErrInvalid):
		return "Invalid argument"
	case errors.Is(err, errBadFile):
		return "Bad file descriptor"
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}
