package depmod

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/picube/picube-build/builder/tree"
)

const (
	kernel = "6.12.107+deb13-arm64"
	dir    = "/usr/lib/modules/" + kernel
)

// source describes a module to be made for a test.
type source struct {
	narrow   bool     // 32 bits
	info     []string // of .modinfo
	exports  []string // by __ksymtab_strings
	crcs     []string // by __crc_ symbols
	needs    []string
	versions []string // names in __versions
}

// build makes the ELF object.
func (s source) build() string {
	type section struct {
		name string
		kind uint32
		data []byte
	}
	var strtab, symtab bytes.Buffer
	word := func(b *bytes.Buffer, v any) { _ = binary.Write(b, binary.LittleEndian, v) } // a buffer takes everything
	symbol := func(name string, index uint16) {
		at := uint32(strtab.Len())
		strtab.WriteString(name + "\x00")
		word(&symtab, at)
		if s.narrow {
			word(&symtab, [2]uint32{})
			symtab.Write([]byte{0x10, 0})
			word(&symtab, index)
			return
		}
		symtab.Write([]byte{0x10, 0})
		word(&symtab, index)
		word(&symtab, [2]uint64{})
	}
	symbol("", 0)
	symbol("init_module", 1)
	for _, n := range s.needs {
		symbol(n, 0)
	}
	for _, n := range s.crcs {
		symbol("__crc_"+n, 0xFFF1)
	}
	var versions bytes.Buffer
	for _, n := range s.versions {
		entry := make([]byte, 64)
		if s.narrow {
			copy(entry[4:], n)
		} else {
			copy(entry[8:], n)
		}
		versions.Write(entry)
	}
	text := func(lines []string) []byte { return []byte(strings.Join(append(lines, ""), "\x00")) }
	sections := []section{
		{"", 0, nil},
		{".bss", 8, nil},
		{".modinfo", 1, text(s.info)},
		{"__ksymtab_strings", 1, text(s.exports)},
		{"__versions", 1, versions.Bytes()},
		{".symtab", 2, symtab.Bytes()},
		{".strtab", 3, strtab.Bytes()},
	}
	var names bytes.Buffer
	offsets := map[string]uint32{}
	for _, x := range append(sections, section{name: ".shstrtab"}) {
		offsets[x.name] = uint32(names.Len())
		names.WriteString(x.name + "\x00")
	}
	sections = append(sections, section{".shstrtab", 3, names.Bytes()})

	var body, headers bytes.Buffer
	start := 0x40
	for _, x := range sections {
		off := uint64(start + body.Len())
		body.Write(x.data)
		word(&headers, [2]uint32{offsets[x.name], x.kind})
		if s.narrow {
			word(&headers, [8]uint32{0, 0, uint32(off), uint32(len(x.data))})
			continue
		}
		word(&headers, [2]uint64{})
		word(&headers, [2]uint64{off, uint64(len(x.data))})
		word(&headers, [3]uint64{})
	}
	for (start+body.Len())%8 != 0 {
		body.WriteByte(0)
	}
	head := make([]byte, 0x40)
	copy(head, "\x7fELF\x02\x01\x01")
	le.PutUint16(head[16:], 1) // relocatable
	le.PutUint16(head[18:], 183)
	le.PutUint32(head[20:], 1)
	if s.narrow {
		head[4] = 1
		le.PutUint16(head[18:], 40)
		le.PutUint32(head[0x20:], uint32(start+body.Len()))
		for i, v := range []uint16{0x34, 0, 0, 40, uint16(len(sections)), uint16(len(sections) - 1)} {
			le.PutUint16(head[0x28+2*i:], v)
		}
	} else {
		le.PutUint64(head[0x28:], uint64(start+body.Len()))
		for i, v := range []uint16{0x40, 0, 0, 64, uint16(len(sections)), uint16(len(sections) - 1)} {
			le.PutUint16(head[0x34+2*i:], v)
		}
	}
	return string(head) + body.String() + headers.String()
}

