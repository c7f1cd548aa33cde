package xz

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// index stands for the records of an index in bounded memory, as there can be
// any number of blocks.
type index struct {
	count uint64
	sum   uint32
}

func (x *index) add(unpadded, unpacked uint64) {
	var buf [2 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(buf[:0], unpadded)
	b = binary.AppendUvarint(b, unpacked)
	x.sum = crc32.Update(x.sum, crc32.IEEETable, b)
	x.count++
}

// uvarint reads a number of at most 63 bits in its shortest form; n is 0 if
// there is none.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || v > 1<<63-1 || n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return v, n
}

// streamEnd reads the index, whose first byte was read, and the footer.
func (z *decoder) streamEnd() error {
	start := z.in.at - 1
	crc := crc32.ChecksumIEEE([]byte{0})
	next := func() (uint64, error) {
		var buf [9]byte
		for i := range buf {
			c, err := z.in.byte()
			if err != nil {
				return 0, err
			}
			if buf[i] = c; c < 0x80 {
				crc = crc32.Update(crc, crc32.IEEETable, buf[:i+1])
				if v, n := uvarint(buf[:i+1]); n > 0 {
					return v, nil
				}
				break
			}
		}
		return 0, errHeader
	}
	count, err := next()
	if err != nil {
		return err
	}
	if count != z.index.count {
		return errIndex
	}
	var got index
	for range count {
		unpadded, err := next()
		if err != nil {
			return err
		}
		unpacked, err := next()
		if err != nil {
			return err
		}
		got.add(unpadded, unpacked)
	}
	if got != z.index {
		return errIndex
	}
	padding := (start - z.in.at) & 3
	if err := z.in.zero(padding); err != nil {
		return err
	}
	crc = crc32.Update(crc, crc32.IEEETable, make([]byte, padding))
	size := z.in.at - start + 4
	var b [4 + streamHeaderSize]byte
	if err := z.in.full(b[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b[:]) != crc {
		return errHeader
	}
	back, check, err := footer(b[4:])
	if err != nil {
		return err
	}
	if back != size || check != z.check {
		return errIndex
	}
	return nil
}

// footer returns the index's size and the kind of check from a stream's footer.
func footer(b []byte) (size int64, check byte, err error) {
	if !bytes.Equal(b[10:12], footerMagic) || crc32.ChecksumIEEE(b[4:10]) != binary.LittleEndian.Uint32(b) {
		return 0, 0, errHeader
	}
	if b[8] != 0 || b[9] > 15 {
		return 0, 0, errReserved
	}
	return (int64(binary.LittleEndian.Uint32(b[4:])) + 1) * 4, b[9], nil
}

// Size returns how many bytes src decodes to, as its indexes say, which
// nothing but decoding proves.
func Size(src []byte) (int64, error) {
	if len(src) < streamHeaderSize || !bytes.Equal(src[:len(headerMagic)], headerMagic) {
		return 0, errMagic
	}
	var size int64
	for len(src) > 0 {
		if len(src) >= 4 && [4]byte(src[len(src)-4:]) == [4]byte{} {
			src = src[:len(src)-4] // padding
			continue
		}
		if len(src) < 2*streamHeaderSize {
			return 0, errHeader
		}
		end := len(src) - streamHeaderSize
		back, _, err := footer(src[end:])
		if err != nil {
			return 0, err
		}
		if back > int64(end-streamHeaderSize) {
			return 0, errIndex
		}
		b := src[end-int(back) : end]
		src = src[:end-int(back)]
		if b[0] != 0 || crc32.ChecksumIEEE(b[:back-4]) != binary.LittleEndian.Uint32(b[back-4:]) {
			return 0, errHeader
		}
		b = b[1 : back-4]
		count, n := uvarint(b)
		if n == 0 || count > uint64(len(b)/2) {
			return 0, errHeader
		}
		b = b[n:]
		blocks := uint64(streamHeaderSize)
		for range count {
			unpadded, n := uvarint(b)
			unpacked, m := uvarint(b[n:])
			if n == 0 || m == 0 || unpadded > uint64(len(src)) || blocks > uint64(len(src)) || unpacked > uint64(1<<62-size) {
				return 0, errIndex
			}
			b = b[n+m:]
			blocks += (unpadded + 3) &^ 3
			size += int64(unpacked)
		}
		if blocks > uint64(len(src)) {
			return 0, errIndex
		}
		src = src[:uint64(len(src))-blocks]
	}
	return size, nil
}
