package ext4

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// xattrPrefixes are the name spaces that are stored as a number, longest
// first (Documentation/filesystems/ext4/attributes.rst).
var xattrPrefixes = []xattrPrefix{
	{2, "system.posix_acl_access"},
	{3, "system.posix_acl_default"},
	{8, "system.richacl"},
	{4, "trusted."},
	{6, "security."},
	{7, "system."},
	{1, "user."},
}

type xattrPrefix struct {
	index  uint8
	prefix string
}

type xattr struct {
	index uint8
	name  string // without the prefix
	value string // as stored
}

func (x xattr) entryLen() int { return 16 + (len(x.name)+3)&^3 }
func (x xattr) valueLen() int { return (len(x.value) + 3) &^ 3 }

const (
	xattrInodeAt   = 128 + extraIsize // in the inode
	xattrInodeRoom = inodeSize - xattrInodeAt - 4
	xattrBlockHead = 32
)

// splitXattrs sorts attributes as the block format wants them and decides
// which lie in the inode and which in a block of their own.
func splitXattrs(attrs map[string]string) (inode, block []xattr, err error) {
	if len(attrs) == 0 {
		return nil, nil, nil
	}
	var all []xattr
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		x := xattr{value: attrs[name]}
		for _, p := range xattrPrefixes {
			if rest, ok := strings.CutPrefix(name, p.prefix); ok && (rest == "") != strings.HasSuffix(p.prefix, ".") {
				x.index, x.name = p.index, rest
				break
			}
		}
		if x.index == 0 || len(x.name) > maxNameLen {
			return nil, nil, fmt.Errorf("cannot store extended attribute %q: unknown name space or name too long", name)
		}
		if x.index == 2 || x.index == 3 {
			if x.value, err = packACL(x.value); err != nil {
				return nil, nil, fmt.Errorf("cannot store extended attribute %q: %w", name, err)
			}
		}
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	inodeRoom, blockRoom := xattrInodeRoom-4, blockSize-xattrBlockHead-4
	for _, x := range all {
		need := x.entryLen() + x.valueLen()
		switch {
		case need <= inodeRoom:
			inode = append(inode, x)
			inodeRoom -= need
		case need <= blockRoom:
			block = append(block, x)
			blockRoom -= need
		default:
			return nil, nil, errors.New("cannot store extended attributes: they are larger than a block")
		}
	}
	return inode, block, nil
}

// putXattrs writes entries from the start of b and values from its end, and
// returns the entries' hashes. Value offsets count from base bytes before b.
func putXattrs(b []byte, attrs []xattr, base int) []uint32 {
	var hashes []uint32
	at, end := 0, len(b)
	for _, x := range attrs {
		end -= x.valueLen()
		copy(b[end:], x.value)
		e := b[at:]
		e[0], e[1] = uint8(len(x.name)), x.index
		if len(x.value) > 0 {
			binary.LittleEndian.PutUint16(e[2:], uint16(end+base))
		}
		binary.LittleEndian.PutUint32(e[8:], uint32(len(x.value)))
		hash := xattrHash(x.name, b[end:end+x.valueLen()])
		binary.LittleEndian.PutUint32(e[12:], hash)
		copy(e[16:], x.name)
		hashes = append(hashes, hash)
		at += x.entryLen()
	}
	return hashes
}

// xattrHash hashes an attribute; value is padded to whole words.
func xattrHash(name string, value []byte) uint32 {
	var h uint32
	for _, c := range []byte(name) {
		h = h<<5 ^ h>>27 ^ uint32(c)
	}
	for ; len(value) > 0; value = value[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(value)
	}
	return h
}

// putXattrBlock fills b, which must be zero, with an attribute block that
// lies at the given block number.
func putXattrBlock(b []byte, attrs []xattr, block uint64, seed uint32) {
	hashes := putXattrs(b[xattrBlockHead:], attrs, xattrBlockHead)
	binary.LittleEndian.PutUint32(b[0:], xattrMagic)
	binary.LittleEndian.PutUint32(b[4:], 1) // references
	binary.LittleEndian.PutUint32(b[8:], 1) // blocks
	var hash uint32
	for _, h := range hashes {
		if h == 0 { // an entry without hash makes the block unshareable
			hash = 0
			break
		}
		hash = hash<<16 ^ hash>>16 ^ h
	}
	binary.LittleEndian.PutUint32(b[12:], hash)
	binary.LittleEndian.PutUint32(b[16:], xattrBlockChecksum(b, block, seed))
}

func xattrBlockChecksum(b []byte, block uint64, seed uint32) uint32 {
	crc := crc32c(seed, binary.LittleEndian.AppendUint64(nil, block))
	crc = crc32c(crc, b[:16])
	crc = crc32c(crc, make([]byte, 4))
	return crc32c(crc, b[20:])
}

// POSIX access control lists: acl(5), linux/posix_acl_xattr.h. On disk only
// the entries for named users and groups carry an id.
const (
	aclXattrVersion = 2
	aclDiskVersion  = 1
	aclUser         = 0x02
	aclGroup        = 0x08
)

var errACL = errors.New("malformed access control list")

// packACL turns an ACL as the attribute shows it into what ext4 stores.
func packACL(s string) (string, error) {
	b := []byte(s)
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32(b) != aclXattrVersion {
		return "", errACL
	}
	out := binary.LittleEndian.AppendUint32(nil, aclDiskVersion)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		out = append(out, b[:4]...)
		if tag := binary.LittleEndian.Uint16(b); tag == aclUser || tag == aclGroup {
			out = append(out, b[4:8]...)
		}
	}
	return string(out), nil
}

// unpackACL is the reverse of packACL.
func unpackACL(s string) (string, error) {
	b := []byte(s)
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != aclDiskVersion {
		return "", errACL
	}
	out := binary.LittleEndian.AppendUint32(nil, aclXattrVersion)
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return "", errACL
		}
		out = append(out, b[:4]...)
		tag := binary.LittleEndian.Uint16(b)
		b = b[4:]
		if tag != aclUser && tag != aclGroup {
			out = binary.LittleEndian.AppendUint32(out, 0xffffffff)
			continue
		}
		if len(b) < 4 {
			return "", errACL
		}
		out = append(out, b[:4]...)
		b = b[4:]
	}
	return string(out), nil
}
