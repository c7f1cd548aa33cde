package ext4

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

func (l *Layout) inodes() uint32 { return uint32(l.groups) * l.inodesPerGroup }

// backups returns the groups but the first that hold copies of the superblock.
func (g *geometry) backups() []uint64 {
	var out []uint64
	for group := uint64(1); group < g.groups; group++ {
		if hasSuper(group) {
			out = append(out, group)
		}
	}
	return out
}

// groupInodes returns how many inodes of a group are in use; they are its
// first ones.
func (l *Layout) groupInodes(group uint64) uint32 {
	first := uint32(group) * l.inodesPerGroup
	if l.usedInodes <= first {
		return 0
	}
	return min(l.usedInodes-first, l.inodesPerGroup)
}

// blocksInit says whether a group needs a block bitmap on disk: not if all it
// holds are copies of the superblock and descriptors. The last always does.
func (l *Layout) blocksInit(group uint64) bool {
	return uint64(l.groupUsed[group]) != l.superBlocks(group) || group == l.groups-1
}

func (l *Layout) fillBlockBitmap(b []byte, group uint64) {
	clear(b)
	first := group * blocksPerGroup
	i, _ := slices.BinarySearchFunc(l.used, first, func(r run, at uint64) int { return cmp.Compare(r.start+r.len-1, at) })
	for _, r := range l.used[i:] {
		if r.start >= first+blocksPerGroup {
			break
		}
		from := max(r.start, first) - first
		setBits(b, from, min(r.start+r.len-first, blocksPerGroup))
	}
	setBits(b, l.groupBlocks(group), blocksPerGroup)
}

func (l *Layout) fillInodeBitmap(b []byte, group uint64) {
	clear(b)
	setBits(b, 0, uint64(l.groupInodes(group)))
	setBits(b, uint64(l.inodesPerGroup), blocksPerGroup)
}

func setBits(b []byte, from, to uint64) {
	for ; from < to && from%8 != 0; from++ {
		b[from/8] |= 1 << (from % 8)
	}
	for ; from+8 <= to; from += 8 {
		b[from/8] = 0xff
	}
	for ; from < to; from++ {
		b[from/8] |= 1 << (from % 8)
	}
}

// fillDind fills the resize inode's only block: it points to the reserved
// descriptor blocks, which are indirect blocks in turn.
func (l *Layout) fillDind(b []byte, _ int64) error {
	clear(b)
	for i := range l.reserved {
		at := l.descBlocks + i
		binary.LittleEndian.PutUint32(b[at%addrsPerBlock*4:], uint32(1+at))
	}
	return nil
}

// fillReserved fills reserved descriptor blocks of the first group: each
// points to its counterparts in the other groups with superblocks.
func (l *Layout) fillReserved(b []byte, off int64) error {
	clear(b)
	backups := l.backups()
	for ; len(b) > 0; b, off = b[blockSize:], off+blockSize {
		self := 1 + l.descBlocks + uint64(off)>>blockShift
		for i, group := range backups {
			binary.LittleEndian.PutUint32(b[i*4:], uint32(group*blocksPerGroup+self))
		}
	}
	return nil
}

// fillJournal fills the journal's superblock; journal.rst, all big-endian.
func (l *Layout) fillJournal(b []byte, _ int64) error {
	clear(b)
	be := binary.BigEndian
	be.PutUint32(b[0x0:], journalMagic)
	be.PutUint32(b[0x4:], 4) // a superblock of version 2
	be.PutUint32(b[0xc:], blockSize)
	be.PutUint32(b[0x10:], uint32(l.journalBlocks))
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first sequence number expected
	copy(b[0x30:], l.opts.UUID[:])
	be.PutUint32(b[0x40:], 1) // users
	return nil
}

// addSupers adds superblock and descriptors of all groups that hold them.
func (l *Layout) addSupers() {
	descs := make([]byte, l.descBlocks<<blockShift)
	bitmap := make([]byte, blockSize)
	for group := range l.groups {
		l.encodeDesc(descs[group*descSize:][:descSize], group, bitmap)
	}
	for _, group := range append([]uint64{0}, l.backups()...) {
		l.add(run{group * blocksPerGroup, 1 + l.descBlocks}, func(b []byte, off int64) error {
			if off == 0 {
				clear(b[:blockSize])
				at := 0
				if group == 0 {
					at = 1024 // after what may be a boot sector
				}
				copy(b[at:], l.encodeSuper(group))
				b, off = b[blockSize:], blockSize
			}
			copy(b, descs[off-blockSize:])
			return nil
		})
	}
	l.add(run{1 + l.descBlocks, l.reserved}, l.fillReserved)
}

