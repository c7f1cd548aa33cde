package emulator

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// defaultCPUs is how many CPUs a node has if nobody says otherwise. More than
// the host has would only slow each other down.
func defaultCPUs() int { return min(4, runtime.NumCPU()) }

const install = `install it with
  Debian, Ubuntu:  apt install qemu-system-arm
  Fedora:          dnf install qemu-system-aarch64
  macOS:           brew install qemu
  Windows:         winget install SoftwareFreedomConservancy.QEMU`

// minVersion is the first QEMU with -netdev stream.
const minVersion = "7.2"

var versionText = regexp.MustCompile(`version (\d+)\.(\d+)`)

func program(dir, name string) string {
	if dir == "" {
		return name
	}
	return filepath.Join(dir, name)
}

// checkQEMU makes sure that there is a QEMU which can be the board.
func checkQEMU(dir string, b board) error {
	out, err := exec.Command(program(dir, b.binary), "--version").Output()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("QEMU: cannot find %s: %s", b.binary, install)
	}
	if err != nil {
		return fmt.Errorf("QEMU: cannot run %s: %w", b.binary, err)
	}
	return checkVersion(string(out), b)
}

func checkVersion(text string, b board) error {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return fmt.Errorf("QEMU: cannot tell its version from %q", strings.TrimSpace(text))
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < 7 || major == 7 && minor < 2 {
		return fmt.Errorf("QEMU: cannot use version %d.%d: it must be %s or later", major, minor, minVersion)
	}
	if major < b.since {
		return fmt.Errorf("QEMU: cannot be this board in version %d.%d: it must be %d.0 or later", major, minor, b.since)
	}
	return nil
}

// hostAccel is the quickest way in which this host runs arm64.
func hostAccel() string {
	if runtime.GOARCH != "arm64" {
		return AccelTCG
	}
	switch runtime.GOOS {
	case "darwin":
		return AccelHVF
	case "linux":
		if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			f.Close()
			return AccelKVM
		}
	}
	return AccelTCG
}

// hostMemory returns the host's memory in MiB, all of it and what is free, or
// zeros where the system does not tell in a simple way.
func hostMemory() (total, available int) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int
		if _, err := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); err == nil {
			total = kib >> 10
		}
		if _, err := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); err == nil {
			available = kib >> 10
		}
	}
	return total, available
}
