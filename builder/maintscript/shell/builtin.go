package shell

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// builtin is a command that runs inside the shell process.
type builtin func(in *interp, args []string, flags int) int

// specialBuiltins are those whose errors end the shell and whose assignments
// stay (POSIX XCU 2.14).
var specialBuiltins = map[string]bool{
	".": true, ":": true, "break": true, "continue": true, "eval": true, "exec": true, "exit": true,
	"export": true, "local": true, "readonly": true, "return": true, "set": true, "shift": true, "times": true,
	"trap": true, "unset": true,
}

// builtin returns the builtin of a name, nil if there is none.
func (in *interp) builtin(name string) builtin {
	switch name {
	case ".":
		return dotBuiltin
	case ":", "true", "hash", "jobs":
		return trueBuiltin
	case "false":
		return falseBuiltin
	case "break", "continue":
		return breakBuiltin
	case "return":
		return returnBuiltin
	case "exit":
		return exitBuiltin
	case "eval":
		return evalBuiltin
	case "exec":
		return execBuiltin
	case "command":
		return commandBuiltin
	case "type":
		return typeBuiltin
	case "export", "readonly":
		return exportBuiltin
	case "local":
		return localBuiltin
	case "unset":
		return unsetBuiltin
	case "set":
		return setBuiltin
	case "shift":
		return shiftBuiltin
	case "getopts":
		return getoptsBuiltin
	case "read":
		return readBuiltin
	case "cd", "chdir":
		return cdBuiltin
	case "pwd":
		return pwdBuiltin
	case "umask":
		return umaskBuiltin
	case "trap":
		return trapBuiltin
	case "wait":
		return waitBuiltin
	case "kill":
		return killBuiltin
	case "times":
		return timesBuiltin
	case "ulimit":
		return ulimitBuiltin
	case "alias":
		return aliasBuiltin
	case "unalias":
		return unaliasBuiltin
	case "test", "[":
		return testBuiltin
	case "echo":
		return echoBuiltin
	case "printf":
		return printfBuiltin
	}
	if in.bash {
		return bashBuiltin(name)
	}
	return nil
}

func trueBuiltin(*interp, []string, int) int  { return 0 }
func falseBuiltin(*interp, []string, int) int { return 1 }

func (in *interp) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		in.fatalf("Illegal number: %s", s)
	}
	return n
}

func breakBuiltin(in *interp, args []string, _ int) int {
	n := 1
	if len(args) > 1 {
		if n = in.number(args[1]); n == 0 {
			in.fatalf("Illegal number: %s", args[1])
		}
	}
	if in.loops > 0 {
		in.skip, in.skipCount = skipBreak, min(n, in.loops)
		if args[0] == "continue" {
			in.skip = skipContinue
		}
	}
	return 0
}

func returnBuiltin(in *interp, args []string, _ int) int {
	status := in.status
	if len(args) > 1 {
		status = in.number(args[1])
	}
	in.skip = skipReturn
	return status
}

func exitBuiltin(in *interp, args []string, _ int) int {
	status := in.status
	if in.trapStatus != nil {
		status = *in.trapStatus
	}
	if len(args) > 1 {
		status = in.number(args[1])
	}
	panic(exitShell{status & 0xff})
}

func evalBuiltin(in *interp, args []string, flags int) int {
	return in.evalString(strings.Join(args[1:], " "), flags&tested)
}

func dotBuiltin(in *interp, args []string, flags int) int {
	args = afterDashes(args)
	if len(args) < 2 {
		return 0
	}
	file := in.path(args[1])
	if !strings.Contains(args[1], "/") {
		file = ""
		for _, dir := range strings.Split(in.vars["PATH"].value, ":") {
			p := in.path(path.Join(dir, args[1]))
			if n, err := in.stat(p, true); err == nil && n.IsRegular() {
				file = p
				break
			}
		}
		if file == "" && in.bash {
			file = in.path(args[1])
		}
		if file == "" {
			in.fatalf(".: %s: not found", args[1])
		}
	}
	f, err := in.run.open(in.newProcess(nil, nil), file, OpenRead, 0)
	var text []byte
	if err == nil {
		text, err = ReadAll(f)
		f.Close()
	}
	if err != nil {
		if in.bash {
			in.errorf("%s: %s", args[1], Reason(err))
			return 1
		}
		in.fatalf(".: cannot open %s: %s", args[1], Reason(err))
	}
	in.run.enter()
	params, script, line := in.params, in.run.current.script, in.line
	if in.bash && len(args) > 2 {
		in.params = append([]string{in.name}, args[2:]...)
	}
	in.run.current.script = args[1]
	loops := in.loops
	in.level++
	defer func() {
		in.level--
		in.run.leave()
		if in.bash && len(args) > 2 {
			in.params = params
		}
		in.run.current.script, in.line, in.run.current.line = script, line, line
		in.loops = loops
	}()
	if in.bash {
		flags &= tested
	} else {
		flags = 0
	}
	status := in.source(string(text), flags)
	if in.skip == skipReturn {
		in.skip = skipNothing
	}
	return status
}

