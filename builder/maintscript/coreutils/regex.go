package coreutils

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// pattern is a POSIX regular expression, basic or extended, with GNU's
// additions (\+ \? \| \s \w \b \< \> \` \'). One without back-references is
// run by Go's regexp, leftmost-longest; one with them by a matcher of our own.
type pattern struct {
	re     *regexp.Regexp
	root   *node // for back-references
	groups int
	fold   bool
}

var errPattern = errors.New("invalid regular expression")

func compile(expr string, extended, fold bool) (*pattern, error) {
	ps := &regexParser{src: expr, extended: extended}
	root, err := ps.parse()
	if err != nil {
		return nil, err
	}
	if ps.backref {
		return &pattern{root: root, groups: ps.groups, fold: fold}, nil
	}
	var b strings.Builder
	b.WriteString("(?s")
	if fold {
		b.WriteString("i")
	}
	b.WriteString(")")
	root.goSyntax(&b)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errPattern, expr)
	}
	re.Longest()
	return &pattern{re: re, groups: ps.groups}, nil
}

// find returns the match at or after a position as pairs of offsets, nil if
// there is none.
func (p *pattern) find(s string, from int) []int {
	if p.re == nil {
		return p.backtrack(s, from)
	}
	if from == 0 {
		return p.re.FindStringSubmatchIndex(s)
	}
	// The text before from decides about ^, \b and \<, so it is not cut off.
	for _, m := range p.re.FindAllStringSubmatchIndex(s, -1) {
		if m[0] >= from {
			return m
		}
	}
	return nil
}

// all returns every match that does not overlap, as sed's g and grep's -o see
// them: an empty match right after another match does not count.
func (p *pattern) all(s string) [][]int {
	if p.re != nil {
		return p.re.FindAllStringSubmatchIndex(s, -1)
	}
	var found [][]int
	for from, last := 0, -1; from <= len(s); {
		m := p.backtrack(s, from)
		if m == nil {
			break
		}
		if m[1] > m[0] || m[0] != last {
			found = append(found, m)
			last = m[1]
		}
		if from = m[1]; m[0] == m[1] {
			from++
		}
	}
	return found
}

func (p *pattern) matches(s string) bool {
	if p.re != nil {
		return p.re.MatchString(s)
	}
	return p.find(s, 0) != nil
}

// node is a piece of a parsed expression.
type node struct {
	kind     byte // one of the constants below
	text     string
	set      *[256]bool
	number   int // of a group or back-reference
	min, max int // of a repetition; max -1 is no bound
	subs     []*node
}

const (
	literal = iota
	anyByte
	set
	sequence
	choice
	group
	backref
	repeat
	assertion // text is Go's syntax
)

type regexParser struct {
	src      string
	pos      int
	extended bool
	groups   int
	open     int
	backref  bool
	depth    int
}

func (ps *regexParser) fail(msg string) error { return fmt.Errorf("%w: %s", errPattern, msg) }

func (ps *regexParser) parse() (*node, error) {
	n, err := ps.alternatives()
	if err == nil && ps.pos < len(ps.src) {
		if ps.extended {
			return nil, ps.fail("Unmatched ) or \\)")
		}
		return nil, ps.fail("Unmatched ) or \\)")
	}
	return n, err
}

// token returns the operator at the current position ("(", ")", "|", "*",
// "+", "?", "{") and its length, or "" for anything else.
func (ps *regexParser) token() (string, int) {
	if ps.pos >= len(ps.src) {
		return "", 0
	}
	c := ps.src[ps.pos]
	if c == '*' {
		return "*", 1
	}
	if ps.extended {
		if strings.IndexByte("()|+?{", c) >= 0 {
			return string(c), 1
		}
		return "", 0
	}
	if c == '\\' && ps.pos+1 < len(ps.src) && strings.IndexByte("()|+?{", ps.src[ps.pos+1]) >= 0 {
		return string(ps.src[ps.pos+1]), 2
	}
	return "", 0
}

