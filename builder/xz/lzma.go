package xz

import (
	"encoding/binary"
	"errors"
)

// lzma is LZMA's state between two chunks.
type lzma struct {
	// in holds a chunk's packed bytes. Its size is the most that a chunk can
	// have, so that a masked index needs no check; the bytes are counted when
	// the chunk is done.
	in [maxPacked]byte

	lc, lp, pb uint32
	state      uint32
	rep        [4]uint32 // the last distances - 1

	probs
}

// probs are the probabilities that a bit is 0, in 1/2048. Sizes are powers of
// two where that spares a check of the index.
type probs struct {
	match    [256]prob // state<<4 | position
	rep0Long [256]prob // state<<4 | position
	isRep    [16]prob  // state
	isRep0   [16]prob
	isRep1   [16]prob
	isRep2   [16]prob
	slot     [4][64]prob // by length
	special  [128]prob
	align    [16]prob
	length   [2]lengthProbs // of matches, of repeated matches
	literal  [16][1024]prob // by position and previous byte; 768 used
}

type lengthProbs struct {
	choice, choice2 prob
	low, mid        [16][8]prob // by position
	high            [256]prob
}

type prob = uint16

const (
	probInit  = 1 << 10
	probBits  = 11
	probMax   = 1 << probBits
	moveBits  = 5
	topValue  = 1 << 24
	minMatch  = 2
	inMask    = maxPacked - 1
	toZero    = 1<<64 - probMax + 1<<moveBits - 1 // makes tree's step one towards 1 - p
	maxPacked = 1 << 16
)

var (
	errDistance = errors.New("cannot decode xz: a distance leads out of the dictionary")
	errLength   = errors.New("cannot decode xz: a match leads out of its chunk")
	errRange    = errors.New("cannot decode xz: a chunk has not the length that it says")
)

// afterLiteral is the state that a literal leads to.
var afterLiteral = [16]uint8{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5}

func (z *lzma) reset() {
	z.state, z.rep = 0, [4]uint32{}
	fill := func(p []prob) {
		for i := range p {
			p[i] = probInit
		}
	}
	p := &z.probs
	for _, s := range [][]prob{p.match[:], p.rep0Long[:], p.isRep[:], p.isRep0[:], p.isRep1[:], p.isRep2[:], p.special[:], p.align[:]} {
		fill(s)
	}
	for i := range p.slot {
		fill(p.slot[i][:])
	}
	for i := range p.length {
		l := &p.length[i]
		l.choice, l.choice2 = probInit, probInit
		for j := range l.low {
			fill(l.low[j][:])
			fill(l.mid[j][:])
		}
		fill(l.high[:])
	}
	for i := range p.literal[:1<<(z.lc+z.lp)] {
		fill(p.literal[i][:768])
	}
}