func afterDashes(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return slices.Delete(slices.Clone(args), 1, 2)
	}
	return args
}

func execBuiltin(in *interp, args []string, _ int) int {
	args = afterDashes(args)
	if len(args) == 1 {
		return 0
	}
	path := in.vars["PATH"].value
	if _, status := in.run.find(in.newProcess(nil, nil), args[1], path); status == 0 {
		delete(in.traps, 0) // nobody is left to run it
	}
	panic(exitShell{in.external(args[1:], path)})
}

func commandBuiltin(in *interp, args []string, flags int) int {
	rest, verbose, path := args[1:], byte(0), in.vars["PATH"].value
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			break
		}
		for _, c := range []byte(arg[1:]) {
			switch c {
			case 'v', 'V':
				verbose = c
			case 'p':
				path = DefaultPath
			default:
				in.fatalf("command: Illegal option -%c", c)
			}
		}
	}
	if len(rest) == 0 {
		return 0
	}
	if verbose != 0 {
		status := 0
		for _, name := range rest[:1] {
			if !in.describe(name, path, verbose == 'V') {
				status = 127
			}
		}
		if in.bash && status != 0 {
			return 1
		}
		return status
	}
	if b := in.builtin(rest[0]); b != nil {
		if rest[0] == "exec" && len(rest) == 1 {
			return 0
		}
		return b(in, rest, flags)
	}
	return in.external(rest, path)
}

var keywords = map[string]bool{
	"!": true, "case": true, "do": true, "done": true, "elif": true, "else": true, "esac": true, "fi": true,
	"for": true, "if": true, "in": true, "then": true, "until": true, "while": true, "{": true, "}": true,
}

// describe says what a command name stands for, as command -v and -V and type
// do.
func (in *interp) describe(name, pathVar string, verbose bool) bool {
	out := in.stdout()
	say := func(short, long string) bool {
		if verbose {
			short = name + long
		}
		fmt.Fprintln(out, short)
		return true
	}
	switch {
	case keywords[name]:
		return say(name, " is a shell keyword")
	case in.aliases[name] != "":
		if verbose {
			return say("", " is an alias for "+in.aliases[name])
		}
		return say("alias "+name+"="+quote(in.aliases[name]), "")
	case in.funcs[name] != nil:
		return say(name, " is a shell function")
	case in.builtin(name) != nil && specialBuiltins[name]:
		return say(name, " is a special shell builtin")
	case in.builtin(name) != nil:
		return say(name, " is a shell builtin")
	}
	p := in.newProcess(nil, nil)
	file, status := in.run.find(p, name, pathVar)
	if strings.Contains(name, "/") {
		file = name
		if _, err := in.stat(name, true); err == nil && !in.bash {
			status = 0 // dash asks only whether it exists
		}
	}
	if status != 0 {
		if verbose {
			fmt.Fprintf(out, "%s: not found\n", name)
		}
		return false
	}
	return say(file, " is "+file)
}

func typeBuiltin(in *interp, args []string, _ int) int {
	status := 0
	if in.bash && len(args) > 1 && args[1] == "-t" {
		return in.kinds(args[2:])
	}
	for _, name := range args[1:] {
		if !in.describe(name, in.vars["PATH"].value, true) {
			status = 127
		}
	}
	return status
}

// quote returns s in single quotes.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}

