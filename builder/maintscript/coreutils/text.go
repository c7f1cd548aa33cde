package coreutils

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

func cat(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "AbeEnstTuv", "number=n", "squeeze-blank=s", "show-all=A", "number-nonblank=b", "show-ends=E", "show-tabs=T", "show-nonprinting=v")
	status := 0
	if len(files) == 0 {
		files = []string{"-"}
	}
	if len(opts) > 0 && !(len(opts) == 1 && opts[0].name == "u") {
		return catFormatted(p, opts, files)
	}
	buf := make([]byte, 32<<10)
	for _, name := range files {
		var r io.Reader = p.Stdin
		if name != "-" {
			f, err := p.Open(name)
			if err != nil {
				p.Errorf("%s: %s", name, shell.Reason(err))
				status = 1
				continue
			}
			defer f.Close()
			r = f
		}
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if _, err := p.Stdout.Write(buf[:n]); err != nil {
					p.Errorf("write error: %s", shell.Reason(err))
					return 1
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				p.Errorf("%s: %s", name, shell.Reason(err))
				status = 1
				break
			}
		}
	}
	return status
}

func catFormatted(p *shell.Process, opts []option, files []string) int {
	number, nonBlank, squeeze := has(opts, "n"), has(opts, "b"), has(opts, "s")
	ends := has(opts, "A", "e", "E")
	if has(opts, "A", "e", "t", "T", "v") {
		p.Unsupported("showing what cannot be printed")
	}
	var o out
	n, blank := 0, false
	status := inputs(p, files, func(_ string, data []byte) {
		list, complete := lines(data)
		for i, l := range list {
			if l == "" && blank && squeeze {
				continue
			}
			blank = l == ""
			if number && !nonBlank || nonBlank && l != "" {
				n++
				fmt.Fprintf(&o, "%6d\t", n)
			}
			o.WriteString(l)
			if i < len(list)-1 || complete {
				if ends {
					o.WriteByte('$')
				}
				o.WriteByte('\n')
			}
		}
	})
	return o.done(p, status)
}

func tac(_ context.Context, p *shell.Process) int {
	var o out
	_, files := parse(p, "")
	status := inputs(p, files, func(_ string, data []byte) {
		list, complete := lines(data)
		for i := len(list) - 1; i >= 0; i-- {
			o.WriteString(list[i])
			if i < len(list)-1 || complete {
				o.WriteByte('\n')
			}
		}
	})
	return o.done(p, status)
}

func rev(_ context.Context, p *shell.Process) int {
	var o out
	_, files := parse(p, "")
	status := inputs(p, files, func(_ string, data []byte) {
		list, complete := lines(data)
		for i, l := range list {
			r := []rune(l)
			slices.Reverse(r)
			o.WriteString(string(r))
			if i < len(list)-1 || complete {
				o.WriteByte('\n')
			}
		}
	})
	return o.done(p, status)
}

func tee(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "aip", "append=a")
	status := 0
	writers := []io.Writer{p.Stdout}
	for _, name := range files {
		open := p.Create
		if has(opts, "a") {
			open = p.Append
		}
		f, err := open(name)
		if err != nil {
			p.Errorf("%s: %s", name, shell.Reason(err))
			status = 1
			continue
		}
		defer f.Close()
		writers = append(writers, f)
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := p.Stdin.Read(buf)
		for _, w := range writers {
			if _, err := w.Write(buf[:n]); n > 0 && err != nil {
				status = 1
			}
		}
		if err != nil {
			return status
		}
	}
}

