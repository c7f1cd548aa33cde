package shell

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// What bash has and dash has not, as far as maintainer scripts written for
// bash use it.

func bashBuiltin(name string) builtin {
	switch name {
	case "source":
		return dotBuiltin
	case "shopt":
		return shoptBuiltin
	case "builtin":
		return func(in *interp, args []string, flags int) int {
			if len(args) < 2 {
				return 0
			}
			b := in.builtin(args[1])
			if b == nil {
				in.errorf("builtin: %s: not a shell builtin", args[1])
				return 1
			}
			return b(in, args[1:], flags)
		}
	case "mapfile", "readarray":
		return mapfileBuiltin
	case "enable", "disown", "complete", "set-o":
		return trueBuiltin
	}
	return nil
}

func (in *interp) setShopt(name string, on bool) {
	in.shopt = maps.Clone(in.shopt)
	if in.shopt == nil {
		in.shopt = map[string]bool{}
	}
	in.shopt[name] = on
}

func shoptBuiltin(in *interp, args []string, _ int) int {
	on, set := false, false
	status := 0
	for _, arg := range args[1:] {
		switch arg {
		case "-s":
			on, set = true, true
		case "-u":
			on, set = false, true
		case "-q", "-o":
		case "nullglob", "extglob", "globstar", "dotglob", "nocasematch", "lastpipe", "failglob":
			if set {
				if on && arg != "nullglob" && arg != "extglob" {
					in.run.stop(&UnsupportedError{"shopt -s " + arg})
				}
				in.setShopt(arg, on)
			} else if !in.shopt[arg] {
				status = 1
			}
		}
	}
	return status
}

func mapfileBuiltin(in *interp, args []string, _ int) int {
	name, trim := "MAPFILE", false
	for _, arg := range args[1:] {
		switch {
		case arg == "-t":
			trim = true
		case strings.HasPrefix(arg, "-"):
			in.run.stop(&UnsupportedError{"mapfile " + arg})
		default:
			name = arg
		}
	}
	data, err := ReadAll(in.stdin())
	if err != nil {
		return 1
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if trim {
			line = strings.TrimSuffix(line, "\n")
		}
		lines = append(lines, line)
	}
	in.vars[name] = variable{set: true, list: newList(lines)}
	return 0
}

func (in *interp) bashVariable(name string) (string, bool) {
	switch name {
	case "BASH_VERSION":
		return "5.2.37(1)-release", true
	case "BASH":
		return "/bin/bash", true
	case "BASHPID":
		return strconv.Itoa(in.run.current.pid), true
	case "LINENO":
		return strconv.Itoa(in.line), true
	case "EUID", "UID":
		return "0", true
	case "FUNCNAME", "BASH_SOURCE":
		return in.name, true
	case "RANDOM", "SECONDS", "EPOCHSECONDS":
		in.run.stop(&UnsupportedError{"$" + name})
	}
	return "", false
}

// subscript returns the text between the brackets of an array element.
func subscript(x syntax.ArithmExpr) string {
	if w, ok := x.(*syntax.Word); ok {
		return w.Lit()
	}
	return ""
}

func (v variable) element(i int) string {
	if v.list == nil {
		if i == 0 {
			return v.first()
		}
		return ""
	}
	if i < 0 {
		i += v.list.next()
	}
	return v.list.items[i]
}

