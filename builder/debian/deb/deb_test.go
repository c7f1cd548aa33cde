package deb_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/tree"
)

func clock() time.Time { return time.Unix(1_760_000_000, 0) }

func newStore(t testing.TB) *deb.Store {
	s := deb.NewStore(filepath.Join(t.TempDir(), "decoded"), clock)
	t.Cleanup(func() { s.Close() })
	return s
}

// file writes a .deb.
func file(t testing.TB, b []byte) deb.File {
	path := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return deb.File{Name: "x", Path: path, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))}
}

func content(n *tree.Inode) string {
	if n.Content == nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(n.Content, 0, n.Content.Size()))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func dump(p *deb.Package) string {
	var b strings.Builder
	first := map[*tree.Inode]string{}
	for _, e := range p.Entries() {
		n := e.Inode
		fmt.Fprintf(&b, "%s %06o %d:%d %d", e.Path, n.Mode, n.UID, n.GID, n.ModTime)
		switch {
		case first[n] != "":
			fmt.Fprintf(&b, " is %s", first[n])
		case n.IsSymlink():
			fmt.Fprintf(&b, " -> %s", n.Target)
		case n.IsRegular():
			text := content(n)
			if len(text) > 40 {
				text = fmt.Sprintf("%s... %d bytes", text[:10], len(text))
			}
			fmt.Fprintf(&b, " %q", text)
		case n.Major != 0:
			fmt.Fprintf(&b, " %d,%d", n.Major, n.Minor)
		}
		b.WriteByte('\n')
		first[n] = e.Path
	}
	return b.String()
}

var long = "/usr/share/" + strings.Repeat("long/", 30) + strings.Repeat("name", 40)

var sample = archivetest.Deb{
	Package: "x",
	Control: map[string]string{"postinst": "#!/bin/sh\n", "conffiles": "/etc/x.conf\n"},
	Data: []archivetest.Member{
		archivetest.File("/etc/x.conf", 0o600, "a=1\n"),
		{Name: "/usr/bin/su", Type: tar.TypeReg, Mode: 0o4755, Content: "su"},
		{Name: "/usr/bin/wall", Type: tar.TypeReg, Mode: 0o2755, GID: 5, Content: strings.Repeat("wall", 100_000)},
		archivetest.File("/usr/bin/empty", 0o644, ""),
		archivetest.Hardlink("/usr/bin/su2", "/usr/bin/su"),
		archivetest.Hardlink("/usr/bin/su3", "/usr/bin/su2"),
		archivetest.Symlink("/usr/bin/sh", "../lib/dash"),
		archivetest.Symlink("/usr/bin/abs", "/etc/alternatives/abs"),
		{Name: "/dev/null", Type: tar.TypeChar, Mode: 0o666, Major: 1, Minor: 3, ModTime: 5},
		{Name: "/run/pipe", Type: tar.TypeFifo, Mode: 0o600},
		{Name: "/tmp", Type: tar.TypeDir, Mode: 0o1777},
	},
}

const sampleDump = `/ 040755 0:0 1750000000
/etc 040755 0:0 1750000000
/etc/x.conf 100600 0:0 1750000000 "a=1\n"
/usr 040755 0:0 1750000000
/usr/bin 040755 0:0 1750000000
/usr/bin/su 104755 0:0 1750000000 "su"
/usr/bin/wall 102755 0:5 1750000000 "wallwallwa... 400000 bytes"
/usr/bin/empty 100644 0:0 1750000000 ""
/usr/bin/su2 104755 0:0 1750000000 is /usr/bin/su
/usr/bin/su3 104755 0:0 1750000000 is /usr/bin/su2
/usr/bin/sh 120777 0:0 1750000000 -> ../lib/dash
/usr/bin/abs 120777 0:0 1750000000 -> /etc/alternatives/abs
/dev 040755 0:0 1750000000
/dev/null 020666 0:0 5 1,3
/run 040755 0:0 1750000000
/run/pipe 010600 0:0 1750000000
/tmp 041777 0:0 1750000000
`

func TestOpen(t *testing.T) {
	for _, compression := range []string{"xz", "gz", "zst", "none", "blocks"} {
		t.Run(compression, func(t *testing.T) {
			d := sample
			d.Compression = compression
			if compression == "blocks" {
				d.Compression, d.BlockSize = "xz", 50_001
			}
			f := file(t, d.Build(t))
			s := newStore(t)
			for _, state := range []string{"cold", "warm"} {
				p, err := s.Open(context.Background(), f)
				if err != nil {
					t.Fatal(err)
				}
				if got := dump(p); got != sampleDump {
					t.Errorf("%s: got\n%swant\n%s", state, got, sampleDump)
				}
				if got := string(p.Control["conffiles"]); got != "/etc/x.conf\n" {
					t.Errorf("%s: conffiles are %q", state, got)
				}
				if got := string(p.Control["control"]); got != d.Stanza() {
					t.Errorf("%s: control is %q", state, got)
				}
			}
		})
	}
}

