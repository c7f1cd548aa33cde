package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strings"
)

// FS is an ext4 file system to be read. It may be used concurrently.
//
// It reads what mke2fs has made in the last ten years, by default or asked
// for, ext2 and ext3 included. Refused by name: external journals, compression
// and whatever comes next; and single files and directories that are
// encrypted, protected by fs-verity or blind to case. A journal that was not
// emptied is replayed, in memory.
type FS struct {
	r       io.ReaderAt
	sb      superblock
	seed    uint32
	shift   uint // of the block size
	blocks  uint64
	groups  uint64
	first   uint64 // block of group 0
	descs   []byte
	descLen int
	dirty   bool // it was not unmounted
	replay  map[uint64]replayed
}

// replayed says where the journal holds a newer copy of a block.
type replayed struct {
	block   uint64
	escaped bool // its first four bytes stand for the journal's magic number
}

// incompatNames are the features without which content can't be read
// (Documentation/filesystems/ext4/super.rst).
var incompatNames = map[uint32]string{
	0x1: "compression", 0x2: "filetype", 0x4: "needs_recovery", 0x8: "journal_dev", 0x10: "meta_bg",
	0x40: "extent", 0x80: "64bit", 0x100: "mmp", 0x200: "flex_bg", 0x400: "ea_inode", 0x1000: "dirdata",
	0x2000: "metadata_csum_seed", 0x4000: "large_dir", 0x8000: "inline_data", 0x10000: "encrypt", 0x20000: "casefold",
}

const (
	readIncompat = incompatType | incompatRecover | incompatMetaBG | incompatExtents | incompat64 |
		incompatMMP | incompatFlex | incompatEAInode | incompatSeed | incompatLarge | incompatInline |
		incompatEncrypt | incompatFold
	maxGroups = 1 << 20
)

var errDamaged = errors.New("damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// Open reads the superblock and the group descriptors of a file system of
// which size bytes are there, and replays its journal if it must.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	b := make([]byte, 1024)
	if err := readFull(r, b, 1024); err != nil {
		return nil, fmt.Errorf("cannot read the ext4 superblock: %w", err)
	}
	fs := &FS{r: r}
	if err := fs.readSuper(b, size); err != nil {
		return nil, fmt.Errorf("cannot use the ext4 superblock: %w", err)
	}
	if err := fs.readDescs(); err != nil {
		return nil, fmt.Errorf("cannot read the ext4 group descriptors: %w", err)
	}
	if fs.dirty = fs.sb.Incompat&incompatRecover != 0; fs.dirty {
		if err := fs.replayJournal(); err != nil {
			return nil, fmt.Errorf("cannot replay the ext4 journal: %w", err)
		}
	}
	return fs, nil
}

func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func decodeStruct(b []byte, v any) {
	if _, err := binary.Decode(b, binary.LittleEndian, v); err != nil {
		panic(err) // only for a buffer that is too short
	}
}

