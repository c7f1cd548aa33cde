package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/device"
	"github.com/picube/picube-build/builder/output"
)

type writeFlags struct {
	cube, out string
	nodes     []string
	large     bool
}

func (c *cli) writeCommand() *cobra.Command {
	var flags writeFlags
	cmd := &cobra.Command{
		Use:   "write IMAGE DEVICE | --cube NAME DEVICE",
		Short: "Write an image to a card, and read it back",
		Long: `write brings an image, packed or not, to a card in a reader and reads back what
it wrote. With a block map beside the image (IMAGE.bmap) it skips what is free
space. It never writes to what is mounted or holds this system.

With --cube it writes all cards of a cube, asking for one after the other.`,
		Example: "  sudo picube-build write out/picube/rpi1.img /dev/sdb\n" +
			"  sudo picube-build write --cube picube /dev/mmcblk0",
		Args: func(cmd *cobra.Command, args []string) error {
			if want := 2; len(args) != want && flags.cube == "" || len(args) != 1 && flags.cube != "" {
				return usagef("cannot write with %d arguments; usage: %s", len(args), cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.cube != "" {
				return c.writeCube(cmd.Context(), flags, args[0])
			}
			return c.writeImage(cmd.Context(), args[0], args[1], flags.large)
		},
	}
	cmd.Flags().StringVar(&flags.cube, "cube", "", "write all cards of the cube of this `name`")
	cmd.Flags().StringVarP(&flags.out, "output", "o", "out", "`folder` that the cards were built in")
	cmd.Flags().StringSliceVar(&flags.nodes, "node", nil, "with --cube: only the cards of these nodes, by host `name`")
	cmd.Flags().BoolVar(&flags.large, "force-large", false, "write to devices of more than 2 TiB, too")
	return cmd
}

// kernel is where the host tells of its devices.
func kernel() device.Host { return device.Host{Proc: os.DirFS("/proc"), Sys: os.DirFS("/sys")} }

// writeImage writes one image and says so.
func (c *cli) writeImage(ctx context.Context, path, dev string, large bool) (err error) {
	img, err := os.Open(path)
	if err != nil {
		return usageError{fmt.Errorf("cannot read %s: %w", path, cause(err))}
	}
	defer img.Close()
	if same(img, dev) {
		return usagef("cannot write %s to itself", path)
	}
	m, err := readBmap(path)
	if err != nil {
		return err
	}
	src, size, err := unpacked(img)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	defer src.Close()
	total := size
	if m != nil {
		if size > 0 && size != m.ImageSize {
			return fmt.Errorf("%s: cannot go with its block map: it has %d bytes, the map says %d", path, size, m.ImageSize)
		}
		size, total = m.ImageSize, m.MappedBytes()
	}
	target, err := kernel().Open(dev, device.Options{Need: size, Large: large})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	written, err := c.writeTarget(ctx, target, src, m, total)
	if err == nil {
		err = target.Commit()
	}
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"image": path, "device": dev, "size": written.ImageSize, "written": written.MappedBytes()})
	}
	on := dev
	if target.Label != "" {
		on += " (" + target.Label + ")"
	}
	fmt.Fprintf(c.stdout, "%s is on %s: %s of %s written and read back\n", path, on, megabytes(written.MappedBytes()), megabytes(written.ImageSize))
	return nil
}

func (c *cli) writeTarget(ctx context.Context, target *device.Target, src io.Reader, m *bmap.Map, total int64) (*bmap.Map, error) {
	reporter := c.reporter()
	defer reporter.Close()
	advance, end := reporter.Phase("write", total)
	written, err := target.Write(ctx, src, m, advance)
	end()
	if err != nil {
		return nil, err
	}
	advance, end = reporter.Phase("verify", written.MappedBytes())
	defer end()
	return written, target.Verify(ctx, written, advance)
}

func same(img *os.File, dev string) bool {
	a, err1 := img.Stat()
	b, err2 := os.Stat(dev)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// readBmap reads the map beside an image; nil if there is none.
func readBmap(image string) (*bmap.Map, error) {
	name := strings.TrimSuffix(image, compress.OfName(image).Suffix()) + ".bmap"
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
	}
	m, err := bmap.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// unpacked reads the image itself, whatever it is packed with. The size is 0 if
// only reading tells.
func unpacked(img *os.File) (io.ReadCloser, int64, error) {
	var magic [6]byte
	n, err := img.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if compress.IsPacked(magic[:n]) {
		r, err := compress.NewReader(img)
		return r, 0, err
	}
	info, err := img.Stat()
	if err != nil {
		return nil, 0, err
	}
	return img, info.Size(), nil
}

// writeCube writes the cards of a cube, one after the other.
func (c *cli) writeCube(ctx context.Context, flags writeFlags, dev string) error {
	dir := filepath.Join(flags.out, flags.cube)
	m, err := output.ReadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("cannot find the cards of cube %q in %s: build them first", flags.cube, flags.out)
	}
	if err != nil {
		return err
	}
	cards := m.Cards
	if len(flags.nodes) > 0 {
		cards = nil
		for _, name := range flags.nodes {
			i := slices.IndexFunc(m.Cards, func(card output.Card) bool { return card.Node == name })
			if i < 0 {
				return usagef("cannot find the card of node %q in %s", name, dir)
			}
			cards = append(cards, m.Cards[i])
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := c.answers(ctx)
	done := map[string]string{} // first sector of a card -> node
	for i := 0; i < len(cards); {
		card := cards[i]
		fmt.Fprintf(c.stderr, "%d of %d: insert %s and press Enter (s: skip it, q: stop) ", i+1, len(cards), card.Node)
		var answer string
		var ok bool
		select {
		case answer, ok = <-answers:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case !ok:
			fmt.Fprintln(c.stderr)
			return fmt.Errorf("cannot go on without an answer: %d of %d cards are left", len(cards)-i, len(cards))
		case answer == "s":
			i++
			continue
		case answer == "q":
			return nil
		case answer != "":
			continue
		}
		if node := done[firstSector(dev)]; node != "" {
			fmt.Fprintf(c.stderr, "%s: the card of %s is still in it\n", dev, node)
			continue
		}
		if err := c.writeImage(ctx, filepath.Join(dir, card.Name), dev, flags.large); err != nil {
			if ctx.Err() != nil {
				return err
			}
			c.printError(err) // and ask again: another card, or the same one unmounted
			continue
		}
		if sector := firstSector(dev); sector != "" {
			done[sector] = card.Node
		}
		i++
	}
	return nil
}

// answers returns the lines of standard input as they come, so that Ctrl-C need
// not wait for one.
func (c *cli) answers(ctx context.Context) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(c.stdin); s.Scan(); {
			select {
			case lines <- strings.TrimSpace(s.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// firstSector is what tells cards apart: the partition table with the disk's
// own number. Empty if it cannot be read.
func firstSector(dev string) string {
	f, err := os.Open(dev)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := io.ReadFull(f, b); err != nil {
		return ""
	}
	return string(b)
}
