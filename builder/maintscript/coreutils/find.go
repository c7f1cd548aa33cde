package coreutils

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// find is GNU find without the tests that look at clocks and file systems.
func find(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	f := &findRun{ctx: ctx, p: p, maxDepth: maxDepth}
	for len(args) > 0 && (args[0] == "-H" || args[0] == "-L" || args[0] == "-P") {
		f.follow = args[0] == "-L"
		f.followArgs = args[0] != "-P"
		args = args[1:]
	}
	var roots []string
	for len(args) > 0 && args[0] != "!" && args[0] != "(" && args[0] != ")" && !(len(args[0]) > 1 && args[0][0] == '-') {
		roots = append(roots, args[0])
		args = args[1:]
	}
	if len(roots) == 0 {
		roots = []string{"."}
	}
	ps := &findParser{f: f, args: args}
	expr := ps.list()
	if ps.err == "" && len(ps.args) > 0 {
		ps.err = fmt.Sprintf("paths must precede expression: `%s'", ps.args[0])
	}
	if ps.err != "" {
		p.Errorf("%s", ps.err)
		return 1
	}
	if !f.acts {
		inner := expr
		expr = func(e *findEntry) bool {
			ok := inner(e)
			if ok {
				f.out.line(e.path)
			}
			return ok
		}
	}
	for _, root := range roots {
		f.walk(root, 0, expr)
	}
	for _, b := range f.batches {
		b.flush()
	}
	return f.out.done(p, f.status)
}

type findEntry struct {
	path  string
	depth int
	n     *tree.Inode
	prune bool
}

type findTest func(*findEntry) bool

type findRun struct {
	ctx                context.Context
	p                  *shell.Process
	follow, followArgs bool
	minDepth, maxDepth int
	depthFirst, acts   bool
	out                out
	status             int
	quit               bool
	batches            []*batch
}

func (f *findRun) walk(name string, depth int, expr findTest) {
	if f.quit || f.ctx.Err() != nil {
		return
	}
	look := f.p.Lstat
	if f.follow || depth == 0 && f.followArgs {
		look = f.p.Stat
	}
	n, err := look(name)
	if err != nil {
		if n, err = f.p.Lstat(name); err != nil {
			f.p.Errorf("'%s': %s", name, shell.Reason(err))
			f.status = 1
			return
		}
	}
	e := &findEntry{path: name, depth: depth, n: n}
	visit := func() {
		if depth >= f.minDepth && !f.quit {
			expr(e)
		}
	}
	if !f.depthFirst {
		visit()
	}
	if n.IsDir() && !e.prune && depth < f.maxDepth {
		names, _ := f.p.Tree.ReadDir(f.p.Path(name))
		for _, child := range names {
			f.walk(strings.TrimSuffix(name, "/")+"/"+child, depth+1, expr)
		}
	}
	if f.depthFirst {
		visit()
	}
}

// batch collects the paths of an -exec … +.
type batch struct {
	f     *findRun
	args  []string
	paths []string
}

func (b *batch) flush() {
	if len(b.paths) == 0 {
		return
	}
	b.f.flush()
	if b.f.p.Run(b.f.ctx, shell.Call{Args: slices.Concat(b.args, b.paths)}) != 0 {
		b.f.status = 1
	}
	b.paths = nil
}

func (f *findRun) flush() {
	f.out.done(f.p, 0)
	f.out.Reset()
}

type findParser struct {
	f    *findRun
	args []string
	err  string
	nest int
}

func (ps *findParser) fail(format string, args ...any) findTest {
	if ps.err == "" {
		ps.err = fmt.Sprintf(format, args...)
	}
	ps.args = nil
	return func(*findEntry) bool { return false }
}

func (ps *findParser) peek() string {
	if len(ps.args) > 0 {
		return ps.args[0]
	}
	return ""
}

func (ps *findParser) next() string {
	a := ps.peek()
	if len(ps.args) > 0 {
		ps.args = ps.args[1:]
	}
	return a
}

func (ps *findParser) list() findTest {
	t := ps.or()
	for ps.peek() == "," {
		ps.next()
		left, right := t, ps.or()
		t = func(e *findEntry) bool { left(e); return right(e) }
	}
	return t
}