func exportBuiltin(in *interp, args []string, _ int) int {
	mark := func(v *variable) { v.export = true }
	has := func(v variable) bool { return v.export }
	if args[0] == "readonly" {
		mark = func(v *variable) { v.readonly = true }
		has = func(v variable) bool { return v.readonly }
	}
	rest := args[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		opt := rest[0]
		rest = rest[1:]
		if opt == "--" {
			break
		}
		switch opt {
		case "-p":
		case "-n":
			mark = func(v *variable) { v.export = false }
			if in.bash {
				break
			}
			fallthrough
		default:
			in.fatalf("%s: Illegal option %s", args[0], opt)
		}
	}
	if len(rest) == 0 {
		names := make([]string, 0, len(in.vars))
		for name, v := range in.vars {
			if has(v) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(in.stdout(), "%s %s", args[0], name)
			if v := in.vars[name]; v.set {
				fmt.Fprintf(in.stdout(), "=%s", quote(v.value))
			}
			fmt.Fprintln(in.stdout())
		}
		return 0
	}
	for _, arg := range rest {
		name, value, assigned := strings.Cut(arg, "=")
		if !isName(name) {
			in.fatalf("%s: %s: bad variable name", args[0], name)
		}
		if assigned {
			in.setVar(name, value)
		}
		v := in.vars[name]
		mark(&v)
		in.vars[name] = v
	}
	return 0
}

func localBuiltin(in *interp, args []string, _ int) int {
	if len(in.locals) == 0 {
		in.fatalf("local: not in a function")
	}
	saved := in.locals[len(in.locals)-1]
	for _, arg := range args[1:] {
		if arg == "-" {
			in.run.stop(&UnsupportedError{"local -"})
		}
		name, value, assigned := strings.Cut(arg, "=")
		if !isName(name) {
			in.fatalf("local: %s: bad variable name", name)
		}
		if _, ok := saved[name]; !ok {
			saved[name] = in.save(name)
		}
		if assigned {
			in.setVar(name, value)
		}
	}
	return 0
}

func unsetBuiltin(in *interp, args []string, _ int) int {
	rest, functions, variables := args[1:], false, false
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		opt := rest[0]
		rest = rest[1:]
		if opt == "--" {
			break
		}
		for _, c := range opt[1:] {
			switch c {
			case 'f':
				functions = true
			case 'v':
				variables = true
			default:
				in.fatalf("unset: Illegal option -%c", c)
			}
		}
	}
	for _, name := range rest {
		if functions {
			delete(in.funcs, name)
			continue
		}
		if base, sub, ok := strings.Cut(name, "["); ok && in.bash {
			in.unsetElement(base, strings.TrimSuffix(sub, "]"))
			continue
		}
		if !isName(name) {
			in.fatalf("unset: %s: bad variable name", name)
		}
		if _, isVar := in.vars[name]; !isVar && in.bash && !variables {
			delete(in.funcs, name)
			continue
		}
		in.unsetVar(name)
	}
	return 0
}

func setBuiltin(in *interp, args []string, _ int) int {
	if len(args) == 1 {
		names := make([]string, 0, len(in.vars))
		for name, v := range in.vars {
			if v.set && v.list == nil && v.dict == nil {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(in.stdout(), "%s=%s\n", name, quote(in.vars[name].value))
		}
		return 0
	}
	rest, params := in.setOptions(args[1:])
	if params {
		in.params = append([]string{in.name}, rest...)
		in.getopt = 0
	}
	return 0
}

// setOptions applies leading options; params says whether what is left are
// new positional parameters.
func (in *interp) setOptions(args []string) (rest []string, params bool) {
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			return args[1:], true
		}
		if arg == "-" {
			delete(in.opts, 'x')
			delete(in.opts, 'v')
			return args[1:], len(args) > 1
		}
		if len(arg) < 2 || arg[0] != '-' && arg[0] != '+' {
			return args, true
		}
		args = args[1:]
		on := arg[0] == '-'
		for _, c := range []byte(arg[1:]) {
			if c == 'o' {
				if len(args) == 0 {
					in.showOptions(on)
					return nil, false
				}
				in.setNamed(args[0], on)
				args = args[1:]
				continue
			}
			if !slices.ContainsFunc(optionOrder, func(o struct {
				letter byte
				name   string
			}) bool {
				return o.letter == c
			}) && !(in.bash && strings.IndexByte("hBHEPkpT", c) >= 0) {
				in.fatalf("set: Illegal option -%c", c)
			}
			in.opts[c] = on
		}
	}
	return nil, false
}

