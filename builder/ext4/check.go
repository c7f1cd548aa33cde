package ext4

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// maxFaults bounds how many faults Check collects.
const maxFaults = 100

// Check verifies the file system as e2fsck -fn does, unless it allocates by
// clusters (bigalloc), which it refuses: all checksums, every
// inode and its map of blocks, directories and their indexes, link counts,
// bitmaps against what is used, and all counts. It returns nil or an error
// that lists all faults, at most 100, sorted. It changes nothing.
func (fs *FS) Check(ctx context.Context) error {
	if fs.bigalloc() {
		return errors.New("cannot check a file system with bigalloc")
	}
	c := &checker{
		fs:    fs,
		used:  newBitset(fs.blocks),
		files: map[uint32]*checked{},
		table: &inodes{fs: fs},
	}
	for _, step := range []func(context.Context){c.groups, c.inodes, c.directories, c.links, c.bitmaps} {
		step(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return c.result()
}

// checker collects what the parts of a file system say about each other.
type checker struct {
	fs     *FS
	used   bitset // blocks
	files  map[uint32]*checked
	table  *inodes
	faults []fault
	more   int
}

// fault is something wrong, with an inode if that is known.
type fault struct {
	ino  uint32
	text string
}

// checked is an inode in use and what was seen of it.
type checked struct {
	dir, listed bool
	broken      bool // what it says can't be trusted
	kind        uint8
	links       uint32 // as stored
	found       uint32 // as counted
	name        string
	parent      uint32
}

type bitset []uint64

func newBitset(n uint64) bitset    { return make(bitset, ceilDiv[uint64](n, 64)) }
func (b bitset) has(i uint64) bool { return b[i/64]>>(i%64)&1 != 0 }
func (b bitset) set(i uint64)      { b[i/64] |= 1 << (i % 64) }

func (c *checker) fault(format string, args ...any) { c.faultOf(0, format, args...) }

// faultOf is fault for an inode, whose path may become known later.
func (c *checker) faultOf(ino uint32, format string, args ...any) {
	if len(c.faults) >= maxFaults {
		c.more++
		return
	}
	c.faults = append(c.faults, fault{ino, fmt.Sprintf(format, args...)})
}

func (c *checker) result() error {
	if len(c.faults) == 0 {
		return nil
	}
	var texts []string
	for _, f := range c.faults {
		if f.ino != 0 {
			f.text = c.nameOf(f.ino) + ": " + f.text
		}
		texts = append(texts, f.text)
	}
	slices.Sort(texts)
	if c.more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", c.more))
	}
	return errors.New(strings.Join(texts, "\n"))
}

// nameOf returns an inode's path if it has one.
func (c *checker) nameOf(ino uint32) string {
	if f := c.files[ino]; f != nil && f.listed {
		return c.path(ino)
	}
	return fmt.Sprintf("inode %d", ino)
}

// claim marks blocks as used and returns what is wrong with that.
func (c *checker) claim(start, n uint64) error {
	if start < c.fs.first || start >= c.fs.blocks || n > c.fs.blocks-start {
		return fmt.Errorf("blocks %d to %d are not in the file system", start, start+n-1)
	}
	for i := start; i < start+n; i++ {
		if c.used.has(i) {
			return fmt.Errorf("block %d is used twice", i)
		}
		c.used.set(i)
	}
	return nil
}

// claimFor claims blocks for a part of a group.
func (c *checker) claimFor(part string, group, start, n uint64) {
	if err := c.claim(start, n); err != nil {
		c.fault("group %d: %s: %v", group, part, err)
	}
}

// claimOf claims blocks for an inode.
func (c *checker) claimOf(ino uint32, start, n uint64) {
	if err := c.claim(start, n); err != nil {
		c.faultOf(ino, "%v", err)
	}
}

// groups checks superblock copies and descriptors, and claims what belongs to
// the groups.
func (c *checker) groups(context.Context) {
	fs := c.fs
	perBlock := uint64(fs.blockSize() / fs.descLen)
	descBlocks := ceilDiv(fs.groups, perBlock)
	metaBG := fs.sb.Incompat&incompatMetaBG != 0
	for group := range fs.groups {
		at := fs.groupStart(group)
		super := fs.groupHasSuper(group)
		if super {
			c.claimFor("superblock", group, at, 1)
			c.superCopy(group)
		}
		switch {
		case !metaBG || group/perBlock < uint64(fs.sb.FirstMetaBG):
			if super {
				n := descBlocks
				if metaBG {
					n = min(n, uint64(fs.sb.FirstMetaBG))
				}
				c.claimFor("descriptors", group, at+1, n+uint64(fs.sb.ReservedGDT))
			}
		case group%perBlock <= 1 || group%perBlock == perBlock-1: // first, second and last of a meta group
			if super {
				at++
			}
			c.claimFor("descriptors", group, at, 1)
		}
		d := fs.desc(group)
		if !c.descOK(group) {
			c.fault("group %d: wrong checksum of its descriptor", group)
		}
		table, n := fs.inodeTable(group)
		c.claimFor("block bitmap", group, join(d.BlockBitmapLo, d.BlockBitmapHi), 1)
		c.claimFor("inode bitmap", group, join(d.InodeBitmapLo, d.InodeBitmapHi), 1)
		c.claimFor("inode table", group, table, n)
	}
	if fs.sb.Incompat&incompatMMP != 0 {
		c.claimFor("multiple mount protection", 0, fs.sb.MMPBlock, 1)
	}
}

func (c *checker) descOK(group uint64) bool {
	fs := c.fs
	raw := fs.rawDesc(group)
	want := binary.LittleEndian.Uint16(raw[0x1e:])
	switch {
	case fs.checksums():
		return descChecksum(raw, uint32(group), fs.seed) == want
	case fs.sb.ROCompat&roGDTCsum != 0:
		crc := crc16(math.MaxUint16, fs.sb.UUID[:])
		crc = crc16(crc, binary.LittleEndian.AppendUint32(nil, uint32(group)))
		crc = crc16(crc, raw[:0x1e])
		return crc16(crc, raw[0x20:]) == want
	}
	return true
}

// crc16 is the CRC-16 of uninit_bg: polynomial 0x8005, bits reversed.
func crc16(crc uint16, b []byte) uint16 {
	for _, v := range b {
		crc ^= uint16(v)
		for range 8 {
			crc = crc>>1 ^ -(crc&1)&0xa001
		}
	}
	return crc
}

// superCopy checks a copy of the superblock; only what never changes can be
// compared, the kernel does not update copies.
func (c *checker) superCopy(group uint64) {
	fs := c.fs
	if group == 0 {
		return // Open has read it
	}
	b, err := fs.block(fs.groupStart(group))
	if err != nil {
		c.fault("group %d: superblock: %v", group, err)
		return
	}
	var sb superblock
	decodeStruct(b, &sb)
	switch {
	case sb.Magic != superMagic:
		c.fault("group %d: superblock: wrong magic number", group)
	case fs.checksums() && sb.Checksum != crc32c(math.MaxUint32, b[:1020]):
		c.fault("group %d: superblock: wrong checksum", group)
	case sb.UUID != fs.sb.UUID || sb.LogBlockSize != fs.sb.LogBlockSize || sb.InodesPerGroup != fs.sb.InodesPerGroup:
		c.fault("group %d: superblock: does not fit the first", group)
	}
}

// bitmap reads a bitmap and verifies its checksum; nil if it can't be used.
func (c *checker) bitmap(part string, group, at, bitCount uint64, sum uint32) []byte {
	b, err := c.fs.block(at)
	if err != nil {
		c.fault("group %d: %s: %v", group, part, err)
		return nil
	}
	if c.fs.checksums() {
		got := crc32c(c.fs.seed, b[:bitCount/8])
		if c.fs.descLen < descSize {
			got &= math.MaxUint16
		}
		if got != sum {
			c.fault("group %d: %s: wrong checksum", group, part)
			return nil
		}
	}
	return b
}

func bit(b []byte, i uint64) bool { return b[i/8]>>(i%8)&1 != 0 }

// inodes checks every inode that its bitmap says is in use, and that the
// others are not.
func (c *checker) inodes(ctx context.Context) {
	fs := c.fs
	perGroup := uint64(fs.sb.InodesPerGroup)
	var freeTotal uint64
	for group := range fs.groups {
		if ctx.Err() != nil {
			return
		}
		d := fs.desc(group)
		free := perGroup
		var bitmap []byte
		uninit := d.Flags&groupInodeUninit != 0 && fs.sb.ROCompat&(roMetadataCsum|roGDTCsum) != 0
		if !uninit {
			sum := uint32(d.InodeCsumLo) | uint32(d.InodeCsumHi)<<16
			if bitmap = c.bitmap("inode bitmap", group, join(d.InodeBitmapLo, d.InodeBitmapHi), perGroup, sum); bitmap == nil {
				continue
			}
		}
		dirs := uint32(0)
		last := uint64(0)
		for i := range perGroup {
			if uninit || !bit(bitmap, i) {
				continue
			}
			free--
			last = i + 1
			if c.inode(uint32(group*perGroup + i + 1)) {
				dirs++
			}
		}
		freeTotal += free
		if got := uint64(d.FreeInodesLo) | uint64(d.FreeInodesHi)<<16; got != free {
			c.fault("group %d: says that %d inodes are free, %d are", group, got, free)
		}
		if got := uint32(d.UsedDirsLo) | uint32(d.UsedDirsHi)<<16; got != dirs {
			c.fault("group %d: says that it has %d directories, it has %d", group, got, dirs)
		}
		unused := uint64(d.ItableUnusedLo) | uint64(d.ItableUnusedHi)<<16
		if fs.sb.ROCompat&(roMetadataCsum|roGDTCsum) != 0 && unused > perGroup-last {
			c.fault("group %d: says that its last %d inodes are unused, %d are", group, unused, perGroup-last)
		}
	}
	if uint64(fs.sb.FreeInodes) != freeTotal && !fs.dirty {
		c.fault("superblock: says that %d inodes are free, %d are", fs.sb.FreeInodes, freeTotal)
	}
}

// inode checks an inode that is in use and claims its blocks; it reports
// whether it is a directory.
func (c *checker) inode(ino uint32) (dir bool) {
	fs := c.fs
	in, err := c.table.get(ino)
	reserved := c.reserved(ino)
	if reserved && errors.Is(err, errUnusedInode) {
		return false
	}
	if err != nil {
		c.files[ino] = &checked{broken: true}
		c.faultOf(ino, "%v", err)
		return false
	}
	kind := in.mode & tree.TypeMask
	dir = kind == tree.TypeDir
	if in.links == 0 && !c.orphans() {
		c.faultOf(ino, "in use, but without a name")
	}
	if direntKind(in.mode) == 0 {
		c.files[ino] = &checked{broken: true}
		c.faultOf(ino, "mode %#o", in.mode)
		return false
	}
	if !reserved && in.links > 0 && in.flags&flagEAInode == 0 { // an attribute's inode has no name
		c.files[ino] = &checked{dir: dir, kind: direntKind(in.mode), links: in.links}
	}
	blocks := uint64(0)
	counted := fs.sb.Incompat&incompatEAInode == 0 // else there are those of attributes, which may be shared
	if in.xattrAt != 0 {
		blocks++
		c.claimXattrs(ino, in.xattrAt)
	}
	if _, err := fs.xattrs(in); err != nil {
		c.faultOf(ino, "%v", err)
	}
	if !hasBlocks(in, fs) {
		if counted && in.sectors != blocks<<(fs.shift-9) {
			c.faultOf(ino, "says that it has %d sectors, it has %d", in.sectors, blocks<<(fs.shift-9))
		}
		return dir
	}
	m, err := fs.mapping(in, func(at uint64) error {
		if ino == inoResize && c.used.has(at) {
			return nil // claimed as a reserved descriptor block
		}
		return c.claim(at, 1)
	})
	if err != nil {
		c.files[ino] = &checked{dir: dir, broken: true}
		c.faultOf(ino, "%v", err)
		return dir
	}
	blocks += m.meta
	if ino == inoResize && fs.sb.Compat&compatResize != 0 {
		if err := fs.checkResize(in); err != nil {
			c.faultOf(ino, "%v", err)
		}
	}
	end := uint64(0)
	for _, x := range m.data {
		if ino != inoResize {
			c.claimOf(ino, x.start, x.len)
		}
		blocks += x.len
		if !x.unwritten {
			end = x.logical + x.len
		}
	}
	if counted && in.sectors != blocks<<(fs.shift-9) {
		c.faultOf(ino, "says that it has %d sectors, it has %d", in.sectors, blocks<<(fs.shift-9))
	}
	if size := uint64(in.size+int64(fs.blockSize())-1) >> fs.shift; end > size && ino != inoResize && in.flags&flagVerity == 0 {
		c.faultOf(ino, "has data beyond its %d bytes", in.size)
	}
	return dir
}

// checkResize verifies that the resize inode leads to all descriptor blocks
// that are reserved for growing.
func (fs *FS) checkResize(in *inode) error {
	le := binary.LittleEndian
	per := uint64(fs.blockSize() / 4)
	descBlocks := ceilDiv(fs.groups, uint64(fs.blockSize()/fs.descLen))
	dind, err := fs.block(uint64(le.Uint32(in.block[13*4:])))
	if err != nil {
		return err
	}
	for i := range uint64(fs.sb.ReservedGDT) {
		at := fs.first + 1 + descBlocks + i
		if got := le.Uint32(dind[(descBlocks+i)%per*4:]); uint64(got) != at {
			return damaged("leads to block %d instead of reserved descriptor block %d", got, at)
		}
		b, err := fs.block(at)
		if err != nil {
			return err
		}
		for group := uint64(1); group < fs.groups && len(b) > 0; group++ {
			if !fs.groupHasSuper(group) {
				continue
			}
			if got, want := uint64(le.Uint32(b)), fs.groupStart(group)-fs.first+at; got != want {
				return damaged("leads to block %d instead of reserved descriptor block %d", got, want)
			}
			b = b[4:]
		}
	}
	return nil
}

// hasBlocks says whether an inode's 60 bytes are a map of blocks.
func hasBlocks(in *inode, fs *FS) bool {
	if in.flags&flagInline != 0 {
		return false
	}
	switch in.mode & tree.TypeMask {
	case tree.TypeRegular, tree.TypeDir:
		return true
	case tree.TypeSymlink:
		return !fs.fastLink(in)
	}
	return false
}

// reserved says whether an inode has a purpose of its own and no name.
func (c *checker) reserved(ino uint32) bool {
	sb := &c.fs.sb
	return ino < max(sb.FirstIno, inoFirst) && ino != inoRoot ||
		sb.Compat&compatOrphan != 0 && ino == sb.OrphanFile ||
		sb.ROCompat&roProject != 0 && ino == sb.ProjectQuota
}

// orphans says whether inodes may be in use without a name, as on a file
// system that was cut off.
func (c *checker) orphans() bool {
	return c.fs.sb.LastOrphan != 0 || c.fs.sb.ROCompat&roOrphanPresent != 0
}

// claimXattrs claims an attribute block, which inodes may share.
func (c *checker) claimXattrs(ino uint32, at uint64) {
	if c.fs.inside(at, 1) == nil && c.used.has(at) {
		if b, err := c.fs.block(at); err == nil && binary.LittleEndian.Uint32(b) == xattrMagic && binary.LittleEndian.Uint32(b[4:]) > 1 {
			return
		}
	}
	c.claimOf(ino, at, 1)
}

// directories walks from the root down.
func (c *checker) directories(ctx context.Context) {
	root := c.files[inoRoot]
	switch {
	case root == nil:
		c.fault("/: is not there")
		return
	case root.broken:
		return // said before
	case !root.dir:
		c.fault("/: is not a directory")
		return
	}
	root.parent, root.listed = inoRoot, true
	for todo := []uint32{inoRoot}; len(todo) > 0 && ctx.Err() == nil; {
		ino := todo[0]
		todo = append(todo[1:], c.directory(ino)...)
	}
}

// path returns where an inode was found.
func (c *checker) path(ino uint32) string {
	var names []string
	length := 0
	for ; ino != inoRoot; ino = c.files[ino].parent {
		names = append(names, c.files[ino].name)
		if length += len(c.files[ino].name); length > maxPath {
			names = append(names, "…")
			break
		}
	}
	if len(names) == 0 {
		return "/"
	}
	var b strings.Builder
	for _, name := range slices.Backward(names) {
		b.WriteString("/" + name)
	}
	return b.String()
}

// directory checks one and returns the directories in it.
func (c *checker) directory(ino uint32) (below []uint32) {
	fs := c.fs
	self := c.files[ino]
	in, err := c.table.get(ino)
	if err != nil || self.broken {
		return nil // said before
	}
	names := map[string]bool{}
	var leaves []dirBlock
	index := &dirIndex{}
	list := func(entries []dirent) {
		for _, e := range entries {
			if names[e.name] {
				c.fault("%s: is listed twice", c.join(ino, e.name))
				continue
			}
			names[e.name] = true
			below = append(below, c.entry(ino, self, e)...)
		}
	}
	if in.flags&flagInline != 0 {
		entries, err := fs.inlineDir(in)
		if err != nil {
			c.faultOf(ino, "%v", err)
		}
		list(entries)
		return below
	}
	err = fs.dirBlocks(in, nil, func(logical uint64, b []byte) error {
		entries, err := fs.parseDirBlock(in, b)
		if err != nil {
			return err
		}
		if in.flags&flagIndex != 0 {
			if isIndex := index.add(c.fs, in, logical, b); !isIndex {
				leaves = append(leaves, dirBlock{logical, entries})
			}
		}
		list(entries)
		return nil
	})
	if err != nil {
		c.faultOf(ino, "%v", err)
		return below
	}
	if !names["."] || !names[".."] {
		c.faultOf(ino, `lacks "." or ".."`)
	}
	if in.flags&flagIndex != 0 {
		if err := index.check(fs, leaves); err != nil {
			c.faultOf(ino, "%v", err)
		}
	}
	return below
}

func (c *checker) join(dir uint32, name string) string {
	if p := c.path(dir); p != "/" {
		return p + "/" + name
	}
	return "/" + name
}

// entry checks an entry of directory ino; it returns the inode that it names
// if that is a directory.
func (c *checker) entry(ino uint32, self *checked, e dirent) []uint32 {
	child := c.files[e.ino]
	if child == nil {
		c.fault("%s: leads to inode %d, which is not in use", c.join(ino, e.name), e.ino)
		return nil
	}
	child.found++
	switch e.name {
	case ".":
		if e.ino != ino {
			c.fault("%s: leads to inode %d", c.join(ino, e.name), e.ino)
		}
		return nil
	case "..":
		if e.ino != self.parent {
			c.fault("%s: leads to inode %d instead of %d", c.join(ino, e.name), e.ino, self.parent)
		}
		return nil
	}
	if !child.broken && e.kind != child.kind && c.fs.sb.Incompat&incompatType != 0 {
		c.fault("%s: the entry says type %d, the inode %d", c.join(ino, e.name), e.kind, child.kind)
	}
	if child.listed {
		if child.dir {
			c.fault("%s: a directory with two names", c.join(ino, e.name))
		}
		return nil
	}
	child.listed, child.parent, child.name = true, ino, e.name
	if child.dir {
		return []uint32{e.ino}
	}
	return nil
}

// links compares link counts.
func (c *checker) links(context.Context) {
	for _, ino := range slices.Sorted(maps.Keys(c.files)) {
		f := c.files[ino]
		switch {
		case f.broken:
		case !f.listed:
			c.faultOf(ino, "is in no directory")
		case f.dir && f.links == 1 && c.fs.sb.ROCompat&roDirNlink != 0: // too many to count
		case f.links != f.found:
			c.faultOf(ino, "says that it has %d links, it has %d", f.links, f.found)
		}
	}
}

// bitmaps compares the block bitmaps with what was claimed.
func (c *checker) bitmaps(ctx context.Context) {
	fs := c.fs
	var freeTotal uint64
	for group := range fs.groups {
		if ctx.Err() != nil {
			return
		}
		d := fs.desc(group)
		start, n := fs.groupStart(group), fs.groupBlocks(group)
		free := n
		for i := range n {
			if c.used.has(start + i) {
				free--
			}
		}
		freeTotal += free
		if got := uint64(d.FreeBlocksLo) | uint64(d.FreeBlocksHi)<<16; got != free {
			c.fault("group %d: says that %d blocks are free, %d are", group, got, free)
		}
		if d.Flags&groupBlockUninit != 0 && fs.sb.ROCompat&(roMetadataCsum|roGDTCsum) != 0 {
			continue // the count above says whether more is in use than its metadata
		}
		sum := uint32(d.BlockCsumLo) | uint32(d.BlockCsumHi)<<16
		b := c.bitmap("block bitmap", group, join(d.BlockBitmapLo, d.BlockBitmapHi), uint64(fs.sb.BlocksPerGroup), sum)
		if b == nil {
			continue
		}
		for i := range n {
			if used := c.used.has(start + i); used != bit(b, i) {
				if used {
					c.fault("group %d: block bitmap: block %d is in use, but not marked", group, start+i)
				} else {
					c.fault("group %d: block bitmap: block %d is marked, but not in use", group, start+i)
				}
				break
			}
		}
	}
	// The kernel keeps the superblock's counts in memory until it unmounts.
	if got := fs.superFree(); got != freeTotal && !fs.dirty {
		c.fault("superblock: says that %d blocks are free, %d are", got, freeTotal)
	}
}

// dirBlock is a leaf of a hashed directory.
type dirBlock struct {
	logical uint64
	entries []dirent
}

// dirIndex is the index of a hashed directory.
type dirIndex struct {
	version uint8
	levels  int
	root    []indexEntry
	nodes   map[uint32][]indexEntry
	err     error
}

// add notes an index block; it reports whether b is one.
func (x *dirIndex) add(fs *FS, in *inode, logical uint64, b []byte) bool {
	le := binary.LittleEndian
	node := le.Uint32(b) == 0 && int(le.Uint16(b[4:])) == len(b)&0xffff
	if logical != 0 && !node {
		return false
	}
	entries, err := fs.parseIndex(in, b)
	if logical == 0 {
		x.version, x.levels, x.root, x.err = b[24+4], int(b[24+6]), entries, err
		x.nodes = map[uint32][]indexEntry{}
		return true
	}
	if err != nil || entries == nil {
		return false // an empty leaf looks the same where there are no checksums
	}
	x.nodes[uint32(logical)] = entries
	return true
}

// check compares the hashes of all names with the index.
func (x *dirIndex) check(fs *FS, leaves []dirBlock) error {
	if x.err != nil {
		return x.err
	}
	level := x.root
	for range x.levels {
		var down []indexEntry
		for _, e := range level {
			entries := slices.Clone(x.nodes[e.block])
			if len(entries) == 0 {
				return damaged("index without block %d", e.block)
			}
			delete(x.nodes, e.block)
			entries[0].hash = e.hash
			down = append(down, entries...)
		}
		level = down
	}
	if !slices.IsSortedFunc(level, func(a, b indexEntry) int { return cmp.Compare(a.hash, b.hash) }) {
		return damaged("index out of order")
	}
	if x.version != hashHalfMD4 || fs.sb.Flags&superSignedHash == 0 {
		return nil // made with a hash that only other people use
	}
	bounds := map[uint64][2]uint32{}
	for i, e := range level {
		end := uint32(math.MaxUint32)
		if i+1 < len(level) {
			end = level[i+1].hash
		}
		bounds[uint64(e.block)] = [2]uint32{e.hash &^ 1, end}
	}
	seed := hashSeed(fs.sb.HashSeed)
	for _, leaf := range leaves {
		b, ok := bounds[leaf.logical]
		if !ok {
			return damaged("block %d is not in the index", leaf.logical)
		}
		for _, e := range leaf.entries {
			// A next leaf that continues the same hash has bit 0 set.
			if h := halfMD4(e.name, seed); h < b[0] || h >= b[1] {
				return damaged("%q lies in block %d, where the index does not look for it", e.name, leaf.logical)
			}
		}
	}
	return nil
}
