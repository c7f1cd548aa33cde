package coreutils

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// sed is GNU sed without the commands that run programs (e, s///e).
func sed(ctx context.Context, p *shell.Process) int {
	opts, files := parse(p, "nEre:f:i::suz", "quiet=n", "silent=n", "regexp-extended=E", "expression:=e", "file:=f",
		"in-place::=i", "separate=s", "unbuffered=u", "null-data=z", "posix", "follow-symlinks", "debug")
	s := &sedRun{ctx: ctx, p: p, separator: '\n'}
	var script []string
	haveScript, inPlace, suffix, separate := false, false, "", false
	for _, o := range opts {
		switch o.name {
		case "n":
			s.quiet = true
		case "E", "r":
			s.extended = true
		case "e":
			script, haveScript = append(script, o.value), true
		case "f":
			data, err := input(p, o.value)
			if err != nil {
				p.Errorf("couldn't open file %s: %s", o.value, shell.Reason(err))
				return 1
			}
			script, haveScript = append(script, strings.TrimSuffix(string(data), "\n")), true
		case "i":
			inPlace, separate, suffix = true, true, o.value
		case "s":
			separate = true
		case "z":
			s.separator = 0
		case "debug":
			p.Unsupported("--debug")
		}
	}
	if !haveScript {
		if len(files) == 0 {
			p.Errorf("no script")
			return 1
		}
		script, files = files[:1], files[1:]
	}
	prog, err := parseSed(strings.Join(script, "\n"), s.extended)
	if err != nil {
		p.Errorf("-e expression #1: %s", err)
		return 1
	}
	s.prog, s.writes = prog, map[string]*bytes.Buffer{}
	if strings.HasPrefix(strings.Join(script, "\n"), "#n\n") {
		s.quiet = true
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	status := 0
	if !separate {
		var all []byte
		for _, name := range files {
			data, err := input(p, name)
			if err != nil {
				p.Errorf("can't read %s: %s", name, shell.Reason(err))
				status = 2
				continue
			}
			if len(all) > 0 && all[len(all)-1] != s.separator {
				all = append(all, s.separator)
			}
			all = append(all, data...)
		}
		s.run(all, "-")
	} else {
		for _, name := range files {
			data, err := input(p, name)
			if err != nil {
				p.Errorf("can't read %s: %s", name, shell.Reason(err))
				status = 2
				continue
			}
			s.run(data, name)
			if inPlace {
				if err := s.replace(name, suffix, data); err != nil {
					p.Errorf("couldn't edit %s: %s", name, shell.Reason(err))
					return 4
				}
			}
			if s.quit {
				break
			}
		}
	}
	for name, b := range s.writes {
		if err := p.WriteFile(name, b.Bytes()); err != nil {
			p.Errorf("couldn't open file %s: %s", name, shell.Reason(err))
			return 4
		}
	}
	if s.failed != "" {
		p.Errorf("%s", s.failed)
		return 1
	}
	if s.status != 0 {
		status = s.status
	}
	return s.out.done(p, status)
}

// replace puts the result in place of a file as a new file, as sed -i does,
// with the old one's owner and mode.
func (s *sedRun) replace(name, suffix string, old []byte) error {
	p := s.p
	n, err := p.Stat(name)
	if err != nil {
		return err
	}
	if suffix != "" {
		backup := name + suffix
		if strings.Contains(suffix, "*") {
			backup = strings.ReplaceAll(suffix, "*", name)
		}
		if err := p.Tree.Rename(p.Path(name), p.Path(backup)); err != nil {
			return err
		}
	} else if err := p.Tree.Remove(p.Path(name)); err != nil {
		return err
	}
	if err := p.Tree.WriteFile(p.Path(name), bytes.Clone(s.out.Bytes()), n.Perm()); err != nil {
		return err
	}
	s.out.Reset()
	return p.Tree.Chown(p.Path(name), n.UID, n.GID)
}

type sedAddress struct {
	kind byte // 'n' line, '$' last, '/' pattern, '~' step, '+' count after, '0' before the first line
	n, m int
	re   *pattern
}

type sedCommand struct {
	addr     []sedAddress
	negate   bool
	name     byte
	text     string // of a, i, c; a label; a file name
	target   int    // of b, t, T and of { : where to go on
	re       *pattern
	with     []sedPart
	global   bool
	print    bool
	nth      int
	number   int
	from, to string // of y
	active   bool
	until    int
}

// sedPart is a piece of a replacement: text, a group, or a change of case.
type sedPart struct {
	text  string
	group int // -1: text
	fold  byte
}

type sedParser struct {
	src      string
	pos      int
	extended bool
	cmds     []*sedCommand
	labels   map[string]int
	blocks   []int
	last     *pattern
}

func parseSed(src string, extended bool) ([]*sedCommand, error) {
	ps := &sedParser{src: src, extended: extended, labels: map[string]int{}}
	for {
		ps.skip(" \t\n;")
		if ps.pos == len(ps.src) {
			break
		}
		if err := ps.command(); err != nil {
			return nil, fmt.Errorf("char %d: %w", ps.pos, err)
		}
	}
	if len(ps.blocks) > 0 {
		return nil, fmt.Errorf("char 0: unmatched `{'")
	}
	for _, c := range ps.cmds {
		if c.name == 'b' || c.name == 't' || c.name == 'T' {
			c.target = len(ps.cmds)
			if c.text != "" {
				at, ok := ps.labels[c.text]
				if !ok {
					return nil, fmt.Errorf("can't find label for jump to `%s'", c.text)
				}
				c.target = at
			}
		}
	}
	return ps.cmds, nil
}

func (ps *sedParser) skip(chars string) {
	for ps.pos < len(ps.src) && strings.IndexByte(chars, ps.src[ps.pos]) >= 0 {
		ps.pos++
	}
}

func (ps *sedParser) peek() byte {
	if ps.pos < len(ps.src) {
		return ps.src[ps.pos]
	}
	return 0
}

func (ps *sedParser) integer() int {
	start := ps.pos
	for ps.pos < len(ps.src) && '0' <= ps.src[ps.pos] && ps.src[ps.pos] <= '9' {
		ps.pos++
	}
	n, _ := strconv.Atoi(ps.src[start:ps.pos])
	return n
}

func (ps *sedParser) address(second bool) (a sedAddress, ok bool, err error) {
	switch c := ps.peek(); {
	case '0' <= c && c <= '9':
		a.kind, a.n = 'n', ps.integer()
		if ps.peek() == '~' {
			ps.pos++
			a.kind, a.m = '~', ps.integer()
		} else if a.n == 0 && !second {
			a.kind = '0'
		}
	case c == '$':
		ps.pos++
		a.kind = '$'
	case c == '/' || c == '\\':
		if c == '\\' {
			ps.pos++
			c = ps.peek()
		}
		ps.pos++
		text, err := ps.delimited(c, true)
		if err != nil {
			return a, false, err
		}
		fold := false
		for ps.peek() == 'I' || ps.peek() == 'M' {
			if ps.peek() == 'M' {
				return a, false, fmt.Errorf("the flag M is not supported")
			}
			fold = true
			ps.pos++
		}
		a.kind = '/'
		if a.re, err = ps.pattern(text, fold); err != nil {
			return a, false, err
		}
	case second && (c == '+' || c == '~'):
		ps.pos++
		a.kind, a.n = c, ps.integer()
		if c == '~' {
			a.kind = '*'
		}
	default:
		return a, false, nil
	}
	return a, true, nil
}

func (ps *sedParser) pattern(text string, fold bool) (*pattern, error) {
	if text == "" { // the last one used; sed decides that at run time
		if ps.last == nil {
			return nil, fmt.Errorf("no previous regular expression")
		}
		return ps.last, nil
	}
	re, err := compile(text, ps.extended, fold)
	if err != nil {
		return nil, err
	}
	ps.last = re
	return re, nil
}

// delimited reads up to an unescaped delimiter. An escaped delimiter loses
// its backslash; in a pattern \n becomes a newline.
func (ps *sedParser) delimited(delim byte, isPattern bool) (string, error) {
	var b strings.Builder
	inClass := false
	for ; ps.pos < len(ps.src); ps.pos++ {
		c := ps.src[ps.pos]
		switch {
		case c == '\\' && ps.pos+1 < len(ps.src) && !(inClass && ps.src[ps.pos+1] != delim && ps.src[ps.pos+1] != 'n' && ps.src[ps.pos+1] != 't' && ps.src[ps.pos+1] != '\n'):
			ps.pos++
			next := ps.src[ps.pos]
			switch {
			case next == delim && !(!isPattern && delim == '&'):
				b.WriteByte(next)
			case isPattern && next == 'n':
				b.WriteByte('\n')
			case isPattern && next == 't':
				b.WriteByte('\t')
			default:
				b.WriteByte('\\')
				b.WriteByte(next)
			}
			continue
		case c == delim && !inClass:
			ps.pos++
			return b.String(), nil
		case isPattern && c == '[' && !inClass:
			// A delimiter inside a bracket expression still ends the pattern
			// in GNU sed unless the bracket is closed later.
			if ps.classEnd(delim) {
				inClass = true
				b.WriteByte(c)
				if strings.HasPrefix(ps.src[ps.pos+1:], "^") {
					ps.pos++
					b.WriteByte('^')
				}
				if strings.HasPrefix(ps.src[ps.pos+1:], "]") {
					ps.pos++
					b.WriteByte(']')
				}
				continue
			}
		case inClass && c == '[' && ps.pos+1 < len(ps.src) && strings.IndexByte(":.=", ps.src[ps.pos+1]) >= 0:
			if end := strings.Index(ps.src[ps.pos+2:], ps.src[ps.pos+1:ps.pos+2]+"]"); end >= 0 {
				b.WriteString(ps.src[ps.pos : ps.pos+end+4])
				ps.pos += end + 3
				continue
			}
		case inClass && c == ']':
			inClass = false
		}
		b.WriteByte(c)
	}
	return "", fmt.Errorf("unterminated `s' command or address")
}

// classEnd reports whether the bracket at the current position is closed on
// its line.
func (ps *sedParser) classEnd(byte) bool {
	rest := ps.src[ps.pos+1:]
	rest = strings.TrimPrefix(rest, "^")
	rest = strings.TrimPrefix(rest, "]")
	rest, _, _ = strings.Cut(rest, "\n")
	return strings.Contains(rest, "]")
}

func (ps *sedParser) command() error {
	c := &sedCommand{}
	if a, ok, err := ps.address(false); err != nil {
		return err
	} else if ok {
		c.addr = append(c.addr, a)
		ps.skip(" \t")
		if ps.peek() == ',' {
			ps.pos++
			ps.skip(" \t")
			a, ok, err := ps.address(true)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("unexpected `,'")
			}
			c.addr = append(c.addr, a)
		}
		if c.addr[0].kind == '0' && (len(c.addr) < 2 || c.addr[1].kind != '/') {
			return fmt.Errorf("invalid usage of line address 0")
		}
	}
	ps.skip(" \t")
	for ps.peek() == '!' {
		c.negate = true
		ps.pos++
		ps.skip(" \t")
	}
	if ps.pos == len(ps.src) {
		return fmt.Errorf("missing command")
	}
	c.name = ps.src[ps.pos]
	ps.pos++
	switch c.name {
	case '#':
		if len(c.addr) > 0 {
			return fmt.Errorf("comments don't accept any addresses")
		}
		ps.line()
		return nil
	case '{':
		ps.blocks = append(ps.blocks, len(ps.cmds))
		ps.cmds = append(ps.cmds, c)
		return nil
	case '}':
		if len(ps.blocks) == 0 {
			return fmt.Errorf("unexpected `}'")
		}
		ps.cmds[ps.blocks[len(ps.blocks)-1]].target = len(ps.cmds)
		ps.blocks = ps.blocks[:len(ps.blocks)-1]
		return ps.end()
	case ':':
		ps.skip(" \t")
		label := ps.word()
		if label == "" {
			return fmt.Errorf("\":\" lacks a label")
		}
		ps.labels[label] = len(ps.cmds)
		return nil
	case '=', 'd', 'D', 'g', 'G', 'h', 'H', 'n', 'N', 'p', 'P', 'x', 'z', 'F':
	case 'l', 'q', 'Q', 'L':
		ps.skip(" \t")
		c.number = ps.integer()
	case 'a', 'i', 'c':
		return ps.text(c)
	case 'b', 't', 'T':
		ps.skip(" \t")
		c.text = ps.word()
	case 'r', 'R', 'w', 'W':
		ps.skip(" \t")
		if c.text = ps.line(); c.text == "" {
			return fmt.Errorf("missing filename in r/R/w/W commands")
		}
		ps.cmds = append(ps.cmds, c)
		return nil
	case 's':
		if err := ps.substitution(c); err != nil {
			return err
		}
	case 'y':
		delim := ps.peek()
		ps.pos++
		var err error
		if c.from, err = ps.delimited(delim, false); err == nil {
			c.to, err = ps.delimited(delim, false)
		}
		if err != nil {
			return err
		}
		c.from, c.to = unescapeY(c.from), unescapeY(c.to)
		if len(c.from) != len(c.to) {
			return fmt.Errorf("strings for `y' command are different lengths")
		}
	case 'v':
		ps.skip(" \t")
		ps.word()
		return ps.end()
	case 'e':
		return fmt.Errorf("the command e is not supported")
	default:
		return fmt.Errorf("unknown command: `%c'", c.name)
	}
	ps.cmds = append(ps.cmds, c)
	return ps.end()
}

