package compress

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"

	"github.com/ulikunitz/xz/lzma"
)

const (
	xzCheck   = 0x04 // CRC64
	xzLZMA2   = 0x21
	xzDict    = 22      // 8 MiB (section 5.3.1)
	xzDictCap = 8 << 20 // the same in bytes
	// Both sizes are in the block header, one filter.
	xzBlockFlags = 0xc0
)

// xzHeader is a stream's first twelve bytes (section 2.1.1).
func xzHeader() []byte {
	flags := []byte{0, xzCheck}
	b := append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, flags...)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(flags))
}

// xzBlock packs a block (section 3), padding and check included.
func xzBlock(data []byte) result {
	var packed bytes.Buffer
	w, err := lzma.Writer2Config{DictCap: xzDictCap}.NewWriter2(&packed)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return result{err: err}
	}
	header := []byte{0, xzBlockFlags}
	header = binary.AppendUvarint(header, uint64(packed.Len()))
	header = binary.AppendUvarint(header, uint64(len(data)))
	header = pad4(append(header, xzLZMA2, 1, xzDict))
	header[0] = byte(len(header) / 4) // with the CRC32 to come, less one
	header = binary.LittleEndian.AppendUint32(header, crc32.ChecksumIEEE(header))

	block := pad4(append(header, packed.Bytes()...))
	block = binary.LittleEndian.AppendUint64(block, crc64.Checksum(data, crc64.MakeTable(crc64.ECMA)))
	unpadded := len(header) + packed.Len() + 8
	return result{data: block, piece: Piece{Packed: int64(unpadded), Size: int64(len(data))}}
}

// xzEnd is a stream's index and footer (sections 4 and 2.1.2).
func xzEnd(pieces []Piece) []byte {
	index := binary.AppendUvarint([]byte{0}, uint64(len(pieces)))
	for _, p := range pieces {
		index = binary.AppendUvarint(index, uint64(p.Packed))
		index = binary.AppendUvarint(index, uint64(p.Size))
	}
	index = pad4(index)
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, 0, xzCheck)
	b := binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(footer))
	return append(append(b, footer...), 'Y', 'Z')
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
