package deb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/xz"
)

// A decoder is one worker's reusable state: an xz dictionary of 8 MiB is not
// made 180 times.
type decoder struct {
	xz  *xz.Reader
	buf [128 << 10]byte
}

// maxDict bounds the memory that a member may ask for; xz -9 needs 64 MiB.
const maxDict = 64 << 20

var errTooLarge = errors.New("too large")

// decode copies what r decodes to into w, at most limit bytes.
func (d *decoder) decode(w io.Writer, name string, r io.Reader, limit int64) (int64, error) {
	var from io.Reader
	switch _, suffix, _ := strings.Cut(name, ".tar"); suffix {
	case "":
		from = r
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return 0, err
		}
		from = z
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDict), zstd.WithDecoderLowmem(true))
		if err != nil {
			return 0, err
		}
		defer z.Close()
		from = z
	case ".xz":
		if d.xz == nil {
			d.xz = xz.NewReader(nil, maxDict)
		}
		d.xz.Reset(r)
		from = d.xz
	default:
		return 0, fmt.Errorf("compression %q is not supported", suffix)
	}
	return io.CopyBuffer(&limited{w, limit, limit}, from, d.buf[:])
}

// limited refuses to write more than its limit. Unlike io.LimitReader it lets
// a decoder write from its own memory.
type limited struct {
	w           io.Writer
	limit, left int64
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= int64(len(b)); l.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", errTooLarge, l.limit)
	}
	return l.w.Write(b)
}

// unit is a part of a member that decodes on its own.
type unit struct {
	name   string // as the member's, for the kind of compression
	r      io.Reader
	offset int64 // of the decoded bytes
	length int64 // of the decoded bytes; -1: not known
}

// units splits a member at xz's block borders, which the index at its end
// tells; anything else is one unit. xz -T writes a block per 24 MiB.
func units(m member) ([]unit, error) {
	whole := []unit{{m.name, m.SectionReader, 0, -1}}
	if !strings.HasSuffix(m.name, ".xz") {
		return whole, nil
	}
	const header, footer = 12, 12
	if m.Size() < header+footer {
		return whole, nil // the decoder says what is wrong
	}
	head, foot := make([]byte, header), make([]byte, footer)
	if _, err := m.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if _, err := m.ReadAt(foot, m.Size()-footer); err != nil {
		return nil, err
	}
	indexSize := (int64(binary.LittleEndian.Uint32(foot[4:])) + 1) * 4
	if string(foot[10:]) != "YZ" || indexSize > m.Size()-header-footer || indexSize > 1<<20 {
		return whole, nil
	}
	index := make([]byte, indexSize)
	if _, err := m.ReadAt(index, m.Size()-footer-indexSize); err != nil {
		return nil, err
	}
	blocks, ok := xzIndex(index)
	if !ok || len(blocks) < 2 {
		return whole, nil
	}
	var list []unit
	at, offset := int64(header), int64(0)
	for _, b := range blocks {
		padded := (b.unpadded + 3) &^ 3
		if padded > m.Size()-at {
			return whole, nil
		}
		if b.uncompressed > MaxData-offset {
			return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, int64(MaxData))
		}
		tail := xzTail(b, foot[8:10])
		list = append(list, unit{m.name,
			io.MultiReader(bytes.NewReader(head), io.NewSectionReader(m, at, padded), bytes.NewReader(tail)),
			offset, b.uncompressed})
		at += padded
		offset += b.uncompressed
	}
	if at != m.Size()-footer-indexSize {
		return whole, nil // several streams
	}
	return list, nil
}

type xzBlock struct{ unpadded, uncompressed int64 }

// xzIndex reads a stream's index (section 4 of the format).
func xzIndex(b []byte) ([]xzBlock, bool) {
	body := b[:len(b)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(body):]) || body[0] != 0 {
		return nil, false
	}
	body = body[1:]
	next := func() int64 {
		v, n := binary.Uvarint(body)
		if n <= 0 || v > 1<<62 {
			body = nil
			return -1
		}
		body = body[n:]
		return int64(v)
	}
	count := next()
	if count < 0 || count > int64(len(body)/2) {
		return nil, false
	}
	blocks := make([]xzBlock, count)
	for i := range blocks {
		blocks[i] = xzBlock{next(), next()}
		if blocks[i].unpadded <= 0 || blocks[i].uncompressed < 0 {
			return nil, false
		}
	}
	return blocks, true
}

// xzTail makes the index and the footer that turn one block into a stream.
func xzTail(b xzBlock, flags []byte) []byte {
	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(b.unpadded))
	index = binary.AppendUvarint(index, uint64(b.uncompressed))
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	foot = append(foot, flags...)
	tail := binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(foot))
	return append(append(tail, foot...), "YZ"...)
}
