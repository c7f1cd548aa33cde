package shell

import (
	"context"
	"fmt"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

func testBuiltin(in *interp, args []string, _ int) int {
	t := &tester{
		stat: in.stat,
		tty:  func(string) bool { return false },
		bash: in.bash,
		gnu:  in.bash,
	}
	t.isSet = func(name string) bool {
		if !in.bash || name == "" {
			return false
		}
		_, set := in.lookup(name)
		return set
	}
	t.option = func(name string) bool {
		for _, o := range optionOrder {
			if o.name == name {
				return in.opts[o.letter]
			}
		}
		return false
	}
	result, err := t.run(args)
	if err != "" {
		in.errorf("%s: %s", args[0], err)
		return 2
	}
	return boolStatus(result)
}

// Test is test(1) and [ for those who call them as programs.
func Test(_ context.Context, p *Process) int {
	t := &tester{tty: func(string) bool { return false }, gnu: true}
	t.stat = func(name string, follow bool) (*tree.Inode, error) {
		if follow {
			return p.Stat(name)
		}
		return p.Lstat(name)
	}
	args := append([]string{p.Name()}, p.Args[1:]...)
	result, err := t.run(args)
	if err != "" {
		p.Errorf("%s", err)
		return 2
	}
	return boolStatus(result)
}

// tester evaluates the expressions of test. Up to four arguments mean what
// POSIX says; more are parsed with -a, -o, ! and parentheses, as dash does.
type tester struct {
	stat   func(name string, follow bool) (*tree.Inode, error)
	tty    func(fd string) bool
	isSet  func(name string) bool
	option func(name string) bool
	bash   bool
	gnu    bool // knows ==
	args   []string
	pos    int
	err    string
	depth  int
}

func (t *tester) run(args []string) (result bool, err string) {
	t.args = args[1:]
	if args[0] == "[" {
		if n := len(t.args); n == 0 || t.args[n-1] != "]" {
			return false, "missing ]"
		}
		t.args = t.args[:len(t.args)-1]
	}
	a := t.args
	negate := false
	for {
		switch len(a) {
		case 0:
			return negate, ""
		case 1:
			return (a[0] != "") != negate, ""
		case 2:
			if a[0] == "!" {
				return (a[1] == "") != negate, ""
			}
		case 3:
			if t.isBinary(a[1]) {
				r := t.binary(a[1], a[0], a[2])
				return r != negate, t.err
			}
			if a[0] == "(" && a[2] == ")" {
				return (a[1] != "") != negate, ""
			}
			if a[0] == "!" {
				negate, a = !negate, a[1:]
				continue
			}
		case 4:
			if a[0] == "!" {
				negate, a = !negate, a[1:]
				continue
			}
			if a[0] == "(" && a[3] == ")" {
				a = a[1:3]
				continue
			}
		}
		break
	}
	t.args = a
	r := t.or()
	if t.err == "" && t.pos < len(t.args) {
		t.err = "unexpected operator"
	}
	return r != negate, t.err
}

func (t *tester) peek(n int) (string, bool) {
	if t.pos+n < len(t.args) {
		return t.args[t.pos+n], true
	}
	return "", false
}

func (t *tester) fail(format string, args ...any) bool {
	if t.err == "" {
		t.err = fmt.Sprintf(format, args...)
	}
	t.pos = len(t.args)
	return false
}

func (t *tester) or() bool {
	r := t.and()
	for {
		if op, ok := t.peek(0); !ok || op != "-o" {
			return r
		}
		t.pos++
		right := t.and()
		r = r || right
	}
}

func (t *tester) and() bool {
	r := t.not()
	for {
		if op, ok := t.peek(0); !ok || op != "-a" {
			return r
		}
		t.pos++
		right := t.not()
		r = r && right
	}
}

func (t *tester) not() bool {
	if t.depth++; t.depth > 1000 {
		return t.fail("expression too deep")
	}
	defer func() { t.depth-- }()
	if op, ok := t.peek(0); ok && op == "!" {
		if next, ok := t.peek(1); !ok || !t.isBinary(next) {
			t.pos++
			return !t.not()
		}
	}
	return t.primary()
}

func (t *tester) primary() bool {
	a, ok := t.peek(0)
	if !ok {
		return t.fail("argument expected")
	}
	if op, ok := t.peek(1); ok && op != "-a" && op != "-o" && t.isBinary(op) {
		right, ok := t.peek(2)
		if !ok {
			return t.fail("%s: argument expected", op)
		}
		t.pos += 3
		return t.binary(op, a, right)
	}
	switch {
	case a == "(":
		t.pos++
		r := t.or()
		if c, ok := t.peek(0); !ok || c != ")" {
			return t.fail("closing paren expected")
		}
		t.pos++
		return r
	case t.isUnary(a):
		operand, ok := t.peek(1)
		if !ok {
			if len(t.args) == 1 {
				break
			}
			return t.fail("%s: argument expected", a)
		}
		t.pos += 2
		return t.unary(a, operand)
	}
	t.pos++
	return a != ""
}

func (t *tester) isUnary(op string) bool {
	if len(op) != 2 || op[0] != '-' {
		return false
	}
	return strings.IndexByte("bcdefghkLnprsStuwxzOG", op[1]) >= 0 || t.bash && (op[1] == 'v' || op[1] == 'a' || op[1] == 'o')
}

func (t *tester) isBinary(op string) bool {
	switch op {
	case "==":
		return t.gnu
	case "=", "!=", "<", ">", "-eq", "-ne", "-gt", "-ge", "-lt", "-le", "-nt", "-ot", "-ef", "-a", "-o":
		return true
	}
	return false
}

func (t *tester) binary(op, a, b string) bool {
	switch op {
	case "=", "==":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case ">":
		return a > b
	case "-a":
		return a != "" && b != ""
	case "-o":
		return a != "" || b != ""
	case "-nt", "-ot", "-ef":
		x, errX := t.stat(a, true)
		y, errY := t.stat(b, true)
		if errX != nil || errY != nil {
			// dash wants both files, other shells see a missing one as older.
			return t.bash && (op == "-nt" && errX == nil || op == "-ot" && errY == nil)
		}
		switch op {
		case "-nt":
			return x.ModTime > y.ModTime
		case "-ot":
			return x.ModTime < y.ModTime
		}
		return x == y
	}
	x, y := t.integer(a), t.integer(b)
	if t.err != "" {
		return false
	}
	switch op {
	case "-eq":
		return x == y
	case "-ne":
		return x != y
	case "-gt":
		return x > y
	case "-ge":
		return x >= y
	case "-lt":
		return x < y
	}
	return x <= y
}

func (t *tester) integer(s string) int64 {
	trimmed := strings.Trim(s, " \t\n")
	digits := strings.TrimPrefix(strings.TrimPrefix(trimmed, "-"), "+")
	n := int64(0)
	ok := digits != ""
	for i := range len(digits) {
		if !isDigit(digits[i]) || n > (1<<63-10)/10 {
			ok = false
			break
		}
		n = n*10 + int64(digits[i]-'0')
	}
	if !ok {
		t.fail("Illegal number: %s", s)
		return 0
	}
	if strings.HasPrefix(trimmed, "-") {
		n = -n
	}
	return n
}

func (t *tester) unary(op, a string) bool {
	switch op {
	case "-n":
		return a != ""
	case "-z":
		return a == ""
	case "-t":
		return t.tty(a)
	case "-v":
		return t.isSet(a)
	case "-o":
		return t.option(a)
	}
	n, err := t.stat(a, op != "-h" && op != "-L")
	if err != nil {
		return false
	}
	switch op {
	case "-a", "-e", "-r", "-w": // root may read and write everything
		return true
	case "-b":
		return n.Type() == tree.TypeBlock
	case "-c":
		return n.Type() == tree.TypeChar
	case "-d":
		return n.IsDir()
	case "-f":
		return n.IsRegular()
	case "-g":
		return n.Mode&0o2000 != 0
	case "-h", "-L":
		return n.IsSymlink()
	case "-k":
		return n.Mode&0o1000 != 0
	case "-p":
		return n.Type() == tree.TypeFifo
	case "-s":
		return n.Size() > 0 || n.IsDir()
	case "-S":
		return n.Type() == tree.TypeSocket
	case "-u":
		return n.Mode&0o4000 != 0
	case "-x":
		return n.IsDir() || n.Mode&0o111 != 0
	case "-O":
		return n.UID == 0
	case "-G":
		return n.GID == 0
	}
	return false
}
