package ext4_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/tree"
)

// hostFiles fills a folder of the host with what mke2fs -d can take without
// privileges.
func hostFiles(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600))
	must(os.WriteFile(filepath.Join(dir, "a/small"), []byte("small\n"), 0o4755))
	large := make([]byte, 3<<20+77)
	if _, err := (pattern{seed: 3, size: int64(len(large))}).ReadAt(large, 0); err != nil {
		t.Fatal(err)
	}
	must(os.WriteFile(filepath.Join(dir, "a/large"), large, 0o644))
	must(os.Link(filepath.Join(dir, "a/large"), filepath.Join(dir, "a/b/linked")))
	must(os.Symlink("../a/large", filepath.Join(dir, "a/b/short")))
	must(os.Symlink(strings.Repeat("long/", 40), filepath.Join(dir, "a/b/c/long")))
	f, err := os.Create(filepath.Join(dir, "holes"))
	must(err)
	defer f.Close()
	for i := range int64(60) { // more extents than fit in an inode
		_, err := f.WriteAt([]byte(fmt.Sprintf("data %d", i)), i*100000)
		must(err)
	}
	_, err = f.WriteAt([]byte("end"), 100<<20) // with inline_data, mke2fs 1.47 loses a hole there
	must(err)
	must(os.Mkdir(filepath.Join(dir, "many"), 0o755))
	for i := range 700 {
		must(os.WriteFile(filepath.Join(dir, "many", fmt.Sprintf("entry-with-a-longer-name-%d", i)), []byte{byte(i)}, 0o644))
	}
	epoch := time.Unix(1700000000, 0) // mke2fs takes the root's from the clock
	must(os.Chtimes(dir, epoch, epoch))
	return dir
}

// fromHost makes the tree that mke2fs -d makes of a folder.
func fromHost(t testing.TB, dir string) *tree.Tree {
	t.Helper()
	tr := tree.New(0)
	first := map[string]string{} // by device and inode number, as stat(1) prints them
	names := run(t, "find", dir, "-printf", "%P\t%D:%i\t%m\t%U\t%G\t%Ts\t%y\t%l\\0")
	for _, line := range strings.Split(strings.TrimSuffix(names, "\x00"), "\x00") {
		f := strings.Split(line, "\t")
		in := &tree.Inode{}
		fmt.Sscanf(f[2]+" "+f[3]+" "+f[4]+" "+f[5], "%o %d %d %d", &in.Mode, &in.UID, &in.GID, &in.ModTime)
		p := "/" + f[0]
		switch f[6] {
		case "d":
			in.Mode |= tree.TypeDir
		case "l":
			in.Mode |= tree.TypeSymlink
			in.Target = f[7]
		case "f":
			if other, ok := first[f[1]]; ok {
				if err := tr.Link(other, p); err != nil {
					t.Fatal(err)
				}
				continue
			}
			first[f[1]] = p
			in.Mode |= tree.TypeRegular
			info, err := os.Stat(filepath.Join(dir, f[0]))
			if err != nil {
				t.Fatal(err)
			}
			in.Content = hostFile{filepath.Join(dir, f[0]), info.Size()}
		}
		if err := tr.Put(p, in); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// What mke2fs makes, by default and otherwise.
var mke2fsImages = []struct {
	name string
	args []string
}{
	{"default", []string{"-t", "ext4"}},
	{"ext2", []string{"-t", "ext2"}},
	{"ext3", []string{"-t", "ext3"}},
	{"1k blocks", []string{"-t", "ext4", "-b", "1024"}},
	{"2k blocks", []string{"-t", "ext4", "-b", "2048"}},
	{"64k blocks", []string{"-t", "ext4", "-F", "-b", "65536", "-O", "^has_journal"}},
	{"128 byte inodes", []string{"-t", "ext4", "-I", "128", "-O", "^metadata_csum"}},
	{"512 byte inodes", []string{"-t", "ext4", "-I", "512"}},
	{"32 bits", []string{"-t", "ext4", "-O", "^64bit"}},
	{"uninit_bg", []string{"-t", "ext4", "-O", "^metadata_csum,^64bit,uninit_bg"}},
	{"no checksums", []string{"-t", "ext4", "-O", "^metadata_csum"}},
	{"meta_bg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode"}},
	{"orphan_file", []string{"-t", "ext4", "-O", "orphan_file,metadata_csum_seed"}},
	{"sparse_super2", []string{"-t", "ext4", "-O", "sparse_super2,^resize_inode"}},
	{"no flex_bg, no dir_index", []string{"-t", "ext4", "-O", "^flex_bg,^dir_index,^has_journal"}},
	{"large_dir, quota, project", []string{"-t", "ext4", "-O", "large_dir,quota,project"}},
	{"inline_data", []string{"-t", "ext4", "-O", "inline_data"}},
	{"inline_data in 1 KiB inodes", []string{"-t", "ext4", "-O", "inline_data", "-I", "1024"}},
	{"bigalloc", []string{"-t", "ext4", "-O", "bigalloc", "-C", "65536"}},
	{"bigalloc, 1k blocks, no checksums", []string{"-t", "ext4", "-O", "bigalloc,^metadata_csum", "-b", "1024", "-C", "16384"}},
	{"no file types", []string{"-t", "ext4", "-O", "^filetype"}},
	{"features that nothing uses", []string{"-t", "ext4", "-E", "encoding=utf8", "-O", "casefold,encrypt,ea_inode,verity,mmp"}},
	{"old Android", []string{"-t", "ext4", "-O", "^huge_file,^dir_nlink,^extra_isize,^sparse_super,^resize_inode"}},
}

func TestReadMke2fs(t *testing.T) {
	dir := hostFiles(t)
	want := fromHost(t, dir)
	for _, test := range mke2fsImages {
		t.Run(test.name, func(t *testing.T) {
			img := filepath.Join(t.TempDir(), "img")
			run(t, "mke2fs", append(append([]string{"-q", "-d", dir}, test.args...), img, "100M")...)
			compare(t, readTree(t, img), want)
			if strings.HasPrefix(test.name, "bigalloc") {
				return // Check refuses it, and e2fsck -D breaks it
			}
			check(t, img)
			run(t, "sh", "-c", "e2fsck -fyD "+img+" >/dev/null; test $? -le 1") // indexes the directories
			compare(t, readTree(t, img), want)
			check(t, img)
		})
	}
}

var refusedImages = []struct {
	args []string
	want string
}{
	{[]string{"-O", "journal_dev"}, "features not supported: journal_dev"},
	{[]string{"-r", "0", "-O", "none"}, "revision 0 is not supported"},
}

func TestRefused(t *testing.T) {
	for _, test := range refusedImages {
		img := filepath.Join(t.TempDir(), "img")
		run(t, "mke2fs", append(append([]string{"-q", "-t", "ext4"}, test.args...), img, "64M")...)
		err := openError(t, img)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got error %v, want one with %q", test.args, err, test.want)
		}
	}
}
