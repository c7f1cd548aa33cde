package tree

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"strings"
)

// Mark begins a transaction and returns where it began. Transactions nest;
// each ends with exactly one Commit or Rollback of its mark, innermost first.
func (t *Tree) Mark() int {
	t.marks++
	return len(t.undo)
}

// Commit keeps everything changed since the mark.
func (t *Tree) Commit(int) {
	if t.marks--; t.marks == 0 {
		t.undo = nil
	}
}

// Rollback takes back everything changed since the mark.
func (t *Tree) Rollback(mark int) {
	for i := len(t.undo) - 1; i >= mark; i-- {
		t.undo[i]()
	}
	t.undo = t.undo[:mark]
	t.Commit(mark)
}

func (t *Tree) record(f func()) {
	if t.marks > 0 {
		t.undo = append(t.undo, f)
	}
}

// set puts n (nil: nothing) under name into dir and keeps link counts.
func (t *Tree) set(dir *Inode, name string, n *Inode) {
	old := dir.children[name]
	put := func(n, old *Inode) {
		if n == nil {
			delete(dir.children, name)
		} else {
			dir.children[name] = n
			n.links++
		}
		if old != nil {
			old.links--
		}
	}
	put(n, old)
	t.record(func() { put(old, n) })
}

// edit changes an inode's fields. Children are not a field in this sense.
func (t *Tree) edit(n *Inode, change func(*Inode)) {
	old := *n
	change(n)
	t.record(func() {
		links, children := n.links, n.children
		*n = old
		n.links, n.children = links, children
	})
}

func checkName(op, p string, l lookup) error {
	name := l.name()
	if name == "/" || name == "" || len(name) > 255 || strings.ContainsRune(name, 0) {
		return fail(op, p, ErrInvalid)
	}
	return nil
}

// create resolves p for something new; links in the last component are not
// followed.
func (t *Tree) create(op, p string) (lookup, error) {
	l, err := t.resolve(op, p, false)
	if err != nil {
		return l, err
	}
	if l.node != nil {
		return l, fail(op, p, fs.ErrExist)
	}
	return l, checkName(op, p, l)
}

// Mkdir makes a directory; its parent must exist.
func (t *Tree) Mkdir(p string, perm uint32) error {
	l, err := t.create("mkdir", p)
	if err != nil {
		return err
	}
	t.set(l.dir, l.name(), t.newInode(TypeDir|perm&PermMask))
	return nil
}

func (t *Tree) newInode(mode uint32) *Inode {
	n := &Inode{Mode: mode, ModTime: t.epoch}
	if n.IsDir() {
		n.children = map[string]*Inode{}
	}
	return n
}

// MkdirAll makes a directory and those above it that are missing.
func (t *Tree) MkdirAll(p string, perm uint32) error {
	if n, err := t.Stat(p); err == nil {
		if !n.IsDir() {
			return fail("mkdir", p, ErrNotDir)
		}
		return nil
	}
	p = strings.TrimRight(p, "/")
	if up := path.Dir(p); up != p {
		if err := t.MkdirAll(up, perm); err != nil {
			return err
		}
	}
	err := t.Mkdir(p, perm)
	if errors.Is(err, fs.ErrExist) { // a dangling link
		real, rerr := t.RealPath(p)
		if rerr != nil || real == Clean(p) {
			return err
		}
		return t.MkdirAll(real, perm)
	}
	return err
}

// WriteFile writes a regular file as open(O_CREAT|O_TRUNC) would: links are
// followed, an existing file keeps its owner and mode, a new one gets perm.
func (t *Tree) WriteFile(p string, data []byte, perm uint32) error {
	return t.WriteContent(p, Bytes(data), perm)
}

// WriteContent is WriteFile for content that is read later.
func (t *Tree) WriteContent(p string, c Content, perm uint32) error {
	l, err := t.resolve("open", p, true)
	if err != nil {
		return err
	}
	if l.node == nil {
		if err := checkName("open", p, l); err != nil {
			return err
		}
		n := t.newInode(TypeRegular | perm&PermMask)
		n.Content = c
		t.set(l.dir, l.name(), n)
		return nil
	}
	switch {
	case l.node.IsDir():
		return fail("open", p, ErrIsDir)
	case !l.node.IsRegular():
		return fail("open", p, ErrInvalid)
	}
	t.edit(l.node, func(n *Inode) { n.Content, n.ModTime = c, t.epoch })
	return nil
}

// SetContent replaces the content of a regular file, wherever it is linked, as
// write(2) on an open descriptor does.
func (t *Tree) SetContent(n *Inode, c Content) {
	t.edit(n, func(n *Inode) { n.Content, n.ModTime = c, t.epoch })
}

// Put places an inode at exactly p, as rename(2) over it would: what was
// there is replaced unless it is a directory, parents must exist, links in
// parents are followed. A directory put over a directory only passes on its
// owner, mode, time and attributes. The tree keeps n; use the same n twice to
// make a hard link.
func (t *Tree) Put(p string, n *Inode) error {
	l, err := t.resolve("put", p, false)
	if err != nil {
		return err
	}
	if l.node != nil && l.node.IsDir() {
		if !n.IsDir() {
			return fail("put", p, ErrIsDir)
		}
		t.edit(l.node, func(d *Inode) {
			d.Mode, d.UID, d.GID, d.ModTime, d.Xattrs = n.Mode, n.UID, n.GID, n.ModTime, n.Xattrs
		})
		return nil
	}
	if err := checkName("put", p, l); err != nil {
		return err
	}
	if n.IsDir() && n.children == nil {
		n.children = map[string]*Inode{}
	}
	t.set(l.dir, l.name(), n)
	return nil
}