// bashParam expands ${!x}, ${x[i]}, ${x:1:2} and ${x/a/b}.
func (x *expansion) bashParam(p *syntax.ParamExp, m wordMode) {
	in := x.in
	name := p.Param.Value
	if p.Names != 0 {
		var names []string
		for n, v := range in.vars {
			if strings.HasPrefix(n, name) && v.set {
				names = append(names, n)
			}
		}
		slices.Sort(names)
		star := "@"
		if p.Names == syntax.NamesPrefix {
			star = "*"
		}
		x.list(&syntax.ParamExp{Param: p.Param}, star, names, m)
		return
	}
	sub := ""
	if p.Index != nil {
		sub = subscript(p.Index)
	}
	if p.Excl && p.Index == nil {
		target, _ := in.lookup(name)
		name, _, _ = strings.Cut(target, "[")
		if name != target || name != "@" && name != "*" && !isName(name) && !allDigits(name) {
			in.run.stop(&UnsupportedError{"${!" + p.Param.Value + "} for " + target})
		}
	}
	var values []string
	isList := sub == "@" || sub == "*"
	v := in.vars[name]
	switch {
	case isList && p.Excl && v.dict != nil:
		values = slices.Sorted(maps.Keys(v.dict))
	case isList && p.Excl && v.list != nil:
		for _, i := range v.list.indexes() {
			values = append(values, strconv.Itoa(i))
		}
	case isList && v.dict != nil:
		for _, k := range slices.Sorted(maps.Keys(v.dict)) {
			values = append(values, v.dict[k])
		}
	case isList && v.list != nil:
		values = v.list.values()
	case isList && v.set:
		values = []string{v.value}
	case name == "@" || name == "*":
		isList, sub = true, name
		values = slices.Clone(in.params[min(1, len(in.params)):])
		if p.Slice != nil { // offset 0 is $0
			values = append([]string{in.name}, values...)
		}
	}
	if isList {
		if p.Length {
			x.value(strconv.Itoa(len(values)), m)
			return
		}
		if p.Slice != nil {
			lo, hi := in.slice(p.Slice, len(values))
			values = values[lo:hi]
		}
		if p.Repl != nil {
			for i := range values {
				values[i] = in.replace(p.Repl, values[i])
			}
		}
		x.list(p, sub, values, m)
		return
	}
	value, set := in.lookup(name)
	if p.Index != nil {
		if v.dict != nil {
			value, set = v.dict[in.key(p.Index)]
		} else {
			i := int(in.indexValue(p.Index))
			value = v.element(i)
			set = value != "" || i == 0 && set
		}
	}
	if p.Slice != nil {
		lo, hi := in.slice(p.Slice, len(value))
		value = value[lo:hi]
	}
	if p.Repl != nil {
		value = in.replace(p.Repl, value)
	}
	plain := *p
	plain.Index, plain.Slice, plain.Repl, plain.Excl = nil, nil, nil, false
	x.scalar(&plain, name, value, set, m)
}

