package coreutils

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/benhoyt/goawk/parser"
)

// What awk may take in, and what one program may consist of. Together with
// boundedAwk they bound its memory to some hundred megabytes.
const (
	maxAwkProgram  = 4 << 10
	maxAwkOperands = 64      // of the concatenations, of one printf
	maxAwkSetting  = 64      // bytes in OFS, CONVFMT and their like
	maxAwkInput    = 1 << 20 // where the program makes text or fills arrays
)

// awkSettings are the variables that GoAWK puts between or around other text.
var awkSettings = []string{"CONVFMT", "OFMT", "OFS", "ORS", "SUBSEP"}

// awkBounds is what can be told of a program before it runs.
type awkBounds struct {
	makes  bool // text longer than what it is made of
	fills  bool // arrays
	keeps  bool // text in variables, fields or arguments
	reads  bool // elements of arrays, which come to exist by that
	loops  bool // other than once over the elements of an array
	grows  bool // fills arrays while it goes over the elements of one
	joined int  // operands of all concatenations

	visits int64 // until this address it goes over the elements of an array
}

// boundedAwk tells whether a program might take any amount of memory, for
// GoAWK itself has no limit: a text that grows by what it was before doubles
// with each turn. Such a program must not keep the texts that it makes, nor
// fill arrays in a loop. It returns whether the program needs bounded input.
func boundedAwk(prog *parser.Program, size int) (small bool, err error) {
	var code bytes.Buffer
	if err := prog.Disassemble(&code); err != nil {
		return false, err
	}
	var b awkBounds
	var before []string // the operations so far, without what only moves values
	for line := range strings.Lines(code.String()) {
		address, op, _ := strings.Cut(strings.TrimSpace(line), " ")
		if op = strings.TrimSpace(op); op == "" {
			continue
		}
		if address == "//" { // another action begins
			b.visits = 0
			continue
		}
		if err := b.operation(address, op, before); err != nil {
			return false, err
		}
		if op != "Rote" && op != "Dupe" {
			before = append(before, op)
		}
	}
	switch {
	case size > maxAwkProgram:
		return false, fmt.Errorf("a program of %d bytes", size)
	case b.joined > maxAwkOperands:
		return false, fmt.Errorf("%d operands of concatenations", b.joined)
	case b.makes && b.keeps:
		return false, fmt.Errorf("a program that keeps text that it has made")
	case b.grows || (b.fills || b.reads) && b.loops:
		return false, fmt.Errorf("a program that fills arrays in a loop")
	}
	return b.makes || b.fills || b.reads, nil
}

func (b *awkBounds) operation(address, op string, before []string) error {
	name, rest, _ := strings.Cut(op, " ")
	at, err := strconv.ParseInt(address, 16, 64)
	if err != nil {
		return err
	}
	last := func(n int) string {
		if n > len(before) {
			return ""
		}
		return before[len(before)-n]
	}
	// constant: the value is that, and not the last branch of a conditional.
	constant := func(n int) bool {
		op := last(n)
		return (strings.HasPrefix(op, "Str ") || strings.HasPrefix(op, "Num ")) && !strings.HasPrefix(last(n+1), "Jump")
	}
	// shrinks: what is put in place of a pattern's match is not longer than it.
	shrinks := func(pattern, replacement int) bool {
		with, ok := pushed(last(replacement))
		match, ok2 := pushed(last(pattern))
		return ok && ok2 && constant(replacement) && constant(pattern) &&
			(with == "" || len(with) <= len(match) && !strings.ContainsAny(with, `&\`) && !strings.ContainsAny(match, `\.[]{}()*+?^$|`))
	}
	switch {
	case name == "Concat":
		b.makes = true
		b.joined++
	case name == "ConcatMulti", name == "IndexMulti", name == "CallSprintf", name == "Printf":
		count, _, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(count)
		if err != nil || n > maxAwkOperands {
			return fmt.Errorf("%s of %s operands", name, count)
		}
		if name != "Printf" {
			b.makes = true
			b.joined += n
		}
	case name == "CallBuiltin" && (rest == "BuiltinTolower" || rest == "BuiltinToupper"):
		b.makes = true // copies
	case name == "CallBuiltin" && (rest == "BuiltinSub" || rest == "BuiltinGsub"):
		// Their operands are the pattern, the replacement and the text, but the
		// text comes first if it is a field or an element.
		if !shrinks(2, 1) && !shrinks(3, 2) {
			b.makes, b.keeps = true, true
		}
	case name == "AssignField":
		// A result of sub or gsub was judged there.
		if !strings.HasPrefix(last(1), "CallBuiltin Builtin") && !(constant(1) && constant(2)) || b.loops {
			b.makes, b.keeps = true, true
		}
	case name == "AugAssignField", name == "IncrField":
		b.makes, b.keeps = true, true
	case name == "AssignSpecial" && slices.Contains(awkSettings, rest):
		if !constant(1) || len(last(1)) > maxAwkSetting {
			return fmt.Errorf("an assignment to %s", rest)
		}
	case strings.Contains(name, "Array") && (strings.HasPrefix(name, "Assign") || strings.HasPrefix(name, "AugAssign") || strings.HasPrefix(name, "Incr")),
		name == "GetlineArray", name == "CallSplit", name == "CallSplitSep":
		b.fills, b.keeps = true, true
		b.grows = b.grows || at < b.visits
	case name == "ArrayGlobal", name == "ArrayLocal":
		b.reads = true
	case name == "AssignGlobal", name == "AssignLocal":
		b.keeps = true
	case name == "CallUser", name == "CallNative":
		b.keeps, b.loops = true, true
	case name == "ForIn", strings.HasPrefix(name, "Jump"):
		to, err := strconv.ParseInt(op[strings.LastIndex(op, " ")+1:], 0, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		b.loops = b.loops || to <= at
		if name == "ForIn" {
			b.loops = b.loops || at < b.visits
			b.visits = max(b.visits, to)
		}
	}
	return nil
}

// pushed returns the text of an operation that pushes one.
func pushed(op string) (string, bool) {
	quoted, err := strconv.QuotedPrefix(strings.TrimPrefix(op, "Str "))
	if err != nil || !strings.HasPrefix(op, "Str ") {
		return "", false
	}
	text, err := strconv.Unquote(quoted)
	return text, err == nil
}