func (fs *FS) readSuper(b []byte, size int64) error {
	sb := &fs.sb
	decodeStruct(b, sb)
	if sb.Magic != superMagic {
		return errors.New("no ext4 file system: wrong magic number")
	}
	if sb.RevLevel != 1 {
		return fmt.Errorf("revision %d is not supported", sb.RevLevel)
	}
	if unknown := sb.Incompat &^ readIncompat; unknown != 0 {
		var names []string
		for ; unknown != 0; unknown &= unknown - 1 {
			bit := unknown & -unknown
			name := incompatNames[bit]
			if name == "" {
				name = fmt.Sprintf("%#x", bit)
			}
			names = append(names, name)
		}
		return fmt.Errorf("features not supported: %s", strings.Join(names, ", "))
	}
	if fs.checksums() {
		if sb.ChecksumType != 1 {
			return fmt.Errorf("checksum type %d is not supported", sb.ChecksumType)
		}
		if sb.Checksum != crc32c(math.MaxUint32, b[:1020]) {
			return damaged("wrong checksum")
		}
	}
	fs.seed = crc32c(math.MaxUint32, sb.UUID[:])
	if sb.Incompat&incompatSeed != 0 {
		fs.seed = sb.ChecksumSeed
	}
	if sb.LogBlockSize > 6 {
		return damaged("block size 2^%d KiB", sb.LogBlockSize)
	}
	fs.shift = uint(sb.LogBlockSize) + 10
	perGroup := uint64(8) << fs.shift // what a bitmap has bits for
	if fs.bigalloc() {
		if sb.LogClusterSize < sb.LogBlockSize || sb.LogClusterSize > 20 {
			return damaged("cluster size 2^%d KiB", sb.LogClusterSize)
		}
		perGroup <<= sb.LogClusterSize - sb.LogBlockSize
	}
	fs.first = uint64(sb.FirstDataBlock)
	fs.blocks = uint64(sb.BlocksLo)
	fs.descLen = 32
	if fs.has64() {
		fs.blocks |= uint64(sb.BlocksHi) << 32
		fs.descLen = int(sb.DescSize)
	}
	switch {
	case fs.first > 1 || fs.first == 1 && fs.shift != 10:
		return damaged("first data block %d", fs.first)
	case fs.blocks <= fs.first || fs.blocks > uint64(math.MaxInt64)>>fs.shift:
		return damaged("%d blocks", fs.blocks)
	case int64(fs.blocks<<fs.shift) > size:
		return damaged("%d blocks of %d bytes, but only %d bytes are there", fs.blocks, fs.blockSize(), size)
	case sb.BlocksPerGroup == 0 || uint64(sb.BlocksPerGroup) > perGroup || sb.BlocksPerGroup%8 != 0:
		return damaged("%d blocks per group", sb.BlocksPerGroup)
	case sb.InodesPerGroup == 0 || sb.InodesPerGroup > 8<<fs.shift || sb.InodesPerGroup%8 != 0:
		return damaged("%d inodes per group", sb.InodesPerGroup)
	case sb.InodeSize < 128 || int(sb.InodeSize) > fs.blockSize() || sb.InodeSize&(sb.InodeSize-1) != 0:
		return damaged("inode size %d", sb.InodeSize)
	case fs.has64() && fs.descLen != descSize: // the only size that was ever made
		return damaged("group descriptor size %d", fs.descLen)
	}
	fs.groups = ceilDiv(fs.blocks-fs.first, uint64(sb.BlocksPerGroup))
	if fs.groups > maxGroups {
		return fmt.Errorf("%d groups are more than the %d that are supported", fs.groups, maxGroups)
	}
	if uint64(sb.InodesCount) != fs.groups*uint64(sb.InodesPerGroup) {
		return damaged("%d inodes in %d groups of %d", sb.InodesCount, fs.groups, sb.InodesPerGroup)
	}
	return nil
}

func (fs *FS) checksums() bool { return fs.sb.ROCompat&roMetadataCsum != 0 }
func (fs *FS) has64() bool     { return fs.sb.Incompat&incompat64 != 0 }
func (fs *FS) bigalloc() bool  { return fs.sb.ROCompat&roBigalloc != 0 }
func (fs *FS) blockSize() int  { return 1 << fs.shift }

// Label returns the volume name.
func (fs *FS) Label() string {
	label, _, _ := strings.Cut(string(fs.sb.Label[:]), "\x00")
	return label
}

// UUID returns the file system's identity.
func (fs *FS) UUID() [16]byte { return fs.sb.UUID }

// Size returns the size of the file system in bytes.
func (fs *FS) Size() int64 { return int64(fs.blocks) << fs.shift }

// FreeBytes returns the space that the superblock says is free, in bytes.
func (fs *FS) FreeBytes() int64 { return int64(fs.superFree()) << fs.shift }

func (fs *FS) superFree() uint64 {
	free := uint64(fs.sb.FreeBlocksLo)
	if fs.has64() {
		free |= uint64(fs.sb.FreeBlocksHi) << 32
	}
	return free
}

// block reads a block, as the journal has it if it has.
func (fs *FS) block(n uint64) ([]byte, error) {
	b := make([]byte, fs.blockSize())
	return b, fs.readBlocks(b, n)
}

// readBlocks fills b from block n on.
func (fs *FS) readBlocks(b []byte, n uint64) error {
	count := uint64(len(b)) >> fs.shift
	if n >= fs.blocks || count > fs.blocks-n {
		return damaged("block %d is beyond the end", n)
	}
	if err := readFull(fs.r, b, int64(n)<<fs.shift); err != nil {
		return err
	}
	if len(fs.replay) == 0 {
		return nil
	}
	for i := range count {
		if err := fs.replayBlock(b[i<<fs.shift:(i+1)<<fs.shift], n+i); err != nil {
			return err
		}
	}
	return nil
}