func (in *interp) setNamed(name string, on bool) {
	for _, o := range optionOrder {
		if o.name == name {
			in.opts[o.letter] = on
			return
		}
	}
	switch name {
	case "nolog", "debug":
		return
	case "pipefail":
		if in.bash {
			in.setShopt("pipefail", on)
			return
		}
	case "posix", "physical", "braceexpand", "errtrace", "functrace", "hashall", "history", "privileged":
		if in.bash {
			return
		}
	}
	in.fatalf("set: Illegal option -o %s", name)
}

func (in *interp) showOptions(long bool) {
	if long {
		fmt.Fprintln(in.stdout(), "Current option settings")
	}
	for _, o := range optionOrder {
		if long {
			state := "off"
			if in.opts[o.letter] {
				state = "on"
			}
			fmt.Fprintf(in.stdout(), "%-16s%s\n", o.name, state)
			continue
		}
		sign := "+"
		if in.opts[o.letter] {
			sign = "-"
		}
		fmt.Fprintf(in.stdout(), "set %so %s\n", sign, o.name)
	}
}

func shiftBuiltin(in *interp, args []string, _ int) int {
	n := 1
	if len(args) > 1 {
		n = in.number(args[1])
	}
	if n > len(in.params)-1 {
		if in.bash {
			return 1
		}
		in.fatalf("shift: can't shift that many")
	}
	if n > 0 {
		in.params = append([]string{in.params[0]}, in.params[n+1:]...)
	}
	in.getopt = 0
	return 0
}

func getoptsBuiltin(in *interp, args []string, _ int) int {
	if len(args) < 3 {
		in.fatalf("getopts: Usage: getopts optstring var [arg...]")
	}
	spec, name := args[1], args[2]
	list := in.params[min(1, len(in.params)):]
	if len(args) > 3 {
		list = args[3:]
	}
	ind, _ := strconv.Atoi(in.vars["OPTIND"].value)
	ind = max(ind, 1)
	setInd := func(offset int) {
		in.setVar("OPTIND", strconv.Itoa(ind))
		in.getopt = offset
	}
	done := func() int {
		setInd(0)
		in.unsetVar("OPTARG")
		in.setVar(name, "?")
		return 1
	}
	if in.getopt == 0 {
		if ind > len(list) {
			return done()
		}
		arg := list[ind-1]
		if len(arg) < 2 || arg[0] != '-' {
			return done()
		}
		if arg == "--" {
			ind++
			return done()
		}
		in.getopt = 1
	}
	if ind > len(list) || in.getopt >= len(list[ind-1]) {
		return done()
	}
	arg := list[ind-1]
	c := arg[in.getopt]
	offset := in.getopt + 1
	quiet := strings.HasPrefix(spec, ":")
	at := strings.IndexByte(strings.TrimPrefix(spec, ":"), c)
	rest := ""
	if at >= 0 {
		rest = strings.TrimPrefix(spec, ":")[at+1:]
	}
	if offset == len(arg) {
		ind, offset = ind+1, 0
	}
	switch {
	case c == ':' || at < 0:
		if quiet {
			in.setVar("OPTARG", string(c))
		} else {
			in.errorf("Illegal option -%c", c)
			in.unsetVar("OPTARG")
		}
		in.setVar(name, "?")
	case strings.HasPrefix(rest, ":"):
		value := ""
		switch {
		case offset > 0:
			value = arg[offset:]
			ind, offset = ind+1, 0
		case ind <= len(list):
			value = list[ind-1]
			ind++
		default:
			setInd(0)
			if quiet {
				in.setVar("OPTARG", string(c))
				in.setVar(name, ":")
				return 0
			}
			in.errorf("No arg for -%c option", c)
			in.unsetVar("OPTARG")
			in.setVar(name, "?")
			return 0
		}
		in.setVar("OPTARG", value)
		in.setVar(name, string(c))
	default:
		in.setVar("OPTARG", "")
		in.setVar(name, string(c))
	}
	setInd(offset)
	return 0
}