func (ps *findParser) or() findTest {
	t := ps.and()
	for ps.peek() == "-o" || ps.peek() == "-or" {
		ps.next()
		left, right := t, ps.and()
		t = func(e *findEntry) bool { return left(e) || right(e) }
	}
	return t
}

func (ps *findParser) and() findTest {
	t := findTest(func(*findEntry) bool { return true })
	for first := true; len(ps.args) > 0; first = false {
		switch ps.peek() {
		case ")", "-o", "-or", ",":
			if first && ps.nest > 0 {
				return ps.fail("invalid expression")
			}
			return t
		case "-a", "-and":
			ps.next()
			continue
		}
		left, right := t, ps.not()
		t = func(e *findEntry) bool { return left(e) && right(e) }
	}
	return t
}

func (ps *findParser) not() findTest {
	switch ps.peek() {
	case "!", "-not":
		ps.next()
		if len(ps.args) == 0 {
			return ps.fail("expected an expression after '!'")
		}
		t := ps.not()
		return func(e *findEntry) bool { return !t(e) }
	case "(":
		ps.next()
		if ps.nest++; ps.nest > 100 {
			return ps.fail("invalid expression; too deep")
		}
		t := ps.list()
		ps.nest--
		if ps.next() != ")" {
			return ps.fail("invalid expression; expected to find a ')' but didn't see one")
		}
		return t
	}
	return ps.primary()
}

// compare reads N, +N and -N.
func (ps *findParser) compare(s string) func(int64) bool {
	sign := byte(0)
	if s != "" && (s[0] == '+' || s[0] == '-') {
		sign, s = s[0], s[1:]
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		ps.fail("invalid argument `%s'", s)
	}
	return func(v int64) bool {
		switch sign {
		case '+':
			return v > n
		case '-':
			return v < n
		}
		return v == n
	}
}

