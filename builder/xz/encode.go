package xz

import (
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"
	"math/bits"
)

// EncoderDict is the dictionary that encoded blocks ask for, and the most that
// one block may hold, in bytes: the levels up to xz -6 take as much.
const EncoderDict = 8 << 20

// An Encoder packs blocks for speed: it takes the first good match that it
// finds, as the low levels of xz(1) do, instead of weighing all of them. The
// zero value is ready; using it again spares its tables.
type Encoder struct {
	lzma // in is where a chunk is packed to

	// The range coder.
	low     uint64
	rng     uint32
	cache   byte // written when it is known whether a carry comes
	pending int  // bytes that wait for that, the cache included
	at      int  // bytes in the chunk

	// The last positions by the hash of their four bytes. What waits for
	// memory is most of the work, so that all of a hash are side by side, and
	// the bits that a position leaves are further ones of the hash, to tell
	// most wrong ones without looking at their bytes.
	src     []byte
	table   [1 << hashBits][ways]uint32
	entered int // positions before this one are in the table
}

const (
	hashBits  = 16
	ways      = 4
	posBits   = 23
	niceLen   = 48  // a match of that length is taken as it is
	maxLen    = 273 // the longest match
	symbolMax = 64  // more bytes than one symbol takes, with the coder's end

	encoderLC, encoderPB = 3, 2
)

// Record is what the index of a stream says of a block.
type Record struct {
	Packed int64 // bytes, without the padding behind it
	Size   int64 // bytes when unpacked
}

// Header is a stream's first twelve bytes (section 2.1.1).
func Header() []byte {
	b := append([]byte(headerMagic), 0, checkCRC64)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[6:]))
}

// End is a stream's index and footer (sections 4 and 2.1.2).
func End(blocks []Record) []byte {
	b := binary.AppendUvarint([]byte{0}, uint64(len(blocks)))
	for _, r := range blocks {
		b = binary.AppendUvarint(b, uint64(r.Packed))
		b = binary.AppendUvarint(b, uint64(r.Size))
	}
	b = pad4(b)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	foot := binary.LittleEndian.AppendUint32(nil, uint32(len(b)/4-1))
	foot = append(foot, 0, checkCRC64)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(foot))
	return append(append(b, foot...), footerMagic...)
}

func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Block packs src, at most EncoderDict bytes, as a block (section 3) whose
// header says both sizes, padding and check included.
func (e *Encoder) Block(src []byte) ([]byte, Record) {
	packed := e.chunks(src)
	header := binary.AppendUvarint([]byte{0, 0xc0}, uint64(len(packed)))
	header = binary.AppendUvarint(header, uint64(len(src)))
	header = pad4(append(header, filterLZMA2, 1, 22)) // 22: 8 MiB (section 5.3.1)
	header[0] = byte(len(header) / 4)                 // with the CRC32 to come, less one
	header = binary.LittleEndian.AppendUint32(header, crc32.ChecksumIEEE(header))
	record := Record{Packed: int64(len(header) + len(packed) + 8), Size: int64(len(src))}
	b := pad4(append(header, packed...))
	return binary.LittleEndian.AppendUint64(b, crc64.Checksum(src, ecma)), record
}

// chunks packs src as chunks of LZMA2, their end included.
func (e *Encoder) chunks(src []byte) []byte {
	e.src, e.entered = src, 0
	clear(e.table[:])
	e.lc, e.lp, e.pb = encoderLC, 0, encoderPB
	out := make([]byte, 0, len(src)/2)
	// What a chunk of LZMA has to set anew: all, only the state, nothing.
	const all, state, nothing = 0xe0, 0xa0, 0x80
	reset := byte(all)
	for from := 0; from < len(src); {
		if reset != nothing {
			e.reset()
		}
		to := e.chunk(from)
		if size := to - from; e.at < size {
			control := reset | byte((size-1)>>16)
			out = append(out, control, byte((size-1)>>8), byte(size-1), byte((e.at-1)>>8), byte(e.at-1))
			if reset == all || reset == all-0x20 {
				out = append(out, encoderLC+9*5*encoderPB)
			}
			out = append(out, e.in[:e.at]...)
			reset = nothing
		} else {
			control := byte(2)
			if from == 0 {
				control = 1
			}
			out = append(out, control, byte((size-1)>>8), byte(size-1))
			out = append(out, src[from:to]...)
			switch reset {
			case all:
				reset = all - 0x20 // state and properties, not the dictionary
			case nothing:
				reset = state
			}
		}
		from = to
	}
	e.src = nil
	return append(out, 0)
}

