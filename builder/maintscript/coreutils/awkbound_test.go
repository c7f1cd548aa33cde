package coreutils

import (
	"testing"

	"github.com/benhoyt/goawk/parser"
)

// TestBoundedAwk holds which programs are run: those of Debian's scripts among
// them, and which might take any amount of memory.
func TestBoundedAwk(t *testing.T) {
	for _, test := range []struct {
		program string
		bounded bool
	}{
		{`{ print $1 }`, true},
		{`/^17 / { print $2 }`, true},
		{`BEGIN{for(v in ENVIRON) print v}`, true},
		{`/^LANG=/ {gsub("\"", ""); sub("LANG=", ""); lang=$0;} END {print lang}`, true},
		{`{ s += $1 } END { print s }`, true},
		{`{ print $1 ":" $2 ":" $3 }`, true},
		{`BEGIN { OFS = ":" } { $2 = "x"; print }`, true},
		{`{ n[$1]++ } END { for (k in n) print k, n[k] }`, true},
		{`{ split($0, a, ","); print a[2] }`, true},
		{`{ gsub("-", "_"); print }`, true},
		{`{ while (i < 3) { i++; print } }`, true},
		{`{ for (i = 1; i <= NF; i++) print $i }`, true},
		{`{ printf "%s-%d\n", $1, $2 }`, true},

		{`{ while (1) s = s s }`, false},
		{`{ s = s $0 }`, false},
		{`{ a[1] = a[1] $0 }`, false},
		{`{ s = sprintf("%s%s", s, s) }`, false},
		{`{ gsub(/a/, "&&") }`, false},
		{`{ gsub("a", "bb") }`, false},
		{`{ gsub("a*", "b") }`, false},
		{`{ gsub("", x) }`, false},
		{`{ gsub("", $1, x) }`, false},
		{`{ gsub(/x/, c ? $0 : "") }`, false},
		{`{ gsub("x", $0, a[1]) }`, false},
		{`{ $1 = $0 }`, false},
		{`{ $(1 + 2) = $0 }`, false},
		{`{ $1 = (c ? $0 : "a") }`, false},
		{`{ for (;;) $(i++) = "x" }`, false},
		{`{ $3 += 1 }`, false},
		{`BEGIN { OFS = $0 }`, false},
		{`BEGIN { CONVFMT = c ? $0 : "%d" }`, false},
		{`BEGIN { while (1) a[i++] = 1 }`, false},
		{`BEGIN { while (1) if (a[i++]) print }`, false},
		{`BEGIN { do n += a[i++]; while (1) }`, false},
		{`{ for (k in a) b[k k2] = 1 }`, false},
		{`{ a[NR] = toupper(x) }`, false},
		{`{ a[$1] } END { for (k in a) for (l in a) for (m in a) b[i++] = 1 }`, false},
		{`END { for (k in a) b[i++] = 1 }`, false},
		{`END { for (k in a) for (l in a) if (b[i++]) print }`, false},
		{`function f(s) { return f(s s) } { f("a") }`, false},
		{`function f(i) { a[i] = 1; f(i + 1) } { f(1) }`, false},
		{`{ while ((getline x) > 0) a[x] = 1 }`, false},
	} {
		prog, err := parser.ParseProgram([]byte(test.program), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := boundedAwk(prog, len(test.program)); (err == nil) != test.bounded {
			t.Errorf("%s: %v", test.program, err)
		}
	}
}
