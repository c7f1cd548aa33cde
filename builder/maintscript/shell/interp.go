package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/tree"
	"mvdan.cc/sh/v3/syntax"
)

// interp is the state of one shell process.
type interp struct {
	run  *run
	ctx  context.Context
	bash bool
	name string // $0
	line int

	params  []string
	vars    map[string]variable
	locals  []map[string]variable // what the locals of each function call hide
	funcs   map[string]*syntax.Stmt
	aliases map[string]string
	traps   map[int]string
	jobs    map[int]*task
	lastJob int
	files   files
	dir     string
	umask   uint32
	opts    map[byte]bool
	shopt   map[string]bool

	pid, parent int
	status      int
	substStatus int // of the last command substitution in this command
	subshell    bool
	getopt      int // offset in the argument that getopts is in
	level       int // function calls and sourced files, for return
	loops       int
	trapStatus  *int // status before the trap that runs, for its exit

	skip      skip // why statements are passed over
	skipCount int  // loops still to leave
}

type skip int

const (
	skipNothing skip = iota
	skipBreak
	skipContinue
	skipReturn
)

// Panics that end a shell process; they are recovered where it began.
type (
	exitShell  struct{ status int }
	shellError struct{ status int } // an error that ends a shell unless a builtin's caller catches it
)

// interpret runs a script in a process of its own.
func (r *run) interpret(p *Process, name string, text []byte, args []string, bash bool) int {
	in := r.newInterp(p, bash)
	in.name, in.params = name, args
	script, line := r.current.script, r.current.line
	r.current.script = name
	defer func() {
		in.files.close()
		r.shellPID = in.parent
		r.current.script, r.current.line = script, line
	}()
	return in.process(func() int { return in.source(string(text), 0) })
}

func (r *run) newInterp(p *Process, bash bool) *interp {
	in := &interp{
		run: r, ctx: r.ctx, bash: bash, dir: p.Dir, umask: p.Umask, pid: r.nextPID,
		vars: make(map[string]variable, len(p.Env)+8), funcs: map[string]*syntax.Stmt{}, opts: map[byte]bool{},
		files: files{},
	}
	in.parent = r.shellPID
	r.shellPID = in.pid
	r.nextPID++
	for name, value := range p.Env {
		if isName(name) {
			in.vars[name] = variable{value: value, set: true, export: true}
		}
	}
	for name, value := range map[string]string{"IFS": " \t\n", "OPTIND": "1", "PS4": "+ "} {
		v := in.vars[name]
		in.vars[name] = variable{value: value, set: true, export: v.export}
	}
	for name, value := range map[string]string{"PATH": DefaultPath, "PWD": p.Dir, "PPID": strconv.Itoa(in.parent)} {
		if !in.vars[name].set {
			in.vars[name] = variable{value: value, set: true, export: name == "PWD"}
		}
	}
	if n, err := r.shell.cfg.Tree.RealPath(in.vars["PWD"].value); err != nil || n != mustReal(r.shell.cfg.Tree, p.Dir) {
		in.vars["PWD"] = variable{value: p.Dir, set: true, export: true}
	}
	for n, f := range p.table() {
		in.files[n] = f.hold()
	}
	return in
}

func mustReal(t *tree.Tree, p string) string {
	real, _ := t.RealPath(p)
	return real
}

// table returns the process's descriptors, its streams among them.
func (p *Process) table() files {
	t := maps.Clone(p.files)
	if t == nil {
		t = files{}
	}
	for n, stream := range []any{p.Stdin, p.Stdout, p.Stderr} {
		switch s := stream.(type) {
		case *File:
			t[n] = s
		case closed:
			delete(t, n)
		case io.Writer:
			f := &File{run: p.run, flags: OpenWrite, writer: s}
			if r, ok := s.(io.Reader); ok {
				f.reader, f.flags = r, OpenRead|OpenWrite
			}
			t[n] = f
		case io.Reader:
			t[n] = &File{run: p.run, flags: OpenRead, reader: s}
		}
	}
	return t
}

