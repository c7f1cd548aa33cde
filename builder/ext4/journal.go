package ext4

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Journal blocks and features (Documentation/filesystems/ext4/journal.rst).
const (
	journalDescriptor = 1
	journalCommit     = 2
	journalSuper2     = 4
	journalRevoke     = 5

	journalHas64     = 2
	journalHasAsync  = 4
	journalHasCsum2  = 8
	journalHasCsum3  = 16
	journalFast      = 32
	journalKnown     = 1 | journalHas64 | journalHasAsync | journalHasCsum2 | journalHasCsum3
	tagEscaped       = 1
	tagSameUUID      = 2
	tagLast          = 8
	journalHeaderLen = 12
)

// journal reads a journal that was not emptied.
type journal struct {
	fs       *FS
	blocks   []mapped
	len      uint32
	first    uint32
	features uint32
	seed     uint32
}

// tag says that a journal block holds a new version of a block.
type tag struct {
	block   uint64
	at      uint64 // where the new version lies, in the file system
	escaped bool
	wrong   bool // its checksum is
}

// replayJournal notes which blocks have newer versions in the journal: those
// of all transactions that were committed, unless a later one revoked them.
func (fs *FS) replayJournal() error {
	table := &inodes{fs: fs}
	in, err := table.get(fs.sb.JournalInum)
	if err != nil {
		return err
	}
	m, err := fs.mapping(in, nil)
	if err != nil {
		return err
	}
	j := &journal{fs: fs, blocks: m.data, len: math.MaxUint32}
	b, err := j.read(0)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint32(b) != journalMagic || be.Uint32(b[4:]) != journalSuper2 {
		return damaged("no journal superblock")
	}
	j.len, j.first, j.features = be.Uint32(b[0x10:]), be.Uint32(b[0x14:]), be.Uint32(b[0x28:])
	sequence, start := be.Uint32(b[0x18:]), be.Uint32(b[0x1c:])
	if start == 0 {
		return nil
	}
	if j.features&journalFast != 0 {
		return errors.New("a journal with fast commits is not supported; mount and unmount it once, or fsck it")
	}
	if j.features&^journalKnown != 0 {
		return fmt.Errorf("journal features %#x are not supported", j.features&^journalKnown)
	}
	if be.Uint32(b[0xc:]) != uint32(fs.blockSize()) || j.first == 0 || j.len <= j.first || uint64(j.len) > fs.blocks || start < j.first || start >= j.len {
		return damaged("journal of %d blocks from %d, log starts at %d", j.len, j.first, start)
	}
	j.seed = crc32c(math.MaxUint32, b[0x30:0x40])
	return j.run(sequence, start)
}

// run walks the log until the first transaction that is not complete.
func (j *journal) run(sequence, at uint32) error {
	be := binary.BigEndian
	replay := map[uint64]replayed{}
	revoked := map[uint64]uint32{} // the last transaction that revoked a block
	written := map[uint64]uint32{}
	var tags []tag
	var revokes []uint64
	for steps := uint32(0); steps < j.len; steps++ {
		b, err := j.read(at)
		if err != nil {
			return err
		}
		if be.Uint32(b) != journalMagic || be.Uint32(b[8:]) != sequence {
			break
		}
		at = j.next(at, 1)
		kind := be.Uint32(b[4:])
		if j.hasCsum() && !j.checksumOK(b, kind) {
			break // torn: the transaction was not complete
		}
		switch kind {
		case journalDescriptor:
			found, err := j.tags(b, sequence, at)
			if err != nil {
				return err
			}
			tags = append(tags, found...)
			at = j.next(at, uint32(len(found)))
			steps += uint32(len(found))
			continue
		case journalRevoke:
			found, err := j.revokes(b)
			if err != nil {
				return err
			}
			revokes = append(revokes, found...)
			continue
		case journalCommit:
		default:
			return damaged("journal block of type %d", kind)
		}
		for _, t := range tags {
			if t.wrong {
				return damaged("wrong checksum of block %d in the journal", t.block)
			}
			replay[t.block] = replayed{t.at, t.escaped}
			written[t.block] = sequence
		}
		for _, block := range revokes {
			revoked[block] = sequence
		}
		tags, revokes = nil, nil
		sequence++
	}
	// A revoke counts for the transactions up to its own.
	for block, seq := range revoked {
		if w, ok := written[block]; ok && int32(w-seq) <= 0 {
			delete(replay, block)
		}
	}
	j.fs.replay = replay
	return j.reload()
}

// reload reads again what was read before the journal counted.
func (j *journal) reload() error {
	fs := j.fs
	off := 1024
	if fs.superBlock() == 1 {
		off = 0
	}
	b := make([]byte, fs.blockSize())
	if err := fs.readBlocks(b, fs.superBlock()); err != nil {
		return err
	}
	if err := fs.readSuper(b[off:off+1024], fs.Size()); err != nil {
		return err
	}
	fs.descs = nil
	return fs.readDescs()
}