func (ps *regexParser) alternatives() (*node, error) {
	if ps.depth++; ps.depth > 200 {
		return nil, ps.fail("too deep")
	}
	defer func() { ps.depth-- }()
	alt := &node{kind: choice}
	for {
		n, err := ps.sequence()
		if err != nil {
			return nil, err
		}
		alt.subs = append(alt.subs, n)
		tok, size := ps.token()
		if tok != "|" {
			break
		}
		ps.pos += size
	}
	if len(alt.subs) == 1 {
		return alt.subs[0], nil
	}
	return alt, nil
}

func (ps *regexParser) sequence() (*node, error) {
	seq := &node{kind: sequence}
	for ps.pos < len(ps.src) {
		tok, size := ps.token()
		if tok == "|" || tok == ")" && (ps.open > 0 || !ps.extended) {
			break
		}
		atom, err := ps.atom(tok, size, len(seq.subs) == 0)
		if err != nil {
			return nil, err
		}
		if atom, err = ps.repetitions(atom); err != nil {
			return nil, err
		}
		seq.subs = append(seq.subs, atom)
	}
	return seq, nil
}

func (ps *regexParser) repetitions(atom *node) (*node, error) {
	for {
		tok, size := ps.token()
		lo, hi := 0, -1
		switch tok {
		case "*":
		case "+":
			lo = 1
		case "?":
			hi = 1
		case "{":
			var ok bool
			var err error
			start := ps.pos
			ps.pos += size
			if lo, hi, ok, err = ps.interval(); err != nil {
				return nil, err
			}
			if !ok { // an ordinary brace in an extended expression
				ps.pos = start
				return atom, nil
			}
			size = 0
		default:
			return atom, nil
		}
		ps.pos += size
		if atom.kind == assertion && !ps.extended && tok == "*" && atom.text == "^" {
			return &node{kind: sequence, subs: []*node{atom, {kind: literal, text: "*"}}}, nil
		}
		atom = &node{kind: repeat, min: lo, max: hi, subs: []*node{atom}}
	}
}

func (ps *regexParser) interval() (lo, hi int, ok bool, err error) {
	end, closing := strings.IndexByte(ps.src[ps.pos:], '}'), 1
	if !ps.extended {
		end, closing = strings.Index(ps.src[ps.pos:], `\}`), 2
	}
	if end < 0 {
		if ps.extended {
			return 0, 0, false, nil
		}
		return 0, 0, false, ps.fail(`Unmatched \{`)
	}
	text := ps.src[ps.pos : ps.pos+end]
	from, to, comma := strings.Cut(text, ",")
	bad := func() (int, int, bool, error) {
		if ps.extended {
			return 0, 0, false, nil
		}
		return 0, 0, false, ps.fail(`Invalid content of \{\}`)
	}
	if from != "" || !comma {
		if lo, err = strconv.Atoi(from); err != nil {
			return bad()
		}
	}
	hi = lo
	if comma {
		hi = -1
		if to != "" {
			if hi, err = strconv.Atoi(to); err != nil {
				return bad()
			}
		}
	}
	if lo > 1000 || hi > 1000 || hi >= 0 && hi < lo || lo < 0 {
		return 0, 0, false, ps.fail("Regular expression too big")
	}
	ps.pos += end + closing
	return lo, hi, true, nil
}

