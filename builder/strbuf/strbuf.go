// Package strbuf stores strings as systemd's databases do (src/basic/strbuf.c):
// one after the other, each ended by NUL; a string that was stored before, or
// that ends one found on the way through the index, is not stored again.
//
// The index decides which tails are found, and with that every offset in the
// file, so it follows systemd's: a trie over the reversed strings in which
// each stored string adds exactly one node.
package strbuf

import (
	"cmp"
	"slices"
)

// Buffer is the string area of a database.
type Buffer struct {
	data []byte
	root node
}

type node struct {
	offset, length int // of the string that made the node
	children       []child
}

type child struct {
	c    byte
	node *node
}

// New returns a buffer that holds the empty string at 0.
func New() *Buffer { return &Buffer{data: []byte{0}} }

// Bytes returns the area; the next Add may change it.
func (b *Buffer) Bytes() []byte { return b.data }

// Add stores s, which must not hold NUL, and returns its offset.
func (b *Buffer) Add(s string) int {
	if s == "" {
		return 0
	}
	n := &b.root
	for depth := 0; ; depth++ {
		if n.length >= len(s) {
			start := n.offset + n.length - len(s)
			if string(b.data[start:start+len(s)]) == s {
				return start
			}
		}
		// A node's string ends with the bytes that led to it, so at depth
		// len(s) it ended with s: depth stays below.
		c := s[len(s)-1-depth]
		i, found := slices.BinarySearchFunc(n.children, c, func(e child, c byte) int { return cmp.Compare(e.c, c) })
		if !found {
			made := &node{offset: len(b.data), length: len(s)}
			n.children = slices.Insert(n.children, i, child{c, made})
			b.data = append(b.data, s...)
			b.data = append(b.data, 0)
			return made.offset
		}
		n = n.children[i].node
	}
}