// decode decodes a chunk of n packed bytes in z.in to out[pos:], which it
// fills to its end. The dictionary lies before pos: it starts at start, which
// may be negative if its oldest bytes were dropped, but the last dict bytes
// are there.
//
// All that the loops change is in local variables, and the steps of the range
// decoder are written out each time: as functions they would keep their state
// in memory, which costs more than the work.
func (z *lzma) decode(out []byte, pos, start int, dict uint32, n int) error {
	in := &z.in
	if n < 5 || in[0] != 0 {
		return errRange
	}
	code := binary.BigEndian.Uint32(in[1:])
	rng := uint32(0xffffffff)
	at := uint32(5)

	state := z.state & 15
	rep0, rep1, rep2, rep3 := z.rep[0], z.rep[1], z.rep[2], z.rep[3]
	posMask := uint32(1)<<z.pb - 1
	lpMask := uint32(1)<<z.lp - 1
	lc, keep := z.lc&31, (8-z.lc)&31
	base := uint32(-start) // pos + base is the position that LZMA counts
	var prev uint32
	if pos > start {
		prev = uint32(out[pos-1])
	}

	for pos < len(out) {
		posState := (uint32(pos) + base) & posMask & 15
		index := uint8(state<<4 | posState)

		// A literal or a match?
		p := uint32(z.match[index])
		bound := rng >> probBits * p
		if code < bound {
			rng = bound
			z.match[index] = prob(p + (probMax-p)>>moveBits)
			if rng < topValue {
				rng <<= 8
				code = code<<8 | uint32(in[at&inMask])
				at++
			}
			lit := &z.literal[((uint32(pos)+base)&lpMask<<(lc&31)+prev>>(keep&31))&15]
			var symbol uint32
			if state >= 7 {
				src := pos - int(rep0) - 1
				if src < start || rep0 >= dict {
					return errDistance
				}
				symbol, rng, code, at = matchedLiteral(in, lit, out[src], rng, code, at)
			} else {
				symbol, rng, code, at = tree(in, lit[:256], rng, code, at)
			}
			prev = symbol & 0xff
			out[pos] = byte(prev)
			pos++
			state = uint32(afterLiteral[state&15])
			continue
		}
		rng -= bound
		code -= bound
		z.match[index] = prob(p - p>>moveBits)
		if rng < topValue {
			rng <<= 8
			code = code<<8 | uint32(in[at&inMask])
			at++
		}

		// A new distance or one of the last four?
		repeated := uint32(1)
		p = uint32(z.isRep[state&15])
		bound = rng >> probBits * p
		if code < bound {
			rng = bound
			z.isRep[state&15] = prob(p + (probMax-p)>>moveBits)
			repeated = 0
		} else {
			rng -= bound
			code -= bound
			z.isRep[state&15] = prob(p - p>>moveBits)
		}
		if rng < topValue {
			rng <<= 8
			code = code<<8 | uint32(in[at&inMask])
			at++
		}
		if repeated != 0 {
			p := uint32(z.isRep0[state&15])
			bound := rng >> probBits * p
			if code < bound {
				rng = bound
				z.isRep0[state&15] = prob(p + (probMax-p)>>moveBits)
				if rng < topValue {
					rng <<= 8
					code = code<<8 | uint32(in[at&inMask])
					at++
				}
				p = uint32(z.rep0Long[index])
				bound = rng >> probBits * p
				if code < bound {
					rng = bound
					z.rep0Long[index] = prob(p + (probMax-p)>>moveBits)
					if rng < topValue {
						rng <<= 8
						code = code<<8 | uint32(in[at&inMask])
						at++
					}
					// One byte.
					src := pos - int(rep0) - 1
					if src < start || rep0 >= dict {
						return errDistance
					}
					prev = uint32(out[src])
					out[pos] = byte(prev)
					pos++
					if state < 7 {
						state = 9
					} else {
						state = 11
					}
					continue
				}
				rng -= bound
				code -= bound
				z.rep0Long[index] = prob(p - p>>moveBits)
			} else {
				rng -= bound
				code -= bound
				z.isRep0[state&15] = prob(p - p>>moveBits)
				if rng < topValue {
					rng <<= 8
					code = code<<8 | uint32(in[at&inMask])
					at++
				}
				p = uint32(z.isRep1[state&15])
				bound = rng >> probBits * p
				if code < bound {
					rng = bound
					z.isRep1[state&15] = prob(p + (probMax-p)>>moveBits)
					rep0, rep1 = rep1, rep0
				} else {
					rng -= bound
					code -= bound
					z.isRep1[state&15] = prob(p - p>>moveBits)
					if rng < topValue {
						rng <<= 8
						code = code<<8 | uint32(in[at&inMask])
						at++
					}
					p = uint32(z.isRep2[state&15])
					bound = rng >> probBits * p
					if code < bound {
						rng = bound
						z.isRep2[state&15] = prob(p + (probMax-p)>>moveBits)
						rep0, rep1, rep2 = rep2, rep0, rep1
					} else {
						rng -= bound
						code -= bound
						z.isRep2[state&15] = prob(p - p>>moveBits)
						rep0, rep1, rep2, rep3 = rep3, rep0, rep1, rep2
					}
				}
			}
			if rng < topValue {
				rng <<= 8
				code = code<<8 | uint32(in[at&inMask])
				at++
			}
		}

		// The length.
		lengths := &z.length[repeated]
		var length int
		p = uint32(lengths.choice)
		bound = rng >> probBits * p
		if code < bound {
			rng = bound
			lengths.choice = prob(p + (probMax-p)>>moveBits)
			if rng < topValue {
				rng <<= 8
				code = code<<8 | uint32(in[at&inMask])
				at++
			}
			var symbol uint32
			symbol, rng, code, at = tree(in, lengths.low[posState][:], rng, code, at)
			length = int(symbol) - 8 + minMatch
		} else {
			rng -= bound
			code -= bound
			lengths.choice = prob(p - p>>moveBits)
			if rng < topValue {
				rng <<= 8
				code = code<<8 | uint32(in[at&inMask])
				at++
			}
			p = uint32(lengths.choice2)
			bound = rng >> probBits * p
			var probs []prob
			if code < bound {
				rng = bound
				lengths.choice2 = prob(p + (probMax-p)>>moveBits)
				probs = lengths.mid[posState][:]
				length = minMatch + 8 - len(probs)
			} else {
				rng -= bound
				code -= bound
				lengths.choice2 = prob(p - p>>moveBits)
				probs = lengths.high[:]
				length = minMatch + 16 - len(probs)
			}
			if rng < topValue {
				rng <<= 8
				code = code<<8 | uint32(in[at&inMask])
				at++
			}
			var symbol uint32
			symbol, rng, code, at = tree(in, probs, rng, code, at)
			length += int(symbol)
		}

		if repeated != 0 {
			if state < 7 {
				state = 8
			} else {
				state = 11
			}
		} else {
			if state < 7 {
				state = 7
			} else {
				state = 10
			}
			rep1, rep2, rep3 = rep0, rep1, rep2

			// The distance.
			slots := &z.slot[min(length-minMatch, 3)&3]
			var symbol uint32
			symbol, rng, code, at = tree(in, slots[:], rng, code, at)
			slot := symbol - 64
			switch {
			case slot < 4:
				rep0 = slot
			case slot < 14:
				bits := slot>>1 - 1
				rep0 = (2 | slot&1) << bits
				offset := rep0 - slot
				symbol := uint32(1)
				for low := uint32(1); low < 1<<bits; low <<= 1 {
					i := (offset + symbol) & 127
					p := uint32(z.special[i])
					bound := rng >> probBits * p
					if code < bound {
						rng = bound
						z.special[i] = prob(p + (probMax-p)>>moveBits)
						symbol <<= 1
					} else {
						rng -= bound
						code -= bound
						z.special[i] = prob(p - p>>moveBits)
						symbol = symbol<<1 | 1
						rep0 += low
					}
					if rng < topValue {
						rng <<= 8
						code = code<<8 | uint32(in[at&inMask])
						at++
					}
				}
			default:
				rep0 = 2 | slot&1
				for bits := slot>>1 - 5; bits > 0; bits-- {
					rng >>= 1
					code -= rng
					mask := -(code >> 31)
					code += rng & mask
					rep0 = rep0<<1 + mask + 1
					if rng < topValue {
						rng <<= 8
						code = code<<8 | uint32(in[at&inMask])
						at++
					}
				}
				rep0 <<= 4
				symbol := uint32(1)
				for low := uint32(1); low < 16; low <<= 1 {
					i := symbol & 15
					p := uint32(z.align[i])
					bound := rng >> probBits * p
					if code < bound {
						rng = bound
						z.align[i] = prob(p + (probMax-p)>>moveBits)
						symbol <<= 1
					} else {
						rng -= bound
						code -= bound
						z.align[i] = prob(p - p>>moveBits)
						symbol = symbol<<1 | 1
						rep0 += low
					}
					if rng < topValue {
						rng <<= 8
						code = code<<8 | uint32(in[at&inMask])
						at++
					}
				}
			}
		}

		// The bytes.
		src := pos - int(rep0) - 1
		if src < start || rep0 >= dict {
			return errDistance
		}
		end := pos + length
		if end > len(out) {
			return errLength
		}
		// Two words cover most matches and spare a call. What they write
		// beyond the match is written again later.
		if rep0 >= 7 && pos+16 <= len(out) {
			d, s := out[pos:pos+16], out[src:]
			binary.LittleEndian.PutUint64(d, binary.LittleEndian.Uint64(s))
			binary.LittleEndian.PutUint64(d[8:], binary.LittleEndian.Uint64(s[8:]))
			if length > 16 {
				repeat(out[src:end], pos-src, 16)
			}
		} else {
			repeat(out[src:end], pos-src, 0)
		}
		pos = end
		prev = uint32(out[pos-1])
	}

	z.state = state
	z.rep = [4]uint32{rep0, rep1, rep2, rep3}
	if int(at) != n || code != 0 {
		return errRange
	}
	return nil
}