func (ps *regexParser) atom(tok string, size int, first bool) (*node, error) {
	switch tok {
	case "(":
		ps.pos += size
		ps.groups++
		number := ps.groups
		ps.open++
		inner, err := ps.alternatives()
		if err != nil {
			return nil, err
		}
		ps.open--
		if end, n := ps.token(); end == ")" {
			ps.pos += n
			return &node{kind: group, number: number, subs: []*node{inner}}, nil
		}
		return nil, ps.fail(`Unmatched ( or \(`)
	case "*", "+", "?", "{":
		if first || ps.extended { // nothing to repeat
			ps.pos += size
			if tok != "*" && !ps.extended {
				return nil, ps.fail("Invalid preceding regular expression")
			}
			return &node{kind: literal, text: tok}, nil
		}
	case ")":
		ps.pos += size
		return &node{kind: literal, text: ")"}, nil
	}
	c := ps.src[ps.pos]
	ps.pos++
	switch c {
	case '.':
		return &node{kind: anyByte}, nil
	case '[':
		return ps.bracket()
	case '^':
		if first || ps.extended {
			return &node{kind: assertion, text: "^"}, nil
		}
	case '$':
		if tok, _ := ps.token(); ps.extended || ps.pos == len(ps.src) || tok == ")" || tok == "|" {
			return &node{kind: assertion, text: "$"}, nil
		}
	case '\\':
		if ps.pos == len(ps.src) {
			return nil, ps.fail("Trailing backslash")
		}
		c = ps.src[ps.pos]
		ps.pos++
		return ps.escape(c)
	}
	// Take a whole character, so that a repetition applies to all of it.
	start := ps.pos - 1
	for c >= 0xc0 && ps.pos < len(ps.src) && ps.src[ps.pos]&0xc0 == 0x80 {
		ps.pos++
	}
	return &node{kind: literal, text: ps.src[start:ps.pos]}, nil
}

func (ps *regexParser) escape(c byte) (*node, error) {
	word := func(in bool) *node {
		n := &node{kind: set, set: &[256]bool{}}
		for i := range 256 {
			n.set[i] = wordByte(byte(i)) == in
		}
		return n
	}
	space := func(in bool) *node {
		n := &node{kind: set, set: &[256]bool{}}
		for i := range 256 {
			n.set[i] = (strings.IndexByte(" \t\n\v\f\r", byte(i)) >= 0) == in
		}
		return n
	}
	switch c {
	case 'w':
		return word(true), nil
	case 'W':
		return word(false), nil
	case 's':
		return space(true), nil
	case 'S':
		return space(false), nil
	case 'b':
		return &node{kind: assertion, text: `\b`}, nil
	case 'B':
		return &node{kind: assertion, text: `\B`}, nil
	case '<':
		return &node{kind: assertion, text: `<`}, nil
	case '>':
		return &node{kind: assertion, text: `>`}, nil
	case '`':
		return &node{kind: assertion, text: `^`}, nil
	case '\'':
		return &node{kind: assertion, text: `$`}, nil
	case 'n':
		return &node{kind: literal, text: "\n"}, nil
	case 't':
		return &node{kind: literal, text: "\t"}, nil
	}
	if '1' <= c && c <= '9' {
		n := int(c - '0')
		if n > ps.groups {
			return nil, ps.fail("Invalid back reference")
		}
		ps.backref = true
		return &node{kind: backref, number: n}, nil
	}
	return &node{kind: literal, text: string(c)}, nil
}

func wordByte(c byte) bool {
	return 'a' <= c|32 && c|32 <= 'z' || '0' <= c && c <= '9' || c == '_'
}

var classNames = map[string]func(c byte) bool{
	"alnum":  func(c byte) bool { return wordByte(c) && c != '_' },
	"alpha":  func(c byte) bool { return 'a' <= c|32 && c|32 <= 'z' },
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < 32 || c == 127 },
	"digit":  func(c byte) bool { return '0' <= c && c <= '9' },
	"graph":  func(c byte) bool { return 32 < c && c < 127 },
	"lower":  func(c byte) bool { return 'a' <= c && c <= 'z' },
	"print":  func(c byte) bool { return 32 <= c && c < 127 },
	"punct":  func(c byte) bool { return 32 < c && c < 127 && (!wordByte(c) || c == '_') },
	"space":  func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' },
	"upper":  func(c byte) bool { return 'A' <= c && c <= 'Z' },
	"xdigit": func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|32 && c|32 <= 'f' },
}

