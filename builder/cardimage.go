package builder

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/clone"
	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/tree"
)

// bmapSuffix is what bmaptool looks for beside an image, packed or not.
const bmapSuffix = ".img.bmap"

// bootDigest stands for what lies on the boot partition. Files that come from
// the root's shared partition are not read: they follow from the root.
func bootDigest(boot, shared *tree.Tree) (string, error) {
	h := sha256.New()
	for p, n := range boot.All() {
		fmt.Fprintf(h, "%q %o %d %d\n", p, n.Mode, n.ModTime, n.Size())
		if s, err := shared.Lstat(p); n.Content == nil || err == nil && sameContent(n.Content, s.Content) {
			continue
		}
		if _, err := io.Copy(h, io.NewSectionReader(n.Content, 0, n.Size())); err != nil {
			return "", fmt.Errorf("boot partition: %s: %w", p, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func sameContent(a, b tree.Content) bool {
	kind := reflect.TypeOf(a)
	return kind == reflect.TypeOf(b) && kind.Comparable() && a == b
}

// inputs stands for everything that the image is made from.
func (c card) inputs() (string, error) {
	return output.Digest(struct {
		Root, Boot string
		Table      disk.Table
		VolumeID   uint32
		Compress   compress.Format
	}{c.root.key(), c.bootSum, c.table(), c.volumeID, c.compress})
}

// head is what of a card comes before its root file system.
type head struct {
	data []tree.Range // what of it is not zero
	bmap *bmap.Map    // of the boot partition
	mbr  *bmap.Map    // of the first block
}

// writeHead writes the partition table and the boot partition; used ranges may
// hold something else so far.
func (c card) writeHead(ctx context.Context, f interface {
	io.ReaderAt
	io.WriterAt
}, used []tree.Range) (*head, error) {
	defer c.begin("boot partition")()
	table := c.table()
	if err := table.Write(f); err != nil {
		return nil, fmt.Errorf("%s: partition table: %w", c.path, err)
	}
	boot := table.Partitions[0]
	options := fat.Options{Size: boot.Size, Label: bootLabel, VolumeID: c.volumeID, Hidden: uint32(boot.Start / disk.SectorSize)}
	w := &rangeWriter{w: io.NewOffsetWriter(f, boot.Start)}
	if err := fat.Write(w, c.boot, options); err != nil {
		return nil, fmt.Errorf("%s: boot partition: %w", c.path, err)
	}
	h := &head{data: []tree.Range{{Offset: 0, Length: disk.SectorSize}}}
	written := w.merged()
	h.data = append(h.data, shift(written, boot.Start)...)
	if err := clearRest(f, used, h.data); err != nil {
		return nil, fmt.Errorf("%s: cannot clear what was there: %w", c.path, err)
	}
	volume := io.NewSectionReader(f, boot.Start, boot.Size)
	begin, err := fatBegin(volume)
	if err != nil {
		return nil, fmt.Errorf("%s: boot partition: %w", c.path, err)
	}
	if h.bmap, err = bmap.New(ctx, volume, boot.Size, append(written, tree.Range{Offset: 0, Length: begin})); err != nil {
		return nil, fmt.Errorf("%s: boot partition: %w", c.path, err)
	}
	h.mbr, err = bmap.New(ctx, io.NewSectionReader(f, 0, bmap.BlockSize), bmap.BlockSize, h.data[:1])
	return h, err
}

// fatBegin returns where a FAT32's first cluster lies: what comes before has to
// reach a card even where it is zero, since it says which clusters are free
// (fatgen103, "Boot Sector and BPB").
func fatBegin(r io.ReaderAt) (int64, error) {
	var b [disk.SectorSize]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return 0, err
	}
	reserved, count, length := binary.LittleEndian.Uint16(b[14:]), b[16], binary.LittleEndian.Uint32(b[36:])
	return (int64(reserved) + int64(count)*int64(length)) * disk.SectorSize, nil
}

// rangeWriter notes which ranges are written.
type rangeWriter struct {
	w      io.WriterAt
	ranges []tree.Range
}

func (w *rangeWriter) WriteAt(b []byte, off int64) (int, error) {
	w.ranges = append(w.ranges, tree.Range{Offset: off, Length: int64(len(b))})
	return w.w.WriteAt(b, off)
}

// merged returns the ranges, ascending, none touching another.
func (w *rangeWriter) merged() []tree.Range {
	slices.SortFunc(w.ranges, func(a, b tree.Range) int { return cmp.Compare(a.Offset, b.Offset) })
	var out []tree.Range
	for _, r := range w.ranges {
		if k := len(out) - 1; k >= 0 && r.Offset <= out[k].Offset+out[k].Length {
			out[k].Length = max(out[k].Length, r.Offset+r.Length-out[k].Offset)
			continue
		}
		out = append(out, r)
	}
	return out
}

func shift(ranges []tree.Range, by int64) []tree.Range {
	out := make([]tree.Range, len(ranges))
	for i, r := range ranges {
		out[i] = tree.Range{Offset: r.Offset + by, Length: r.Length}
	}
	return out
}

// key stands for everything on the root.
func (r *rootImage) key() string { return filepath.Base(filepath.Dir(r.Path)) }

// writeBmap writes the card's block map: the parts', joined.
func (c card) writeBmap(h *head) error {
	table := c.table()
	m, err := bmap.Join(table.Size(), map[int64]*bmap.Map{
		0: h.mbr, table.Partitions[0].Start: h.bmap, table.Partitions[1].Start: c.root.Map,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	return output.Replace(filepath.Join(filepath.Dir(c.path), c.node.Name+bmapSuffix), m.Encode())
}

// cardReader reads a card that is nowhere as a whole.
type cardReader struct {
	head, root *os.File
	start      int64 // of the root
}

// ReadAt reads zeros behind the root file system, whose partition is longer.
func (r cardReader) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < r.start {
		n = int(min(int64(len(b)), r.start-off))
		if m, err := r.head.ReadAt(b[:n], off); err != nil {
			return m, err
		}
	}
	m, err := 0, error(nil)
	if n < len(b) {
		m, err = r.root.ReadAt(b[n:], off+int64(n)-r.start)
	}
	if errors.Is(err, io.EOF) {
		clear(b[n+m:])
		return len(b), nil
	}
	return n + m, err
}

// copyRoot brings the root file system into the image.
func (c card) copyRoot(ctx context.Context, f, root *os.File) error {
	for _, r := range c.root.Data {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := clone.Copy(f, c.table().Partitions[1].Start+r.Offset, root, r.Offset, r.Length); err != nil {
			return fmt.Errorf("%s: root file system: %w", c.path, err)
		}
	}
	return nil
}

// pack writes the packed image of what r reads. Pieces are kept beside the
// root, which most of them come from.
func (c card) pack(ctx context.Context, f *os.File, r io.ReaderAt) (sum string, size int64, err error) {
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
	kept := keep{filepath.Join(filepath.Dir(c.root.Path), "pieces-"+string(c.compress))}
	if err := c.compress.Begin(w); err != nil {
		return "", 0, err
	}
	pieces, err := compress.Packer{Format: c.compress, Kept: kept}.Pack(ctx, w, r, c.table().Size())
	if err != nil {
		return "", 0, err
	}
	if err := errors.Join(c.compress.End(w, pieces), w.Flush()); err != nil {
		return "", 0, err
	}
	size, err = f.Seek(0, io.SeekCurrent)
	return hex.EncodeToString(h.Sum(nil)), size, err
}