func (l *Layout) encodeDesc(b []byte, group uint64, bitmap []byte) {
	usedInodes := l.groupInodes(group)
	freeBlocks := uint32(l.groupBlocks(group)) - l.groupUsed[group]
	freeInodes := l.inodesPerGroup - usedInodes
	d := groupDesc{
		BlockBitmapLo: lo(l.blockBitmap(group)), BlockBitmapHi: hi(l.blockBitmap(group)),
		InodeBitmapLo: lo(l.inodeBitmap(group)), InodeBitmapHi: hi(l.inodeBitmap(group)),
		InodeTableLo: lo(l.inodeTable(group)), InodeTableHi: hi(l.inodeTable(group)),
		FreeBlocksLo: uint16(freeBlocks), FreeBlocksHi: uint16(freeBlocks >> 16),
		FreeInodesLo: uint16(freeInodes), FreeInodesHi: uint16(freeInodes >> 16),
		ItableUnusedLo: uint16(freeInodes), ItableUnusedHi: uint16(freeInodes >> 16),
		UsedDirsLo: uint16(l.dirs[group]), UsedDirsHi: uint16(l.dirs[group] >> 16),
		Flags: groupZeroed,
	}
	if l.blocksInit(group) {
		l.fillBlockBitmap(bitmap, group)
		crc := crc32c(l.seed, bitmap)
		d.BlockCsumLo, d.BlockCsumHi = uint16(crc), uint16(crc>>16)
	} else {
		d.Flags |= groupBlockUninit
	}
	if usedInodes > 0 {
		l.fillInodeBitmap(bitmap, group)
		crc := crc32c(l.seed, bitmap[:l.inodesPerGroup/8])
		d.InodeCsumLo, d.InodeCsumHi = uint16(crc), uint16(crc>>16)
	} else {
		d.Flags |= groupInodeUninit
	}
	encodeStruct(b, d)
	d.Checksum = descChecksum(b, uint32(group), l.seed)
	encodeStruct(b, d)
}

// descChecksum covers the group's number and its descriptor, whose own
// checksum field counts as zero.
func descChecksum(b []byte, group, seed uint32) uint16 {
	const at = 0x1e
	crc := crc32c(seed, binary.LittleEndian.AppendUint32(nil, group))
	crc = crc32c(crc, b[:at])
	crc = crc32c(crc, make([]byte, 2))
	return uint16(crc32c(crc, b[at+2:]))
}

func encodeStruct(b []byte, v any) {
	if _, err := binary.Encode(b, binary.LittleEndian, v); err != nil {
		panic(err) // only for a buffer that is too short
	}
}

func (l *Layout) encodeSuper(group uint64) []byte {
	free := l.blocks - l.usedBlocks()
	reserved := l.blocks / 20
	time := uint32(l.opts.Epoch)
	sb := superblock{
		InodesCount: l.inodes(), FreeInodes: l.inodes() - l.usedInodes,
		BlocksLo: lo(l.blocks), BlocksHi: hi(l.blocks),
		ReservedLo: lo(reserved), ReservedHi: hi(reserved),
		FreeBlocksLo: lo(free), FreeBlocksHi: hi(free),
		LogBlockSize: blockShift - 10, LogClusterSize: blockShift - 10,
		BlocksPerGroup: blocksPerGroup, ClustersPerGroup: blocksPerGroup, InodesPerGroup: l.inodesPerGroup,
		Wtime: time, LastCheck: time, MkfsTime: time,
		MaxMntCount: math.MaxUint16, // no check by number of mounts
		Magic:       superMagic, State: 1, Errors: 1, RevLevel: 1,
		FirstIno: inoFirst, InodeSize: inodeSize, BlockGroup: uint16(group),
		Compat: wantCompat, Incompat: wantIncompat, ROCompat: wantRO,
		UUID: l.opts.UUID, HashSeed: l.opts.HashSeed, HashVersion: hashHalfMD4, Flags: superSignedHash,
		ReservedGDT: uint16(l.reserved), DescSize: descSize, LogGroupsPerFlex: 4,
		JournalInum: inoJournal, JournalBackup: 1,
		MountOpts:     0xc, // user_xattr, acl
		MinExtraIsize: extraIsize, WantExtraIsize: extraIsize,
		ChecksumType: 1, // crc32c
	}
	copy(sb.Label[:], l.opts.Label)
	root, _ := encodeExtents(l.journal, l.journalTree, 0)
	for i := range 15 {
		sb.JournalBlocks[i] = binary.LittleEndian.Uint32(root[4*i:])
	}
	size := l.journalBlocks << blockShift
	sb.JournalBlocks[15], sb.JournalBlocks[16] = hi(size), lo(size)
	sb.Overhead = uint32(l.journalBlocks)
	for _, r := range l.fixed {
		sb.Overhead += uint32(r.len)
	}
	b := make([]byte, 1024)
	encodeStruct(b, sb)
	sb.Checksum = crc32c(math.MaxUint32, b[:1020])
	encodeStruct(b, sb)
	return b
}