func cdBuiltin(in *interp, args []string, _ int) int {
	rest, physical := args[1:], false
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		opt := rest[0]
		rest = rest[1:]
		if opt == "--" {
			break
		}
		physical = strings.HasSuffix(opt, "P")
	}
	show := false
	dest := ""
	switch {
	case len(rest) == 0:
		dest = in.vars["HOME"].value
		if dest == "" {
			return 0
		}
	case rest[0] == "-":
		dest, show = in.vars["OLDPWD"].value, true
		if dest == "" {
			dest = "."
		}
	default:
		dest = rest[0]
	}
	try := []string{""}
	first, _, _ := strings.Cut(dest, "/")
	if cdpath := in.vars["CDPATH"].value; cdpath != "" && first != "" && first != "." && first != ".." {
		try = strings.Split(cdpath, ":")
	}
	for _, prefix := range try {
		target := dest
		if prefix != "" {
			target = path.Join(prefix, dest)
		}
		n, err := in.stat(target, true)
		if target == "" || err != nil || !n.IsDir() {
			continue
		}
		full := in.path(target)
		if physical {
			full = mustReal(in.run.shell.cfg.Tree, full)
		}
		in.setVar("OLDPWD", in.dir)
		in.dir = path.Clean(full)
		in.setVar("PWD", in.dir)
		for _, name := range []string{"OLDPWD", "PWD"} {
			v := in.vars[name]
			v.export = true
			in.vars[name] = v
		}
		if show || prefix != "" {
			fmt.Fprintln(in.stdout(), in.dir)
		}
		return 0
	}
	in.errorf("cd: can't cd to %s", dest)
	if in.bash {
		return 1
	}
	return 2
}

func pwdBuiltin(in *interp, args []string, _ int) int {
	dir := in.dir
	if len(args) > 1 && args[1] == "-P" {
		dir = mustReal(in.run.shell.cfg.Tree, dir)
	}
	fmt.Fprintln(in.stdout(), dir)
	return 0
}

func umaskBuiltin(in *interp, args []string, _ int) int {
	args = afterDashes(args)
	symbolic := len(args) > 1 && args[1] == "-S"
	if symbolic {
		args = slices.Delete(slices.Clone(args), 1, 2)
	}
	if len(args) == 1 {
		if symbolic {
			fmt.Fprintln(in.stdout(), symbolicMask(in.umask))
		} else {
			fmt.Fprintf(in.stdout(), "%04o\n", in.umask)
		}
		return 0
	}
	if isDigit(args[1][0]) {
		n, err := strconv.ParseUint(args[1], 8, 32)
		if err != nil || n > 0o777 {
			in.fatalf("umask: Illegal number: %s", args[1])
		}
		in.umask = uint32(n)
		return 0
	}
	mode, err := ParseMode(args[1], ^in.umask&0o777, false, 0)
	if err != nil {
		in.fatalf("umask: Illegal mode: %s", args[1])
	}
	in.umask = ^mode & 0o777
	return 0
}

func symbolicMask(mask uint32) string {
	var parts []string
	for i, who := range "ugo" {
		bits := ^mask >> (6 - 3*i) & 7
		s := string(who) + "="
		for j, c := range "rwx" {
			if bits&(4>>j) != 0 {
				s += string(c)
			}
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ",")
}

// ParseMode applies a mode of chmod(1), octal or symbolic, to the permission
// bits of a file or directory.
func ParseMode(mode string, perm uint32, dir bool, umask uint32) (uint32, error) {
	bad := fmt.Errorf("invalid mode: %q", mode)
	if mode != "" && isDigit(mode[0]) {
		n, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || n > 0o7777 {
			return 0, bad
		}
		if dir && len(mode) < 5 { // set-id bits of a directory stay unless named in full
			return uint32(n) | perm&0o6000, nil
		}
		return uint32(n), nil
	}
	for clause := range strings.SplitSeq(mode, ",") {
		i, who := 0, uint32(0)
		for ; i < len(clause) && strings.IndexByte("ugoa", clause[i]) >= 0; i++ {
			who |= map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[clause[i]]
		}
		limit := who
		if who == 0 {
			who, limit = 0o7777, 0o7777&^umask
		}
		if i == len(clause) {
			return 0, bad
		}
		for i < len(clause) {
			op := clause[i]
			if strings.IndexByte("+-=", op) < 0 {
				return 0, bad
			}
			i++
			bits := uint32(0)
			if i < len(clause) && isDigit(clause[i]) {
				j := i
				for j < len(clause) && isDigit(clause[j]) {
					j++
				}
				n, err := strconv.ParseUint(clause[i:j], 8, 32)
				if err != nil || n > 0o7777 {
					return 0, bad
				}
				bits, i = uint32(n), j
			}
			for ; i < len(clause) && strings.IndexByte("+-=", clause[i]) < 0; i++ {
				switch clause[i] {
				case 'r':
					bits |= 0o444
				case 'w':
					bits |= 0o222
				case 'x':
					bits |= 0o111
				case 'X':
					if dir || perm&0o111 != 0 {
						bits |= 0o111
					}
				case 's':
					bits |= 0o6000
				case 't':
					bits |= 0o1000
				case 'u':
					bits |= perm >> 6 & 7 * 0o111
				case 'g':
					bits |= perm >> 3 & 7 * 0o111
				case 'o':
					bits |= perm & 7 * 0o111
				default:
					return 0, bad
				}
			}
			bits &= limit
			switch op {
			case '+':
				perm |= bits
			case '-':
				perm &^= bits
			default:
				clear := who
				if dir && bits&0o6000 == 0 {
					clear &^= 0o6000
				}
				perm = perm&^clear | bits
			}
		}
	}
	return perm, nil
}

// signals by number (signal(7), the same on arm64 and amd64).
var signals = map[int]string{
	0: "EXIT", 1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL",
	10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD",
	18: "CONT", 19: "STOP", 20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ",
	26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR", 31: "SYS",
}

const sigPipe, sigTerm = 13, 15

func signalNumber(s string, bash bool) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		_, ok := signals[n]
		return n, ok
	}
	if bash {
		s = strings.TrimPrefix(strings.ToUpper(s), "SIG")
	}
	for n, name := range signals {
		if strings.EqualFold(name, s) {
			return n, true
		}
	}
	return 0, false
}

