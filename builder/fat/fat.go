// Package fat writes FAT32 file systems from a tree, and reads FAT16 and FAT32
// file systems into one.
//
// It exists because go-diskfs v1.9.4 writes a FAT32 that fsck.vfat objects to
// (".." of directories in the root, the free-cluster summary) and that differs
// from run to run (random volume id, times from the clock). What Write makes
// depends on nothing but the tree and the options.
//
// Not supported: FAT12, exFAT, changing a file system in place, and whatever
// FAT cannot hold: owners, permissions, links, devices, two names that differ
// in case only. Bytes that are not covered by data are not written, so the
// target must read as zeros there, as a new (sparse) file does.
//
// Formats: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103).
package fat

import (
	"encoding/binary"
	"time"
)

const (
	sectorSize = 512
	entrySize  = 32 // of a directory entry

	maxFile       = 1<<32 - 1      // a file's length is a 32-bit field
	maxDirEntries = 65536          // fatgen103: a directory is at most 2 MiB
	minClusters   = 65525          // with fewer, drivers take the file system for FAT16
	maxClusters   = 0x0FFF_FFF5    // cluster numbers from 0x0FFFFFF7 on have other meanings
	firstCluster  = 2              // the FAT's first two entries stand for no cluster
	endOfChain    = 0x0FFF_FFFF    // what Write puts at a chain's end
	mediaFixed    = 0xF8           // media descriptor of what is not a floppy
	bootSignature = uint16(0xAA55) // last two bytes of a boot sector

	fsInfoSector     = 1
	backupBootSector = 6
	minReserved      = 32
)

// Directory entry attributes.
const (
	attrReadOnly = 0x01
	attrHidden   = 0x02
	attrSystem   = 0x04
	attrVolumeID = 0x08
	attrDir      = 0x10
	attrArchive  = 0x20
	attrLongName = attrReadOnly | attrHidden | attrSystem | attrVolumeID
	attrLongMask = attrLongName | attrDir | attrArchive
)

// FSInfo sector: signatures and what they frame.
const (
	fsInfoLead   = 0x41615252
	fsInfoStruct = 0x61417272
	fsInfoTrail  = 0xAA550000
)

var le = binary.LittleEndian

// fatTime converts seconds since 1970, taken as UTC, to FAT's date, time
// (steps of 2 s) and hundredths; FAT knows the years 1980 to 2107.
func fatTime(sec int64) (date, clock uint16, hundredths byte) {
	t := time.Unix(sec, 0).UTC()
	if t.Year() < 1980 {
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if t.Year() > 2107 {
		t = time.Date(2107, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	date = uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day())
	clock = uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2)
	return date, clock, byte(t.Second()%2) * 100
}

// unixTime is the way back; a date that does not exist is moved to the next
// that does.
func unixTime(date, clock uint16) int64 {
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31),
		int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC).Unix()
}

// shortSum is the checksum that ties a long name's entries to their short one.
func shortSum(short [11]byte) byte {
	var sum byte
	for _, b := range short {
		sum = sum>>1 | sum<<7
		sum += b
	}
	return sum
}
