package shell

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// echoBuiltin is dash's echo: -n only, and escapes are always interpreted;
// for bash the other way round.
func echoBuiltin(in *interp, args []string, _ int) int {
	args = args[1:]
	newline, escapes := true, !in.bash
	for len(args) > 0 {
		if !in.bash {
			if args[0] == "-n" {
				newline, args = false, args[1:]
			}
			break
		}
		if len(args[0]) < 2 || args[0][0] != '-' || strings.Trim(args[0][1:], "neE") != "" {
			break
		}
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
	if escapes {
		var stop bool
		text, stop = unescape(text, false)
		newline = newline && !stop
	}
	if newline {
		text += "\n"
	}
	return in.write("echo", text)
}

func (in *interp) write(name, text string) int {
	if _, err := io.WriteString(in.stdout(), text); err != nil {
		in.errorf("%s: I/O error", name)
		return 1
	}
	return 0
}

// unescape interprets the escapes of echo and printf's %b, or those of
// printf's format, in which octal numbers need no leading 0; stop is true
// after \c.
func unescape(s string, format bool) (out string, stop bool) {
	if !strings.Contains(s, `\`) {
		return s, false
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'a':
			b.WriteByte('\a')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'v':
			b.WriteByte('\v')
		case '\\':
			b.WriteByte('\\')
		case 'c':
			if !format {
				return b.String(), true
			}
			b.WriteString(`\c`)
		case '0', '1', '2', '3', '4', '5', '6', '7':
			digits := 3
			if c == '0' && !format {
				i++
			}
			n, j := 0, i
			for j < len(s) && j < i+digits && '0' <= s[j] && s[j] <= '7' {
				n = n*8 + int(s[j]-'0')
				j++
			}
			b.WriteByte(byte(n))
			i = j - 1
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), false
}

func printfBuiltin(in *interp, args []string, _ int) int {
	args = afterDashes(args)
	if in.bash && len(args) > 3 && args[1] == "-v" {
		out, status := sprintf(args[3], args[4:], func(format string, a ...any) { in.errorf("printf: "+format, a...) }, in.run.printsTooMuch)
		in.setVar(args[2], out)
		return status
	}
	if len(args) < 2 {
		in.fatalf("printf: usage: printf format [arg ...]")
	}
	out, status := sprintf(args[1], args[2:], func(format string, a ...any) { in.errorf("printf: "+format, a...) }, in.run.printsTooMuch)
	if status == badDirective && in.bash {
		status = 1
	}
	if s := in.write("printf", out); s != 0 {
		return s
	}
	return status
}

// Printf is printf(1) for those who call it as a program.
func Printf(_ context.Context, p *Process) int {
	args := afterDashes(p.Args)
	if len(args) < 2 {
		p.Errorf("missing operand")
		return 1
	}
	out, status := sprintf(args[1], args[2:], p.Errorf, p.run.printsTooMuch)
	if _, err := io.WriteString(p.Stdout, out); err != nil {
		return 1
	}
	return min(status, 1)
}

// sprintf formats as printf(1) does, using the format again as long as
// arguments are left. It calls tooMuch, which does not return, rather than
// make more than maxPrintf.
func sprintf(format string, args []string, warn func(string, ...any), tooMuch func()) (out string, status int) {
	f := &formatter{args: args, warn: warn, tooMuch: tooMuch}
	for {
		before := len(f.args)
		if stop := f.once(format); stop || len(f.args) == 0 || len(f.args) == before {
			return f.out.String(), f.status
		}
	}
}

// badDirective is dash's status for a format it does not know.
const badDirective = 2

// What bounds a printf: a width and a precision, which package fmt takes no
// larger, and all that it makes.
const (
	maxPrintfWidth = 1_000_000
	maxPrintf      = 16 << 20
)

func (r *run) printsTooMuch() { r.stop(&LimitError{"bytes in one printf", maxPrintf}) }

type formatter struct {
	out     strings.Builder
	args    []string
	warn    func(string, ...any)
	tooMuch func()
	status  int
}

func (f *formatter) arg() (string, bool) {
	if len(f.args) == 0 {
		return "", false
	}
	a := f.args[0]
	f.args = f.args[1:]
	return a, true
}

func (f *formatter) fail(format string, args ...any) {
	f.warn(format, args...)
	f.status = 1
}

// once goes through the format once; stop is true after \c in a %b.
func (f *formatter) once(format string) (stop bool) {
	for i := 0; i < len(format); {
		next := strings.IndexByte(format[i:], '%')
		if next < 0 {
			next = len(format) - i
		}
		text, _ := unescape(format[i:i+next], true)
		f.out.WriteString(text)
		i += next
		if i == len(format) {
			break
		}
		if strings.HasPrefix(format[i:], "%%") {
			f.out.WriteByte('%')
			i += 2
			continue
		}
		j := i + 1
		for j < len(format) && strings.IndexByte("#-+ 0", format[j]) >= 0 {
			j++
		}
		flags := format[i+1 : j]
		width, hasWidth, j := f.numberOrStar(format, j)
		precision, hasPrecision := 0, false
		if j < len(format) && format[j] == '.' {
			precision, _, j = f.numberOrStar(format, j+1)
			hasPrecision = precision >= 0
		}
		if j >= len(format) {
			f.fail("missing format character")
			return true
		}
		if width < 0 {
			width, flags = -width, flags+"-"
		}
		spec := "%" + flags
		if max(width, precision) > maxPrintfWidth || f.out.Len() > maxPrintf {
			f.tooMuch()
		}
		if hasWidth {
			spec += strconv.Itoa(width)
		}
		if hasPrecision {
			spec += "." + strconv.Itoa(precision)
		}
		if f.conversion(format[j], spec, flags, width, precision, hasPrecision) {
			return true
		}
		i = j + 1
		if f.status != 0 && strings.IndexByte("bcsdiouxXeEfFgGaAq", format[j]) < 0 {
			return true
		}
	}
	return false
}

func (f *formatter) numberOrStar(format string, j int) (n int, ok bool, next int) {
	if j < len(format) && format[j] == '*' {
		a, _ := f.arg()
		return int(f.integer(a)), true, j + 1
	}
	start := j
	for j < len(format) && isDigit(format[j]) {
		j++
	}
	n, _ = strconv.Atoi(format[start:j])
	return n, j > start, j
}

func (f *formatter) conversion(c byte, spec, flags string, width, precision int, hasPrecision bool) (stop bool) {
	switch c {
	case 'd', 'i':
		a, _ := f.arg()
		f.formatInteger(f.integer(a), flags, width, precision, hasPrecision, 'd')
	case 'o', 'u', 'x', 'X':
		a, _ := f.arg()
		f.formatInteger(f.integer(a), flags, width, precision, hasPrecision, c)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		a, _ := f.arg()
		x, err := strconv.ParseFloat(a, 64)
		if err != nil && a != "" {
			f.fail("%s: expected numeric value", a)
		}
		if !hasPrecision {
			spec += ".6"
		}
		f.out.WriteString(fmt.Sprintf(spec+string(c), x))
	case 'c':
		a, _ := f.arg()
		f.pad(a[:min(1, len(a))], flags, width)
	case 's', 'b':
		a, _ := f.arg()
		if c == 'b' {
			a, stop = unescape(a, false)
		}
		if hasPrecision {
			a = a[:min(precision, len(a))]
		}
		f.pad(a, flags, width)
		return stop
	default:
		f.fail("%s: invalid directive", spec+string(c))
		f.status = badDirective
		return true
	}
	return false
}

func (f *formatter) pad(s, flags string, width int) {
	space := strings.Repeat(" ", max(0, width-len(s)))
	if strings.Contains(flags, "-") {
		f.out.WriteString(s + space)
	} else {
		f.out.WriteString(space + s)
	}
}

func (f *formatter) formatInteger(n int64, flags string, width, precision int, hasPrecision bool, c byte) {
	digits, sign := "", ""
	switch c {
	case 'd':
		digits = strconv.FormatInt(n, 10)
		switch {
		case n < 0:
			digits, sign = digits[1:], "-"
		case strings.Contains(flags, "+"):
			sign = "+"
		case strings.Contains(flags, " "):
			sign = " "
		}
	case 'u':
		digits = strconv.FormatUint(uint64(n), 10)
	case 'o':
		digits = strconv.FormatUint(uint64(n), 8)
		if strings.Contains(flags, "#") && digits[0] != '0' {
			digits = "0" + digits
		}
	default:
		digits = strconv.FormatUint(uint64(n), 16)
		if strings.Contains(flags, "#") && n != 0 {
			sign = "0x"
		}
		if c == 'X' {
			digits, sign = strings.ToUpper(digits), strings.ToUpper(sign)
		}
	}
	if hasPrecision {
		if precision == 0 && n == 0 {
			digits = ""
		}
		digits = strings.Repeat("0", max(0, precision-len(digits))) + digits
	} else if strings.Contains(flags, "0") && !strings.Contains(flags, "-") {
		digits = strings.Repeat("0", max(0, width-len(sign)-len(digits))) + digits
	}
	f.pad(sign+digits, flags, width)
}

// integer reads a number as strtoimax does, complaining about what is left.
func (f *formatter) integer(s string) int64 {
	if s == "" {
		return 0
	}
	if s[0] == '"' || s[0] == '\'' {
		if len(s) > 1 {
			return int64(s[1])
		}
		return 0
	}
	t := strings.TrimLeft(s, " \t\n")
	end := 0
	for end < len(t) && (isDigit(t[end]) || isAlpha(t[end]) || end == 0 && (t[0] == '-' || t[0] == '+')) {
		end++
	}
	for end > 0 {
		if n, ok := signedNumber(t[:end], false); ok {
			if end < len(t) {
				f.fail("%s: not completely converted", s)
			}
			return n
		}
		end--
	}
	f.fail("%s: expected numeric value", s)
	return 0
}
