package coreutils

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// grep is GNU grep without -P; egrep and fgrep are grep -E and grep -F.
func grep(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "EFGe:f:iyvwxcloLqsnHhm:rRaA:B:C:zbIUTZ",
		"extended-regexp=E", "fixed-strings=F", "basic-regexp=G", "regexp:=e", "file:=f", "ignore-case=i",
		"no-ignore-case", "invert-match=v", "word-regexp=w", "line-regexp=x", "count=c", "files-with-matches=l",
		"only-matching=o", "files-without-match=L", "quiet=q", "silent=q", "no-messages=s", "line-number=n",
		"with-filename=H", "no-filename=h", "max-count:=m", "recursive=r", "text=a", "after-context:=A",
		"before-context:=B", "context:=C", "null-data=z", "color::=color", "colour::=color", "include:=include",
		"exclude:=exclude", "exclude-dir:=exclude-dir", "line-buffered", "null=Z", "binary-files:", "byte-offset=b")
	g := &grepRun{p: p, max: -1, separator: "\n"}
	extended, fixed := p.Name() == "egrep", p.Name() == "fgrep"
	var exprs []string
	have, word, line, fold := false, false, false, false
	for _, o := range opts {
		switch o.name {
		case "E":
			extended, fixed = true, false
		case "F":
			fixed = true
		case "G":
			extended, fixed = false, false
		case "e":
			exprs, have = append(exprs, strings.Split(o.value, "\n")...), true
		case "f":
			data, err := input(p, o.value)
			if err != nil {
				p.Errorf("%s: %s", o.value, shell.Reason(err))
				return 2
			}
			list, _ := lines(data)
			exprs, have = append(exprs, list...), true
		case "i", "y":
			fold = true
		case "v":
			g.invert = true
		case "w":
			word = true
		case "x":
			line = true
		case "c":
			g.count = true
		case "l":
			g.list = true
		case "L":
			g.listWithout = true
		case "o":
			g.only = true
		case "q":
			g.quiet = true
		case "s":
			g.silent = true
		case "n":
			g.number = true
		case "H":
			g.name, g.named = true, true
		case "h":
			g.name, g.named = false, true
		case "m":
			g.max, _ = strconv.Atoi(o.value)
		case "r", "R":
			g.recursive = true
		case "A":
			g.after, _ = strconv.Atoi(o.value)
		case "B":
			g.before, _ = strconv.Atoi(o.value)
		case "C":
			g.after, _ = strconv.Atoi(o.value)
			g.before = g.after
		case "z":
			g.separator = "\x00"
		case "include":
			g.include = append(g.include, o.value)
		case "exclude":
			g.exclude = append(g.exclude, o.value)
		case "exclude-dir":
			g.excludeDir = append(g.excludeDir, o.value)
		case "b", "T", "Z", "binary-files":
			p.Unsupported("option -%s", o.name)
		}
	}
	if !have {
		if len(args) == 0 {
			fmt.Fprintln(p.Stderr, "Usage: grep [OPTION]... PATTERNS [FILE]...")
			return 2
		}
		exprs, args = strings.Split(args[0], "\n"), args[1:]
	}
	for _, e := range exprs {
		if fixed {
			e, extended = escapeBasic(e), false
		}
		re, err := compileGrep(e, extended, fold, word, line)
		if err != nil {
			p.Errorf("%s", err)
			return 2
		}
		g.res = append(g.res, re)
	}
	if len(args) == 0 {
		args = []string{"-"}
		if g.recursive {
			args = []string{"."}
		}
	}
	if !g.named {
		g.name = len(args) > 1 || g.recursive
	}
	for _, name := range args {
		g.path(name, true)
		if g.quiet && g.matched {
			return 0
		}
	}
	status := 1
	if g.matched {
		status = 0
	}
	if g.failed {
		status = 2
	}
	return g.out.done(p, status)
}

