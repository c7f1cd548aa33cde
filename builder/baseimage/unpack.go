package baseimage

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/builder/compress"
)

// MaxSize bounds what an image may unpack to.
const MaxSize = 256 << 30

// Unpack unpacks an image file (.xz, .gz, .zst, .bz2, .zip with one image in
// it, or not packed at all) into the sparse file to, which gets its name only
// when it is complete and the packed file has the digest sum, in lower-case
// hex. advance, which may be nil, is told of packed bytes that were read.
func Unpack(ctx context.Context, from, to, sum string, advance func(n int64)) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	if advance == nil {
		advance = func(int64) {}
	}
	sums := sha256.New()
	counted := &counter{ctx: ctx, r: in, advance: advance}
	packed := io.TeeReader(counted, sums)
	image, isZip, err := openPacked(in, packed)
	if err != nil {
		return fmt.Errorf("image %s: %w", from, err)
	}
	if isZip { // it is read by its directory, at its end
		if _, err := io.Copy(sums, counted); err != nil {
			return fmt.Errorf("image %s: cannot read it: %w", from, err)
		}
		if err := checkSum(from, sums.Sum(nil), sum); err != nil {
			return err
		}
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	size, unpackErr := unpackXZ(ctx, in, info.Size(), func(b []byte, at int64) error { return writeHoles(tmp, b, at) })
	if errors.Is(unpackErr, errNotSplit) {
		size, unpackErr = writeSparse(ctx, tmp, image)
	}
	unpackErr = errors.Join(unpackErr, image.Close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !isZip {
		// The digest says more than what a decoder makes of a wrong file.
		if _, err := io.Copy(io.Discard, packed); err != nil {
			return fmt.Errorf("image %s: cannot read it: %w", from, err)
		}
		if err := checkSum(from, sums.Sum(nil), sum); err != nil {
			return err
		}
	}
	if unpackErr != nil {
		return fmt.Errorf("image %s: cannot unpack it: %w", from, unpackErr)
	}
	if err := tmp.Truncate(size); err != nil {
		return err
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), to)
}

func checkSum(from string, got []byte, want string) error {
	if hex.EncodeToString(got) != want {
		return fmt.Errorf("image %s: has SHA-256 %x, not %s as the blueprint says", from, got, want)
	}
	return nil
}

// openPacked returns a reader of the image in a file.
func openPacked(f *os.File, r io.Reader) (image io.ReadCloser, isZip bool, err error) {
	head := make([]byte, 4)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	if !bytes.Equal(head, []byte("PK\x03\x04")) {
		image, err = compress.NewReader(r)
		return image, false, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, true, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, true, fmt.Errorf("cannot read the .zip: %w", err)
	}
	var images []*zip.File
	for _, m := range z.File {
		if strings.HasSuffix(strings.ToLower(m.Name), ".img") {
			images = append(images, m)
		}
	}
	if len(images) != 1 {
		return nil, true, fmt.Errorf("cannot choose an image: the .zip holds %d files that end in .img", len(images))
	}
	image, err = images[0].Open()
	if err != nil {
		err = fmt.Errorf("cannot read %s in the .zip: %w", path.Base(images[0].Name), err)
	}
	return image, true, err
}

// counter reads until the context ends.
type counter struct {
	ctx     context.Context
	r       io.Reader
	advance func(int64)
}

func (c *counter) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.advance(int64(n))
	return n, err
}

// writeSparse writes what r reads, but leaves holes where blocks are zero.
func writeSparse(ctx context.Context, f *os.File, r io.Reader) (int64, error) {
	b := make([]byte, 1<<20)
	var at int64
	for {
		if err := ctx.Err(); err != nil {
			return at, err
		}
		n, err := io.ReadFull(r, b)
		if err := writeHoles(f, b[:n], at); err != nil {
			return at, err
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n > 0 && isEnd(r):
			return at, nil
		case err != nil:
			return at, err
		case at > MaxSize:
			return at, fmt.Errorf("it is larger than %d bytes", int64(MaxSize))
		}
	}
}

// writeHoles writes b but for what of it is zero.
func writeHoles(f *os.File, b []byte, at int64) error {
	var zeros [64 << 10]byte
	for len(b) > 0 {
		part := b[:min(len(zeros), len(b))]
		if !bytes.Equal(part, zeros[:len(part)]) {
			if _, err := f.WriteAt(part, at); err != nil {
				return err
			}
		}
		b, at = b[len(part):], at+int64(len(part))
	}
	return nil
}

// isEnd tells the end of r, which io.ReadFull calls unexpected after part of a
// buffer, from a decoder's own io.ErrUnexpectedEOF, which would come again.
func isEnd(r io.Reader) bool {
	n, err := r.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}
