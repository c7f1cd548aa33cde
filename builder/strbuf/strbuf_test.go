package strbuf

import (
	"strings"
	"testing"
)

func TestAdd(t *testing.T) {
	for _, test := range []struct {
		add  []string
		want string // the area, "|" for NUL
		at   []int
	}{
		{[]string{""}, "|", []int{0}},
		{[]string{"abc", "abc"}, "|abc|", []int{1, 1}},
		{[]string{"abc", "bc", "c"}, "|abc|", []int{1, 2, 3}},
		// The shorter string came first, so nothing is shared.
		{[]string{"c", "abc"}, "|c|abc|", []int{1, 3}},
		// "xbc" hides "abc" from nothing: "bc" is found on the way to it.
		{[]string{"abc", "xbc", "bc"}, "|abc|xbc|", []int{1, 5, 2}},
		// "ybc" is a tail of "zybc", but not on the way through the index.
		{[]string{"abc", "c", "zybc", "ybc"}, "|abc|zybc|", []int{1, 3, 5, 6}},
	} {
		b := New()
		for i, s := range test.add {
			if at := b.Add(s); at != test.at[i] {
				t.Errorf("%v: %q at %d, want %d", test.add, s, at, test.at[i])
			}
		}
		if got := strings.ReplaceAll(string(b.Bytes()), "\x00", "|"); got != test.want {
			t.Errorf("%v: %s, want %s", test.add, got, test.want)
		}
	}
}

func FuzzAdd(f *testing.F) {
	f.Add("abc bc c abc")
	f.Fuzz(func(t *testing.T, text string) {
		b := New()
		for s := range strings.FieldsSeq(strings.ReplaceAll(text, "\x00", " ")) {
			at := b.Add(s)
			if got := string(b.Bytes()[at : at+len(s)+1]); got != s+"\x00" {
				t.Fatalf("%q at %d reads %q", s, at, got)
			}
		}
	})
}
