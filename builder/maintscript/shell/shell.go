// Package shell runs the shell scripts of Debian packages over an in-memory
// tree. It behaves as dash does, and as bash as far as maintainer scripts
// written for bash need it. Every external command is a Go function; nothing
// of the host is seen or run.
//
// Scripts are parsed by mvdan.cc/sh/v3/syntax. The evaluator is our own since
// that module's interpreter follows bash, not dash, in too many places
// (set -e, subshells, descriptors, traps), and knows only the host's files.
//
// Processes of a pipeline and background jobs take turns: one runs at a time,
// until it waits for another, so the same script over the same tree always
// does the same.
//
// Not supported: process substitution, job control, named pipes, co-processes.
// They end a script with an *UnsupportedError.
package shell

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/picube/picube-build/builder/tree"
)

// Config is what a Shell needs.
type Config struct {
	Tree *tree.Tree

	// Lookup returns the command that stands in for a program, nil if there
	// is none. It is asked for the name of a program found in one of PATH's
	// directories ("sed"), or for the full path of one called by its path
	// ("/usr/share/debconf/frontend", then, in a bin or sbin directory, for
	// the last element). Programs exist if the tree has them: what the tree
	// lacks is "not found" to a script, whatever Lookup says. Shell scripts
	// in the tree run by themselves unless Lookup knows them; so do sh, dash
	// and bash.
	Lookup func(name string) Command

	Limits Limits // zero fields mean the defaults

	// Random is what /dev/urandom reads; nil makes it unreadable.
	Random io.Reader
}

// Limits bound what one Run may use.
type Limits struct {
	Steps     int           // simple commands and loop turns; default 2,000,000
	Depth     int           // nested functions, subshells, scripts, eval; default 200
	Output    int64         // bytes written to files and streams; default 256 MiB
	Processes int           // processes alive at a time; default 256
	Memory    int64         // bytes in one variable or expansion; default 16 MiB
	Held      int64         // bytes that commands keep in memory; default 256 MiB
	Time      time.Duration // wall-clock, default 1 minute; ctx may end earlier
}

// Script is a script to run.
type Script struct {
	Name   string // $0, and the name in errors
	Text   []byte // the interpreter is chosen by its #! line; dash if none
	Args   []string
	Env    map[string]string
	Dir    string    // default "/"
	Umask  *uint32   // default 022
	Stdin  io.Reader // nil reads as empty
	Stdout io.Writer // nil discards
	Stderr io.Writer
}

// Error is why a script was stopped, and where.
type Error struct {
	Script string
	Line   int
	Err    error // *UnknownCommandError, *LimitError, *UnsupportedError, a syntax error, ctx's error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Script, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.Script, e.Line, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// UnknownCommandError is a call of a program that the tree has but that no
// Command stands in for.
type UnknownCommandError struct{ Name string }

func (e *UnknownCommandError) Error() string { return "cannot run " + e.Name + ": not emulated" }

// UnsupportedError is the use of something that this package, or an emulated
// command, does not do. Commands raise it with Process.Unsupported.
type UnsupportedError struct{ What string }

func (e *UnsupportedError) Error() string { return "cannot do " + e.What + ": not supported" }

// LimitError is a bound of Limits that was passed.
type LimitError struct {
	What  string
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("cannot go on: more than %d %s", e.Limit, e.What)
}

// Unsupported stops the whole script with an *UnsupportedError: for options
// and inputs that a command would otherwise have to guess. It does not
// return.
func (p *Process) Unsupported(format string, args ...any) {
	p.run.stop(&UnsupportedError{p.Name() + ": " + fmt.Sprintf(format, args...)})
}

// Shell runs scripts over one tree. It is not safe for concurrent use, as the
// tree is not.
type Shell struct {
	cfg    Config
	cache  map[cacheKey]*program
	cached int // bytes of source
}

// New returns a shell.
func New(cfg Config) *Shell {
	l := &cfg.Limits
	l.Steps = cmp.Or(l.Steps, 2_000_000)
	l.Depth = cmp.Or(l.Depth, 200)
	l.Output = cmp.Or(l.Output, 256<<20)
	l.Processes = cmp.Or(l.Processes, 256)
	l.Memory = cmp.Or(l.Memory, 16<<20)
	l.Held = cmp.Or(l.Held, 256<<20)
	l.Time = cmp.Or(l.Time, time.Minute)
	return &Shell{cfg: cfg, cache: map[cacheKey]*program{}}
}

// Run runs a script to its end and returns its exit status. A script that was
// stopped, rather than failed, gives an *Error; what it did to the tree until
// then is the caller's to roll back.
func (s *Shell) Run(ctx context.Context, script Script) (int, error) {
	return s.start(ctx, Call{
		Args: append([]string{script.Name}, script.Args...), Env: script.Env, Dir: script.Dir,
		Umask: script.Umask, Stdin: script.Stdin, Stdout: script.Stdout, Stderr: script.Stderr,
	}, func(r *run, p *Process) int {
		interpreter, ok := shebang(&tree.Inode{Mode: tree.TypeRegular, Content: tree.Bytes(script.Text)})
		if !ok {
			r.stop(&UnknownCommandError{"the script's interpreter"})
		}
		return r.interpret(p, script.Name, script.Text, p.Args, interpreter == "bash")
	})
}

// Exec runs one program as Process.Run does.
func (s *Shell) Exec(ctx context.Context, c Call) (int, error) {
	return s.start(ctx, c, func(r *run, p *Process) int { return r.exec(r.ctx, p) })
}

func (s *Shell) start(ctx context.Context, c Call, body func(*run, *Process) int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.Time)
	defer cancel()
	r := newRun(ctx, s)
	p := &Process{
		Args: c.Args, Env: c.Env, Dir: "/", Umask: 0o022, Tree: s.cfg.Tree,
		Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, run: r,
	}
	if c.Dir != "" {
		p.Dir = c.Dir
	}
	if c.Umask != nil {
		p.Umask = *c.Umask
	}
	if p.Stdin == nil {
		p.Stdin = eof{}
	}
	if p.Stdout == nil {
		p.Stdout = io.Discard
	}
	if p.Stderr == nil {
		p.Stderr = io.Discard
	}
	r.current.script = c.Args[0]
	return r.main(func() int { return body(r, p) })
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
