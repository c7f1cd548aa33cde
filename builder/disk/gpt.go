package disk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

// Limits on a GPT that may be hostile; sgdisk(8) makes 128 entries of 128
// bytes.
const (
	gptHeaderSize = 92
	maxGPTEntries = 1024
	maxGPTEntry   = 4096
)

// GUIDs of partition types, as gdisk(8) names them.
const (
	GUIDEFISystem = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" // EFI system, what a Pi boots from too
	GUIDBasicData = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" // Microsoft basic data, with FAT in it
	GUIDLinux     = "0fc63daf-8483-4772-8e79-3d69d8477de4" // Linux file system
	GUIDLinuxARM  = "69dad710-2ce4-4e3c-b16c-21a1d49abed3" // Linux root (ARM), Discoverable Partitions
	GUIDLinuxA64  = "b921b045-1df0-41c3-af44-4c6f280d3fae" // Linux root (ARM-64)
)

// GPTPartition is a range of a disk, in bytes.
type GPTPartition struct {
	Number int    // from 1
	Type   string // a GUID in lower case
	UUID   string // the kernel's PARTUUID
	Name   string
	Start  int64
	Size   int64
}

// End is the first byte behind the partition.
func (p GPTPartition) End() int64 { return p.Start + p.Size }

// IsGPT reports whether a disk's first sector is the one that stands before a
// GPT: with a partition of type EE and the mark 55 AA.
func IsGPT(r io.ReaderAt) bool {
	b := make([]byte, SectorSize)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, SectorSize), b); err != nil || b[510] != 0x55 || b[511] != 0xAA {
		return false
	}
	for i := range slots {
		if b[entries+i*entrySize+4] == typeProtective {
			return true
		}
	}
	return false
}

// ReadGPT reads the GUID partition table of a disk of size bytes with sectors
// of 512: UEFI specification 2.10, chapter 5. The copy at the disk's end is
// not read.
func ReadGPT(r io.ReaderAt, size int64) ([]GPTPartition, error) {
	list, err := readGPT(r, size)
	if err != nil {
		return nil, fmt.Errorf("partition table (GPT): %w", err)
	}
	slices.SortFunc(list, func(a, b GPTPartition) int { return cmp.Compare(a.Start, b.Start) })
	var errs []error
	for i, p := range list {
		if i > 0 && list[i-1].End() > p.Start {
			errs = append(errs, fmt.Errorf("partition %d: cannot overlap partition %d", p.Number, list[i-1].Number))
		}
		if p.End() > size {
			errs = append(errs, fmt.Errorf("partition %d: cannot end at byte %d of a disk of %d", p.Number, p.End(), size))
		}
	}
	slices.SortFunc(list, func(a, b GPTPartition) int { return cmp.Compare(a.Number, b.Number) })
	return list, errors.Join(errs...)
}

func readGPT(r io.ReaderAt, size int64) ([]GPTPartition, error) {
	le := binary.LittleEndian
	h := make([]byte, SectorSize)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), h); err != nil { // the MBR
		return nil, fmt.Errorf("cannot read it: %w", err)
	}
	if _, err := io.ReadFull(io.NewSectionReader(r, SectorSize, size-SectorSize), h); err != nil {
		return nil, fmt.Errorf("cannot read it: %w", err)
	}
	if string(h[:8]) != "EFI PART" {
		return nil, errors.New("cannot find its signature")
	}
	length := le.Uint32(h[12:])
	if length < gptHeaderSize || length > SectorSize {
		return nil, fmt.Errorf("cannot have a header of %d bytes", length)
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, errors.New("its header has a wrong checksum")
	}
	count, each := le.Uint32(h[80:]), le.Uint32(h[84:])
	first, last, at := le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint64(h[72:])
	sectors := uint64(max(size, 0)) / SectorSize
	switch {
	case le.Uint64(h[24:]) != 1:
		return nil, fmt.Errorf("cannot be a header for sector %d", le.Uint64(h[24:]))
	case each < 128 || each > maxGPTEntry || each&(each-1) != 0 || count == 0 || count > maxGPTEntries:
		return nil, fmt.Errorf("cannot have %d entries of %d bytes", count, each)
	case at < 2 || at >= sectors || uint64(count)*uint64(each) > (sectors-at)*SectorSize:
		return nil, fmt.Errorf("cannot have its entries at sector %d of %d", at, sectors)
	}
	b := make([]byte, count*each)
	if _, err := io.ReadFull(io.NewSectionReader(r, int64(at)*SectorSize, int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("cannot read its entries: %w", err)
	}
	if crc32.ChecksumIEEE(b) != le.Uint32(h[88:]) {
		return nil, errors.New("its entries have a wrong checksum")
	}
	var list []GPTPartition
	var errs []error
	for i := range int(count) {
		e := b[i*int(each):][:each]
		if [16]byte(e) == [16]byte{} {
			continue
		}
		from, to := le.Uint64(e[32:]), le.Uint64(e[40:])
		if from < first || to < from || to > last || to >= 1<<54 {
			errs = append(errs, fmt.Errorf("partition %d: cannot be sectors %d to %d, usable are %d to %d", i+1, from, to, first, last))
			continue
		}
		list = append(list, GPTPartition{
			Number: i + 1, Type: guid(e), UUID: guid(e[16:]), Name: gptName(e[56:128]),
			Start: int64(from) * SectorSize, Size: int64(to-from+1) * SectorSize,
		})
	}
	return list, errors.Join(errs...)
}

// guid writes a GUID as people do: its first three parts are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func gptName(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	name, _, _ := strings.Cut(string(utf16.Decode(units)), "\x00")
	return name
}
