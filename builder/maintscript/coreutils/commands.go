// Package coreutils holds the general Unix programs that Debian's maintainer
// scripts call, as Go functions over an in-memory tree: those of coreutils,
// sed, grep, findutils, diffutils and awk, and small ones beside them. They
// behave like the GNU programs of Debian in the C locale, as root.
//
// An option that a program does not take here ends the script with a
// shell.UnsupportedError instead of being guessed at.
package coreutils

import (
	"bytes"
	"context"
	"io"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// Commands returns the programs by name.
func Commands() map[string]shell.Command {
	return map[string]shell.Command{
		"[":                 shell.Test,
		"arch":              arch,
		"awk":               awk,
		"mawk":              awk,
		"base64":            base64Command,
		"basename":          basename,
		"cat":               cat,
		"chgrp":             chown,
		"chmod":             chmod,
		"chown":             chown,
		"cksum":             checksum,
		"cmp":               cmp,
		"comm":              comm,
		"cp":                cp,
		"cut":               cut,
		"date":              date,
		"df":                df,
		"diff":              diff,
		"dirname":           dirname,
		"du":                du,
		"echo":              echo,
		"egrep":             grep,
		"env":               env,
		"expand":            expand,
		"expr":              expr,
		"false":             func(context.Context, *shell.Process) int { return 1 },
		"fgrep":             grep,
		"find":              find,
		"fold":              fold,
		"getent":            getent,
		"grep":              grep,
		"groups":            groups,
		"head":              head,
		"hostname":          hostname,
		"id":                id,
		"install":           install,
		"ln":                ln,
		"logger":            discard,
		"ls":                ls,
		"md5sum":            checksum,
		"mkdir":             mkdir,
		"mkfifo":            mkfifo,
		"mknod":             mknod,
		"mktemp":            mktemp,
		"mountpoint":        mountpoint,
		"mv":                mv,
		"nproc":             nproc,
		"od":                od,
		"paste":             paste,
		"printenv":          printenv,
		"printf":            shell.Printf,
		"pwd":               pwd,
		"readlink":          readlink,
		"realpath":          realpath,
		"rev":               rev,
		"rm":                rm,
		"rmdir":             rmdir,
		"run-parts":         runParts,
		"sed":               sed,
		"seq":               seq,
		"sha1sum":           checksum,
		"sha224sum":         checksum,
		"sha256sum":         checksum,
		"sha384sum":         checksum,
		"sha512sum":         checksum,
		"sleep":             nothing,
		"sort":              sortCommand,
		"stat":              stat,
		"sync":              nothing,
		"tac":               tac,
		"tail":              tail,
		"tee":               tee,
		"tempfile":          tempfile,
		"test":              shell.Test,
		"timeout":           timeout,
		"touch":             touch,
		"tr":                tr,
		"true":              nothing,
		"truncate":          truncate,
		"tty":               tty,
		"uname":             uname,
		"unlink":            unlink,
		"uniq":              uniq,
		"wc":                wc,
		"which":             which,
		"whoami":            whoami,
		"xargs":             xargs,
		"yes":               yes,
		"nohup":             nohup,
		"nice":              nohup,
		"ionice":            nohup,
		"who":               nothing,
		"pidof":             func(context.Context, *shell.Process) int { return 1 },
		"pgrep":             func(context.Context, *shell.Process) int { return 1 },
		"start-stop-daemon": nothing,
	}
}

// nothing is a program that succeeds without a trace here: there are no disks
// to sync, no time to wait, no processes to start.
func nothing(context.Context, *shell.Process) int { return 0 }

// discard is nothing, but eats its input.
func discard(_ context.Context, p *shell.Process) int {
	if _, err := io.Copy(io.Discard, p.Stdin); err != nil {
		return 1
	}
	return 0
}

// option is one option of a command line: a letter, or a long name that has
// no letter, and its argument.
type option struct {
	name  string
	value string
}

// parse splits a command line as getopt_long(3) does. spec lists the letters,
// each followed by ":" if it takes an argument or "::" if it may have one
// joined to it; a leading "+" stops at the first operand. long maps long
// names to a letter or, if there is none, to the name itself, with the same
// colons after the name. An option that is in neither ends the script.
func parse(p *shell.Process, spec string, long ...string) (opts []option, operands []string) {
	args := p.Args[1:]
	inOrder := strings.HasPrefix(spec, "+")
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return opts, append(operands, args[i+1:]...)
		case len(arg) < 2 || arg[0] != '-':
			if inOrder {
				return opts, append(operands, args[i:]...)
			}
			operands = append(operands, arg)
		case strings.HasPrefix(arg, "--"):
			name, value, hasValue := strings.Cut(arg[2:], "=")
			letter, takes := longOption(p, name, long)
			if takes == ":" && !hasValue {
				if i++; i == len(args) {
					p.Unsupported("option --%s without an argument", name)
				}
				value = args[i]
			}
			opts = append(opts, option{letter, value})
		default:
			for j := 1; j < len(arg); j++ {
				at := strings.IndexByte(spec, arg[j])
				if at < 0 || arg[j] == ':' || arg[j] == '+' {
					p.Unsupported("option -%c", arg[j])
				}
				o := option{name: string(arg[j])}
				switch {
				case strings.HasPrefix(spec[at+1:], "::"):
					o.value, j = arg[j+1:], len(arg)
				case strings.HasPrefix(spec[at+1:], ":"):
					o.value, j = arg[j+1:], len(arg)
					if o.value == "" {
						if i++; i == len(args) {
							p.Unsupported("option -%s without an argument", o.name)
						}
						o.value = args[i]
					}
				}
				opts = append(opts, o)
			}
		}
	}
	return opts, operands
}

