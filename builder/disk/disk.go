// Package disk writes and reads partition tables of the MBR kind, and reads
// those of the GPT kind.
//
// It exists because go-diskfs v1.9.4 always writes the disk id 0, and the
// kernel finds a card's root by PARTUUID, which is that id and the partition's
// number. Not supported: writing GPT, sectors other than 512 bytes, extended and
// logical partitions, boot code.
//
// Format: the "classical generic MBR" with the disk signature of Windows NT at
// byte 440, as fdisk(8) and the kernel's block/partitions/msdos.c read it.
package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// SectorSize is the unit of a table's fields.
	SectorSize = 512
	// Align is where partitions begin and end: whole erase blocks of SD cards.
	Align = 8 << 20

	maxSectors = 1<<32 - 1
	entries    = 446 // offset of the table
	entrySize  = 16
	slots      = 4
)

// Partition types.
const (
	TypeFAT32LBA   byte = 0x0c // what the Raspberry Pi's firmware boots from
	TypeLinux      byte = 0x83
	typeProtective byte = 0xee // a GPT lies behind this table
)

// isExtended tells the types of partitions that hold partitions.
func isExtended(t byte) bool { return t == 0x05 || t == 0x0f || t == 0x85 }

// Partition is a range of a disk, in bytes.
type Partition struct {
	Number int // 1 to 4
	Type   byte
	Start  int64
	Size   int64
}

// End is the first byte behind the partition.
func (p Partition) End() int64 { return p.Start + p.Size }

// Table is an MBR.
type Table struct {
	ID         uint32 // of the disk; 0 means that it has none
	Partitions []Partition
}

// PARTUUID returns the name by which the kernel and udev know a partition.
func (t Table) PARTUUID(number int) string { return fmt.Sprintf("%08x-%02x", t.ID, number) }

// ForCard returns the table of a card: the boot partition as FAT32 at 8 MiB,
// the root file system behind it. Sizes are rounded up to Align.
func ForCard(id uint32, bootSize, rootSize int64) Table {
	boot := Partition{Number: 1, Type: TypeFAT32LBA, Start: Align, Size: roundUp(bootSize)}
	root := Partition{Number: 2, Type: TypeLinux, Start: boot.End(), Size: roundUp(rootSize)}
	return Table{ID: id, Partitions: []Partition{boot, root}}
}

func roundUp(n int64) int64 { return (n + Align - 1) / Align * Align }

// Size returns the bytes a disk needs for the table's partitions.
func (t Table) Size() int64 {
	end := int64(SectorSize)
	for _, p := range t.Partitions {
		end = max(end, p.End())
	}
	return end
}

// Write writes the disk's first sector, boot code zeroed.
func (t Table) Write(w io.WriterAt) error {
	if err := t.check(maxSectors * SectorSize); err != nil {
		return err
	}
	b := make([]byte, SectorSize)
	binary.LittleEndian.PutUint32(b[440:], t.ID)
	for _, p := range t.Partitions {
		e := b[entries+(p.Number-1)*entrySize:]
		first, count := p.Start/SectorSize, p.Size/SectorSize
		copy(e[1:], chs(first))
		e[4] = p.Type
		copy(e[5:], chs(first+count-1))
		binary.LittleEndian.PutUint32(e[8:], uint32(first))
		binary.LittleEndian.PutUint32(e[12:], uint32(count))
	}
	b[510], b[511] = 0x55, 0xAA
	if _, err := w.WriteAt(b, 0); err != nil {
		return fmt.Errorf("partition table: cannot write it: %w", err)
	}
	return nil
}

// chs returns a sector's cylinder, head and sector for 255 heads and 63
// sectors, which nothing has read since disks outgrew 8 GiB, but which sfdisk
// wants to agree with the rest.
func chs(sector int64) []byte {
	const heads, perTrack = 255, 63
	cylinder := sector / (heads * perTrack)
	if cylinder > 1023 {
		return []byte{254, 255, 255}
	}
	head, s := sector/perTrack%heads, sector%perTrack+1
	return []byte{byte(head), byte(s) | byte(cylinder>>2)&0xC0, byte(cylinder)}
}

// Read reads the table of a disk of size bytes. Empty slots are left out.
func Read(r io.ReaderAt, size int64) (Table, error) {
	b := make([]byte, SectorSize)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), b); err != nil {
		return Table{}, fmt.Errorf("partition table: cannot read it: %w", err)
	}
	if b[510] != 0x55 || b[511] != 0xAA {
		return Table{}, errors.New("partition table: cannot find the signature 55 AA at the first sector's end")
	}
	t := Table{ID: binary.LittleEndian.Uint32(b[440:])}
	for i := range slots {
		e := b[entries+i*entrySize:][:entrySize]
		p := Partition{
			Number: i + 1, Type: e[4],
			Start: int64(binary.LittleEndian.Uint32(e[8:])) * SectorSize,
			Size:  int64(binary.LittleEndian.Uint32(e[12:])) * SectorSize,
		}
		if p.Type == 0 && p.Size == 0 {
			continue
		}
		t.Partitions = append(t.Partitions, p)
	}
	return t, t.check(size)
}

// check lists what is wrong with a table for a disk of size bytes.
func (t Table) check(size int64) error {
	var errs []error
	fault := func(p Partition, format string, args ...any) {
		errs = append(errs, fmt.Errorf("partition %d: "+format, append([]any{p.Number}, args...)...))
	}
	for i, p := range t.Partitions {
		switch {
		case p.Number < 1 || p.Number > slots:
			fault(p, "cannot be numbered so, a table has %d", slots)
		case p.Type == typeProtective:
			fault(p, "cannot read a GPT")
		case isExtended(p.Type):
			fault(p, "cannot read an extended partition")
		case p.Type == 0:
			fault(p, "cannot have type 0 and %d bytes", p.Size)
		case p.Start <= 0 || p.Size <= 0 || p.Start%SectorSize != 0 || p.Size%SectorSize != 0:
			fault(p, "cannot begin at byte %d with %d bytes", p.Start, p.Size)
		case p.End() > size:
			fault(p, "cannot end at byte %d of a disk of %d", p.End(), size)
		}
		for _, q := range t.Partitions[:i] {
			switch {
			case p.Number == q.Number:
				fault(p, "cannot be there twice")
			case p.Start < q.End() && q.Start < p.End():
				fault(p, "cannot overlap partition %d", q.Number)
			}
		}
	}
	return errors.Join(errs...)
}