func allDigits(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

// indexValue evaluates an array index, which the parser gives as a word or as
// arithmetic.
func (in *interp) indexValue(x syntax.ArithmExpr) int64 {
	return in.arithmetic(strings.ReplaceAll(in.indexText(x), `"`, ""))
}

func (in *interp) key(x syntax.ArithmExpr) string { return in.indexText(x) }

func (in *interp) indexText(x syntax.ArithmExpr) string {
	switch x := x.(type) {
	case *syntax.Word:
		return in.literal(x)
	case *syntax.ParenArithm:
		return "(" + in.indexText(x.X) + ")"
	case *syntax.UnaryArithm:
		if x.Post {
			return in.indexText(x.X) + x.Op.String()
		}
		return x.Op.String() + in.indexText(x.X)
	case *syntax.BinaryArithm:
		return in.indexText(x.X) + x.Op.String() + in.indexText(x.Y)
	}
	in.run.stop(&UnsupportedError{"this array index"})
	return ""
}

func (in *interp) slice(s *syntax.Slice, size int) (lo, hi int) {
	lo, hi = int(in.arithWord(s.Offset, false)), size
	if lo < 0 {
		lo += size
	}
	if lo < 0 || lo > size {
		return size, size
	}
	if s.Length != nil {
		n := int(in.arithWord(s.Length, false))
		if n < 0 {
			hi = size + n
		} else if n < size-lo {
			hi = lo + n
		}
	}
	return lo, max(lo, hi)
}

func (in *interp) replace(r *syntax.Replace, value string) string {
	pattern, with := in.pattern(r.Orig), ""
	if r.With != nil {
		with = in.literal(r.With)
	}
	anchorStart, anchorEnd := false, false
	if !r.All {
		if rest, ok := strings.CutPrefix(pattern, "#"); ok {
			pattern, anchorStart = rest, true
		} else if rest, ok := strings.CutPrefix(pattern, "%"); ok {
			pattern, anchorEnd = rest, true
		}
	}
	if pattern == "" && !anchorStart && !anchorEnd {
		return value
	}
	var b strings.Builder
	for i := 0; i <= len(value); {
		in.run.step()
		if anchorStart && i > 0 {
			b.WriteString(value[i:])
			return b.String()
		}
		end := -1
		for j := len(value); j >= i && (!anchorEnd || j == len(value)); j-- {
			if (j > i || anchorStart || anchorEnd) && match(pattern, value[i:j]) {
				end = j
				break
			}
		}
		if end >= 0 {
			b.WriteString(with)
			if limit := in.run.shell.cfg.Limits.Memory; int64(b.Len()) > limit {
				in.run.stop(&LimitError{"bytes in a word", limit})
			}
			if !r.All || end == i {
				return b.String() + value[end:]
			}
			i = end
			continue
		}
		if i < len(value) {
			b.WriteByte(value[i])
		}
		i++
	}
	return b.String()
}

func (in *interp) changeCase(op syntax.ParExpOperator, pattern, value string) string {
	if pattern == "" {
		pattern = "?"
	}
	b := []byte(value)
	for i := range b {
		if i > 0 && (op == syntax.UpperFirst || op == syntax.LowerFirst) {
			break
		}
		if !match(pattern, string(b[i:i+1])) {
			continue
		}
		switch op {
		case syntax.UpperFirst, syntax.UpperAll:
			b[i] = strings.ToUpper(string(b[i : i+1]))[0]
		case syntax.LowerFirst, syntax.LowerAll:
			b[i] = strings.ToLower(string(b[i : i+1]))[0]
		default:
			in.run.stop(&UnsupportedError{"${…" + op.String() + "…}"})
		}
	}
	return string(b)
}

func (x *expansion) extGlob(g *syntax.ExtGlob) {
	x.in.run.stop(&UnsupportedError{"the pattern " + g.Op.String() + g.Pattern.Value + ")"})
}

// braces does brace expansion.
func braces(w *syntax.Word) []*syntax.Word {
	found := false
	for _, part := range w.Parts {
		if lit, ok := part.(*syntax.Lit); ok && strings.Contains(lit.Value, "{") {
			found = true
		}
	}
	if !found {
		return []*syntax.Word{w}
	}
	split := &syntax.Word{Parts: slices.Clone(w.Parts)}
	if !syntax.SplitBraces(split) {
		return []*syntax.Word{w}
	}
	return expandBraces(split)
}

// maxBraces bounds the words that one brace expansion makes.
const maxBraces = 10000

func expandBraces(w *syntax.Word) []*syntax.Word {
	for i, part := range w.Parts {
		b, ok := part.(*syntax.BraceExp)
		if !ok {
			continue
		}
		var out []*syntax.Word
		for _, elem := range braceElems(b) {
			parts := slices.Concat(w.Parts[:i], elem.Parts, w.Parts[i+1:])
			for _, word := range expandBraces(&syntax.Word{Parts: parts}) {
				if len(out) < maxBraces {
					out = append(out, word)
				}
			}
		}
		return out
	}
	return []*syntax.Word{w}
}

func braceElems(b *syntax.BraceExp) []*syntax.Word {
	if !b.Sequence {
		return b.Elems
	}
	lit := func(s string) *syntax.Word { return &syntax.Word{Parts: []syntax.WordPart{&syntax.Lit{Value: s}}} }
	from, to, step := b.Elems[0].Lit(), b.Elems[1].Lit(), 1
	if len(b.Elems) > 2 {
		step, _ = strconv.Atoi(b.Elems[2].Lit())
		step = max(1, step, -step)
	}
	lo, errLo := strconv.Atoi(from)
	hi, errHi := strconv.Atoi(to)
	char := errLo != nil || errHi != nil
	if char {
		lo, hi = int(from[0]), int(to[0])
	}
	if lo > hi {
		step = -step
	}
	width := 0
	if strings.HasPrefix(from, "0") || strings.HasPrefix(to, "0") {
		width = max(len(from), len(to))
	}
	var out []*syntax.Word
	for n := lo; len(out) < maxBraces && (step > 0 && n <= hi || step < 0 && n >= hi); n += step {
		if char {
			out = append(out, lit(string(rune(n))))
		} else {
			out = append(out, lit(fmt.Sprintf("%0*d", width, n)))
		}
	}
	return out
}

// ansiQuoted is the value of $'…'.
func ansiQuoted(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case '\'', '"', '?':
			b.WriteByte(s[i])
		case 'e', 'E':
			b.WriteByte(27)
		case 'x', 'u', 'U':
			j, limit := i+1, map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]
			for j < len(s) && j <= i+limit && classes["xdigit"](s[j]) {
				j++
			}
			n, _ := strconv.ParseUint(s[i+1:j], 16, 32)
			if s[i] == 'x' {
				b.WriteByte(byte(n))
			} else {
				b.WriteRune(rune(n))
			}
			i = j - 1
		default:
			j := i + 1
			for j < len(s) && j < i+3 && isDigit(s[i]) && '0' <= s[j] && s[j] <= '7' {
				j++
			}
			out, _ := unescape(s[i-1:j], true)
			b.WriteString(out)
			i = j - 1
		}
	}
	return b.String()
}