// closed stands for a descriptor that is not open.
type closed struct{}

func (closed) Read([]byte) (int, error)  { return 0, errBadFile }
func (closed) Write([]byte) (int, error) { return 0, errBadFile }

// process runs body as a whole shell process: up to its end or to whatever
// ends it early, and then the EXIT trap.
func (in *interp) process(body func() int) int {
	return in.run.protect(func() int {
		status := in.catchExit(body)
		for in.traps[0] != "" {
			action := in.traps[0]
			delete(in.traps, 0)
			in.status, in.trapStatus = status, &status
			in.skip, in.loops = skipNothing, 0
			status = in.catchExit(func() int {
				in.evalString(action, 0)
				return status
			})
		}
		return status & 0xff
	})
}

func (in *interp) catchExit(body func() int) (status int) {
	depth := in.run.current.depth
	defer func() {
		switch e := recover().(type) {
		case nil:
		case exitShell:
			in.run.current.depth = depth
			status = e.status
		case shellError:
			in.run.current.depth = depth
			status = e.status
		default:
			panic(e)
		}
	}()
	return body()
}

// clone returns a copy for a subshell. Its descriptors are closed by the
// caller.
func (in *interp) clone() *interp {
	c := *in
	c.params = slices.Clone(in.params)
	c.vars = maps.Clone(in.vars)
	c.locals = nil
	c.funcs = maps.Clone(in.funcs)
	c.aliases = maps.Clone(in.aliases)
	c.opts = maps.Clone(in.opts)
	c.files = in.files.clone()
	c.jobs, c.subshell = nil, true
	c.traps = map[int]string{}
	for sig, action := range in.traps {
		if action == "" && sig != 0 {
			c.traps[sig] = ""
		}
	}
	return &c
}

// sub runs body in a subshell and waits for it.
func (in *interp) sub(body func(*interp) int) int {
	in.run.enter()
	defer in.run.leave()
	c := in.clone()
	defer c.files.close()
	return c.process(func() int { return body(c) })
}

// fork starts body in a subshell with a task of its own.
func (in *interp) fork(redirect func(files), body func(*interp) int) *task {
	c := in.clone()
	if redirect != nil {
		redirect(c.files)
	}
	return in.run.fork(func() int {
		c.run.enter()
		defer c.run.leave()
		defer c.files.close()
		return c.process(func() int { return body(c) })
	})
}

// Flags of evaluation.
const tested = 1 // the status is looked at, so set -e does not apply

// source runs a script's statements.
func (in *interp) source(text string, flags int) int {
	p := in.run.shell.parse(text, in.bash)
	status := 0
	for _, st := range p.stmts {
		status = in.stmt(st, flags)
		if in.skip != skipNothing {
			return status
		}
	}
	if p.err != nil {
		in.syntaxError(p.err)
	}
	return status
}

// evalString runs the text of eval or of a trap.
func (in *interp) evalString(text string, flags int) int {
	in.run.enter()
	defer in.run.leave()
	return in.source(text, flags)
}

// syntaxError stops the script: whether the shell would reject it too is not
// for us to guess.
func (in *interp) syntaxError(err error) {
	var parseErr syntax.ParseError
	if errors.As(err, &parseErr) && parseErr.Pos.Line() > 0 {
		in.run.current.line = int(parseErr.Pos.Line())
	}
	in.run.stop(fmt.Errorf("cannot parse: %w", err))
}

func (in *interp) stmts(list []*syntax.Stmt, flags int) int {
	status := 0
	for _, st := range list {
		status = in.stmt(st, flags)
		if in.skip != skipNothing {
			break
		}
	}
	return status
}

