package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

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

// settleAfter is how often a daemon lets go of what it does not need any more.
const settleAfter = 2 * time.Minute

// settle lets go of what starting, joining or a busy minute needed: free parts
// of the heap, and the program's own pages, of which the kernel maps sixteen
// around each that is touched. Those that are needed again come back from the
// page cache.
func settle(ctx context.Context) {
	for pause(ctx, settleAfter) == nil {
		debug.FreeOSMemory()
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			return
		}
		for _, m := range programPages(string(maps)) {
			// If the kernel won't, they stay.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED)
		}
	}
}

// programPages returns where the program's file is mapped and never written to,
// from the text of /proc/PID/maps (proc_pid_maps(5)). In a program that was
// moved when it was loaded, read-only pages may have been written to before:
// there are none to let go of.
func programPages(maps string) [][2]uintptr {
	info, ok := debug.ReadBuildInfo()
	if !ok || !slices.Contains(info.Settings, debug.BuildSetting{Key: "-buildmode", Value: "exe"}) {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	var pages [][2]uintptr
	for line := range strings.Lines(maps) {
		var m [2]uintptr
		var mode string
		if f := strings.Fields(line); len(f) != 6 || f[5] != self {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x %s", &m[0], &m[1], &mode); err == nil && (mode == "r-xp" || mode == "r--p") {
			pages = append(pages, m)
		}
	}
	return pages
}