func (in *interp) assignArray(name string, a *syntax.Assign) {
	old := in.vars[name]
	if old.readonly {
		in.fatalf("%s: readonly variable", name)
	}
	if old.dict != nil {
		dict := map[string]string{}
		if a.Append {
			dict = maps.Clone(old.dict)
		}
		for _, e := range a.Array.Elems {
			if e.Index == nil {
				in.fatalf("%s: must use subscript when assigning associative array", name)
			}
			dict[in.key(e.Index)] = in.assigned(e.Value)
		}
		old.dict, old.set = dict, true
		in.vars[name] = old
		return
	}
	l := newList(nil)
	if a.Append {
		if old.list != nil {
			l.items = maps.Clone(old.list.items)
		} else if old.set {
			l.items[0] = old.value
		}
	}
	next := l.next()
	for _, e := range a.Array.Elems {
		if e.Index != nil {
			next = int(in.indexValue(e.Index))
			value := ""
			if e.Value != nil {
				value = in.assigned(e.Value)
			}
			l.items[next] = value
			next++
			continue
		}
		for _, value := range in.fields([]*syntax.Word{e.Value}) {
			l.items[next] = value
			next++
		}
	}
	old.list, old.value, old.set = l, "", true
	in.vars[name] = old
}

func (in *interp) assignElement(name string, a *syntax.Assign, value string) {
	v := in.vars[name]
	if v.dict != nil {
		key := in.key(a.Index)
		v.dict = maps.Clone(v.dict)
		if a.Append {
			value = v.dict[key] + value
		}
		v.dict[key], v.set = value, true
		in.vars[name] = v
		return
	}
	i := int(in.indexValue(a.Index))
	if a.Append {
		value = v.element(i) + value
	}
	in.setElement(name, i, value)
}

func (in *interp) unsetElement(name, sub string) {
	v := in.vars[name]
	switch {
	case v.dict != nil:
		v.dict = maps.Clone(v.dict)
		delete(v.dict, strings.Trim(sub, `"'`))
	case v.list != nil:
		l := &list{items: maps.Clone(v.list.items)}
		delete(l.items, int(in.arithmetic(sub)))
		v.list = l
	}
	in.vars[name] = v
}

// declaration runs bash's declare, local, export, readonly and typeset.
func (in *interp) declaration(st *syntax.Stmt, cmd *syntax.DeclClause) int {
	in.run.step()
	undo, err := in.redirect(st.Redirs)
	defer undo()
	if err != nil {
		return 1
	}
	in.substStatus = 0
	export, readonly, array, dict, global, unmark := false, false, false, false, false, false
	local := cmd.Variant.Value == "local"
	switch cmd.Variant.Value {
	case "export":
		export = true
	case "readonly":
		readonly = true
	case "declare", "typeset":
		local = len(in.locals) > 0
	case "nameref":
		in.run.stop(&UnsupportedError{"a name reference"})
	}
	if local && len(in.locals) == 0 {
		in.errorf("local: can only be used in a function")
		return 1
	}
	option := func(s string) {
		for _, c := range s[1:] {
			switch c {
			case 'x':
				export, unmark = true, s[0] == '+'
			case 'r':
				readonly = true
			case 'a':
				array = true
			case 'A':
				dict = true
			case 'g':
				global = true
			case 'n':
				if cmd.Variant.Value == "export" {
					export, unmark = true, true
					continue
				}
				in.run.stop(&UnsupportedError{"a name reference"})
			default:
				in.run.stop(&UnsupportedError{cmd.Variant.Value + " " + s})
			}
		}
	}
	one := func(name string, a *syntax.Assign, value *string) {
		if local && !global {
			saved := in.locals[len(in.locals)-1]
			if _, ok := saved[name]; !ok {
				saved[name] = in.save(name)
				delete(in.vars, name)
			}
		}
		v := in.vars[name]
		if array && v.list == nil {
			v.list = newList(nil)
		}
		if dict && v.dict == nil {
			v.dict = map[string]string{}
		}
		if array || dict {
			in.vars[name] = v
		}
		switch {
		case a != nil:
			in.assign(a)
		case value != nil:
			in.setVar(name, *value)
		}
		v = in.vars[name]
		if export {
			v.export = !unmark
		}
		v.readonly = v.readonly || readonly
		in.vars[name] = v
	}
	for _, a := range cmd.Args {
		if a.Name != nil {
			if a.Naked {
				one(a.Name.Value, nil, nil)
			} else {
				one(a.Name.Value, a, nil)
			}
			continue
		}
		for _, f := range in.fields([]*syntax.Word{a.Value}) {
			if len(f) > 1 && (f[0] == '-' || f[0] == '+') {
				option(f)
				continue
			}
			name, value, assigned := strings.Cut(f, "=")
			if !isName(name) {
				in.errorf("%s: `%s': not a valid identifier", cmd.Variant.Value, f)
				return 1
			}
			if assigned {
				one(name, nil, &value)
			} else {
				one(name, nil, nil)
			}
		}
	}
	return 0
}

