package output

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/picube/picube-build/builder/tree"
)

// Sum returns the SHA-256, in hex, of an image of size bytes of which only
// data, ascending, is not zero. Only that is read: the holes come from a
// buffer that stays in the processor's cache.
func Sum(ctx context.Context, r io.ReaderAt, size int64, data []tree.Range) (string, error) {
	h := sha256.New()
	buf, zeros := make([]byte, 256<<10), make([]byte, 64<<10)
	at := int64(0)
	hole := func(end int64) {
		for at < end {
			n := min(end-at, int64(len(zeros)))
			h.Write(zeros[:n])
			at += n
		}
	}
	for _, d := range data {
		if d.Offset < at || d.Length > size-d.Offset {
			return "", fmt.Errorf("cannot sum %d bytes at %d: out of order or beyond the end", d.Length, d.Offset)
		}
		hole(d.Offset)
		for end := d.Offset + d.Length; at < end; {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			b := buf[:min(end-at, int64(len(buf)))]
			if n, err := r.ReadAt(b, at); n < len(b) {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return "", fmt.Errorf("cannot read %d bytes at %d: %w", len(b), at, err)
			}
			h.Write(b)
			at += int64(len(b))
		}
	}
	hole(size)
	return hex.EncodeToString(h.Sum(nil)), nil
}