// stmt evaluates a statement the way dash's evaltree does; in particular it
// decides, per kind of command, when set -e ends the shell.
func (in *interp) stmt(st *syntax.Stmt, flags int) int {
	r := in.run
	if line := int(st.Position.Line()); line > 0 {
		in.line = line
		r.current.line = line
	}
	r.alive()
	check := false
	status := 0
	switch {
	case st.Background:
		status = in.background(st)
	case st.Coprocess || st.Disown:
		r.stop(&UnsupportedError{"a co-process"})
	case st.Negated:
		plain := *st
		plain.Negated = false
		if in.stmt(&plain, tested) == 0 {
			status = 1
		}
	default:
		status, check = in.command(st, flags)
	}
	in.status = status
	if check && status != 0 && flags&tested == 0 && in.opts['e'] {
		panic(exitShell{status})
	}
	return status
}

// command runs a command with its redirections; check says whether set -e
// looks at its status.
func (in *interp) command(st *syntax.Stmt, flags int) (status int, check bool) {
	switch cmd := st.Cmd.(type) {
	case nil:
		return in.simple(st, nil, flags), true
	case *syntax.CallExpr:
		return in.simple(st, cmd, flags), true
	case *syntax.DeclClause:
		return in.declaration(st, cmd), true
	case *syntax.BinaryCmd:
		return in.binary(cmd, flags)
	case *syntax.Subshell:
		in.run.step()
		return in.sub(func(c *interp) int {
			if _, err := c.redirect(st.Redirs); err != nil {
				return 2
			}
			return c.stmts(cmd.Stmts, flags)
		}), true
	case *syntax.FuncDecl:
		in.funcs[cmd.Name.Value] = cmd.Body
		return 0, false
	}
	undo, err := in.redirect(st.Redirs)
	defer undo()
	if err != nil {
		return 2, true
	}
	return in.compound(st.Cmd, flags)
}

func (in *interp) compound(cmd syntax.Command, flags int) (status int, check bool) {
	switch cmd := cmd.(type) {
	case *syntax.Block:
		return in.stmts(cmd.Stmts, flags), false
	case *syntax.IfClause:
		for c := cmd; c != nil; c = c.Else {
			if len(c.Cond) > 0 { // else has none
				status := in.stmts(c.Cond, tested)
				if in.skip != skipNothing {
					return status, false
				}
				if status != 0 {
					continue
				}
			}
			return in.stmts(c.Then, flags), false
		}
		return 0, false
	case *syntax.WhileClause:
		return in.while(cmd, flags&tested), false
	case *syntax.ForClause:
		return in.forLoop(cmd, flags&tested), false
	case *syntax.CaseClause:
		return in.caseClause(cmd, flags), false
	case *syntax.TestClause:
		in.run.step()
		return in.testClause(cmd), true
	case *syntax.ArithmCmd:
		in.run.step()
		return boolStatus(in.arithWord(cmd.X, false) != 0), true
	case *syntax.LetClause:
		var last int64
		for _, x := range cmd.Exprs {
			last = in.arithWord(x, false)
		}
		return boolStatus(last != 0), true
	case *syntax.TimeClause:
		if cmd.Stmt == nil {
			return 0, false
		}
		return in.stmt(cmd.Stmt, flags), false
	}
	in.run.stop(&UnsupportedError{fmt.Sprintf("a %T", cmd)})
	return 0, false
}

func boolStatus(ok bool) int {
	if ok {
		return 0
	}
	return 1
}

