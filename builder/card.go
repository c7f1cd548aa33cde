package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/picube/picube-build/builder/clone"
	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
)

// bootSize is the boot partition's length: pi-gen's, which leaves room for
// the kernels of later upgrades.
const bootSize = 512 << 20

// bootLabel is what Raspberry Pi OS calls the partition since bookworm.
const bootLabel = "bootfs"

// card is everything that makes one image.
type card struct {
	path     string // of the image
	diskID   uint32
	volumeID uint32
	boot     *tree.Tree
	root     *rootImage
}

// table returns the card's partition table.
func (c card) table() disk.Table { return disk.ForCard(c.diskID, bootSize, c.root.Size) }

// write makes the image under a temporary name and gives it its own only when
// it is complete and on the disk.
func (c card) write(ctx context.Context) (err error) {
	dir := filepath.Dir(c.path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(c.path)+"-*")
	if err != nil {
		return fmt.Errorf("%s: cannot make a file beside it: %w", c.path, err)
	}
	defer func() {
		err = errors.Join(err, tmp.Close())
		if err == nil {
			err = os.Rename(tmp.Name(), c.path)
		}
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	table := c.table()
	if err := tmp.Truncate(table.Size()); err != nil {
		return fmt.Errorf("%s: cannot set its length to %d: %w", c.path, table.Size(), err)
	}
	if err := table.Write(tmp); err != nil {
		return fmt.Errorf("%s: partition table: %w", c.path, err)
	}
	boot, root := table.Partitions[0], table.Partitions[1]
	if err := ctx.Err(); err != nil {
		return err
	}
	options := fat.Options{Size: boot.Size, Label: bootLabel, VolumeID: c.volumeID, Hidden: uint32(boot.Start / disk.SectorSize)}
	if err := fat.Write(io.NewOffsetWriter(tmp, boot.Start), c.boot, options); err != nil {
		return fmt.Errorf("%s: boot partition: %w", c.path, err)
	}
	src, err := os.Open(c.root.Path)
	if err != nil {
		return fmt.Errorf("%s: root file system: %w", c.path, err)
	}
	defer src.Close()
	for _, r := range c.root.Data {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := clone.Copy(tmp, root.Start+r.Offset, src, r.Offset, r.Length); err != nil {
			return fmt.Errorf("%s: root file system: %w", c.path, err)
		}
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("%s: cannot bring it to the disk: %w", c.path, err)
	}
	return nil
}