// chunk packs src from a position on to e.in until that or the chunk is full,
// and returns how far it came.
func (e *Encoder) chunk(from int) int {
	e.low, e.rng, e.cache, e.pending, e.at = 0, 1<<32-1, 0, 1, 0
	src := e.src
	end := min(len(src), from+maxChunk-maxLen)
	pos := from
	length, dist := e.find(pos)
	for pos < end && e.at+e.pending < maxPacked-symbolMax {
		if rep, n := e.repeated(pos); n >= 2 && (n >= niceLen || n+1 >= length ||
			n+2 >= length && dist >= 1<<9 || n+3 >= length && dist >= 1<<15) {
			e.repeat(pos, rep, n)
			pos += n
			length, dist = e.find(pos)
			continue
		}
		if length < 3 || length == 3 && dist >= 1<<12 {
			e.literal(pos)
			pos++
			length, dist = e.find(pos)
			continue
		}
		if length < niceLen {
			// A longer match one byte on is worth a literal.
			l, d := e.find(pos + 1)
			_, n := e.repeated(pos + 1)
			if l > length+1 || l > length && d>>7 <= dist || l == length && d < dist>>7 || n >= length && n >= 3 {
				e.literal(pos)
				pos++
				length, dist = l, d
				continue
			}
		}
		e.match(pos, length, dist)
		pos += length
		length, dist = e.find(pos)
	}
	for range 5 {
		e.shift()
	}
	return pos
}

// find returns the best match for what begins at a position: its length, 0 if
// there is none, and how far back it lies.
func (e *Encoder) find(pos int) (length, dist int) {
	src := e.src
	if pos+4 > len(src) {
		return 0, 0
	}
	if e.entered+32 < pos { // a long match: its end is enough
		e.entered = pos - 32
	}
	for ; e.entered < pos; e.entered++ {
		e.enter(e.entered)
	}
	hash := e.hash(pos)
	tag := hash << hashBits &^ (1<<posBits - 1)
	limit := min(len(src)-pos, maxLen)
	for _, entry := range e.table[hash>>(32-hashBits)] {
		if entry^tag >= 1<<posBits {
			continue
		}
		at := int(entry & (1<<posBits - 1))
		if at >= pos || length < limit && src[at+length] != src[pos+length] {
			continue
		}
		n := same(src[at:], src[pos:pos+limit])
		if d := pos - at; n > length+1 && n >= 4 || n > length && d>>7 <= dist {
			length, dist = n, d
			if n >= niceLen {
				break
			}
		}
	}
	return length, dist
}

func (e *Encoder) hash(pos int) uint32 {
	return binary.LittleEndian.Uint32(e.src[pos:]) * 0x9e3779b1
}

func (e *Encoder) enter(pos int) {
	hash := e.hash(pos)
	b := &e.table[hash>>(32-hashBits)]
	*b = [ways]uint32{0, b[0], b[1], b[2]}
	b[0] = hash<<hashBits&^(1<<posBits-1) | uint32(pos)
}

// repeated returns which of the last four distances gives the longest match.
func (e *Encoder) repeated(pos int) (rep, length int) {
	if pos >= len(e.src) {
		return 0, 0
	}
	b := e.src[pos:min(len(e.src), pos+maxLen)]
	for i, r := range e.rep {
		at := pos - int(r) - 1
		if at < 0 || e.src[at] != b[0] {
			continue
		}
		if n := same(e.src[at:], b); n > length {
			rep, length = i, n
		}
	}
	return rep, length
}

