package emulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// The overlay is a qcow2 file on top of a card that is never written: what a
// node changes goes there, and the simulated card may be larger than the
// image. Format: QEMU, docs/interop/qcow2.txt, version 3.
const (
	overlayMagic   = 0x514649fb // "QFI\xfb"
	overlayBits    = 16
	overlayCluster = 1 << overlayBits
	overlayHeader  = 104
	backingFormat  = 0xe2792aca // header extension: the backing file's format
	offsetMask     = 0x00fffffffffffe00
	zeroCluster    = 1
	compressed     = 1 << 62
	// overlayMax is what one cluster of L1 entries covers, far above any card:
	// 8192 entries of 8192 clusters of 64 KiB are 4 TiB; 2 TiB is MBR's limit.
	overlayMax = 2 << 40
)

// createOverlay writes an empty overlay of size bytes over the image.
func createOverlay(name, image string, size int64) error {
	image, err := filepath.Abs(image)
	if err != nil {
		return err
	}
	if len(image) > 1023 {
		return fmt.Errorf("card %s: cannot lie under an overlay: a path of more than 1023 bytes", image)
	}
	if size <= 0 || size > overlayMax {
		return fmt.Errorf("card %s: cannot simulate a card of %d bytes", image, size)
	}
	// Clusters: 0 the header, 1 the table of refcount blocks, 2 the first of
	// them, 3 the L1 table.
	perEntry := int64(overlayCluster) * (overlayCluster / 8)
	b := make([]byte, 4*overlayCluster)
	be := binary.BigEndian
	be.PutUint32(b[0:], overlayMagic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], overlayBits)
	be.PutUint64(b[24:], uint64(size))
	be.PutUint32(b[36:], uint32((size+perEntry-1)/perEntry))
	be.PutUint64(b[40:], 3*overlayCluster)
	be.PutUint64(b[48:], 1*overlayCluster)
	be.PutUint32(b[56:], 1) // clusters of the refcount table
	be.PutUint32(b[96:], 4) // refcounts of 1<<4 bits
	be.PutUint32(b[100:], overlayHeader)
	ext := b[overlayHeader:]
	be.PutUint32(ext[0:], backingFormat)
	be.PutUint32(ext[4:], 3)
	copy(ext[8:], "raw")
	// After it the end marker, 8 bytes of zeros, then the name.
	const nameAt = overlayHeader + 16 + 8
	be.PutUint64(b[8:], nameAt)
	be.PutUint32(b[16:], uint32(len(image)))
	copy(b[nameAt:], image)
	be.PutUint64(b[1*overlayCluster:], 2*overlayCluster)
	for i := range 4 {
		be.PutUint16(b[2*overlayCluster+2*i:], 1)
	}
	return os.WriteFile(name, b, 0o600)
}

// overlay reads a card as its node last left it.
type overlay struct {
	file    *os.File
	backing *os.File
	size    int64
	backed  int64 // the image's size
	l1      []byte
}

// openOverlay opens an overlay that createOverlay made and QEMU has written to.
func openOverlay(name, image string) (*overlay, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	o := &overlay{file: f}
	if err := o.open(image); err != nil {
		return nil, errors.Join(fmt.Errorf("overlay %s: %w", name, err), o.Close())
	}
	return o, nil
}

func (o *overlay) open(image string) error {
	header := make([]byte, overlayHeader)
	if _, err := o.file.ReadAt(header, 0); err != nil {
		return fmt.Errorf("cannot read the header: %w", err)
	}
	be := binary.BigEndian
	if be.Uint32(header) != overlayMagic || be.Uint32(header[20:]) != overlayBits {
		return errors.New("cannot read a file that this program did not make")
	}
	o.size = int64(be.Uint64(header[24:]))
	entries := be.Uint32(header[36:])
	if o.size <= 0 || o.size > overlayMax || entries > overlayCluster/8 {
		return errors.New("cannot read a damaged header")
	}
	o.l1 = make([]byte, 8*entries)
	if _, err := o.file.ReadAt(o.l1, int64(be.Uint64(header[40:])&(1<<62-1))); err != nil {
		return fmt.Errorf("cannot read the L1 table: %w", err)
	}
	var err error
	if o.backing, err = os.Open(image); err != nil {
		return err
	}
	info, err := o.backing.Stat()
	if err != nil {
		return err
	}
	o.backed = info.Size()
	return nil
}

// ReadAt implements io.ReaderAt.
func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("cannot read before the start")
	}
	n := 0
	for n < len(p) {
		if off >= o.size {
			return n, io.EOF
		}
		inside := off % overlayCluster
		part := p[n:min(int64(len(p)), int64(n)+min(overlayCluster-inside, o.size-off))]
		if err := o.readCluster(part, off, inside); err != nil {
			return n, err
		}
		n += len(part)
		off += int64(len(part))
	}
	return n, nil
}

// readCluster fills p, which does not cross a cluster's end.
func (o *overlay) readCluster(p []byte, off, inside int64) error {
	be := binary.BigEndian
	cluster := off >> overlayBits
	i := cluster / (overlayCluster / 8) * 8
	if i+8 > int64(len(o.l1)) {
		return fmt.Errorf("cannot read at %d: outside of the L1 table", off)
	}
	table := be.Uint64(o.l1[i:]) & offsetMask
	if table == 0 {
		return o.readBacking(p, off)
	}
	var entry [8]byte
	if _, err := o.file.ReadAt(entry[:], int64(table)+cluster%(overlayCluster/8)*8); err != nil {
		return fmt.Errorf("cannot read the L2 table for %d: %w", off, err)
	}
	e := be.Uint64(entry[:])
	switch {
	case e&compressed != 0:
		return fmt.Errorf("cannot read a compressed cluster at %d", off)
	case e&zeroCluster != 0:
		clear(p)
		return nil
	case e&offsetMask == 0:
		return o.readBacking(p, off)
	}
	// A cluster that was just given out may end behind the file's end.
	n, err := o.file.ReadAt(p, int64(e&offsetMask)+inside)
	clear(p[n:])
	if err == io.EOF {
		err = nil
	}
	return err
}

func (o *overlay) readBacking(p []byte, off int64) error {
	n := 0
	if off < o.backed {
		var err error
		if n, err = o.backing.ReadAt(p[:min(int64(len(p)), o.backed-off)], off); err != nil && err != io.EOF {
			return err
		}
	}
	clear(p[n:])
	return nil
}

// Close closes both files.
func (o *overlay) Close() error {
	err := o.file.Close()
	if o.backing != nil {
		err = errors.Join(err, o.backing.Close())
	}
	return err
}
