package shell

import (
	"path"
	"slices"
	"strings"
)

// match reports whether s matches a shell pattern as a whole. A backslash in
// the pattern quotes the byte after it. Bytes are compared, as dash does.
func match(pattern, s string) bool {
	// Only the last * can need another try: what an earlier one took is
	// settled once the next * is reached.
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(s) || i < len(pattern) {
		if i < len(pattern) {
			if pattern[i] == '*' {
				star, mark = i, j
				i++
				continue
			}
			if j < len(s) {
				if next, ok := matchByte(pattern, i, s[j]); ok {
					i, j = next, j+1
					continue
				}
			}
		}
		if star < 0 || mark >= len(s) {
			return false
		}
		mark++
		i, j = star+1, mark
	}
	return true
}

// matchByte matches one byte against the pattern element at i and returns
// where the next element starts.
func matchByte(pattern string, i int, c byte) (int, bool) {
	switch pattern[i] {
	case '?':
		return i + 1, true
	case '[':
		if next, ok := matchBracket(pattern, i, c); next > 0 {
			return next, ok
		}
	case '\\':
		if i+1 < len(pattern) {
			return i + 2, pattern[i+1] == c
		}
	}
	return i + 1, pattern[i] == c
}

// matchBracket matches a bracket expression; next is 0 if the bracket is
// never closed and thus an ordinary character.
func matchBracket(pattern string, i int, c byte) (next int, ok bool) {
	i++
	negate := false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		negate = true
		i++
	}
	found := false
	for first := true; ; first = false {
		if i >= len(pattern) {
			return 0, false
		}
		if pattern[i] == ']' && !first {
			return i + 1, found != negate
		}
		if rest, isClass := strings.CutPrefix(pattern[i:], "[:"); isClass {
			if name, _, closed := strings.Cut(rest, ":]"); closed && classes[name] != nil {
				found = found || classes[name](c)
				i += len(name) + 4
				continue
			}
		}
		lo, n := bracketByte(pattern, i)
		if n == 0 {
			return 0, false
		}
		i += n
		hi := lo
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			b, n := bracketByte(pattern, i+1)
			if n == 0 {
				return 0, false
			}
			hi = b
			i += 1 + n
		}
		found = found || lo <= c && c <= hi
	}
}

func bracketByte(pattern string, i int) (b byte, n int) {
	if pattern[i] != '\\' {
		return pattern[i], 1
	}
	if i+1 < len(pattern) {
		return pattern[i+1], 2
	}
	return 0, 0
}

// classes are the character classes of the C locale.
var classes = map[string]func(byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < 32 || c == 127 },
	"digit":  isDigit,
	"graph":  func(c byte) bool { return c > 32 && c < 127 },
	"lower":  func(c byte) bool { return 'a' <= c && c <= 'z' },
	"print":  func(c byte) bool { return c >= 32 && c < 127 },
	"punct":  func(c byte) bool { return c > 32 && c < 127 && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' },
	"upper":  func(c byte) bool { return 'A' <= c && c <= 'Z' },
	"xdigit": func(c byte) bool { return isDigit(c) || 'a' <= c|32 && c|32 <= 'f' },
}

func isAlpha(c byte) bool { return 'a' <= c|32 && c|32 <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isName(s string) bool {
	for i := range len(s) {
		if !(isAlpha(s[i]) || s[i] == '_' || i > 0 && isDigit(s[i])) {
			return false
		}
	}
	return s != ""
}

// Match reports whether s matches a shell pattern (fnmatch(3) without flags),
// in which a backslash quotes the next byte.
func Match(pattern, s string) bool { return match(pattern, s) }

// escapePattern quotes what is special in a pattern.
func escapePattern(s string) string {
	if !strings.ContainsAny(s, `*?[]\-!^`) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(`*?[]\-!^`, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unescapePattern(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func hasMeta(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '*', '?':
			return true
		case '[':
			// An unclosed bracket is an ordinary character.
			if next, _ := matchBracket(pattern, i, 0); next > 0 {
				return true
			}
		}
	}
	return false
}

// glob returns the paths that match a pattern, sorted.
func (in *interp) glob(pattern string) []string {
	var found []string
	var walk func(prefix string, rest string)
	walk = func(prefix, rest string) {
		in.run.step()
		slashes := len(rest) - len(strings.TrimLeft(rest, "/"))
		prefix, rest = prefix+rest[:slashes], rest[slashes:]
		if rest == "" {
			if _, err := in.stat(prefix, true); err == nil {
				found = append(found, prefix)
			}
			return
		}
		elem, after, more := strings.Cut(rest, "/")
		if more {
			after = "/" + after
		}
		if !hasMeta(elem) {
			p := prefix + unescapePattern(elem)
			if more {
				if n, err := in.stat(p, true); err == nil && n.IsDir() {
					walk(p, after)
				}
			} else if _, err := in.stat(p, false); err == nil {
				found = append(found, p)
			}
			return
		}
		dir := prefix
		if dir == "" {
			dir = "."
		}
		names, err := in.run.shell.cfg.Tree.ReadDir(in.path(dir))
		if err != nil {
			return
		}
		if unescapePattern(elem)[0] == '.' {
			names = slices.Concat([]string{".", ".."}, names)
		}
		for _, name := range names {
			if name[0] == '.' && unescapePattern(elem)[0] != '.' || !match(elem, name) {
				continue
			}
			p := prefix + name
			if !more {
				found = append(found, p)
			} else if n, err := in.stat(p, true); err == nil && n.IsDir() {
				walk(p, after)
			}
		}
	}
	walk("", pattern)
	slices.Sort(found)
	return slices.Compact(found)
}

func (in *interp) path(name string) string {
	if path.IsAbs(name) || name == "" {
		return name
	}
	return strings.TrimSuffix(in.dir, "/") + "/" + name
}