// same returns how many bytes a, which is no shorter, has in common with b.
func same(a, b []byte) int {
	n := 0
	for n+8 <= len(b) {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (e *Encoder) literal(pos int) {
	src := e.src
	index := e.state<<4 | uint32(pos)&(1<<encoderPB-1)
	at := pos - int(e.rep[0]) - 1
	if pos > 0 && at >= 0 && src[at] == src[pos] { // one byte from the last distance
		e.bit(&e.lzma.match[index&255], 1)
		e.bit(&e.isRep[e.state&15], 1)
		e.bit(&e.isRep0[e.state&15], 0)
		e.bit(&e.rep0Long[index&255], 0)
		e.state = after(e.state, 9, 11)
		return
	}
	e.bit(&e.lzma.match[index&255], 0)
	prev := byte(0)
	if pos > 0 {
		prev = src[pos-1]
	}
	probs := &e.lzma.literal[prev>>(8-encoderLC)]
	symbol := uint32(src[pos]) | 0x100
	if e.state < 7 {
		e.tree(probs[:256], symbol, 8)
	} else {
		match, offset := uint32(src[at]), uint32(0x100)
		for i := 7; i >= 0; i-- {
			match <<= 1
			same := match & offset
			b := symbol >> i & 1
			e.bit(&probs[(offset+same+symbol>>(i+1))&1023], b)
			offset = same ^ offset&(b-1)
		}
	}
	e.state = uint32(afterLiteral[e.state&15])
}

// after is the state after a match: one if literals came before it, another
// if not.
func after(state, literal, match uint32) uint32 {
	if state < 7 {
		return literal
	}
	return match
}

// repeat packs a match at one of the last distances.
func (e *Encoder) repeat(pos, rep, n int) {
	posState := uint32(pos) & (1<<encoderPB - 1)
	index := e.state<<4 | posState
	e.bit(&e.lzma.match[index&255], 1)
	e.bit(&e.isRep[e.state&15], 1)
	if rep == 0 {
		e.bit(&e.isRep0[e.state&15], 0)
		e.bit(&e.rep0Long[index&255], 1)
	} else {
		e.bit(&e.isRep0[e.state&15], 1)
		if rep == 1 {
			e.bit(&e.isRep1[e.state&15], 0)
		} else {
			e.bit(&e.isRep1[e.state&15], 1)
			e.bit(&e.isRep2[e.state&15], uint32(rep-2))
		}
		d := e.rep[rep]
		copy(e.rep[1:rep+1], e.rep[:rep])
		e.rep[0] = d
	}
	e.lengthOf(&e.lzma.length[1], posState, n)
	e.state = after(e.state, 8, 11)
}

// match packs a match at a new distance.
func (e *Encoder) match(pos, n, dist int) {
	posState := uint32(pos) & (1<<encoderPB - 1)
	e.bit(&e.lzma.match[(e.state<<4|posState)&255], 1)
	e.bit(&e.isRep[e.state&15], 0)
	e.lengthOf(&e.lzma.length[0], posState, n)
	e.state = after(e.state, 7, 10)
	d := uint32(dist - 1)
	copy(e.rep[1:], e.rep[:3])
	e.rep[0] = d
	slot, extra := d, 0
	if d >= 4 {
		extra = bits.Len32(d) - 2
		slot = uint32(2*extra) + d>>extra
	}
	e.tree(e.lzma.slot[min(n-minMatch, 3)][:], slot|64, 6)
	low := d & (1<<extra - 1)
	switch {
	case slot < 4:
	case slot < 14:
		base := d - low - slot
		symbol := uint32(1)
		for range extra {
			b := low & 1
			e.bit(&e.special[(base+symbol)&127], b)
			symbol, low = symbol<<1|b, low>>1
		}
	default:
		for i := extra - 1; i >= 4; i-- { // bits that are as likely as not
			e.rng >>= 1
			e.low += uint64(e.rng & -(low >> i & 1))
			e.normalize()
		}
		symbol := uint32(1)
		for i := range 4 {
			b := low >> i & 1
			e.bit(&e.align[symbol&15], b)
			symbol = symbol<<1 | b
		}
	}
}

func (e *Encoder) lengthOf(p *lengthProbs, posState uint32, n int) {
	switch n -= minMatch; {
	case n < 8:
		e.bit(&p.choice, 0)
		e.tree(p.low[posState][:], uint32(n)|8, 3)
	case n < 16:
		e.bit(&p.choice, 1)
		e.bit(&p.choice2, 0)
		e.tree(p.mid[posState][:], uint32(n-8)|8, 3)
	default:
		e.bit(&p.choice, 1)
		e.bit(&p.choice2, 1)
		e.tree(p.high[:], uint32(n-16)|256, 8)
	}
}

// bit packs one bit by the probability that it is 0.
func (e *Encoder) bit(p *prob, b uint32) {
	bound := e.rng >> probBits * uint32(*p)
	if b == 0 {
		e.rng = bound
		*p += (probMax - *p) >> moveBits
	} else {
		e.low += uint64(bound)
		e.rng -= bound
		*p -= *p >> moveBits
	}
	e.normalize()
}

// tree packs a number of so many bits with a one before it, the high bits
// first. As in the decoder, no branch depends on them.
func (e *Encoder) tree(probs []prob, symbol uint32, n int) {
	low, rng := e.low, e.rng
	for i := n - 1; i >= 0; i-- {
		p := &probs[symbol>>(i+1)]
		mask := -(symbol >> i & 1) // all ones if the bit is 1
		bound := rng >> probBits * uint32(*p)
		low += uint64(bound & mask)
		rng = bound + (rng-2*bound)&mask
		// Towards 1, or towards 0 with the remainder that 0 leaves.
		*p += prob((probMax - (probMax-1<<moveBits+1)&int32(mask) - int32(*p)) >> moveBits)
		if rng < topValue {
			e.low, e.rng = low, rng
			e.normalize()
			low, rng = e.low, e.rng
		}
	}
	e.low, e.rng = low, rng
}

func (e *Encoder) normalize() {
	if e.rng < topValue {
		e.rng <<= 8
		e.shift()
	}
}

// shift moves a byte out of the coder.
func (e *Encoder) shift() {
	if e.low < 0xff<<24 || e.low >= 1<<32 {
		carry := byte(e.low >> 32)
		b := e.cache + carry
		for ; e.pending > 0; e.pending-- {
			e.in[e.at&inMask] = b
			e.at++
			b = 0xff + carry
		}
		e.cache = byte(e.low >> 24)
	}
	e.pending++
	e.low = e.low & (1<<24 - 1) << 8
}
