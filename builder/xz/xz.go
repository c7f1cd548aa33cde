// Package xz decodes .xz files, and encodes images for cards.
//
// Decoding packages is most of what a cold build computes, so this is written
// for speed: a chunk of LZMA2 is decoded in one go, straight to where its bytes
// stay, which is its dictionary too. For containerd's package BenchmarkDeb took
// 1.3 CPU-seconds, as did xz(1) 5.4; ulikunitz/xz took 2.7. For modules of a
// kernel it was 0.30 to 0.48 and 0.73.
//
// Packing cards took ulikunitz/xz five times as long as the Encoder here for
// somewhat larger files, and it leaves the sizes out of the block headers,
// without which xz -T and others cannot unpack in parallel. The Encoder is
// about as good and fast as xz -1.
//
// Source: the .xz file format 1.2; LZMA2's chunks and LZMA as in the format's
// reference decoder, xz-embedded.
//
// Not supported: filters other than LZMA2 (delta, BCJ), which Debian does not
// use, seeking; encoding with a choice of levels, or checks other than CRC64.
package xz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"math"
)

// MaxDict is the dictionary of xz -9, the largest that its levels have.
const MaxDict = 64 << 20

var (
	errMagic    = errors.New("cannot decode xz: it does not start as .xz files do")
	errHeader   = errors.New("cannot decode xz: a header is damaged")
	errReserved = errors.New("cannot decode xz: a header has flags of a later version")
	errCheck    = errors.New("cannot decode xz: the check of a block does not match")
	errIndex    = errors.New("cannot decode xz: the index does not match the blocks")
	errSize     = errors.New("cannot decode xz: a block has not the length that its header says")
	errPadding  = errors.New("cannot decode xz: the padding is not zero")
)

// A Reader decodes what it reads, in memory bounded by the dictionary: at
// most half as much again and 2 MiB. Streams may follow each other, as
// concatenated files do.
type Reader struct {
	decoder
	pending []byte // decoded but not yet read
	err     error
}

// NewReader returns a reader of what r decodes to. A block that needs a
// larger dictionary than maxDict bytes is an error.
func NewReader(r io.Reader, maxDict int) *Reader {
	z := &Reader{}
	z.maxDict = maxDict
	z.in.r = bufio.NewReaderSize(r, 32<<10)
	z.Reset(r)
	return z
}

// Reset makes the reader one of what r decodes to, keeping its memory.
func (z *Reader) Reset(r io.Reader) {
	z.pending, z.err = nil, nil
	z.in.r.Reset(r)
	z.decoder.restart()
}

// Read reads decoded bytes. What was read is checked only when its block ends.
func (z *Reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(z.pending) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		z.pending, z.err = z.next()
	}
	n := copy(b, z.pending)
	z.pending = z.pending[n:]
	return n, nil
}

// WriteTo writes the decoded bytes to w, without a copy between.
func (z *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(z.pending) > 0 {
			written, err := w.Write(z.pending)
			z.pending = z.pending[written:]
			n += int64(written)
			if err != nil {
				return n, err
			}
		}
		if z.err == io.EOF {
			return n, nil
		}
		if z.err != nil {
			return n, z.err
		}
		z.pending, z.err = z.next()
	}
}

// A Decoder decodes whole files to memory. The zero value is ready; using it
// again spares making its state.
type Decoder struct {
	decoder
	bytes bytes.Reader
}

