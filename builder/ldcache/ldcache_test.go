package ldcache

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

// sharedObject makes the smallest library that ldconfig takes: a dynamic
// segment with a string table and, unless empty, a soname.
func sharedObject(class elf.Class, m elf.Machine, eflags uint32, soname string) []byte {
	le := binary.LittleEndian
	text := append([]byte{0}, soname+"\x00"...)
	const at = 0x200
	b := make([]byte, at, at+len(text))
	b = append(b, text...)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(class), byte(elf.ELFDATA2LSB), 1
	le.PutUint16(b[16:], uint16(elf.ET_DYN))
	le.PutUint16(b[18:], uint16(m))
	le.PutUint32(b[20:], 1)
	tags := []uint64{uint64(elf.DT_STRTAB), 0x1000 + at}
	if soname != "" {
		tags = append(tags, uint64(elf.DT_SONAME), 1)
	}
	tags = append(tags, 0, 0)
	size := uint64(len(b))
	if class == elf.ELFCLASS32 {
		le.PutUint32(b[28:], 64)
		le.PutUint32(b[36:], eflags)
		le.PutUint16(b[42:], 32)
		le.PutUint16(b[44:], 2)
		for i, v := range []uint32{uint32(elf.PT_LOAD), 0, 0x1000, 0x1000, uint32(size), uint32(size), 4, 0x1000} {
			le.PutUint32(b[64+4*i:], v)
		}
		for i, v := range []uint32{uint32(elf.PT_DYNAMIC), 0x100, 0x1100, 0x1100, uint32(4 * len(tags)), uint32(4 * len(tags)), 4, 4} {
			le.PutUint32(b[96+4*i:], v)
		}
		for i, v := range tags {
			le.PutUint32(b[0x100+4*i:], uint32(v))
		}
		return b
	}
	le.PutUint64(b[32:], 64)
	le.PutUint32(b[48:], eflags)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	program := func(at int, kind elf.ProgType, offset, size uint64) {
		le.PutUint32(b[at:], uint32(kind))
		le.PutUint32(b[at+4:], 4)
		for i, v := range []uint64{offset, 0x1000 + offset, 0x1000 + offset, size, size, 8} {
			le.PutUint64(b[at+8+8*i:], v)
		}
	}
	program(64, elf.PT_LOAD, 0, size)
	program(120, elf.PT_DYNAMIC, 0x100, uint64(8*len(tags)))
	for i, v := range tags {
		le.PutUint64(b[0x100+8*i:], v)
	}
	return b
}

// root is a file system: "-> target" is a link, "lib x" a library of this
// machine with soname x, "/" a directory, everything else text.
type root map[string]string

func (r root) content(t *testing.T, path string, m elf.Machine, class elf.Class) []byte {
	text := r[path]
	if soname, ok := strings.CutPrefix(text, "lib "); ok {
		return sharedObject(class, m, 0, strings.TrimSpace(soname))
	}
	return []byte(text)
}

