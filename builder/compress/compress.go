// Package compress packs images in pieces that stand alone, so that they are
// packed in parallel and that what several images share is packed once: as
// blocks of one .xz stream, members of a .gz file, frames of a .zst file.
//
// Not supported: levels, checks other than CRC64, filters other than LZMA2.
//
// Formats: builder/xz; RFC 1952 (members,
// section 2.2); RFC 8878 (frames, section 3).
package compress

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/xz"
)

// Format is a kind of compression, named as its files end.
type Format string

// The formats. XZ is the smallest.
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
	Packed int64 // bytes, without the padding behind it
	Size   int64 // bytes when unpacked
}

// pieceSize is how much makes a piece: as much as the .xz dictionary holds, so
// that cutting costs little, and what the partitions of a card are aligned to,
// so that equal partitions make equal pieces.
const pieceSize = xz.EncoderDict

// maxWorkers bounds the memory.
const maxWorkers = 4

// Begin writes what comes before the pieces.
func (f Format) Begin(w io.Writer) error {
	if f != XZ {
		return nil
	}
	_, err := w.Write(xz.Header())
	return err
}

// End writes what comes behind the pieces, all of which have to be told in
// their order.
func (f Format) End(w io.Writer, pieces []Piece) error {
	if f != XZ {
		return nil
	}
	blocks := make([]xz.Record, len(pieces))
	for i, p := range pieces {
		blocks[i] = xz.Record(p)
	}
	_, err := w.Write(xz.End(blocks))
	return err
}

// Store keeps packed pieces by the digest of what is in them.
type Store interface {
	Get(key string) ([]byte, bool)
	Put(key string, data []byte) error
}

// Packer packs images of one format. Pieces that Kept has are not packed again.
type Packer struct {
	Format Format
	Kept   Store // nil: none
}

// Pack writes the first size bytes of r as pieces, packed on all processors.
// The same bytes make the same pieces.
func (p Packer) Pack(ctx context.Context, w io.Writer, r io.ReaderAt, size int64) ([]Piece, error) {
	encode, err := p.encoder()
	if err != nil {
		return nil, err
	}
	pack := job{r: r, kept: p.Kept, encode: encode, zeros: sync.OnceValue(func() result { return encode(make([]byte, pieceSize)) })}
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan chan result, min(runtime.GOMAXPROCS(0), maxWorkers)-1)
	go func() {
		defer close(queue)
		for off := int64(0); off < size; off += pieceSize {
			slot := make(chan result, 1)
			select {
			case queue <- slot:
			case <-ctx.Done():
				return
			}
			go func() { slot <- pack.piece(off, min(pieceSize, size-off)) }()
		}
	}()
	defer func() {
		cancel()
		for slot := range queue { // nothing reads from r any more when Pack is over
			<-slot
		}
	}()
	var pieces []Piece
	for slot := range queue {
		res := <-slot
		if err := errors.Join(res.err, ctx.Err()); err != nil {
			return nil, err
		}
		if _, err := w.Write(res.data); err != nil {
			return nil, err
		}
		pieces = append(pieces, res.piece)
	}
	return pieces, ctx.Err()
}

// encoder returns the function that packs one piece. It may be called for
// several at a time.
func (p Packer) encoder() (func([]byte) result, error) {
	switch p.Format {
	case XZ:
		encoders := sync.Pool{New: func() any { return new(xz.Encoder) }}
		return func(buf []byte) result {
			enc := encoders.Get().(*xz.Encoder)
			defer encoders.Put(enc)
			data, r := enc.Block(buf)
			return result{data: data, piece: Piece(r)}
		}, nil
	case Gzip:
		return gzipMember, nil
	case Zstd:
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), maxWorkers)))
		return func(buf []byte) result {
			data := enc.EncodeAll(buf, nil)
			return result{data: data, piece: Piece{int64(len(data)), int64(len(buf))}}
		}, err
	}
	return nil, fmt.Errorf("cannot compress as %q", p.Format)
}

func gzipMember(buf []byte) result {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(buf)
	err = errors.Join(err, z.Close())
	return result{data: b.Bytes(), piece: Piece{int64(b.Len()), int64(len(buf))}, err: err}
}

type result struct {
	data  []byte
	piece Piece
	err   error
}

// job is one call of Pack.
type job struct {
	r      io.ReaderAt
	kept   Store
	encode func([]byte) result
	zeros  func() result // of a whole piece: images are full of them
}

func (j job) piece(off, size int64) result {
	buf := make([]byte, size)
	if n, err := j.r.ReadAt(buf, off); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return result{err: fmt.Errorf("cannot read %d bytes at %d: %w", size, off, err)}
	}
	if size == pieceSize && isZero(buf) {
		return j.zeros()
	}
	if j.kept == nil {
		return j.encode(buf)
	}
	sum := sha256.Sum256(buf)
	key := hex.EncodeToString(sum[:])
	if data, ok := j.kept.Get(key); ok {
		if res, ok := unstore(data, size); ok {
			return res
		}
	}
	res := j.encode(buf)
	if res.err == nil {
		res.err = j.kept.Put(key, res.store())
	}
	return res
}

// store returns the result with a checksum, since what is kept may be damaged:
// the SHA-256 of the rest, the piece's packed size in 8 bytes, the piece.
func (r result) store() []byte {
	rest := append(binary.LittleEndian.AppendUint64(nil, uint64(r.piece.Packed)), r.data...)
	sum := sha256.Sum256(rest)
	return append(sum[:], rest...)
}

func unstore(b []byte, size int64) (result, bool) {
	if len(b) < sha256.Size+8 || sha256.Sum256(b[sha256.Size:]) != [sha256.Size]byte(b[:sha256.Size]) {
		return result{}, false
	}
	rest := b[sha256.Size:]
	return result{data: rest[8:], piece: Piece{int64(binary.LittleEndian.Uint64(rest)), size}}, true
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
