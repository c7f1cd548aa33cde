// Package version compares Debian package versions as dpkg does.
//
// Source: deb-version(7) and Debian Policy 5.6.12.
package version

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Version is a parsed version: [epoch:]upstream[-revision].
type Version struct {
	Epoch    int
	Upstream string
	Revision string
}

// Parse splits a version and checks its characters.
func Parse(s string) (Version, error) {
	v := split(s)
	fail := func(format string, args ...any) (Version, error) {
		return Version{}, fmt.Errorf("version %q: %s", s, fmt.Sprintf(format, args...))
	}
	if epoch, _, ok := strings.Cut(s, ":"); ok {
		n, err := strconv.ParseInt(epoch, 10, 32)
		if err != nil || n < 0 || epoch[0] == '+' {
			return fail("epoch %q is not a number", epoch)
		}
	}
	switch {
	case v.Upstream == "":
		return fail("it is empty")
	case !digit(v.Upstream[0]):
		return fail("it does not start with a digit")
	case strings.HasSuffix(s, "-"):
		return fail("the revision is empty")
	}
	for i := range len(v.Upstream) {
		if c := v.Upstream[i]; !alnum(c) && !strings.ContainsRune(".+-~:", rune(c)) {
			return fail("invalid character %q", c)
		}
	}
	for i := range len(v.Revision) {
		if c := v.Revision[i]; !alnum(c) && !strings.ContainsRune(".+~", rune(c)) {
			return fail("invalid character %q in the revision", c)
		}
	}
	return v, nil
}

// String returns the version as it is written.
func (v Version) String() string {
	s := v.Upstream
	if v.Epoch != 0 {
		s = strconv.Itoa(v.Epoch) + ":" + s
	}
	if v.Revision != "" {
		s += "-" + v.Revision
	}
	return s
}

// split never fails: an index may hold odd versions, and comparing them must
// still give a total order.
func split(s string) Version {
	var v Version
	if epoch, rest, ok := strings.Cut(s, ":"); ok {
		if n, err := strconv.ParseUint(epoch, 10, 31); err == nil {
			v.Epoch, s = int(n), rest
		}
	}
	v.Upstream = s
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		v.Upstream, v.Revision = s[:i], s[i+1:]
	}
	return v
}

// Compare returns a negative number if a is earlier than b, 0 if they are
// equal, a positive number if a is later.
func Compare(a, b string) int {
	if a == b {
		return 0
	}
	va, vb := split(a), split(b)
	if c := cmp.Compare(va.Epoch, vb.Epoch); c != 0 {
		return c
	}
	if c := compare(va.Upstream, vb.Upstream); c != 0 {
		return c
	}
	return compare(va.Revision, vb.Revision)
}

// compare takes turns: a run of anything but digits by the order of weight,
// then a run of digits by value.
func compare(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !digit(a[0]) || b != "" && !digit(b[0]) {
			if c := weight(a) - weight(b); c != 0 {
				return c
			}
			a, b = a[1:], b[1:]
		}
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		na, nb := digits(a), digits(b)
		if na != nb {
			return na - nb
		}
		if c := strings.Compare(a[:na], b[:nb]); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return 0
}

// weight orders what a string starts with: "~" before the end (or a digit),
// the end before letters, letters before everything else.
func weight(s string) int {
	switch {
	case s == "" || digit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case alnum(s[0]):
		return int(s[0])
	}
	return int(s[0]) + 256
}

func digits(s string) int {
	n := 0
	for n < len(s) && digit(s[n]) {
		n++
	}
	return n
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func alnum(c byte) bool {
	return digit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// Satisfies reports whether version v stands in relation op (<<, <=, =, >=,
// >>; the obsolete < and > mean <= and >=) to want. An unknown op is never
// satisfied.
func Satisfies(v, op, want string) bool {
	c := Compare(v, want)
	switch op {
	case "<<":
		return c < 0
	case "<=", "<":
		return c <= 0
	case "=":
		return c == 0
	case ">=", ">":
		return c >= 0
	case ">>":
		return c > 0
	}
	return false
}
