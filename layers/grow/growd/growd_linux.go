// Package growd lets the root partition and its ext4 file system fill the
// card, while it is mounted. Each step looks first at what is there, so it may
// run at every boot and be cut off anywhere: the partition table changes by
// the write of one sector, and the kernel's resize is journalled.
package growd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sector = 512
	// align keeps the end of the partition on the 4 MiB erase blocks of
	// common cards.
	align = 4 << 20 / sector
	// mbrTable is where the four partition entries begin, mbrEntry their size
	// (UEFI specification 2.10, 5.2.1).
	mbrTable, mbrEntry = 446, 16
	// maxSectors is what an entry's 32-bit length can hold: 2 TiB.
	maxSectors = 1<<32 - 1
)

// Result says what was done.
type Result struct {
	Device string // the root's partition
	Bytes  int64  // its size now
	Grown  bool
}

// Grow grows the file system mounted at "/".
func Grow() (Result, error) {
	p, err := rootPartition()
	if err != nil {
		return Result{}, fmt.Errorf("root: %w", err)
	}
	grown, err := p.growPartition()
	if err != nil {
		return Result{}, fmt.Errorf("%s: cannot grow the partition: %w", p.device, err)
	}
	bytes, more, err := p.growFileSystem()
	if err != nil {
		return Result{}, fmt.Errorf("%s: cannot grow the file system: %w", p.device, err)
	}
	return Result{Device: p.device, Bytes: bytes, Grown: grown || more}, nil
}

// partition is a disk's partition as sysfs shows it; lengths in sectors.
type partition struct {
	device, disk string
	number       int
	start, size  int64
	diskSize     int64
}

func rootPartition() (partition, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return partition{}, err
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	dir, err := filepath.EvalSymlinks("/sys/dev/block/" + dev)
	if err != nil {
		return partition{}, fmt.Errorf("cannot find block device %s: %w", dev, err)
	}
	number, err := sysfs(dir, "partition")
	if err != nil {
		return partition{}, fmt.Errorf("cannot grow %s: it is not a partition", filepath.Base(dir))
	}
	start, err1 := sysfs(dir, "start")
	size, err2 := sysfs(dir, "size")
	diskSize, err3 := sysfs(filepath.Dir(dir), "size")
	return partition{
		device: "/dev/" + filepath.Base(dir), disk: "/dev/" + filepath.Base(filepath.Dir(dir)),
		number: int(number), start: start, size: size, diskSize: diskSize,
	}, errors.Join(err1, err2, err3)
}

func sysfs(dir, name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// target is the length the partition should have, in sectors.
func (p partition) target() int64 {
	return min(p.diskSize/align*align-p.start, maxSectors)
}

func (p *partition) growPartition() (bool, error) {
	want := p.target()
	if want <= p.size {
		return false, nil
	}
	disk, err := os.OpenFile(p.disk, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return false, err
	}
	defer disk.Close()
	mbr := make([]byte, sector)
	if _, err := disk.ReadAt(mbr, 0); err != nil {
		return false, err
	}
	changed, err := resizeEntry(mbr, p.number, p.start, want)
	if err != nil {
		return false, err
	}
	if changed {
		if _, err := disk.WriteAt(mbr, 0); err != nil {
			return false, err
		}
	}
	if err := tellKernel(disk, *p, want); err != nil {
		return false, err
	}
	p.size = want
	return true, nil
}

// resizeEntry sets the length of partition number, which must begin at start
// and be followed by no other, in a partition table; it reports whether the
// table changed.
func resizeEntry(mbr []byte, number int, start, length int64) (bool, error) {
	if mbr[510] != 0x55 || mbr[511] != 0xaa || number < 1 || number > 4 {
		return false, errors.New("cannot use the partition table: not a master boot record with this partition")
	}
	entry := func(i int) []byte { return mbr[mbrTable+mbrEntry*(i-1):][:mbrEntry] }
	own := entry(number)
	if int64(binary.LittleEndian.Uint32(own[8:])) != start {
		return false, errors.New("cannot use the partition table: it does not agree with the kernel's")
	}
	for i := 1; i <= 4; i++ {
		if s := int64(binary.LittleEndian.Uint32(entry(i)[8:])); i != number && entry(i)[4] != 0 && s > start {
			return false, fmt.Errorf("partition %d lies behind it", i)
		}
	}
	if int64(binary.LittleEndian.Uint32(own[12:])) == length {
		return false, nil
	}
	binary.LittleEndian.PutUint32(own[12:], uint32(length))
	return true, nil
}

// blkpg is struct blkpg_ioctl_arg and struct blkpg_partition of linux/blkpg.h.
type blkpgArg struct {
	op, flags, datalen int32
	data               unsafe.Pointer
}

type blkpgPartition struct {
	start, length int64
	pno           int32
	devname       [64]byte
	volname       [64]byte
}

const (
	blkpg                = 0x1269
	blkpgResizePartition = 3
)

// tellKernel makes a mounted partition longer; re-reading the whole table
// would be refused as busy.
func tellKernel(disk *os.File, p partition, sectors int64) error {
	part := blkpgPartition{start: p.start * sector, length: sectors * sector, pno: int32(p.number)}
	arg := blkpgArg{op: blkpgResizePartition, datalen: int32(unsafe.Sizeof(part)), data: unsafe.Pointer(&part)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), blkpg, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return fmt.Errorf("the kernel refuses the new length: %w", errno)
	}
	return nil
}

// ext4ResizeFS is EXT4_IOC_RESIZE_FS of the kernel's fs/ext4/ext4.h:
// _IOW('f', 16, __u64), a number of blocks.
const ext4ResizeFS = 0x40086610

func (p partition) growFileSystem() (bytes int64, grown bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return 0, false, err
	}
	if st.Type != unix.EXT4_SUPER_MAGIC {
		return 0, false, fmt.Errorf("it is not ext4 (type %#x)", st.Type)
	}
	blocks := uint64(p.size * sector / int64(st.Bsize))
	root, err := os.Open("/")
	if err != nil {
		return 0, false, err
	}
	defer root.Close()
	before := st.Blocks
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, root.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return 0, false, errno
	}
	if err := unix.Statfs("/", &st); err != nil {
		return 0, false, err
	}
	return p.size * sector, st.Blocks > before, nil
}
