package fat

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Options say what Write makes.
type Options struct {
	Size     int64  // of the partition in bytes, a multiple of 512, at least MinSize
	Label    string // at most 11 ASCII characters; empty: none
	VolumeID uint32 // what blkid shows as UUID=XXXX-XXXX
	Hidden   uint32 // sectors before the partition, as its boot sector records them
}

// MinSize is the smallest partition that can be FAT32.
const MinSize = 33 << 20

// Write writes a FAT32 file system that holds the tree's directories and
// regular files. w begins at the partition's first byte and must read as zeros
// wherever Write writes nothing. Times are the entries' own, as UTC.
func Write(w io.WriterAt, t *tree.Tree, o Options) error {
	g, err := newGeometry(o)
	if err != nil {
		return err
	}
	p := &writer{w: w, geometry: g, Options: o, next: firstCluster}
	root, err := t.Stat("/")
	if err != nil {
		return err
	}
	top := &item{path: "/", node: root}
	p.plan(top)
	if len(p.errs) > 0 {
		return errors.Join(p.errs...)
	}
	if used := p.next - firstCluster; used > g.clusters {
		return fmt.Errorf("FAT partition of %d bytes: cannot hold %d bytes in files and directories",
			o.Size, int64(used)*g.clusterSize())
	}
	if err := p.boot(); err != nil {
		return err
	}
	if err := p.table(); err != nil {
		return err
	}
	return p.entry(top, top)
}

// geometry is where the parts of a FAT32 file system lie, in sectors.
type geometry struct {
	total, reserved, perFAT uint32
	perCluster              uint32
	clusters                uint32
}

func (g geometry) clusterSize() int64 { return int64(g.perCluster) * sectorSize }

func (g geometry) offset(cluster uint32) int64 {
	first := int64(g.reserved) + 2*int64(g.perFAT)
	return (first + int64(cluster-firstCluster)*int64(g.perCluster)) * sectorSize
}

func newGeometry(o Options) (geometry, error) {
	g := geometry{}
	fail := func(format string, args ...any) (geometry, error) {
		return g, fmt.Errorf("FAT partition of %d bytes: cannot be FAT32: "+format, append([]any{o.Size}, args...)...)
	}
	switch {
	case o.Size < MinSize:
		return fail("it needs at least %d", int64(MinSize))
	case o.Size%sectorSize != 0:
		return fail("the size is no multiple of %d", sectorSize)
	case o.Size/sectorSize > 1<<32-1:
		return fail("it is too large")
	}
	g.total = uint32(o.Size / sectorSize)
	// Cluster sizes as Windows and mkfs.fat choose them.
	switch {
	case o.Size < 260<<20:
		g.perCluster = 1
	case o.Size <= 8<<30:
		g.perCluster = 8
	case o.Size <= 16<<30:
		g.perCluster = 16
	case o.Size <= 32<<30:
		g.perCluster = 32
	default:
		g.perCluster = 64
	}
	// The largest table that can be needed; the file system fills it or not.
	g.perFAT = (g.total/g.perCluster+firstCluster)*4/sectorSize + 1
	// Clusters begin on a multiple of their size, so that one cluster is one
	// page of an SD card.
	g.reserved = minReserved
	if over := (g.reserved + 2*g.perFAT) % g.perCluster; over != 0 {
		g.reserved += g.perCluster - over
	}
	g.clusters = (g.total - g.reserved - 2*g.perFAT) / g.perCluster
	if g.clusters < minClusters || g.clusters > maxClusters {
		return fail("it would have %d clusters", g.clusters)
	}
	return g, nil
}

// item is a file or directory with the clusters it was given: count in a row
// from first on, since everything is written in one go.
type item struct {
	path         string
	name         string
	short        [11]byte
	long         bool
	node         *tree.Inode
	first, count uint32
	children     []*item // directories only
}

type writer struct {
	geometry
	Options
	w     io.WriterAt
	next  uint32 // first cluster not given away yet
	items []*item
	errs  []error
}

func (w *writer) refuse(p, format string, args ...any) {
	w.errs = append(w.errs, fmt.Errorf("%s: cannot be put on a FAT file system: "+format, append([]any{p}, args...)...))
}

