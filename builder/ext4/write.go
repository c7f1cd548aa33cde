package ext4

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"

	"github.com/picube/picube-build/builder/tree"
)

// Result says what was written.
type Result struct {
	Size               int64 // bytes
	Blocks, FreeBlocks int64 // of 4096 bytes
	Inodes, FreeInodes int64
	Used               []tree.Range // what a card must hold
	Written            []tree.Range // the part of it that is not all zeros
}

// Write lays a tree out and writes it; see Plan and Layout.Write. With
// Options.Size 0 the caller makes the file Result.Size long afterwards.
func Write(ctx context.Context, w io.WriterAt, t *tree.Tree, o Options) (Result, error) {
	l, err := Plan(t, o)
	if err != nil {
		return Result{}, err
	}
	return l.Write(ctx, w)
}

// piece is a run of blocks with something to write.
type piece struct {
	run
	// fill overwrites b, whole blocks, with the content from byte off of the
	// piece on. It may run at the same time as others.
	fill func(b []byte, off int64) error
}

// Write writes the file system at ascending offsets to w, which must read as
// zeros wherever it is not written: a new or truncated file. Blocks of zeros
// are not written. Content is read ahead, on all processors.
func (l *Layout) Write(ctx context.Context, w io.WriterAt) (Result, error) {
	res := Result{
		Size: l.Size(), Blocks: int64(l.blocks), FreeBlocks: int64(l.blocks - l.usedBlocks()),
		Inodes: int64(l.inodes()), FreeInodes: int64(l.inodes() - l.usedInodes),
		Used: l.Used(),
	}
	var written []run
	err := l.stream(ctx, func(b []byte, block uint64) error {
		_, err := w.WriteAt(b, int64(block)<<blockShift)
		r := run{block, uint64(len(b)) >> blockShift}
		if k := len(written) - 1; k >= 0 && written[k].start+written[k].len == r.start {
			written[k].len += r.len
			return err
		}
		written = append(written, r)
		return err
	})
	res.Written = ranges(written)
	return res, err
}

const chunkBlocks = 1 << 20 >> blockShift

// chunk is up to 1 MiB of consecutive blocks on their way to the writer.
type chunk struct {
	block uint64
	buf   []byte
	parts []part
	err   chan error // gets the outcome of filling it
}

type part struct {
	*piece
	off    uint64 // blocks into the piece
	blocks uint64
}

func (c *chunk) fill() error {
	at := uint64(0)
	for _, p := range c.parts {
		if err := p.fill(c.buf[at<<blockShift:(at+p.blocks)<<blockShift], int64(p.off)<<blockShift); err != nil {
			return err
		}
		at += p.blocks
	}
	return nil
}