// repeat fills b with repetitions of its first period bytes; the done bytes
// after those are filled already.
func repeat(b []byte, period, done int) {
	for n := period + done; n < len(b); {
		n += copy(b[n:], b[done:n])
	}
}

// tree decodes a number, the high bits first, of as many bits as probs has
// probabilities for; the first is not used. It returns the number with a one
// before it.
//
// These bits are hard to foresee, so that no branch may depend on them: mask
// is all ones if the bit is 0. As a function it has the processor's registers
// to itself; so do not let it be inlined.
//
//go:noinline
func tree(in *[maxPacked]byte, probs []prob, rng32, code32, at uint32) (s, r, c, a uint32) {
	rng, code, symbol := uint64(rng32), uint64(code32), uint64(1)
	for symbol < uint64(len(probs)) {
		p := uint64(probs[symbol])
		bound := rng >> probBits * p
		code -= bound
		mask := uint64(int64(code) >> 63)
		rng -= bound
		rng += (bound - rng) & mask
		code += bound & mask
		probs[symbol] = prob(p - uint64(int64(p+mask&toZero)>>moveBits))
		symbol = symbol<<1 + 1 + mask
		if rng < topValue {
			rng <<= 8
			code = code<<8 | uint64(in[at&inMask])
			at++
		}
	}
	return uint32(symbol), uint32(rng), uint32(code), at
}

// matchedLiteral is tree for the literal after a match. It is not the byte
// that the match would have gone on with; as long as its bits are the same,
// they choose the probability.
//
//go:noinline
func matchedLiteral(in *[maxPacked]byte, probs *[1024]prob, matched byte, rng32, code32, at uint32) (s, r, c, a uint32) {
	rng, code, symbol := uint64(rng32), uint64(code32), uint64(1)
	match, offset := uint64(matched), uint64(0x100)
	for symbol < 0x100 {
		match <<= 1
		bit := match & offset
		i := (offset + bit + symbol) & 1023
		p := uint64(probs[i])
		bound := rng >> probBits * p
		code -= bound
		mask := uint64(int64(code) >> 63)
		rng -= bound
		rng += (bound - rng) & mask
		code += bound & mask
		probs[i] = prob(p - uint64(int64(p+mask&toZero)>>moveBits))
		symbol = symbol<<1 + 1 + mask
		offset = bit ^ offset&mask
		if rng < topValue {
			rng <<= 8
			code = code<<8 | uint64(in[at&inMask])
			at++
		}
	}
	return uint32(symbol), uint32(rng), uint32(code), at
}
