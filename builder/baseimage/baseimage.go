// Package baseimage makes a root file system and a boot partition out of
// someone else's card image: Raspberry Pi OS, Debian's and Ubuntu's images for
// Raspberry Pis, and whatever else is laid out like them.
//
// An image is unpacked once, into a sparse file that is named after its digest
// (Unpack). Open reads its partitions into trees, whose content stays in that
// file. Settle switches off what the image would do by itself at its first
// boot, since the card is set up already.
//
// Not supported: roots other than ext2, ext3 and ext4; a boot partition that
// is mounted elsewhere than at /boot/firmware, as before Debian 12; init
// systems other than systemd; packages other than Debian's.
package baseimage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
)

// BootDir is where an image mounts its boot partition.
const BootDir = "/boot/firmware"

// Note is where a card says which image it was made on: the image's name and
// the SHA-256 of its file.
const Note = "/usr/lib/picube/base-image"

// Image is an opened image.
type Image struct {
	Family Family
	// Assumed says what was taken for granted of an image of no known family.
	Assumed []string
	Arch    string // Debian's name
	Suite   string // "bookworm"
	// Root is the root file system, with the boot partition at BootDir.
	Root *tree.Tree
}

// partition is what both kinds of tables say of a partition.
type partition struct {
	number      int
	boot        bool // it is of a type that holds FAT
	linux       bool
	start, size int64
}

// Open reads the image in r's first size bytes. Whatever is made in its tree
// later carries the time epoch, in seconds since 1970.
func Open(ctx context.Context, r io.ReaderAt, size, epoch int64) (*Image, error) {
	parts, err := partitions(r, size)
	if err != nil {
		return nil, err
	}
	boot, root, err := choose(parts)
	if err != nil {
		return nil, err
	}
	rootTree, err := readRoot(ctx, io.NewSectionReader(r, root.start, root.size), epoch)
	if err != nil {
		return nil, fmt.Errorf("partition %d (root): %w", root.number, err)
	}
	image := &Image{Root: rootTree}
	if err := image.recognise(); err != nil {
		return nil, err
	}
	section := io.NewSectionReader(r, boot.start, boot.size)
	fs, err := fat.Open(section, section.Size())
	var bootTree *tree.Tree
	if err == nil {
		bootTree, err = fs.Tree()
	}
	if err == nil {
		err = image.graft(bootTree)
	}
	if err != nil {
		return nil, fmt.Errorf("partition %d (boot): %w", boot.number, err)
	}
	return image, nil
}

func partitions(r io.ReaderAt, size int64) ([]partition, error) {
	var parts []partition
	if disk.IsGPT(r) {
		list, err := disk.ReadGPT(r, size)
		for _, p := range list {
			parts = append(parts, partition{
				number: p.Number, start: p.Start, size: p.Size,
				boot:  p.Type == disk.GUIDEFISystem || p.Type == disk.GUIDBasicData,
				linux: p.Type == disk.GUIDLinux || p.Type == disk.GUIDLinuxA64 || p.Type == disk.GUIDLinuxARM,
			})
		}
		return parts, err
	}
	table, err := disk.Read(r, size)
	for _, p := range table.Partitions {
		parts = append(parts, partition{
			number: p.Number, start: p.Start, size: p.Size,
			boot:  slices.Contains([]byte{0x06, 0x0b, 0x0c, 0x0e, 0xef}, p.Type), // FAT16, FAT32, and both with LBA; EFI
			linux: p.Type == disk.TypeLinux,
		})
	}
	return parts, err
}

// choose finds the boot partition, which is the first with FAT, and the root,
// which is the first of Linux behind it.
func choose(parts []partition) (boot, root partition, err error) {
	b := slices.IndexFunc(parts, func(p partition) bool { return p.boot })
	if b < 0 {
		return boot, root, errors.New("partition table: cannot find a boot partition: none is of a type for FAT")
	}
	i := slices.IndexFunc(parts, func(p partition) bool { return p.linux })
	if i < 0 {
		return boot, root, errors.New("partition table: cannot find a root partition: none is of Linux's type")
	}
	return parts[b], parts[i], nil
}

// readRoot reads a root file system into a tree of our own time.
func readRoot(ctx context.Context, r *io.SectionReader, epoch int64) (*tree.Tree, error) {
	fs, err := ext4.Open(r, r.Size())
	if err != nil {
		if kind := otherKind(r); kind != "" {
			return nil, fmt.Errorf("cannot read %s, only ext4", kind)
		}
		return nil, err
	}
	read, err := fs.Tree(ctx)
	if err != nil {
		return nil, err
	}
	t := tree.New(epoch)
	copies := map[*tree.Inode]*tree.Inode{} // so that hard links stay such
	for p, n := range read.All() {
		c := copies[n]
		if c == nil {
			c = &tree.Inode{Mode: n.Mode, UID: n.UID, GID: n.GID, ModTime: n.ModTime, Content: n.Content,
				Target: n.Target, Major: n.Major, Minor: n.Minor, Xattrs: n.Xattrs}
			copies[n] = c
		}
		if err := t.Put(p, c); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// otherKind names file systems by what they begin with, as blkid(8) does.
func otherKind(r io.ReaderAt) string {
	for _, k := range []struct {
		name, magic string
		at          int64
	}{
		{"btrfs", "_BHRfS_M", 0x10040},
		{"f2fs", string(binary.LittleEndian.AppendUint32(nil, 0xF2F52010)), 1024},
		{"XFS", "XFSB", 0},
		{"squashfs", "hsqs", 0},
		{"an encrypted volume (LUKS)", "LUKS\xba\xbe", 0},
		{"a volume group (LVM)", "LABELONE", 512},
	} {
		b := make([]byte, len(k.magic))
		if _, err := r.ReadAt(b, k.at); err == nil && string(b) == k.magic {
			return k.name
		}
	}
	return ""
}

// graft puts the boot partition to where the running system has it, so that
// maintainer scripts see it there.
func (i *Image) graft(boot *tree.Tree) error {
	names, err := i.Root.ReadDir(BootDir)
	if err != nil {
		return fmt.Errorf("cannot find %s in the root: images of before Debian 12 are not supported: %w", BootDir, err)
	}
	if len(names) > 0 { // it lies hidden below the mount point
		if err := i.Root.RemoveAll(BootDir); err != nil {
			return err
		}
		if err := i.Root.Mkdir(BootDir, 0o755); err != nil {
			return err
		}
	}
	for p, n := range boot.All() {
		if p == "/" {
			continue
		}
		if err := i.Root.Put(BootDir+p, &tree.Inode{Mode: n.Mode, ModTime: n.ModTime, Content: n.Content}); err != nil {
			return err
		}
	}
	return nil
}

// TakeBoot moves what lies at BootDir of a tree to a tree of its own: the
// reverse of what Open does.
func TakeBoot(t *tree.Tree) (*tree.Tree, error) {
	boot := tree.New(t.Epoch())
	for p, n := range t.Below(BootDir) {
		rest := strings.TrimPrefix(p, BootDir)
		if rest == "" {
			continue
		}
		if !n.IsDir() && !n.IsRegular() {
			return nil, fmt.Errorf("%s: cannot put it on the boot partition: not a regular file", p)
		}
		if err := boot.Put(rest, &tree.Inode{Mode: n.Mode, ModTime: n.ModTime, Content: n.Content}); err != nil {
			return nil, err
		}
	}
	if err := t.RemoveAll(BootDir); err != nil {
		return nil, err
	}
	return boot, t.Mkdir(BootDir, 0o755)
}