func unescapeY(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t").Replace(s)
}

// end takes what may follow a command on its line.
func (ps *sedParser) end() error {
	ps.skip(" \t")
	switch ps.peek() {
	case 0, '\n', ';':
		if ps.pos < len(ps.src) {
			ps.pos++
		}
	case '}', '#':
	default:
		return fmt.Errorf("extra characters after command")
	}
	return nil
}

func (ps *sedParser) line() string {
	rest, _, _ := strings.Cut(ps.src[ps.pos:], "\n")
	ps.pos += len(rest)
	return rest
}

func (ps *sedParser) word() string {
	start := ps.pos
	for ps.pos < len(ps.src) && strings.IndexByte(" \t\n;", ps.src[ps.pos]) < 0 {
		ps.pos++
	}
	return ps.src[start:ps.pos]
}

// text reads the text of a, i and c: after a\ and a newline, or GNU's form on
// the same line.
func (ps *sedParser) text(c *sedCommand) error {
	ps.skip(" \t")
	if ps.peek() == '\\' {
		ps.pos++
		ps.skip(" \t")
		if ps.pos == len(ps.src) {
			// "$a\" adds nothing but the newline that a file may lack.
			ps.cmds = append(ps.cmds, c)
			return nil
		}
		if ps.peek() == '\n' {
			ps.pos++
		} else {
			// a\text: the backslash keeps leading white space.
			ps.pos--
			for ps.src[ps.pos] != '\\' {
				ps.pos--
			}
			ps.pos++
		}
	} else if ps.pos == len(ps.src) || ps.peek() == '\n' {
		return fmt.Errorf("expected \\ after `a', `c' or `i'")
	}
	var b strings.Builder
	for ps.pos < len(ps.src) && ps.src[ps.pos] != '\n' {
		if ps.src[ps.pos] == '\\' && ps.pos+1 < len(ps.src) {
			ps.pos++
			if ps.src[ps.pos] == 't' {
				b.WriteByte('\t')
				ps.pos++
				continue
			}
		}
		b.WriteByte(ps.src[ps.pos])
		ps.pos++
	}
	b.WriteByte('\n')
	c.text = b.String()
	ps.cmds = append(ps.cmds, c)
	return nil
}

