package shell

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// piece is a part of an expanded word.
type piece struct {
	text   string
	quoted bool // neither split nor a pattern
	split  bool // the result of an expansion: subject to field splitting
	next   bool // not text but the end of a field, between "$@"'s parameters
}

// expansion collects the pieces of a word.
type expansion struct {
	in     *interp
	pieces []piece
	size   int
}

func (x *expansion) add(p piece) {
	x.in.run.took(len(p.text))
	if x.size += len(p.text); int64(x.size) > x.in.run.shell.cfg.Limits.Memory {
		x.in.run.stop(&LimitError{"bytes in a word", x.in.run.shell.cfg.Limits.Memory})
	}
	x.pieces = append(x.pieces, p)
}

// wordMode says how a word is expanded.
type wordMode struct {
	quoted  bool // inside double quotes
	heredoc bool // inside a here-document: a double quote is plain
	split   bool // unquoted literal text is split too: the word of ${x:-a b}
	assign  bool // an assignment's value: ~ after : counts
	keepAll bool // $@ stays several fields
	brace   bool // inside ${}: \} is a quoted brace
}

func (in *interp) expand(w *syntax.Word, m wordMode) []piece {
	x := &expansion{in: in}
	if w != nil {
		x.parts(w.Parts, m)
	}
	return x.pieces
}

func (x *expansion) parts(parts []syntax.WordPart, m wordMode) {
	for i, part := range parts {
		switch part := part.(type) {
		case *syntax.Lit:
			text := part.Value
			if !m.quoted {
				text = x.tilde(text, i == 0, i == len(parts)-1, m)
			}
			x.literal(text, m)
		case *syntax.SglQuoted:
			if part.Dollar {
				if !x.in.bash {
					x.add(piece{text: "$"})
				} else {
					x.add(piece{text: ansiQuoted(part.Value), quoted: true})
					continue
				}
			}
			x.add(piece{text: part.Value, quoted: true})
		case *syntax.DblQuoted:
			if part.Dollar && !x.in.bash {
				x.add(piece{text: "$"})
			}
			inner := m
			inner.quoted, inner.split, inner.brace = true, false, false
			if len(part.Parts) == 1 && x.isAt(part.Parts[0]) {
				x.parts(part.Parts, inner)
				continue
			}
			x.add(piece{quoted: true})
			x.parts(part.Parts, inner)
		case *syntax.ParamExp:
			x.param(part, m)
		case *syntax.CmdSubst:
			x.add(piece{text: x.in.substitute(part), quoted: m.quoted, split: !m.quoted})
		case *syntax.ArithmExp:
			n := x.in.arithWord(part.X, m.quoted)
			x.add(piece{text: fmt.Sprint(n), quoted: m.quoted, split: !m.quoted})
		case *syntax.ExtGlob:
			x.extGlob(part)
		default:
			x.in.run.stop(&UnsupportedError{fmt.Sprintf("a %T", part)})
		}
	}
}

// isAt reports whether a part is a plain $@, which gives no field at all if
// there are no parameters.
func (x *expansion) isAt(part syntax.WordPart) bool {
	p, ok := part.(*syntax.ParamExp)
	if !ok || p.Length || p.Excl || p.Slice != nil || p.Repl != nil {
		return false
	}
	if p.Index != nil && subscript(p.Index) == "@" {
		return p.Exp == nil
	}
	return p.Param.Value == "@" && p.Index == nil
}

// literal adds source text, taking backslashes as its surroundings do.
func (x *expansion) literal(text string, m wordMode) {
	if !strings.Contains(text, `\`) {
		if text != "" {
			x.add(piece{text: text, quoted: m.quoted, split: m.split && !m.quoted})
		}
		return
	}
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			x.add(piece{text: b.String(), quoted: m.quoted, split: m.split && !m.quoted})
			b.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '\\' || i+1 == len(text) {
			b.WriteByte(c)
			continue
		}
		i++
		c = text[i]
		if m.quoted {
			switch {
			case c == '\n':
			case c == '$' || c == '`' || c == '\\' || c == '"' && !m.heredoc || c == '}' && m.brace:
				b.WriteByte(c)
			default:
				b.WriteByte('\\')
				b.WriteByte(c)
			}
			continue
		}
		if c == '\n' {
			continue
		}
		flush()
		x.add(piece{text: string(c), quoted: true})
	}
	flush()
}

