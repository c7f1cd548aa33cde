package clone

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// reflink shares blocks (ioctl_ficlonerange(2)).
func reflink(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	err := unix.IoctlFileCloneRange(int(dst.Fd()), &unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(srcOff), Src_length: uint64(n), Dest_offset: uint64(dstOff),
	})
	if err != nil {
		return errUnsupported // whatever the reason, copying tells the truth
	}
	return nil
}

// copyRange copies inside the kernel (copy_file_range(2)).
func copyRange(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	for n > 0 {
		done, err := unix.CopyFileRange(int(src.Fd()), &srcOff, int(dst.Fd()), &dstOff, int(min(n, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
			return readWrite(dst, dstOff, src, srcOff, n)
		case err != nil:
			return err
		case done == 0:
			return io.ErrUnexpectedEOF
		default:
			n -= int64(done)
		}
	}
	return nil
}
