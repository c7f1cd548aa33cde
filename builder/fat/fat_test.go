package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/tree"
)

const epoch = 1_700_000_001 // odd, so that the hundredths matter

// files makes a tree of "/path": "content"; a path that ends in "/" is a
// directory.
func files(t testing.TB, content map[string]string) *tree.Tree {
	t.Helper()
	out := tree.New(epoch)
	for p, data := range content {
		if err := out.MkdirAll(path.Dir(strings.TrimSuffix(p, "/")), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(p, "/") {
			if err := out.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := out.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// dump is the way back, with content cut to what fits a line.
func dump(t testing.TB, in *tree.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	for p, n := range in.All() {
		if n.IsDir() {
			out[strings.TrimSuffix(p, "/")+"/"] = ""
			continue
		}
		data, err := in.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = string(data)
	}
	return out
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8")
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if p, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		cmd.Path, cmd.Err = p, nil
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func image(t testing.TB, in *tree.Tree, o Options) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fat.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(o.Size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, in, o); err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t testing.TB, name string) *FS {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fs, err := Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func deep(n int) string { return strings.Repeat("/directory", n) }

func many(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprintf("/overlays/some overlay number %d.dtbo", i)] = fmt.Sprint(i)
	}
	return out
}

func random(n int64) string {
	b := make([]byte, n)
	rand.New(rand.NewSource(n)).Read(b)
	return string(b)
}

var writeTests = []struct {
	name  string
	size  int64
	files map[string]string
}{
	{"nothing", 512 << 20, nil},
	{"smallest", MinSize, map[string]string{"/a": "a"}},
	{"four gigabytes", 4 << 30, map[string]string{"/A.TXT": "a"}},
	{"forty gigabytes", 40 << 30, map[string]string{"/dir/A.TXT": random(100_000)}},
	{"odd size", 300<<20 + 512, map[string]string{"/dir/sub/file": "x"}},
	{"boot partition", 512 << 20, map[string]string{
		"/bootcode.bin":                         random(52_000),
		"/config.txt":                           "arm_64bit=1\n",
		"/cmdline.txt":                          "console=tty0\n",
		"/start4.elf":                           random(2_250_001),
		"/START.ELF":                            "",
		"/vmlinuz-6.12.107+deb13-arm64":         random(8192),
		"/initrd.img-6.12.107+deb13-arm64":      random(8193),
		"/bcm2711-rpi-4-b.dtb":                  "1",
		"/bcm2711-rpi-400.dtb":                  "2",
		"/bcm2711-rpi-cm4-io.dtb":               "3",
		"/overlays/README.md":                   "read me",
		"/overlays/hifiberry-dac.dtbo":          "4",
		"/picube/node.yaml":                     "hostname: rpi1\n",
		"/picube/identity/etc/ssh/ssh_host_key": "secret",
		"/empty/":                               "",
	}},
	{"names", 64 << 20, map[string]string{
		"/.hidden":                      "1",
		"/with space":                   "2",
		"/two.dots.txt":                 "3",
		"/Müller.txt":                   "4",
		"/日本語.txt":                      "5",
		"/💾":                            "6",
		"/longer than eight.text":       "7",
		"/LONGER~1.TEX":                 "8",
		"/" + strings.Repeat("n", 255):  "9",
		"/x+y=z":                        "10",
		"/thirteen13aaa":                "11",
		"/thirteen13.aa":                "12",
		"/exactly26characters.name.txt": "13",
	}},
	{"deep", 64 << 20, map[string]string{deep(30) + "/file": "found"}},
	{"many", 64 << 20, many(2500)},
}

func TestWrite(t *testing.T) {
	for _, tt := range writeTests {
		t.Run(tt.name, func(t *testing.T) {
			in := files(t, tt.files)
			o := Options{Size: tt.size, Label: "bootfs", VolumeID: 0xCAFE1234, Hidden: 16384}
			name := image(t, in, o)
			if out := tool(t, "fsck.vfat", "-n", name); strings.Count(out, "\n") > 2 {
				t.Errorf("fsck.vfat is not silent:\n%s", out)
			}
			fs := open(t, name)
			if err := fs.Check(); err != nil {
				t.Error(err)
			}
			if fs.Label != "bootfs" || fs.VolumeID != 0xCAFE1234 {
				t.Errorf("label %q, volume id %08x", fs.Label, fs.VolumeID)
			}
			back, err := fs.Tree()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(dump(t, in), dump(t, back)); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
			for p, n := range back.All() {
				if p != "/" && n.ModTime != epoch&^1 {
					t.Errorf("%s: time %d, want %d", p, n.ModTime, int64(epoch&^1))
				}
			}
			first, second := recorder{}, recorder{}
			if err := errors.Join(Write(first, in, o), Write(second, files(t, tt.files), o)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(first, second) {
				t.Error("a second write differs")
			}
		})
	}
}

// recorder keeps what is written where.
type recorder map[int64][]byte

func (r recorder) WriteAt(b []byte, off int64) (int, error) {
	r[off] = bytes.Clone(b)
	return len(b), nil
}

// TestMtools lets another implementation read names, times and content.
func TestMtools(t *testing.T) {
	content := map[string]string{
		"/BOOT.BIN": "1", "/config.txt": "arm_64bit=1\n",
		"/vmlinuz-6.12.107+deb13-arm64": "kernel", "/bcm2711-rpi-4-b.dtb": "4b", "/bcm2711-rpi-400.dtb": "400",
		"/overlays/pi4-spidev.dtbo": "overlay",
	}
	name := image(t, files(t, content), Options{Size: 64 << 20, Label: "bootfs", VolumeID: 0xCAFE1234})
	got := tool(t, "mdir", "-/", "-i", name, "::")
	want := ` Volume in drive : is bootfs     
 Volume Serial Number is CAFE-1234
Directory for ::/

BOOT     BIN         1 2023-11-14  22:13 
BCM271~1 DTB         2 2023-11-14  22:13  bcm2711-rpi-4-b.dtb
BCM271~2 DTB         3 2023-11-14  22:13  bcm2711-rpi-400.dtb
CONFIG   TXT        12 2023-11-14  22:13  config.txt
OVERLAYS     <DIR>     2023-11-14  22:13  overlays
VMLINU~1 107         6 2023-11-14  22:13  vmlinuz-6.12.107+deb13-arm64
        6 files                  24 bytes
`
	if diff := cmp.Diff(want, got[:min(len(want), len(got))]); diff != "" {
		t.Errorf("mdir (-want +got):\n%s", diff)
	}
	for p, want := range content {
		if got := tool(t, "mtype", "-i", name, "::"+p); got != want {
			t.Errorf("mtype %s: %q, want %q", p, got, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	link := tree.New(0)
	if err := errors.Join(link.Symlink("x", "/zlink"), link.Mknod("/null", tree.TypeChar|0o666, 1, 3),
		link.WriteFile("/a?b", nil, 0o644), link.WriteFile("/dot.", nil, 0o644),
		link.WriteFile("/Readme", nil, 0o644), link.WriteFile("/README", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	huge := tree.New(0)
	if err := huge.WriteContent("/huge", hugeFile(1<<32), 0o644); err != nil {
		t.Fatal(err)
	}
	large := tree.New(0)
	if err := large.WriteContent("/large", hugeFile(1<<31), 0o644); err != nil {
		t.Fatal(err)
	}
	torn := tree.New(0)
	if err := torn.WriteContent("/torn", hugeFile(100), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		tree *tree.Tree
		o    Options
		want string
	}{
		{"what FAT cannot hold", link, Options{Size: MinSize}, `/Readme: cannot be put on a FAT file system: its name differs from README in case only
/a?b: cannot be put on a FAT file system: its name holds the character '?'
/dot.: cannot be put on a FAT file system: its name ends in a dot or a space
/null: cannot be put on a FAT file system: it is neither a file nor a directory
/zlink: cannot be put on a FAT file system: it is neither a file nor a directory`},
		{"4 GiB file", huge, Options{Size: 8 << 30}, `/huge: cannot be put on a FAT file system: 4294967296 bytes are more than a file can have`},
		{"too much", large, Options{Size: MinSize}, `FAT partition of 34603008 bytes: cannot hold 2147484160 bytes in files and directories`},
		{"short content", torn, Options{Size: MinSize}, `/torn: cannot write it to the FAT partition: unexpected EOF`},
		{"too small", tree.New(0), Options{Size: 1 << 20}, `FAT partition of 1048576 bytes: cannot be FAT32: it needs at least 34603008`},
		{"no sectors", tree.New(0), Options{Size: MinSize + 1}, `FAT partition of 34603009 bytes: cannot be FAT32: the size is no multiple of 512`},
		{"label", tree.New(0), Options{Size: MinSize, Label: "twelve chars"}, `FAT label "twelve chars": cannot be longer than 11 characters`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Write(discard{}, tt.tree, tt.o)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			slices.Sort(lines)
			if diff := cmp.Diff(tt.want, strings.Join(lines, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// hugeFile has a size and no bytes.
type hugeFile int64

func (h hugeFile) Size() int64                     { return int64(h) }
func (hugeFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// TestReadForeign reads what mkfs.fat and mtools made.
func TestReadForeign(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int64
		args []string
	}{
		{"FAT16", 32 << 20, []string{"-F", "16", "-n", "BOOT"}},
		{"FAT32", 64 << 20, []string{"-F", "32", "-n", "BOOT"}},
		{"FAT32 of one table", 64 << 20, []string{"-F", "32", "-n", "BOOT", "-f", "1"}},
		{"sectors of 4096", 300 << 20, []string{"-F", "32", "-n", "BOOT", "-S", "4096"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			img := filepath.Join(dir, "img")
			if err := os.WriteFile(img, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(img, tt.size); err != nil {
				t.Fatal(err)
			}
			tool(t, "mkfs.fat", append(tt.args, img)...)
			want := map[string]string{
				"/": "", "/config.txt": "arm_64bit=1", "/KERNEL.IMG": random(100_000), "/empty.txt": "",
				"/overlays/": "", "/overlays/a rather long name.dtbo": random(5000), "/overlays/Ünïcode": "u",
			}
			tool(t, "mmd", "-i", img, "::overlays")
			for p, data := range want {
				if strings.HasSuffix(p, "/") {
					continue
				}
				src := filepath.Join(dir, "src")
				if err := os.WriteFile(src, []byte(data), 0o600); err != nil {
					t.Fatal(err)
				}
				tool(t, "mcopy", "-i", img, src, "::"+p)
			}
			tool(t, "mcopy", "-i", img, filepath.Join(dir, "src"), "::gone")
			tool(t, "mdel", "-i", img, "::gone")
			fs := open(t, img)
			if err := fs.Check(); err != nil {
				t.Error(err)
			}
			if fs.Label != "BOOT" {
				t.Errorf("label %q", fs.Label)
			}
			back, err := fs.Tree()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, dump(t, back)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCheck damages a file system and expects the fault by name.
func TestCheck(t *testing.T) {
	in := files(t, map[string]string{"/a.bin": random(2000), "/b.bin": random(2000), "/dir/c": "c"})
	name := image(t, in, Options{Size: MinSize, Label: "bootfs"})
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGeometry(Options{Size: MinSize})
	if err != nil {
		t.Fatal(err)
	}
	table := int(g.reserved) * sectorSize
	// Clusters: 2 root, 3-6 /a.bin, 7-10 /b.bin, 11 /dir, 12 /dir/c.
	dir := int(g.offset(11))
	tests := []struct {
		name   string
		damage func(b []byte)
		want   []string
	}{
		{"nothing", func([]byte) {}, nil},
		{"boot sector", func(b []byte) { b[3] = 'X' }, []string{"FAT: the boot sector differs from its copy"}},
		{"second table", func(b []byte) { b[table+int(g.perFAT)*sectorSize+12]++ }, []string{"FAT: table 2 differs from the first"}},
		{"summary", func(b []byte) { b[sectorSize+488]++ }, []string{"FAT: the FSInfo sector says 66484 free clusters, there are 66483"}},
		{"cross link", func(b []byte) { both(b, g, 4, 8) }, []string{
			"FAT: /a.bin: its 2000 bytes need 4 clusters, but it has 5",
			"FAT: /b.bin: its 2000 bytes need 4 clusters, but it has 1",
			"FAT: /b.bin: its cluster 8 belongs to another file or chain too",
			"FAT: 2 clusters belong to no file",
		}},
		{"loop", func(b []byte) { both(b, g, 6, 3) }, []string{"FAT: /a.bin: its cluster 3 belongs to another file or chain too"}},
		{"broken chain", func(b []byte) { both(b, g, 4, 0) }, []string{
			"FAT: /a.bin: its 2000 bytes need 4 clusters, but it has 2",
			"FAT: /a.bin: its chain leads to a free cluster",
			"FAT: 2 clusters belong to no file",
			"FAT: the FSInfo sector says 66483 free clusters, there are 66484",
		}},
		{"out of range", func(b []byte) { both(b, g, 6, 0xFFFFFF) }, []string{"FAT: /a.bin: its chain leads to cluster 16777215 of 66494"}},
		{"lost", func(b []byte) { both(b, g, 20, endOfChain) }, []string{
			"FAT: 1 clusters belong to no file", "FAT: the FSInfo sector says 66483 free clusters, there are 66482"}},
		{"dots", func(b []byte) { b[dir+entrySize+26] = 2 }, []string{`FAT: /dir: its entry ".." is wrong`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(good)
			tt.damage(b)
			fs, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			if err := fs.Check(); err != nil {
				got = strings.Split(err.Error(), "\n")
				slices.Sort(got)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func both(b []byte, g geometry, cluster, next uint32) {
	for i := range uint32(2) {
		le.PutUint32(b[(g.reserved+i*g.perFAT)*sectorSize+cluster*4:], next)
	}
}

func BenchmarkWrite(b *testing.B) {
	in := tree.New(epoch)
	data := []byte(random(100 << 20))
	if err := in.WriteFile("/vmlinuz", data, 0o644); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Write(discard{}, in, Options{Size: 512 << 20, Label: "bootfs"}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRead damages a small file system at the places where its structure
// lies, and reads it: an error is fine, a panic or a hang is not.
func FuzzRead(f *testing.F) {
	in := files(f, map[string]string{"/a.bin": random(2000), "/a longer name.bin": "b", "/dir/sub/c": "c"})
	good, err := os.ReadFile(image(f, in, Options{Size: MinSize, Label: "bootfs"}))
	if err != nil {
		f.Fatal(err)
	}
	g, err := newGeometry(Options{Size: MinSize})
	if err != nil {
		f.Fatal(err)
	}
	table, data := int64(g.reserved)*sectorSize, g.offset(firstCluster)
	f.Add(good[:sectorSize], good[table:table+100], good[data:data+8*sectorSize])
	f.Fuzz(func(t *testing.T, boot, fat, dirs []byte) {
		r := &patched{size: MinSize, parts: []patch{{0, boot}, {table, fat}, {data, dirs}}}
		fs, err := Open(r, MinSize)
		if err != nil {
			return
		}
		_ = fs.Check()
		back, err := fs.Tree()
		if err != nil {
			return
		}
		for p, n := range back.All() {
			if n.IsRegular() && n.Size() < 1<<20 {
				if _, err := back.ReadFile(p); err != nil {
					t.Fatalf("%s: %v", p, err)
				}
			}
		}
	})
}

type patch struct {
	off  int64
	data []byte
}

// patched is zeros with patches, so that the fuzzer need not carry megabytes.
type patched struct {
	size  int64
	parts []patch
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off >= p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-off))
	clear(b[:n])
	for _, part := range p.parts {
		if d := part.off - off; d < int64(n) && d > -int64(len(part.data)) {
			copy(b[max(d, 0):n], part.data[max(-d, 0):])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
