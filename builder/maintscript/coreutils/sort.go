package coreutils

import (
	"context"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// sortKey is one -k of sort.
type sortKey struct {
	field, char       int // from 1
	endField, endChar int // 0: to the end of the line
	flags             string
	skipStart         bool
	skipEnd           bool
}

// sortCommand is GNU sort in the C locale.
func sortCommand(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "bcCdfgik:mMhnrRsS:t:T:uVzo:", "ignore-leading-blanks=b", "dictionary-order=d", "ignore-case=f",
		"general-numeric-sort=g", "numeric-sort=n", "human-numeric-sort=h", "version-sort=V", "reverse=r", "check=c",
		"key:=k", "merge=m", "output:=o", "stable=s", "field-separator:=t", "unique=u", "zero-terminated=z", "parallel:")
	global, separator, output, end := "", "", "", "\n"
	var keys []sortKey
	for _, o := range opts {
		switch o.name {
		case "k":
			k, ok := parseSortKey(o.value)
			if !ok {
				p.Errorf("invalid key %q", o.value)
				return 2
			}
			keys = append(keys, k)
		case "t":
			separator = o.value
			if separator == `\0` {
				separator = "\x00"
			}
		case "o":
			output = o.value
		case "z":
			end = "\x00"
		case "b", "d", "f", "g", "i", "M", "h", "n", "r", "V":
			global += o.name
		case "R":
			p.Unsupported("a random order")
		}
	}
	if strings.ContainsAny(global, "Mi") {
		p.Unsupported("ordering -%s", global)
	}
	var all []string
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, f := range files {
		data, err := input(p, f)
		if err != nil {
			p.Errorf("cannot read: %s: %s", f, shell.Reason(err))
			return 2
		}
		if len(data) > 0 {
			all = append(all, strings.Split(strings.TrimSuffix(string(data), end), end)...)
		}
	}
	for i := range keys {
		if keys[i].flags == "" {
			keys[i].flags = global
		}
	}
	if len(keys) == 0 {
		keys = []sortKey{{field: 1, char: 1, flags: global, skipStart: strings.Contains(global, "b")}}
	}
	byKeys := func(a, b string) int {
		for _, k := range keys {
			c := compareKey(k.of(a, separator), k.of(b, separator), k.flags)
			if strings.Contains(k.flags, "r") {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	}
	unique := has(opts, "u")
	order := func(a, b string) int {
		c := byKeys(a, b)
		if c == 0 && !unique && !has(opts, "s") {
			if c = strings.Compare(a, b); strings.Contains(global, "r") {
				c = -c
			}
		}
		return c
	}
	if has(opts, "c", "C") {
		for i := 1; i < len(all); i++ {
			if c := order(all[i-1], all[i]); c > 0 || unique && c == 0 {
				if has(opts, "c") {
					p.Errorf("%s:%d: disorder: %s", files[0], i+1, all[i])
				}
				return 1
			}
		}
		return 0
	}
	slices.SortStableFunc(all, order)
	if unique {
		all = slices.CompactFunc(all, func(a, b string) bool { return byKeys(a, b) == 0 })
	}
	var o out
	for _, l := range all {
		o.WriteString(l + end)
	}
	if output != "" {
		if err := p.WriteFile(output, o.Bytes()); err != nil {
			p.Errorf("open failed: %s: %s", output, shell.Reason(err))
			return 2
		}
		return 0
	}
	return o.done(p, 0)
}

func parseSortKey(s string) (k sortKey, ok bool) {
	start, end, hasEnd := strings.Cut(s, ",")
	var flags string
	if k.field, k.char, flags, ok = sortPosition(start); !ok || k.field == 0 {
		return k, false
	}
	k.char = max(k.char, 1)
	k.skipStart = strings.Contains(flags, "b")
	k.flags = flags
	if hasEnd {
		if k.endField, k.endChar, flags, ok = sortPosition(end); !ok {
			return k, false
		}
		k.skipEnd = strings.Contains(flags, "b")
		k.flags += flags
	}
	return k, true
}

func sortPosition(s string) (field, char int, flags string, ok bool) {
	i := strings.IndexFunc(s, unicode.IsLetter)
	if i >= 0 {
		s, flags = s[:i], s[i:]
	}
	f, c, hasChar := strings.Cut(s, ".")
	field, err := strconv.Atoi(f)
	if err == nil && hasChar {
		char, err = strconv.Atoi(c)
	}
	return field, char, flags, err == nil && strings.Trim(flags, "bdfghnrV") == ""
}

// of returns the part of a line that a key compares.
func (k sortKey) of(line, separator string) string {
	starts, ends := sortFields(line, separator)
	at := func(field, char int, skip bool) int {
		if field > len(starts) {
			return len(line)
		}
		i := starts[field-1]
		if skip {
			for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
				i++
			}
		}
		return min(i+char, len(line))
	}
	from := at(k.field, k.char-1, k.skipStart)
	to := len(line)
	if k.endField > 0 {
		if k.endChar > 0 {
			to = at(k.endField, k.endChar, k.skipEnd)
		} else if k.endField <= len(ends) {
			to = ends[k.endField-1]
		}
	}
	if from >= to {
		return ""
	}
	return line[from:to]
}

// sortFields returns where fields start and end. Without a separator the
// blanks before a field belong to it.
func sortFields(line, separator string) (starts, ends []int) {
	if separator != "" {
		at := 0
		for {
			starts = append(starts, at)
			i := strings.Index(line[at:], separator)
			if i < 0 {
				return starts, append(ends, len(line))
			}
			ends = append(ends, at+i)
			at += i + len(separator)
		}
	}
	at := 0
	for at < len(line) {
		starts = append(starts, at)
		for at < len(line) && (line[at] == ' ' || line[at] == '\t') {
			at++
		}
		for at < len(line) && line[at] != ' ' && line[at] != '\t' {
			at++
		}
		ends = append(ends, at)
	}
	if len(starts) == 0 {
		return []int{0}, []int{len(line)}
	}
	return starts, ends
}

func compareKey(a, b, flags string) int {
	switch {
	case strings.Contains(flags, "V"):
		return compareVersion(a, b)
	case strings.ContainsAny(flags, "n"):
		return sortNumber(a, 'n').Cmp(sortNumber(b, 'n'))
	case strings.Contains(flags, "h"):
		return sortNumber(a, 'h').Cmp(sortNumber(b, 'h'))
	case strings.Contains(flags, "g"):
		return sortNumber(a, 'g').Cmp(sortNumber(b, 'g'))
	}
	if strings.Contains(flags, "b") {
		a, b = strings.TrimLeft(a, " \t"), strings.TrimLeft(b, " \t")
	}
	if strings.Contains(flags, "d") {
		keep := func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) || r == ' ' || r == '\t' {
				return r
			}
			return -1
		}
		a, b = strings.Map(keep, a), strings.Map(keep, b)
	}
	if strings.Contains(flags, "f") {
		a, b = strings.ToUpper(a), strings.ToUpper(b)
	}
	return strings.Compare(a, b)
}

