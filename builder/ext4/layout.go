package ext4

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/picube/picube-build/builder/tree"
)

// Options say what a tree does not.
type Options struct {
	// Size of the image in bytes. 0 means just large enough for the tree and
	// Free, in whole MiB.
	Size int64
	// Free is the number of bytes that root can write when Size is 0. It comes
	// on top of what Linux keeps from everybody (keptBack), and includes the
	// twentieth of the file system that is reserved for root, as by mke2fs.
	Free int64
	// Label is the volume name, at most 16 bytes.
	Label string
	// UUID identifies the file system; HashSeed salts directory hashes.
	UUID, HashSeed [16]byte
	// Epoch is when the file system and its own inodes were made, in seconds
	// since 1970.
	Epoch int64
}

// Layout is a tree laid out on disk, ready to be written.
type Layout struct {
	geometry
	opts        Options
	nodes       []*node // by inode number, from inoFirst
	root        *node
	dind        uint64 // the resize inode's double indirect block
	journal     []extent
	journalTree []uint64 // extent tree blocks of the journal
	used        []run    // sorted, merged
	groupUsed   []uint32 // blocks in use, per group
	usedInodes  uint32   // inode numbers 1 to this are in use
	dirs        []uint32 // directories per group
	seed        uint32   // of checksums
	pieces      []piece
}

// node is an inode to be written.
type node struct {
	*tree.Inode
	path       string
	ino        uint32
	parent     uint32 // of a directory
	links      int
	dir        *dirPlan
	inInode    []xattr
	inBlock    []xattr
	xattrAt    uint64
	data       []run // what of the content needs blocks, in blocks of the content
	extents    []extent
	treeBlocks []uint64
}

func (n *node) size() int64 {
	if n.dir != nil {
		return int64(n.dir.blocks()) * blockSize
	}
	return n.Size()
}

func (n *node) fail(err error) error { return fmt.Errorf("%s: %w", n.path, err) }

// Plan lays a tree out. It reads sizes and holes, but no content. The tree
// must not change until the layout is written. A directory /lost+found in the
// tree is used as it is, otherwise one is made.
func Plan(t *tree.Tree, o Options) (*Layout, error) {
	if len(o.Label) > 16 {
		return nil, fmt.Errorf("label %q: longer than 16 bytes", o.Label)
	}
	if o.Size < 0 || o.Free < 0 || o.Size > maxFileBlocks<<blockShift || o.Free > maxFileBlocks<<blockShift/2 {
		return nil, errors.New("cannot make a file system of 16 TiB or more")
	}
	l := &Layout{opts: o, seed: crc32c(math.MaxUint32, o.UUID[:])}
	if err := l.scan(t); err != nil {
		return nil, err
	}
	if o.Size > 0 {
		if missing := l.place(uint64(o.Size) >> blockShift); missing > 0 {
			return nil, fmt.Errorf("cannot fit the tree into %d bytes: at least %d more are needed", o.Size, missing<<blockShift)
		}
	} else if err := l.fit(); err != nil {
		return nil, err
	}
	l.account()
	l.arrange()
	return l, nil
}

// keptBack is the number of blocks that Linux gives to nobody, not even to
// root: what it may need for the extents of data that it has accepted but not
// placed yet (ext4_calculate_resv_clusters in its fs/ext4/super.c).
func keptBack(blocks uint64) uint64 { return min(blocks/50, 4096) }

// fit finds a size that is just large enough. The size of the metadata
// depends on the size, so it is a search; it only ever grows.
func (l *Layout) fit() error {
	const step = 1 << 20 >> blockShift
	for blocks := uint64(step); blocks < maxFileBlocks; {
		missing := l.place(blocks)
		if missing == 0 {
			want := uint64(l.opts.Free+blockSize-1)>>blockShift + keptBack(l.blocks)
			if free := l.blocks - l.usedBlocks(); free < want {
				missing = want - free
			}
		}
		if missing == 0 && l.blocks == blocks {
			return nil
		}
		if missing == 0 { // the last group was too small to be one
			missing = 1
		}
		blocks = ceilDiv(blocks+missing, step) * step
	}
	return errors.New("cannot make a file system of 16 TiB or more")
}

