package ext4

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/picube/picube-build/builder/tree"
)

// Result says what was written.
type Result struct {
	Size               int64 // bytes
	Blocks, FreeBlocks int64 // of 4096 bytes
	Inodes, FreeInodes int64
	Used               []tree.Range // what a card must hold
	Written            []tree.Range // the part of it that is not all zeros
}

// Write lays a tree out and writes it; see Plan and Layout.Write. With
// Options.Size 0 the caller makes the file Result.Size long afterwards.
func Write(ctx context.Context, w io.WriterAt, t *tree.Tree, o Options) (Result, error) {
	l, err := Plan(t, o)
	if err != nil {
		return Result{}, err
	}
	return l.Write(ctx, w)
}

// piece is a run of blocks with something to write.
type piece struct {
	run
	// fill overwrites b, whole blocks, with the content from byte off of the
	// piece on. It may run at the same time as others.
	fill func(b []byte, off int64) error
}

// Write writes the file system at ascending offsets to w, which must read as
// zeros wherever it is not written: a new or truncated file. Blocks of zeros
// are not written. Content is read ahead, on all processors.
func (l *Layout) Write(ctx context.Context, w io.WriterAt) (Result, error) {
	res := Result{
		Size: l.Size(), Blocks: int64(l.blocks), FreeBlocks: int64(l.blocks - l.usedBlocks()),
		Inodes: int64(l.inodes()), FreeInodes: int64(l.inodes() - l.usedInodes),
		Used: l.Used(),
	}
	var written []run
	err := l.stream(ctx, func(b []byte, block uint64) error {
		_, err := w.WriteAt(b, int64(block)<<blockShift)
		r := run{block, uint64(len(b)) >> blockShift}
		if k := len(written) - 1; k >= 0 && written[k].start+written[k].len == r.start {
			written[k].len += r.len
			return err
		}
		written = append(written, r)
		return err
	})
	res.Written = ranges(written)
	return res, err
}

const chunkBlocks = 1 << 20 >> blockShift

// chunk is up to 1 MiB of consecutive blocks on their way to the writer.
type chunk struct {
	block uint64
	buf   []byte
	parts []part
	err   chan error // gets the outcome of filling it
}

type part struct {
	*piece
	off    uint64 // blocks into the piece
	blocks uint64
}

func (c *chunk) fill() error {
	at := uint64(0)
	for _, p := range c.parts {
		if err := p.fill(c.buf[at<<blockShift:(at+p.blocks)<<blockShift], int64(p.off)<<blockShift); err != nil {
			return err
		}
		at += p.blocks
	}
	return nil
}

// stream fills chunks in parallel and emits what of them is not zero, in
// ascending order.
func (l *Layout) stream(ctx context.Context, emit func(b []byte, block uint64) error) error {
	ctx, cancel := context.WithCancel(ctx)
	workers := runtime.GOMAXPROCS(0)
	ahead := 2*workers + 2
	free := make(chan []byte, ahead)
	for range ahead {
		free <- nil
	}
	work, queue := make(chan *chunk), make(chan *chunk, ahead)
	done := make(chan struct{}, workers)
	for range workers {
		go func() {
			for c := range work {
				c.err <- c.fill()
			}
			done <- struct{}{}
		}()
	}
	go func() {
		defer close(queue)
		defer close(work)
		for parts := range l.chunks() {
			select {
			case <-ctx.Done():
				return
			case buf := <-free:
				if buf == nil {
					buf = make([]byte, chunkBlocks<<blockShift)
				}
				last := parts[len(parts)-1]
				first := parts[0].start + parts[0].off
				c := &chunk{first, buf[:(last.start+last.off+last.blocks-first)<<blockShift], parts, make(chan error, 1)}
				queue <- c
				work <- c
			}
		}
	}()
	// Contents belong to the caller: none is read once this returns.
	defer func() {
		cancel()
		for range queue {
		}
		for range workers {
			<-done
		}
	}()
	for c := range queue {
		if err := <-c.err; err != nil {
			return err
		}
		if err := emitData(c, emit); err != nil {
			return fmt.Errorf("cannot write the file system: %w", err)
		}
		free <- c.buf[:cap(c.buf)]
	}
	return ctx.Err()
}