func trapBuiltin(in *interp, args []string, _ int) int {
	args = afterDashes(args)
	if len(args) == 1 {
		for n := range 32 {
			if action, ok := in.traps[n]; ok {
				fmt.Fprintf(in.stdout(), "trap -- %s %s\n", quote(action), signals[n])
			}
		}
		return 0
	}
	if in.traps == nil {
		in.traps = map[int]string{}
	}
	action, set, names := args[1], true, args[2:]
	if _, isSignal := signalNumber(action, in.bash); len(names) == 0 || isSignal && isDigit(action[0]) {
		set, names = false, args[1:]
	} else if action == "-" {
		set = false
	}
	for _, name := range names {
		if in.bash && (name == "ERR" || name == "DEBUG" || name == "RETURN") {
			in.run.stop(&UnsupportedError{"trap " + name})
		}
		n, ok := signalNumber(name, in.bash)
		if !ok {
			in.errorf("trap: %s: bad trap", name)
			return 1
		}
		if set {
			in.traps[n] = action
		} else {
			delete(in.traps, n)
		}
	}
	return 0
}

func killBuiltin(in *interp, args []string, _ int) int {
	rest, sig := args[1:], sigTerm
	if len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		name := rest[0][1:]
		rest = rest[1:]
		if name == "l" {
			for n := 1; n < 32; n++ {
				fmt.Fprintln(in.stdout(), signals[n])
			}
			return 0
		}
		if name == "s" && len(rest) > 0 {
			name, rest = rest[0], rest[1:]
		}
		n, ok := signalNumber(name, true)
		if !ok && name != "-" {
			in.fatalf("kill: invalid signal number or name: %s", name)
		}
		if ok {
			sig = n
		}
	}
	status := 0
	for _, arg := range rest {
		pid, err := strconv.Atoi(arg)
		if err != nil {
			in.fatalf("kill: Illegal number: %s", arg)
		}
		if !in.signal(pid, sig) {
			in.errorf("kill: No such process")
			status = 1
		}
	}
	return status
}

// signal sends a signal to a process of this run.
func (in *interp) signal(pid, sig int) bool {
	if pid == in.pid && !in.subshell {
		action, trapped := in.traps[sig]
		switch {
		case sig == 0 || trapped && action == "":
		case trapped:
			status, outer := in.status, in.trapStatus
			in.trapStatus = &status
			in.evalString(action, 0)
			in.status, in.trapStatus = status, outer
		default:
			panic(killed{sig})
		}
		return true
	}
	for t := range in.run.tasks {
		if t.pid == pid {
			if sig != 0 {
				t.signal = sig
				in.run.makeReady(t)
			}
			return true
		}
	}
	return false
}

