package xz

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
)

var (
	errChunk      = errors.New("cannot decode xz: a chunk is of an unknown kind")
	errFirst      = errors.New("cannot decode xz: a chunk needs what no chunk before it has set")
	errProperties = errors.New("cannot decode xz: the literal bits are out of range")
)

// maxChunk is the most that a chunk can unpack to.
const maxChunk = 1 << 21

// chunks is the state of LZMA2 within a block.
type chunks struct {
	dict     uint32 // size of the dictionary
	start    int    // where the dictionary starts in the window
	hasDict  bool
	hasProps bool
}

// window is what was decoded last, and room for what comes next.
type window struct {
	b     []byte
	last  int  // where the last chunk starts
	pos   int  // the end of what was decoded
	fixed bool // b is all there may be
}

// dictSize reads the properties of the LZMA2 filter.
func dictSize(props byte) (uint32, bool) {
	switch {
	case props > 40:
		return 0, false
	case props == 40:
		return math.MaxUint32, true
	}
	return (2 | uint32(props)&1) << (props/2 + 11), true
}

// chunk decodes the next chunk to the window; io.EOF is the end of the block.
func (z *decoder) chunk() error {
	control, err := z.in.byte()
	if err != nil || control == 0 {
		if err == nil {
			err = io.EOF
		}
		return err
	}
	if control >= 0xe0 || control == 1 {
		z.hasDict = true
		z.hasProps = false
		z.start = z.pos
	} else if !z.hasDict {
		return errFirst
	}
	size, err := z.in.uint16()
	if err != nil {
		return err
	}
	length := int(size) + 1
	if control < 0x80 {
		if control > 2 {
			return errChunk
		}
		out, err := z.room(length)
		if err != nil {
			return err
		}
		if err := z.in.full(out[z.pos:]); err != nil {
			return err
		}
		z.last, z.pos = z.pos, len(out)
		return nil
	}
	length += int(control&0x1f) << 16
	packed, err := z.in.uint16()
	if err != nil {
		return err
	}
	switch {
	case control >= 0xc0:
		props, err := z.in.byte()
		if err != nil {
			return err
		}
		lc, rest := uint32(props%9), uint32(props/9)
		lp, pb := rest%5, rest/5
		if pb > 4 || lc+lp > 4 {
			return errProperties
		}
		z.lc, z.lp, z.pb = lc, lp, pb
		z.hasProps = true
		z.lzma.reset()
	case !z.hasProps:
		return errFirst
	case control >= 0xa0:
		z.lzma.reset()
	}
	n := int(packed) + 1
	if err := z.in.full(z.lzma.in[:n]); err != nil {
		return err
	}
	out, err := z.room(length)
	if err != nil {
		return err
	}
	if err := z.lzma.decode(out, z.pos, z.start, z.dict, n); err != nil {
		return err
	}
	z.last, z.pos = z.pos, len(out)
	return nil
}

// room returns the window up to n bytes after what was decoded. It moves what
// lies in the window unless that is fixed.
func (z *decoder) room(n int) ([]byte, error) {
	need := z.pos + n
	if need <= len(z.b) {
		return z.b[:need], nil
	}
	if z.fixed {
		return nil, errIndex
	}
	// The larger the room after the dictionary, the less often that moves.
	dict := int(z.dict)
	most := dict + dict/2 + maxChunk
	if len(z.b) < most {
		b := make([]byte, min(most, max(2*len(z.b), need, 1<<18)))
		copy(b, z.b[:z.pos])
		z.b = b
	}
	if need = z.pos + n; need > len(z.b) {
		drop := z.pos - dict
		copy(z.b, z.b[drop:z.pos])
		z.pos -= drop
		z.start -= drop
		need -= drop
	}
	return z.b[:need], nil
}

func (s *source) uint16() (uint16, error) {
	var b [2]byte
	err := s.full(b[:])
	return binary.BigEndian.Uint16(b[:]), err
}