func (ps *sedParser) substitution(c *sedCommand) error {
	delim := ps.peek()
	if delim == 0 || delim == '\n' || delim == '\\' {
		return fmt.Errorf("unterminated `s' command")
	}
	ps.pos++
	expr, err := ps.delimited(delim, true)
	if err != nil {
		return err
	}
	with, err := ps.delimited(delim, false)
	if err != nil {
		return err
	}
	fold := false
	for done := false; !done; {
		switch f := ps.peek(); {
		case f == 'g':
			c.global = true
		case f == 'p':
			c.print = true
		case f == 'i' || f == 'I':
			fold = true
		case '1' <= f && f <= '9':
			c.nth = ps.integer()
			continue
		case f == 'w':
			ps.pos++
			ps.skip(" \t")
			c.text = ps.line()
			continue
		case f == 'e' || f == 'm' || f == 'M':
			return fmt.Errorf("the flag %c is not supported", f)
		default:
			done = true
			continue
		}
		ps.pos++
	}
	if c.re, err = ps.pattern(expr, fold); err != nil {
		return err
	}
	c.with, err = replacement(with, c.re.groups)
	return err
}

func replacement(s string, groups int) ([]sedPart, error) {
	var parts []sedPart
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			parts = append(parts, sedPart{text: b.String(), group: -1})
			b.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '&':
			flush()
			parts = append(parts, sedPart{group: 0})
		case c == '\\' && i+1 < len(s):
			i++
			switch c := s[i]; {
			case '0' <= c && c <= '9':
				if int(c-'0') > groups {
					return nil, fmt.Errorf("invalid reference \\%c on `s' command's RHS", c)
				}
				flush()
				parts = append(parts, sedPart{group: int(c - '0')})
			case c == 'n':
				b.WriteByte('\n')
			case c == 't':
				b.WriteByte('\t')
			case strings.IndexByte("ULEul", c) >= 0:
				flush()
				parts = append(parts, sedPart{group: -1, fold: c})
			default:
				b.WriteByte(c)
			}
		default:
			b.WriteByte(c)
		}
	}
	flush()
	return parts, nil
}

