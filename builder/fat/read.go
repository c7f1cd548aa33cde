package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/text/encoding/charmap"

	"github.com/picube/picube-build/builder/tree"
)

const (
	maxTable = 64 << 20 // bytes of a FAT kept in memory: 512 GiB with clusters of 32 KiB
	maxDepth = 64       // directories within directories; paths on FAT are at most 260 characters
	maxNodes = 1 << 20  // files and directories of one file system
)

// FS is a FAT16 or FAT32 file system.
type FS struct {
	Label    string // as the boot sector has it
	VolumeID uint32

	r    io.ReaderAt
	size int64

	bits        int // 16 or 32
	sector      int64
	cluster     int64 // bytes
	clusters    uint32
	fatStart    int64
	fatSize     int64
	fats        int
	rootStart   int64 // FAT16's root directory
	rootEntries int64
	root        uint32 // FAT32's first cluster of the root directory
	data        int64  // where cluster 2 lies
	info        int64  // FSInfo sector, 0: none
	backup      int64  // copy of the boot sector, 0: none
	table       []byte
	boot        [sectorSize]byte
}

// Open reads the boot sector and the first FAT of the file system in r's
// first size bytes.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	f := &FS{r: r, size: size}
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), f.boot[:]); err != nil {
		return nil, fmt.Errorf("FAT boot sector: cannot read it: %w", err)
	}
	if err := f.parse(); err != nil {
		return nil, fmt.Errorf("FAT boot sector: %w", err)
	}
	f.table = make([]byte, min(f.fatSize, (int64(f.clusters)+firstCluster)*int64(f.bits/8)))
	if err := f.readAt(f.table, f.fatStart); err != nil {
		return nil, fmt.Errorf("FAT: cannot read the table: %w", err)
	}
	return f, nil
}

