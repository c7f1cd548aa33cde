package ext4

import (
	"encoding/binary"

	"github.com/picube/picube-build/builder/tree"
)

// rawInode is what the writer says about an inode; struct ext4_inode on disk.
type rawInode struct {
	mode, uid, gid, links, flags uint32
	size                         int64
	mtime, ctime                 int64
	blocks                       uint64 // of 4096 bytes
	xattrAt                      uint64
	block                        [60]byte
	xattrs                       []xattr
	extra                        int
}

// inodeSeed returns the seed of all checksums that belong to an inode.
func inodeSeed(seed, ino, generation uint32) uint32 {
	b := binary.LittleEndian.AppendUint32(nil, ino)
	return crc32c(seed, binary.LittleEndian.AppendUint32(b, generation))
}

// encode fills b, 256 zero bytes; seed is the inode's.
func (i *rawInode) encode(b []byte, seed uint32) {
	le := binary.LittleEndian
	le.PutUint16(b[0x0:], uint16(i.mode))
	le.PutUint16(b[0x2:], uint16(i.uid))
	le.PutUint32(b[0x4:], uint32(i.size))
	putTime(b[0x8:], b[0x8c:], i.mtime, i.extra)  // accessed
	putTime(b[0xc:], b[0x84:], i.ctime, i.extra)  // changed
	putTime(b[0x10:], b[0x88:], i.mtime, i.extra) // modified
	le.PutUint16(b[0x18:], uint16(i.gid))
	le.PutUint16(b[0x1a:], uint16(i.links))
	sectors := i.blocks << (blockShift - 9)
	le.PutUint32(b[0x1c:], lo(sectors))
	le.PutUint32(b[0x20:], i.flags)
	copy(b[0x28:], i.block[:])
	le.PutUint32(b[0x68:], lo(i.xattrAt))
	le.PutUint32(b[0x6c:], uint32(i.size>>32))
	le.PutUint16(b[0x74:], uint16(hi(sectors)))
	le.PutUint16(b[0x76:], uint16(hi(i.xattrAt)))
	le.PutUint16(b[0x78:], uint16(i.uid>>16))
	le.PutUint16(b[0x7a:], uint16(i.gid>>16))
	if i.extra > 0 {
		le.PutUint16(b[0x80:], uint16(i.extra))
		putTime(b[0x90:], b[0x94:], i.ctime, i.extra) // created
	}
	if len(i.xattrs) > 0 {
		le.PutUint32(b[xattrInodeAt:], xattrMagic)
		putXattrs(b[xattrInodeAt+4:], i.xattrs, 0)
	}
	crc := crc32c(seed, b)
	le.PutUint16(b[0x7c:], uint16(crc))
	if i.extra > 0 {
		le.PutUint16(b[0x82:], uint16(crc>>16))
	}
}

// putTime stores seconds with two more bits for the epoch; what does not fit
// becomes the nearest that does. The last of the four epochs stays unused:
// old kernels wrote it for times before 1970, and e2fsck takes it for that.
func putTime(b, high []byte, sec int64, extra int) {
	const first, last = -1 << 31, 3<<32 - 1<<31 - 1
	sec = min(max(sec, first), last)
	binary.LittleEndian.PutUint32(b, uint32(sec))
	if extra > 0 {
		binary.LittleEndian.PutUint32(high, uint32((sec-int64(int32(sec)))>>32)&3)
	}
}

// getTime is the reverse of putTime.
func getTime(b, high uint32) int64 { return int64(int32(b)) + int64(high&3)<<32 }

// putDevice stores a device number: 16 bits the old way, more in the second
// word.
func putDevice(b []byte, major, minor uint32) {
	if major < 256 && minor < 256 {
		binary.LittleEndian.PutUint32(b, major<<8|minor)
		return
	}
	binary.LittleEndian.PutUint32(b[4:], minor&0xff|major<<8|minor&^0xff<<12)
}

// getDevice is the reverse of putDevice.
func getDevice(b []byte) (major, minor uint32) {
	if v := binary.LittleEndian.Uint32(b); v != 0 {
		return v >> 8 & 0xff, v & 0xff
	}
	v := binary.LittleEndian.Uint32(b[4:])
	return v >> 8 & 0xfff, v&0xff | v>>12&^0xff
}

// raw describes a node as it is stored.
func (l *Layout) raw(n *node) rawInode {
	r := rawInode{
		mode: n.Mode, uid: n.UID, gid: n.GID, links: uint32(n.links),
		size: n.size(), mtime: n.ModTime, ctime: l.opts.Epoch,
		xattrAt: n.xattrAt, xattrs: n.inInode, extra: extraIsize,
	}
	r.blocks = uint64(len(n.treeBlocks))
	if len(n.inBlock) > 0 {
		r.blocks++
	}
	for _, e := range n.extents {
		r.blocks += uint64(e.len)
	}
	switch n.Type() {
	case tree.TypeDir:
		if n.dir.hashed() {
			r.flags = flagIndex
		}
		if n.links > maxLinks { // dir_nlink: too many to count
			r.links = 1
		}
	case tree.TypeSymlink:
		if n.Size() < fastLinkLen {
			copy(r.block[:], n.Target)
			return r
		}
	case tree.TypeBlock, tree.TypeChar:
		putDevice(r.block[:], n.Major, n.Minor)
		r.size = 0
		return r
	case tree.TypeFifo, tree.TypeSocket:
		r.size = 0
		return r
	}
	r.flags |= flagExtents
	r.block, _ = encodeExtents(n.extents, n.treeBlocks, 0)
	return r
}

// encodeInode fills b, 256 zero bytes, with the inode of that number; unused
// ones stay zero.
func (l *Layout) encodeInode(b []byte, ino uint32) {
	r := rawInode{mtime: l.opts.Epoch, ctime: l.opts.Epoch}
	switch {
	case ino == inoBad:
	case ino == inoRoot:
		r = l.raw(l.root)
	case ino == inoResize:
		r.mode, r.links, r.extra = tree.TypeRegular|0o600, 1, extraIsize
		r.size = (addrsPerBlock*addrsPerBlock + addrsPerBlock + 12) << blockShift
		r.blocks = 1 + l.reserved*uint64(1+len(l.backups()))
		binary.LittleEndian.PutUint32(r.block[13*4:], uint32(l.dind))
	case ino == inoJournal:
		r.mode, r.links, r.extra = tree.TypeRegular|0o600, 1, extraIsize
		r.size, r.flags = int64(l.journalBlocks)<<blockShift, flagExtents
		r.blocks = l.journalBlocks + uint64(len(l.journalTree))
		r.block, _ = encodeExtents(l.journal, l.journalTree, 0)
	case ino < inoFirst:
		r = rawInode{}
	case ino <= l.usedInodes:
		r = l.raw(l.nodes[ino-inoFirst])
	default:
		return
	}
	r.encode(b, inodeSeed(l.seed, ino, 0))
}