// plan gives it and all below it names and clusters, in path order, and
// collects everything that FAT cannot hold.
func (w *writer) plan(it *item) {
	switch n := it.node; {
	case n.IsRegular() && n.Size() > maxFile:
		w.refuse(it.path, "%d bytes are more than a file can have", n.Size())
	case n.IsRegular():
		w.allocate(it, n.Size())
	case n.IsDir():
		w.planDir(it)
	default:
		w.refuse(it.path, "it is neither a file nor a directory")
	}
}

func (w *writer) planDir(it *item) {
	entries := 2 // "." and ".."
	if it.path == "/" {
		entries = 1 // the label
	}
	names := newAliases()
	seen := map[string]string{}
	for name, c := range it.node.Children() {
		child := &item{path: path.Join(it.path, name), name: name, node: c}
		if err := checkName(name); err != nil {
			w.refuse(child.path, "%w", err)
			continue
		}
		folded := strings.ToUpper(name)
		if other, ok := seen[folded]; ok {
			w.refuse(child.path, "its name differs from %s in case only", other)
			continue
		}
		seen[folded] = name
		it.children = append(it.children, child)
	}
	// Names that are short already keep their form whatever long names ask for.
	for _, want := range []bool{true, false} {
		for _, c := range it.children {
			if _, _, lossless := basis(c.name); lossless != want {
				continue
			}
			c.short, c.long = names.alias(c.name)
			entries++
			if c.long {
				entries += len(longEntries(c.name, 0))
			}
		}
	}
	if entries > maxDirEntries {
		w.refuse(it.path, "%d directory entries are more than a directory can have", entries)
		return
	}
	w.allocate(it, max(int64(entries)*entrySize, 1))
	for _, c := range it.children {
		w.plan(c)
	}
}

func (w *writer) allocate(it *item, size int64) {
	it.count = uint32((size + w.clusterSize() - 1) / w.clusterSize())
	if it.count == 0 {
		return
	}
	it.first = w.next
	// Saturates instead of overflowing; Write refuses what does not fit.
	w.next += min(it.count, maxClusters-min(w.next, maxClusters))
	w.items = append(w.items, it)
}

func (w *writer) writeAt(b []byte, off int64) error {
	if _, err := w.w.WriteAt(b, off); err != nil {
		return fmt.Errorf("FAT partition: cannot write at byte %d: %w", off, err)
	}
	return nil
}

// boot writes boot sector, FSInfo sector and their copies.
func (w *writer) boot() error {
	label := pack("NO NAME", "")
	if w.Label != "" {
		copy(label[:], "           ")
		if copy(label[:], w.Label) < len(w.Label) || strings.Trim(w.Label, "\x00") != w.Label {
			return fmt.Errorf("FAT label %q: cannot be longer than 11 characters", w.Label)
		}
	}
	b := make([]byte, 3*sectorSize)
	copy(b, "\xEB\x58\x90MSWIN4.1") // the name that every driver accepts, says fatgen103
	le.PutUint16(b[11:], sectorSize)
	b[13] = byte(w.perCluster)
	le.PutUint16(b[14:], uint16(w.reserved))
	b[16] = 2 // FATs
	b[21] = mediaFixed
	le.PutUint16(b[24:], 63)  // sectors per track and heads: LBA's usual
	le.PutUint16(b[26:], 255) // invention, read by nobody
	le.PutUint32(b[28:], w.Hidden)
	le.PutUint32(b[32:], w.total)
	le.PutUint32(b[36:], w.perFAT)
	le.PutUint32(b[44:], firstCluster) // of the root directory
	le.PutUint16(b[48:], fsInfoSector)
	le.PutUint16(b[50:], backupBootSector)
	b[64] = 0x80 // BIOS drive
	b[66] = 0x29 // the three fields below are there
	le.PutUint32(b[67:], w.VolumeID)
	copy(b[71:], label[:])
	copy(b[82:], "FAT32   ")
	le.PutUint16(b[510:], bootSignature)

	info := b[sectorSize:]
	used := w.next - firstCluster
	le.PutUint32(info, fsInfoLead)
	le.PutUint32(info[484:], fsInfoStruct)
	le.PutUint32(info[488:], w.clusters-used)
	le.PutUint32(info[492:], w.next-1) // the last one given away
	le.PutUint32(info[508:], fsInfoTrail)

	le.PutUint16(b[2*sectorSize+510:], bootSignature) // third sector of the boot record
	if err := w.writeAt(b, 0); err != nil {
		return err
	}
	return w.writeAt(b, backupBootSector*sectorSize)
}

