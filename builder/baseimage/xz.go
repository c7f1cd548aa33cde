package baseimage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/xz"
)

// Images are packed by xz -T0, which makes blocks that can be decoded at the
// same time: each becomes a small .xz file of its own for builder/xz. What is
// not of that kind (one block, several streams, larger blocks) is left to the
// decoder that reads from front to back.
//
// Source: the .xz file format 1.2.
const (
	xzEnd         = 12 // bytes of a stream's header, and of its footer
	maxXZIndex    = 1 << 20
	maxXZBlock    = 64 << 20 // unpacked; xz -6 makes 24 MiB
	maxXZUnpacked = 256 << 20
)

// xzBlock is a block as the index has it.
type xzBlock struct {
	at, unpadded, unpacked int64
}

func (b xzBlock) padded() int64 { return (b.unpadded + 3) &^ 3 }

var errNotSplit = errors.New("cannot be decoded block by block")

// xzBlocks reads the index of a file of one stream.
func xzBlocks(r io.ReaderAt, size int64) (header []byte, blocks []xzBlock, err error) {
	if size < 2*xzEnd+8 {
		return nil, nil, errNotSplit
	}
	header, footer := make([]byte, xzEnd), make([]byte, xzEnd)
	if _, err := r.ReadAt(header, 0); err != nil {
		return nil, nil, err
	}
	if _, err := r.ReadAt(footer, size-xzEnd); err != nil {
		return nil, nil, err
	}
	le := binary.LittleEndian
	length := (int64(le.Uint32(footer[4:])) + 1) * 4
	if string(header[:6]) != "\xfd7zXZ\x00" || string(footer[10:]) != "YZ" || !bytes.Equal(header[6:8], footer[8:10]) ||
		crc32.ChecksumIEEE(footer[4:10]) != le.Uint32(footer) || length > maxXZIndex || length > size-2*xzEnd {
		return nil, nil, errNotSplit
	}
	index := make([]byte, length)
	if _, err := r.ReadAt(index, size-xzEnd-length); err != nil {
		return nil, nil, err
	}
	if index[0] != 0 || crc32.ChecksumIEEE(index[:length-4]) != le.Uint32(index[length-4:]) {
		return nil, nil, errNotSplit
	}
	rest := index[1 : length-4]
	next := func() int64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > 1<<62 {
			err = errNotSplit
			return 0
		}
		rest = rest[n:]
		return int64(v)
	}
	at := int64(xzEnd)
	for range next() {
		b := xzBlock{at: at, unpadded: next(), unpacked: next()}
		if err != nil || b.unpadded <= 0 || b.unpadded > size-at || b.unpacked > maxXZBlock {
			return nil, nil, errNotSplit
		}
		at += b.padded()
		blocks = append(blocks, b)
	}
	if err != nil || at != size-xzEnd-length || len(blocks) < 2 {
		return nil, nil, errNotSplit
	}
	return header, blocks, nil
}

// asFile makes a .xz file of one block.
func (b xzBlock) asFile(r io.ReaderAt, header []byte) ([]byte, error) {
	file := make([]byte, xzEnd+b.padded(), xzEnd+b.padded()+64)
	copy(file, header)
	if _, err := r.ReadAt(file[xzEnd:], b.at); err != nil {
		return nil, err
	}
	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(b.unpadded))
	index = binary.AppendUvarint(index, uint64(b.unpacked))
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	footer := append(binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1)), header[6:8]...)
	file = append(file, index...)
	file = binary.LittleEndian.AppendUint32(file, crc32.ChecksumIEEE(footer))
	return append(append(file, footer...), "YZ"...), nil
}

// unpackXZ decodes the blocks of a .xz file at the same time and hands each to
// write, with its place. It returns errNotSplit for files of another kind, of
// which nothing was written then.
func unpackXZ(ctx context.Context, r io.ReaderAt, size int64, write func(b []byte, at int64) error) (int64, error) {
	header, blocks, err := xzBlocks(r, size)
	if err != nil {
		return 0, err
	}
	var total, largest int64
	for _, b := range blocks {
		total += b.unpacked
		largest = max(largest, b.unpacked)
	}
	if total > MaxSize {
		return 0, errors.New("it is larger than any card")
	}
	g, ctx := errgroup.WithContext(ctx)
	// Each block is in memory twice over: packed and unpacked.
	g.SetLimit(int(max(1, min(int64(runtime.GOMAXPROCS(0)), maxXZUnpacked/(2*max(largest, 1))))))
	at := int64(0)
	for _, b := range blocks {
		from := at
		at += b.unpacked
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			file, err := b.asFile(r, header)
			if err != nil {
				return err
			}
			var d xz.Decoder
			data, err := d.Decode(file, int(b.unpacked))
			if err != nil {
				return err
			}
			return write(data, from)
		})
	}
	return total, g.Wait()
}