func waitBuiltin(in *interp, args []string, _ int) int {
	args = afterDashes(args)
	if len(args) == 1 {
		for _, t := range in.jobs {
			in.run.wait(t)
		}
		in.jobs = nil
		return 0
	}
	status := 0
	for _, arg := range args[1:] {
		pid, err := strconv.Atoi(arg)
		t := in.jobs[pid]
		if err != nil || t == nil {
			status = 127
			continue
		}
		status = in.run.wait(t)
	}
	return status
}

func timesBuiltin(in *interp, _ []string, _ int) int {
	fmt.Fprint(in.stdout(), "0m0.000000s 0m0.000000s\n0m0.000000s 0m0.000000s\n")
	return 0
}

func ulimitBuiltin(in *interp, args []string, _ int) int {
	if len(args) > 1 && args[len(args)-1][0] != '-' {
		return 0 // setting a limit has no effect that a script could see
	}
	fmt.Fprintln(in.stdout(), "unlimited")
	return 0
}

func aliasBuiltin(in *interp, args []string, _ int) int {
	status := 0
	if in.aliases == nil {
		in.aliases = map[string]string{}
	}
	if len(args) == 1 {
		names := []string{}
		for name := range in.aliases {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(in.stdout(), "%s=%s\n", name, quote(in.aliases[name]))
		}
	}
	for _, arg := range args[1:] {
		name, value, ok := strings.Cut(arg, "=")
		if ok {
			in.aliases[name] = value
			continue
		}
		if value, ok = in.aliases[name]; !ok {
			in.errorf("alias: %s not found", name)
			status = 1
			continue
		}
		fmt.Fprintf(in.stdout(), "%s=%s\n", name, quote(value))
	}
	return status
}

func unaliasBuiltin(in *interp, args []string, _ int) int {
	status := 0
	for _, name := range args[1:] {
		if name == "-a" {
			clear(in.aliases)
			continue
		}
		if _, ok := in.aliases[name]; !ok {
			in.errorf("unalias: %s not found", name)
			status = 1
		}
		delete(in.aliases, name)
	}
	return status
}