// bracket parses a bracket expression, in which a backslash is plain.
func (ps *regexParser) bracket() (*node, error) {
	n := &node{kind: set, set: &[256]bool{}}
	negate := false
	if ps.pos < len(ps.src) && ps.src[ps.pos] == '^' {
		negate = true
		ps.pos++
	}
	for first := true; ; first = false {
		if ps.pos >= len(ps.src) {
			return nil, ps.fail("Unmatched [, [^, [:, [., or [=")
		}
		rest := ps.src[ps.pos:]
		if rest[0] == ']' && !first {
			ps.pos++
			break
		}
		if strings.HasPrefix(rest, "[:") {
			name, _, ok := strings.Cut(rest[2:], ":]")
			class := classNames[name]
			if !ok || class == nil {
				return nil, ps.fail("Invalid character class name")
			}
			for i := range 256 {
				n.set[i] = n.set[i] || class(byte(i))
			}
			ps.pos += len(name) + 4
			continue
		}
		lo, size := bracketChar(rest)
		ps.pos += size
		hi := lo
		if rest = ps.src[ps.pos:]; len(rest) > 1 && rest[0] == '-' && rest[1] != ']' {
			hi, size = bracketChar(rest[1:])
			ps.pos += 1 + size
		}
		if hi < lo {
			return nil, ps.fail("Invalid range end")
		}
		for i := int(lo); i <= int(hi); i++ {
			n.set[i] = true
		}
	}
	if negate {
		for i := range 256 {
			n.set[i] = !n.set[i]
		}
	}
	return n, nil
}

func bracketChar(s string) (byte, int) {
	if (strings.HasPrefix(s, "[.") || strings.HasPrefix(s, "[=")) && len(s) >= 5 && s[3] == s[1] && s[4] == ']' {
		return s[2], 5
	}
	return s[0], 1
}

// goSyntax writes an expression in the syntax of package regexp.
func (n *node) goSyntax(b *strings.Builder) {
	switch n.kind {
	case literal:
		b.WriteString(regexp.QuoteMeta(n.text))
	case anyByte:
		b.WriteByte('.')
	case set:
		n.setSyntax(b)
	case sequence:
		for _, s := range n.subs {
			s.goSyntax(b)
		}
	case choice:
		b.WriteString("(?:")
		for i, s := range n.subs {
			if i > 0 {
				b.WriteByte('|')
			}
			s.goSyntax(b)
		}
		b.WriteByte(')')
	case group:
		b.WriteByte('(')
		n.subs[0].goSyntax(b)
		b.WriteByte(')')
	case repeat:
		b.WriteString("(?:")
		n.subs[0].goSyntax(b)
		b.WriteByte(')')
		switch {
		case n.min == 0 && n.max < 0:
			b.WriteByte('*')
		case n.min == 1 && n.max < 0:
			b.WriteByte('+')
		case n.max < 0:
			fmt.Fprintf(b, "{%d,}", n.min)
		default:
			fmt.Fprintf(b, "{%d,%d}", n.min, n.max)
		}
	case assertion:
		switch n.text {
		case "^":
			b.WriteString(`\A`)
		case "$":
			b.WriteString(`\z`)
		case "<", ">":
			// A word's start and end are not Go's, but at a \b the next or the
			// previous character tells which it is; \b alone is close enough
			// only beside a word character, as in every use there is.
			b.WriteString(`\b`)
		default:
			b.WriteString(n.text)
		}
	}
}

func (n *node) setSyntax(b *strings.Builder) {
	all := n.set[0x80] // negated sets hold every byte beyond ASCII
	b.WriteByte('[')
	if all {
		b.WriteByte('^')
	}
	wrote := false
	for i := 0; i < 0x80; i++ {
		if n.set[i] == all {
			continue
		}
		j := i
		for j+1 < 0x80 && n.set[j+1] != all {
			j++
		}
		fmt.Fprintf(b, `\x%02x-\x%02x`, i, j)
		wrote = true
		i = j
	}
	if !all { // bytes beyond ASCII that were named one by one: characters
		for i := 0x80; i < 256; i++ {
			if n.set[i] {
				fmt.Fprintf(b, `\x{%x}`, i)
				wrote = true
			}
		}
	}
	if !wrote {
		if all {
			b.WriteString(`\x{10ffff}`)
		} else {
			b.WriteString(`^\x00-\x{10ffff}`)
		}
	}
	b.WriteByte(']')
}

