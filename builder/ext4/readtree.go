package ext4

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/picube/picube-build/builder/tree"
)

// Bounds on what Tree takes into memory from an image that may be hostile.
const (
	maxEntries = 8 << 20
	maxPath    = 16 << 10
	maxXattrs  = 256 << 20 // bytes of all files together
)

// Tree returns everything in the file system. File content is read from the
// image when it is asked for, holes included (tree.Sparse). An empty
// /lost+found is left out: every writer makes its own.
func (fs *FS) Tree(ctx context.Context) (*tree.Tree, error) {
	t := tree.New(int64(fs.sb.MkfsTime))
	table := &inodes{fs: fs}
	known := map[uint32]*tree.Inode{}
	type dir struct {
		path  string
		inode *inode
	}
	root, err := table.get(inoRoot)
	if err == nil && root.mode&tree.TypeMask != tree.TypeDir {
		err = damaged("not a directory")
	}
	if err != nil {
		return nil, fmt.Errorf("/: %w", err)
	}
	n, err := fs.treeInode(root)
	if err == nil {
		err = t.Put("/", n)
	}
	if err != nil {
		return nil, fmt.Errorf("/: %w", err)
	}
	known[inoRoot] = n
	// Each block of a directory belongs to one, so all directories together
	// are no larger than the file system.
	count, blocks, attributes := 0, uint64(0), 0
	claim := func(uint64) error {
		if blocks++; blocks > fs.blocks {
			return damaged("directories are larger than the file system")
		}
		return nil
	}
	for todo := []dir{{"", root}}; len(todo) > 0; {
		d := todo[0]
		todo = todo[1:]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		blocks += uint64(d.inode.size) >> fs.shift
		entries, err := fs.readDir(d.inode, claim)
		if err == nil && blocks > fs.blocks {
			err = claim(0)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cmp.Or(d.path, "/"), err)
		}
		for _, e := range entries {
			if e.name == "." || e.name == ".." {
				continue
			}
			p := d.path + "/" + e.name
			if count++; count > maxEntries {
				return nil, fmt.Errorf("cannot read more than %d entries", maxEntries)
			}
			if len(p) > maxPath {
				return nil, fmt.Errorf("%.100s…: %w", p, damaged("path of more than %d bytes", maxPath))
			}
			n := known[e.ino]
			if n != nil && n.IsDir() {
				return nil, fmt.Errorf("%s: %w", p, damaged("a directory with two names"))
			}
			if n == nil {
				in, err := table.get(e.ino)
				if err == nil {
					n, err = fs.treeInode(in)
				}
				if err != nil {
					return nil, fmt.Errorf("%s: %w", p, err)
				}
				for name, value := range n.Xattrs {
					attributes += len(name) + len(value)
				}
				if attributes > maxXattrs {
					return nil, fmt.Errorf("cannot read more than %d bytes of extended attributes", maxXattrs)
				}
				known[e.ino] = n
				if n.IsDir() {
					todo = append(todo, dir{p, in})
				}
			}
			if _, err := t.Lstat(p); err == nil {
				return nil, fmt.Errorf("%s: %w", p, damaged("the name is there twice"))
			}
			if err := t.Put(p, n); err != nil {
				return nil, err
			}
		}
	}
	if names, err := t.ReadDir("/" + lostAndName); err == nil && len(names) == 0 {
		return t, t.Remove("/" + lostAndName)
	}
	return t, nil
}

// treeInode turns an inode into the tree's kind.
func (fs *FS) treeInode(in *inode) (*tree.Inode, error) {
	switch {
	case in.flags&flagEncrypt != 0:
		return nil, errors.New("cannot read it: it is encrypted")
	case in.flags&flagVerity != 0:
		return nil, errors.New("cannot keep it as it is: it is protected by fs-verity")
	case in.flags&flagFold != 0:
		return nil, errors.New("cannot keep it as it is: the directory does not tell upper from lower case (casefold)")
	case in.flags&flagEAInode != 0:
		return nil, damaged("an attribute's inode with a name")
	}
	n := &tree.Inode{Mode: in.mode, UID: in.uid, GID: in.gid, ModTime: in.mtime}
	var err error
	if n.Xattrs, err = fs.xattrs(in); err != nil {
		return nil, err
	}
	switch n.Type() {
	case tree.TypeDir, tree.TypeFifo, tree.TypeSocket:
		return n, nil
	case tree.TypeRegular:
		if in.flags&flagInline != 0 {
			data, err := fs.inlineFile(in)
			n.Content = tree.Bytes(data)
			return n, err
		}
		n.Content = fs.content(in)
		return n, nil
	case tree.TypeSymlink:
		n.Target, err = fs.readLink(in)
		return n, err
	case tree.TypeChar, tree.TypeBlock:
		n.Major, n.Minor = getDevice(in.block[:])
		return n, nil
	}
	return nil, damaged("mode %#o", in.mode)
}