// readDescs loads the group descriptors.
func (fs *FS) readDescs() error {
	perBlock := uint64(fs.blockSize() / fs.descLen)
	for i := range ceilDiv(fs.groups, perBlock) {
		b, err := fs.block(fs.descBlock(i, perBlock))
		if err != nil {
			return err
		}
		fs.descs = append(fs.descs, b...)
	}
	return nil
}

// descBlock returns where block i of the descriptors lies: behind the
// superblock or, with meta_bg, in the first group that it describes.
func (fs *FS) descBlock(i, perBlock uint64) uint64 {
	if fs.sb.Incompat&incompatMetaBG == 0 || i < uint64(fs.sb.FirstMetaBG) {
		return fs.superBlock() + 1 + i
	}
	group := i * perBlock
	at := fs.groupStart(group)
	if group == 0 {
		at = fs.superBlock()
	}
	if fs.groupHasSuper(group) {
		at++
	}
	return at
}

// superBlock returns where the superblock lies: at 1 KiB, even if group 0
// begins before it, as it does with bigalloc.
func (fs *FS) superBlock() uint64 { return 1024 >> fs.shift }

func (fs *FS) groupStart(group uint64) uint64 {
	return fs.first + group*uint64(fs.sb.BlocksPerGroup)
}

// groupBlocks returns the number of blocks in a group; the last may be short.
func (fs *FS) groupBlocks(group uint64) uint64 {
	return min(uint64(fs.sb.BlocksPerGroup), fs.blocks-fs.groupStart(group))
}

func (fs *FS) groupHasSuper(group uint64) bool {
	switch {
	case group == 0:
		return true
	case fs.sb.Compat&compatSparse2 != 0:
		return group == uint64(fs.sb.BackupGroups[0]) || group == uint64(fs.sb.BackupGroups[1])
	case fs.sb.ROCompat&roSparse == 0:
		return true
	}
	return hasSuper(group)
}

// rawDesc returns the stored descriptor of a group.
func (fs *FS) rawDesc(group uint64) []byte {
	perBlock := uint64(fs.blockSize() / fs.descLen)
	at := group/perBlock<<fs.shift + group%perBlock*uint64(fs.descLen)
	return fs.descs[at : at+uint64(fs.descLen)]
}

func (fs *FS) desc(group uint64) groupDesc {
	var b [descSize]byte
	raw := fs.rawDesc(group)
	copy(b[:], raw)
	if !fs.has64() {
		clear(b[32:])
	}
	var d groupDesc
	decodeStruct(b[:], &d)
	return d
}

// inodeTable returns where a group's inodes begin, and how many blocks they
// take.
func (fs *FS) inodeTable(group uint64) (at, blocks uint64) {
	d := fs.desc(group)
	bytes := uint64(fs.sb.InodesPerGroup) * uint64(fs.sb.InodeSize)
	return join(d.InodeTableLo, d.InodeTableHi), ceilDiv(bytes, uint64(fs.blockSize()))
}

// inode is an inode as read.
type inode struct {
	ino, generation uint32
	mode, uid, gid  uint32
	links, flags    uint32
	size            int64
	mtime           int64
	sectors         uint64 // of 512 bytes
	xattrAt         uint64
	block           [60]byte
	raw             []byte
	seed            uint32 // of its checksums
}

var errUnusedInode = errors.New("is not in use")

// inodes reads inodes; it keeps the part of the table that it read last.
type inodes struct {
	fs  *FS
	at  uint64
	buf []byte
}

// raw returns the stored inode.
func (t *inodes) raw(ino uint32) ([]byte, error) {
	fs := t.fs
	if ino == 0 || ino > fs.sb.InodesCount {
		return nil, damaged("leads to inode %d, which can't be", ino)
	}
	group, index := uint64(ino-1)/uint64(fs.sb.InodesPerGroup), uint64(ino-1)%uint64(fs.sb.InodesPerGroup)
	table, blocks := fs.inodeTable(group)
	off := index * uint64(fs.sb.InodeSize)
	const window = 16
	first := off >> fs.shift / window * window
	if at := table + first; t.buf == nil || t.at != at {
		t.buf = make([]byte, min(window, blocks-first)<<fs.shift)
		t.at = at
		if err := fs.readBlocks(t.buf, at); err != nil {
			t.buf = nil
			return nil, fmt.Errorf("cannot read inode %d: %w", ino, err)
		}
	}
	off -= first << fs.shift
	return t.buf[off : off+uint64(fs.sb.InodeSize)], nil
}

