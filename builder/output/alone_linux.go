package output

import (
	"os"

	"golang.org/x/sys/unix"
)

// Alone reports whether nobody else can see what is written to an open file: no
// process has it open, as a machine's disk for instance, and it has no other
// name. A write lease is given under just that condition (fcntl(2)).
func Alone(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 1 {
		return false
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}