// count reads head's and tail's numbers, with their multipliers.
func count(p *shell.Process, s string) int64 {
	unit := int64(1)
	for suffix, u := range map[string]int64{"b": 512, "kB": 1000, "K": 1024, "KiB": 1024, "MB": 1e6, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30} {
		if t, ok := strings.CutSuffix(s, suffix); ok && t != "" && t[len(t)-1] >= '0' && t[len(t)-1] <= '9' {
			s, unit = t, u
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 40)
	if err != nil {
		p.Unsupported("the number %q", s)
	}
	return n * unit
}

// shorthand turns the old form -5 into -n 5.
func shorthand(p *shell.Process) {
	if len(p.Args) > 1 && len(p.Args[1]) > 1 && p.Args[1][0] == '-' && p.Args[1][1] >= '0' && p.Args[1][1] <= '9' {
		p.Args = slices.Concat(p.Args[:1], []string{"-n", p.Args[1][1:]}, p.Args[2:])
	}
}

func head(_ context.Context, p *shell.Process) int {
	shorthand(p)
	opts, files := parse(p, "n:c:qvz", "lines:=n", "bytes:=c", "quiet=q", "silent=q", "verbose=v", "zero-terminated=z")
	limit, byBytes := "10", false
	for _, o := range opts {
		switch o.name {
		case "n":
			limit, byBytes = o.value, false
		case "c":
			limit, byBytes = o.value, true
		}
	}
	allBut := strings.HasPrefix(limit, "-")
	n := count(p, strings.TrimPrefix(limit, "-"))
	sep := byte('\n')
	if has(opts, "z") {
		sep = 0
	}
	var o out
	if len(files) == 0 && !allBut { // take no more than needed from a pipe that may never end
		return headStream(p, n, byBytes, sep)
	}
	titles := len(files) > 1 && !has(opts, "q") || has(opts, "v")
	first := true
	status := inputs(p, files, func(name string, data []byte) {
		if titles {
			title(&o, name, &first)
		}
		size := int64(len(data))
		if !byBytes {
			size = int64(bytes.Count(data, []byte{sep}))
			if len(data) > 0 && data[len(data)-1] != sep {
				size++
			}
		}
		take := min(n, size)
		if allBut {
			take = max(0, size-n)
		}
		if byBytes {
			o.Write(data[:take])
			return
		}
		o.Write(data[:lineOffset(data, take, sep)])
	})
	return o.done(p, status)
}

func title(o *out, name string, first *bool) {
	if !*first {
		o.WriteByte('\n')
	}
	*first = false
	if name == "-" {
		name = "standard input"
	}
	fmt.Fprintf(o, "==> %s <==\n", name)
}

// lineOffset returns where line n, counted from 0, begins.
func lineOffset(data []byte, n int64, sep byte) int {
	at := 0
	for ; n > 0; n-- {
		i := bytes.IndexByte(data[at:], sep)
		if i < 0 {
			return len(data)
		}
		at += i + 1
	}
	return at
}

func headStream(p *shell.Process, n int64, byBytes bool, sep byte) int {
	buf := make([]byte, 8<<10)
	for n > 0 {
		got, err := p.Stdin.Read(buf)
		b := buf[:got]
		if byBytes {
			b = b[:min(n, int64(len(b)))]
			n -= int64(len(b))
		} else {
			b = b[:lineOffset(b, n, sep)]
			n -= int64(bytes.Count(b, []byte{sep}))
		}
		if len(b) > 0 {
			if _, err := p.Stdout.Write(b); err != nil {
				p.Errorf("write error: %s", shell.Reason(err))
				return 1
			}
		}
		if err != nil {
			break
		}
	}
	return 0
}

func tail(_ context.Context, p *shell.Process) int {
	shorthand(p)
	if len(p.Args) > 1 && len(p.Args[1]) > 1 && p.Args[1][0] == '+' && p.Args[1][1] >= '0' && p.Args[1][1] <= '9' {
		p.Args = slices.Concat(p.Args[:1], []string{"-n", p.Args[1]}, p.Args[2:])
	}
	opts, files := parse(p, "n:c:qvz", "lines:=n", "bytes:=c", "quiet=q", "silent=q", "verbose=v", "zero-terminated=z")
	limit, byBytes := "10", false
	for _, o := range opts {
		switch o.name {
		case "n":
			limit, byBytes = o.value, false
		case "c":
			limit, byBytes = o.value, true
		}
	}
	fromStart := strings.HasPrefix(limit, "+")
	n := count(p, strings.TrimLeft(limit, "+-"))
	sep := byte('\n')
	if has(opts, "z") {
		sep = 0
	}
	titles := len(files) > 1 && !has(opts, "q") || has(opts, "v")
	first := true
	var o out
	status := inputs(p, files, func(name string, data []byte) {
		if titles {
			title(&o, name, &first)
		}
		size := int64(len(data))
		if !byBytes {
			size = int64(bytes.Count(data, []byte{sep}))
			if len(data) > 0 && data[len(data)-1] != sep {
				size++
			}
		}
		skip := max(0, size-n)
		if fromStart {
			skip = min(size, max(0, n-1))
		}
		if byBytes {
			o.Write(data[skip:])
		} else {
			o.Write(data[lineOffset(data, skip, sep):])
		}
	})
	return o.done(p, status)
}

func wc(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "clmwL", "bytes=c", "lines=l", "chars=m", "words=w", "max-line-length=L")
	if has(opts, "L") {
		p.Unsupported("option -L")
	}
	showLines, words, bytesToo := has(opts, "l"), has(opts, "w"), has(opts, "c", "m")
	if len(opts) == 0 {
		showLines, words, bytesToo = true, true, true
	}
	type counts struct {
		name string
		n    [3]int
	}
	var rows []counts
	status := inputs(p, files, func(name string, data []byte) {
		row := counts{name, [3]int{bytes.Count(data, []byte("\n")), len(bytes.Fields(data)), len(data)}}
		if len(files) == 0 {
			row.name = ""
		}
		rows = append(rows, row)
	})
	if len(files) > 1 {
		total := counts{name: "total"}
		for _, r := range rows {
			for i := range r.n {
				total.n[i] += r.n[i]
			}
		}
		rows = append(rows, total)
	}
	// Columns are as wide as the size of all regular files in digits; one
	// number alone, or standard input, has its own rule.
	width := 0
	single := len(opts) == 1 && len(files) <= 1
	if !single {
		total := 0
		for _, name := range files {
			if n, err := p.Stat(name); err == nil && n.IsRegular() {
				total += int(n.Size())
			} else {
				width = 7
			}
		}
		if len(files) == 0 {
			width = 7
			if f, ok := p.Stdin.(*shell.File); ok && f.Inode() != nil && f.Inode().IsRegular() {
				total, width = int(f.Inode().Size()), 0
			}
		}
		width = max(width, len(strconv.Itoa(total)))
	}
	var o out
	for _, r := range rows {
		var fields []string
		for i, show := range []bool{showLines, words, bytesToo} {
			if show {
				fields = append(fields, fmt.Sprintf("%*d", width, r.n[i]))
			}
		}
		if r.name != "" {
			fields = append(fields, r.name)
		}
		o.line(strings.Join(fields, " "))
	}
	return o.done(p, status)
}

