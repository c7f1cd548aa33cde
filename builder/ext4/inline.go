package ext4

import (
	"encoding/binary"
)

// inlineXattr is the attribute that holds what of a file or directory does
// not fit where others have their map of blocks
// (Documentation/filesystems/ext4/inlinedata.rst).
const inlineXattr = "system.data"

// inlineParts returns the two places of data that lies in an inode.
func (fs *FS) inlineParts(in *inode) (block, rest []byte, err error) {
	attrs, err := fs.inodeXattrs(in)
	return in.block[:], []byte(attrs[inlineXattr]), err
}

// inlineFile returns the content of a file or link that lies in its inode.
// What it was made longer by is nowhere and reads as zeros.
func (fs *FS) inlineFile(in *inode) ([]byte, error) {
	if in.size > int64(fs.sb.InodeSize) {
		return nil, damaged("%d bytes in an inode of %d", in.size, fs.sb.InodeSize)
	}
	block, rest, err := fs.inlineParts(in)
	if err != nil {
		return nil, err
	}
	out := make([]byte, in.size)
	if n := copy(out, block); n == len(block) {
		copy(out[n:], rest)
	}
	return out, nil
}

// inlineDir returns the entries of a directory that lies in its inode. Its
// first four bytes stand for "..", and nothing for ".".
func (fs *FS) inlineDir(in *inode) ([]dirent, error) {
	block, rest, err := fs.inlineParts(in)
	if err != nil {
		return nil, err
	}
	out := []dirent{
		{name: ".", ino: in.ino, kind: direntKind(in.mode)},
		{name: "..", ino: binary.LittleEndian.Uint32(block), kind: direntKind(in.mode)},
	}
	for _, part := range [][]byte{block[4:], rest} {
		entries, _, _, err := fs.parseDirents(part)
		if err != nil {
			return nil, err
		}
		out = append(out, entries...)
	}
	return out, nil
}