// stream fills chunks in parallel and emits what of them is not zero, in
// ascending order.
func (l *Layout) stream(ctx context.Context, emit func(b []byte, block uint64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := runtime.GOMAXPROCS(0)
	ahead := 2*workers + 2
	free := make(chan []byte, ahead)
	for range ahead {
		free <- nil
	}
	work, queue := make(chan *chunk), make(chan *chunk, ahead)
	done := make(chan struct{}, workers)
	for range workers {
		go func() {
			for c := range work {
				c.err <- c.fill()
			}
			done <- struct{}{}
		}()
	}
	go func() {
		defer close(queue)
		defer close(work)
		for parts := range l.chunks() {
			select {
			case <-ctx.Done():
				return
			case buf := <-free:
				if buf == nil {
					buf = make([]byte, chunkBlocks<<blockShift)
				}
				last := parts[len(parts)-1]
				first := parts[0].start + parts[0].off
				c := &chunk{first, buf[:(last.start+last.off+last.blocks-first)<<blockShift], parts, make(chan error, 1)}
				queue <- c
				work <- c
			}
		}
	}()
	// Contents belong to the caller: none is read once this returns.
	defer func() {
		cancel()
		for range queue {
		}
		for range workers {
			<-done
		}
	}()
	for c := range queue {
		if err := <-c.err; err != nil {
			return err
		}
		if err := emitData(c, emit); err != nil {
			return fmt.Errorf("cannot write the file system: %w", err)
		}
		free <- c.buf[:cap(c.buf)]
	}
	return ctx.Err()
}

// emitData passes on the runs of blocks that are not zero.
func emitData(c *chunk, emit func([]byte, uint64) error) error {
	var zero [blockSize]byte
	start := -1
	for at := 0; at <= len(c.buf); at += blockSize {
		data := at < len(c.buf) && !bytes.Equal(c.buf[at:at+blockSize], zero[:])
		switch {
		case data && start < 0:
			start = at
		case !data && start >= 0:
			if err := emit(c.buf[start:at], c.block+uint64(start)>>blockShift); err != nil {
				return err
			}
			start = -1
		}
	}
	return nil
}

// chunks iterates over the pieces cut and joined to chunks.
func (l *Layout) chunks() func(func([]part) bool) {
	return func(yield func([]part) bool) {
		var parts []part
		var end, n uint64
		flush := func() bool {
			ok := len(parts) == 0 || yield(parts)
			parts, n = nil, 0
			return ok
		}
		for i := range l.pieces {
			p := &l.pieces[i]
			for off := uint64(0); off < p.len; {
				if n == chunkBlocks || n > 0 && end != p.start+off {
					if !flush() {
						return
					}
				}
				take := min(p.len-off, chunkBlocks-n)
				parts = append(parts, part{p, off, take})
				off, n = off+take, n+take
				end = p.start + off
			}
		}
		flush()
	}
}

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

// arrange lists all that is to be written, in ascending order.
func (l *Layout) arrange() {
	l.addSupers()
	l.add(run{l.dind, 1}, l.fillDind)
	l.add(run{l.journal[0].start, 1}, l.fillJournal)
	l.addTree(l.journal, l.journalTree, inoJournal)
	for group := range l.groups {
		if l.blocksInit(group) {
			l.add(run{l.blockBitmap(group), 1}, func(b []byte, _ int64) error { l.fillBlockBitmap(b, group); return nil })
		}
		n := l.groupInodes(group)
		if n == 0 {
			continue
		}
		l.add(run{l.inodeBitmap(group), 1}, func(b []byte, _ int64) error { l.fillInodeBitmap(b, group); return nil })
		first := uint32(group)*l.inodesPerGroup + 1
		l.add(run{l.inodeTable(group), uint64(ceilDiv(n, inodesPerBlock))}, func(b []byte, off int64) error {
			clear(b)
			for i := 0; i < len(b); i += inodeSize {
				l.encodeInode(b[i:i+inodeSize], first+uint32((off+int64(i))/inodeSize))
			}
			return nil
		})
	}
	for _, n := range l.all() {
		l.addTree(n.extents, n.treeBlocks, n.ino)
		if len(n.inBlock) > 0 {
			l.add(run{n.xattrAt, 1}, func(b []byte, _ int64) error {
				clear(b)
				putXattrBlock(b, n.inBlock, n.xattrAt, l.seed)
				return nil
			})
		}
		for _, e := range n.extents {
			l.add(run{e.start, uint64(e.len)}, func(b []byte, off int64) error {
				return l.fillContent(n, b, off+int64(e.logical)<<blockShift)
			})
		}
	}
	slices.SortFunc(l.pieces, func(a, b piece) int { return cmp.Compare(a.start, b.start) })
}

func (l *Layout) add(r run, fill func(b []byte, off int64) error) {
	l.pieces = append(l.pieces, piece{r, fill})
}

// addTree adds the blocks of an extent tree.
func (l *Layout) addTree(extents []extent, blocks []uint64, ino uint32) {
	for i, block := range blocks {
		l.add(run{block, 1}, func(b []byte, _ int64) error {
			_, all := encodeExtents(extents, blocks, inodeSeed(l.seed, ino, 0))
			copy(b, all[i])
			return nil
		})
	}
}

// fillContent reads what a node holds from byte off on.
func (l *Layout) fillContent(n *node, b []byte, off int64) error {
	switch n.Type() {
	case tree.TypeDir:
		clear(b)
		seed := inodeSeed(l.seed, n.ino, 0)
		for i := 0; i < len(b); i += blockSize {
			n.dir.encode(b[i:i+blockSize], int((off+int64(i))>>blockShift), n.ino, n.parent, seed)
		}
		return nil
	case tree.TypeSymlink:
		clear(b[copy(b, n.Target):])
		return nil
	}
	want := b[:min(int64(len(b)), n.Size()-off)]
	clear(b[len(want):])
	got, err := n.Content.ReadAt(want, off)
	if got == len(want) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n.fail(fmt.Errorf("cannot read its content at %d: %w", off+int64(got), err))
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
