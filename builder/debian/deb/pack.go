package deb

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"slices"
)

// A pack is one file of the store: the decoded data.tar, the index, and a
// trailer of fixed length.
//
//	data.tar | index | length of data.tar, u64 | length of index, u64 |
//	CRC-32C of the index, u32 | magic, 12 bytes (little endian)
//
// The index is a run of varints and strings (length, bytes) in the order of
// (*index).encode. The digest of the .deb was checked when the pack was made;
// the checksums here only find damage on the user's disk.
const (
	packMagic   = "picube-deb1\n"
	packTrailer = 8 + 8 + 4 + len(packMagic)
	maxIndex    = 512 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is a run of the data with its checksum; they follow each other.
type segment struct {
	length int64
	crc    uint32
}

type index struct {
	segments []segment
	control  map[string][]byte
	records  []record
}

func (x *index) size() int64 {
	var n int64
	for _, s := range x.segments {
		n += s.length
	}
	return n
}

func (x *index) encode() []byte {
	var b []byte
	num := func(v uint64) { b = binary.AppendUvarint(b, v) }
	str := func(s string) { num(uint64(len(s))); b = append(b, s...) }
	num(uint64(len(x.segments)))
	for _, s := range x.segments {
		num(uint64(s.length))
		num(uint64(s.crc))
	}
	num(uint64(len(x.control)))
	for _, name := range slices.Sorted(maps.Keys(x.control)) {
		str(name)
		str(string(x.control[name]))
	}
	num(uint64(len(x.records)))
	for _, r := range x.records {
		str(r.path)
		num(uint64(r.mode))
		num(uint64(r.uid))
		num(uint64(r.gid))
		num(uint64(r.modTime))
		num(uint64(r.offset))
		num(uint64(r.size))
		str(r.target)
		num(uint64(r.major))
		num(uint64(r.minor))
		num(uint64(r.link))
	}
	return b
}

// trailer returns what follows the index in a pack.
func (x *index) trailer(encoded []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(x.size()))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(encoded)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(encoded, castagnoli))
	return append(b, packMagic...)
}

var errDamaged = errors.New("damaged cache entry")

// readIndex reads a pack's index from its end.
func readIndex(r io.ReaderAt, size int64) (*index, error) {
	t := make([]byte, packTrailer)
	if size < int64(len(t)) {
		return nil, errDamaged
	}
	if _, err := r.ReadAt(t, size-int64(len(t))); err != nil {
		return nil, err
	}
	data, length := binary.LittleEndian.Uint64(t), binary.LittleEndian.Uint64(t[8:])
	if string(t[20:]) != packMagic || length > maxIndex || data > MaxData || int64(data+length)+int64(len(t)) != size {
		return nil, errDamaged
	}
	b := make([]byte, length)
	if _, err := r.ReadAt(b, int64(data)); err != nil && err != io.EOF {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(t[16:]) {
		return nil, errDamaged
	}
	x, err := parseIndex(b)
	if err == nil && x.size() != int64(data) {
		err = errDamaged
	}
	return x, err
}

// parser reads what encode wrote; after the first fault it only returns
// zeros.
type parser struct {
	text string // strings of the index share it
	bad  bool
}

func (p *parser) num(limit uint64) uint64 {
	var v uint64
	for i := 0; i < len(p.text) && i < binary.MaxVarintLen64; i++ {
		v |= uint64(p.text[i]&0x7f) << (7 * i)
		if p.text[i] < 0x80 {
			p.text = p.text[i+1:]
			if v > limit {
				break
			}
			return v
		}
	}
	p.bad, p.text = true, ""
	return 0
}

// count reads a number of things that take at least size bytes each, so that
// a damaged one cannot ask for more memory than the index has.
func (p *parser) count(size int) int { return int(p.num(uint64(len(p.text) / size))) }

func (p *parser) str() string {
	n := p.count(1)
	if n > len(p.text) { // the count itself took a byte
		p.bad, p.text = true, ""
		return ""
	}
	s := p.text[:n]
	p.text = p.text[n:]
	return s
}

func parseIndex(b []byte) (*index, error) {
	p := &parser{text: string(b)}
	x := &index{control: map[string][]byte{}}
	x.segments = make([]segment, p.count(2))
	var data uint64
	for i := range x.segments {
		s := segment{int64(p.num(MaxData - data)), uint32(p.num(math.MaxUint32))}
		x.segments[i] = s
		data += uint64(s.length)
	}
	for range p.count(2) {
		name := p.str()
		x.control[name] = []byte(p.str())
	}
	x.records = make([]record, p.count(11))
	for i := range x.records {
		x.records[i] = record{
			path:    p.str(),
			mode:    uint32(p.num(math.MaxUint32)),
			uid:     uint32(p.num(math.MaxUint32)),
			gid:     uint32(p.num(math.MaxUint32)),
			modTime: int64(p.num(math.MaxInt64)),
			offset:  int64(p.num(data)),
			size:    int64(p.num(data)),
			target:  p.str(),
			major:   uint32(p.num(math.MaxUint32)),
			minor:   uint32(p.num(math.MaxUint32)),
			link:    int(p.num(uint64(i))),
		}
		if r := x.records[i]; uint64(r.offset)+uint64(r.size) > data {
			return nil, errDamaged
		}
	}
	if p.bad || p.text != "" {
		return nil, errDamaged
	}
	return x, nil
}