// tilde replaces a leading ~, and in assignments one after each colon.
func (x *expansion) tilde(text string, first, last bool, m wordMode) string {
	if !strings.Contains(text, "~") {
		return text
	}
	end := "/"
	if m.assign {
		end = ":/"
	}
	one := func(s string, closed bool) string {
		if !strings.HasPrefix(s, "~") {
			return s
		}
		i := strings.IndexAny(s, end)
		if i < 0 {
			if !closed {
				return s // a quote or an expansion follows
			}
			i = len(s)
		}
		home, ok := x.in.home(s[1:i])
		if !ok {
			return s
		}
		x.add(piece{text: home, quoted: true})
		return s[i:]
	}
	if !m.assign {
		if first {
			return one(text, last)
		}
		return text
	}
	elems := strings.Split(text, ":")
	for i, elem := range elems {
		if i > 0 {
			x.literal(":", m)
		}
		if i > 0 || first {
			elem = one(elem, last || i < len(elems)-1)
		}
		if i == len(elems)-1 {
			return elem
		}
		x.literal(elem, m)
	}
	return ""
}

// home returns a user's home directory by the tree's passwd file; "" is the
// current user.
func (in *interp) home(user string) (string, bool) {
	if user == "" {
		return in.lookup("HOME")
	}
	if !isName(strings.ReplaceAll(user, "-", "_")) {
		return "", false
	}
	data, err := in.run.shell.cfg.Tree.ReadFile("/etc/passwd")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(f) >= 7 && f[0] == user {
			return f[5], true
		}
	}
	return "", false
}

// text joins pieces into one string.
func text(pieces []piece) string {
	if len(pieces) == 1 {
		return pieces[0].text
	}
	var b strings.Builder
	for _, p := range pieces {
		if p.next {
			b.WriteByte(' ')
		}
		b.WriteString(p.text)
	}
	return b.String()
}

// literal expands a word that is neither split nor a pattern: a redirection's
// target, the word of a case.
func (in *interp) literal(w *syntax.Word) string { return text(in.expand(w, wordMode{})) }

// assigned expands an assignment's value.
func (in *interp) assigned(w *syntax.Word) string { return text(in.expand(w, wordMode{assign: true})) }

// document expands a here-document.
func (in *interp) document(w *syntax.Word) string {
	return text(in.expand(w, wordMode{quoted: true, heredoc: true}))
}

// pattern expands a word to a pattern in which backslashes quote.
func (in *interp) pattern(w *syntax.Word) string {
	return in.dialect(patternText(in.expand(w, wordMode{})))
}

// dialect makes [^a] a set that holds ^, which is what it is to dash.
func (in *interp) dialect(pattern string) string {
	if in.bash {
		return pattern
	}
	return strings.ReplaceAll(pattern, "[^", `[\^`)
}