func (f *FS) parse() error {
	b := f.boot[:]
	if le.Uint16(b[510:]) != bootSignature {
		return errors.New("cannot find the signature 55 AA at its end")
	}
	f.sector = int64(le.Uint16(b[11:]))
	perCluster := int64(b[13])
	if !slices.Contains([]int64{512, 1024, 2048, 4096}, f.sector) || perCluster == 0 || perCluster&(perCluster-1) != 0 {
		return fmt.Errorf("cannot be a FAT file system: %d bytes a sector, %d sectors a cluster", f.sector, perCluster)
	}
	f.cluster = f.sector * perCluster
	reserved := int64(le.Uint16(b[14:]))
	f.fats = int(b[16])
	f.rootEntries = int64(le.Uint16(b[17:]))
	total := int64(le.Uint16(b[19:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	perFAT := int64(le.Uint16(b[22:]))
	wide := perFAT == 0
	if wide {
		perFAT = int64(le.Uint32(b[36:]))
	}
	rootSectors := (f.rootEntries*entrySize + f.sector - 1) / f.sector
	f.fatStart, f.fatSize = reserved*f.sector, perFAT*f.sector
	f.rootStart = f.fatStart + int64(f.fats)*f.fatSize
	f.data = f.rootStart + rootSectors*f.sector
	switch {
	case reserved == 0 || f.fats == 0 || perFAT == 0 || f.data >= total*f.sector:
		return errors.New("cannot be a FAT file system: its parts do not fit into it")
	case total*f.sector > f.size:
		return fmt.Errorf("cannot hold %d bytes in a partition of %d", total*f.sector, f.size)
	}
	clusters := (total*f.sector - f.data) / f.cluster
	extended := b[38:] // the fields that FAT32 has further back
	f.bits = 16
	switch {
	case wide:
		f.bits, extended = 32, b[66:]
		f.root = le.Uint32(b[44:])
		f.info, f.backup = int64(le.Uint16(b[48:]))*f.sector, int64(le.Uint16(b[50:]))*f.sector
	case clusters < 4085:
		return errors.New("cannot read FAT12")
	}
	f.clusters = uint32(min(clusters, maxClusters))
	need := (int64(f.clusters) + firstCluster) * int64(f.bits/8)
	switch {
	case need > f.fatSize:
		return fmt.Errorf("cannot be a FAT file system: a table of %d bytes for %d clusters", f.fatSize, f.clusters)
	case need > maxTable:
		return fmt.Errorf("cannot read a table of %d bytes, the limit is %d", need, int64(maxTable))
	case wide && !f.valid(f.root):
		return fmt.Errorf("cannot find the root directory: cluster %d of %d", f.root, f.clusters)
	}
	if extended[0] == 0x29 {
		f.VolumeID = le.Uint32(extended[1:])
		f.Label = labelText(extended[5:16])
	}
	return nil
}

func labelText(b []byte) string {
	s := strings.TrimRight(oemText(b), " ")
	if s == "NO NAME" {
		return ""
	}
	return s
}

// oemText reads bytes of a short name. Which code page they are in is written
// nowhere; 437 is what Linux and Windows assume.
func oemText(b []byte) string {
	s, _ := charmap.CodePage437.NewDecoder().Bytes(b) // every byte has a meaning
	return string(s)
}

func (f *FS) readAt(b []byte, off int64) error {
	n, err := f.r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (f *FS) valid(cluster uint32) bool {
	return cluster >= firstCluster && cluster-firstCluster < f.clusters
}

// next returns the table's entry for a valid cluster. FAT16's special values
// are returned as FAT32's.
func (f *FS) next(cluster uint32) uint32 {
	if f.bits == 32 {
		return le.Uint32(f.table[int(cluster)*4:]) & 0x0FFFFFFF
	}
	v := uint32(le.Uint16(f.table[int(cluster)*2:]))
	if v >= 0xFFF7 {
		v |= 0x0FFF0000
	}
	return v
}

// run is a number of clusters in a row.
type run struct{ first, count uint32 }

// walk reads the directories from the root down, and goes on with what can
// still be read when something is wrong.
type walk struct {
	*FS
	used    []uint64 // bitmap of clusters that a chain holds
	nodes   int
	problem func(path, format string, args ...any) // something cannot be read as it was meant
	flaw    func(path, format string, args ...any) // against the rules, but readable
	visit   func(path string, n *tree.Inode)
}

func (f *FS) newWalk() *walk {
	return &walk{FS: f, used: make([]uint64, f.clusters/64+1)}
}

// chain follows a chain of clusters and takes each for p. Since no cluster is
// taken twice, it ends.
func (w *walk) chain(p string, first uint32) []run {
	var runs []run
	for c := first; ; {
		if !w.valid(c) {
			w.problem(p, "its chain leads to cluster %d of %d", c, w.clusters)
			return runs
		}
		if i := c - firstCluster; w.used[i/64]&(1<<(i%64)) != 0 {
			w.problem(p, "its cluster %d belongs to another file or chain too", c)
			return runs
		} else {
			w.used[i/64] |= 1 << (i % 64)
		}
		if n := len(runs); n > 0 && runs[n-1].first+runs[n-1].count == c {
			runs[n-1].count++
		} else {
			runs = append(runs, run{c, 1})
		}
		switch c = w.next(c); {
		case c >= 0x0FFFFFF8:
			return runs
		case c == 0x0FFFFFF7:
			w.problem(p, "its chain leads to a bad cluster")
			return runs
		case c == 0:
			w.problem(p, "its chain leads to a free cluster")
			return runs
		}
	}
}

func clustersIn(runs []run) (n int64) {
	for _, r := range runs {
		n += int64(r.count)
	}
	return n
}

// start reads the root directory and all below it.
func (w *walk) start() {
	if w.bits == 16 {
		b := make([]byte, w.rootEntries*entrySize)
		if err := w.readAt(b, w.rootStart); err != nil {
			w.problem("/", "cannot read the root directory: %w", err)
			return
		}
		w.entries("/", b, 0, 0)
		return
	}
	w.directory("/", w.root, 0, 0)
}

// directory reads the directory that begins at cluster first and all below
// it; parent is what its ".." must say.
func (w *walk) directory(p string, first, parent uint32, depth int) {
	runs := w.chain(p, first)
	if len(runs) == 0 {
		return
	}
	size := clustersIn(runs) * w.cluster
	if size > maxDirEntries*entrySize {
		// A cluster may be larger than the entries that fill it.
		size = maxDirEntries * entrySize
		if clustersIn(runs) > (size+w.cluster-1)/w.cluster {
			w.problem(p, "the directory is longer than %d bytes", size)
		}
	}
	b := make([]byte, size)
	if err := w.readAtRuns(b, runs); err != nil {
		w.problem(p, "cannot read the directory: %w", err)
		return
	}
	if p == "/" {
		first = 0 // what ".." of its children must say, wherever the root lies
	} else {
		w.dots(p, b, first, parent)
	}
	w.entries(p, b, first, depth)
}

func (w *walk) readAtRuns(b []byte, runs []run) error {
	_, err := io.ReadFull(io.NewSectionReader(&file{w.FS, runs, int64(len(b))}, 0, int64(len(b))), b)
	return err
}

// dots checks a directory's "." and "..".
func (w *walk) dots(p string, b []byte, first, parent uint32) {
	for i, want := range []struct {
		name    string
		cluster uint32
	}{{".", first}, {"..", parent}} {
		e := b[i*entrySize:]
		if [11]byte(e[:11]) != pack(want.name, "") || e[11]&attrDir == 0 || w.firstOf(e) != want.cluster {
			w.flaw(p, "its entry %q is wrong", want.name)
		}
	}
}

func (f *FS) firstOf(e []byte) uint32 {
	first := uint32(le.Uint16(e[26:]))
	if f.bits == 32 {
		first |= uint32(le.Uint16(e[20:])) << 16
	}
	return first
}

// entries reads a directory's entries and what they lead to.
func (w *walk) entries(p string, b []byte, self uint32, depth int) {
	seen := map[string]bool{}
	var long longName
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		e := b[:entrySize]
		switch attr := e[11]; {
		case e[0] == 0xE5: // deleted
			long = longName{}
			continue
		case attr&attrLongMask == attrLongName:
			long.add(e)
			continue
		case attr&attrVolumeID != 0:
			long = longName{}
			continue
		case e[0] == '.' && ([11]byte(e[:11]) == pack(".", "") || [11]byte(e[:11]) == pack("..", "")):
			if p == "/" {
				w.flaw(p, "the root directory has an entry %q", strings.TrimRight(string(e[:11]), " "))
			}
			continue
		}
		name := long.text([11]byte(e[:11]))
		long = longName{}
		if name == "" {
			name = shortText(e)
		}
		child := path.Join(p, name)
		if err := checkName(name); err != nil || name == "." || name == ".." {
			w.problem(path.Join(p, fmt.Sprintf("%q", name)), "it has a name that FAT does not allow")
			continue
		}
		folded := strings.ToUpper(name)
		if seen[folded] {
			w.problem(child, "the name is there twice")
			continue
		}
		seen[folded] = true
		if w.nodes++; w.nodes > maxNodes {
			w.problem(p, "there are more than %d files", maxNodes)
			return
		}
		w.node(child, e, self, depth)
	}
}

func (w *walk) node(p string, e []byte, parent uint32, depth int) {
	n := &tree.Inode{ModTime: unixTime(le.Uint16(e[24:]), le.Uint16(e[22:]))}
	first, size := w.firstOf(e), int64(le.Uint32(e[28:]))
	if e[11]&attrDir != 0 {
		n.Mode = tree.TypeDir | 0o755
		w.visit(p, n)
		if depth+1 == maxDepth {
			w.problem(p, "it is more than %d directories deep", maxDepth)
			return
		}
		w.directory(p, first, parent, depth+1)
		return
	}
	n.Mode = tree.TypeRegular | 0o644
	var runs []run
	if first != 0 {
		runs = w.chain(p, first)
	}
	switch need, have := (size+w.cluster-1)/w.cluster, clustersIn(runs); {
	case have < need:
		w.problem(p, "its %d bytes need %d clusters, but it has %d", size, need, have)
		return
	case have > need:
		w.flaw(p, "its %d bytes need %d clusters, but it has %d", size, need, have)
	}
	n.Content = &file{w.FS, runs, size}
	w.visit(p, n)
}

// longName collects the entries of a long name.
type longName struct {
	units []uint16
	next  byte // sequence number expected next, 0: complete
	sum   byte
	ok    bool
}

func (l *longName) add(e []byte) {
	seq := e[0] & 0x1F
	if e[0]&0x40 != 0 {
		*l = longName{next: seq, sum: e[13], ok: seq >= 1 && seq <= (maxName+unitsPerLFN-1)/unitsPerLFN}
	}
	if !l.ok || seq != l.next || seq == 0 || e[13] != l.sum {
		*l = longName{}
		return
	}
	part := make([]uint16, 0, unitsPerLFN)
	for _, off := range longOffsets {
		u := le.Uint16(e[off:])
		if u == 0 {
			break
		}
		part = append(part, u)
	}
	l.units = append(part, l.units...)
	l.next--
}

// text returns the name if it is whole and belongs to the short one.
func (l *longName) text(short [11]byte) string {
	if !l.ok || l.next != 0 || l.sum != shortSum(short) {
		return ""
	}
	return string(utf16.Decode(l.units))
}

// shortText reads an 8.3 name. Windows NT and Linux keep in byte 12 whether
// base and extension are to be shown in lower case.
func shortText(e []byte) string {
	raw := bytes.Clone(e[:11])
	if raw[0] == 0x05 {
		raw[0] = 0xE5 // since E5 would mean deleted
	}
	base := strings.TrimRight(oemText(raw[:8]), " ")
	ext := strings.TrimRight(oemText(raw[8:]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	return join(base, ext)
}

// file is the content of a file: read when asked for.
type file struct {
	fs   *FS
	runs []run
	size int64
}

func (f *file) Size() int64 { return f.size }

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("cannot read before the beginning")
	}
	read := 0
	at := int64(0) // where the run begins in the file
	for _, r := range f.runs {
		length := min(int64(r.count)*f.fs.cluster, f.size-at)
		if read == len(b) || length <= 0 {
			break
		}
		if skip := off + int64(read) - at; skip < length {
			n := min(int64(len(b)-read), length-skip)
			pos := f.fs.data + int64(r.first-firstCluster)*f.fs.cluster + skip
			if err := f.fs.readAt(b[read:read+int(n)], pos); err != nil {
				return read, err
			}
			read += int(n)
		}
		at += length
	}
	if read < len(b) {
		return read, io.EOF
	}
	return read, nil
}

// Tree returns the file system's files and directories: owned by root, 0644
// and 0755, their content read when asked for. It fails if anything cannot be
// read as it was meant.
func (f *FS) Tree() (*tree.Tree, error) {
	t := tree.New(0)
	var errs []error
	w := f.newWalk()
	w.problem = func(p, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: cannot read it from the FAT file system: "+format, append([]any{p}, args...)...))
	}
	w.flaw = func(string, string, ...any) {}
	w.visit = func(p string, n *tree.Inode) {
		if err := t.Put(p, n); err != nil {
			errs = append(errs, err)
		}
	}
	w.start()
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return t, nil
}

// Check looks for what fsck.vfat looks for: chains that cross, break off or
// do not fit the length, lost clusters, directories without proper "." and
// "..", differing FATs, a boot sector that differs from its copy, a wrong
// summary of free clusters. The error lists everything it found.
func (f *FS) Check() error {
	var errs []error
	w := f.newWalk()
	w.problem = func(p, format string, args ...any) {
		errs = append(errs, fmt.Errorf("FAT: %s: "+format, append([]any{p}, args...)...))
	}
	w.flaw = w.problem
	w.visit = func(string, *tree.Inode) {}
	w.start()
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("FAT: "+format, args...))
	}
	free, lost := uint32(0), uint32(0)
	for i := range f.clusters {
		switch v := f.next(i + firstCluster); {
		case v == 0:
			free++
		case v != 0x0FFFFFF7 && w.used[i/64]&(1<<(i%64)) == 0:
			lost++
		}
	}
	if lost > 0 {
		fault("%d clusters belong to no file", lost)
	}
	second := make([]byte, len(f.table))
	for i := 1; i < f.fats; i++ {
		if err := f.readAt(second, f.fatStart+int64(i)*f.fatSize); err != nil {
			fault("cannot read table %d: %w", i+1, err)
		} else if !bytes.Equal(f.table, second) {
			fault("table %d differs from the first", i+1)
		}
	}
	if f.table[0] != f.boot[21] {
		fault("the table begins with media descriptor %#02x, the boot sector says %#02x", f.table[0], f.boot[21])
	}
	if f.bits == 32 {
		f.checkBootRecord(free, fault)
	}
	return errors.Join(errs...)
}

func (f *FS) checkBootRecord(free uint32, fault func(string, ...any)) {
	b := make([]byte, sectorSize)
	if f.backup != 0 && f.backup != 0xFFFF*f.sector {
		if err := f.readAt(b, f.backup); err != nil {
			fault("cannot read the copy of the boot sector: %w", err)
		} else if !bytes.Equal(b, f.boot[:]) {
			fault("the boot sector differs from its copy")
		}
	}
	if f.info == 0 || f.info == 0xFFFF*f.sector {
		return
	}
	if err := f.readAt(b, f.info); err != nil {
		fault("cannot read the FSInfo sector: %w", err)
		return
	}
	if le.Uint32(b) != fsInfoLead || le.Uint32(b[484:]) != fsInfoStruct || le.Uint32(b[508:]) != fsInfoTrail {
		fault("the FSInfo sector has no signature")
		return
	}
	if said := le.Uint32(b[488:]); said != free && said != 0xFFFFFFFF {
		fault("the FSInfo sector says %d free clusters, there are %d", said, free)
	}
}