// emitData passes on the runs of blocks that are not zero.
func emitData(c *chunk, emit func([]byte, uint64) error) error {
	var zero [blockSize]byte
	start := -1
	for at := 0; at <= len(c.buf); at += blockSize {
		data := at < len(c.buf) && !bytes.Equal(c.buf[at:at+blockSize], zero[:])
		switch {
		case data && start < 0:
			start = at
		case !data && start >= 0:
			if err := emit(c.buf[start:at], c.block+uint64(start)>>blockShift); err != nil {
				return err
			}
			start = -1
		}
	}
	return nil
}

// chunks iterates over the pieces cut and joined to chunks.
func (l *Layout) chunks() func(func([]part) bool) {
	return func(yield func([]part) bool) {
		var parts []part
		var end, n uint64
		flush := func() bool {
			ok := len(parts) == 0 || yield(parts)
			parts, n = nil, 0
			return ok
		}
		for i := range l.pieces {
			p := &l.pieces[i]
			for off := uint64(0); off < p.len; {
				if n == chunkBlocks || n > 0 && end != p.start+off {
					if !flush() {
						return
					}
				}
				take := min(p.len-off, chunkBlocks-n)
				parts = append(parts, part{p, off, take})
				off, n = off+take, n+take
				end = p.start + off
			}
		}
		flush()
	}
}

// arrange lists all that is to be written, in ascending order.
func (l *Layout) arrange() {
	l.addSupers()
	l.add(run{l.dind, 1}, l.fillDind)
	l.add(run{l.journal[0].start, 1}, l.fillJournal)
	l.addTree(l.journal, l.journalTree, inoJournal)
	for group := range l.groups {
		if l.blocksInit(group) {
			l.add(run{l.blockBitmap(group), 1}, func(b []byte, _ int64) error { l.fillBlockBitmap(b, group); return nil })
		}
		n := l.groupInodes(group)
		if n == 0 {
			continue
		}
		l.add(run{l.inodeBitmap(group), 1}, func(b []byte, _ int64) error { l.fillInodeBitmap(b, group); return nil })
		first := uint32(group)*l.inodesPerGroup + 1
		l.add(run{l.inodeTable(group), uint64(ceilDiv(n, inodesPerBlock))}, func(b []byte, off int64) error {
			clear(b)
			for i := 0; i < len(b); i += inodeSize {
				l.encodeInode(b[i:i+inodeSize], first+uint32((off+int64(i))/inodeSize))
			}
			return nil
		})
	}
	for _, n := range l.all() {
		l.addTree(n.extents, n.treeBlocks, n.ino)
		if len(n.inBlock) > 0 {
			l.add(run{n.xattrAt, 1}, func(b []byte, _ int64) error {
				clear(b)
				putXattrBlock(b, n.inBlock, n.xattrAt, l.seed)
				return nil
			})
		}
		for _, e := range n.extents {
			l.add(run{e.start, uint64(e.len)}, func(b []byte, off int64) error {
				return l.fillContent(n, b, off+int64(e.logical)<<blockShift)
			})
		}
	}
	slices.SortFunc(l.pieces, func(a, b piece) int { return cmp.Compare(a.start, b.start) })
}

func (l *Layout) add(r run, fill func(b []byte, off int64) error) {
	l.pieces = append(l.pieces, piece{r, fill})
}

// addTree adds the blocks of an extent tree.
func (l *Layout) addTree(extents []extent, blocks []uint64, ino uint32) {
	encode := sync.OnceValue(func() [][]byte {
		_, tree := encodeExtents(extents, blocks, inodeSeed(l.seed, ino, 0))
		return tree
	})
	for i, block := range blocks {
		l.add(run{block, 1}, func(b []byte, _ int64) error {
			copy(b, encode()[i])
			return nil
		})
	}
}

// fillContent reads what a node holds from byte off on.
func (l *Layout) fillContent(n *node, b []byte, off int64) error {
	switch n.Type() {
	case tree.TypeDir:
		clear(b)
		seed := inodeSeed(l.seed, n.ino, 0)
		for i := 0; i < len(b); i += blockSize {
			n.dir.encode(b[i:i+blockSize], int((off+int64(i))>>blockShift), n.ino, n.parent, seed)
		}
		return nil
	case tree.TypeSymlink:
		clear(b[copy(b, n.Target):])
		return nil
	}
	want := b[:min(int64(len(b)), n.Size()-off)]
	clear(b[len(want):])
	got, err := n.Content.ReadAt(want, off)
	if got == len(want) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n.fail(fmt.Errorf("cannot read its content at %d: %w", off+int64(got), err))
}