var roots = map[string]root{
	"empty": {},
	"no soname and others' names": {
		"/etc/ld.so.conf":          "/usr/local/lib\n",
		"/usr/local/lib/libn.so.1": "lib ",
		"/usr/local/lib/plugin.so": "lib plugin.so",
		"/usr/local/lib/ld-x.so.2": "lib ld-x.so.2",
		"/usr/lib/libtext.so":      "/* GNU ld script */",
		"/usr/lib/libempty.so.1":   "",
	},
	"links": {
		"/usr/lib/libone.so.1.2.3":  "lib libone.so.1",
		"/usr/lib/libone.so.1.10.0": "lib libone.so.1",
		"/usr/lib/libone.so.1":      "-> libone.so.1.2.3",
		"/usr/lib/libone.so":        "-> libone.so.1",
		"/usr/lib/libnew.so.5.1":    "lib libnew.so.5",
		"/usr/lib/libstale.so.1":    "-> libstale.so.1.0",
		"/usr/lib/libfile.so.2":     "lib libfile.so.2",
		"/usr/lib/libfile.so.2.1":   "lib libfile.so.2",
		"/usr/lib/libimp.so":        "-> libimpl-9.so",
		"/usr/lib/libimpl-9.so":     "lib libimp.so.3",
		"/usr/lib/liboutside.so.1":  "-> /opt/liboutside.so.1.0",
		"/opt/liboutside.so.1.0":    "lib liboutside.so.1",
		"/usr/lib/libdir.so.1":      "-> /opt",
		"/usr/lib/ld-linux.so.2":    "-> libother.so.1",
		"/usr/lib/libother.so.1":    "lib libother.so.1",
		"/usr/lib/libloader-2.so":   "lib ld-linux.so.2",
	},
	"configuration": {
		"/etc/ld.so.conf":              "include ld.so.conf.d/*.conf\ninclude /etc/more.conf /nowhere/*\nhwcap 1 nosegneg\n  /opt/last = libc6 # why\n",
		"/etc/ld.so.conf.d/b.conf":     "/opt/b\n/opt/b/\n",
		"/etc/ld.so.conf.d/a.conf":     "# first\n/opt/a",
		"/etc/ld.so.conf.d/.hid.conf":  "/opt/hidden",
		"/etc/ld.so.conf.d/c.disabled": "/opt/hidden",
		"/etc/more.conf":               "\t/opt/alias\n/opt/missing\n",
		"/opt/alias":                   "-> a",
		"/opt/a/libx.so.1":             "lib libx.so.1",
		"/opt/b/libx.so.1":             "lib libx.so.1",
		"/opt/b/libx.so.10":            "lib libx.so.10",
		"/opt/b/libx.so.9":             "lib libx.so.9",
		"/opt/last/libz.so.01":         "lib libz.so.01",
		"/opt/last/libzz.so.1":         "lib libzz.so.1",
		"/opt/hidden/libhidden.so.1":   "lib libhidden.so.1",
	},
	"capabilities": {
		"/usr/lib/libc.so.6":                         "lib libc.so.6",
		"/usr/lib/glibc-hwcaps/power9/libc.so.6.1":   "lib libc.so.6",
		"/usr/lib/glibc-hwcaps/alpha/libc.so.6.1":    "lib libc.so.6",
		"/usr/lib/glibc-hwcaps/alpha/libonly.so.1.5": "lib libonly.so.1",
		"/usr/lib/glibc-hwcaps/unused/readme":        "text",
		"/usr/lib/glibc-hwcaps/.hidden/libc.so.6":    "lib libc.so.6",
		"/usr/lib/glibc-hwcaps/with:colon/libc.so.6": "lib libc.so.6",
	},
}

// TestAgainstLdconfig runs the host's ldconfig over the same files.
func TestAgainstLdconfig(t *testing.T) {
	ldconfig, err := os.ReadFile("/usr/sbin/ldconfig")
	if err != nil {
		t.Fatal("this test compares with the host's ldconfig: ", err)
	}
	host, err := parseHeader(bytes.NewReader(ldconfig), int64(len(ldconfig)))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range roots {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ours := tree.New(0)
			paths := slices.Sorted(maps.Keys(r))
			for _, p := range paths {
				place(t, dir, ours, p, r[p], r.content(t, p, host.machine, host.class))
			}
			for _, d := range []string{"/etc", "/usr/lib", "/usr/sbin", "/var/cache"} {
				if err := os.MkdirAll(dir+d, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := ours.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			place(t, dir, ours, "/lib", "-> usr/lib", nil)
			if err := ours.WriteFile(programPath, ldconfig, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("/usr/sbin/ldconfig", "-r", dir).CombinedOutput(); err != nil {
				t.Fatalf("ldconfig: %v\n%s", err, out)
			}
			if err := Update(ours); err != nil {
				t.Fatal(err)
			}
			if err := ours.Remove(programPath); err != nil {
				t.Fatal(err)
			}
			want, got := listDisk(t, dir), list(ours)
			if want != got {
				t.Errorf("ldconfig made\n%s\nwe made\n%s", want, got)
			}
			theirs, err := os.ReadFile(dir + cachePath)
			if err != nil {
				t.Fatal(err)
			}
			cache, err := ours.ReadFile(cachePath)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(theirs, cache) {
				t.Errorf("caches differ: ldconfig's\n%q\nours\n%q", theirs, cache)
			}
		})
	}
}

func place(t *testing.T, dir string, ours *tree.Tree, p, text string, data []byte) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(filepath.Dir(dir+p), 0o755))
	parent := p[:strings.LastIndex(p, "/")]
	check(ours.MkdirAll(parent+"/", 0o755))
	if target, ok := strings.CutPrefix(text, "-> "); ok {
		check(os.Symlink(target, dir+p))
		check(ours.Symlink(target, p))
		return
	}
	check(os.WriteFile(dir+p, data, 0o644))
	check(ours.WriteFile(p, data, 0o644))
}

