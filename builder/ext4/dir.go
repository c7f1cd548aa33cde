package ext4

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/picube/picube-build/builder/tree"
)

// dirent is an entry of a directory.
type dirent struct {
	name string
	ino  uint32
	kind uint8
}

const dirTailKind = 0xde // the file type of the fake entry that holds the checksum

// direntKind returns the file type that a directory entry stores.
func direntKind(mode uint32) uint8 {
	switch mode & tree.TypeMask {
	case tree.TypeRegular:
		return 1
	case tree.TypeDir:
		return 2
	case tree.TypeChar:
		return 3
	case tree.TypeBlock:
		return 4
	case tree.TypeFifo:
		return 5
	case tree.TypeSocket:
		return 6
	case tree.TypeSymlink:
		return 7
	}
	return 0
}

func direntLen(name string) int { return (8 + len(name) + 3) &^ 3 }

func putDirent(b []byte, e dirent, recLen int) {
	binary.LittleEndian.PutUint32(b[0:], e.ino)
	binary.LittleEndian.PutUint16(b[4:], uint16(recLen))
	b[6], b[7] = uint8(len(e.name)), e.kind
	copy(b[8:], e.name)
}

// putDirBlock fills b, which must be zero, with entries and the checksum.
func putDirBlock(b []byte, entries []dirent, seed uint32) {
	end := len(b) - dirTailLen
	if len(entries) == 0 {
		entries = []dirent{{}}
	}
	at := 0
	for i, e := range entries {
		n := direntLen(e.name)
		if i == len(entries)-1 {
			n = end - at
		}
		putDirent(b[at:], e, n)
		at += n
	}
	binary.LittleEndian.PutUint16(b[end+4:], dirTailLen)
	b[end+7] = dirTailKind
	binary.LittleEndian.PutUint32(b[end+8:], crc32c(seed, b[:end]))
}

// Room for index entries: the root keeps "." and ".." and its own eight
// bytes, an inner node one empty entry; both keep a checksum.
const (
	indexRootAt  = 12 + 12 + 8
	indexNodeAt  = 8
	indexRootMax = (blockSize - indexRootAt - 8) / 8
	indexNodeMax = (blockSize - indexNodeAt - 8) / 8
)

// dirLeaf is a block of a hashed directory.
type dirLeaf struct {
	hash    uint32 // the lowest in it; bit 0 says that the block before ends with the same
	entries []dirent
}

// dirPlan is a directory cut into blocks: one block of entries, or an index
// root, inner nodes and leaves.
type dirPlan struct {
	entries []dirent // one block, without "." and ".."
	leaves  []dirLeaf
	spare   int // empty blocks at the end
}

var errDirTooLarge = errors.New("cannot index so many entries in one directory")

// planDir cuts a directory into blocks. It may reorder the entries.
func planDir(entries []dirent, seed [4]uint32) (dirPlan, error) {
	size := 24 + dirTailLen
	for _, e := range entries {
		size += direntLen(e.name)
	}
	if size <= blockSize {
		return dirPlan{entries: entries}, nil
	}
	hashes := make(map[string]uint32, len(entries))
	for _, e := range entries {
		hashes[e.name] = halfMD4(e.name, seed)
	}
	slices.SortFunc(entries, func(a, b dirent) int {
		return cmp.Or(cmp.Compare(hashes[a.name], hashes[b.name]), cmp.Compare(a.name, b.name))
	})
	var p dirPlan
	first, used := 0, 0
	flush := func(end int) {
		hash := hashes[entries[first].name]
		if first > 0 && hashes[entries[first-1].name] == hash {
			hash |= 1
		}
		p.leaves = append(p.leaves, dirLeaf{hash, entries[first:end]})
		first, used = end, 0
	}
	for i, e := range entries {
		n := direntLen(e.name)
		if used+n > blockSize-dirTailLen {
			flush(i)
		}
		used += n
	}
	flush(len(entries))
	p.leaves[0].hash = 0
	if p.nodes() > indexRootMax {
		return p, errDirTooLarge
	}
	return p, nil
}

func (p *dirPlan) hashed() bool { return len(p.leaves) > 0 }

// nodes returns the number of inner index nodes.
func (p *dirPlan) nodes() int {
	if len(p.leaves) <= indexRootMax {
		return 0
	}
	return ceilDiv(len(p.leaves), indexNodeMax)
}

func (p *dirPlan) blocks() int {
	if !p.hashed() {
		return 1 + p.spare
	}
	return 1 + p.nodes() + len(p.leaves)
}

// encode fills b, which must be zero, with block i of the directory.
func (p *dirPlan) encode(b []byte, i int, self, parent, seed uint32) {
	dots := []dirent{{".", self, 2}, {"..", parent, 2}}
	switch {
	case !p.hashed() && i == 0:
		putDirBlock(b, append(dots, p.entries...), seed)
	case !p.hashed():
		putDirBlock(b, nil, seed)
	case i == 0:
		putDirent(b, dots[0], 12)
		putDirent(b[12:], dots[1], blockSize-12)
		b[24+4], b[24+5] = hashHalfMD4, 8
		nodes := p.nodes()
		if nodes == 0 {
			putIndex(b, indexRootAt, indexRootMax, p.leaves, 1, 1, seed)
			return
		}
		b[24+6] = 1 // levels of inner nodes
		putIndex(b, indexRootAt, indexRootMax, p.leaves, indexNodeMax, 1, seed)
	case i <= p.nodes():
		binary.LittleEndian.PutUint16(b[4:], blockSize)
		from := (i - 1) * indexNodeMax
		to := min(from+indexNodeMax, len(p.leaves))
		putIndex(b, indexNodeAt, indexNodeMax, p.leaves[from:to], 1, 1+p.nodes()+from, seed)
	default:
		putDirBlock(b, p.leaves[i-1-p.nodes()].entries, seed)
	}
}

// putIndex writes an index: every step-th leaf's hash, pointing to
// consecutive blocks from block on.
func putIndex(b []byte, at, limit int, leaves []dirLeaf, step, block int, seed uint32) {
	count := 0
	for i := 0; i < len(leaves); i += step {
		e := b[at+8*count:]
		binary.LittleEndian.PutUint32(e[0:], leaves[i].hash)
		binary.LittleEndian.PutUint32(e[4:], uint32(block+count))
		count++
	}
	binary.LittleEndian.PutUint16(b[at:], uint16(limit)) // in place of the first hash
	binary.LittleEndian.PutUint16(b[at+2:], uint16(count))
	binary.LittleEndian.PutUint32(b[at+8*limit+4:], indexChecksum(b, at, limit, count, seed))
}

// indexChecksum covers the used entries and the tail with its sum as zero.
func indexChecksum(b []byte, at, limit, count int, seed uint32) uint32 {
	tail := at + 8*limit
	crc := crc32c(seed, b[:at+8*count])
	crc = crc32c(crc, b[tail:tail+4])
	return crc32c(crc, make([]byte, 4))
}
