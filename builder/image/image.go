// Package image reads and checks finished cards: the partition table, both
// file systems, and whether all is there that a board needs to start.
//
// Not supported: compressed images, and cards of other makers, except that
// Open reads any MBR disk with a FAT and an ext4 partition.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/nodeconf"
)

// Card is an image that was opened.
type Card struct {
	Table disk.Table
	// PARTUUIDs of the two partitions.
	BootUUID, RootUUID string
	// The file systems, and what lies in them.
	BootFS *fat.FS
	RootFS *ext4.FS
	Boot   *tree.Tree
	Root   *tree.Tree
}

// Open reads the table and the file systems of an image of size bytes. The
// content of files is read when it is asked for.
func Open(ctx context.Context, r io.ReaderAt, size int64) (*Card, error) {
	c := &Card{}
	boot, root, err := c.openTable(r, size)
	if err != nil {
		return nil, err
	}
	if err := c.openBoot(section(r, boot)); err != nil {
		return nil, err
	}
	return c, c.openRoot(ctx, section(r, root))
}

func section(r io.ReaderAt, p disk.Partition) *io.SectionReader {
	return io.NewSectionReader(r, p.Start, p.Size)
}

// openTable finds the boot partition and the root's.
func (c *Card) openTable(r io.ReaderAt, size int64) (boot, root disk.Partition, err error) {
	if c.Table, err = disk.Read(r, size); err != nil {
		return boot, root, about("partition table", err)
	}
	for _, p := range c.Table.Partitions {
		switch {
		case p.Type == disk.TypeFAT32LBA && boot.Size == 0:
			boot = p
		case p.Type == disk.TypeLinux && root.Size == 0:
			root = p
		}
	}
	var errs []error
	if boot.Size == 0 {
		errs = append(errs, fmt.Errorf("partition table: cannot find a boot partition (type %02x)", disk.TypeFAT32LBA))
	}
	if root.Size == 0 {
		errs = append(errs, fmt.Errorf("partition table: cannot find a root partition (type %02x)", disk.TypeLinux))
	}
	c.BootUUID, c.RootUUID = c.Table.PARTUUID(boot.Number), c.Table.PARTUUID(root.Number)
	return boot, root, errors.Join(errs...)
}

// about puts what an error is about in front of each of its lines, unless it
// stands there already.
func about(what string, err error) error {
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, fmt.Errorf("%s: %s", what, strings.TrimPrefix(strings.TrimSpace(line), what+": ")))
	}
	return errors.Join(errs...)
}

func (c *Card) openBoot(r *io.SectionReader) (err error) {
	if c.BootFS, err = fat.Open(r, r.Size()); err == nil {
		c.Boot, err = c.BootFS.Tree()
	}
	if err != nil {
		return fmt.Errorf("boot partition: %w", err)
	}
	return nil
}

func (c *Card) openRoot(ctx context.Context, r *io.SectionReader) (err error) {
	if c.RootFS, err = ext4.Open(r, r.Size()); err == nil {
		c.Root, err = c.RootFS.Tree(ctx)
	}
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	return nil
}

// Node returns the card's node.yaml.
func (c *Card) Node() (*nodeconf.Node, error) {
	text, err := c.Boot.ReadFile("/" + nodeconf.Path)
	if err != nil {
		return nil, fmt.Errorf("boot partition: %w", err)
	}
	return nodeconf.Parse(text)
}

// Resolve finds a path as a person on the node would: the boot partition is
// mounted at /boot/firmware. It returns the tree that holds it and the path in
// that tree.
func (c *Card) Resolve(p string) (*tree.Tree, string, error) {
	p = tree.Clean(p)
	if rest, ok := onBoot(p); ok {
		return c.Boot, rest, nil
	}
	p, err := c.Root.RealPath(p)
	if err != nil {
		return nil, "", err
	}
	if rest, ok := onBoot(p); ok {
		return c.Boot, rest, nil
	}
	return c.Root, p, nil
}

func onBoot(p string) (string, bool) {
	rest, ok := strings.CutPrefix(p, nodeconf.BootDir)
	return path.Join("/", rest), ok && (rest == "" || rest[0] == '/')
}