// testClause runs [[ … ]].
func (in *interp) testClause(cmd *syntax.TestClause) int {
	return boolStatus(in.testExpr(cmd.X))
}

func (in *interp) testExpr(x syntax.TestExpr) bool {
	in.run.enter()
	defer in.run.leave()
	t := &tester{stat: in.stat, tty: func(string) bool { return false }, bash: true}
	t.isSet = func(name string) bool {
		base, sub, isElem := strings.Cut(name, "[")
		v := in.vars[base]
		if isElem {
			sub = strings.TrimSuffix(sub, "]")
			if v.dict != nil {
				_, ok := v.dict[sub]
				return ok
			}
			return v.element(int(in.arithmetic(sub))) != ""
		}
		return name != "" && v.isSet()
	}
	t.option = func(name string) bool { return name == "pipefail" && in.shopt[name] }
	switch x := x.(type) {
	case *syntax.Word:
		return in.literal(x) != ""
	case *syntax.ParenTest:
		return in.testExpr(x.X)
	case *syntax.UnaryTest:
		if x.Op == syntax.TsNot {
			return !in.testExpr(x.X)
		}
		w, ok := x.X.(*syntax.Word)
		if !ok {
			return false
		}
		return t.unary(x.Op.String(), in.literal(w))
	case *syntax.BinaryTest:
		switch x.Op {
		case syntax.AndTest:
			return in.testExpr(x.X) && in.testExpr(x.Y)
		case syntax.OrTest:
			return in.testExpr(x.X) || in.testExpr(x.Y)
		}
		left, okL := x.X.(*syntax.Word)
		right, okR := x.Y.(*syntax.Word)
		if !okL || !okR {
			return false
		}
		a := in.literal(left)
		switch op := x.Op.String(); op {
		case "=", "==":
			return match(in.pattern(right), a)
		case "!=":
			return !match(in.pattern(right), a)
		case "=~":
			return in.matchRegexp(a, right)
		case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
			return t.binary(op, strconv.FormatInt(in.arithmetic(a), 10),
				strconv.FormatInt(in.arithmetic(in.literal(right)), 10))
		default:
			return t.binary(op, a, in.literal(right))
		}
	}
	in.run.stop(&UnsupportedError{fmt.Sprintf("a %T", x)})
	return false
}

func (in *interp) matchRegexp(s string, w *syntax.Word) bool {
	var expr strings.Builder
	for _, p := range in.expand(w, wordMode{}) {
		if p.quoted {
			expr.WriteString(regexp.QuoteMeta(p.text))
		} else {
			expr.WriteString(p.text)
		}
	}
	re, err := regexp.CompilePOSIX(expr.String())
	if err != nil {
		in.run.stop(&UnsupportedError{"the regular expression " + expr.String()})
	}
	m := re.FindStringSubmatch(s)
	in.vars["BASH_REMATCH"] = variable{set: true, list: newList(m)}
	return m != nil
}

// kinds is type -t.
func (in *interp) kinds(names []string) int {
	status := 0
	for _, name := range names {
		kind := ""
		switch {
		case in.aliases[name] != "":
			kind = "alias"
		case keywords[name]:
			kind = "keyword"
		case in.funcs[name] != nil:
			kind = "function"
		case in.builtin(name) != nil:
			kind = "builtin"
		default:
			if _, missing := in.run.find(in.newProcess(nil, nil), name, in.vars["PATH"].value); missing != 0 {
				status = 1
				continue
			}
			kind = "file"
		}
		fmt.Fprintln(in.stdout(), kind)
	}
	return status
}