// ranges parses the list of cut: N, N-M, N-, -M.
func ranges(p *shell.Process, s string) [][2]int {
	var list [][2]int
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }) {
		lo, hi, isRange := strings.Cut(part, "-")
		a, b := 1, 1<<30
		var err error
		if lo != "" {
			a, err = strconv.Atoi(lo)
		}
		if err == nil && hi != "" {
			b, err = strconv.Atoi(hi)
		}
		if !isRange {
			b = a
		}
		if err != nil || a < 1 || b < a {
			p.Errorf("invalid field value %q", part)
			return nil
		}
		list = append(list, [2]int{a, b})
	}
	return list
}

func cut(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "b:c:f:d:sn", "bytes:=b", "characters:=c", "fields:=f", "delimiter:=d", "only-delimited=s",
		"complement", "output-delimiter:=o")
	delim, outDelim, list, byField, haveOut := "\t", "", "", false, false
	for _, o := range opts {
		switch o.name {
		case "b", "c":
			list = o.value
		case "f":
			list, byField = o.value, true
		case "d":
			delim = o.value
			if len(delim) > 1 {
				p.Errorf("the delimiter must be a single character")
				return 1
			}
			if delim == "" {
				delim = "\x00"
			}
		case "o":
			outDelim, haveOut = o.value, true
		}
	}
	if !haveOut && byField {
		outDelim = delim
	}
	sel := ranges(p, list)
	if sel == nil {
		return 1
	}
	complement := has(opts, "complement")
	in := func(i int) bool {
		for _, r := range sel {
			if r[0] <= i && i <= r[1] {
				return !complement
			}
		}
		return complement
	}
	var o out
	status := inputs(p, files, func(_ string, data []byte) {
		list, _ := lines(data)
		for _, l := range list {
			if !byField {
				for i := range len(l) {
					if in(i + 1) {
						if haveOut && i > 0 && !in(i) && o.Len() > 0 && o.Bytes()[o.Len()-1] != '\n' {
							o.WriteString(outDelim)
						}
						o.WriteByte(l[i])
					}
				}
				o.WriteByte('\n')
				continue
			}
			if !strings.Contains(l, delim) {
				if !has(opts, "s") {
					o.line(l)
				}
				continue
			}
			var kept []string
			for i, f := range strings.Split(l, delim) {
				if in(i + 1) {
					kept = append(kept, f)
				}
			}
			o.line(strings.Join(kept, outDelim))
		}
	})
	return o.done(p, status)
}