// longOption finds a long name, which may be cut short as long as it is
// unique, in entries of the form "name=letter" or "name:=letter".
func longOption(p *shell.Process, name string, long []string) (letter, takes string) {
	found := 0
	for _, entry := range long {
		full, l, ok := strings.Cut(entry, "=")
		full, colon := strings.CutSuffix(full, ":")
		full, second := strings.CutSuffix(full, ":")
		if !strings.HasPrefix(full, name) {
			continue
		}
		if !ok {
			l = full
		}
		t := ""
		if colon {
			t = ":"
		}
		if second {
			t = "::"
		}
		if full == name {
			return l, t
		}
		if found == 0 || l != letter {
			found++
		}
		letter, takes = l, t
	}
	if found != 1 {
		p.Unsupported("option --%s", name)
	}
	return letter, takes
}

// has reports whether an option was given.
func has(opts []option, names ...string) bool {
	for _, o := range opts {
		for _, n := range names {
			if o.name == n {
				return true
			}
		}
	}
	return false
}

// input returns the content of a file, or of standard input for "-".
func input(p *shell.Process, name string) ([]byte, error) {
	data, err := []byte(nil), error(nil)
	if name == "-" {
		data, err = shell.ReadAll(p.Stdin)
	} else {
		data, err = p.ReadFile(name)
	}
	p.Hold(len(data))
	return data, err
}

// inputs reads each named file, or standard input if none is named, telling
// of those it cannot read; status is 1 then.
func inputs(p *shell.Process, names []string, each func(name string, data []byte)) (status int) {
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, name := range names {
		data, err := input(p, name)
		if err != nil {
			p.Errorf("%s: %s", name, shell.Reason(err))
			status = 1
			continue
		}
		each(name, data)
	}
	return status
}

// lines splits data into lines without their newlines; last says whether the
// last one had one.
func lines(data []byte) (out []string, complete bool) {
	if len(data) == 0 {
		return nil, true
	}
	complete = data[len(data)-1] == '\n'
	if complete {
		data = data[:len(data)-1]
	}
	return strings.Split(string(data), "\n"), complete
}

// out collects output and writes it at once.
type out struct{ bytes.Buffer }

func (o *out) line(s string) {
	o.WriteString(s)
	o.WriteByte('\n')
}

// done writes what was collected and returns status, or 1 if that fails.
func (o *out) done(p *shell.Process, status int) int {
	if o.Len() == 0 {
		return status
	}
	if _, err := p.Stdout.Write(o.Bytes()); err != nil {
		p.Errorf("write error: %s", shell.Reason(err))
		return 1
	}
	return status
}