// Decode returns what src decodes to. Its size is known from the index, so
// that every byte is written once, where it stays. A size of more than max
// bytes is an error.
func (d *Decoder) Decode(src []byte, max int) ([]byte, error) {
	size, err := Size(src)
	if err != nil {
		return nil, err
	}
	if size > int64(max) {
		return nil, fmt.Errorf("cannot decode xz: %d bytes are more than %d", size, max)
	}
	d.bytes.Reset(src)
	if d.in.r == nil {
		d.in.r = bufio.NewReaderSize(nil, 32<<10)
	}
	d.in.r.Reset(&d.bytes)
	d.maxDict = math.MaxInt // no dictionary is made
	d.window = window{b: make([]byte, size), fixed: true}
	d.restart()
	defer func() { d.window = window{} }()
	for {
		if _, err := d.next(); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	if d.pos != len(d.b) {
		return nil, errIndex
	}
	return d.b, nil
}

// decoder goes through streams and blocks.
type decoder struct {
	in      source
	maxDict int

	lzma
	chunks
	window

	stage  stage
	first  bool // no stream was read yet
	check  byte // kind of check of the stream's blocks
	block  block
	crc32  uint32
	crc64  uint64
	sha256 hash.Hash
	index  index // of the stream so far
}

type stage uint8

const (
	atStream stage = iota
	atBlock
	inBlock
)

// block is what a block's header says, and how far it has come.
type block struct {
	packed, unpacked int64 // -1: not said
	header           int64 // its length
	from             int64 // where its data starts
	decoded          int64
}

// source counts what is read.
type source struct {
	r  *bufio.Reader
	at int64
}

func (s *source) byte() (byte, error) {
	b, err := s.r.ReadByte()
	if err != nil {
		return 0, unexpected(err)
	}
	s.at++
	return b, nil
}

func (s *source) full(b []byte) error {
	n, err := io.ReadFull(s.r, b)
	s.at += int64(n)
	return unexpected(err)
}

// unexpected makes the end of a file an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// zero reads n bytes that must be zero.
func (s *source) zero(n int64) error {
	for ; n > 0; n-- {
		b, err := s.byte()
		if err != nil {
			return err
		}
		if b != 0 {
			return errPadding
		}
	}
	return nil
}

func (z *decoder) restart() {
	z.in.at = 0
	z.stage, z.first = atStream, true
	z.pos = 0
}

// next decodes until there are new bytes, which it returns; io.EOF is the end
// of the last stream.
func (z *decoder) next() ([]byte, error) {
	for {
		switch z.stage {
		case atStream:
			if err := z.streamHeader(); err != nil {
				return nil, err
			}
			z.stage = atBlock
		case atBlock:
			size, err := z.in.byte()
			if err != nil {
				return nil, err
			}
			if size == 0 {
				if err := z.streamEnd(); err != nil {
					return nil, err
				}
				z.stage = atStream
				continue
			}
			if err := z.blockHeader(size); err != nil {
				return nil, err
			}
			z.stage = inBlock
		case inBlock:
			// The window may move, but what it gets goes after pos.
			err := z.chunk()
			if err == io.EOF {
				if err := z.blockEnd(); err != nil {
					return nil, err
				}
				z.stage = atBlock
				continue
			}
			if err != nil {
				return nil, err
			}
			b := z.b[z.last:z.pos]
			z.sum(b)
			z.block.decoded += int64(len(b))
			return b, nil
		}
	}
}

const streamHeaderSize = 12

var (
	headerMagic = []byte("\xfd7zXZ\x00")
	footerMagic = []byte("YZ")
)

// streamHeader reads a stream's header; io.EOF if there is none.
func (z *decoder) streamHeader() error {
	// Padding between streams comes in fours.
	var b [streamHeaderSize]byte
	for {
		if !z.first {
			if _, err := z.in.r.Peek(1); err != nil {
				return err
			}
		}
		if err := z.in.full(b[:4]); err != nil {
			return err
		}
		if z.first || b[0] != 0 {
			break
		}
		if [4]byte(b[:4]) != [4]byte{} {
			return errPadding
		}
	}
	z.first = false
	if err := z.in.full(b[4:]); err != nil {
		return err
	}
	if !bytes.Equal(b[:6], headerMagic) {
		return errMagic
	}
	if crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return errHeader
	}
	z.index = index{}
	z.check = b[7]
	switch {
	case b[6] != 0 || b[7] > 15:
		return errReserved
	case checkSize(z.check) < 0:
		return fmt.Errorf("cannot decode xz: check %d is not supported", z.check)
	}
	return nil
}

// The kinds of checks.
const (
	checkNone   = 0
	checkCRC32  = 1
	checkCRC64  = 4
	checkSHA256 = 10
)

