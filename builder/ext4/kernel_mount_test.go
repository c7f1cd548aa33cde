//go:build mount

package ext4_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

// What Linux writes, as against mke2fs. Mounting wants root:
//
//	sudo -E go test -tags mount -run Kernel ./builder/ext4
var kernelImages = []struct {
	name, features string
	args           []string
}{
	{"default", "", []string{"-b", "4096"}},
	{"1k blocks", "", []string{"-b", "1024"}},
	{"ext2", "", []string{"-O", "none,filetype,ext_attr,dir_index,sparse_super,large_file", "-b", "1024"}},
	{"ext3", "", []string{"-O", "none,has_journal,filetype,ext_attr,dir_index,sparse_super,large_file", "-b", "1024"}},
	{"no extents", "", []string{"-O", "^extents,^64bit", "-b", "1024"}},
	{"no checksums", "", []string{"-O", "^metadata_csum"}},
	{"inline_data", "inline", []string{"-O", "inline_data", "-b", "4096"}},
	{"inline_data, 1k blocks and inodes", "inline", []string{"-O", "inline_data", "-b", "1024", "-I", "1024"}},
	{"bigalloc", "", []string{"-O", "bigalloc", "-b", "4096", "-C", "32768"}},
	{"ea_inode", "ea_inode", []string{"-O", "ea_inode"}},
	{"ea_inode, inline_data", "ea_inode", []string{"-O", "ea_inode,inline_data"}},
	{"orphan_file, large_dir", "", []string{"-O", "orphan_file,large_dir,metadata_csum_seed"}},
	{"meta_bg, no journal", "", []string{"-O", "meta_bg,^resize_inode,^has_journal"}},
}

// fill makes files as they come to be on a machine in use: $1 is the root.
const fill = `set -e
cd $1
mkdir -p deep/er/and/deeper many few
dd if=/dev/urandom of=holed bs=1M count=12 status=none
sync -f .
python3 - <<'PYTHON'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
for i in range(400): # each takes turns with the others
	for name in "abc":
		with open("few/" + name, "ab") as g:
			g.write(os.urandom(4096))
f = os.open("holed", os.O_RDWR)
for at in range(0, 12 << 20, 8192): # as many extents as there can be
	if libc.fallocate(f, 3, at, 4096):
		break # ext2 and the map of ext3 can't
os.close(f)
f = os.open("reserved", os.O_RDWR | os.O_CREAT)
if libc.fallocate(f, 0, 0, 3 << 20) == 0:
	os.pwrite(f, b"in the middle", 1 << 20)
	libc.fallocate(f, 1, 4 << 20, 1 << 20)
os.close(f)
f = os.open("sparse", os.O_RDWR | os.O_CREAT) # as far as three levels of indirection
for shift in range(0, 27):
	os.pwrite(f, b"at %d" % shift, 1 << shift)
os.ftruncate(f, 200 << 20)
os.close(f)
for i in range(12000):
	open("many/a name that takes its room %d" % i, "w").close()
for i in range(0, 12000, 3):
	os.unlink("many/a name that takes its room %d" % i)
for n in list(range(50, 180)) + [220, 500, 900]:
	with open("deep/file%d" % n, "wb") as g:
		g.write(bytes(i % 251 for i in range(n)))
	os.symlink("l" * n, "deep/er/link%d" % n)
for n in range(1, 14):
	os.mkdir("few/dir%d" % n)
	for i in range(n):
		os.mkdir("few/dir%d/sub%d" % (n, i))
for n in (10, 100, 200, 500):
	os.setxattr("few/a", "user.of%d" % n, b"v" * n)
	os.setxattr("few/dir1", "user.of%d" % n, b"v" * n)
os.setxattr("few/b", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
os.setxattr("deep/file60", "user.beside", b"inline data")
os.mknod("pipe", 0o010600)
os.mknod("char", 0o020640, os.makedev(5, 300))
os.mknod("block", 0o060640, os.makedev(259, 70000))
os.link("few/a", "deep/er/and/again")
os.chown("few/c", 100000, 200000)
os.chmod("few/c", 0o6755)
os.utime("few/c", (5000000000, 5000000000))
PYTHON
`

const fillLargeXattrs = `
import os
for n in (3000, 5000, 40000, 65000):
	os.setxattr("few/a", "user.large%d" % n, bytes(i % 255 + 1 for i in range(n)))
	os.setxattr("few/c", "user.large%d" % n, bytes(i % 255 + 1 for i in range(n)))
`

