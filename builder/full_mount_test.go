//go:build mount

package builder

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/output"
)

// TestFullDisk makes cards on file systems that are full at one place after the
// other, and on one that cannot be written to. Mounting wants root:
//
//	sudo -E go test -tags mount -run FullDisk ./builder
func TestFullDisk(t *testing.T) {
	for _, format := range []compress.Format{compress.None, compress.XZ, compress.Gzip} {
		t.Run(string(format), func(t *testing.T) {
			c := smallCard(t, format)
			dir := t.TempDir()
			c.path = filepath.Join(dir, filepath.Base(c.path))
			step := 64 << 10
			for size := step; ; size += step {
				mount(t, "-t", "tmpfs", "-o", "size="+strconv.Itoa(size), "none", dir)
				err := c.make(t.Context(), output.Open(dir))
				left, readErr := filepath.Glob(filepath.Join(dir, "*"))
				hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
				if err == nil {
					mount(t, "-o", "remount,ro", dir)
					c.inputSum += "."
					if err := c.make(t.Context(), output.Open(dir)); err == nil || !strings.Contains(err.Error(), "read-only") {
						t.Errorf("on a read-only file system: %v", err)
					}
					umount(t, dir)
					t.Logf("%d bytes are enough", size)
					return
				}
				if !strings.Contains(err.Error(), "no space left on device") || !strings.HasPrefix(err.Error(), dir) {
					t.Errorf("%d bytes: error %v", size, err)
				}
				// An image that has its name is whole, and only its map or the
				// record is missing: the next build makes it anew.
				if readErr != nil || len(hidden) > 0 || c.isThere(output.Open(dir)) {
					t.Errorf("%d bytes: left %q", size, hidden)
				}
				for _, name := range left {
					if file, _ := os.Stat(name); name == c.path && format == compress.None && file.Size() != c.table().Size() {
						t.Errorf("%d bytes: half an image has its name", size)
					}
				}
				umount(t, dir)
			}
		})
	}
}

func mount(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Fatalf("mount %q: %v\n%s", args, err, out)
	}
}

func umount(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v\n%s", err, out)
	}
}