// fastLink says whether a symbolic link's target lies in the inode, which
// shows in the blocks that it has besides attributes.
func (fs *FS) fastLink(in *inode) bool {
	if in.flags&(flagExtents|flagInline) != 0 {
		return false
	}
	if fs.sb.Incompat&incompatEAInode != 0 { // whose blocks count too
		return in.size < fastLinkLen
	}
	sectors := in.sectors
	if in.xattrAt != 0 {
		unit := uint64(fs.blockSize())
		if fs.bigalloc() {
			unit = 1024 << fs.sb.LogClusterSize
		}
		sectors -= min(sectors, unit/512)
	}
	return sectors == 0
}

// readLink returns a symbolic link's target.
func (fs *FS) readLink(in *inode) (string, error) {
	if in.size == 0 || in.size > int64(fs.blockSize()) {
		return "", damaged("link of %d bytes", in.size)
	}
	var target []byte
	switch {
	case in.flags&flagInline != 0:
		var err error
		if target, err = fs.inlineFile(in); err != nil {
			return "", err
		}
	case fs.fastLink(in):
		if in.size >= fastLinkLen {
			return "", damaged("link of %d bytes in the inode", in.size)
		}
		target = in.block[:in.size]
	default:
		target = make([]byte, in.size)
		if _, err := fs.content(in).ReadAt(target, 0); err != nil {
			return "", err
		}
	}
	if strings.ContainsRune(string(target), 0) {
		return "", damaged("link to a path with a zero byte")
	}
	return string(target), nil
}

// content is a regular file of the image.
type content struct {
	fs   *FS
	size int64
	load func() (*mapping, error)
}

func (fs *FS) content(in *inode) *content {
	return &content{fs, in.size, sync.OnceValues(func() (*mapping, error) { return fs.mapping(in, nil) })}
}

// Size returns the length in bytes.
func (c *content) Size() int64 { return c.size }

// Data returns the ranges that hold data. If the map of blocks can't be read,
// that is everything, so that reading meets the error.
func (c *content) Data() []tree.Range {
	m, err := c.load()
	if err != nil {
		return []tree.Range{{Offset: 0, Length: c.size}}
	}
	var out []tree.Range
	for _, x := range m.data {
		if x.unwritten || x.logical >= uint64(c.size+int64(c.fs.blockSize())-1)>>c.fs.shift {
			continue
		}
		off := int64(x.logical) << c.fs.shift
		length := min(int64(x.len)<<c.fs.shift, c.size-off)
		if k := len(out) - 1; k >= 0 && out[k].Offset+out[k].Length == off {
			out[k].Length += length
			continue
		}
		out = append(out, tree.Range{Offset: off, Length: length})
	}
	return out
}

// ReadAt reads from the image.
func (c *content) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("cannot read at a negative offset")
	}
	if off >= c.size {
		return 0, io.EOF
	}
	m, err := c.load()
	if err != nil {
		return 0, err
	}
	var eof error
	if int64(len(b)) > c.size-off {
		b, eof = b[:c.size-off], io.EOF
	}
	i, _ := slices.BinarySearchFunc(m.data, uint64(off)>>c.fs.shift, func(x mapped, at uint64) int {
		return cmp.Compare(x.logical+x.len-1, at)
	})
	done := 0
	for done < len(b) {
		at := off + int64(done)
		rest := b[done:]
		if i == len(m.data) {
			clear(rest)
			done = len(b)
			break
		}
		x := m.data[i]
		start, end := int64(x.logical)<<c.fs.shift, int64(x.logical+x.len)<<c.fs.shift
		switch {
		case at < start:
			n := min(int64(len(rest)), start-at)
			clear(rest[:n])
			done += int(n)
			continue
		case at >= end:
			i++
			continue
		}
		rest = rest[:min(int64(len(rest)), end-at)]
		if x.unwritten {
			clear(rest)
		} else if err := c.fs.readBytes(rest, int64(x.start)<<c.fs.shift+at-start); err != nil {
			return done, err
		}
		done += len(rest)
	}
	return done, eof
}