type sedRun struct {
	ctx       context.Context
	p         *shell.Process
	prog      []*sedCommand
	quiet     bool
	extended  bool
	separator byte
	out       out
	writes    map[string]*bytes.Buffer
	status    int
	quit      bool
	failed    string

	lines    []string
	complete bool
	at       int // lines read
	steps    int // since the last line was read
	space    string
	hold     string
	after    []func()
	reads    map[string][]string
	name     string
}

// What bounds a script: the commands run per line, the pattern and hold
// spaces, and what it prints or writes to a file.
const (
	maxSedSteps  = 1_000_000
	maxSedSpace  = 4 << 20
	maxSedOutput = 64 << 20
)

func (s *sedRun) run(data []byte, name string) {
	s.lines, s.complete, s.at, s.name = nil, true, 0, name
	if len(data) > 0 {
		s.complete = data[len(data)-1] == s.separator
		s.lines = strings.Split(strings.TrimSuffix(string(data), string(s.separator)), string(s.separator))
	}
	for _, c := range s.prog {
		c.active = false
		if len(c.addr) == 2 && c.addr[0].kind == '0' {
			c.active = true
		}
	}
	restart := false
	for !s.quit && s.failed == "" {
		if !restart && !s.next() {
			break
		}
		restart = s.cycle()
	}
}