// read reads a block of the journal.
func (j *journal) read(n uint32) ([]byte, error) {
	at, err := j.where(n)
	if err != nil {
		return nil, err
	}
	return j.fs.block(at)
}

func (j *journal) where(n uint32) (uint64, error) {
	at := uint64(n)
	i, _ := slices.BinarySearchFunc(j.blocks, at, func(x mapped, at uint64) int {
		return cmp.Compare(x.logical+x.len-1, at)
	})
	if i == len(j.blocks) || j.blocks[i].logical > at {
		return 0, damaged("journal without block %d", n)
	}
	return j.blocks[i].start + at - j.blocks[i].logical, nil
}

// next returns the block n further in the ring.
func (j *journal) next(at, n uint32) uint32 {
	return j.first + uint32((uint64(at-j.first)+uint64(n))%uint64(j.len-j.first))
}

func (j *journal) hasCsum() bool { return j.features&(journalHasCsum2|journalHasCsum3) != 0 }

// checksumOK verifies a block's checksum: in a commit behind its header, in
// others in the last four bytes.
func (j *journal) checksumOK(b []byte, kind uint32) bool {
	at := len(b) - 4
	if kind == journalCommit {
		at = 0x10
	}
	crc := crc32c(j.seed, b[:at])
	crc = crc32c(crc, make([]byte, 4))
	return binary.BigEndian.Uint32(b[at:]) == crc32c(crc, b[at+4:])
}

// dataOK verifies the checksum of a block that a tag announces: of its
// sequence number and its content.
func (j *journal) dataOK(e []byte, sequence uint32, at uint64) (bool, error) {
	if !j.hasCsum() {
		return true, nil
	}
	b, err := j.fs.block(at)
	if err != nil {
		return false, err
	}
	crc := crc32c(crc32c(j.seed, binary.BigEndian.AppendUint32(nil, sequence)), b)
	if j.features&journalHasCsum3 != 0 {
		return binary.BigEndian.Uint32(e[12:]) == crc, nil
	}
	return binary.BigEndian.Uint16(e[4:]) == uint16(crc), nil
}

// tags returns what a descriptor block announces; the blocks follow from at
// on.
func (j *journal) tags(b []byte, sequence, at uint32) ([]tag, error) {
	be := binary.BigEndian
	size := 8
	switch {
	case j.features&journalHasCsum3 != 0:
		size = 16
	case j.features&journalHas64 != 0:
		size = 12
	}
	if j.features&journalHasCsum2 != 0 {
		size += 2
	}
	end := len(b)
	if j.hasCsum() {
		end -= 4
	}
	var out []tag
	for off := journalHeaderLen; off+size <= end && uint32(len(out)) < j.len; {
		e := b[off:]
		var t tag
		t.block = uint64(be.Uint32(e))
		var flags uint32
		if j.features&journalHasCsum3 != 0 {
			flags = be.Uint32(e[4:])
		} else {
			flags = uint32(be.Uint16(e[6:]))
		}
		if j.features&journalHas64 != 0 {
			t.block |= uint64(be.Uint32(e[8:])) << 32
		}
		if t.block >= j.fs.blocks {
			return nil, damaged("journal writes block %d beyond the end", t.block)
		}
		var err error
		if t.at, err = j.where(j.next(at, uint32(len(out)))); err != nil {
			return nil, err
		}
		ok, err := j.dataOK(e, sequence, t.at)
		if err != nil {
			return nil, err
		}
		t.wrong, t.escaped = !ok, flags&tagEscaped != 0
		out = append(out, t)
		off += size
		if flags&tagSameUUID == 0 {
			off += 16
		}
		if flags&tagLast != 0 {
			return out, nil
		}
	}
	return nil, errors.New("journal descriptor without end")
}

// revokes returns the blocks whose older versions must not be replayed.
func (j *journal) revokes(b []byte) ([]uint64, error) {
	be := binary.BigEndian
	used := int(be.Uint32(b[journalHeaderLen:]))
	if used < journalHeaderLen+4 || used > len(b) {
		return nil, damaged("journal revokes %d bytes", used)
	}
	size := 4
	if j.features&journalHas64 != 0 {
		size = 8
	}
	var out []uint64
	for off := journalHeaderLen + 4; off+size <= used; off += size {
		if size == 8 {
			out = append(out, be.Uint64(b[off:]))
		} else {
			out = append(out, uint64(be.Uint32(b[off:])))
		}
	}
	return out, nil
}

// replayBlock replaces b, block n, by the journal's version if there is one.
func (fs *FS) replayBlock(b []byte, n uint64) error {
	r, ok := fs.replay[n]
	if !ok {
		return nil
	}
	if err := readFull(fs.r, b, int64(r.block)<<fs.shift); err != nil {
		return err
	}
	if r.escaped {
		binary.BigEndian.PutUint32(b, journalMagic)
	}
	return nil
}
