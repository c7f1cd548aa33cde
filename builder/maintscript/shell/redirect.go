package shell

import (
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// redirect makes redirections; undo takes them back, also after an error.
func (in *interp) redirect(redirs []*syntax.Redirect) (undo func(), err error) {
	if len(redirs) == 0 {
		return func() {}, nil
	}
	type saved struct {
		n    int
		file *File // nil: was closed
	}
	var saves []saved
	seen := map[int]bool{}
	change := func(n int, f *File) { // nil closes
		if !seen[n] {
			seen[n] = true
			old := in.files[n]
			if old != nil {
				old.hold()
			}
			saves = append(saves, saved{n, old})
		}
		if f != nil {
			in.files.set(n, f)
		} else if old := in.files[n]; old != nil {
			old.Close()
			delete(in.files, n)
		}
	}
	undo = func() {
		for _, s := range saves {
			if now := in.files[s.n]; now != nil {
				now.Close()
				delete(in.files, s.n)
			}
			if s.file != nil {
				in.files[s.n] = s.file
			}
		}
		saves = nil
	}
	defer func() {
		if e := recover(); e != nil {
			undo()
			panic(e)
		}
	}()
	for _, rd := range redirs {
		if err := in.redirectOne(rd, change); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

func (in *interp) redirectOne(rd *syntax.Redirect, change func(int, *File)) error {
	n := 1
	switch rd.Op {
	case syntax.RdrIn, syntax.RdrInOut, syntax.DplIn, syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc:
		n = 0
	}
	if rd.N != nil {
		number, err := strconv.Atoi(rd.N.Value)
		if err != nil || number > 255 {
			in.run.stop(&UnsupportedError{"the redirection of " + rd.N.Value})
		}
		n = number
	}
	switch rd.Op {
	case syntax.Hdoc, syntax.DashHdoc:
		change(n, in.textFile(in.document(rd.Hdoc)))
		return nil
	case syntax.WordHdoc:
		change(n, in.textFile(in.literal(rd.Word)+"\n"))
		return nil
	case syntax.DplIn, syntax.DplOut:
		return in.duplicate(n, in.literal(rd.Word), rd.Op, change)
	}
	name := in.literal(rd.Word)
	if in.bash {
		if f := in.fields([]*syntax.Word{rd.Word}); len(f) == 1 {
			name = f[0]
		} else {
			in.errorf("%s: ambiguous redirect", name)
			return errBadFile
		}
	}
	var flags OpenFlag
	switch rd.Op {
	case syntax.RdrIn:
		flags = OpenRead
	case syntax.RdrInOut:
		flags = OpenRead | OpenWrite | OpenCreate
	case syntax.AppOut, syntax.AppAll:
		flags = OpenWrite | OpenCreate | OpenAppend
	case syntax.RdrOut, syntax.RdrAll:
		flags = OpenWrite | OpenCreate | OpenTruncate
		if in.opts['C'] {
			if st, err := in.stat(name, true); err == nil && st.IsRegular() {
				in.errorf("cannot create %s: File exists", name)
				return errBadFile
			}
		}
	case syntax.RdrClob:
		flags = OpenWrite | OpenCreate | OpenTruncate
	default:
		in.run.stop(&UnsupportedError{"the redirection " + rd.Op.String()})
	}
	q := in.newProcess(nil, nil)
	f, err := in.run.open(q, in.path(name), flags, 0o666&^in.umask)
	if err != nil {
		verb := "create"
		if flags&OpenCreate == 0 {
			verb = "open"
		}
		in.errorf("cannot %s %s: %s", verb, name, Reason(err))
		return err
	}
	change(n, f)
	if rd.Op == syntax.RdrAll || rd.Op == syntax.AppAll {
		change(2, f.hold())
	}
	return nil
}

// textFile returns an open file of its own that reads as text.
func (in *interp) textFile(s string) *File {
	return &File{refs: 1, run: in.run, flags: OpenRead, reader: strings.NewReader(s)}
}

// duplicate makes n>&word and n<&word.
func (in *interp) duplicate(n int, word string, op syntax.RedirOperator, change func(int, *File)) error {
	if word == "-" {
		change(n, nil)
		return nil
	}
	number, move := word, false
	if in.bash && len(word) > 1 && strings.HasSuffix(word, "-") {
		number, move = word[:len(word)-1], true
	}
	from, err := strconv.Atoi(number)
	if err != nil || from < 0 {
		in.errorf("Syntax error: Bad fd number")
		panic(shellError{2})
	}
	f := in.files[from]
	if f == nil {
		in.errorf("%d: %s", from, errBadFile)
		return errBadFile
	}
	if from == n {
		return nil
	}
	change(n, f.hold())
	if move {
		change(from, nil)
	}
	return nil
}
