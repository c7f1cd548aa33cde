// Package ext4 writes a tree as an ext4 file system in one forward pass, and
// reads and checks ext4 file systems, its own and other people's.
//
// The writer makes what mke2fs of e2fsprogs 1.47 makes by default for larger
// file systems: 4 KiB blocks, a journal, extents, hashed directories, 64-bit
// block numbers, flexible groups and metadata checksums, with enough reserved
// descriptor blocks to be grown online to at least 1 TiB. Everything is laid
// out before the first byte is written: directories first, then file content
// in path order, so that a boot reads forward and the writer never goes back.
//
// It does not write: block sizes other than 4 KiB, bigalloc, inline data,
// quotas, encryption, casefolding, verity, an external journal, or shared
// attribute blocks.
//
// It exists because go-diskfs (v1.9.4) writes no hard links, devices,
// attributes, hashed directories, checksums or room to grow, and is not
// reproducible; hcsshim's tar2ext4 writes read-only images without journal.
//
// The format is that of the Linux kernel's Documentation/filesystems/ext4.
package ext4

import "hash/crc32"

const (
	blockSize      = 4096 // what the writer uses
	blockShift     = 12
	blocksPerGroup = 8 * blockSize
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 64
	descsPerBlock  = blockSize / descSize
	addrsPerBlock  = blockSize / 4
	flexGroups     = 16

	inoBad      = 1
	inoRoot     = 2
	inoResize   = 7
	inoJournal  = 8
	inoFirst    = 11 // the first that is not reserved: lost+found
	lostBlocks  = 4  // so that e2fsck need not allocate when it is needed
	lostAndName = "lost+found"

	superMagic   = 0xEF53
	extentMagic  = 0xF30A
	xattrMagic   = 0xEA020000
	journalMagic = 0xC03B3998

	maxNameLen    = 255
	maxLinks      = 65000
	maxExtentLen  = 32768
	extentsInode  = 4
	extentsBlock  = (blockSize - 12 - 4) / 12
	fastLinkLen   = 60 // targets shorter than this lie in the inode
	extraIsize    = 32
	dirTailLen    = 12
	maxFileBlocks = 1<<32 - 1
)

// Features: compatible, incompatible, and compatible for reading only.
const (
	compatJournal   = 0x4
	compatXattr     = 0x8
	compatResize    = 0x10
	compatDirIndex  = 0x20
	compatSparse2   = 0x200
	compatOrphan    = 0x1000
	incompatType    = 0x2
	incompatRecover = 0x4
	incompatMetaBG  = 0x10
	incompatExtents = 0x40
	incompat64      = 0x80
	incompatMMP     = 0x100
	incompatFlex    = 0x200
	incompatEAInode = 0x400
	incompatSeed    = 0x2000
	incompatLarge   = 0x4000
	incompatInline  = 0x8000
	incompatEncrypt = 0x10000
	incompatFold    = 0x20000
	roSparse        = 0x1
	roLarge         = 0x2
	roHuge          = 0x8
	roGDTCsum       = 0x10
	roDirNlink      = 0x20
	roExtraIsize    = 0x40
	roBigalloc      = 0x200
	roMetadataCsum  = 0x400
	roProject       = 0x2000
	roOrphanPresent = 0x10000

	wantCompat   = compatJournal | compatXattr | compatResize | compatDirIndex
	wantIncompat = incompatType | incompatExtents | incompat64 | incompatFlex
	wantRO       = roSparse | roLarge | roHuge | roDirNlink | roExtraIsize | roMetadataCsum
)

// Inode flags.
const (
	flagEncrypt = 0x800
	flagIndex   = 0x1000
	flagHuge    = 0x40000
	flagExtents = 0x80000
	flagVerity  = 0x100000
	flagEAInode = 0x200000
	flagInline  = 0x10000000
	flagFold    = 0x40000000
)

// Group flags.
const (
	groupInodeUninit = 1
	groupBlockUninit = 2
	groupZeroed      = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the checksum as the kernel chains it: without the inversions at
// both ends that hash/crc32 makes.
func crc32c(crc uint32, b []byte) uint32 { return ^crc32.Update(^crc, castagnoli, b) }

// superblock is struct ext4_super_block, 1024 bytes; fields that nobody here
// needs are blank.
type superblock struct {
	InodesCount                                      uint32
	BlocksLo, ReservedLo, FreeBlocksLo               uint32
	FreeInodes, FirstDataBlock                       uint32
	LogBlockSize, LogClusterSize                     uint32
	BlocksPerGroup, ClustersPerGroup, InodesPerGroup uint32
	Mtime, Wtime                                     uint32
	MntCount, MaxMntCount                            uint16
	Magic, State, Errors, MinorRev                   uint16
	LastCheck, CheckInterval, CreatorOS, RevLevel    uint32
	_                                                [2]uint16
	FirstIno                                         uint32
	InodeSize, BlockGroup                            uint16
	Compat, Incompat, ROCompat                       uint32
	UUID                                             [16]byte
	Label                                            [16]byte
	_                                                [64]byte
	_                                                uint32
	_                                                [2]uint8
	ReservedGDT                                      uint16
	JournalUUID                                      [16]byte
	JournalInum, JournalDev, LastOrphan              uint32
	HashSeed                                         [16]byte
	HashVersion, JournalBackup                       uint8
	DescSize                                         uint16
	MountOpts, FirstMetaBG, MkfsTime                 uint32
	JournalBlocks                                    [17]uint32
	BlocksHi, ReservedHi, FreeBlocksHi               uint32
	MinExtraIsize, WantExtraIsize                    uint16
	Flags                                            uint32
	_                                                [2]uint16
	MMPBlock                                         uint64
	_                                                uint32
	LogGroupsPerFlex, ChecksumType                   uint8
	_                                                [2]uint8
	_                                                uint64
	_                                                [5]uint32
	_                                                [13]uint32
	_                                                [4]uint32
	_                                                [10]uint32
	_                                                [64]byte
	_                                                [2]uint32
	Overhead                                         uint32
	BackupGroups                                     [2]uint32
	_                                                [20]byte
	LostFound, ProjectQuota, ChecksumSeed            uint32
	MtimeHi                                          [8]uint8
	Encoding, EncodingFlags                          uint16
	OrphanFile                                       uint32
	_                                                [94]uint32
	Checksum                                         uint32
}

// groupDesc is struct ext4_group_desc, 64 bytes, of which file systems
// without 64bit store the first 32.
type groupDesc struct {
	BlockBitmapLo, InodeBitmapLo, InodeTableLo             uint32
	FreeBlocksLo, FreeInodesLo, UsedDirsLo, Flags          uint16
	_                                                      uint32
	BlockCsumLo, InodeCsumLo, ItableUnusedLo, Checksum     uint16
	BlockBitmapHi, InodeBitmapHi, InodeTableHi             uint32
	FreeBlocksHi, FreeInodesHi, UsedDirsHi, ItableUnusedHi uint16
	_                                                      uint32
	BlockCsumHi, InodeCsumHi                               uint16
	_                                                      uint32
}

func lo(v uint64) uint32        { return uint32(v) }
func hi(v uint64) uint32        { return uint32(v >> 32) }
func join(lo, hi uint32) uint64 { return uint64(hi)<<32 | uint64(lo) }

// hasSuper says whether a group holds a copy of the superblock and the
// descriptors under sparse_super: 0, 1 and the powers of 3, 5 and 7.
func hasSuper(group uint64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

func ceilDiv[T int | int64 | uint32 | uint64](a, b T) T { return (a + b - 1) / b }