// scan numbers the inodes in path order and plans what does not depend on the
// size of the file system.
func (l *Layout) scan(t *tree.Tree) error {
	epochDir := &tree.Inode{Mode: tree.TypeDir | 0o700, ModTime: l.opts.Epoch}
	lost := &node{Inode: epochDir, path: "/" + lostAndName, ino: inoFirst, parent: inoRoot, links: 2, dir: &dirPlan{spare: lostBlocks - 1}}
	byInode := map[*tree.Inode]*node{}
	var errs []error
	next := uint32(inoFirst)
	l.nodes = []*node{lost}
	for p, in := range t.All() {
		if n := byInode[in]; n != nil {
			n.links++
			continue
		}
		n := &node{Inode: in, path: p, links: 1}
		switch p {
		case "/":
			n.ino, l.root = inoRoot, n
		case lost.path:
			if !in.IsDir() {
				errs = append(errs, n.fail(errors.New("cannot be anything but a directory")))
			}
			n.ino, l.nodes[0] = inoFirst, n
		default:
			next++
			n.ino = next
			l.nodes = append(l.nodes, n)
		}
		byInode[in] = n
		if err := n.check(); err != nil {
			errs = append(errs, n.fail(err))
			continue
		}
		var err error
		if n.inInode, n.inBlock, err = splitXattrs(in.Xattrs); err != nil {
			errs = append(errs, n.fail(err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	l.usedInodes = next
	l.root.parent = inoRoot
	seed := hashSeed(l.opts.HashSeed)
	for _, n := range l.all() {
		if !n.IsDir() {
			if n.links > maxLinks {
				errs = append(errs, n.fail(fmt.Errorf("cannot have more than %d hard links", maxLinks)))
			}
			continue
		}
		if n == lost {
			continue
		}
		n.links = 2
		var entries []dirent
		for name, c := range n.Children() {
			child := byInode[c]
			if c.IsDir() {
				child.parent = n.ino
				n.links++
			}
			entries = append(entries, dirent{name, child.ino, direntKind(c.Mode)})
		}
		if n == l.root && l.nodes[0] == lost {
			n.links++
			entries = append(entries, dirent{lostAndName, inoFirst, direntKind(lost.Mode)})
		}
		plan, err := planDir(entries, seed)
		if err != nil {
			errs = append(errs, n.fail(err))
		}
		if n.ino == inoFirst && !plan.hashed() {
			plan.spare = lostBlocks - 1
		}
		n.dir = &plan
	}
	for _, n := range l.all() {
		var err error
		if n.data, err = n.dataRuns(); err != nil {
			errs = append(errs, n.fail(err))
		}
	}
	return errors.Join(errs...)
}

// check refuses what the format can't hold.
func (n *node) check() error {
	switch n.Type() {
	case tree.TypeRegular:
		if n.Size() < 0 || n.Size() > maxFileBlocks<<blockShift {
			return fmt.Errorf("cannot store a file of %d bytes", n.Size())
		}
	case tree.TypeSymlink:
		if n.Size() == 0 || n.Size() >= blockSize {
			return fmt.Errorf("cannot store a link to a path of %d bytes", n.Size())
		}
	case tree.TypeBlock, tree.TypeChar:
		if n.Major >= 1<<12 || n.Minor >= 1<<20 {
			return fmt.Errorf("cannot store device number %d:%d", n.Major, n.Minor)
		}
	case tree.TypeDir, tree.TypeFifo, tree.TypeSocket:
	default:
		return fmt.Errorf("cannot store an entry of mode %#o", n.Mode)
	}
	return nil
}

// all returns the root and then every other node by inode number.
func (l *Layout) all() []*node { return append([]*node{l.root}, l.nodes...) }

// dataRuns returns the ranges of a node's content that need blocks, in
// blocks, ascending and apart.
func (n *node) dataRuns() ([]run, error) {
	blocks := uint64(ceilDiv(n.size(), blockSize))
	switch n.Type() {
	case tree.TypeDir:
		return []run{{0, blocks}}, nil
	case tree.TypeSymlink:
		if n.Size() < fastLinkLen {
			return nil, nil
		}
		return []run{{0, blocks}}, nil
	case tree.TypeRegular:
	default:
		return nil, nil
	}
	sparse, ok := n.Content.(tree.Sparse)
	if !ok {
		if blocks == 0 {
			return nil, nil
		}
		return []run{{0, blocks}}, nil
	}
	var runs []run
	last := int64(0)
	for _, r := range sparse.Data() {
		if r.Offset < last || r.Length < 0 || r.Length > n.Size()-r.Offset {
			return nil, fmt.Errorf("cannot use its data ranges: %d bytes at %d", r.Length, r.Offset)
		}
		last = r.Offset + r.Length
		if r.Length == 0 {
			continue
		}
		from, to := uint64(r.Offset)>>blockShift, uint64(ceilDiv(last, blockSize))
		if k := len(runs) - 1; k >= 0 && runs[k].start+runs[k].len >= from {
			runs[k].len = to - runs[k].start
			continue
		}
		runs = append(runs, run{from, to - from})
	}
	return runs, nil
}

// geometry is what follows from the number of blocks and inodes.
type geometry struct {
	blocks         uint64
	groups         uint64
	descBlocks     uint64
	reserved       uint64 // descriptor blocks kept for growing
	inodesPerGroup uint32
	tableBlocks    uint64 // inode table per group
	journalBlocks  uint64
	fixed          []run // superblocks, descriptors, bitmaps, tables; sorted
}

// maxTableBlocks keeps the metadata of a flexible group within its first
// group.
const maxTableBlocks = 1900

// makeGeometry returns false if that many inodes do not fit.
func makeGeometry(blocks uint64, inodes uint32) (geometry, bool) {
	for blocks > 0 {
		g := geometry{blocks: blocks, groups: ceilDiv[uint64](blocks, blocksPerGroup)}
		g.descBlocks = ceilDiv[uint64](g.groups, descsPerBlock)
		// Room to grow to 1 TiB or, if that is more, four times the size.
		grown := ceilDiv[uint64](max(1<<40>>blockShift, 4*blocks), blocksPerGroup*descsPerBlock)
		g.reserved = min(grown-g.descBlocks, addrsPerBlock)
		// One inode for 16 KiB as mke2fs does, and some more than the tree has.
		want := max(blocks/4, uint64(inodes)+uint64(inodes)/8+16)
		g.tableBlocks = min(max(ceilDiv(ceilDiv(want, g.groups), inodesPerBlock), 1), maxTableBlocks)
		g.inodesPerGroup = uint32(g.tableBlocks * inodesPerBlock)
		if uint64(g.inodesPerGroup)*g.groups < uint64(inodes) {
			return g, false
		}
		// As mke2fs: a last group that holds hardly more than its own
		// metadata is left out.
		last := blocks % blocksPerGroup
		if last > 0 && last < g.superBlocks(g.groups-1)+2+g.tableBlocks+50 {
			blocks -= last
			continue
		}
		g.journalBlocks = journalBlocks(blocks)
		g.reserve()
		return g, true
	}
	return geometry{}, false
}

// journalBlocks is the journal's size as mke2fs chooses it.
func journalBlocks(blocks uint64) uint64 {
	for _, s := range []struct{ below, journal uint64 }{
		{32768, 1024}, {256 << 10, 4096}, {512 << 10, 8192}, {4 << 20, 16384},
		{8 << 20, 32768}, {16 << 20, 65536}, {32 << 20, 131072},
	} {
		if blocks < s.below {
			return s.journal
		}
	}
	return 262144
}

// superBlocks returns the blocks at the start of a group that hold copies of
// the superblock and the descriptors, or are reserved for them.
func (g *geometry) superBlocks(group uint64) uint64 {
	if !hasSuper(group) {
		return 0
	}
	return 1 + g.descBlocks + g.reserved
}

// flex returns where the metadata of a group's flexible group begins, and its
// first group and number of groups.
func (g *geometry) flex(group uint64) (at, first, n uint64) {
	first = group / flexGroups * flexGroups
	return first*blocksPerGroup + g.superBlocks(first), first, min(flexGroups, g.groups-first)
}

func (g *geometry) blockBitmap(group uint64) uint64 {
	at, first, _ := g.flex(group)
	return at + group - first
}

func (g *geometry) inodeBitmap(group uint64) uint64 {
	at, first, n := g.flex(group)
	return at + n + group - first
}

func (g *geometry) inodeTable(group uint64) uint64 {
	at, first, n := g.flex(group)
	return at + 2*n + (group-first)*g.tableBlocks
}

func (g *geometry) reserve() {
	for group := range g.groups {
		if n := g.superBlocks(group); n > 0 {
			g.fixed = append(g.fixed, run{group * blocksPerGroup, n})
		}
		if at, first, n := g.flex(group); group == first {
			g.fixed = append(g.fixed, run{at, n * (2 + g.tableBlocks)})
		}
	}
	g.fixed = mergeRuns(g.fixed)
}

// groupBlocks returns the number of blocks in a group; the last may be short.
func (g *geometry) groupBlocks(group uint64) uint64 {
	return min(blocksPerGroup, g.blocks-group*blocksPerGroup)
}

// mergeRuns sorts runs and joins neighbours.
func mergeRuns(runs []run) []run {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.start, b.start) })
	var out []run
	for _, r := range runs {
		if k := len(out) - 1; k >= 0 && out[k].start+out[k].len >= r.start {
			out[k].len = max(out[k].len, r.start+r.len-out[k].start)
			continue
		}
		out = append(out, r)
	}
	return out
}

// placer hands out blocks in ascending order around the fixed runs.
type placer struct {
	next  uint64
	fixed []run // those not yet passed
	used  []run
}

func (p *placer) take(n uint64) []run {
	var out []run
	for n > 0 {
		for len(p.fixed) > 0 && p.fixed[0].start <= p.next {
			p.next = max(p.next, p.fixed[0].start+p.fixed[0].len)
			p.fixed = p.fixed[1:]
		}
		got := n
		if len(p.fixed) > 0 {
			got = min(got, p.fixed[0].start-p.next)
		}
		out = append(out, run{p.next, got})
		p.next += got
		n -= got
	}
	return out
}

func (p *placer) keep(runs []run) {
	for _, r := range runs {
		if k := len(p.used) - 1; k >= 0 && p.used[k].start+p.used[k].len == r.start {
			p.used[k].len += r.len
			continue
		}
		p.used = append(p.used, r)
	}
}

func (p *placer) block() uint64 {
	runs := p.take(1)
	p.keep(runs)
	return runs[0].start
}

// file places content with its extent tree in front of it. The number of
// tree blocks depends on where the content comes to lie, so it is tried until
// they are enough; what is too much stays free.
func (p *placer) file(data []run) (extents []extent, treeBlocks []uint64) {
	for reserve := 0; ; {
		at := *p
		var head []run
		if reserve > 0 {
			head = at.take(uint64(reserve))
		}
		extents = extents[:0]
		var runs []run
		for _, d := range data {
			logical := d.start
			for _, r := range at.take(d.len) {
				runs = append(runs, r)
				for r.len > 0 {
					n := min(r.len, maxExtentLen)
					extents = append(extents, extent{uint32(logical), uint32(n), r.start})
					logical, r.start, r.len = logical+n, r.start+n, r.len-n
				}
			}
		}
		need := extentTreeBlocks(len(extents))
		if need > reserve {
			reserve = need
			continue
		}
		for _, r := range head {
			for i := range r.len {
				if len(treeBlocks) < need {
					treeBlocks = append(treeBlocks, r.start+i)
					at.keep([]run{{r.start + i, 1}})
				}
			}
		}
		at.keep(runs)
		*p = at
		return extents, treeBlocks
	}
}

// place gives everything its blocks in a file system of the given size and
// returns how many blocks are missing; 0 means that all is placed.
func (l *Layout) place(blocks uint64) (missing uint64) {
	g, ok := makeGeometry(blocks, l.usedInodes)
	l.geometry = g
	if !ok {
		return ceilDiv[uint64](uint64(l.usedInodes), inodesPerBlock)/2 + 64
	}
	p := placer{fixed: g.fixed}
	l.dind = p.block()
	l.journal, l.journalTree = p.file([]run{{0, g.journalBlocks}})
	// Directories and attributes lie together: looking up a path then moves
	// little.
	for _, wantDir := range []bool{true, false} {
		for _, n := range l.all() {
			if wantDir && len(n.inBlock) > 0 {
				n.xattrAt = p.block()
			}
			if n.IsDir() == wantDir {
				n.extents, n.treeBlocks = p.file(n.data)
			}
		}
	}
	if end := p.next; end > g.blocks {
		return end - g.blocks
	}
	l.used = mergeRuns(append(slices.Clone(g.fixed), p.used...))
	return 0
}

func (l *Layout) usedBlocks() uint64 {
	var n uint64
	for _, r := range l.used {
		n += r.len
	}
	return n
}

// account counts blocks and directories per group.
func (l *Layout) account() {
	l.groupUsed = make([]uint32, l.groups)
	for _, r := range l.used {
		for r.len > 0 {
			group := r.start / blocksPerGroup
			n := min(r.len, (group+1)*blocksPerGroup-r.start)
			l.groupUsed[group] += uint32(n)
			r.start, r.len = r.start+n, r.len-n
		}
	}
	l.dirs = make([]uint32, l.groups)
	for _, n := range l.all() {
		if n.IsDir() {
			l.dirs[(n.ino-1)/l.inodesPerGroup]++
		}
	}
}

// Size returns the size of the file system in bytes. It is less than
// Options.Size if that is no multiple of 4096 or would leave a last group
// that is too small to be used.
func (l *Layout) Size() int64 { return int64(l.blocks) << blockShift }

// Used returns the byte ranges that the file system uses, ascending: what a
// card must hold, whether written or zeros. Everything else is free space.
func (l *Layout) Used() []tree.Range { return ranges(l.used) }

func ranges(runs []run) []tree.Range {
	out := make([]tree.Range, len(runs))
	for i, r := range runs {
		out[i] = tree.Range{Offset: int64(r.start) << blockShift, Length: int64(r.len) << blockShift}
	}
	return out
}