// backtrack matches an expression with back-references: leftmost, and the
// longest of what the alternatives allow.
func (p *pattern) backtrack(s string, from int) []int {
	m := &matcher{s: s, fold: p.fold}
	for at := from; at <= len(s); at++ {
		caps := make([]int, 2*(p.groups+1))
		for i := range caps {
			caps[i] = -1
		}
		m.best = nil
		m.run(p.root, at, caps, func(end int, caps []int) bool {
			if m.best == nil || end > m.best[1] {
				m.best = append([]int(nil), caps...)
				m.best[0], m.best[1] = at, end
			}
			return false
		})
		if m.best != nil {
			return m.best
		}
	}
	return nil
}

type matcher struct {
	s     string
	fold  bool
	best  []int
	steps int
}

// maxSteps bounds what one match may try.
const maxSteps = 1_000_000

func (m *matcher) equal(a, b string) bool {
	return a == b || m.fold && strings.EqualFold(a, b)
}

// run matches n at a position and calls next for every way in which it can.
func (m *matcher) run(n *node, at int, caps []int, next func(int, []int) bool) bool {
	if m.steps++; m.steps > maxSteps {
		return true
	}
	switch n.kind {
	case literal:
		end := at + len(n.text)
		return end <= len(m.s) && m.equal(m.s[at:end], n.text) && next(end, caps)
	case anyByte:
		return at < len(m.s) && next(at+1, caps)
	case set:
		if at >= len(m.s) {
			return false
		}
		c := m.s[at]
		in := n.set[c]
		if m.fold && 'a' <= c|32 && c|32 <= 'z' {
			in = n.set[c|32] || n.set[c&^32]
		}
		return in && next(at+1, caps)
	case sequence:
		return m.sequence(n.subs, at, caps, next)
	case choice:
		for _, s := range n.subs {
			if m.run(s, at, caps, next) {
				return true
			}
		}
		return false
	case group:
		return m.run(n.subs[0], at, caps, func(end int, caps []int) bool {
			c := append([]int(nil), caps...)
			c[2*n.number], c[2*n.number+1] = at, end
			return next(end, c)
		})
	case backref:
		lo, hi := caps[2*n.number], caps[2*n.number+1]
		if lo < 0 {
			return false
		}
		text := m.s[lo:hi]
		end := at + len(text)
		return end <= len(m.s) && m.equal(m.s[at:end], text) && next(end, caps)
	case repeat:
		return m.repeat(n, 0, at, caps, next)
	}
	before := at > 0 && wordByte(m.s[at-1])
	after := at < len(m.s) && wordByte(m.s[at])
	ok := false
	switch n.text {
	case "^":
		ok = at == 0
	case "$":
		ok = at == len(m.s)
	case "<":
		ok = !before && after
	case ">":
		ok = before && !after
	case `\b`:
		ok = before != after
	case `\B`:
		ok = before == after
	}
	return ok && next(at, caps)
}

func (m *matcher) sequence(subs []*node, at int, caps []int, next func(int, []int) bool) bool {
	if len(subs) == 0 {
		return next(at, caps)
	}
	return m.run(subs[0], at, caps, func(end int, caps []int) bool {
		return m.sequence(subs[1:], end, caps, next)
	})
}

func (m *matcher) repeat(n *node, count, at int, caps []int, next func(int, []int) bool) bool {
	if n.max < 0 || count < n.max {
		if m.run(n.subs[0], at, caps, func(end int, caps []int) bool {
			if end == at && count >= n.min {
				return false // an empty turn changes nothing
			}
			return m.repeat(n, count+1, end, caps, next)
		}) {
			return true
		}
	}
	return count >= n.min && next(at, caps)
}