func pack(t testing.TB, ext, s string) string {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch ext {
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	default:
		return s
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write([]byte(s))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var modules = map[string]source{
	"kernel/fs/ext4/ext4.ko.xz": {
		info:  []string{"license=GPL", "softdep=pre: crypto-crc32c", "alias=fs-ext4", "alias=ext3", "weakdep=crc32c"},
		needs: []string{"jbd2_journal_start", "mb_cache_entry_find", "crc16", "printk"},
	},
	"kernel/fs/jbd2/jbd2.ko.xz":     {crcs: []string{"jbd2_journal_start", "jbd2_journal_stop"}, exports: []string{"ignored"}, needs: []string{"printk"}},
	"kernel/fs/mbcache.ko.zst":      {exports: []string{"mb_cache_entry_find", "mb_cache_create"}, needs: []string{"crc16"}},
	"kernel/lib/crc16.ko.gz":        {crcs: []string{"crc16"}},
	"kernel/drivers/i2c/i2c-dev.ko": {info: []string{"alias=char-major-89-*", "alias=i2c:[a-f-]-dev*"}, versions: []string{"module_layout", "crc16"}},
	"kernel/drivers/net/tun.ko":     {narrow: true, info: []string{"alias=devname:net/tun", "alias=char-major-10-200"}, needs: []string{"crc16"}, versions: []string{"jbd2_journal_stop"}},
	"kernel/extra/unlisted-b.ko":    {needs: []string{"crc16"}},
	"kernel/extra/unlisted_a.ko":    {info: []string{"alias=bad]bracket", "alias=bad[bracket"}},
	"updates/dkms/crc16.ko":         {crcs: []string{"crc16", "crc16_fast"}},
	"build/not-a-module.ko":         {},
}

var lists = map[string]string{
	"modules.order": `kernel/lib/crc16.ko
kernel/fs/ext4/ext4.ko
kernel/fs/jbd2/jbd2.ko
kernel/fs/mbcache.ko
kernel/drivers/i2c/i2c-dev.ko
kernel/drivers/net/tun.ko
kernel/drivers/net/gone.ko
`,
	"modules.builtin":         "kernel/drivers/virtio/virtio-pci.ko\nkernel/net/ipv6/ipv6.ko\n",
	"modules.builtin.modinfo": "virtio_pci.license=GPL\x00virtio_pci.alias=pci:v00001AF4d*\x00ipv6.alias=net-pf-10\x00ipv6.description=IPv6 a.b=c\x00",
}

func root(t testing.TB, modules map[string]source, lists map[string]string) *tree.Tree {
	t.Helper()
	out := tree.New(1_700_000_000)
	put := func(p, s string) {
		p = path.Join(dir, p)
		if err := errors.Join(out.MkdirAll(path.Dir(p), 0o755), out.WriteFile(p, []byte(s), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for p, s := range modules {
		put(p, pack(t, path.Ext(p), s.build()))
	}
	for p, s := range lists {
		put(p, s)
	}
	return out
}

func read(t testing.TB, in *tree.Tree, name string) string {
	t.Helper()
	b, err := in.ReadFile(path.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// export writes the tree to a folder for the real tools.
func export(t testing.TB, in *tree.Tree) string {
	t.Helper()
	out := t.TempDir()
	for p, n := range in.All() {
		name := filepath.Join(out, strings.TrimPrefix(p, "/usr")) // where kmod 30 looks
		if n.IsDir() {
			if err := os.MkdirAll(name, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := in.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("/usr/sbin/"+name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestRun(t *testing.T) {
	in := root(t, modules, lists)
	if err := Run(t.Context(), in, kernel); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"modules.dep": `kernel/fs/ext4/ext4.ko.xz: kernel/fs/mbcache.ko.zst updates/dkms/crc16.ko kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.zst: updates/dkms/crc16.ko
kernel/drivers/i2c/i2c-dev.ko: updates/dkms/crc16.ko
kernel/drivers/net/tun.ko: updates/dkms/crc16.ko kernel/fs/jbd2/jbd2.ko.xz
updates/dkms/crc16.ko:
kernel/extra/unlisted-b.ko: updates/dkms/crc16.ko
kernel/extra/unlisted_a.ko:
`,
		"modules.alias": `# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias ext3 ext4
alias char-major-89-* i2c_dev
alias i2c:[a-f-]-dev* i2c_dev
alias devname:net/tun tun
alias char-major-10-200 tun
alias bad]bracket unlisted_a
alias bad[bracket unlisted_a
`,
		"modules.softdep": "# Soft dependencies extracted from modules themselves.\nsoftdep ext4 pre: crypto-crc32c\n",
		"modules.weakdep": "# Weak dependencies extracted from modules themselves.\nweakdep ext4 crc32c\n",
		"modules.devname": "# Device nodes to trigger on-demand module loading.\ntun net/tun c10:200\n",
		"modules.symbols": `# Aliases for symbols, used by symbol_request().
alias symbol:crc16 crc16
alias symbol:jbd2_journal_stop jbd2
alias symbol:crc16_fast crc16
alias symbol:mb_cache_create mbcache
alias symbol:jbd2_journal_start jbd2
alias symbol:mb_cache_entry_find mbcache
`,
	}
	for name, text := range want {
		if diff := cmp.Diff(text, read(t, in, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestDepmod compares the readable files with those of the host's depmod,
// which may be older than the one whose *.bin are laid out as ours.
func TestDepmod(t *testing.T) {
	folder := export(t, root(t, modules, lists))
	run(t, "depmod", "-b", folder, kernel)
	in := root(t, modules, lists)
	if err := Run(t.Context(), in, kernel); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"modules.dep", "modules.alias", "modules.softdep", "modules.devname", "modules.symbols"} {
		want, err := os.ReadFile(filepath.Join(folder, "lib/modules", kernel, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), read(t, in, name)); diff != "" {
			t.Errorf("%s (-depmod +ours):\n%s", name, diff)
		}
	}
}

// TestModprobe lets modprobe look things up in our *.bin files.
func TestModprobe(t *testing.T) {
	in := root(t, modules, lists)
	if err := Run(t.Context(), in, kernel); err != nil {
		t.Fatal(err)
	}
	folder := export(t, in)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-D", "ext4"}, "insmod jbd2.ko.xz\ninsmod crc16.ko\ninsmod mbcache.ko.zst\ninsmod ext4.ko.xz\n"},
		{[]string{"-D", "virtio-pci"}, "builtin virtio_pci\n"},
		{[]string{"-R", "fs-ext4"}, "ext4\n"},
		{[]string{"-R", "i2c:c_dev99"}, "i2c_dev\n"},
		{[]string{"-R", "symbol:crc16_fast"}, "crc16\n"},
		{[]string{"-R", "pci:v00001AF4d1000"}, "virtio_pci\n"},
		{[]string{"-R", "net-pf-10"}, "ipv6\n"},
	} {
		args := append([]string{"-d", folder, "-S", kernel}, tt.args...)
		got := ""
		for line := range strings.Lines(run(t, "modprobe", args...)) {
			what, file, _ := strings.Cut(strings.TrimSpace(line), " ")
			got += strings.TrimSpace(what+" "+path.Base("/"+file)) + "\n"
		}
		got = strings.ReplaceAll(got, " /\n", "\n")
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("modprobe %v (-want +got):\n%s", tt.args, diff)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		modules map[string]source
		lists   map[string]string
		want    string
	}{
		{"cycle", map[string]source{
			"a.ko": {crcs: []string{"a"}, needs: []string{"b"}}, "b.ko": {crcs: []string{"b"}, needs: []string{"c"}},
			"c.ko": {crcs: []string{"c"}, needs: []string{"a"}}, "d.ko": {},
		}, nil, "kernel " + kernel + ": modules a, b, c: cannot sort them, they need one another"},
		{"no ELF", nil, map[string]string{"a.ko": "something else"},
			"kernel " + kernel + ": module a.ko: cannot read it: it is not a little-endian ELF object"},
		{"cut off", nil, map[string]string{"a.ko": source{}.build()[:200]},
			"kernel " + kernel + ": module a.ko: cannot read it: its ELF structure is damaged"},
		{"no xz", nil, map[string]string{"a.ko.xz": "something else"},
			"kernel " + kernel + ": module a.ko.xz: cannot read it: cannot decode xz: it does not start as .xz files do"},
		{"no kernel", nil, nil, "kernel " + kernel + ": " + dir + ": cannot find it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Run(t.Context(), root(t, tt.modules, tt.lists), kernel)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v\nwant %s", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, root(t, modules, lists), kernel); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type memory map[string][]byte

func (m memory) Get(key string) ([]byte, bool)  { b, ok := m[key]; return b, ok }
func (m memory) Put(key string, b []byte) error { m[key] = b; return nil }

func TestRunCached(t *testing.T) {
	cache := memory{}
	first, second, changed := root(t, modules, lists), root(t, modules, lists), root(t, modules, map[string]string{})
	if err := errors.Join(RunCached(t.Context(), first, kernel, cache), RunCached(t.Context(), second, kernel, cache)); err != nil {
		t.Fatal(err)
	}
	if len(cache) != 1 {
		t.Errorf("%d entries for the same modules", len(cache))
	}
	if err := RunCached(t.Context(), changed, kernel, cache); err != nil {
		t.Fatal(err)
	}
	if len(cache) != 2 {
		t.Errorf("%d entries for two sets", len(cache))
	}
	for _, name := range []string{"modules.dep", "modules.dep.bin", "modules.symbols.bin", "modules.builtin.bin"} {
		if read(t, first, name) != read(t, second, name) {
			t.Errorf("%s differs from the cache", name)
		}
	}
	if read(t, changed, "modules.builtin.bin") != "" {
		t.Error("modules.builtin.bin is not empty without modules.builtin")
	}
	for key := range cache {
		cache[key] = []byte("damaged")
	}
	third := root(t, modules, lists)
	if err := RunCached(t.Context(), third, kernel, cache); err != nil || read(t, first, "modules.dep") != read(t, third, "modules.dep") {
		t.Errorf("damaged cache: %v", err)
	}
}

func FuzzFacts(f *testing.F) {
	for _, s := range modules {
		f.Add([]byte(s.build()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := readFacts(b)
		if err == nil && len(out.exports)+len(out.needs)+len(out.alias) > 4*len(b)+2*maxName {
			t.Fatal("more came out than went in")
		}
	})
}

func BenchmarkModule(b *testing.B) {
	packed := pack(b, ".xz", source{info: []string{strings.Repeat("alias=x ", 20_000)}}.build())
	b.SetBytes(int64(len(packed)))
	for b.Loop() {
		data, err := ReadModule("a.ko.xz", tree.Bytes([]byte(packed)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := readFacts(data); err != nil {
			b.Fatal(err)
		}
	}
}