func (s *sedRun) next() bool {
	if s.at >= len(s.lines) {
		return false
	}
	s.space = s.lines[s.at]
	s.at++
	s.steps = 0
	return true
}

// print writes text as a line; the last line of an input without a final
// newline gets none either.
func (s *sedRun) print(text string) {
	s.out.WriteString(text)
	if s.complete || s.at < len(s.lines) {
		s.out.WriteByte(s.separator)
	}
}

func (s *sedRun) endCycle() {
	if !s.quiet {
		s.print(s.space)
	}
	s.flushAfter()
}

func (s *sedRun) flushAfter() {
	for _, f := range s.after {
		if n := s.out.Len(); n > 0 && s.out.Bytes()[n-1] != s.separator {
			s.out.WriteByte(s.separator)
		}
		f()
		s.bound()
	}
	s.after = nil
}

// cycle runs the script on the pattern space; restart says that the next
// cycle begins without reading a line (D).
func (s *sedRun) cycle() (restart bool) {
	replaced := false
	for i := 0; i < len(s.prog); i++ {
		if s.steps++; s.steps > maxSedSteps || s.ctx.Err() != nil {
			s.p.Unsupported("a script that runs for ever")
		}
		s.bound()
		c := s.prog[i]
		if !s.selected(c) {
			if c.name == '{' {
				i = c.target - 1
			}
			continue
		}
		switch c.name {
		case '=':
			fmt.Fprintf(&s.out, "%d\n", s.at)
		case 'a':
			s.after = append(s.after, func() { s.out.WriteString(c.text) })
		case 'i':
			s.out.WriteString(c.text)
		case 'c':
			if len(c.addr) < 2 || c.negate || !c.active {
				s.out.WriteString(c.text)
			}
			s.flushAfter()
			return false
		case 'b':
			i = c.target - 1
		case 't':
			if replaced {
				replaced = false
				i = c.target - 1
			}
		case 'T':
			if !replaced {
				i = c.target - 1
			}
			replaced = false
		case 'd':
			s.flushAfter()
			return false
		case 'D':
			_, rest, ok := strings.Cut(s.space, "\n")
			if !ok {
				s.flushAfter()
				return false
			}
			s.space = rest
			s.flushAfter()
			return true
		case 'F':
			s.out.line(s.name)
		case 'g':
			s.space = s.hold
		case 'G':
			s.space += "\n" + s.hold
		case 'h':
			s.hold = s.space
		case 'H':
			s.hold += "\n" + s.space
		case 'x':
			s.space, s.hold = s.hold, s.space
		case 'l':
			s.out.line(listed(s.space))
		case 'n':
			if s.at >= len(s.lines) {
				s.endCycle()
				return false
			}
			if !s.quiet {
				s.print(s.space)
			}
			s.flushAfter()
			s.next()
		case 'N':
			if s.at >= len(s.lines) {
				s.endCycle()
				return false
			}
			old := s.space
			s.flushAfter()
			s.next()
			s.space = old + "\n" + s.space
		case 'p':
			s.print(s.space)
		case 'P':
			first, _, _ := strings.Cut(s.space, "\n")
			s.out.line(first)
		case 'q':
			s.status, s.quit = c.number, true
			s.endCycle()
			return false
		case 'Q':
			s.status, s.quit = c.number, true
			return false
		case 'r':
			s.after = append(s.after, func() {
				if data, err := s.p.ReadFile(c.text); err == nil {
					s.out.Write(data)
				}
			})
		case 'R':
			s.readLine(c.text)
		case 'w':
			s.write(c.text, s.space)
		case 'W':
			first, _, _ := strings.Cut(s.space, "\n")
			s.write(c.text, first)
		case 's':
			if s.substitute(c) {
				replaced = true
			}
		case 'y':
			b := []byte(s.space)
			for j := range b {
				if k := strings.IndexByte(c.from, b[j]); k >= 0 {
					b[j] = c.to[k]
				}
			}
			s.space = string(b)
		case 'z':
			s.space = ""
		}
	}
	s.endCycle()
	return false
}