// Symlink makes a symbolic link at p.
func (t *Tree) Symlink(target, p string) error {
	l, err := t.create("symlink", p)
	if err != nil {
		return err
	}
	n := t.newInode(TypeSymlink | 0o777)
	n.Target = target
	t.set(l.dir, l.name(), n)
	return nil
}

// Link makes a hard link at p to what old names; like link(2) it does not
// follow a link in old's last component.
func (t *Tree) Link(old, p string) error {
	from, err := t.find("link", old, false)
	if err != nil {
		return err
	}
	if from.node.IsDir() {
		return fail("link", old, ErrIsDir)
	}
	l, err := t.create("link", p)
	if err != nil {
		return err
	}
	t.set(l.dir, l.name(), from.node)
	return nil
}

// Mknod makes a device, fifo or socket; mode holds type and permissions.
func (t *Tree) Mknod(p string, mode, major, minor uint32) error {
	l, err := t.create("mknod", p)
	if err != nil {
		return err
	}
	n := t.newInode(mode)
	n.Major, n.Minor = major, minor
	t.set(l.dir, l.name(), n)
	return nil
}

// Remove removes a file, a link or an empty directory.
func (t *Tree) Remove(p string) error {
	l, err := t.find("remove", p, false)
	if err != nil {
		return err
	}
	if len(l.node.children) > 0 {
		return fail("remove", p, ErrNotEmpty)
	}
	if l.node == t.root {
		return fail("remove", p, ErrInvalid)
	}
	t.set(l.dir, l.name(), nil)
	return nil
}

// RemoveAll removes p and everything below it; a missing p is no error.
func (t *Tree) RemoveAll(p string) error {
	l, err := t.resolve("remove", p, false)
	if errors.Is(err, fs.ErrNotExist) || err == nil && l.node == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if l.node == t.root {
		return fail("remove", p, ErrInvalid)
	}
	t.empty(l.node)
	t.set(l.dir, l.name(), nil)
	return nil
}

// empty drops what lies below n, so that the link counts of files that are
// linked from elsewhere stay right.
func (t *Tree) empty(n *Inode) {
	for name, c := range n.children {
		t.empty(c)
		t.set(n, name, nil)
	}
}

// Rename moves old to p as rename(2) does: it replaces a file by a file and
// an empty directory by a directory.
func (t *Tree) Rename(old, p string) error {
	from, err := t.find("rename", old, false)
	if err != nil {
		return err
	}
	to, err := t.resolve("rename", p, false)
	if err != nil {
		return err
	}
	if err := checkName("rename", p, to); err != nil {
		return err
	}
	if from.node == t.root || strings.HasPrefix(to.path+"/", from.path+"/") && from.node.IsDir() && to.path != from.path {
		return fail("rename", p, ErrInvalid)
	}
	if to.node != nil {
		switch {
		case to.node == from.node:
			return nil
		case from.node.IsDir() && !to.node.IsDir():
			return fail("rename", p, ErrNotDir)
		case !from.node.IsDir() && to.node.IsDir():
			return fail("rename", p, ErrIsDir)
		case len(to.node.children) > 0:
			return fail("rename", p, ErrNotEmpty)
		}
	}
	t.set(to.dir, to.name(), from.node)
	t.set(from.dir, from.name(), nil)
	return nil
}

func (t *Tree) change(op, p string, follow bool, f func(*Inode)) error {
	l, err := t.find(op, p, follow)
	if err != nil {
		return err
	}
	t.edit(l.node, f)
	return nil
}

// Chmod sets the permission bits of what p leads to.
func (t *Tree) Chmod(p string, perm uint32) error {
	return t.change("chmod", p, true, func(n *Inode) { n.Mode = n.Type() | perm&PermMask })
}

// Chown sets the owner of what p leads to.
func (t *Tree) Chown(p string, uid, gid uint32) error {
	return t.change("chown", p, true, func(n *Inode) { n.UID, n.GID = uid, gid })
}

// Lchown is Chown for a link itself.
func (t *Tree) Lchown(p string, uid, gid uint32) error {
	return t.change("lchown", p, false, func(n *Inode) { n.UID, n.GID = uid, gid })
}

// SetModTime sets the modification time, in seconds since 1970, of the entry
// at p, links not followed.
func (t *Tree) SetModTime(p string, sec int64) error {
	return t.change("utime", p, false, func(n *Inode) { n.ModTime = sec })
}

// SetXattr sets an extended attribute ("security.capability") of what p leads
// to; an empty value removes it.
func (t *Tree) SetXattr(p, name, value string) error {
	return t.change("setxattr", p, true, func(n *Inode) {
		n.Xattrs = maps.Clone(n.Xattrs)
		if value == "" {
			delete(n.Xattrs, name)
			return
		}
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		n.Xattrs[name] = value
	})
}