func paste(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "d:sz", "delimiters:=d", "serial=s")
	delims := "\t"
	for _, o := range opts {
		if o.name == "d" {
			delims = unescapeY(o.value)
		}
	}
	delim := func(i int) string {
		if delims == "" {
			return ""
		}
		return string(delims[i%len(delims)])
	}
	var columns [][]string
	if len(files) == 0 {
		files = []string{"-"}
	}
	var stdin []string
	dashes := 0
	for _, f := range files {
		if f == "-" {
			dashes++
		}
	}
	if dashes > 0 {
		data, _ := shell.ReadAll(p.Stdin)
		stdin, _ = lines(data)
	}
	seen := 0
	for _, f := range files {
		if f == "-" {
			var column []string
			if has(opts, "s") {
				column, stdin = stdin, nil
			} else {
				for i := seen; i < len(stdin); i += dashes {
					column = append(column, stdin[i])
				}
			}
			seen++
			columns = append(columns, column)
			continue
		}
		data, err := p.ReadFile(f)
		if err != nil {
			p.Errorf("%s: %s", f, shell.Reason(err))
			return 1
		}
		column, _ := lines(data)
		columns = append(columns, column)
	}
	var o out
	if has(opts, "s") {
		for _, c := range columns {
			for i, l := range c {
				if i > 0 {
					o.WriteString(delim(i - 1))
				}
				o.WriteString(l)
			}
			o.WriteByte('\n')
		}
		return o.done(p, 0)
	}
	rows := 0
	for _, c := range columns {
		rows = max(rows, len(c))
	}
	for r := range rows {
		for i, c := range columns {
			if i > 0 {
				o.WriteString(delim(i - 1))
			}
			if r < len(c) {
				o.WriteString(c[r])
			}
		}
		o.WriteByte('\n')
	}
	return o.done(p, 0)
}

func fold(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "w:sb", "width:=w", "spaces=s", "bytes=b")
	width := 80
	for _, o := range opts {
		if o.name == "w" {
			width = max(1, int(count(p, o.value)))
		}
	}
	var o out
	status := inputs(p, files, func(_ string, data []byte) {
		list, complete := lines(data)
		for i, l := range list {
			for len(l) > width {
				at := width
				if has(opts, "s") {
					if j := strings.LastIndexAny(l[:width], " \t"); j >= 0 {
						at = j + 1
					}
				}
				o.line(l[:at])
				l = l[at:]
			}
			o.WriteString(l)
			if i < len(list)-1 || complete {
				o.WriteByte('\n')
			}
		}
	})
	return o.done(p, status)
}

func expand(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "t:i", "tabs:=t")
	stop := 8
	for _, o := range opts {
		if o.name == "t" {
			stop = max(1, int(count(p, o.value)))
		}
	}
	var o out
	status := inputs(p, files, func(_ string, data []byte) {
		column := 0
		for _, c := range data {
			switch c {
			case '\t':
				n := stop - column%stop
				o.WriteString(strings.Repeat(" ", n))
				column += n
				continue
			case '\n':
				column = -1
			}
			o.WriteByte(c)
			column++
		}
	})
	return o.done(p, status)
}

func uniq(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "cdiuf:s:w:z", "count=c", "repeated=d", "ignore-case=i", "unique=u", "skip-fields:=f", "skip-chars:=s", "check-chars:=w")
	fields, chars, check := 0, 0, -1
	for _, o := range opts {
		switch o.name {
		case "f":
			fields = int(count(p, o.value))
		case "s":
			chars = int(count(p, o.value))
		case "w":
			check = int(count(p, o.value))
		}
	}
	if len(args) == 0 {
		args = []string{"-"}
	}
	data, err := input(p, args[0])
	if err != nil {
		p.Errorf("%s: %s", args[0], shell.Reason(err))
		return 1
	}
	key := func(s string) string {
		for range fields {
			s = strings.TrimLeft(s, " \t")
			if i := strings.IndexAny(s, " \t"); i >= 0 {
				s = s[i:]
			} else {
				s = ""
			}
		}
		s = s[min(chars, len(s)):]
		if check >= 0 {
			s = s[:min(check, len(s))]
		}
		if has(opts, "i") {
			s = strings.ToLower(s)
		}
		return s
	}
	list, _ := lines(data)
	var o out
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && key(list[j]) == key(list[i]) {
			j++
		}
		n := j - i
		if !(has(opts, "d") && n == 1 || has(opts, "u") && n > 1) {
			if has(opts, "c") {
				fmt.Fprintf(&o, "%7d ", n)
			}
			o.line(list[i])
		}
		i = j
	}
	if len(args) > 1 {
		if err := p.WriteFile(args[1], o.Bytes()); err != nil {
			p.Errorf("%s: %s", args[1], shell.Reason(err))
			return 1
		}
		return 0
	}
	return o.done(p, 0)
}

