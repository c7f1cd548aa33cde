package shell

import (
	"errors"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// arithWord expands the word that holds an arithmetic expression (see
// adapter) and evaluates it; inside double quotes a quote is a mistake.
func (in *interp) arithWord(x syntax.ArithmExpr, quoted bool) int64 {
	w, ok := x.(*syntax.Word)
	if !ok {
		in.run.stop(&UnsupportedError{"this arithmetic"})
	}
	expr := in.document(w)
	if !quoted {
		expr = strings.ReplaceAll(expr, `"`, "")
	}
	return in.arithmetic(expr)
}

// arithmetic evaluates an expression as POSIX describes it (XCU 2.6.4), in 64
// bits; for bash also with ++, --, **, the comma and array elements.
func (in *interp) arithmetic(expr string) int64 {
	in.run.enter()
	defer in.run.leave()
	a := &arith{in: in, src: expr}
	a.next()
	if a.tok == "" && a.err == "" {
		return 0
	}
	v := a.comma(true)
	if a.err == "" && a.tok != "" {
		a.fail("expecting EOF")
	}
	if a.err != "" {
		in.errorf("arithmetic expression: %s: %q", a.err, expr)
		if in.bash {
			panic(shellError{1})
		}
		panic(shellError{2})
	}
	return v.n
}

// arith is a recursive descent parser that computes as it goes.
type arith struct {
	in    *interp
	src   string
	pos   int
	tok   string // "" at the end; a name; a number; an operator
	err   string
	depth int
}

// operand is a value and, if it has one, the variable it came from.
type operand struct {
	n     int64
	name  string
	index *int
}

func (a *arith) fail(msg string) {
	if a.err == "" {
		a.err = msg
	}
	a.tok, a.pos = "", len(a.src)
}

var operators = []string{
	"<<=", ">>=", "**", "++", "--", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||",
	"+=", "-=", "*=", "/=", "%=", "&=", "^=", "|=",
}

func (a *arith) next() {
	s := a.src[a.pos:]
	trimmed := strings.TrimLeft(s, " \t\n")
	a.pos += len(s) - len(trimmed)
	s = trimmed
	if s == "" {
		a.tok = ""
		return
	}
	n := 0
	switch c := s[0]; {
	case isAlpha(c) || c == '_' || isDigit(c):
		for n < len(s) && (isAlpha(s[n]) || s[n] == '_' || isDigit(s[n]) || a.in.bash && s[n] == '#' && isDigit(s[0])) {
			n++
		}
	default:
		for _, op := range operators {
			if strings.HasPrefix(s, op) && (a.in.bash || op != "**" && op != "++" && op != "--") {
				n = len(op)
				break
			}
		}
		if n == 0 {
			if strings.IndexByte("+-*/%&|^~!<>=?:(),[]", c) < 0 {
				a.fail("expecting primary")
				return
			}
			n = 1
		}
	}
	a.tok = s[:n]
	a.pos += n
}

func (a *arith) accept(tok string) bool {
	if a.tok != tok {
		return false
	}
	a.next()
	return true
}

func (a *arith) comma(live bool) operand {
	v := a.assign(live)
	for a.in.bash && a.accept(",") {
		v = a.assign(live)
	}
	return v
}

// assign parses an assignment or a conditional; live is false in a branch
// that is not taken.
func (a *arith) assign(live bool) operand {
	if a.depth++; a.depth > 1000 {
		a.fail("too deep")
		return operand{}
	}
	defer func() { a.depth-- }()
	left := a.conditional(live)
	op, ok := strings.CutSuffix(a.tok, "=")
	if !ok || left.name == "" {
		return left
	}
	switch a.tok {
	case "==", "!=", "<=", ">=":
		return left
	}
	a.next()
	right := a.assign(live)
	n := right.n
	if op != "" {
		n = a.binary(op, left.n, right.n, live)
	}
	if live && a.err == "" {
		a.store(left, n)
	}
	return operand{n: n}
}

func (a *arith) store(o operand, n int64) {
	value := strconv.FormatInt(n, 10)
	if o.index != nil {
		a.in.setElement(o.name, *o.index, value)
		return
	}
	a.in.setVar(o.name, value)
}

func (a *arith) conditional(live bool) operand {
	cond := a.operators(live, 0)
	if !a.accept("?") {
		return cond
	}
	yes := a.comma(live && cond.n != 0)
	if !a.accept(":") {
		a.fail("expecting ':'")
		return operand{}
	}
	no := a.conditional(live && cond.n == 0)
	if cond.n != 0 {
		return operand{n: yes.n}
	}
	return operand{n: no.n}
}

// levels are the binary operators, loosest first.
var levels = [][]string{
	{"||"}, {"&&"}, {"|"}, {"^"}, {"&"}, {"==", "!="}, {"<", ">", "<=", ">="},
	{"<<", ">>"}, {"+", "-"}, {"*", "/", "%"},
}

func (a *arith) operators(live bool, level int) operand {
	if level == len(levels) {
		return a.power(live)
	}
	left := a.operators(live, level+1)
	for {
		op := ""
		for _, o := range levels[level] {
			if a.tok == o {
				op = o
			}
		}
		if op == "" {
			return left
		}
		a.next()
		switch op {
		case "||":
			right := a.operators(live && left.n == 0, level+1)
			left = operand{n: truth(left.n != 0 || right.n != 0)}
		case "&&":
			right := a.operators(live && left.n != 0, level+1)
			left = operand{n: truth(left.n != 0 && right.n != 0)}
		default:
			right := a.operators(live, level+1)
			left = operand{n: a.binary(op, left.n, right.n, live)}
		}
	}
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (a *arith) binary(op string, x, y int64, live bool) int64 {
	switch op {
	case "|":
		return x | y
	case "^":
		return x ^ y
	case "&":
		return x & y
	case "==":
		return truth(x == y)
	case "!=":
		return truth(x != y)
	case "<":
		return truth(x < y)
	case ">":
		return truth(x > y)
	case "<=":
		return truth(x <= y)
	case ">=":
		return truth(x >= y)
	case "<<":
		return x << (uint64(y) & 63)
	case ">>":
		return x >> (uint64(y) & 63)
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/", "%":
		if y == 0 {
			if live {
				a.fail("division by zero")
			}
			return 0
		}
		if op == "/" {
			return x / y
		}
		return x % y
	}
	a.fail("expecting EOF")
	return 0
}

func (a *arith) power(live bool) operand {
	base := a.unary(live)
	if a.tok != "**" {
		return base
	}
	a.next()
	exp := a.power(live)
	n := int64(1)
	if exp.n < 0 {
		a.fail("exponent less than 0")
		return operand{}
	}
	for b, e := base.n, exp.n; e > 0; e >>= 1 {
		if e&1 != 0 {
			n *= b
		}
		b *= b
	}
	return operand{n: n}
}

func (a *arith) unary(live bool) operand {
	if a.depth++; a.depth > 1000 {
		a.fail("too deep")
		return operand{}
	}
	defer func() { a.depth-- }()
	switch op := a.tok; op {
	case "+", "-", "!", "~":
		a.next()
		v := a.unary(live)
		switch op {
		case "-":
			v.n = -v.n
		case "!":
			v.n = truth(v.n == 0)
		case "~":
			v.n = ^v.n
		}
		return operand{n: v.n}
	case "++", "--":
		a.next()
		v := a.unary(live)
		if v.name == "" {
			a.fail("expecting primary")
			return operand{}
		}
		n := v.n + 1
		if op == "--" {
			n = v.n - 1
		}
		if live {
			a.store(v, n)
		}
		return operand{n: n}
	}
	v := a.primary(live)
	if (a.tok == "++" || a.tok == "--") && v.name != "" {
		n := v.n + 1
		if a.tok == "--" {
			n = v.n - 1
		}
		a.next()
		if live {
			a.store(v, n)
		}
		return operand{n: v.n}
	}
	return v
}

func (a *arith) primary(live bool) operand {
	tok := a.tok
	switch {
	case tok == "":
		a.fail("expecting primary")
	case tok == "(":
		a.next()
		v := a.comma(live)
		if !a.accept(")") {
			a.fail("expecting ')'")
		}
		return operand{n: v.n}
	case isDigit(tok[0]):
		n, ok := number(tok, a.in.bash)
		if !ok {
			a.fail("expecting EOF")
			return operand{}
		}
		a.next()
		return operand{n: n}
	case isName(tok):
		a.next()
		return a.variable(tok, live)
	default:
		a.fail("expecting primary")
	}
	return operand{}
}

func (a *arith) variable(name string, live bool) operand {
	o := operand{name: name}
	v := a.in.vars[name]
	value, set := a.in.lookup(name)
	if a.in.bash && a.tok == "[" {
		start, depth := a.pos, 1
		for ; a.pos < len(a.src) && depth > 0; a.pos++ {
			switch a.src[a.pos] {
			case '[':
				depth++
			case ']':
				depth--
			}
		}
		if depth > 0 {
			a.fail("bad array subscript")
			return o
		}
		sub := a.src[start : a.pos-1]
		a.next()
		if v.dict != nil {
			value = v.dict[sub]
		} else {
			i := int(a.in.arithmetic(sub))
			o.index = &i
			value = v.element(i)
		}
	} else if !set && a.in.opts['u'] && live && a.tok != "=" {
		a.in.unsetError(name, "")
	}
	if value == "" {
		return o
	}
	if a.in.bash {
		if _, ok := number(strings.TrimPrefix(value, "-"), true); !ok {
			o.n = a.in.arithmetic(value)
			return o
		}
	}
	n, ok := signedNumber(value, a.in.bash)
	if !ok && a.tok != "=" && live {
		a.fail("Illegal number: " + value)
	}
	o.n = n
	return o
}

func signedNumber(s string, bash bool) (int64, bool) {
	s = strings.Trim(s, " \t\n")
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	n, ok := number(s, bash)
	if negative {
		n = -n
	}
	return n, ok
}

// number reads a constant as strtoimax with base 0 does; values out of range
// are the nearest in range.
func number(s string, bash bool) (int64, bool) {
	base := 10
	if b, digits, ok := strings.Cut(s, "#"); ok && bash {
		n, err := strconv.Atoi(b)
		if err != nil || n < 2 || n > 36 {
			return 0, false
		}
		base, s = n, digits
	} else if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		base, s = 16, s[2:]
	} else if len(s) > 1 && s[0] == '0' {
		base, s = 8, s[1:]
	}
	if strings.ContainsAny(s, "_+-") {
		return 0, false
	}
	n, err := strconv.ParseInt(s, base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return n, true
	}
	return n, err == nil
}
