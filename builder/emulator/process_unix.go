//go:build unix && !linux

package emulator

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from the machine, which is ours to end.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
