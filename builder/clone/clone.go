// Package clone copies ranges of one file into another as cheaply as the
// system allows: shared blocks where the file system has reflinks, a copy
// inside the kernel where it has not, read and write anywhere else.
package clone

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// errUnsupported says that the next cheaper way has to be taken.
var errUnsupported = errors.New("not supported")

// Copy copies n bytes of src at srcOff to dst at dstOff.
func Copy(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	err := reflink(dst, dstOff, src, srcOff, n)
	if errors.Is(err, errUnsupported) {
		err = copyRange(dst, dstOff, src, srcOff, n)
	}
	if err != nil {
		return fmt.Errorf("%s: cannot copy %d bytes of %s: %w", dst.Name(), n, src.Name(), err)
	}
	return nil
}

// readWrite is the way that works everywhere.
func readWrite(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	buf := make([]byte, 1<<20)
	w := io.NewOffsetWriter(dst, dstOff)
	copied, err := io.CopyBuffer(onlyWriter{w}, io.NewSectionReader(src, srcOff, n), buf)
	if err == nil && copied != n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyWriter keeps io.CopyBuffer to the buffer it was given.
type onlyWriter struct{ io.Writer }