func patternText(pieces []piece) string {
	var b strings.Builder
	for _, p := range pieces {
		switch {
		case p.next:
			b.WriteByte(' ')
		case p.quoted:
			b.WriteString(escapePattern(p.text))
		default:
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// fields expands words to arguments.
func (in *interp) fields(words []*syntax.Word) []string {
	var out []string
	for _, w := range words {
		out = in.appendFields(out, w)
	}
	return out
}

func (in *interp) appendFields(out []string, w *syntax.Word) []string {
	if len(w.Parts) == 1 { // nothing to expand, most often
		if lit, ok := w.Parts[0].(*syntax.Lit); ok && !strings.ContainsAny(lit.Value, `\*?[~{`) {
			return append(out, lit.Value)
		}
	}
	words := []*syntax.Word{w}
	if in.bash {
		words = braces(w)
	}
	for _, w := range words {
		out = in.appendWord(out, w)
	}
	return out
}

func (in *interp) appendWord(out []string, w *syntax.Word) []string {
	for _, f := range in.split(in.expand(w, wordMode{keepAll: true})) {
		out = in.appendPaths(out, f)
	}
	if limit := in.run.shell.cfg.Limits.Memory / 16; int64(len(out)) > limit {
		in.run.stop(&LimitError{"arguments", limit})
	}
	return out
}

// commandFields expands the words of a command. The arguments of export,
// readonly and local that look like assignments are expanded as such.
func (in *interp) commandFields(words []*syntax.Word) []string {
	var out []string
	declares := false
	for i, w := range words {
		if i > 0 && declares {
			if name, value := splitAssignment(w); name != "" {
				out = append(out, name+"="+in.assigned(value))
				continue
			}
		}
		out = in.appendFields(out, w)
		if i == 0 {
			switch w.Lit() {
			case "export", "readonly", "local":
				declares = true
			}
		}
	}
	return out
}

// splitAssignment takes a word of the form name=value apart; name is "" if it
// is none.
func splitAssignment(w *syntax.Word) (name string, value *syntax.Word) {
	if len(w.Parts) == 0 {
		return "", nil
	}
	lit, ok := w.Parts[0].(*syntax.Lit)
	if !ok {
		return "", nil
	}
	name, rest, found := strings.Cut(lit.Value, "=")
	if !found || !isName(name) {
		return "", nil
	}
	value = &syntax.Word{Parts: slices.Clone(w.Parts)}
	value.Parts[0] = &syntax.Lit{Value: rest}
	return name, value
}

// split does field splitting.
func (in *interp) split(pieces []piece) [][]piece {
	ifs := " \t\n"
	if v := in.vars["IFS"]; v.set {
		ifs = v.value
	}
	var fields [][]piece
	var field []piece
	have := false    // the field under way exists, though it may be empty
	bySpace := false // the last field was ended by white space only
	end := func() {
		fields = append(fields, field)
		field, have = nil, false
	}
	for _, p := range pieces {
		switch {
		case p.next:
			if have {
				end()
			}
			bySpace = false
			continue
		case p.quoted || !p.split:
			if p.text != "" || p.quoted {
				field, have = append(field, p), true
			}
			continue
		}
		start := 0
		flush := func(i int) {
			if i > start {
				field, have = append(field, piece{text: p.text[start:i]}), true
			}
			start = i + 1
		}
		for i := range len(p.text) {
			c := p.text[i]
			if strings.IndexByte(ifs, c) < 0 {
				continue
			}
			flush(i)
			if c == ' ' || c == '\t' || c == '\n' {
				if have {
					end()
					bySpace = true
				}
				continue
			}
			if bySpace && !have {
				bySpace = false
				continue
			}
			end()
			bySpace = false
		}
		flush(len(p.text))
	}
	if have {
		end()
	}
	return fields
}

// appendPaths does pathname expansion on a field.
func (in *interp) appendPaths(out []string, field []piece) []string {
	special := false
	for _, p := range field {
		special = special || !p.quoted && strings.ContainsAny(p.text, "*?[")
	}
	if special && !in.opts['f'] {
		if pattern := in.dialect(patternText(field)); hasMeta(pattern) {
			if found := in.glob(pattern); len(found) > 0 {
				return append(out, found...)
			}
			if in.shopt["nullglob"] {
				return out
			}
		}
	}
	return append(out, text(field))
}

// substitute runs a command substitution.
func (in *interp) substitute(cs *syntax.CmdSubst) string {
	if cs.TempFile || cs.ReplyVar {
		in.run.stop(&UnsupportedError{"${ command; }"})
	}
	var out bytes.Buffer
	limit := in.run.shell.cfg.Limits.Memory
	sink := &File{refs: 1, run: in.run, flags: OpenWrite, writer: writerFunc(func(b []byte) (int, error) {
		if int64(out.Len()+len(b)) > limit {
			in.run.stop(&LimitError{"bytes in a command substitution", limit})
		}
		return out.Write(b)
	})}
	if in.bash && len(cs.Stmts) == 1 && cs.Stmts[0].Cmd == nil && len(cs.Stmts[0].Redirs) == 1 &&
		cs.Stmts[0].Redirs[0].Op == syntax.RdrIn {
		return in.readWhole(cs.Stmts[0].Redirs[0].Word)
	}
	line := in.line
	in.substStatus = in.sub(func(c *interp) int {
		c.files.set(1, sink)
		return c.stmts(cs.Stmts, 0)
	})
	in.line = line
	in.run.current.line = line
	b := bytes.TrimRight(out.Bytes(), "\n")
	if bytes.IndexByte(b, 0) >= 0 {
		b = bytes.ReplaceAll(b, []byte{0}, nil)
	}
	return string(b)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// param expands a parameter.
func (x *expansion) param(p *syntax.ParamExp, m wordMode) {
	in := x.in
	if p.Flags != nil || p.NestedParam != nil || p.Width || p.IsSet || len(p.Modifiers) > 0 {
		in.run.stop(&UnsupportedError{"this parameter expansion"})
	}
	if in.bash && (p.Excl || p.Index != nil || p.Slice != nil || p.Repl != nil || p.Names != 0) {
		x.bashParam(p, m)
		return
	}
	name := p.Param.Value
	if name == "@" || name == "*" {
		if p.Length {
			x.value(fmt.Sprint(len(in.params)-1), m)
			return
		}
		var values []string
		if len(in.params) > 1 {
			values = in.params[1:]
		}
		x.list(p, name, values, m)
		return
	}
	value, set := in.lookup(name)
	x.scalar(p, name, value, set, m)
}

// scalar expands a parameter with one value, operators included.
func (x *expansion) scalar(p *syntax.ParamExp, name, value string, set bool, m wordMode) {
	in := x.in
	if p.Length {
		if !set && in.opts['u'] {
			in.unsetError(name, "")
		}
		x.value(fmt.Sprint(len(value)), m)
		return
	}
	if p.Exp == nil {
		if !set && in.opts['u'] {
			in.unsetError(name, "")
		}
		if set {
			x.value(value, m)
		}
		return
	}
	useWord := func() {
		inner := m
		inner.split, inner.brace, inner.assign = !m.quoted, true, false
		if p.Exp.Word != nil {
			x.parts(p.Exp.Word.Parts, inner)
		}
	}
	null := !set || value == ""
	switch p.Exp.Op {
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull:
		if set && (p.Exp.Op == syntax.AlternateUnset || value != "") {
			useWord()
		}
		return
	case syntax.DefaultUnset, syntax.DefaultUnsetOrNull:
		if !set || p.Exp.Op == syntax.DefaultUnsetOrNull && null {
			useWord()
			return
		}
	case syntax.AssignUnset, syntax.AssignUnsetOrNull:
		if !set || p.Exp.Op == syntax.AssignUnsetOrNull && null {
			if !isName(name) {
				in.fatalf("%s: bad variable name", name)
			}
			value = text(in.expand(p.Exp.Word, wordMode{quoted: m.quoted, heredoc: m.heredoc, brace: true}))
			in.setVar(name, value)
		}
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
		if !set || p.Exp.Op == syntax.ErrorUnsetOrNull && null {
			message := text(in.expand(p.Exp.Word, wordMode{quoted: m.quoted, heredoc: m.heredoc, brace: true}))
			if message == "" {
				message = "parameter not set"
				if p.Exp.Op == syntax.ErrorUnsetOrNull {
					message = "parameter not set or null"
				}
			}
			in.unsetError(name, message)
		}
	default:
		if !set && in.opts['u'] {
			in.unsetError(name, "")
		}
		value = x.trimmed(p.Exp, value)
	}
	x.value(value, m)
}

func (in *interp) unsetError(name, message string) {
	if message == "" {
		message = "parameter not set"
	}
	in.errorf("%s: %s", name, message)
	status := 2
	if in.bash {
		status = 1
	}
	panic(exitShell{status})
}

func (x *expansion) value(s string, m wordMode) {
	x.add(piece{text: s, quoted: m.quoted, split: !m.quoted})
}

// trimmed applies # ## % %% and bash's ^ ^^ , ,,.
func (x *expansion) trimmed(e *syntax.Expansion, value string) string {
	in := x.in
	pattern := in.pattern(e.Word)
	switch e.Op {
	case syntax.RemSmallPrefix:
		for i := 0; i <= len(value); i++ {
			if match(pattern, value[:i]) {
				return value[i:]
			}
		}
	case syntax.RemLargePrefix:
		for i := len(value); i >= 0; i-- {
			if match(pattern, value[:i]) {
				return value[i:]
			}
		}
	case syntax.RemSmallSuffix:
		for i := len(value); i >= 0; i-- {
			if match(pattern, value[i:]) {
				return value[:i]
			}
		}
	case syntax.RemLargeSuffix:
		for i := 0; i <= len(value); i++ {
			if match(pattern, value[i:]) {
				return value[:i]
			}
		}
	default:
		if in.bash {
			return in.changeCase(e.Op, pattern, value)
		}
		in.run.stop(&UnsupportedError{"${…" + e.Op.String() + "…}"})
	}
	return value
}

// list expands $@, $* or an array.
func (x *expansion) list(p *syntax.ParamExp, name string, values []string, m wordMode) {
	in := x.in
	set := len(values) > 0
	if p.Exp != nil {
		joined := strings.Join(values, " ")
		switch p.Exp.Op {
		case syntax.AlternateUnset, syntax.AlternateUnsetOrNull:
			x.scalar(p, name, joined, set, m)
			return
		case syntax.DefaultUnset, syntax.AssignUnset, syntax.ErrorUnset:
			if !set {
				x.scalar(p, name, "", false, m)
				return
			}
		case syntax.DefaultUnsetOrNull, syntax.AssignUnsetOrNull, syntax.ErrorUnsetOrNull:
			if joined == "" {
				x.scalar(p, name, "", set, m)
				return
			}
		case syntax.RemSmallPrefix, syntax.RemLargePrefix, syntax.RemSmallSuffix, syntax.RemLargeSuffix:
			if in.bash {
				values = x.trimEach(p.Exp, values)
				break
			}
			// dash takes all parameters for one string here.
			values = strings.Split(x.trimmed(p.Exp, strings.Join(values, "\x00")), "\x00")
		default:
			values = x.trimEach(p.Exp, values)
		}
	}
	sep := " "
	if v := in.vars["IFS"]; v.set {
		sep = v.value[:min(1, len(v.value))]
	}
	switch {
	case m.quoted && name == "*":
		x.add(piece{text: strings.Join(values, sep), quoted: true})
		return
	case !m.keepAll && (name == "*" || !in.bash):
		x.value(strings.Join(values, sep), m)
		return
	case !m.keepAll:
		x.value(strings.Join(values, " "), m)
		return
	}
	for i, v := range values {
		if i > 0 {
			x.add(piece{next: true})
		}
		x.value(v, m)
	}
}

func (x *expansion) trimEach(e *syntax.Expansion, values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = x.trimmed(e, v)
	}
	return out
}

func (in *interp) readWhole(w *syntax.Word) string {
	data, err := in.run.shell.cfg.Tree.ReadFile(path.Clean(in.path(in.literal(w))))
	if err != nil {
		in.substStatus = 1
		return ""
	}
	return strings.TrimRight(string(data), "\n")
}