func (ps *findParser) primary() findTest {
	f := ps.f
	name := ps.next()
	arg := func() string {
		if len(ps.args) == 0 {
			ps.fail("missing argument to `%s'", name)
		}
		return ps.next()
	}
	pass := func(*findEntry) bool { return true }
	base := func(e *findEntry) string { return baseOf(e.path) }
	switch name {
	case "-maxdepth":
		n, err := strconv.Atoi(arg())
		if err != nil {
			return ps.fail("Expected a positive decimal integer argument to -maxdepth")
		}
		f.maxDepth = min(n, maxDepth)
		return pass
	case "-mindepth":
		f.minDepth, _ = strconv.Atoi(arg())
		return pass
	case "-depth", "-d":
		f.depthFirst = true
		return pass
	case "-xdev", "-mount", "-noleaf", "-ignore_readdir_race", "-warn", "-nowarn":
		return pass
	case "-follow":
		f.follow = true
		return pass
	case "-true":
		return pass
	case "-false":
		return func(*findEntry) bool { return false }
	case "-name":
		pattern := arg()
		return func(e *findEntry) bool { return shell.Match(pattern, base(e)) }
	case "-iname":
		pattern := strings.ToLower(arg())
		return func(e *findEntry) bool { return shell.Match(pattern, strings.ToLower(base(e))) }
	case "-path", "-wholename":
		pattern := arg()
		return func(e *findEntry) bool { return shell.Match(pattern, e.path) }
	case "-ipath":
		pattern := strings.ToLower(arg())
		return func(e *findEntry) bool { return shell.Match(pattern, strings.ToLower(e.path)) }
	case "-lname":
		pattern := arg()
		return func(e *findEntry) bool { return e.n.IsSymlink() && shell.Match(pattern, e.n.Target) }
	case "-regex":
		re, err := compile(arg(), false, false)
		if err != nil {
			return ps.fail("%s", err)
		}
		return func(e *findEntry) bool { m := re.find(e.path, 0); return m != nil && m[0] == 0 && m[1] == len(e.path) }
	case "-type", "-xtype":
		kinds := strings.Split(arg(), ",")
		return func(e *findEntry) bool {
			n := e.n
			if name == "-xtype" {
				if target, err := f.p.Stat(e.path); err == nil {
					n = target
				}
			}
			kind := map[uint32]string{
				tree.TypeSocket: "s", tree.TypeSymlink: "l", tree.TypeRegular: "f", tree.TypeBlock: "b", tree.TypeDir: "d",
				tree.TypeChar: "c", tree.TypeFifo: "p",
			}[n.Type()]
			return slices.Contains(kinds, kind)
		}
	case "-empty":
		return func(e *findEntry) bool {
			if e.n.IsDir() {
				names, _ := f.p.Tree.ReadDir(f.p.Path(e.path))
				return len(names) == 0
			}
			return e.n.IsRegular() && e.n.Size() == 0
		}
	case "-user", "-uid", "-group", "-gid":
		isGroup := name == "-group" || name == "-gid"
		id, err := lookupID(f.p, arg(), isGroup)
		if err != nil {
			return ps.fail("%s", err)
		}
		return func(e *findEntry) bool {
			if isGroup {
				return e.n.GID == uint32(id)
			}
			return e.n.UID == uint32(id)
		}
	case "-nouser", "-nogroup":
		return func(e *findEntry) bool {
			if name == "-nouser" {
				return nameOf(f.p, e.n.UID, false) == "UNKNOWN"
			}
			return nameOf(f.p, e.n.GID, true) == "UNKNOWN"
		}
	case "-perm":
		return ps.perm(arg())
	case "-links":
		cmp := ps.compare(arg())
		return func(e *findEntry) bool { return cmp(int64(e.n.Links())) }
	case "-size":
		return ps.size(arg())
	case "-newer":
		ref, err := f.p.Stat(arg())
		if err != nil {
			return ps.fail("%s", shell.Reason(err))
		}
		return func(e *findEntry) bool { return e.n.ModTime > ref.ModTime }
	case "-samefile":
		ref, err := f.p.Lstat(arg())
		if err != nil {
			return ps.fail("%s", shell.Reason(err))
		}
		return func(e *findEntry) bool { return e.n == ref }
	case "-executable":
		return func(e *findEntry) bool { return e.n.IsDir() || e.n.Mode&0o111 != 0 }
	case "-readable", "-writable":
		return pass
	case "-prune":
		return func(e *findEntry) bool { e.prune = true; return true }
	case "-quit":
		f.acts = true
		return func(*findEntry) bool { f.quit = true; return true }
	case "-print":
		f.acts = true
		return func(e *findEntry) bool { f.out.line(e.path); return true }
	case "-print0":
		f.acts = true
		return func(e *findEntry) bool { f.out.WriteString(e.path + "\x00"); return true }
	case "-printf":
		f.acts = true
		format := unescapePrintf(arg())
		return func(e *findEntry) bool { f.printf(format, e); return true }
	case "-delete":
		f.acts, f.depthFirst = true, true
		return func(e *findEntry) bool {
			if e.path == "." {
				return true
			}
			if err := f.p.Tree.Remove(f.p.Path(e.path)); err != nil {
				f.p.Errorf("cannot delete '%s': %s", e.path, shell.Reason(err))
				f.status = 1
				return false
			}
			return true
		}
	case "-exec", "-execdir", "-ok":
		f.acts = true
		if name != "-exec" {
			f.p.Unsupported("%s", name)
		}
		return ps.exec()
	}
	if strings.HasPrefix(name, "-") {
		f.p.Unsupported("the test %s", name)
	}
	return ps.fail("paths must precede expression: `%s'", name)
}

func (ps *findParser) exec() findTest {
	f := ps.f
	var args []string
	for {
		if len(ps.args) == 0 {
			return ps.fail("missing argument to `-exec'")
		}
		a := ps.next()
		if a == ";" {
			break
		}
		if a == "+" && len(args) > 1 && args[len(args)-1] == "{}" {
			b := &batch{f: f, args: args[:len(args)-1]}
			f.batches = append(f.batches, b)
			return func(e *findEntry) bool {
				if b.paths = append(b.paths, e.path); len(b.paths) >= 5000 {
					b.flush()
				}
				return true
			}
		}
		args = append(args, a)
	}
	if len(args) == 0 {
		return ps.fail("invalid argument `;' to `-exec'")
	}
	return func(e *findEntry) bool {
		call := make([]string, len(args))
		for i, a := range args {
			call[i] = strings.ReplaceAll(a, "{}", e.path)
		}
		f.flush()
		return f.p.Run(f.ctx, shell.Call{Args: call}) == 0
	}
}