// readByte reads one byte, so that nothing more is taken from a stream that
// others read too.
func readByte(r io.Reader) (byte, error) {
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n == 1 {
			return b[0], nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func readBuiltin(in *interp, args []string, _ int) int {
	rest, raw, prompt := args[1:], false, ""
	stdin, delim, asArray, limit := in.stdin(), byte('\n'), "", -1
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		opt := rest[0]
		rest = rest[1:]
		if opt == "--" {
			break
		}
		for i := 1; i < len(opt); i++ {
			c := opt[i]
			if c == 'r' {
				raw = true
				continue
			}
			if in.bash && (c == 's' || c == 'e') {
				continue
			}
			value := opt[i+1:]
			if value == "" && len(rest) > 0 {
				value, rest = rest[0], rest[1:]
			}
			i = len(opt)
			switch {
			case c == 'p':
				prompt = value
			case c == 'd' && in.bash:
				delim = 0
				if value != "" {
					delim = value[0]
				}
			case c == 'a' && in.bash:
				asArray = value
			case c == 'n' && in.bash:
				limit = in.number(value)
			case c == 'u' && in.bash:
				if f := in.files[in.number(value)]; f != nil {
					stdin = f
				}
			case c == 't' && in.bash:
			default:
				in.fatalf("read: Illegal option -%c", c)
			}
		}
	}
	_ = prompt // it is shown on a terminal only
	if len(rest) == 0 && asArray == "" {
		if !in.bash {
			in.fatalf("read: arg count")
		}
		rest = []string{"REPLY"}
	}
	for _, name := range rest {
		if !isName(name) {
			in.fatalf("read: %s: bad variable name", name)
		}
	}
	var line []byte
	var quoted []bool
	status := 0
	for limit < 0 || len(line) < limit {
		c, err := readByte(stdin)
		if err != nil {
			status = 1
			break
		}
		if c == 0 && delim != 0 {
			continue
		}
		if c == '\\' && !raw {
			c, err = readByte(stdin)
			if err != nil {
				status = 1
				break
			}
			if c != '\n' {
				line, quoted = append(line, c), append(quoted, true)
			}
			continue
		}
		if c == delim {
			break
		}
		line, quoted = append(line, c), append(quoted, false)
		if max := in.run.shell.cfg.Limits.Memory; int64(len(line)) > max {
			in.run.stop(&LimitError{"bytes in a line", max})
		}
	}
	if asArray != "" {
		var pieces []piece
		for i := range line {
			pieces = append(pieces, piece{text: string(line[i : i+1]), quoted: quoted[i], split: !quoted[i]})
		}
		var values []string
		for _, f := range in.split(pieces) {
			values = append(values, text(f))
		}
		in.vars[asArray] = variable{set: true, list: newList(values)}
		return status
	}
	for i, value := range in.splitLine(line, quoted, len(rest)) {
		in.setVar(rest[i], value)
	}
	return status
}

// splitLine splits a line that was read into n fields; the last takes what is
// left, less the white space and one separator that end it.
func (in *interp) splitLine(line []byte, quoted []bool, n int) []string {
	ifs := in.vars["IFS"].value
	if !in.vars["IFS"].set {
		ifs = " \t\n"
	}
	isSep := func(i int) bool { return !quoted[i] && strings.IndexByte(ifs, line[i]) >= 0 }
	isSpace := func(i int) bool { return isSep(i) && strings.IndexByte(" \t\n", line[i]) >= 0 }
	out := make([]string, n)
	i := 0
	for i < len(line) && isSpace(i) {
		i++
	}
	for f := range n {
		if f == n-1 {
			end := len(line)
			for end > i && isSpace(end-1) {
				end--
			}
			// A single separator at the end goes if it is the only one.
			if end > i && isSep(end-1) && !isSpace(end-1) {
				only := true
				for j := i; j < end-1; j++ {
					only = only && !isSep(j)
				}
				if only {
					end--
				}
			}
			out[f] = string(line[i:end])
			break
		}
		start := i
		for i < len(line) && !isSep(i) {
			i++
		}
		out[f] = string(line[start:i])
		for i < len(line) && isSpace(i) {
			i++
		}
		if i < len(line) && isSep(i) && !isSpace(i) {
			i++
			for i < len(line) && isSpace(i) {
				i++
			}
		}
		if i >= len(line) {
			break
		}
	}
	return out
}

// shCommand is sh, dash or bash called as a program.
func shCommand(_ context.Context, p *Process) int {
	bash := p.Name() == "bash"
	in := p.run.newInterp(p, bash)
	defer in.files.close()
	in.name = p.Args[0]
	script, line := p.run.current.script, p.run.current.line
	defer func() {
		p.run.shellPID = in.parent
		p.run.current.script, p.run.current.line = script, line
	}()
	return in.process(func() int { return in.main(p) })
}

// main runs sh's command line.
func (in *interp) main(p *Process) int {
	args := p.Args[1:]
	command, stdin := false, false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		arg := args[0]
		if arg == "--" {
			args = args[1:]
			break
		}
		if strings.HasPrefix(arg, "--") && in.bash {
			args = args[1:]
			continue
		}
		letters := ""
		for _, c := range arg[1:] {
			switch c {
			case 'c':
				command = true
			case 's':
				stdin = true
			case 'l':
			default:
				letters += string(c)
			}
		}
		args = args[1:]
		if letters != "" {
			opts := []string{arg[:1] + letters}
			if strings.HasSuffix(letters, "o") && len(args) > 0 {
				opts, args = append(opts, args[0]), args[1:]
			}
			in.setOptions(opts)
		}
	}
	switch {
	case command:
		if len(args) == 0 {
			in.fatalf("-c requires an argument")
		}
		in.params = []string{in.name}
		if len(args) > 1 {
			in.name = args[1]
			in.params = args[1:]
		}
		in.run.current.script = in.name + " -c"
		return in.source(args[0], 0)
	case stdin || len(args) == 0:
		in.params = append([]string{in.name}, args...)
		text, err := ReadAll(in.stdin())
		if err != nil {
			return 2
		}
		return in.source(string(text), 0)
	}
	in.name, in.params = args[0], args
	n, err := p.Stat(args[0])
	var text []byte
	if err == nil && n.IsDir() {
		err = tree.ErrIsDir
	}
	if err == nil {
		text, err = p.ReadFile(args[0])
	}
	if err != nil {
		fmt.Fprintf(in.stderr(), "%s: 0: cannot open %s: %s\n", p.Args[0], args[0], Reason(err))
		if in.bash {
			return 127
		}
		return 2
	}
	in.run.current.script = args[0]
	return in.source(string(text), 0)
}
