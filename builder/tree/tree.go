// Package tree holds what a card will hold: one in-memory file system whose
// entries keep owner, mode, device numbers and extended attributes, and whose
// file content is read only when a writer asks for it.
//
// Paths are absolute slash paths on every host system and are resolved as a
// process chrooted into the tree would resolve them: links never lead out.
//
// Readers may use a tree concurrently; a writer needs it for itself.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

// File types and permission bits as in Linux's st_mode (inode(7)).
const (
	TypeMask    uint32 = 0o170000
	TypeSocket  uint32 = 0o140000
	TypeSymlink uint32 = 0o120000
	TypeRegular uint32 = 0o100000
	TypeBlock   uint32 = 0o060000
	TypeDir     uint32 = 0o040000
	TypeChar    uint32 = 0o020000
	TypeFifo    uint32 = 0o010000
	PermMask    uint32 = 0o007777
)

// MaxFile bounds what ReadFile takes into memory.
const MaxFile = 64 << 20

// Errors that callers tell apart; they come wrapped in *fs.PathError, like
// fs.ErrNotExist and fs.ErrExist.
var (
	ErrNotDir   = errors.New("not a directory")
	ErrIsDir    = errors.New("is a directory")
	ErrNotEmpty = errors.New("directory not empty")
	ErrLoop     = errors.New("too many levels of symbolic links")
	ErrInvalid  = errors.New("invalid argument")
)

// Content is a file's bytes. *bytes.Reader and *io.SectionReader are Contents.
// ReadAt must be safe for concurrent use.
type Content interface {
	io.ReaderAt
	// Size returns the length in bytes.
	Size() int64
}

// Sparse is implemented by contents that know their holes.
type Sparse interface {
	// Data returns the ranges that hold data, ascending, not overlapping.
	// Everything between reads as zeros.
	Data() []Range
}

// Range is a run of bytes in a file.
type Range struct{ Offset, Length int64 }

// Bytes makes a Content of a byte slice, which must not change afterwards.
func Bytes(b []byte) Content { return bytes.NewReader(b) }

// Inode is one file system object. Hard links are several paths that lead to
// the same *Inode. Its fields are for reading; change them through the Tree,
// so that a transaction can take the change back.
type Inode struct {
	Mode         uint32 // type and permission bits
	UID, GID     uint32
	ModTime      int64   // seconds since 1970
	Content      Content // regular files; nil means empty
	Target       string  // symbolic links
	Major, Minor uint32  // devices
	Xattrs       map[string]string

	children map[string]*Inode // directories
	links    int               // paths that lead here, for anything but directories
}

// Type returns the type bits of the mode.
func (n *Inode) Type() uint32 { return n.Mode & TypeMask }

// Perm returns the permission bits of the mode, set-id and sticky included.
func (n *Inode) Perm() uint32 { return n.Mode & PermMask }

// IsDir reports whether n is a directory.
func (n *Inode) IsDir() bool { return n.Type() == TypeDir }

// IsRegular reports whether n is a regular file.
func (n *Inode) IsRegular() bool { return n.Type() == TypeRegular }

// IsSymlink reports whether n is a symbolic link.
func (n *Inode) IsSymlink() bool { return n.Type() == TypeSymlink }

// Size returns the length of a regular file or of a link's target.
func (n *Inode) Size() int64 {
	switch {
	case n.IsSymlink():
		return int64(len(n.Target))
	case n.Content != nil:
		return n.Content.Size()
	}
	return 0
}

// Links returns the number of paths that lead to n; for a directory the
// number that stat(2) tells: its name, its "." and its children's "..".
func (n *Inode) Links() int {
	if !n.IsDir() {
		return n.links
	}
	links := 2
	for _, c := range n.children {
		if c.IsDir() {
			links++
		}
	}
	return links
}

// Children iterates over a directory's entries sorted by name.
func (n *Inode) Children() iter.Seq2[string, *Inode] {
	return func(yield func(string, *Inode) bool) {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			if !yield(name, n.children[name]) {
				return
			}
		}
	}
}

// Tree is a file system in memory.
type Tree struct {
	root  *Inode
	epoch int64
	undo  []func()
	marks int
}

// New returns a tree that holds only the root directory, 0755, owned by root.
// Everything made later carries the modification time epoch (seconds since
// 1970) unless told otherwise: there is no clock here.
func New(epoch int64) *Tree {
	return &Tree{
		root:  &Inode{Mode: TypeDir | 0o755, ModTime: epoch, children: map[string]*Inode{}},
		epoch: epoch,
	}
}

// Epoch returns the time given to New.
func (t *Tree) Epoch() int64 { return t.epoch }

// Clean returns p as an absolute, cleaned slash path; ".." never leads above
// the root.
func Clean(p string) string { return path.Clean("/" + p) }

func fail(op, p string, err error) error { return &fs.PathError{Op: op, Path: p, Err: err} }

const maxLinks = 40 // as Linux: path_resolution(7)

// lookup is the result of resolving a path: the directory that holds the last
// component, the component's real path, and the inode there, nil if missing.
type lookup struct {
	dir  *Inode
	path string
	node *Inode
}

func (l lookup) name() string { return path.Base(l.path) }

