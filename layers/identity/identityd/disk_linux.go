package identityd

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskIDOffset is where a master boot record keeps the disk's id (UEFI
// specification 2.10, 5.2.1: UniqueMBRDiskSignature).
const diskIDOffset = 440

// DiskID returns the id of the disk that holds the file system mounted at
// dir, as PARTUUIDs show it.
func DiskID(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", err
	}
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return "", fmt.Errorf("%s: cannot find its disk: %w", dir, err)
	}
	disk, err := os.Open("/dev/" + filepath.Base(filepath.Dir(sys)))
	if err != nil {
		return "", err
	}
	defer disk.Close()
	var id [4]byte
	if _, err := disk.ReadAt(id[:], diskIDOffset); err != nil {
		return "", err
	}
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(id[:])), nil
}