func (in *interp) binary(cmd *syntax.BinaryCmd, flags int) (status int, check bool) {
	switch cmd.Op {
	case syntax.AndStmt, syntax.OrStmt:
		status := in.stmt(cmd.X, tested)
		if in.skip != skipNothing || (status == 0) != (cmd.Op == syntax.AndStmt) {
			return status, false
		}
		return in.stmt(cmd.Y, flags), false
	}
	in.run.step()
	stages := []*syntax.Stmt{cmd.Y}
	bothAt := []bool{cmd.Op == syntax.PipeAll}
	for x := cmd.X; ; {
		b, ok := x.Cmd.(*syntax.BinaryCmd)
		if !ok || x.Negated || len(x.Redirs) > 0 || b.Op != syntax.Pipe && b.Op != syntax.PipeAll {
			stages = append(stages, x)
			break
		}
		stages = append(stages, b.Y)
		bothAt = append(bothAt, b.Op == syntax.PipeAll)
		x = b.X
	}
	slices.Reverse(stages)
	slices.Reverse(bothAt)
	tasks := make([]*task, len(stages))
	var input *File
	for i, stage := range stages {
		var output, nextInput *File
		if i < len(stages)-1 {
			nextInput, output = in.run.newPipe()
		}
		stdin := input
		tasks[i] = in.fork(func(f files) {
			if stdin != nil {
				f.set(0, stdin)
			}
			if output != nil {
				f.set(1, output)
				if bothAt[i] {
					f.set(2, output.hold())
				}
			}
		}, func(c *interp) int { return c.stmt(stage, flags) })
		input = nextInput
	}
	failed := 0
	for _, t := range tasks {
		status = in.run.wait(t)
		if status != 0 {
			failed = status
		}
	}
	if in.shopt["pipefail"] {
		status = failed
	}
	return status, true
}

func (in *interp) background(st *syntax.Stmt) int {
	in.run.step()
	plain := *st
	plain.Background = false
	t := in.fork(func(f files) {
		f.set(0, in.run.device(1, 3, OpenRead))
	}, func(c *interp) int { return c.stmt(&plain, 0) })
	if in.jobs == nil {
		in.jobs = map[int]*task{}
	}
	in.jobs[t.pid], in.lastJob = t, t.pid
	return 0
}

// leaveLoop says whether a loop ends because of break, continue or return.
func (in *interp) leaveLoop() bool {
	switch in.skip {
	case skipNothing:
		return false
	case skipBreak, skipContinue:
		if in.skipCount--; in.skipCount > 0 {
			return true
		}
		done := in.skip == skipBreak
		in.skip = skipNothing
		return done
	}
	return true
}

func (in *interp) while(cmd *syntax.WhileClause, flags int) int {
	in.loops++
	defer func() { in.loops-- }()
	status := 0
	for {
		in.run.step()
		cond := in.stmts(cmd.Cond, tested)
		if in.skip == skipReturn {
			return cond
		}
		if in.skip != skipNothing {
			if in.leaveLoop() {
				return status
			}
			continue
		}
		if (cond == 0) == cmd.Until {
			return status
		}
		status = in.stmts(cmd.Do, flags)
		if in.leaveLoop() {
			return status
		}
	}
}

func (in *interp) forLoop(cmd *syntax.ForClause, flags int) int {
	if cmd.Select {
		in.run.stop(&UnsupportedError{"select"})
	}
	if loop, ok := cmd.Loop.(*syntax.CStyleLoop); ok {
		return in.arithLoop(loop, cmd.Do, flags)
	}
	iter := cmd.Loop.(*syntax.WordIter)
	items := slices.Clone(in.params[min(1, len(in.params)):])
	if iter.InPos.IsValid() {
		items = in.fields(iter.Items)
	}
	in.loops++
	defer func() { in.loops-- }()
	status := 0
	for _, item := range items {
		in.run.step()
		in.setVar(iter.Name.Value, item)
		status = in.stmts(cmd.Do, flags)
		if in.leaveLoop() {
			break
		}
	}
	return status
}

func (in *interp) arithLoop(loop *syntax.CStyleLoop, body []*syntax.Stmt, flags int) int {
	in.loops++
	defer func() { in.loops-- }()
	if loop.Init != nil {
		in.arithWord(loop.Init, false)
	}
	status := 0
	for loop.Cond == nil || in.arithWord(loop.Cond, false) != 0 {
		in.run.step()
		status = in.stmts(body, flags)
		if in.leaveLoop() {
			break
		}
		if loop.Post != nil {
			in.arithWord(loop.Post, false)
		}
	}
	return status
}

