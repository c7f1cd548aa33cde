package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// bootSize is the boot partition's length: pi-gen's. It cannot grow, a kernel
// of Debian's with its initramfs takes 74 MB, and each upgrade adds one until
// autoremove takes the oldest: half of it would be full after three.
const bootSize = 512 << 20

// bootLabel is what Raspberry Pi OS calls the partition since bookworm.
const bootLabel = "bootfs"

// card is everything that makes one image.
type card struct {
	node     *plan.Node
	path     string // of the image
	kept     bool   // it is there already
	former   string // node whose image becomes this one's; empty: none
	step     func(name string) (end func())
	compress compress.Format
	diskID   uint32
	volumeID uint32
	boot     *tree.Tree
	root     *rootImage
	// Digests of what the boot partition and the whole image are made from.
	bootSum, inputSum string
}

// table returns the card's partition table.
func (c card) table() disk.Table { return disk.ForCard(c.diskID, c.root.BootSize, c.root.Size) }

// write makes the image under a temporary name and gives it its own only when
// it is complete and on the disk.
func (c card) write(ctx context.Context, folder *output.Folder) (output.Image, error) {
	table := c.table()
	img := output.Image{Name: filepath.Base(c.path), Inputs: c.inputSum, CardSize: table.Size()}
	start := table.Partitions[1].Start
	root, err := os.Open(c.root.Path)
	if err != nil {
		return img, fmt.Errorf("%s: root file system: %w", c.path, err)
	}
	defer root.Close()
	var h *head
	// sum digests what r reads, which holds nothing but the head and the root.
	sum := func(r io.ReaderAt) (err error) {
		defer c.begin("digest")()
		img.CardSHA256, err = output.Sum(ctx, r, img.CardSize, append(h.data, shift(c.root.Data, start)...))
		if err != nil {
			return fmt.Errorf("%s: %w", c.path, err)
		}
		return nil
	}
	// finish brings f to the disk, which is slower than the digest of what r
	// reads, and works meanwhile.
	finish := func(f *os.File, r io.ReaderAt) error {
		end := c.begin("sync")
		synced := make(chan error, 1)
		go func() {
			synced <- output.Sync(f, c.path)
			end()
		}()
		if err := errors.Join(sum(r), <-synced); err != nil {
			return err
		}
		img.Size, img.SHA256 = img.CardSize, img.CardSHA256
		return nil
	}
	plain := func(f *os.File) error {
		if err := f.Truncate(img.CardSize); err != nil {
			return fmt.Errorf("%s: cannot set its length to %d: %w", c.path, img.CardSize, err)
		}
		var err error
		if h, err = c.writeHead(ctx, f, nil); err != nil {
			return err
		}
		end := c.begin("copy")
		err = c.copyRoot(ctx, f, root)
		end()
		if err != nil {
			return err
		}
		return finish(f, f)
	}
	// The root of an image that is there is not trusted blindly: the digest is
	// of what it should be.
	inPlace := func(f *os.File, used []tree.Range) (err error) {
		if h, err = c.writeHead(ctx, patchFile{f}, used); err != nil {
			return err
		}
		return finish(f, cardReader{head: f, root: root, start: start})
	}
	packed := func(f *os.File) error {
		scratch, err := os.CreateTemp(filepath.Dir(c.path), ".head-*")
		if err != nil {
			return fmt.Errorf("%s: cannot make a file beside it: %w", c.path, err)
		}
		defer func() {
			scratch.Close()
			os.Remove(scratch.Name())
		}()
		if err := scratch.Truncate(start); err != nil {
			return fmt.Errorf("%s: cannot set its length to %d: %w", scratch.Name(), start, err)
		}
		if h, err = c.writeHead(ctx, scratch, nil); err != nil {
			return err
		}
		r := cardReader{head: scratch, root: root, start: start}
		if err := sum(r); err != nil {
			return err
		}
		defer c.begin("pack")()
		if img.SHA256, img.Size, err = c.pack(ctx, f, r); err != nil {
			return fmt.Errorf("%s: %w", c.path, err)
		}
		return nil
	}
	if c.compress != compress.None {
		err = output.Create(c.path, packed)
	} else {
		var done bool
		if done, err = c.patch(folder, inPlace); !done && err == nil {
			err = output.Create(c.path, plain)
		}
	}
	if err != nil {
		return img, err
	}
	return img, c.writeBmap(h)
}

// begin starts a step of the card's.
func (c card) begin(name string) (end func()) { return c.step(c.node.Name + ": " + name) }