// get reads an inode and verifies its checksum.
func (t *inodes) get(ino uint32) (*inode, error) {
	b, err := t.raw(ino)
	if err != nil {
		return nil, err
	}
	return t.fs.decodeInode(b, ino)
}

func (fs *FS) decodeInode(b []byte, ino uint32) (*inode, error) {
	le := binary.LittleEndian
	n := &inode{ino: ino, raw: append([]byte(nil), b...)}
	n.mode = uint32(le.Uint16(b[0x0:]))
	n.links = uint32(le.Uint16(b[0x1a:]))
	n.generation = le.Uint32(b[0x64:])
	n.seed = inodeSeed(fs.seed, ino, n.generation)
	if n.mode == 0 && n.links == 0 {
		return nil, errUnusedInode
	}
	if fs.checksums() && !n.checksumOK() {
		return nil, damaged("wrong checksum")
	}
	n.uid = uint32(le.Uint16(b[0x2:])) | uint32(le.Uint16(b[0x78:]))<<16
	n.gid = uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x7a:]))<<16
	n.flags = le.Uint32(b[0x20:])
	size := join(le.Uint32(b[0x4:]), le.Uint32(b[0x6c:]))
	if size > math.MaxInt64 {
		return nil, damaged("size %d", size)
	}
	n.size = int64(size)
	n.mtime = getTime(le.Uint32(b[0x10:]), 0)
	if n.extra() >= 12 {
		n.mtime = getTime(le.Uint32(b[0x10:]), le.Uint32(b[0x88:]))
	}
	n.sectors = uint64(le.Uint32(b[0x1c:])) | uint64(le.Uint16(b[0x74:]))<<32
	if n.flags&flagHuge != 0 {
		n.sectors <<= fs.shift - 9
	}
	n.xattrAt = uint64(le.Uint32(b[0x68:])) | uint64(le.Uint16(b[0x76:]))<<32
	copy(n.block[:], b[0x28:])
	return n, nil
}

// extra returns how many bytes of fields follow the first 128.
func (n *inode) extra() int {
	if len(n.raw) < 132 {
		return 0
	}
	return min(int(binary.LittleEndian.Uint16(n.raw[0x80:])), len(n.raw)-128)
}

func (n *inode) checksumOK() bool {
	b := append([]byte(nil), n.raw...)
	want := uint32(binary.LittleEndian.Uint16(b[0x7c:]))
	clear(b[0x7c:0x7e])
	if n.extra() < 4 {
		return uint16(crc32c(n.seed, b)) == uint16(want)
	}
	want |= uint32(binary.LittleEndian.Uint16(b[0x82:])) << 16
	clear(b[0x82:0x84])
	return crc32c(n.seed, b) == want
}

// mapped is a run of a file's blocks and where it lies. One that was
// allocated but never written reads as zeros.
type mapped struct {
	logical, len uint64
	start        uint64
	unwritten    bool
}

// mapping is what an inode's blocks are used for.
type mapping struct {
	data []mapped // ascending
	meta uint64   // number of blocks of the extent tree, or indirect blocks

	claim func(block uint64) error
}

// read reads a block of the map.
func (m *mapping) read(fs *FS, at uint64) ([]byte, error) {
	if err := fs.inside(at, 1); err != nil {
		return nil, err
	}
	if m.claim != nil {
		if err := m.claim(at); err != nil {
			return nil, err
		}
	}
	m.meta++
	return fs.block(at)
}