func TestLongNames(t *testing.T) {
	d := archivetest.Deb{Package: "x", Data: []archivetest.Member{
		archivetest.File(long, 0o644, "long"), archivetest.Symlink("/l", long), archivetest.Hardlink("/h", long),
	}}
	p, err := newStore(t).Open(context.Background(), file(t, d.Build(t)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*tree.Inode{}
	for _, e := range p.Entries() {
		got[e.Path] = e.Inode
	}
	if n := got[long]; n == nil || content(n) != "long" || got["/h"] != n || got["/l"].Target != long {
		t.Errorf("got %v", got)
	}
}

// TestDpkgDeb has dpkg-deb make the package and list what we list.
func TestDpkgDeb(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"DEBIAN/control": sample.Stanza(), "usr/bin/x": "x", "etc/x": strings.Repeat("y", 5000)} {
		path := filepath.Join(dir, "root", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("x", filepath.Join(dir, "root/usr/bin/y")); err != nil {
		t.Fatal(err)
	}
	for _, compression := range []string{"xz", "gzip", "zstd", "none"} {
		path := filepath.Join(dir, compression+".deb")
		if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Z"+compression, "--uniform-compression", "-b", filepath.Join(dir, "root"), path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := newStore(t).Open(context.Background(), file(t, b))
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, e := range p.Entries() {
			fmt.Fprintf(&got, "%s %d\n", e.Path, e.Inode.Size())
		}
		if want := "/ 0\n/etc 0\n/etc/x 5000\n/usr 0\n/usr/bin 0\n/usr/bin/x 1\n/usr/bin/y 1\n"; got.String() != want {
			t.Errorf("%s: got\n%s", compression, got.String())
		}
	}
	// And dpkg-deb reads what our tests make.
	f := file(t, sample.Build(t))
	out, err := exec.Command("dpkg-deb", "-c", f.Path).CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != strings.Count(sampleDump, "\n") {
		t.Errorf("dpkg-deb -c: %v\n%s", err, out)
	}
}

func TestHostile(t *testing.T) {
	raw := func(m archivetest.Member) archivetest.Deb {
		m.Raw = true
		return archivetest.Deb{Package: "x", Compression: "none", Data: []archivetest.Member{m}}
	}
	members := func(m ...archivetest.Member) archivetest.Deb {
		return archivetest.Deb{Package: "x", Compression: "none", Data: m}
	}
	good := archivetest.Deb{Package: "x"}.Build(t)
	tarball := func(edit func([]byte)) []byte {
		b := archivetest.Tar(t, []archivetest.Member{archivetest.File("/a", 0o644, "a"), archivetest.File("/b", 0o644, "b")})
		edit(b)
		sum := 8 * int(' ')
		for i, c := range b[:512] {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		return archivetest.Ar(archivetest.Part{Name: "debian-binary", Data: []byte("2.0\n")},
			archivetest.Part{Name: "control.tar", Data: archivetest.Tar(t, []archivetest.Member{archivetest.File("/control", 0o644, "Package: x\n")})},
			archivetest.Part{Name: "data.tar", Data: b})
	}
	parts := func(list ...string) []byte {
		var p []archivetest.Part
		for i := 0; i < len(list); i += 2 {
			p = append(p, archivetest.Part{Name: list[i], Data: []byte(list[i+1])})
		}
		return archivetest.Ar(p...)
	}
	tests := []struct {
		name string
		deb  []byte
		want string
	}{
		{"dotdot", raw(archivetest.File("./../etc/passwd", 0o644, "")).Build(t),
			`package x: cannot read data.tar: member "./../etc/passwd": path with ".." could lead out of the tree`},
		{"dotdot inside", raw(archivetest.File("usr/../../etc/passwd", 0o644, "")).Build(t),
			`package x: cannot read data.tar: member "usr/../../etc/passwd": path with ".." could lead out of the tree`},
		{"line end", raw(archivetest.File("a\nb", 0o644, "")).Build(t),
			`package x: cannot read data.tar: member "a\nb": line end or NUL in the path`},
		{"long name", raw(archivetest.File(strings.Repeat("a", 256), 0o644, "")).Build(t), `name of 256 bytes is too long`},
		{"long path", raw(archivetest.File(strings.Repeat("a/", 2048)+"a", 0o644, "")).Build(t), `path of 4097 bytes is too long`},
		{"symlink out", members(archivetest.Symlink("/a/b", "../../etc")).Build(t),
			`package x: cannot read data.tar: member "./a/b": symbolic link to "../../etc" leads out of the tree`},
		{"symlink out, absolute", members(archivetest.Symlink("/a", "/b/../../etc")).Build(t),
			`symbolic link to "/b/../../etc" leads out of the tree`},
		{"symlink to nothing", members(archivetest.Symlink("/a", "")).Build(t), `symbolic link to "" is not allowed`},
		{"hard link out", raw(archivetest.Member{Name: "a", Type: tar.TypeLink, Target: "../../etc/shadow"}).Build(t),
			`hard link to "../../etc/shadow": path with ".." could lead out of the tree`},
		{"hard link to nothing", members(archivetest.Hardlink("/a", "/etc/shadow")).Build(t),
			`member "./a": hard link to "./etc/shadow", which is no earlier file`},
		{"hard link to a directory", members(archivetest.Dir("/d", 0o755), archivetest.Hardlink("/a", "/d")).Build(t),
			`hard link to "./d", which is no earlier file`},
		{"through a symlink", members(archivetest.Symlink("/a", "/etc"), archivetest.File("/a/passwd", 0o644, "")).Build(t),
			`member "./a/passwd": lies below /a, which is no directory`},
		{"twice", members(archivetest.File("/a", 0o644, "1"), archivetest.File("/a", 0o644, "2")).Build(t), `member "./a": occurs twice`},
		{"root is a link", raw(archivetest.Symlink("/", "/etc")).Build(t), `member "/": the root must be a directory`},
		{"odd type", raw(archivetest.Member{Name: "a", Type: tar.TypeCont}).Build(t), `member "a": type '7' is not allowed in a .deb`},
		{"device number", raw(archivetest.Member{Name: "a", Type: tar.TypeBlock, Major: 1 << 13}).Build(t), `device number 8192:0 is out of range`},
		{"owner", raw(archivetest.Member{Name: "a", Type: tar.TypeReg, UID: 1<<32 - 1}).Build(t), `owner 4294967295:0 is out of range`},
		{"time", raw(archivetest.Member{Name: "a", Type: tar.TypeReg, ModTime: -1}).Build(t), `modification time -1 is out of range`},
		{"absurd size", tarball(func(b []byte) { copy(b[124:], "77777777777\x00") }),
			`package x: cannot read data.tar: member "./a": size 8589934591 is more than the archive holds`},
		{"negative size", tarball(func(b []byte) { copy(b[124:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }),
			`package x: cannot read data.tar: archive/tar: invalid tar header`},
		{"no ar", []byte("PK\x03\x04"), `package x: not a .deb: no ar archive`},
		{"empty", nil, `package x: not a .deb: no ar archive`},
		{"only magic", good[:8], `package x: no member debian-binary`},
		{"truncated header", good[:100], `package x: truncated: 28 bytes where a member's header should be`},
		{"truncated member", good[:len(good)-10], `package x: truncated: member "data.tar.xz" has`},
		{"no data", parts("debian-binary", "2.0\n", "control.tar.gz", ""), `package x: no member data.tar`},
		{"no control", parts("debian-binary", "2.0\n", "data.tar.gz", ""), `package x: member "data.tar.gz" where control.tar should be`},
		{"version 3", parts("debian-binary", "3.0\n"), `package x: format version "3.0" is not 2.x`},
		{"bzip2", parts("debian-binary", "2.0\n", "control.tar.bz2", "", "data.tar", ""),
			`package x: cannot read control.tar.bz2: compression ".bz2" is not supported`},
		{"no xz", parts("debian-binary", "2.0\n", "control.tar.xz", "not xz at all, but long enough for it", "data.tar", ""),
			`package x: cannot read control.tar.xz: cannot decode xz: it does not start as .xz files do`},
		{"no control file", parts("debian-binary", "2.0\n", "control.tar", "", "data.tar", ""),
			`package x: cannot read control.tar: no file control`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := deb.NewStore(dir, clock)
			defer s.Close()
			_, err := s.Open(context.Background(), file(t, test.deb))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "package x: ") {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left in the store: %v", left)
			}
		})
	}
}

func TestWrongFile(t *testing.T) {
	good := file(t, sample.Build(t))
	for name, edit := range map[string]func(*deb.File){
		"has 5":                func(f *deb.File) { f.Size++ },
		"SHA-256":              func(f *deb.File) { f.SHA256 = strings.Repeat("0", 64) },
		"no such file":         func(f *deb.File) { f.Path += "x" },
		`"../x" is no SHA-256`: func(f *deb.File) { f.SHA256 = "../x" },
	} {
		f := good
		edit(&f)
		_, err := newStore(t).Open(context.Background(), f)
		if err == nil || !strings.HasPrefix(err.Error(), "package x: ") || !strings.Contains(err.Error(), strings.TrimPrefix(name, "has 5")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRepair damages a stored package in every part.
func TestRepair(t *testing.T) {
	f := file(t, sample.Build(t))
	dir := t.TempDir()
	s := deb.NewStore(dir, clock)
	defer s.Close()
	if _, err := s.Open(context.Background(), f); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, f.SHA256+".pack")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func() []byte{
		"empty":     func() []byte { return nil },
		"truncated": func() []byte { return good[:len(good)-1] },
		"longer":    func() []byte { return append(bytes.Clone(good), 0) },
	}
	for offset := 0; offset < len(good); offset += 1 + len(good)/50 {
		damage[fmt.Sprintf("byte %d", offset)] = func() []byte {
			b := bytes.Clone(good)
			b[offset] ^= 1
			return b
		}
	}
	for name, make := range damage {
		if err := os.WriteFile(path, make(), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := s.Open(context.Background(), f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := dump(p); got != sampleDump {
			t.Errorf("%s: got\n%s", name, got)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, good) {
			t.Errorf("%s: not repaired", name)
		}
	}
	// Without the .deb it can only be reported.
	good[600] ^= 1
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := s.Open(context.Background(), f)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(f.Path)
	for _, e := range p.Entries() {
		if got := content(e.Inode); e.Path == "/usr/bin/su" && !strings.HasPrefix(got, "error: package x: open ") {
			t.Errorf("got %q", got)
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	dir := t.TempDir()
	s := deb.NewStore(dir, clock)
	if _, err := s.Open(ctx, file(t, sample.Build(t))); err == nil {
		t.Error("no error")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left in the store: %v", left)
	}
}

// TestMany reads more packages at once than the store keeps open.
func TestMany(t *testing.T) {
	var list []deb.File
	for i := range 150 {
		d := archivetest.Deb{Package: "x", Version: fmt.Sprint(i), Compression: "gz",
			Data: []archivetest.Member{archivetest.File("/f", 0o644, fmt.Sprint("content ", i))}}
		list = append(list, file(t, d.Build(t)))
	}
	s := newStore(t)
	count := 0
	packages, err := s.OpenAll(context.Background(), list, func(deb.File) { count++ })
	if err != nil {
		t.Fatal(err)
	}
	if count != len(list) {
		t.Errorf("told of %d packages", count)
	}
	done := make(chan string)
	for range 4 {
		go func() {
			for i, p := range packages {
				for _, e := range p.Entries() {
					if got := content(e.Inode); e.Path == "/f" && got != fmt.Sprint("content ", i) {
						done <- fmt.Sprintf("package %d holds %q", i, got)
						return
					}
				}
			}
			done <- ""
		}()
	}
	for range 4 {
		if msg := <-done; msg != "" {
			t.Error(msg)
		}
	}
}

// TestTogether has several processes' stores over one folder decode the same
// packages.
func TestTogether(t *testing.T) {
	dir := t.TempDir()
	var files []deb.File
	for i := range 10 {
		d := sample
		d.Version = "1." + string(rune('a'+i))
		files = append(files, file(t, d.Build(t)))
	}
	done := make(chan error)
	for range 4 {
		go func() {
			s := deb.NewStore(dir, clock)
			defer s.Close()
			packages, err := s.OpenAll(context.Background(), files, nil)
			for _, p := range packages {
				if err == nil && dump(p) != sampleDump {
					t.Errorf("got\n%s", dump(p))
				}
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != len(files) {
		t.Errorf("in the store: %v", left)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(archivetest.Deb{Package: "x", Compression: "none", Data: sample.Data[:1]}.Build(f))
	small := archivetest.Deb{Package: "x", Data: []archivetest.Member{archivetest.File("/a", 0o644, strings.Repeat("a", 4000)), archivetest.Symlink("/b", "a")}}
	f.Add(small.Build(f))
	small.BlockSize = 1000
	f.Add(small.Build(f))
	small.Compression = "zst"
	f.Add(small.Build(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := newStore(t).Open(context.Background(), file(t, b))
		if err != nil {
			return
		}
		into := tree.New(0)
		for _, e := range p.Entries() {
			if !strings.HasPrefix(e.Path, "/") || strings.Contains(e.Path, "/../") {
				t.Errorf("path %q", e.Path)
			}
			content(e.Inode)
			into.Put(e.Path, e.Inode)
		}
	})
}