// sortNumber reads the number at the start of s; there is none: 0.
func sortNumber(s string, kind byte) *big.Rat {
	s = strings.TrimLeft(s, " \t")
	i, digits := 0, 0
	if strings.HasPrefix(s, "-") || kind == 'g' && strings.HasPrefix(s, "+") {
		i++
	}
	for point := false; i < len(s); i++ {
		if s[i] == '.' && !point {
			point = true
			continue
		}
		if s[i] < '0' || s[i] > '9' {
			break
		}
		digits++
	}
	r := new(big.Rat)
	if digits == 0 || digits > 1000 {
		return r
	}
	if _, ok := r.SetString(strings.TrimSuffix(s[:i], ".")); !ok {
		return new(big.Rat)
	}
	if kind == 'h' && i < len(s) {
		if e := strings.IndexByte("KMGTPEZY", s[i]); e >= 0 {
			r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(10*(e+1)))))
		} else if s[i] == 'k' {
			r.Mul(r, big.NewRat(1024, 1))
		}
	}
	return r
}

// compareVersion orders as sort -V does: runs of digits by value, everything
// else by character, with ~ before the end and letters before the rest.
func compareVersion(a, b string) int {
	order := func(c byte) int {
		switch {
		case c == '~':
			return -1
		case 'a' <= c|32 && c|32 <= 'z':
			return int(c)
		case '0' <= c && c <= '9':
			return 0
		}
		return int(c) + 256
	}
	isNumber := func(s string, i int) bool { return i < len(s) && '0' <= s[i] && s[i] <= '9' }
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		for i < len(a) && !isNumber(a, i) || j < len(b) && !isNumber(b, j) {
			x, y := 0, 0
			if i < len(a) {
				x = order(a[i])
			}
			if j < len(b) {
				y = order(b[j])
			}
			if x != y {
				return x - y
			}
			i, j = i+1, j+1
		}
		for isNumber(a, i) && a[i] == '0' {
			i++
		}
		for isNumber(b, j) && b[j] == '0' {
			j++
		}
		first := 0
		for isNumber(a, i) && isNumber(b, j) {
			if first == 0 {
				first = int(a[i]) - int(b[j])
			}
			i, j = i+1, j+1
		}
		switch {
		case isNumber(a, i):
			return 1
		case isNumber(b, j):
			return -1
		case first != 0:
			return first
		}
	}
	return 0
}