// mapping reads the block map of a file, directory or link. claim, if not
// nil, is asked before each block of the map itself is read: inodes of a
// hostile image could share them.
func (fs *FS) mapping(n *inode, claim func(block uint64) error) (*mapping, error) {
	m := mapping{claim: claim}
	var err error
	switch {
	case n.flags&flagInline != 0:
		return nil, damaged("data in the inode, where there must be blocks")
	case n.flags&flagExtents != 0:
		err = fs.extents(&m, n, n.block[:], 0, maxFileBlocks+1, -1)
	default:
		err = fs.indirect(&m, n)
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// extents walks one node of an extent tree that covers the blocks from lowest
// to before limit; depth is -1 for the root, whose own depth counts then.
// Every entry must lie in its node's range, so no block is visited twice.
func (fs *FS) extents(m *mapping, n *inode, b []byte, lowest, limit uint64, depth int) error {
	le := binary.LittleEndian
	if le.Uint16(b) != extentMagic {
		return damaged("wrong magic number in the extent tree")
	}
	entries, room := int(le.Uint16(b[2:])), int(le.Uint16(b[4:]))
	if entries > room || 12+12*room > len(b) {
		return damaged("%d of %d entries in the extent tree", entries, room)
	}
	if d := int(le.Uint16(b[6:])); depth < 0 && d <= 5 {
		depth = d
	} else if d != depth {
		return damaged("depth %d in the extent tree", d)
	}
	for i := range entries {
		e := b[12+12*i:]
		logical := uint64(le.Uint32(e))
		if logical < lowest || logical >= limit {
			return damaged("extents out of order at block %d", logical)
		}
		if depth == 0 {
			length := uint64(le.Uint16(e[4:]))
			x := mapped{logical: logical, len: length, start: uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32}
			if length > maxExtentLen {
				x.len, x.unwritten = length-maxExtentLen, true
			}
			if x.len == 0 || x.len > limit-logical {
				return damaged("extent of %d blocks at %d", x.len, logical)
			}
			if err := fs.inside(x.start, x.len); err != nil {
				return err
			}
			m.data = append(m.data, x)
			lowest = logical + x.len
			continue
		}
		end := limit
		if i+1 < entries {
			if end = uint64(le.Uint32(b[12+12*(i+1):])); end <= logical || end > limit {
				return damaged("extents out of order at block %d", end)
			}
		}
		at := uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32
		child, err := m.read(fs, at)
		if err != nil {
			return err
		}
		tail := 12 + 12*int(le.Uint16(child[4:]))
		if fs.checksums() && (tail+4 > len(child) || le.Uint32(child[tail:]) != crc32c(n.seed, child[:tail])) {
			return damaged("wrong checksum in the extent tree, block %d", at)
		}
		if le.Uint16(child[2:]) == 0 {
			return damaged("empty node in the extent tree, block %d", at)
		}
		if err := fs.extents(m, n, child, logical, end, depth-1); err != nil {
			return err
		}
		lowest = end
	}
	return nil
}

// inside refuses blocks that no file may have.
func (fs *FS) inside(start, length uint64) error {
	if start <= fs.first || start >= fs.blocks || length > fs.blocks-start {
		return damaged("blocks %d to %d are not in the file system", start, start+length-1)
	}
	return nil
}

// indirect walks the block map of ext2 and ext3.
func (fs *FS) indirect(m *mapping, n *inode) error {
	seen := map[uint32]bool{}
	add := func(logical uint64, at uint32) error {
		if at == 0 {
			return nil
		}
		start := uint64(at)
		if err := fs.inside(start, 1); err != nil {
			return err
		}
		if k := len(m.data) - 1; k >= 0 && m.data[k].logical+m.data[k].len == logical && m.data[k].start+m.data[k].len == start {
			m.data[k].len++
			return nil
		}
		m.data = append(m.data, mapped{logical: logical, len: 1, start: start})
		return nil
	}
	per := uint64(fs.blockSize() / 4)
	var walk func(at uint32, logical uint64, level int) error
	walk = func(at uint32, logical uint64, level int) error {
		if at == 0 {
			return nil
		}
		if seen[at] {
			return damaged("indirect block %d is used twice", at)
		}
		seen[at] = true
		b, err := m.read(fs, uint64(at))
		if err != nil {
			return err
		}
		span := uint64(1)
		for range level - 1 {
			span *= per
		}
		for i := range per {
			child := binary.LittleEndian.Uint32(b[i*4:])
			if level == 1 {
				err = add(logical+i, child)
			} else {
				err = walk(child, logical+i*span, level-1)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(n.block[4*i:]) }
	for i := range 12 {
		if err := add(uint64(i), word(i)); err != nil {
			return err
		}
	}
	logical := uint64(12)
	for level := 1; level <= 3; level++ {
		if err := walk(word(11+level), logical, level); err != nil {
			return err
		}
		logical += 1 << (uint(bits.Len64(per)-1) * uint(level))
	}
	return nil
}