func (in *interp) caseClause(cmd *syntax.CaseClause, flags int) int {
	in.run.step()
	in.substStatus = 0
	value := in.literal(cmd.Word)
	through := false
	for _, item := range cmd.Items {
		matched := through
		for _, word := range item.Patterns {
			if matched {
				break
			}
			matched = match(in.pattern(word), value)
		}
		if !matched {
			continue
		}
		through = false
		status := 0
		if len(item.Stmts) > 0 {
			status = in.stmts(item.Stmts, flags)
		}
		switch item.Op {
		case syntax.Fallthrough:
			through = true
		case syntax.Resume:
		default:
			return status
		}
		if in.skip != skipNothing {
			return status
		}
	}
	return 0
}

// errorf prints a message as the shell does: script, line, message.
func (in *interp) errorf(format string, args ...any) {
	fmt.Fprintf(in.stderr(), "%s: %d: %s\n", in.name, in.line, fmt.Sprintf(format, args...))
}

// fatalf prints a message and ends the shell, unless a regular builtin is
// running, which then only fails.
func (in *interp) fatalf(format string, args ...any) {
	in.errorf(format, args...)
	panic(shellError{2})
}

func (in *interp) stdout() io.Writer {
	if f := in.files[1]; f != nil {
		return f
	}
	return closed{}
}

func (in *interp) stderr() io.Writer {
	if f := in.files[2]; f != nil {
		return f
	}
	return io.Discard
}

func (in *interp) stdin() io.Reader {
	if f := in.files[0]; f != nil {
		return f
	}
	return closed{}
}

func (in *interp) stat(name string, follow bool) (*tree.Inode, error) {
	return stat(in.run.shell.cfg.Tree, in.path(name), follow)
}

// newProcess returns the process of a program that this shell starts.
func (in *interp) newProcess(args []string, env map[string]string) *Process {
	p := &Process{
		Args: args, Env: env, Dir: in.dir, Umask: in.umask, Tree: in.run.shell.cfg.Tree,
		Stdin: in.stdin(), Stdout: in.stdout(), Stderr: closed{}, run: in.run,
	}
	if f := in.files[2]; f != nil {
		p.Stderr = f
	}
	for n, f := range in.files {
		if n > 2 {
			if p.files == nil {
				p.files = files{}
			}
			p.files[n] = f
		}
	}
	return p
}

// simple runs a simple command, or only its assignments and redirections.
func (in *interp) simple(st *syntax.Stmt, call *syntax.CallExpr, flags int) int {
	in.run.step()
	in.substStatus = 0
	var args []string
	var assigns []*syntax.Assign
	if call != nil {
		words := call.Args
		if len(in.aliases) > 0 {
			words = in.expandAlias(words)
		}
		args, assigns = in.commandFields(words), call.Assigns
	}
	undo, err := in.redirect(st.Redirs)
	keep := false
	defer func() {
		if !keep {
			undo()
		}
	}()
	if err != nil {
		if len(args) > 0 && in.funcs[args[0]] == nil && specialBuiltins[args[0]] && !in.bash {
			panic(shellError{2})
		}
		if in.bash {
			return 1
		}
		return 2
	}
	if len(args) == 0 {
		var trace []string
		for _, a := range assigns {
			in.assign(a)
			if in.opts['x'] {
				trace = append(trace, a.Name.Value+"="+in.vars[a.Name.Value].value)
			}
		}
		in.trace(nil, trace)
		return in.substStatus
	}
	if in.opts['x'] {
		in.trace(args, nil)
	}
	name := args[0]
	if f := in.funcs[name]; f != nil {
		restore := in.temporary(assigns, true)
		defer restore()
		return in.call(f, args, flags)
	}
	b := in.builtin(name)
	if name == "exec" && b != nil {
		for _, a := range assigns {
			in.assign(a)
			v := in.vars[a.Name.Value]
			v.export = true
			in.vars[a.Name.Value] = v
		}
		if len(args) == 1 || len(args) == 2 && args[1] == "--" {
			keep = true // the redirections of exec stay
			return 0
		}
	}
	switch {
	case b != nil && specialBuiltins[name]:
		for _, a := range assigns {
			in.assign(a)
		}
		return b(in, args, flags)
	case b != nil:
		restore := in.temporary(assigns, false)
		defer restore()
		return in.regular(b, args, flags)
	}
	restore := in.temporary(assigns, true)
	defer restore()
	return in.external(args, in.vars["PATH"].value)
}