func checkSize(check byte) int {
	switch check {
	case checkNone:
		return 0
	case checkCRC32:
		return 4
	case checkCRC64:
		return 8
	case checkSHA256:
		return sha256.Size
	}
	return -1
}

var ecma = crc64.MakeTable(crc64.ECMA)

func (z *decoder) sum(b []byte) {
	switch z.check {
	case checkCRC32:
		z.crc32 = crc32.Update(z.crc32, crc32.IEEETable, b)
	case checkCRC64:
		z.crc64 = crc64.Update(z.crc64, ecma, b)
	case checkSHA256:
		z.sha256.Write(b)
	}
}

// filters are the names of those that are known but not supported.
var filters = map[uint64]string{
	0x03: "delta", 0x04: "BCJ x86", 0x05: "BCJ PowerPC", 0x06: "BCJ IA-64", 0x07: "BCJ ARM",
	0x08: "BCJ ARM-Thumb", 0x09: "BCJ SPARC", 0x0a: "BCJ ARM64", 0x0b: "BCJ RISC-V",
}

const filterLZMA2 = 0x21

// blockHeader reads the header whose first byte is size.
func (z *decoder) blockHeader(size byte) error {
	var buf [1024]byte
	b := buf[:(int(size)+1)*4]
	b[0] = size
	if err := z.in.full(b[1:]); err != nil {
		return err
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errHeader
	}
	flags := body[1]
	if flags&0x3c != 0 {
		return errReserved
	}
	z.block = block{packed: -1, unpacked: -1, header: int64(len(b))}
	rest := body[2:]
	var err error
	next := func() uint64 {
		v, n := uvarint(rest)
		if n == 0 {
			err = errHeader
			return 0
		}
		rest = rest[n:]
		return v
	}
	if flags&0x40 != 0 {
		z.block.packed = int64(next())
	}
	if flags&0x80 != 0 {
		z.block.unpacked = int64(next())
	}
	for last := int(flags & 3); last >= 0; last-- {
		id, n := next(), next()
		if err != nil {
			return err
		}
		switch {
		case id != filterLZMA2 && filters[id] != "":
			return fmt.Errorf("cannot decode xz: filter %s is not supported", filters[id])
		case id != filterLZMA2:
			return fmt.Errorf("cannot decode xz: filter %#x is not supported", id)
		case last != 0 || n != 1 || len(rest) == 0:
			return errHeader
		}
		var ok bool
		if z.dict, ok = dictSize(rest[0]); !ok {
			return errHeader
		}
		rest = rest[1:]
	}
	for _, c := range rest {
		if c != 0 {
			return errReserved
		}
	}
	if int64(z.dict) > int64(z.maxDict) {
		return fmt.Errorf("cannot decode xz: a dictionary of %d bytes is needed, more than %d", z.dict, z.maxDict)
	}
	z.hasDict, z.hasProps = false, false
	z.block.from = z.in.at
	z.crc32, z.crc64 = 0, 0
	if z.check == checkSHA256 {
		z.sha256 = sha256.New()
	}
	if !z.fixed {
		z.pos = 0
	}
	return nil
}

func (z *decoder) blockEnd() error {
	packed := z.in.at - z.block.from
	if z.block.packed >= 0 && z.block.packed != packed || z.block.unpacked >= 0 && z.block.unpacked != z.block.decoded {
		return errSize
	}
	if err := z.in.zero(-packed & 3); err != nil {
		return err
	}
	var buf [sha256.Size]byte
	want := buf[:checkSize(z.check)]
	if err := z.in.full(want); err != nil {
		return err
	}
	var got []byte
	switch z.check {
	case checkCRC32:
		got = binary.LittleEndian.AppendUint32(nil, z.crc32)
	case checkCRC64:
		got = binary.LittleEndian.AppendUint64(nil, z.crc64)
	case checkSHA256:
		got = z.sha256.Sum(nil)
	}
	if !bytes.Equal(got, want) {
		return errCheck
	}
	z.index.add(uint64(z.block.header+packed)+uint64(len(want)), uint64(z.block.decoded))
	return nil
}
