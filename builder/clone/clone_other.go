//go:build !linux

package clone

import "os"

func reflink(*os.File, int64, *os.File, int64, int64) error { return errUnsupported }

func copyRange(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	return readWrite(dst, dstOff, src, srcOff, n)
}
