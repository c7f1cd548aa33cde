package shell

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// program is a parsed script: the statements before the first syntax error,
// and that error. Statements are never changed once parsed.
type program struct {
	stmts []*syntax.Stmt
	err   error
}

type cacheKey struct {
	text string
	bash bool
}

// maxCached bounds the texts whose parse is kept; scripts pull in the same
// few libraries over and over.
const maxCached = 256 << 10

// parse parses a script, remembering the result.
func (s *Shell) parse(text string, bash bool) *program {
	key := cacheKey{text, bash}
	if p := s.cache[key]; p != nil {
		return p
	}
	p := parse(text, bash)
	if len(text) < maxCached {
		if s.cached += len(text); s.cached > 16*maxCached {
			clear(s.cache)
			s.cached = len(text)
		}
		s.cache[key] = p
	}
	return p
}

func newParser(bash bool) *syntax.Parser {
	if bash {
		return syntax.NewParser(syntax.Variant(syntax.LangBash))
	}
	return syntax.NewParser(syntax.Variant(syntax.LangPOSIX))
}

func parse(text string, bash bool) *program {
	p := &program{}
	source := text
	for masked := 0; ; masked++ {
		p.stmts, p.err = nil, nil
		p.err = guard(func() error {
			for st, err := range newParser(bash).StmtsSeq(strings.NewReader(source)) {
				if err != nil {
					return err
				}
				p.stmts = append(p.stmts, st)
			}
			return nil
		})
		var parseErr syntax.ParseError
		if masked == 100 || !errors.As(p.err, &parseErr) {
			break
		}
		next, ok := maskArithmetic(source, int(parseErr.Pos.Offset()))
		if !ok {
			break
		}
		source = next
	}
	a := adapter{text: text, bash: bash}
	for _, st := range p.stmts {
		a.adapt(st, 0)
	}
	if p.err == nil {
		p.err = a.err
	}
	return p
}

// guard makes an error of the panics that the parser has for some odd inputs.
func guard(parse func() error) (err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("the parser gave up: %v", e)
		}
	}()
	return parse()
}

// maskArithmetic blanks the arithmetic expansion around an offset at which
// the parser gave up: it wants to know the operators, where a shell expands
// $(( 1 $op 2 )) first. The adapter takes the expression from the unmasked
// text.
func maskArithmetic(text string, at int) (string, bool) {
	at = min(at, len(text))
	open := strings.LastIndex(text[:at], "$((")
	if open < 0 {
		return "", false
	}
	depth, end := 0, -1
	for i := open + 3; i < len(text) && end < 0; i++ {
		switch text[i] {
		case '\n':
			return "", false
		case '(':
			depth++
		case ')':
			if depth == 0 {
				end = i
			}
			depth--
		}
	}
	if end < open+4 || end < at || !strings.HasPrefix(text[end:], "))") {
		return "", false
	}
	mask := "0" + strings.Repeat(" ", end-open-4)
	if text[open+3:end] == mask {
		return "", false
	}
	return text[:open+3] + mask + text[end:], true
}

// adapter rewrites parts of a fresh syntax tree so that the evaluator need
// not know where in the source they came from:
//
//   - an arithmetic expression becomes the word of its text, to be expanded
//     and only then read as an expression;
//   - a here-document loses the tabs of <<- and, with a quoted delimiter,
//     becomes one quoted string;
//   - single quotes inside "${x:-'y'}" become plain characters.
type adapter struct {
	text string
	bash bool
	err  error
	done map[syntax.Node]bool // made here, from another text
}

// adapt rewrites below a node that lies inside a number of backquotes.
func (a *adapter) adapt(root syntax.Node, backquotes int) {
	syntax.Walk(root, func(n syntax.Node) bool {
		if a.done[n] {
			return false
		}
		switch n := n.(type) {
		case *syntax.CmdSubst:
			if n.Backquotes && n != root {
				for _, st := range n.Stmts {
					a.adapt(st, backquotes+1)
				}
				return false
			}
		case *syntax.ArithmExp:
			if n.Bracket {
				n.X = a.arithmetic(n.Left.Offset()+2, n.Right.Offset(), backquotes)
			} else {
				n.X = a.arithmetic(n.Left.Offset()+3, n.Right.Offset(), backquotes)
			}
			return false
		case *syntax.ArithmCmd:
			n.X = a.arithmetic(n.Left.Offset()+2, n.Right.Offset(), backquotes)
			return false
		case *syntax.CStyleLoop:
			for _, x := range []*syntax.ArithmExpr{&n.Init, &n.Cond, &n.Post} {
				*x = a.expression(*x, backquotes)
			}
			return false
		case *syntax.LetClause:
			for i, x := range n.Exprs {
				n.Exprs[i] = a.expression(x, backquotes)
			}
			return false
		case *syntax.Stmt:
			if !a.bash {
				numberWords(n)
			}
		case *syntax.Redirect:
			if n.Hdoc != nil {
				a.hereDocument(n)
				for _, part := range n.Hdoc.Parts {
					a.quotedDefault(part)
				}
			}
		case *syntax.ParamExp:
			if n.Slice != nil {
				n.Slice.Offset = a.expression(n.Slice.Offset, backquotes)
				n.Slice.Length = a.expression(n.Slice.Length, backquotes)
				return false
			}
		case *syntax.DblQuoted:
			for _, part := range n.Parts {
				a.quotedDefault(part)
			}
		}
		return true
	})
}

