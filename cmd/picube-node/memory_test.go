package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProgramPages lets go of the running test's own pages: it goes on.
func TestProgramPages(t *testing.T) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	pages := programPages(string(maps))
	if len(pages) < 2 {
		t.Fatalf("found %x in\n%s", pages, maps)
	}
	for _, m := range pages {
		if _, _, err := unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED); err != 0 {
			t.Errorf("%x: %v", m, err)
		}
	}
}
