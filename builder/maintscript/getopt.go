package maintscript

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// option is one that a script of getopt(1) knows.
type option struct {
	name     string // without dashes
	argument int    // 0 none, 1 required, 2 optional
}

// getopt is util-linux's getopt(1): it puts a script's arguments into a form
// that "eval set --" takes.
func getopt(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	var short string
	var long []option
	program := "getopt"
	alternative, quiet, test, seenShort := false, false, false, false
	value := func(i *int, a, name string) string {
		if v, found := strings.CutPrefix(a, name+"="); found {
			return v
		}
		if len(a) > 2 && !strings.HasPrefix(a, "--") {
			return a[2:]
		}
		*i++
		if *i < len(args) {
			return args[*i]
		}
		return ""
	}
	i := 0
loop:
	for ; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			i++
			break loop
		case a == "-a" || a == "--alternative":
			alternative = true
		case a == "-q" || a == "--quiet":
			quiet = true
		case a == "-u" || a == "--unquoted":
			p.Unsupported("option %s", a)
		case a == "-T" || a == "--test":
			test = true
		case strings.HasPrefix(a, "-o") || strings.HasPrefix(a, "--options"):
			short, seenShort = value(&i, a, "--options"), true
		case strings.HasPrefix(a, "-l") || strings.HasPrefix(a, "--long"):
			for _, name := range strings.FieldsFunc(value(&i, a, strings.SplitN(a, "=", 2)[0]), func(c rune) bool { return c == ',' || c == ' ' }) {
				n := strings.TrimRight(name, ":")
				long = append(long, option{n, len(name) - len(n)})
			}
		case strings.HasPrefix(a, "-n") || strings.HasPrefix(a, "--name"):
			program = value(&i, a, "--name")
		case strings.HasPrefix(a, "-s") || strings.HasPrefix(a, "--shell"):
			value(&i, a, "--shell")
		case strings.HasPrefix(a, "-"):
			p.Unsupported("option %s", a)
		default:
			break loop
		}
	}
	if test {
		return 4
	}
	args = args[min(i, len(args)):]
	if !seenShort && len(args) > 0 {
		short, args = args[0], args[1:]
	}
	stopAtFirst := strings.HasPrefix(short, "+")
	short = strings.TrimLeft(short, "+-")
	var shorts []option
	for k := 0; k < len(short); {
		n := 0
		for k+1+n < len(short) && short[k+1+n] == ':' {
			n++
		}
		shorts = append(shorts, option{short[k : k+1], n})
		k += 1 + n
	}
	var out, rest []string
	status := 0
	complain := func(format string, a ...any) {
		status = 1
		if !quiet {
			fmt.Fprintf(p.Stderr, "%s: %s\n", program, fmt.Sprintf(format, a...))
		}
	}
	// named handles a long option; it returns false if there is none such.
	named := func(k *int, text, dashes string) bool {
		name, v, inline := strings.Cut(text, "=")
		var hits []option
		for _, o := range long {
			if o.name == name {
				hits = []option{o}
				break
			}
			if strings.HasPrefix(o.name, name) {
				hits = append(hits, o)
			}
		}
		if len(hits) == 0 {
			return false
		}
		o := hits[0]
		switch {
		case len(hits) > 1:
			complain("option '%s%s' is ambiguous", dashes, name)
		case o.argument == 0 && inline:
			complain("option '--%s' doesn't allow an argument", o.name)
		case o.argument == 0:
			out = append(out, "--"+o.name)
		case o.argument == 1 && !inline && *k+1 >= len(args):
			complain("option '--%s' requires an argument", o.name)
		case o.argument == 1 && !inline:
			*k++
			out = append(out, "--"+o.name, quote(args[*k]))
		default:
			out = append(out, "--"+o.name, quote(v))
		}
		return true
	}
	for k := 0; k < len(args); k++ {
		a := args[k]
		if a == "--" {
			rest = append(rest, args[k+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			if stopAtFirst || p.Env["POSIXLY_CORRECT"] != "" {
				rest = append(rest, args[k:]...)
				break
			}
			rest = append(rest, a)
			continue
		}
		if strings.HasPrefix(a, "--") {
			if !named(&k, a[2:], "--") {
				complain("unrecognized option '%s'", a)
			}
			continue
		}
		if alternative && len(a) > 2 && named(&k, a[1:], "-") {
			continue
		}
		for j := 1; j < len(a); j++ {
			n := slices.IndexFunc(shorts, func(o option) bool { return o.name == a[j:j+1] })
			if n < 0 {
				complain("invalid option -- '%c'", a[j])
				continue
			}
			out = append(out, "-"+shorts[n].name)
			if shorts[n].argument == 0 {
				continue
			}
			v := a[j+1:]
			if v == "" && shorts[n].argument == 1 {
				if k+1 >= len(args) {
					complain("option requires an argument -- '%c'", a[j])
					out = out[:len(out)-1]
					break
				}
				k++
				v = args[k]
			}
			out = append(out, quote(v))
			break
		}
	}
	out = append(out, "--")
	for _, r := range rest {
		out = append(out, quote(r))
	}
	fmt.Fprintln(p.Stdout, " "+strings.Join(out, " "))
	return status
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
