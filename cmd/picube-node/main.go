// Command picube-node runs on every card: as /init in the initramfs, as the
// units picube-*.service, and for a person who wants to know how the node is.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/layers/boot/bootd"
)

func main() {
	if os.Getpid() == 1 {
		bootd.Main(func(root, boot string) error { // never returns: it becomes the real init
			_, err := identity(root, boot)
			return err
		})
	}
	spareMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "picube-node:", err)
		os.Exit(1)
	}
}

// spareMemory keeps the daemons small, which share a board of 512 MiB with what
// it is there for.
//
// Debian's kernel makes two MiB of whatever a program has a page in, the first
// time it is touched or later (transhuge.rst). By the time a program can ask for
// none, Go has touched its heap; the wish outlives an execve (prctl(2)), so it
// starts once more. An older kernel that can't be told so only costs memory.
//
// Go lets a heap grow to four MiB before it looks for what is unused; with
// tens of kilobytes in use, that much garbage is four daemons' whole share.
func spareMemory() {
	debug.SetGCPercent(20)
	if off, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0); err != nil || off != 0 {
		return
	}
	if unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) != nil {
		return
	}
	if self, err := os.Executable(); err == nil {
		_ = unix.Exec(self, os.Args, os.Environ()) // returns only if it failed
	}
}
