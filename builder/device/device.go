// Package device writes images to memory cards: only the blocks that matter,
// past the page cache where that can be, and reads back what it wrote.
//
// Devices are written on Linux only; elsewhere Open refuses. Not supported:
// repairing, formatting, growing.
package device

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/bmap"
)

// Options are what the user says of a device.
type Options struct {
	Need  int64 // bytes that it has to hold; 0: not known
	Large bool  // it may be larger than any card
}

// File is what is written to.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync brings everything to the medium, and lets reads come from there.
	Sync() error
	Close() error
}

// Target is a device, or a file in place of one, that is open for writing.
type Target struct {
	Path  string
	Label string // maker and model; may be empty
	Size  int64  // bytes; 0: it grows

	file      File
	gone      func() bool // whether the device has left
	temporary string      // name of a file that is not complete; empty: none
}

// Commit gives a file in place of a device its name; a device needs none.
func (t *Target) Commit() error {
	if t.temporary == "" {
		return nil
	}
	if err := os.Rename(t.temporary, t.Path); err != nil {
		return err
	}
	t.temporary = ""
	return nil
}

// Close closes the device, and removes a file that Commit was not called for.
func (t *Target) Close() error {
	err := t.file.Close()
	if t.temporary != "" {
		err = errors.Join(err, os.Remove(t.temporary))
	}
	return err
}

const (
	chunk    = 4 << 20
	buffers  = 4
	rangeLen = 64 << 20 // what has one checksum if there is no map
)

// piece is a part of the image on its way.
type piece struct {
	data []byte
	off  int64
}

// Write copies an image from src. With a map only what it maps is written, and
// the image has to fit its checksums; without one everything. Write returns the
// map of what was written, for Verify. advance is told the bytes written.
func (t *Target) Write(ctx context.Context, src io.Reader, m *bmap.Map, advance func(int64)) (*bmap.Map, error) {
	full, free := make(chan piece, buffers), make(chan []byte, buffers)
	for range buffers {
		free <- make([]byte, chunk)
	}
	g, ctx := errgroup.WithContext(ctx)
	r := &imageReader{ctx: ctx, src: src, free: free, full: full}
	var written *bmap.Map
	g.Go(func() (err error) {
		defer close(full)
		if m != nil {
			written = m
			return r.mapped(m)
		}
		written, err = r.all()
		return err
	})
	g.Go(func() error {
		for p := range full {
			if err := ctx.Err(); err != nil {
				return err
			}
			if t.Size > 0 && p.off+int64(len(p.data)) > t.Size {
				return fmt.Errorf("%s: %w", t.Path, tooSmall(t.Size, p.off+int64(len(p.data))))
			}
			if _, err := t.file.WriteAt(p.data, p.off); err != nil {
				return t.explain(fmt.Errorf("cannot write %d bytes at %d: %w", len(p.data), p.off, err))
			}
			advance(int64(len(p.data)))
			select {
			case free <- p.data[:chunk]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := t.file.Sync(); err != nil {
		return nil, t.explain(fmt.Errorf("cannot bring everything to the medium: %w", err))
	}
	return written, nil
}

// Verify reads back what a map maps.
func (t *Target) Verify(ctx context.Context, m *bmap.Map, advance func(int64)) error {
	r := &countingReader{t.file, advance}
	err := m.Verify(ctx, r)
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, errRead):
		return t.explain(err)
	}
	return fmt.Errorf("%s: reads back other bytes than were written; the card is worn out, or smaller than it says:\n%w", t.Path, err)
}

var errRead = errors.New("cannot read it back")

type countingReader struct {
	r       io.ReaderAt
	advance func(int64)
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(b, off)
	c.advance(int64(n))
	if err != nil && n < len(b) {
		err = fmt.Errorf("%w: %w", errRead, err)
	}
	return n, err
}

// explain tells a pulled card from a broken one.
func (t *Target) explain(err error) error {
	if t.gone != nil && t.gone() {
		return fmt.Errorf("%s: %w; the device is gone: was it pulled out?", t.Path, err)
	}
	return fmt.Errorf("%s: %w", t.Path, err)
}

// imageReader cuts an image into pieces.
type imageReader struct {
	ctx  context.Context
	src  io.Reader
	at   int64
	free chan []byte
	full chan piece
}

// next reads at most n bytes and sends them on. It returns io.EOF at the end.
func (r *imageReader) next(n int64, sum io.Writer) error {
	// A select takes any case that is ready, so it alone would now and then
	// go on with a piece after the end of ctx.
	if err := r.ctx.Err(); err != nil {
		return err
	}
	var buf []byte
	select {
	case buf = <-r.free:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	got, err := io.ReadFull(r.src, buf[:min(n, chunk)])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("image: cannot read it at %d: %w", r.at, err)
	}
	_, _ = sum.Write(buf[:got]) // never fails (hash.Hash)
	if got > 0 {
		select {
		case r.full <- piece{buf[:got], r.at}:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
	r.at += int64(got)
	return err
}

// all sends the whole image and maps it.
func (r *imageReader) all() (*bmap.Map, error) {
	m := &bmap.Map{BlockSize: bmap.BlockSize}
	for {
		first := r.at
		h := sha256.New()
		var err error
		for r.at < first+rangeLen && err == nil {
			err = r.next(first+rangeLen-r.at, h)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if r.at > first {
			m.Ranges = append(m.Ranges, bmap.Range{
				First: first / bmap.BlockSize, Last: (r.at - 1) / bmap.BlockSize, Sum: [sha256.Size]byte(h.Sum(nil)),
			})
		}
		m.ImageSize = r.at
		if err != nil {
			return m, nil
		}
	}
}

// mapped sends what the map maps.
func (r *imageReader) mapped(m *bmap.Map) error {
	for _, rg := range m.Ranges {
		part := m.Bytes(rg)
		if err := r.skip(part.Offset - r.at); err != nil {
			return err
		}
		h := sha256.New()
		for end := part.Offset + part.Length; r.at < end; {
			err := r.next(end-r.at, h)
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("image: cannot go with its block map: it ends at %d", r.at)
			}
			if err != nil {
				return err
			}
		}
		if [sha256.Size]byte(h.Sum(nil)) != rg.Sum {
			return fmt.Errorf("image: cannot go with its block map: blocks %d-%d differ", rg.First, rg.Last)
		}
	}
	return nil
}

func (r *imageReader) skip(n int64) error {
	r.at += n
	if s, ok := r.src.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekCurrent)
		return err
	}
	for left := n; left > 0; {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		k, err := io.CopyN(io.Discard, r.src, min(left, chunk))
		left -= k
		if err != nil && left > 0 {
			return fmt.Errorf("image: cannot read it at %d: %w", r.at-left, err)
		}
	}
	return nil
}