// readBytes reads within blocks that are known to be in the file system.
func (fs *FS) readBytes(b []byte, off int64) error {
	if len(fs.replay) == 0 {
		return readFull(fs.r, b, off)
	}
	for len(b) > 0 {
		in := off & int64(fs.blockSize()-1)
		block, err := fs.block(uint64(off) >> fs.shift)
		if err != nil {
			return err
		}
		n := copy(b, block[in:])
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// readDir returns a directory's entries in the order in which they lie there.
func (fs *FS) readDir(in *inode, claim func(uint64) error) ([]dirent, error) {
	if in.flags&flagInline != 0 {
		return fs.inlineDir(in)
	}
	var out []dirent
	err := fs.dirBlocks(in, claim, func(_ uint64, b []byte) error {
		entries, err := fs.parseDirBlock(in, b)
		out = append(out, entries...)
		return err
	})
	return out, err
}

// dirBlocks calls f with each block of a directory.
func (fs *FS) dirBlocks(in *inode, claim func(uint64) error, f func(logical uint64, b []byte) error) error {
	if in.size == 0 || in.size&int64(fs.blockSize()-1) != 0 || uint64(in.size)>>fs.shift > fs.blocks {
		return damaged("directory of %d bytes", in.size)
	}
	m, err := fs.mapping(in, claim)
	if err != nil {
		return err
	}
	next := uint64(0)
	for _, x := range m.data {
		if x.logical != next || x.unwritten {
			break
		}
		for i := range x.len {
			if next = x.logical + i; next == uint64(in.size)>>fs.shift {
				return nil
			}
			b, err := fs.block(x.start + i)
			if err == nil {
				err = f(next, b)
			}
			if err != nil {
				return fmt.Errorf("directory block %d: %w", next, err)
			}
		}
		next = x.logical + x.len
	}
	if next < uint64(in.size)>>fs.shift {
		return damaged("directory without block %d", next)
	}
	return nil
}

// parseDirBlock returns the entries of one block and verifies its checksum.
// An index block looks like one with a single empty entry, or with "." and
// "..".
func (fs *FS) parseDirBlock(in *inode, b []byte) ([]dirent, error) {
	out, tail, index, err := fs.parseDirents(b)
	if err != nil || !fs.checksums() {
		return out, err
	}
	if tail >= 0 {
		if binary.LittleEndian.Uint32(b[tail+8:]) != crc32c(in.seed, b[:tail]) {
			return nil, damaged("wrong checksum")
		}
		return out, nil
	}
	if !index || in.flags&flagIndex == 0 {
		return nil, damaged("no checksum")
	}
	if _, err := fs.parseIndex(in, b); err != nil {
		return nil, err
	}
	return out, nil
}

// parseDirents returns the entries in b, where the one with the checksum is
// (-1: nowhere), and whether b looks like an index block.
func (fs *FS) parseDirents(b []byte) (out []dirent, tail int, index bool, err error) {
	le := binary.LittleEndian
	tail = -1
	for at := 0; at < len(b); {
		if at+8 > len(b) {
			return nil, 0, false, damaged("entry at byte %d does not fit", at)
		}
		e := dirent{ino: le.Uint32(b[at:]), kind: b[at+7]} // without file types it is a zero, of the length
		recLen, nameLen := int(le.Uint16(b[at+4:])), int(b[at+6])
		if recLen == 0xffff || recLen == 0 && len(b) == 1<<16 { // 64 KiB blocks
			recLen = len(b)
		}
		if recLen < 8 || recLen%4 != 0 || recLen > len(b)-at || 8+nameLen > recLen {
			return nil, 0, false, damaged("entry of %d bytes at byte %d", recLen, at)
		}
		index = index || at+recLen == len(b) && (at == 0 || at == 12) && recLen > dirTailLen
		if e.ino == 0 && nameLen == 0 && recLen == dirTailLen && at+recLen == len(b) && e.kind == dirTailKind {
			tail = at
		}
		if e.ino != 0 {
			e.name = string(b[at+8 : at+8+nameLen])
			if e.name == "" || strings.ContainsAny(e.name, "/\x00") {
				return nil, 0, false, damaged("entry named %q", e.name)
			}
			out = append(out, e)
		}
		at += recLen
	}
	return out, tail, index, nil
}

// indexEntry points from an index to the block that holds hashes from hash
// on.
type indexEntry struct{ hash, block uint32 }

// parseIndex returns the entries of a directory's index root or inner node
// and verifies its checksum.
func (fs *FS) parseIndex(in *inode, b []byte) ([]indexEntry, error) {
	le := binary.LittleEndian
	at := indexNodeAt
	if int(le.Uint16(b[4:])) == 12 { // "." of the root
		if at = 24 + int(b[24+5]); b[24+5] != 8 {
			return nil, damaged("index root of %d bytes", b[24+5])
		}
	}
	limit, count := int(le.Uint16(b[at:])), int(le.Uint16(b[at+2:]))
	if count == 0 || count > limit || at+8*limit > len(b) {
		return nil, damaged("index of %d entries, room for %d", count, limit)
	}
	if fs.checksums() {
		if at+8*limit+8 > len(b) || le.Uint32(b[at+8*limit+4:]) != indexChecksum(b, at, limit, count, in.seed) {
			return nil, damaged("wrong checksum in the index")
		}
	}
	out := make([]indexEntry, count)
	for i := range out {
		out[i] = indexEntry{le.Uint32(b[at+8*i:]), le.Uint32(b[at+8*i+4:])}
	}
	out[0].hash = 0 // what lies there are limit and count
	return out, nil
}

// xattrs returns an inode's extended attributes, nil if it has none.
func (fs *FS) xattrs(in *inode) (map[string]string, error) {
	out, err := fs.inodeXattrs(in)
	if err != nil {
		return nil, err
	}
	if in.flags&flagInline != 0 {
		delete(out, inlineXattr)
	}
	if in.xattrAt != 0 {
		if err := fs.inside(in.xattrAt, 1); err != nil {
			return nil, err
		}
		b, err := fs.block(in.xattrAt)
		if err != nil {
			return nil, err
		}
		switch {
		case binary.LittleEndian.Uint32(b) != xattrMagic || binary.LittleEndian.Uint32(b[8:]) != 1:
			return nil, damaged("attribute block %d", in.xattrAt)
		case fs.checksums() && binary.LittleEndian.Uint32(b[16:]) != xattrBlockChecksum(b, in.xattrAt, fs.seed):
			return nil, damaged("wrong checksum in attribute block %d", in.xattrAt)
		}
		if err := fs.parseXattrs(b[xattrBlockHead:], xattrBlockHead, out); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// inodeXattrs returns the attributes that lie in the inode itself.
func (fs *FS) inodeXattrs(in *inode) (map[string]string, error) {
	out := map[string]string{}
	at := 128 + in.extra()
	if in.extra() == 0 || at+4 > len(in.raw) || binary.LittleEndian.Uint32(in.raw[at:]) != xattrMagic {
		return out, nil
	}
	return out, fs.parseXattrs(in.raw[at+4:], 0, out)
}

// maxXattr is the longest value that Linux lets anybody set (xattr(7)).
const maxXattr = 64 << 10

// xattrInode reads a value that lies in an inode of its own.
func (fs *FS) xattrInode(ino uint32, size int) (string, error) {
	in, err := (&inodes{fs: fs}).get(ino)
	if err != nil {
		return "", fmt.Errorf("inode %d: %w", ino, err)
	}
	if in.flags&flagEAInode == 0 || in.flags&flagInline != 0 || in.size != int64(size) || size > maxXattr {
		return "", damaged("attribute of %d bytes in inode %d", size, ino)
	}
	b := make([]byte, size)
	if _, err := fs.content(in).ReadAt(b, 0); err != nil {
		return "", fmt.Errorf("inode %d: %w", ino, err)
	}
	// The value's checksum stands where others have the time of access.
	if fs.checksums() && binary.LittleEndian.Uint32(in.raw[8:]) != crc32c(fs.seed, b) {
		return "", damaged("wrong checksum of the attribute in inode %d", ino)
	}
	return string(b), nil
}

// parseXattrs reads entries from b; value offsets count from base bytes
// before it.
func (fs *FS) parseXattrs(b []byte, base int, out map[string]string) error {
	le := binary.LittleEndian
	for at := 0; at+4 <= len(b) && le.Uint32(b[at:]) != 0; {
		if at+16 > len(b) {
			return damaged("attribute entry at byte %d", at)
		}
		nameLen, index := int(b[at]), b[at+1]
		off, size := int(le.Uint16(b[at+2:])), int(le.Uint32(b[at+8:]))
		elsewhere := le.Uint32(b[at+4:])
		if at+16+nameLen > len(b) || elsewhere == 0 && (size > len(b) || size > 0 && (off < base || off-base > len(b)-size)) {
			return damaged("attribute entry at byte %d", at)
		}
		name := string(b[at+16 : at+16+nameLen])
		value := ""
		switch {
		case elsewhere != 0:
			var err error
			if value, err = fs.xattrInode(elsewhere, size); err != nil {
				return err
			}
		case size > 0:
			value = string(b[off-base : off-base+size])
		}
		i := slices.IndexFunc(xattrPrefixes, func(p xattrPrefix) bool { return p.index == index })
		if i < 0 {
			return fmt.Errorf("extended attribute %q in name space %d is not supported", name, index)
		}
		if index == 2 || index == 3 {
			var err error
			if value, err = unpackACL(value); err != nil {
				return fmt.Errorf("extended attribute %s: %w", xattrPrefixes[i].prefix, err)
			}
		}
		out[xattrPrefixes[i].prefix+name] = value
		at += 16 + (nameLen+3)&^3
	}
	return nil
}
