package emulator

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from the machine, which is ours to end,
// and has the kernel end it should we be killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