func TestKernel(t *testing.T) {
	for _, test := range kernelImages {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			img, at := filepath.Join(dir, "img"), filepath.Join(dir, "at")
			must(t, os.Mkdir(at, 0o700))
			run(t, "mke2fs", append(append([]string{"-q", "-t", "ext4", "-N", "30000"}, test.args...), img, "300M")...)
			options := "loop"
			if test.name != "default" { // blocks are taken when written, not when flushed
				options += ",nodelalloc"
			}
			if strings.HasPrefix(test.name, "ext2") || strings.HasPrefix(test.name, "ext3") {
				options = "loop"
			}
			run(t, "mount", "-o", options, img, at)
			mounted := true
			defer func() {
				if mounted {
					run(t, "umount", at)
				}
			}()
			run(t, "sh", "-c", fill, "fill", at)
			if test.features == "ea_inode" {
				python(t, at, fillLargeXattrs)
			}
			run(t, "sync", "-f", at)
			// What a plug pulled now would leave.
			run(t, "sh", "-c", "cd "+at+" && mv few/b late && rm few/c && mkdir new && echo late > new/file && ln holed new/holed && sync -f . && rm -r few/dir13 && echo more >> late && sync new/file && echo lost >> new/file")
			cut := filepath.Join(dir, "cut")
			run(t, "cp", "--sparse=always", img, cut)
			want := fromTar(t, at)
			run(t, "umount", at)
			mounted = false
			run(t, "e2fsck", "-fn", img)
			compare(t, readTree(t, img), want)
			if !strings.HasPrefix(test.name, "bigalloc") {
				check(t, img)
			}
			if strings.Contains(test.name, "ext2") || strings.Contains(test.name, "no journal") {
				return
			}
			got := readTree(t, cut)
			state := readAllOf(t, cut)
			run(t, "mount", "-o", "loop", cut, at)
			mounted = true
			compare(t, got, fromTar(t, at))
			if !state {
				t.Error("the journal of the copy was empty: nothing was shown")
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func python(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("python3", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// readAllOf reads every byte of what the reader holds into memory, before the
// image changes, and says whether its journal had to be replayed.
func readAllOf(t *testing.T, name string) bool {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	_, err = ext4.Open(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	return b[1024+0x60]&4 != 0
}

// fromTar makes the tree of what is mounted as tar(1) sees it.
func fromTar(t *testing.T, dir string) *tree.Tree {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tar")
	run(t, "tar", "-C", dir, "--format=pax", "--numeric-owner", "--sparse", "--xattrs", "--xattrs-include=*", "--exclude=./lost+found", "--warning=no-file-ignored", "-cf", file, ".")
	h, err := os.Open(file)
	must(t, err)
	t.Cleanup(func() { h.Close() })
	tr := tree.New(0)
	r := tar.NewReader(h)
	for n := 0; ; n++ {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return tr
		}
		must(t, err)
		p := tree.Clean(header.Name)
		if header.Typeflag == tar.TypeLink {
			must(t, tr.Link(tree.Clean(header.Linkname), p))
			continue
		}
		in := &tree.Inode{Mode: uint32(header.Mode), UID: uint32(header.Uid), GID: uint32(header.Gid), ModTime: header.ModTime.Unix(),
			Major: uint32(header.Devmajor), Minor: uint32(header.Devminor), Target: header.Linkname}
		for k, v := range header.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				if in.Xattrs == nil {
					in.Xattrs = map[string]string{}
				}
				in.Xattrs[name] = v
			}
		}
		switch header.Typeflag {
		case tar.TypeDir:
			in.Mode |= tree.TypeDir
		case tar.TypeSymlink:
			in.Mode |= tree.TypeSymlink
		case tar.TypeChar:
			in.Mode |= tree.TypeChar
		case tar.TypeBlock:
			in.Mode |= tree.TypeBlock
		case tar.TypeFifo:
			in.Mode |= tree.TypeFifo
		default:
			in.Mode |= tree.TypeRegular
			name := filepath.Join(filepath.Dir(file), fmt.Sprint(n))
			out, err := os.Create(name)
			must(t, err)
			_, err = io.Copy(sparseWriter{out}, r)
			must(t, err)
			must(t, out.Truncate(header.Size))
			must(t, out.Close())
			in.Content = hostFile{name, header.Size}
		}
		must(t, tr.Put(p, in))
	}
}

// sparseWriter leaves holes where zeros are.
type sparseWriter struct{ *os.File }

func (w sparseWriter) Write(b []byte) (int, error) {
	if bytes.Count(b, []byte{0}) == len(b) {
		_, err := w.Seek(int64(len(b)), io.SeekCurrent)
		return len(b), err
	}
	return w.File.Write(b)
}

// ReadFrom would bypass Write.
func (w sparseWriter) ReadFrom(r io.Reader) (n int64, err error) {
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1<<20))
}