func (a *adapter) expression(x syntax.ArithmExpr, backquotes int) syntax.ArithmExpr {
	if x == nil {
		return nil
	}
	return a.arithmetic(x.Pos().Offset(), x.End().Offset(), backquotes)
}

func (a *adapter) arithmetic(from, to uint, backquotes int) *syntax.Word {
	if from > to || int(to) > len(a.text) {
		from, to = 0, 0
	}
	text := a.text[from:to]
	for range backquotes {
		text = unescapeBackquoted(text)
	}
	return a.document(text)
}

// document parses text as the inside of double quotes in which a double
// quote is nothing special.
func (a *adapter) document(text string) *syntax.Word {
	var w *syntax.Word
	err := guard(func() (err error) {
		w, err = newParser(a.bash).Document(strings.NewReader(text))
		return err
	})
	if err != nil && a.err == nil {
		a.err = err
	}
	if err != nil || w == nil {
		return &syntax.Word{}
	}
	inner := adapter{text: text, bash: a.bash}
	inner.adapt(w, 0)
	if a.err == nil {
		a.err = inner.err
	}
	return w
}

func unescapeBackquoted(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\\$`", s[i+1]) >= 0 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quotedDefault makes single quotes in the word of "${x:-'word'}" plain.
func (a *adapter) quotedDefault(part syntax.WordPart) {
	p, ok := part.(*syntax.ParamExp)
	if !ok || p.Exp == nil || p.Exp.Word == nil {
		return
	}
	switch p.Exp.Op {
	case syntax.RemSmallPrefix, syntax.RemLargePrefix, syntax.RemSmallSuffix, syntax.RemLargeSuffix:
		return
	}
	w := p.Exp.Word
	var parts []syntax.WordPart
	for _, part := range w.Parts {
		q, ok := part.(*syntax.SglQuoted)
		if !ok || q.Dollar {
			a.quotedDefault(part)
			parts = append(parts, part)
			continue
		}
		inner := a.document(q.Value).Parts
		if a.done == nil {
			a.done = map[syntax.Node]bool{}
		}
		for _, part := range inner {
			a.done[part] = true
		}
		parts = append(parts, &syntax.Lit{Value: "'"})
		parts = append(parts, inner...)
		parts = append(parts, &syntax.Lit{Value: "'"})
	}
	w.Parts = parts
}

// numberWords makes the 12 of "echo 12>file" an argument: dash knows only
// descriptors of one digit.
func numberWords(st *syntax.Stmt) {
	for _, r := range st.Redirs {
		if r.N == nil || len(r.N.Value) < 2 {
			continue
		}
		if st.Cmd == nil {
			st.Cmd = &syntax.CallExpr{}
		}
		call, ok := st.Cmd.(*syntax.CallExpr)
		if !ok {
			continue
		}
		at := 0
		for at < len(call.Args) && r.N.Pos().After(call.Args[at].Pos()) {
			at++
		}
		call.Args = slices.Insert(call.Args, at, &syntax.Word{Parts: []syntax.WordPart{r.N}})
		r.N = nil
	}
}

// hereDocument brings a here-document into the form that the evaluator takes.
func (a *adapter) hereDocument(r *syntax.Redirect) {
	if r.Op == syntax.DashHdoc {
		stripTabs(r.Hdoc.Parts)
	}
	quoted := false
	for _, part := range r.Word.Parts {
		lit, ok := part.(*syntax.Lit)
		quoted = quoted || !ok || strings.Contains(lit.Value, `\`)
	}
	if !quoted {
		return
	}
	var b strings.Builder
	for _, part := range r.Hdoc.Parts {
		if lit, ok := part.(*syntax.Lit); ok {
			b.WriteString(lit.Value)
		} else { // the parser takes E"O"F for an unquoted delimiter
			b.WriteString(a.text[part.Pos().Offset():part.End().Offset()])
		}
	}
	r.Hdoc.Parts = []syntax.WordPart{&syntax.SglQuoted{Value: b.String()}}
}

func stripTabs(parts []syntax.WordPart) {
	lineStart := true
	for _, part := range parts {
		lit, ok := part.(*syntax.Lit)
		if !ok {
			lineStart = false
			continue
		}
		var b strings.Builder
		for line := range strings.Lines(lit.Value) {
			if lineStart {
				line = strings.TrimLeft(line, "\t")
			}
			b.WriteString(line)
			lineStart = strings.HasSuffix(line, "\n")
		}
		lit.Value = b.String()
	}
}
