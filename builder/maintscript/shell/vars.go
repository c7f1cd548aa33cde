package shell

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// variable is a shell variable. One that is neither set nor has a list may
// still be marked exported or read-only.
type variable struct {
	value            string
	set              bool
	export, readonly bool
	list             *list             // bash's indexed array
	dict             map[string]string // bash's associative array
	hidden           bool              // a saved state: there was no such variable
}

// list is an indexed array; it is copied before it is changed.
type list struct{ items map[int]string }

func (l *list) indexes() []int { return slices.Sorted(maps.Keys(l.items)) }

func (l *list) values() []string {
	var out []string
	for _, i := range l.indexes() {
		out = append(out, l.items[i])
	}
	return out
}

func (l *list) next() int {
	if len(l.items) == 0 {
		return 0
	}
	idx := l.indexes()
	return idx[len(idx)-1] + 1
}

func newList(values []string) *list {
	l := &list{items: make(map[int]string, len(values))}
	for i, v := range values {
		l.items[i] = v
	}
	return l
}

func (in *interp) setVar(name, value string) {
	v := in.vars[name]
	if v.readonly {
		in.fatalf("%s: is read only", name)
	}
	if limit := in.run.shell.cfg.Limits.Memory; int64(len(value)) > limit {
		in.run.stop(&LimitError{"bytes in a variable", limit})
	}
	in.run.took(len(value))
	switch {
	case v.list != nil:
		in.setElement(name, 0, value)
		return
	case name == "OPTIND":
		in.getopt = 0
	}
	v.value, v.set = value, true
	v.export = v.export || in.opts['a']
	in.vars[name] = v
}

func (in *interp) setElement(name string, index int, value string) {
	v := in.vars[name]
	if v.readonly {
		in.fatalf("%s: is read only", name)
	}
	l := &list{items: map[int]string{}}
	if v.list != nil {
		l.items = maps.Clone(v.list.items)
	} else if v.set {
		l.items[0] = v.value
	}
	if index < 0 {
		index += l.next()
	}
	if index < 0 {
		in.fatalf("%s: bad array subscript", name)
	}
	if limit := in.run.shell.cfg.Limits.Memory / 64; int64(len(l.items)) > limit {
		in.run.stop(&LimitError{"elements in an array", limit})
	}
	l.items[index] = value
	v.list, v.set, v.value = l, true, ""
	in.vars[name] = v
}

func (in *interp) unsetVar(name string) {
	v, ok := in.vars[name]
	if !ok {
		return
	}
	if v.readonly {
		in.fatalf("%s: is read only", name)
	}
	delete(in.vars, name)
}

// save returns a variable's state for restore.
func (in *interp) save(name string) variable {
	v, ok := in.vars[name]
	v.hidden = !ok
	return v
}

func (in *interp) restore(saved map[string]variable) {
	for name, v := range saved {
		if v.hidden {
			delete(in.vars, name)
		} else {
			in.vars[name] = v
		}
	}
}

// temporary makes the assignments before a command and returns what takes
// them back.
func (in *interp) temporary(assigns []*syntax.Assign, export bool) (restore func()) {
	if len(assigns) == 0 {
		return func() {}
	}
	saved := map[string]variable{}
	restore = func() { in.restore(saved) }
	for _, a := range assigns {
		name := a.Name.Value
		if _, ok := saved[name]; !ok {
			saved[name] = in.save(name)
		}
		func() {
			defer func() {
				if e := recover(); e != nil {
					restore()
					panic(e)
				}
			}()
			in.assign(a)
		}()
		if export {
			v := in.vars[name]
			v.export = true
			in.vars[name] = v
		}
	}
	return restore
}

// assign makes one assignment.
func (in *interp) assign(a *syntax.Assign) {
	name := a.Name.Value
	if a.Array != nil {
		in.assignArray(name, a)
		return
	}
	value := ""
	if a.Value != nil {
		value = in.assigned(a.Value)
	}
	if a.Index != nil {
		in.assignElement(name, a, value)
		return
	}
	if a.Append {
		value = in.vars[name].first() + value
	}
	in.setVar(name, value)
}

// first returns the value that a plain $name has.
func (v variable) first() string {
	switch {
	case v.list != nil:
		return v.list.items[0]
	case v.dict != nil:
		return v.dict["0"]
	}
	return v.value
}

func (v variable) isSet() bool {
	switch {
	case v.list != nil:
		_, ok := v.list.items[0]
		return ok
	case v.dict != nil:
		_, ok := v.dict["0"]
		return ok
	}
	return v.set
}

// lookup returns a parameter's value: a variable, a positional or a special
// parameter; not "@" and "*".
func (in *interp) lookup(name string) (string, bool) {
	if c := name[0]; isDigit(c) {
		n, err := strconv.Atoi(name)
		if n == 0 && err == nil {
			return in.name, true
		}
		if err != nil || n >= len(in.params) {
			return "", false
		}
		return in.params[n], true
	}
	switch name {
	case "#":
		return strconv.Itoa(max(0, len(in.params)-1)), true
	case "?":
		return strconv.Itoa(in.status), true
	case "$":
		return strconv.Itoa(in.pid), true
	case "!":
		if in.lastJob == 0 {
			return "", false
		}
		return strconv.Itoa(in.lastJob), true
	case "-":
		return in.flagString(), true
	}
	if in.bash {
		if value, ok := in.bashVariable(name); ok {
			return value, true
		}
	}
	v := in.vars[name]
	return v.first(), v.isSet()
}

func (in *interp) flagString() string {
	var b strings.Builder
	for _, o := range optionOrder {
		if in.opts[o.letter] && o.letter != 0 {
			b.WriteByte(o.letter)
		}
	}
	return b.String()
}

// optionOrder lists the options of set in the order of dash's $-.
var optionOrder = []struct {
	letter byte
	name   string
}{
	{'e', "errexit"}, {'f', "noglob"}, {'I', "ignoreeof"}, {'i', "interactive"}, {'m', "monitor"},
	{'n', "noexec"}, {'s', "stdin"}, {'x', "xtrace"}, {'v', "verbose"}, {'V', "vi"}, {'E', "emacs"},
	{'C', "noclobber"}, {'a', "allexport"}, {'b', "notify"}, {'u', "nounset"},
}