// resolve walks p as a chrooted process would; follow says whether a link in
// the last component is followed too. A missing last component is no error.
func (t *Tree) resolve(op, p string, follow bool) (lookup, error) {
	todo := strings.Split(p, "/")
	type step struct {
		node *Inode
		name string
	}
	stack := []step{{node: t.root}}
	real := func(last string) string {
		var b strings.Builder
		for _, s := range stack[1:] {
			b.WriteByte('/')
			b.WriteString(s.name)
		}
		if last != "" {
			b.WriteByte('/')
			b.WriteString(last)
		}
		if b.Len() == 0 {
			return "/"
		}
		return b.String()
	}
	links := 0
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		dir := stack[len(stack)-1].node
		if !dir.IsDir() {
			return lookup{}, fail(op, p, ErrNotDir)
		}
		switch name {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		last := true
		for _, rest := range todo {
			if rest != "" {
				last = false
				break
			}
		}
		trailing := last && len(todo) > 0 // "link/" follows the link
		child := dir.children[name]
		if child == nil {
			if last {
				return lookup{dir: dir, path: real(name)}, nil
			}
			return lookup{}, fail(op, p, fs.ErrNotExist)
		}
		if child.IsSymlink() && (!last || follow || trailing) {
			if links++; links > maxLinks {
				return lookup{}, fail(op, p, ErrLoop)
			}
			if strings.HasPrefix(child.Target, "/") {
				stack = stack[:1]
			}
			todo = append(strings.Split(child.Target, "/"), todo...)
			continue
		}
		if last {
			if trailing && !child.IsDir() {
				return lookup{}, fail(op, p, ErrNotDir)
			}
			return lookup{dir: dir, path: real(name), node: child}, nil
		}
		stack = append(stack, step{child, name})
	}
	top := stack[len(stack)-1]
	up := t.root
	if len(stack) > 1 {
		up = stack[len(stack)-2].node
	}
	return lookup{dir: up, path: real(""), node: top.node}, nil
}

func (t *Tree) find(op, p string, follow bool) (lookup, error) {
	l, err := t.resolve(op, p, follow)
	if err == nil && l.node == nil {
		err = fail(op, p, fs.ErrNotExist)
	}
	return l, err
}

// Lstat returns what lies at p, a link itself rather than what it leads to.
func (t *Tree) Lstat(p string) (*Inode, error) {
	l, err := t.find("lstat", p, false)
	return l.node, err
}

// Stat returns what p leads to.
func (t *Tree) Stat(p string) (*Inode, error) {
	l, err := t.find("stat", p, true)
	return l.node, err
}

// Exists reports whether p leads to something.
func (t *Tree) Exists(p string) bool {
	_, err := t.Stat(p)
	return err == nil
}

// RealPath returns p without links, "." and "..", as realpath(1) does: the
// last component may be missing.
func (t *Tree) RealPath(p string) (string, error) {
	l, err := t.resolve("realpath", p, true)
	return l.path, err
}

// Readlink returns a link's target.
func (t *Tree) Readlink(p string) (string, error) {
	n, err := t.Lstat(p)
	if err != nil {
		return "", err
	}
	if !n.IsSymlink() {
		return "", fail("readlink", p, ErrInvalid)
	}
	return n.Target, nil
}

// ReadFile returns a regular file's content, at most MaxFile bytes.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	n, err := t.Stat(p)
	if err != nil {
		return nil, err
	}
	switch {
	case n.IsDir():
		return nil, fail("read", p, ErrIsDir)
	case !n.IsRegular():
		return nil, fail("read", p, ErrInvalid)
	case n.Size() > MaxFile:
		return nil, fail("read", p, fmt.Errorf("file of %d bytes is larger than %d", n.Size(), int64(MaxFile)))
	case n.Content == nil:
		return nil, nil
	}
	b := make([]byte, n.Size())
	if _, err := io.ReadFull(io.NewSectionReader(n.Content, 0, n.Size()), b); err != nil {
		return nil, fail("read", p, err)
	}
	return b, nil
}

// ReadDir returns the names in a directory, sorted.
func (t *Tree) ReadDir(p string) ([]string, error) {
	n, err := t.Stat(p)
	if err != nil {
		return nil, err
	}
	if !n.IsDir() {
		return nil, fail("readdir", p, ErrNotDir)
	}
	return slices.Sorted(maps.Keys(n.children)), nil
}

// All iterates over every entry, the root "/" first, directories before what
// they hold, names in byte order. The tree must not change meanwhile.
func (t *Tree) All() iter.Seq2[string, *Inode] { return t.Below("/") }

// Below iterates like All over the entry at p (links not followed) and
// everything below it; over nothing if p does not exist.
func (t *Tree) Below(p string) iter.Seq2[string, *Inode] {
	return func(yield func(string, *Inode) bool) {
		l, err := t.find("walk", p, false)
		if err != nil {
			return
		}
		walk(l.path, l.node, yield)
	}
}

func walk(p string, n *Inode, yield func(string, *Inode) bool) bool {
	if !yield(p, n) {
		return false
	}
	if p == "/" {
		p = ""
	}
	for name, c := range n.Children() {
		if !walk(p+"/"+name, c, yield) {
			return false
		}
	}
	return true
}