func comm(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "123z", "check-order", "nocheck-order")
	if len(files) != 2 {
		p.Errorf("missing operand")
		return 1
	}
	var l [2][]string
	for i, f := range files {
		data, err := input(p, f)
		if err != nil {
			p.Errorf("%s: %s", f, shell.Reason(err))
			return 1
		}
		l[i], _ = lines(data)
	}
	var o out
	put := func(column int, s string) {
		if has(opts, strconv.Itoa(column)) {
			return
		}
		for c := 1; c < column; c++ {
			if !has(opts, strconv.Itoa(c)) {
				o.WriteByte('\t')
			}
		}
		o.line(s)
	}
	a, b := l[0], l[1]
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			put(1, a[0])
			a = a[1:]
		case len(a) == 0 || b[0] < a[0]:
			put(2, b[0])
			b = b[1:]
		default:
			put(3, a[0])
			a, b = a[1:], b[1:]
		}
	}
	return o.done(p, 0)
}

// trSet expands the notation of tr's sets.
func trSet(p *shell.Process, s string, pad int) []byte {
	s = trUnescape(s)
	var set []byte
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], "[:") {
			if name, _, ok := strings.Cut(s[i+2:], ":]"); ok && classNames[name] != nil {
				for c := range 256 {
					if classNames[name](byte(c)) {
						set = append(set, byte(c))
					}
				}
				i += len(name) + 3
				continue
			}
		}
		if strings.HasPrefix(s[i:], "[=") && len(s) >= i+5 && s[i+3:i+5] == "=]" {
			set = append(set, s[i+2])
			i += 4
			continue
		}
		if s[i] == '[' && len(s) > i+3 && s[i+2] == '*' {
			if n, _, ok := strings.Cut(s[i+3:], "]"); ok {
				times, err := strconv.Atoi(n)
				if n == "" || times == 0 {
					times, err = max(0, pad-len(set)), nil
				}
				if err == nil && times < 1<<16 {
					set = append(set, bytes.Repeat([]byte{s[i+1]}, times)...)
					i += 3 + len(n)
					continue
				}
			}
		}
		if i+2 < len(s) && s[i+1] == '-' && s[i+2] >= s[i] {
			for c := int(s[i]); c <= int(s[i+2]); c++ {
				set = append(set, byte(c))
			}
			i += 2
			continue
		}
		set = append(set, s[i])
	}
	return set
}

func trUnescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if j := strings.IndexByte("abfnrtv\\", s[i]); j >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v\\"[j])
			continue
		}
		n, j := 0, i
		for j < len(s) && j < i+3 && '0' <= s[j] && s[j] <= '7' {
			n = n*8 + int(s[j]-'0')
			j++
		}
		if j > i {
			b.WriteByte(byte(n))
			i = j - 1
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func tr(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "+cCdst", "complement=c", "delete=d", "squeeze-repeats=s", "truncate-set1=t")
	del, squeeze := has(opts, "d"), has(opts, "s")
	if len(args) == 0 || len(args) == 1 && !del && !squeeze || len(args) > 2 {
		p.Errorf("missing operand")
		return 1
	}
	from := trSet(p, args[0], 0)
	if has(opts, "c", "C") {
		var in [256]bool
		for _, c := range from {
			in[c] = true
		}
		from = nil
		for c := range 256 {
			if !in[c] {
				from = append(from, byte(c))
			}
		}
	}
	var to []byte
	if len(args) == 2 {
		to = trSet(p, args[1], len(from))
	}
	var table [256]byte
	var drop, repeat [256]bool
	for c := range table {
		table[c] = byte(c)
	}
	switch {
	case del:
		for _, c := range from {
			drop[c] = true
		}
	case len(args) == 2:
		if has(opts, "t") {
			from = from[:min(len(from), len(to))]
		}
		if len(to) == 0 {
			p.Errorf("when not truncating set1, string2 must be non-empty")
			return 1
		}
		for i, c := range from {
			table[c] = to[min(i, len(to)-1)]
		}
	}
	if squeeze {
		set := to
		if len(args) == 1 {
			set = from
		}
		for _, c := range set {
			repeat[c] = true
		}
	}
	data, err := shell.ReadAll(p.Stdin)
	if err != nil {
		p.Errorf("read error: %s", shell.Reason(err))
		return 1
	}
	var o out
	last := -1
	for _, c := range data {
		if drop[c] {
			continue
		}
		c = table[c]
		if squeeze && repeat[c] && last == int(c) {
			continue
		}
		o.WriteByte(c)
		last = int(c)
	}
	return o.done(p, 0)
}