func (ps *findParser) perm(s string) findTest {
	kind := byte(0)
	if s != "" && (s[0] == '-' || s[0] == '/') {
		kind, s = s[0], s[1:]
	}
	want, err := shell.ParseMode(s, 0, false, 0)
	if err != nil {
		return ps.fail("invalid mode `%s'", s)
	}
	return func(e *findEntry) bool {
		switch kind {
		case '-':
			return e.n.Perm()&want == want
		case '/':
			return want == 0 || e.n.Perm()&want != 0
		}
		return e.n.Perm() == want
	}
}

func (ps *findParser) size(s string) findTest {
	unit := int64(512)
	if i := strings.IndexByte("cwbkMG", s[max(0, len(s)-1):][0]); s != "" && i >= 0 {
		unit = []int64{1, 2, 512, 1 << 10, 1 << 20, 1 << 30}[i]
		s = s[:len(s)-1]
	}
	cmp := ps.compare(s)
	return func(e *findEntry) bool { return cmp((e.n.Size() + unit - 1) / unit) }
}

func unescapePrintf(s string) string {
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\0`, "\x00", `\\`, `\`).Replace(s)
}

func (f *findRun) printf(format string, e *findEntry) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			f.out.WriteByte(format[i])
			continue
		}
		i++
		switch format[i] {
		case '%':
			f.out.WriteByte('%')
		case 'p':
			f.out.WriteString(e.path)
		case 'f':
			f.out.WriteString(baseOf(e.path))
		case 'h':
			dir := path.Dir(e.path)
			if !strings.Contains(e.path, "/") {
				dir = "."
			}
			f.out.WriteString(dir)
		case 'P':
			rest := strings.Split(e.path, "/")
			f.out.WriteString(strings.Join(rest[len(rest)-min(e.depth, len(rest)):], "/"))
		case 'l':
			f.out.WriteString(e.n.Target)
		case 's':
			f.out.WriteString(strconv.FormatInt(e.n.Size(), 10))
		case 'm':
			f.out.WriteString(strconv.FormatUint(uint64(e.n.Perm()), 8))
		case 'M':
			f.out.WriteString(modeString(e.n.Mode))
		case 'u':
			f.out.WriteString(nameOf(f.p, e.n.UID, false))
		case 'g':
			f.out.WriteString(nameOf(f.p, e.n.GID, true))
		case 'U':
			f.out.WriteString(strconv.Itoa(int(e.n.UID)))
		case 'G':
			f.out.WriteString(strconv.Itoa(int(e.n.GID)))
		case 'd':
			f.out.WriteString(strconv.Itoa(e.depth))
		case 'y':
			f.out.WriteString(map[uint32]string{
				tree.TypeSocket: "s", tree.TypeSymlink: "l", tree.TypeRegular: "f", tree.TypeBlock: "b", tree.TypeDir: "d",
				tree.TypeChar: "c", tree.TypeFifo: "p",
			}[e.n.Type()])
		default:
			f.p.Unsupported("-printf %%%c", format[i])
		}
	}
}

// xargs is GNU xargs without -P's parallelism: one command after the other.
func xargs(ctx context.Context, p *shell.Process) int {
	opts, args := parse(p, "+0a:d:E:I:i::L:n:P:prs:tx", "null=0", "arg-file:=a", "delimiter:=d", "replace::=i", "max-lines:=L", "max-args:=n",
		"max-procs:=P", "no-run-if-empty=r", "max-chars:=s", "verbose=t", "exit=x", "show-limits=limits", "interactive=p")
	delim, replace, maxArgs, maxLines, maxChars, file := "", "", 0, 0, 128<<10, "-"
	for _, o := range opts {
		switch o.name {
		case "0":
			delim = "\x00"
		case "d":
			if delim = unescapeY(o.value); delim == `\0` {
				delim = "\x00"
			}
		case "I":
			replace = o.value
		case "i":
			if replace = o.value; replace == "" {
				replace = "{}"
			}
		case "n":
			maxArgs = int(count(p, o.value))
		case "L":
			maxLines = int(count(p, o.value))
		case "s":
			maxChars = int(count(p, o.value))
		case "a":
			file = o.value
		case "p", "E":
			p.Unsupported("option -%s", o.name)
		}
	}
	if len(args) == 0 {
		args = []string{"echo"}
	}
	data, err := input(p, file)
	if err != nil {
		p.Errorf("%s: %s", file, shell.Reason(err))
		return 1
	}
	if has(opts, "limits") {
		fmt.Fprintf(p.Stderr, "Maximum length of command we could actually use: 2092000\n")
	}
	var groups [][]string
	switch {
	case delim != "":
		s := strings.TrimSuffix(string(data), delim)
		if s != "" || len(data) > 0 {
			for _, a := range strings.Split(s, delim) {
				groups = append(groups, []string{a})
			}
		}
	case replace != "" || maxLines > 0:
		list, _ := lines(data)
		var pending []string
		n := 0
		for _, l := range list {
			if strings.TrimSpace(l) == "" {
				continue
			}
			if replace != "" {
				w, ok := xargsWords(strings.TrimLeft(l, " \t"), true)
				if !ok {
					p.Errorf("unmatched quote; by default quotes are special to xargs unless you use the -0 option")
					return 1
				}
				groups = append(groups, w)
				continue
			}
			w, _ := xargsWords(l, false)
			pending = append(pending, w...)
			if n++; n == maxLines && !strings.HasSuffix(l, " ") {
				groups, pending, n = append(groups, pending), nil, 0
			}
		}
		if len(pending) > 0 {
			groups = append(groups, pending)
		}
	default:
		w, ok := xargsWords(string(data), false)
		if !ok {
			p.Errorf("unmatched quote; by default quotes are special to xargs unless you use the -0 option")
			return 1
		}
		for _, a := range w {
			groups = append(groups, []string{a})
		}
	}
	status := 0
	run := func(extra []string) bool {
		call := slices.Concat(args, extra)
		if replace != "" {
			call = slices.Clone(args)
			with, size := strings.Join(extra, " "), 0
			for i := range call {
				size += len(call[i]) + strings.Count(call[i], replace)*len(with)
			}
			if size > maxChars {
				p.Errorf("argument list too long")
				status = 1
				return false
			}
			for i := range call {
				if i > 0 {
					call[i] = strings.ReplaceAll(call[i], replace, with)
				}
			}
		}
		if has(opts, "t") {
			fmt.Fprintln(p.Stderr, strings.Join(call, " "))
		}
		switch s := p.Run(ctx, shell.Call{Args: call, Stdin: strings.NewReader("")}); {
		case s == 255:
			p.Errorf("%s: exited with status 255; aborting", args[0])
			status = 124
			return false
		case s == 126 || s == 127:
			if s == 127 {
				p.Errorf("%s: No such file or directory", args[0])
			}
			status = s
			return false
		case s != 0:
			status = 123
		}
		return true
	}
	if len(groups) == 0 {
		if !has(opts, "r") && replace == "" {
			run(nil)
		}
		return status
	}
	if replace != "" || maxLines > 0 {
		for _, g := range groups {
			if !run(g) {
				break
			}
		}
		return status
	}
	base := 0
	for _, a := range args {
		base += len(a) + 1
	}
	for len(groups) > 0 {
		var call []string
		size := base
		for len(groups) > 0 && (maxArgs == 0 || len(call) < maxArgs) {
			a := groups[0][0]
			if size += len(a) + 1; size > maxChars && len(call) > 0 {
				break
			}
			call, groups = append(call, a), groups[1:]
		}
		if !run(call) {
			break
		}
	}
	return status
}

// xargsWords splits input at blanks, quotes and backslashes honoured; whole
// keeps the line as one word.
func xargsWords(s string, whole bool) (words []string, ok bool) {
	var b strings.Builder
	have := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\'', '"':
			end := strings.IndexAny(s[i+1:], string(c)+"\n")
			if end < 0 || s[i+1+end] == '\n' {
				return nil, false
			}
			b.WriteString(s[i+1 : i+1+end])
			i += end + 1
			have = true
		case '\\':
			if i+1 < len(s) {
				i++
				b.WriteByte(s[i])
				have = true
			}
		case ' ', '\t', '\n':
			if whole && c != '\n' {
				b.WriteByte(c)
				continue
			}
			if have {
				words = append(words, b.String())
				b.Reset()
				have = false
			}
		default:
			b.WriteByte(c)
			have = true
		}
	}
	if have {
		words = append(words, b.String())
	}
	return words, true
}