func escapeBasic(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(`.*[]^$\`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// grepPattern is a pattern with grep's -w and -x.
type grepPattern struct {
	*pattern
	word, line bool
}

func compileGrep(e string, extended, fold, word, line bool) (*grepPattern, error) {
	re, err := compile(e, extended, fold)
	return &grepPattern{re, word, line}, err
}

// match returns the first match at or after from, and whether there is one.
func (g *grepPattern) match(s string, from int) []int {
	if g.line {
		// The longest match from the start need not be the whole line's only
		// way: leftmost-longest takes the whole line if anything can.
		if m := g.find(s, 0); from == 0 && m != nil && m[0] == 0 && m[1] == len(s) {
			return m
		}
		return nil
	}
	for from <= len(s) {
		m := g.find(s, from)
		if m == nil || !g.word {
			return m
		}
		before := m[0] > 0 && wordByte(s[m[0]-1])
		after := m[1] < len(s) && wordByte(s[m[1]])
		if !before && !after {
			return m
		}
		from = m[0] + 1
	}
	return nil
}

type grepRun struct {
	p                               *shell.Process
	res                             []*grepPattern
	invert, count, list             bool
	listWithout, only, quiet        bool
	silent, number, name, named     bool
	recursive                       bool
	max, after, before              int
	separator                       string
	include, exclude, excludeDir    []string
	out                             out
	matched, failed, contextPrinted bool
}

func anyMatch(patterns []string, name string) bool {
	for _, p := range patterns {
		if shell.Match(p, name) {
			return true
		}
	}
	return false
}

func (g *grepRun) path(name string, given bool) {
	if name != "-" {
		n, err := g.p.Stat(name)
		if err == nil && n.IsDir() {
			if !g.recursive {
				if !g.silent {
					g.p.Errorf("%s: Is a directory", name)
				}
				g.failed = true
				return
			}
			names, _ := g.p.Tree.ReadDir(g.p.Path(name))
			for _, child := range names {
				l, err := g.p.Lstat(name + "/" + child)
				if err != nil || l.IsSymlink() || l.IsDir() && anyMatch(g.excludeDir, child) {
					continue
				}
				g.path(name+"/"+child, false)
			}
			return
		}
		if base := path.Base(name); len(g.include) > 0 && !anyMatch(g.include, base) || anyMatch(g.exclude, base) {
			return
		}
		if err == nil && !given && n.Type() != tree.TypeRegular {
			return
		}
	}
	data, err := input(g.p, name)
	if err != nil {
		if !g.silent {
			g.p.Errorf("%s: %s", name, shell.Reason(err))
		}
		g.failed = true
		return
	}
	if name == "-" {
		name = "(standard input)"
	}
	g.search(name, string(data))
}

func (g *grepRun) search(name, data string) {
	if data == "" {
		g.report(name, 0)
		return
	}
	data = strings.TrimSuffix(data, g.separator)
	found, last := 0, -1
	all := strings.Split(data, g.separator)
	binary := strings.Contains(data, "\x00") && g.separator == "\n"
	show := !g.count && !g.list && !g.listWithout && !g.quiet
	afterLeft := 0
	for i, line := range all {
		if g.max >= 0 && found >= g.max {
			if afterLeft > 0 && show {
				g.line(name, i, line, '-')
				last = i
				afterLeft--
				continue
			}
			break
		}
		hit := false
		for _, re := range g.res {
			if re.match(line, 0) != nil {
				hit = true
				break
			}
		}
		if hit == g.invert {
			if afterLeft > 0 && show && !g.only {
				g.line(name, i, line, '-')
				last = i
				afterLeft--
			}
			continue
		}
		found++
		g.matched = g.matched || !g.listWithout
		if g.quiet || g.list {
			break
		}
		if !show {
			continue
		}
		if binary {
			g.out.line("Binary file " + name + " matches")
			return
		}
		if g.only {
			g.matches(name, i, line)
			continue
		}
		start := max(last+1, i-g.before)
		if (g.before > 0 || g.after > 0) && g.contextPrinted && start > last+1 {
			g.out.line("--")
		}
		for j := start; j < i; j++ {
			g.line(name, j, all[j], '-')
		}
		g.line(name, i, line, ':')
		g.contextPrinted = true
		last, afterLeft = i, g.after
	}
	g.report(name, found)
}

func (g *grepRun) report(name string, found int) {
	switch {
	case g.quiet:
	case g.list && found > 0, g.listWithout && found == 0:
		g.out.line(name)
		g.matched = true
	case g.count && !g.list && !g.listWithout:
		if g.name {
			g.out.WriteString(name + ":")
		}
		g.out.line(strconv.Itoa(found))
	}
}

func (g *grepRun) prefix(name string, i int, mark byte) {
	if g.name {
		g.out.WriteString(name + string(mark))
	}
	if g.number {
		g.out.WriteString(strconv.Itoa(i+1) + string(mark))
	}
}

func (g *grepRun) line(name string, i int, line string, mark byte) {
	g.prefix(name, i, mark)
	g.out.WriteString(line + g.separator)
}

func (g *grepRun) matches(name string, i int, line string) {
	if g.invert {
		return
	}
	for from := 0; from <= len(line); {
		var best []int
		for _, re := range g.res {
			if m := re.match(line, from); m != nil && (best == nil || m[0] < best[0] || m[0] == best[0] && m[1] > best[1]) {
				best = m
			}
		}
		if best == nil {
			return
		}
		if best[1] > best[0] {
			g.prefix(name, i, ':')
			g.out.WriteString(line[best[0]:best[1]] + g.separator)
		}
		from = max(best[1], best[0]+1)
	}
}