func seq(_ context.Context, p *shell.Process) int {
	args := p.Args[1:]
	sep, equal := "\n", false
	for len(args) > 0 {
		switch {
		case args[0] == "-w" || args[0] == "--equal-width":
			equal = true
		case args[0] == "-s" && len(args) > 1:
			sep, args = args[1], args[1:]
		case strings.HasPrefix(args[0], "-s"):
			sep = args[0][2:]
		case args[0] == "--":
		case strings.HasPrefix(args[0], "-f"):
			p.Unsupported("option -f")
		default:
			goto numbers
		}
		args = args[1:]
	}
numbers:
	if len(args) == 0 || len(args) > 3 {
		p.Errorf("missing operand")
		return 1
	}
	n := []float64{1, 1, 0}
	places := 0
	for i, a := range args {
		v, err := strconv.ParseFloat(a, 64)
		if err != nil {
			p.Errorf("invalid floating point argument: '%s'", a)
			return 1
		}
		if _, frac, ok := strings.Cut(a, "."); ok && !(i == len(args)-1 && len(args) > 1) {
			places = max(places, len(frac))
		}
		switch {
		case i == len(args)-1:
			n[2] = v
		case i == 0:
			n[0] = v
		default:
			n[1] = v
		}
	}
	if n[1] == 0 {
		p.Errorf("invalid Zero increment value: '%s'", args[1])
		return 1
	}
	width := 0
	format := func(v float64) string { return strconv.FormatFloat(v, 'f', places, 64) }
	if equal {
		width = max(len(format(n[0])), len(format(n[2])))
	}
	var o out
	for i := 0; ; i++ {
		v := n[0] + float64(i)*n[1]
		if n[1] > 0 && v > n[2] || n[1] < 0 && v < n[2] {
			break
		}
		if i > 0 {
			o.WriteString(sep)
		}
		s := format(v)
		if pad := width - len(s); pad > 0 {
			sign := ""
			if s[0] == '-' {
				sign, s = "-", s[1:]
			}
			s = sign + strings.Repeat("0", pad) + s
		}
		o.WriteString(s)
		if o.Len() > 32<<10 {
			if o.done(p, 0) != 0 {
				return 1
			}
			o.Reset()
		}
		if i == 1<<31 {
			p.Unsupported("a sequence of more than %d numbers", i)
		}
	}
	if n[1] > 0 && n[0] <= n[2] || n[1] < 0 && n[0] >= n[2] {
		o.WriteByte('\n')
	}
	return o.done(p, 0)
}

func yes(_ context.Context, p *shell.Process) int {
	line := "y\n"
	if len(p.Args) > 1 {
		line = strings.Join(p.Args[1:], " ") + "\n"
	}
	block := []byte(strings.Repeat(line, 1+4096/len(line)))
	for {
		if _, err := p.Stdout.Write(block); err != nil {
			return 1
		}
	}
}

