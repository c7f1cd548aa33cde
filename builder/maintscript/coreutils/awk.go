package coreutils

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"

	"github.com/benhoyt/goawk/interp"
	"github.com/benhoyt/goawk/parser"
	"github.com/picube/picube-build/builder/maintscript/shell"
)

// awk is GoAWK without files to write and programs to run: what a program
// prints goes to standard output only. What might take any amount of memory
// (boundedAwk) is not supported.
func awk(ctx context.Context, p *shell.Process) int {
	opts, args := parse(p, "+F:v:f:W:", "field-separator:=F", "assign:=v", "file:=f")
	var vars []string
	var source strings.Builder
	haveSource := false
	for _, o := range opts {
		switch o.name {
		case "F":
			fs := o.value
			if fs == "t" {
				fs = "\t"
			}
			vars = append(vars, "FS", fs)
		case "v":
			name, value, ok := strings.Cut(o.value, "=")
			if !ok {
				p.Errorf("improper assignment: -v %s", o.value)
				return 2
			}
			if slices.Contains(awkSettings, name) && len(value) > maxAwkSetting {
				p.Unsupported("a long %s", name)
			}
			vars = append(vars, name, value)
		case "f":
			data, err := input(p, o.value)
			if err != nil {
				p.Errorf("couldn't open file %s: %s", o.value, shell.Reason(err))
				return 2
			}
			source.Write(data)
			source.WriteByte('\n')
			haveSource = true
		case "W":
			p.Unsupported("option -W")
		}
	}
	if !haveSource {
		if len(args) == 0 {
			p.Errorf("usage: mawk [Options] [Program] [file ...]")
			return 2
		}
		source.WriteString(args[0])
		args = args[1:]
	}
	prog, err := parser.ParseProgram([]byte(source.String()), nil)
	if err != nil {
		p.Errorf("%s", err)
		return 2
	}
	small, err := boundedAwk(prog, source.Len())
	if err != nil {
		p.Unsupported("%s", err)
	}
	// GoAWK would open files of the host, so the inputs come as one stream:
	// exact as long as the program does not ask which file it is in.
	stdin := p.Stdin
	var assigned []string
	if len(args) > 0 {
		var readers []io.Reader
		files := 0
		for _, a := range args {
			if name, value, ok := strings.Cut(a, "="); ok && awkName(name) {
				if files > 0 {
					p.Unsupported("an assignment between files")
				}
				if slices.Contains(awkSettings, name) && len(value) > maxAwkSetting {
					p.Unsupported("a long %s", name)
				}
				assigned = append(assigned, name, value)
				continue
			}
			files++
			data, err := input(p, a)
			if err != nil {
				p.Errorf("cannot open %s (%s)", a, shell.Reason(err))
				return 2
			}
			readers = append(readers, bytes.NewReader(data))
			if len(data) > 0 && data[len(data)-1] != '\n' {
				readers = append(readers, strings.NewReader("\n"))
			}
		}
		if files > 1 && (strings.Contains(source.String(), "FNR") || strings.Contains(source.String(), "FILENAME")) {
			p.Unsupported("FNR or FILENAME with several files")
		}
		if files == 1 {
			vars = append(vars, "FILENAME", args[len(args)-1])
		}
		if files > 0 {
			stdin = io.MultiReader(readers...)
		}
	}
	if small {
		stdin = &boundedReader{stdin, maxAwkInput, func() { p.Unsupported("more input than %d bytes for a program that makes text", maxAwkInput) }}
	}
	environ, given := []string(nil), 0
	for name, value := range p.Env {
		environ = append(environ, name, value)
		given += len(value)
	}
	for _, v := range slices.Concat(vars, assigned) {
		given += len(v)
	}
	if small && given > maxAwkInput {
		p.Unsupported("variables of %d bytes for a program that makes text", given)
	}
	runner, err := interp.New(prog)
	if err != nil {
		p.Errorf("%s", err)
		return 2
	}
	var o bytes.Buffer
	status, err := runner.ExecuteContext(ctx, &interp.Config{
		Stdin: stdin, Output: limitedWriter{&o}, Error: p.Stderr, Argv0: p.Name(), Vars: append(vars, assigned...),
		NoExec: true, NoFileWrites: true, NoFileReads: true, NoArgVars: true, Environ: environ,
	})
	if o.Len() > 0 {
		if _, werr := p.Stdout.Write(o.Bytes()); werr != nil {
			return 2
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return 2
		}
		if strings.Contains(err.Error(), "NoExec") || strings.Contains(err.Error(), "NoFile") {
			p.Unsupported("%s", err)
		}
		p.Errorf("%s", err)
		return 2
	}
	return status
}

// boundedReader calls tooMuch, which does not return, when more than left
// bytes were read.
type boundedReader struct {
	r       io.Reader
	left    int
	tooMuch func()
}

func (r *boundedReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if r.left -= n; r.left < 0 {
		r.tooMuch()
	}
	return n, err
}

func awkName(s string) bool {
	for i := range len(s) {
		if !wordByte(s[i]) || i == 0 && '0' <= s[i] && s[i] <= '9' {
			return false
		}
	}
	return s != ""
}

// limitedWriter keeps a program that prints for ever from taking all memory.
type limitedWriter struct{ *bytes.Buffer }

func (w limitedWriter) Write(b []byte) (int, error) {
	if w.Len()+len(b) > 64<<20 {
		return 0, io.ErrShortWrite
	}
	return w.Buffer.Write(b)
}
