// Package compress packs images in pieces that stand alone, so that they are
// packed in parallel and that what several images share is packed once: as
// blocks of one .xz stream, members of a .gz file, frames of a .zst file.
//
// The .xz container is our own because ulikunitz/xz, whose LZMA2 encoder is
// used, writes a stream only as a whole and leaves the sizes out of the block
// headers, without which xz -T and others cannot unpack in parallel.
//
// Not supported: levels, checks other than CRC64, filters other than LZMA2.
//
// Formats: tukaani.org, "The .xz File Format" 1.2.1; RFC 1952 (members,
// section 2.2); RFC 8878 (frames, section 3).
package compress

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Format is a kind of compression, named as its files end.
type Format string

// The formats. XZ is the smallest and slowest by far.
const (
	None Format = ""
	XZ   Format = "xz"
	Gzip Format = "gz"
	Zstd Format = "zst"
)

// Formats returns all but None.
func Formats() []Format { return []Format{XZ, Gzip, Zstd} }

// Parse returns the format of a name.
func Parse(name string) (Format, error) {
	if f := Format(name); f == None || slices.Contains(Formats(), f) {
		return f, nil
	}
	return None, fmt.Errorf("cannot compress as %q: choose xz, gz or zst", name)
}

// Suffix returns what file names of the format end with: ".xz", or nothing.
func (f Format) Suffix() string {
	if f == None {
		return ""
	}
	return "." + string(f)
}

// Piece is a part of a packed image that unpacks on its own.
type Piece struct {
	Packed int64 `json:"packed"` // bytes, without the padding behind it
	Size   int64 `json:"size"`   // bytes when unpacked
}

// pieceSize is how much makes a piece: as much as the .xz dictionary holds, so
// that cutting costs little.
const pieceSize = 8 << 20

// maxWorkers bounds the memory: an .xz encoder takes about 60 MiB.
const maxWorkers = 4

// Begin writes what comes before the pieces.
func (f Format) Begin(w io.Writer) error {
	if f != XZ {
		return nil
	}
	_, err := w.Write(xzHeader())
	return err
}

// End writes what comes behind the pieces, all of which have to be told in
// their order.
func (f Format) End(w io.Writer, pieces []Piece) error {
	if f != XZ {
		return nil
	}
	_, err := w.Write(xzEnd(pieces))
	return err
}

// Pack writes the first size bytes of r as pieces, packed on all processors.
// The same bytes make the same pieces.
func (f Format) Pack(ctx context.Context, w io.Writer, r io.ReaderAt, size int64) ([]Piece, error) {
	p, err := newPacker(f)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan chan result, min(runtime.GOMAXPROCS(0), maxWorkers)-1)
	feed := make(chan struct{})
	go func() {
		defer close(feed)
		defer close(queue)
		for off := int64(0); off < size; off += pieceSize {
			slot := make(chan result, 1)
			select {
			case queue <- slot:
			case <-ctx.Done():
				return
			}
			go func() { slot <- p.pack(r, off, min(pieceSize, size-off)) }()
		}
	}()
	defer func() {
		cancel()
		for slot := range queue { // nothing reads from r any more when Pack is over
			<-slot
		}
		<-feed
	}()
	var pieces []Piece
	for slot := range queue {
		res := <-slot
		if err := res.err; err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := w.Write(res.data); err != nil {
			return nil, err
		}
		pieces = append(pieces, res.piece)
	}
	return pieces, ctx.Err()
}

type result struct {
	data  []byte
	piece Piece
	err   error
}

// packer packs single pieces, several at a time.
type packer struct {
	format Format
	zstd   *zstd.Encoder
	zeros  []byte // a packed piece of nothing but zeros: images are full of them
	zero   Piece
}

func newPacker(f Format) (*packer, error) {
	p := &packer{format: f}
	switch f {
	case XZ, Gzip:
	case Zstd:
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(true),
			zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), maxWorkers)), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		p.zstd = enc
	default:
		return nil, fmt.Errorf("cannot compress as %q", f)
	}
	res := p.encode(make([]byte, pieceSize))
	p.zeros, p.zero = res.data, res.piece
	return p, res.err
}

func (p *packer) pack(r io.ReaderAt, off, size int64) result {
	buf := make([]byte, size)
	if n, err := r.ReadAt(buf, off); n < len(buf) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return result{err: fmt.Errorf("cannot read %d bytes at %d: %w", size, off, err)}
	}
	if size == pieceSize && isZero(buf) {
		return result{data: p.zeros, piece: p.zero}
	}
	return p.encode(buf)
}

func (p *packer) encode(buf []byte) result {
	switch p.format {
	case XZ:
		return xzBlock(buf)
	case Zstd:
		data := p.zstd.EncodeAll(buf, nil)
		return result{data: data, piece: Piece{int64(len(data)), int64(len(buf))}}
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.DefaultCompression)
	if err == nil {
		_, err = z.Write(buf)
	}
	if err == nil {
		err = z.Close()
	}
	return result{data: b.Bytes(), piece: Piece{int64(b.Len()), int64(len(buf))}, err: err}
}

func isZero(b []byte) bool {
	zero := make([]byte, 64<<10)
	for len(b) > 0 {
		n := min(len(b), len(zero))
		if !bytes.Equal(b[:n], zero[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// OfName returns the format that a file's name ends with.
func OfName(name string) Format {
	for _, f := range Formats() {
		if strings.HasSuffix(name, f.Suffix()) {
			return f
		}
	}
	return None
}
