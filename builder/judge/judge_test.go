package judge

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/tree"
)

// sample is a small system with one of everything.
func sample(t *testing.T) *tree.Tree {
	t.Helper()
	s := tree.New(0)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"/etc", "/etc/systemd/system/multi-user.target.wants", "/var/lib/dpkg", "/dev"} {
		must(s.MkdirAll(p, 0o755))
	}
	must(s.WriteFile("/etc/passwd", []byte("root:x:0:0\ndaemon:x:1:1\n"), 0o644))
	must(s.WriteFile("/etc/shadow", []byte("root:*\n"), 0o640))
	must(s.Chown("/etc/shadow", 0, 42))
	must(s.WriteFile("/etc/binary", []byte{0, 1, 2, 3}, 0o644))
	must(s.Link("/etc/binary", "/etc/same"))
	must(s.Symlink("/usr/lib/systemd/system/ssh.service", "/etc/systemd/system/multi-user.target.wants/ssh.service"))
	must(s.Mknod("/dev/null", tree.TypeChar|0o666, 1, 3))
	must(s.SetXattr("/etc/binary", "security.capability", "\x01"))
	must(s.WriteFile("/var/lib/dpkg/status", []byte("Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nStatus: install ok installed\n"), 0o644))
	return s
}

func TestCompare(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*tree.Tree) error
		want   []string
	}{
		"nothing": {func(s *tree.Tree) error { return nil }, nil},
		"mode": {func(s *tree.Tree) error { return s.Chmod("/etc/shadow", 0o644) },
			[]string{"/etc/shadow mode: 0644, really 0640"}},
		"owner": {func(s *tree.Tree) error { return s.Chown("/etc/shadow", 0, 0) },
			[]string{"/etc/shadow owner: 0:0, really 0:42"}},
		"unit link gone": {func(s *tree.Tree) error { return s.Remove("/etc/systemd/system/multi-user.target.wants/ssh.service") },
			[]string{"/etc/systemd/system/multi-user.target.wants/ssh.service missing: link to /usr/lib/systemd/system/ssh.service"}},
		"more": {func(s *tree.Tree) error { return s.WriteFile("/etc/new", []byte("x"), 0o600) },
			[]string{"/etc/new extra: file 0600 0:0, 1 bytes"}},
		"type": {func(s *tree.Tree) error {
			if err := s.Remove("/etc/passwd"); err != nil {
				return err
			}
			return s.Mkdir("/etc/passwd", 0o755)
		}, []string{"/etc/passwd type: directory 0755 0:0, really file 0644 0:0, 24 bytes"}},
		"target": {func(s *tree.Tree) error {
			p := "/etc/systemd/system/multi-user.target.wants/ssh.service"
			if err := s.Remove(p); err != nil {
				return err
			}
			return s.Symlink("/lib/systemd/system/ssh.service", p)
		}, []string{"/etc/systemd/system/multi-user.target.wants/ssh.service target: /lib/systemd/system/ssh.service, really /usr/lib/systemd/system/ssh.service"}},
		"text": {func(s *tree.Tree) error { return s.WriteFile("/etc/passwd", []byte("root:x:0:0\nother:x:1:1\n"), 0) },
			[]string{"/etc/passwd content: @@ -1,2 +1,2 @@\n    -daemon:x:1:1\n    +other:x:1:1"}},
		"bytes": {func(s *tree.Tree) error { return s.WriteFile("/etc/binary", []byte{0, 1, 9, 3, 4}, 0) },
			[]string{"/etc/binary content: 5 bytes, really 4, from byte 2 on", "/etc/same content: 5 bytes, really 4, from byte 2 on"}},
		"hard link": {func(s *tree.Tree) error {
			if err := s.Remove("/etc/same"); err != nil {
				return err
			}
			if err := s.WriteFile("/etc/same", []byte{0, 1, 2, 3}, 0o644); err != nil {
				return err
			}
			return s.SetXattr("/etc/same", "security.capability", "\x01")
		}, []string{"/etc/same links: a file of its own, really a hard link to /etc/binary"}},
		"xattr": {func(s *tree.Tree) error { return s.SetXattr("/etc/binary", "security.capability", "") },
			[]string{`/etc/binary xattrs: map[], really map["security.capability":"\x01"]`, `/etc/same xattrs: map[], really map["security.capability":"\x01"]`}},
		"status": {func(s *tree.Tree) error {
			return s.WriteFile("/var/lib/dpkg/status", []byte("Package: a\nStatus: install ok unpacked\nVersion: 1\nConfig-Version: 0\n\nPackage: c\nStatus: x\n"), 0)
		}, []string{
			`/var/lib/dpkg/status#a content: Status: "install ok unpacked", really "install ok installed"; Config-Version: "0", really none`,
			"/var/lib/dpkg/status#b missing: install ok installed",
			"/var/lib/dpkg/status#c extra: x",
		}},
		"status in another order": {func(s *tree.Tree) error {
			return s.WriteFile("/var/lib/dpkg/status", []byte("Package: b\nStatus: install ok installed\n\nPackage: a\nStatus: install ok installed\nVersion: 1\n"), 0)
		}, []string{"/var/lib/dpkg/status order: the same parts in another order or layout, @@ -1,6 +1,6 @@\n" +
			"    +Package: b\n    +Status: install ok installed\n    +\n" +
			"    -\n    -Package: b\n    -Status: install ok installed"}},
	} {
		t.Run(name, func(t *testing.T) {
			ours := sample(t)
			if err := test.change(ours); err != nil {
				t.Fatal(err)
			}
			differences, entries, err := NewReference(sample(t)).Compare(ours)
			if err != nil {
				t.Fatal(err)
			}
			if entries < 14 {
				t.Errorf("%d entries compared", entries)
			}
			var got []string
			for _, d := range differences {
				got = append(got, d.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	rules, err := ParseRules("a.txt", `
# what the first boot makes
/etc/machine-id content,missing   made anew
/var/log/** extra  a log
/etc/*.conf content  a time stamp
/etc/ssl/*.0->snakeoil missing  of the host's name
`)
	if err != nil {
		t.Fatal(err)
	}
	v := Judge([]Difference{
		{"/etc/machine-id", Content, "a"},
		{"/etc/machine-id", Mode, "b"},
		{"/etc/x/y.conf", Content, "c"},
		{"/var/log", Extra, "d"},
		{"/var/log/apt/term.log", Extra, "e"},
		{"/etc/ssl/a.0", Missing, "link to snakeoil"},
		{"/etc/ssl/b.0", Missing, "link to other"},
	}, 9, rules)
	const want = `9 entries compared, 3 differences accepted, 4 not accepted, 2 accepted ones gone
/etc/ssl/b.0 missing: link to other
/var/log extra: d
/etc/machine-id mode: b
/etc/x/y.conf content: c
a.txt:3: /etc/machine-id missing: no such difference any more
a.txt:5: /etc/*.conf content: no such difference any more
`
	if diff := cmp.Diff(want, v.String()); diff != "" {
		t.Error(diff)
	}
	if v.OK() {
		t.Error("accepted")
	}
	if v := Judge([]Difference{{"/var/log/x", Extra, ""}}, 1, rules[1:2]); !v.OK() {
		t.Error(v)
	}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, path string
		want          bool
	}{
		{"/etc/a", "/etc/a", true},
		{"/etc/a", "/etc/a/b", false},
		{"/etc/*", "/etc/a", true},
		{"/etc/*", "/etc/a/b", false},
		{"/etc/*/b", "/etc/a/b", true},
		{"/var/log/**", "/var/log", false},
		{"/var/log/**", "/var/log/a", true},
		{"/var/log/**", "/var/log/a/b", true},
		{"/usr/**/x", "/usr/x", true},
		{"/usr/**/x", "/usr/a/b/x", true},
		{"/usr/**/x", "/usr/a/b/xx", false},
		{"/usr/**/c/*.pyc", "/usr/lib/a/c/b.pyc", true},
	} {
		if got := matches(test.pattern, test.path); got != test.want {
			t.Errorf("%s %s: %v", test.pattern, test.path, got)
		}
	}
}

func TestParseRulesErrors(t *testing.T) {
	for text, want := range map[string]string{
		"/etc/x content":            "a.txt:1: cannot read it",
		"\n/etc/[ content reason":   "a.txt:2: cannot use",
		"etc/x content reason":      "a.txt:1: cannot use",
		"/etc/x content,sum reason": `a.txt:1: cannot accept the unknown kind "sum"`,
	} {
		if _, err := ParseRules("a.txt", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

func TestReadTar(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./a", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8, Size: 5,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		{Name: "./b", Typeflag: tar.TypeLink, Linkname: "./a"},
		{Name: "./c", Typeflag: tar.TypeSymlink, Linkname: "a"},
		{Name: "./d", Typeflag: tar.TypeChar, Mode: 0o600, Devmajor: 5, Devminor: 1},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTar(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for p, n := range got.All() {
		lines = append(lines, p+" "+describe(n))
	}
	want := []string{
		"/ directory 0755 0:0",
		"/a file 4755 7:8, 5 bytes",
		"/b file 4755 7:8, 5 bytes",
		"/c link to a",
		"/d character device 0600 0:0",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	data, err := got.ReadFile("/b")
	n, _ := got.Lstat("/a")
	if err != nil || string(data) != "hello" || n.Xattrs["user.x"] != "y" || n.Links() != 2 {
		t.Errorf("%q %v, xattrs %v, %d links", data, err, n.Xattrs, n.Links())
	}
}

func FuzzReadTar(f *testing.F) {
	f.Add([]byte(strings.Repeat("\x00", 1024)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := ReadTar(bytes.NewReader(data), int64(len(data))); err == nil {
			for _, n := range got.All() {
				if _, err := sameContent(n, n); err != nil && n.Size() <= int64(len(data)) {
					return // cut off
				}
			}
		}
	})
}
