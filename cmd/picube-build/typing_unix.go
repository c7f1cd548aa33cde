//go:build linux || darwin

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// typing hands every key of a terminal to who reads it, as it is pressed and
// unseen, because a node's console shows what it was typed itself. Ctrl-C stays
// what it is (termios(3)). A file that is no terminal stays as it is, too.
func typing(f *os.File) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return func() {}
	}
	keys := *old
	keys.Lflag &^= unix.ECHO | unix.ICANON
	keys.Iflag &^= unix.ICRNL
	keys.Cc[unix.VMIN], keys.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, setTermios, &keys); err != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, setTermios, old) }
}
