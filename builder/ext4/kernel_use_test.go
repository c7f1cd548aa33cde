//go:build mount

package ext4_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What stops a file system at once, its journal as it is: a pulled plug
// (FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH of the kernel's ext4.h).
const (
	goingDown   = 0x8004587d
	noLogFlush  = 2
	stressFiles = 1000
)

// TestKernelUse has this machine's kernel use our file system as a card's
// does: grow it while it is mounted, fill, shuffle and empty it, and lose power
// in between. Mounting wants root:
//
//	sudo -E go test -tags mount -run KernelUse ./builder/ext4
func TestKernelUse(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			o := options
			o.Free = 200 << 20
			img, _ := write(t, randomTree(r, 2000), o)
			dir := t.TempDir()
			must(t, os.Truncate(img, 1<<30))
			for cut := range 3 {
				// An error makes it read-only, which fails what follows.
				run(t, "mount", "-o", "loop,errors=remount-ro", img, dir)
				mounted := true
				defer func() {
					if mounted {
						run(t, "umount", dir)
					}
				}()
				if cut == 0 {
					device := strings.TrimSpace(run(t, "findmnt", "-no", "SOURCE", dir))
					out := run(t, "sh", "-c", "resize2fs "+device+" 2>&1 || true")
					switch {
					case strings.Contains(out, "Permission denied"):
						t.Log("not grown: this root has no CAP_SYS_RESOURCE")
					case !strings.Contains(out, "is now 262144"):
						t.Errorf("resize2fs: %s", out)
					}
				}
				kept := filepath.Join(dir, fmt.Sprint("kept", cut))
				must(t, os.MkdirAll(kept, 0o755))
				stress(t, r, kept)
				run(t, "sync", "-f", dir)
				want := listFolder(t, kept)
				lost := filepath.Join(dir, fmt.Sprint("lost", cut))
				must(t, os.MkdirAll(lost, 0o755))
				stress(t, r, lost)
				d, err := os.Open(dir)
				must(t, err)
				must(t, unix.IoctlSetPointerInt(int(d.Fd()), goingDown, noLogFlush))
				must(t, d.Close())
				run(t, "umount", dir)
				mounted = false

				// The kernel replays the journal, and so does e2fsck.
				if cut%2 == 0 {
					run(t, "mount", "-o", "loop", img, dir)
					if got := listFolder(t, kept); got != want {
						t.Errorf("what was on the disk before the plug was pulled is no more what it was")
					}
					run(t, "umount", dir)
				} else {
					run(t, "sh", "-c", "e2fsck -fp "+img+"; test $? -le 1")
				}
				run(t, "e2fsck", "-fn", img)
				if out := run(t, "dumpe2fs", "-h", img); strings.Contains(out, "FS Error count") {
					t.Errorf("the kernel found errors:\n%s", out)
				}
			}
		})
	}
}

// TestKernelFree fills what is said to be free before a card is grown.
func TestKernelFree(t *testing.T) {
	for _, free := range []int64{1 << 20, 16 << 20, 300 << 20} {
		t.Run(fmt.Sprint(free), func(t *testing.T) {
			o := options
			o.Free = free
			img, _ := write(t, randomTree(rand.New(rand.NewPCG(1, 1)), 2000), o)
			dir := t.TempDir()
			run(t, "mount", "-o", "loop", img, dir)
			defer run(t, "umount", dir)
			content := bytes.Repeat([]byte("written before the card grows\n"), 1000)
			for written := int64(0); written < free*9/10; written += int64(len(content)) {
				must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("file", written)), content, 0o600))
			}
			run(t, "sync", "-f", dir)
		})
	}
}

// stress makes files and moves, links, changes and removes them, in folders
// small and large.
func stress(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	var files []string
	folders := []string{dir}
	for i := range stressFiles {
		name := filepath.Join(folders[r.IntN(len(folders))], fmt.Sprintf("%d-%s", i, strings.Repeat("n", r.IntN(200))))
		switch k := r.IntN(12); {
		case k == 0:
			must(t, os.Mkdir(name, 0o755))
			folders = append(folders, name)
			continue
		case k == 1:
			must(t, os.Symlink(strings.Repeat("t", 1+r.IntN(200)), name))
			continue
		case k == 2 && len(files) > 0:
			must(t, os.Link(files[r.IntN(len(files))], name))
		case k == 3 && len(files) > 0:
			j := r.IntN(len(files))
			must(t, os.Rename(files[j], name))
			files[j] = name
			continue
		case k == 4 && len(files) > 0:
			j := r.IntN(len(files))
			must(t, os.Remove(files[j]))
			files[j] = files[len(files)-1]
			files = files[:len(files)-1]
			continue
		case k == 5 && len(files) > 0:
			must(t, os.Truncate(files[r.IntN(len(files))], r.Int64N(1<<18)))
			continue
		default:
			must(t, os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, r.IntN(1<<r.IntN(18)+1)), 0o644))
		}
		files = append(files, name)
	}
	large := filepath.Join(dir, "large")
	must(t, os.Mkdir(large, 0o755))
	for i := range 3 * stressFiles {
		must(t, os.WriteFile(filepath.Join(large, fmt.Sprintf("entry-%d-%s", i, strings.Repeat("l", 100))), nil, 0o644))
	}
	for i := 0; i < 3*stressFiles; i += 2 {
		must(t, os.Remove(filepath.Join(large, fmt.Sprintf("entry-%d-%s", i, strings.Repeat("l", 100)))))
	}
}

// listFolder lists what lies below a folder, with the files' digests.
func listFolder(t *testing.T, dir string) string {
	t.Helper()
	return run(t, "sh", "-c", "cd "+dir+" && find . | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum")
}