// table writes both FATs as far as clusters are in use.
func (w *writer) table() error {
	fat := make([]byte, int(w.next)*4)
	le.PutUint32(fat, 0x0FFFFF00|mediaFixed)
	le.PutUint32(fat[4:], endOfChain) // cleanly unmounted, no disk errors
	for _, it := range w.items {
		for c := it.first; c < it.first+it.count-1; c++ {
			le.PutUint32(fat[c*4:], c+1)
		}
		le.PutUint32(fat[(it.first+it.count-1)*4:], endOfChain)
	}
	if err := w.writeAt(fat, int64(w.reserved)*sectorSize); err != nil {
		return err
	}
	return w.writeAt(fat, int64(w.reserved+w.perFAT)*sectorSize)
}

// entry writes the clusters of it and of all below it.
func (w *writer) entry(it, parent *item) error {
	if !it.node.IsDir() {
		return w.file(it)
	}
	if err := w.writeAt(w.directory(it, parent), w.offset(it.first)); err != nil {
		return err
	}
	for _, c := range it.children {
		if err := w.entry(c, it); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) directory(it, parent *item) []byte {
	b := make([]byte, 0, int64(it.count)*w.clusterSize())
	add := func(short [11]byte, attr byte, n *tree.Inode, first uint32, size int64) {
		var e [entrySize]byte
		copy(e[:], short[:])
		e[11] = attr
		date, clock, hundredths := fatTime(n.ModTime)
		e[13] = hundredths
		le.PutUint16(e[14:], clock) // created
		le.PutUint16(e[16:], date)
		le.PutUint16(e[18:], date) // last read
		le.PutUint16(e[20:], uint16(first>>16))
		le.PutUint16(e[22:], clock) // last written
		le.PutUint16(e[24:], date)
		le.PutUint16(e[26:], uint16(first))
		le.PutUint32(e[28:], uint32(size))
		b = append(b, e[:]...)
	}
	switch {
	case it.path != "/":
		up := parent.first
		if parent.path == "/" {
			up = 0 // the root goes by 0 here, wherever it lies
		}
		add(pack(".", ""), attrDir, it.node, it.first, 0)
		add(pack("..", ""), attrDir, parent.node, up, 0)
	case w.Label != "":
		var label [11]byte
		copy(label[:], "           ")
		copy(label[:], w.Label)
		add(label, attrVolumeID, it.node, 0, 0)
	}
	for _, c := range it.children {
		if c.long {
			for _, e := range longEntries(c.name, shortSum(c.short)) {
				b = append(b, e[:]...)
			}
		}
		if c.node.IsDir() {
			add(c.short, attrDir, c.node, c.first, 0)
			continue
		}
		add(c.short, attrArchive, c.node, c.first, c.node.Size())
	}
	return b
}

func (w *writer) file(it *item) error {
	if it.count == 0 {
		return nil
	}
	size := it.node.Size()
	n, err := io.CopyBuffer(
		&offsetWriter{w: w.w, off: w.offset(it.first)},
		io.NewSectionReader(it.node.Content, 0, size), make([]byte, min(size, 1<<20)))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: cannot write it to the FAT partition: %w", it.path, err)
	}
	return nil
}

// offsetWriter writes one after the other from off on. It has no ReadFrom, so
// that the copy goes through one buffer.
type offsetWriter struct {
	w   io.WriterAt
	off int64
}

func (o *offsetWriter) Write(b []byte) (int, error) {
	n, err := o.w.WriteAt(b, o.off)
	o.off += int64(n)
	return n, err
}