func echo(_ context.Context, p *shell.Process) int {
	args, newline, escapes := p.Args[1:], true, false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && strings.Trim(args[0][1:], "neE") == "" {
		for _, c := range args[0][1:] {
			switch c {
			case 'n':
				newline = false
			case 'e':
				escapes = true
			case 'E':
				escapes = false
			}
		}
		args = args[1:]
	}
	text := strings.Join(args, " ")
	if escapes && strings.Contains(text, `\`) {
		p.Unsupported("escapes with -e")
	}
	if newline {
		text += "\n"
	}
	if _, err := io.WriteString(p.Stdout, text); err != nil {
		return 1
	}
	return 0
}

// hashes are the checksum programs.
func newHash(name string) hash.Hash {
	switch name {
	case "md5sum":
		return md5.New()
	case "sha1sum":
		return sha1.New()
	case "sha224sum":
		return sha256.New224()
	case "sha256sum":
		return sha256.New()
	case "sha384sum":
		return sha512.New384()
	case "sha512sum":
		return sha512.New()
	}
	return nil
}

func checksum(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "bctwz", "check=c", "binary=b", "text=t", "quiet", "status", "strict", "ignore-missing", "warn=w")
	if newHash(p.Name()) == nil {
		p.Unsupported("this checksum")
	}
	if has(opts, "c") {
		return verify(p, opts, files)
	}
	mark := " "
	if has(opts, "b") {
		mark = "*"
	}
	var o out
	status := inputs(p, files, func(name string, data []byte) {
		h := newHash(p.Name())
		h.Write(data)
		escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(name)
		if escaped != name {
			o.WriteByte('\\')
		}
		if len(files) == 0 {
			escaped = "-"
		}
		o.line(hex.EncodeToString(h.Sum(nil)) + " " + mark + escaped)
	})
	return o.done(p, status)
}

func verify(p *shell.Process, opts []option, files []string) int {
	var o out
	bad, unreadable, seen, malformed := 0, 0, 0, 0
	silent := has(opts, "status")
	status := inputs(p, files, func(_ string, data []byte) {
		list, _ := lines(data)
		for _, l := range list {
			sum, name, ok := strings.Cut(l, " ")
			if !ok || len(name) < 2 || len(sum) != 2*newHash(p.Name()).Size() {
				malformed++
				continue
			}
			seen++
			name = name[1:]
			content, err := input(p, name)
			if err != nil {
				if has(opts, "ignore-missing") {
					continue
				}
				unreadable++
				p.Errorf("%s: %s", name, shell.Reason(err))
				if !silent {
					o.line(name + ": FAILED open or read")
				}
				continue
			}
			h := newHash(p.Name())
			h.Write(content)
			if !strings.EqualFold(hex.EncodeToString(h.Sum(nil)), sum) {
				bad++
				if !silent {
					o.line(name + ": FAILED")
				}
			} else if !silent && !has(opts, "quiet") {
				o.line(name + ": OK")
			}
		}
	})
	if seen == 0 {
		p.Errorf("no properly formatted checksum lines found")
	}
	if bad > 0 && !silent {
		p.Errorf("WARNING: %d computed checksums did NOT match", bad)
	}
	if bad > 0 || unreadable > 0 || seen == 0 || malformed > 0 && has(opts, "strict") {
		status = 1
	}
	return o.done(p, status)
}

func base64Command(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "dw:i", "decode=d", "wrap:=w", "ignore-garbage=i")
	wrap := 76
	for _, o := range opts {
		if o.name == "w" {
			wrap = int(count(p, o.value))
		}
	}
	var o out
	bad := false
	status := inputs(p, files, func(_ string, data []byte) {
		if has(opts, "d") {
			clean := bytes.ReplaceAll(data, []byte("\n"), nil)
			b := make([]byte, base64.StdEncoding.DecodedLen(len(clean)))
			n, err := base64.StdEncoding.Decode(b, clean)
			o.Write(b[:n])
			bad = err != nil
			return
		}
		text := base64.StdEncoding.EncodeToString(data)
		if wrap == 0 {
			o.WriteString(text)
			return
		}
		for len(text) > 0 {
			n := min(wrap, len(text))
			o.line(text[:n])
			text = text[n:]
		}
	})
	if bad {
		o.done(p, 1)
		p.Errorf("invalid input")
		return 1
	}
	return o.done(p, status)
}

// od prints the forms -An -tx1, -tu1, -tuN, -td and -c, with -N and -v.
func od(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "A:t:N:j:vw::xdocb", "address-radix:=A", "format:=t", "read-bytes:=N", "skip-bytes:=j", "output-duplicates=v", "width::=w")
	radix, format, limit, skip, width := "o", "o2", -1, 0, 16
	for _, o := range opts {
		switch o.name {
		case "A":
			radix = o.value
		case "t":
			format = o.value
		case "N":
			limit = int(count(p, o.value))
		case "j":
			skip = int(count(p, o.value))
		case "w":
			width = 32
			if o.value != "" {
				width = max(1, int(count(p, o.value)))
			}
		case "x":
			format = "x2"
		case "d":
			format = "u2"
		case "b":
			format = "o1"
		case "c":
			p.Unsupported("option -c")
		}
	}
	kind, sizeText := format[0], format[1:]
	size := map[string]int{"": 4, "1": 1, "2": 2, "4": 4, "8": 8, "C": 1, "S": 2, "I": 4, "L": 8}[sizeText]
	if size == 0 || strings.IndexByte("xuod", kind) < 0 {
		p.Unsupported("format %s", format)
	}
	var data []byte
	if len(files) == 0 && limit >= 0 {
		data = make([]byte, skip+limit)
		n, _ := io.ReadFull(p.Stdin, data)
		data = data[:n]
	} else {
		if len(files) == 1 && limit >= 0 {
			f, err := p.Open(files[0])
			if err != nil {
				p.Errorf("%s: %s", files[0], shell.Reason(err))
				return 1
			}
			defer f.Close()
			data = make([]byte, skip+limit)
			n, _ := io.ReadFull(f, data)
			data = data[:n]
		} else if inputs(p, files, func(_ string, b []byte) { data = append(data, b...) }) != 0 {
			return 1
		}
	}
	data = data[min(skip, len(data)):]
	if limit >= 0 {
		data = data[:min(limit, len(data))]
	}
	digits := map[byte]map[int]int{
		'x': {1: 2, 2: 4, 4: 8, 8: 16}, 'o': {1: 3, 2: 6, 4: 11, 8: 22},
		'u': {1: 3, 2: 5, 4: 10, 8: 20}, 'd': {1: 4, 2: 6, 4: 11, 8: 20},
	}[kind][size]
	address := func(n int) string {
		switch radix {
		case "n":
			return ""
		case "d":
			return fmt.Sprintf("%07d", n)
		case "x":
			return fmt.Sprintf("%06x", n)
		}
		return fmt.Sprintf("%07o", n)
	}
	var o out
	previous, starred := "", false
	for at := 0; at < len(data); at += width {
		row := data[at:min(at+width, len(data))]
		var b strings.Builder
		for i := 0; i < len(row); i += size {
			var v uint64
			for j := 0; j < size && i+j < len(row); j++ {
				v |= uint64(row[i+j]) << (8 * j)
			}
			switch kind {
			case 'x':
				fmt.Fprintf(&b, " %0*x", digits, v)
			case 'o':
				fmt.Fprintf(&b, " %0*o", digits, v)
			case 'u':
				fmt.Fprintf(&b, " %*d", digits, v)
			case 'd':
				shift := 64 - 8*size
				fmt.Fprintf(&b, " %*d", digits, int64(v<<shift)>>shift)
			}
		}
		if b.String() == previous && len(row) == width && !has(opts, "v") {
			if !starred {
				o.line("*")
			}
			starred = true
			continue
		}
		previous, starred = b.String(), false
		o.line(address(skip+at) + b.String())
	}
	if radix != "n" {
		o.line(address(skip + len(data)))
	}
	return o.done(p, 0)
}

func cmp(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "slbn:", "quiet=s", "silent=s", "verbose=l")
	if has(opts, "l", "b", "n") {
		p.Unsupported("options but -s")
	}
	if len(files) == 0 || len(files) > 2 {
		p.Errorf("missing operand")
		return 2
	}
	if len(files) == 1 {
		files = append(files, "-")
	}
	var d [2][]byte
	for i, f := range files {
		var err error
		if d[i], err = input(p, f); err != nil {
			if !has(opts, "s") {
				p.Errorf("%s: %s", f, shell.Reason(err))
			}
			return 2
		}
	}
	if bytes.Equal(d[0], d[1]) {
		return 0
	}
	if has(opts, "s") {
		return 1
	}
	line := 1
	for i := range d[0] {
		if i >= len(d[1]) {
			break
		}
		if d[0][i] != d[1][i] {
			fmt.Fprintf(p.Stdout, "%s %s differ: char %d, line %d\n", files[0], files[1], i+1, line)
			return 1
		}
		if d[0][i] == '\n' {
			line++
		}
	}
	short := 0
	if len(d[1]) < len(d[0]) {
		short = 1
	}
	n := len(d[short])
	switch {
	case n == 0:
		p.Errorf("EOF on %s which is empty", files[short])
	case d[short][n-1] == '\n':
		p.Errorf("EOF on %s after byte %d, line %d", files[short], n, line-1)
	default:
		p.Errorf("EOF on %s after byte %d, in line %d", files[short], n, line)
	}
	return 1
}

// diff tells whether files differ, with -q; what differs, only to a log, is
// not worked out.
func diff(_ context.Context, p *shell.Process) int {
	opts, files := parse(p, "qsuNbBwiEZtaL:U:", "brief=q", "report-identical-files=s", "unified::=u", "new-file=N", "ignore-all-space=w",
		"ignore-space-change=b", "ignore-blank-lines=B", "label:=L", "ignore-case=i", "text=a")
	if len(files) != 2 {
		p.Errorf("missing operand")
		return 2
	}
	var d [2][]byte
	for i, f := range files {
		if n, err := p.Stat(f); f != "-" && err == nil && n.IsDir() {
			p.Unsupported("directories")
		}
		var err error
		if d[i], err = input(p, f); err != nil {
			if has(opts, "N") {
				continue
			}
			p.Errorf("%s: %s", f, shell.Reason(err))
			return 2
		}
	}
	if has(opts, "w", "b", "B", "i", "E", "Z") {
		p.Unsupported("comparing less than all")
	}
	if bytes.Equal(d[0], d[1]) {
		if has(opts, "s") {
			fmt.Fprintf(p.Stdout, "Files %s and %s are identical\n", files[0], files[1])
		}
		return 0
	}
	if !has(opts, "q") {
		// The text of a difference is for people; a script only gets to see it
		// through a pipe.
		if f, ok := p.Stdout.(*shell.File); !ok || !f.Discards() {
			p.Unsupported("printing differences")
		}
		return 1
	}
	fmt.Fprintf(p.Stdout, "Files %s and %s differ\n", files[0], files[1])
	return 1
}
