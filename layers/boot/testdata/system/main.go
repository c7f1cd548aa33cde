//go:build linux

// Command system is the root's init of the boot test: it says what it finds
// and switches the machine off.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	name, err := os.ReadFile("/etc/hostname")
	fmt.Printf("\nsystem: pid %d, hostname %q %v\n", os.Getpid(), strings.TrimSpace(string(name)), err)
	fmt.Printf("system: arguments %q\n", os.Args)
	mounts, err := os.ReadFile("/proc/mounts")
	fmt.Printf("system: mounts %v\n%s", err, mounts)
	entries, err := os.ReadDir("/")
	fmt.Printf("system: root %v %v\n", entries, err)
	fmt.Println("system: done")
	unix.Sync()
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	select {}
}