func list(t *tree.Tree) string {
	var b strings.Builder
	for p, n := range t.All() {
		b.WriteString(p + " " + n.Target + "\n")
	}
	return b.String()
}

func listDisk(t *testing.T, dir string) string {
	onDisk := tree.New(0)
	err := filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		p := strings.TrimPrefix(full, dir)
		switch {
		case err != nil:
			return err
		case p == "" || strings.HasPrefix(p, "/var/cache/"): // the auxiliary cache
			return nil
		case d.IsDir():
			return onDisk.Mkdir(p, 0o755)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(full)
			if err != nil {
				return err
			}
			return onDisk.Symlink(target, p)
		}
		return onDisk.WriteFile(p, nil, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return list(onDisk)
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		ldconfig, built elf.Machine
		class           elf.Class
		eflags          uint32
		flags           int32
		ok              bool
	}{
		{elf.EM_X86_64, elf.EM_X86_64, elf.ELFCLASS64, 0, 0x303, true},
		{elf.EM_X86_64, elf.EM_X86_64, elf.ELFCLASS32, 0, 0x803, true},
		{elf.EM_X86_64, elf.EM_386, elf.ELFCLASS32, 0, 0x003, true},
		{elf.EM_X86_64, elf.EM_AARCH64, elf.ELFCLASS64, 0, 0, false},
		{elf.EM_AARCH64, elf.EM_AARCH64, elf.ELFCLASS64, 0, 0xa03, true},
		{elf.EM_AARCH64, elf.EM_ARM, elf.ELFCLASS32, 0x05000400, 0x903, true},
		{elf.EM_ARM, elf.EM_ARM, elf.ELFCLASS32, 0x05000400, 0x903, true},
		{elf.EM_ARM, elf.EM_ARM, elf.ELFCLASS32, 0x05000200, 0xb03, true},
		{elf.EM_ARM, elf.EM_ARM, elf.ELFCLASS32, 0x05000000, 0x003, true},
		{elf.EM_ARM, elf.EM_ARM, elf.ELFCLASS32, 0x04000400, 0x003, true},
	} {
		data := sharedObject(test.class, test.built, test.eflags, "libx.so.1")
		f, err := parseLibrary(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if f.soname != "libx.so.1" {
			t.Errorf("%v: soname %q", test.built, f.soname)
		}
		if flags, ok := machine(test.ldconfig).flags(f); flags != test.flags || ok != test.ok {
			t.Errorf("%v on %v: flags %#x %v, want %#x %v", test.built, test.ldconfig, flags, ok, test.flags, test.ok)
		}
	}
}

func TestNoLdconfig(t *testing.T) {
	err := Update(tree.New(0))
	if err == nil || !strings.Contains(err.Error(), "cannot tell the version of ldconfig") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseLibrary(f *testing.F) {
	f.Add(sharedObject(elf.ELFCLASS64, elf.EM_AARCH64, 0, "libx.so.1"))
	f.Add(sharedObject(elf.ELFCLASS32, elf.EM_ARM, 0x05000400, ""))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parseLibrary(bytes.NewReader(data), int64(len(data))); err != nil {
			return
		}
	})
}

func TestIsLibraryName(t *testing.T) {
	for name, want := range map[string]bool{
		"libc.so.6":               true,
		"libx-1.2.so":             true,
		"ld-linux-aarch64.so.1":   true,
		"ld.so.1":                 true,
		"ld64.so.2":               true,
		"plugin.so":               false,
		"libx.a":                  false,
		"libx.so.1.dpkg-new":      false, // since glibc 2.38
		"libx.so.1.dpkg-tmp":      false,
		"libx.so.1;5f3a":          false,
		"libx.so.1.#prelink#.abc": false,
	} {
		if got := isLibraryName(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
