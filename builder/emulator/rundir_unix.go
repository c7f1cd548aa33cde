//go:build unix

package emulator

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockRun marks a run's folder as in use for as long as this process lives, or
// the file is open.
func lockRun(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