// regular runs a regular builtin, whose errors do not end the shell.
func (in *interp) regular(b builtin, args []string, flags int) (status int) {
	depth := in.run.current.depth
	defer func() {
		switch e := recover().(type) {
		case nil:
		case shellError:
			in.run.current.depth = depth
			status = e.status
		default:
			panic(e)
		}
	}()
	return b(in, args, flags)
}

// external runs a program.
func (in *interp) external(args []string, pathVar string) int {
	r := in.run
	r.enter()
	defer r.leave()
	p := in.newProcess(args, nil)
	file, status := r.find(p, args[0], pathVar)
	switch status {
	case 127:
		in.errorf("%s: not found", args[0])
		return 127
	case 126:
		in.errorf("%s: Permission denied", args[0])
		return 126
	}
	p.Env = in.environ()
	return r.start(in.ctx, p, file)
}

func (in *interp) environ() map[string]string {
	env := make(map[string]string, 16)
	for name, v := range in.vars {
		if v.export && v.set && v.list == nil && v.dict == nil {
			env[name] = v.value
		}
	}
	return env
}

// call runs a function.
func (in *interp) call(f *syntax.Stmt, args []string, flags int) int {
	in.run.enter()
	params, loops, getopt := in.params, in.loops, in.getopt
	name := ""
	if len(params) > 0 {
		name = params[0]
	}
	in.params = append([]string{name}, args[1:]...)
	in.loops = 0
	in.locals = append(in.locals, map[string]variable{})
	in.level++
	defer func() {
		in.run.leave()
		in.restore(in.locals[len(in.locals)-1])
		in.locals = in.locals[:len(in.locals)-1]
		in.level--
		in.params, in.loops, in.getopt = params, loops, getopt
	}()
	status := in.stmt(f, flags&tested)
	if in.skip == skipReturn {
		in.skip = skipNothing
	}
	return status
}

func (in *interp) trace(args, assigns []string) {
	if !in.opts['x'] {
		return
	}
	fmt.Fprintf(in.stderr(), "%s%s\n", in.vars["PS4"].value, strings.Join(append(assigns, args...), " "))
}

// expandAlias replaces the first word by its alias.
func (in *interp) expandAlias(words []*syntax.Word) []*syntax.Word {
	seen := map[string]bool{}
	for len(words) > 0 {
		name := words[0].Lit()
		value, ok := in.aliases[name]
		if !ok || seen[name] || strings.Contains(name, `\`) {
			break
		}
		seen[name] = true
		p := in.run.shell.parse(value, in.bash)
		if p.err != nil || len(p.stmts) != 1 {
			in.run.stop(&UnsupportedError{"the alias " + name})
		}
		st := p.stmts[0]
		call, ok := st.Cmd.(*syntax.CallExpr)
		if !ok || len(st.Redirs) > 0 || len(call.Assigns) > 0 || st.Negated || st.Background {
			in.run.stop(&UnsupportedError{"the alias " + name})
		}
		words = slices.Concat(call.Args, words[1:])
	}
	return words
}