func (s *sedRun) bound() {
	if len(s.space) > maxSedSpace || len(s.hold) > maxSedSpace || s.out.Len() > maxSedOutput {
		s.p.Unsupported("a script that grows its text for ever")
	}
}

func (s *sedRun) readLine(name string) {
	if s.reads == nil {
		s.reads = map[string][]string{}
	}
	rest, opened := s.reads[name]
	if !opened {
		data, _ := s.p.ReadFile(name)
		rest, _ = lines(data)
	}
	if len(rest) > 0 {
		text := rest[0]
		s.after = append(s.after, func() { s.out.line(text) })
		rest = rest[1:]
	}
	s.reads[name] = rest
}

func (s *sedRun) write(name, text string) {
	switch name {
	case "/dev/stdout":
		s.out.line(text)
		return
	case "/dev/stderr":
		fmt.Fprintln(s.p.Stderr, text)
		return
	}
	b := s.writes[name]
	if b == nil {
		b = &bytes.Buffer{}
		s.writes[name] = b
	}
	b.WriteString(text + "\n")
	if b.Len() > maxSedOutput {
		s.p.Unsupported("a script that writes for ever")
	}
}

func listed(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b.WriteString(`\\`)
		case c >= 32 && c < 127:
			b.WriteByte(c)
		default:
			if j := strings.IndexByte("\a\b\f\n\r\t\v", c); j >= 0 {
				b.WriteString(`\` + "abfnrtv"[j:j+1])
			} else {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		}
	}
	return b.String() + "$"
}

// selected says whether a command applies to the current line.
func (s *sedRun) selected(c *sedCommand) bool {
	switch len(c.addr) {
	case 0:
		return !c.negate
	case 1:
		return s.matches(c.addr[0]) != c.negate
	}
	a, b := c.addr[0], c.addr[1]
	in := false
	if c.active {
		in = true
		switch b.kind {
		case 'n', '+', '*':
			end := c.until
			if b.kind == 'n' {
				end = b.n
			}
			if s.at >= end {
				c.active = false
			}
			// A range whose end has passed by holds no further line.
			if s.at > end {
				in = a.kind != '0' && s.matches(a)
			}
		default:
			if s.matches(b) {
				c.active = false
			}
		}
	} else if s.matches(a) {
		in, c.active = true, true
		switch b.kind {
		case 'n':
			c.active = b.n > s.at
		case '+':
			c.until = s.at + b.n
			c.active = b.n > 0
		case '*':
			c.until = s.at
			if b.n > 0 && s.at%b.n != 0 {
				c.until += b.n - s.at%b.n
			}
			c.active = c.until > s.at
		case '$':
			c.active = !s.matches(b)
		}
	}
	return in != c.negate
}

func (s *sedRun) matches(a sedAddress) bool {
	switch a.kind {
	case 'n':
		return s.at == a.n
	case '$':
		return s.at == len(s.lines)
	case '~':
		if a.m <= 0 {
			return s.at == a.n
		}
		return s.at >= a.n && (s.at-a.n)%a.m == 0
	case '/':
		return a.re.matches(s.space)
	}
	return false
}

func (s *sedRun) substitute(c *sedCommand) bool {
	var matches [][]int
	if !c.global && c.nth <= 1 {
		if m := c.re.find(s.space, 0); m != nil {
			matches = [][]int{m}
		}
	} else {
		matches = c.re.all(s.space)
		first := max(0, c.nth-1)
		if first >= len(matches) {
			return false
		}
		matches = matches[first:]
		if !c.global {
			matches = matches[:1]
		}
	}
	if len(matches) == 0 {
		return false
	}
	var b strings.Builder
	last := 0
	for _, m := range matches {
		b.WriteString(s.space[last:m[0]])
		writeReplacement(&b, c.with, s.space, m)
		if b.Len() > maxSedSpace {
			s.p.Unsupported("a script that grows its text for ever")
		}
		last = m[1]
	}
	b.WriteString(s.space[last:])
	s.space = b.String()
	if c.print {
		s.print(s.space)
	}
	if c.text != "" {
		s.write(c.text, s.space)
	}
	return true
}

func writeReplacement(b *strings.Builder, parts []sedPart, s string, m []int) {
	mode, once := byte('E'), byte(0)
	for _, part := range parts {
		if part.fold != 0 {
			if part.fold == 'u' || part.fold == 'l' {
				once = part.fold
			} else {
				mode = part.fold
			}
			continue
		}
		text := part.text
		if part.group >= 0 {
			text = ""
			if lo := m[2*part.group]; lo >= 0 {
				text = s[lo:m[2*part.group+1]]
			}
		}
		switch mode {
		case 'U':
			text = strings.ToUpper(text)
		case 'L':
			text = strings.ToLower(text)
		}
		if once != 0 && text != "" {
			head := strings.ToUpper(text[:1])
			if once == 'l' {
				head = strings.ToLower(text[:1])
			}
			text, once = head+text[1:], 0
		}
		b.WriteString(text)
	}
}
