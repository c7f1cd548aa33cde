package dpkg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/tree"
)

// pkg describes an archive: its control fields, control files and data. A
// path that ends in "/" is a directory, a text that starts with "-> " a link,
// one that starts with "= " a hard link.
type pkg struct {
	control string
	files   map[string]string
	data    []string // "path text"
}

func (p pkg) archive() Archive {
	c := map[string][]byte{"control": []byte(p.control + "\nDescription: x\n")}
	for name, text := range p.files {
		c[name] = []byte(text)
	}
	return Archive{c, func() []deb.Entry {
		entries := []deb.Entry{{Path: "/", Inode: &tree.Inode{Mode: tree.TypeDir | 0o755}}}
		byPath := map[string]*tree.Inode{}
		for _, d := range p.data {
			name, text, _ := strings.Cut(d, " ")
			n := &tree.Inode{Mode: tree.TypeRegular | 0o644, Content: tree.Bytes([]byte(text))}
			switch {
			case strings.HasSuffix(name, "/"):
				name = strings.TrimSuffix(name, "/")
				n = &tree.Inode{Mode: tree.TypeDir | 0o750}
			case strings.HasPrefix(text, "-> "):
				n = &tree.Inode{Mode: tree.TypeSymlink | 0o777, Target: text[3:]}
			case strings.HasPrefix(text, "= "):
				n = byPath[text[2:]]
			}
			byPath[name] = n
			entries = append(entries, deb.Entry{Path: name, Inode: n})
		}
		return entries
	}}
}

// scripts notes what is run and does what a test wants.
type scripts struct {
	ran []string
	do  func(s Script) error
}

func (r *scripts) Run(ctx context.Context, s Script) error {
	r.ran = append(r.ran, strings.TrimSpace(s.Package.Name+" "+s.Name+" "+strings.Join(s.Args, " ")))
	if r.do != nil {
		return r.do(s)
	}
	return nil
}

func fields(text string) string {
	c := "Package: " + strings.ReplaceAll(text, "; ", "\n")
	if !strings.Contains(c, "Version:") {
		c += "\nVersion: 1"
	}
	return c + "\nArchitecture: all"
}

func install(t *testing.T, tr *tree.Tree, s *scripts, packages ...pkg) (*DB, Result, error) {
	t.Helper()
	db, err := Open(tr, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	var archives []Archive
	for _, p := range packages {
		archives = append(archives, p.archive())
	}
	result, err := db.Install(t.Context(), archives, s, Options{})
	return db, result, err
}

// dump lists a tree outside of dpkg's own folder.
func dump(tr *tree.Tree) []string {
	var out []string
	for p, n := range tr.All() {
		switch {
		case p == "/" || p == "/var" || strings.HasPrefix(p, "/var/"):
		case n.IsDir():
			out = append(out, fmt.Sprintf("%s/ %o", p, n.Perm()))
		case n.IsSymlink():
			out = append(out, p+" -> "+n.Target)
		default:
			text, _ := tr.ReadFile(p)
			out = append(out, fmt.Sprintf("%s %d %s", p, n.Links(), text))
		}
	}
	return out
}

func TestUnpack(t *testing.T) {
	tests := map[string]struct {
		before   func(tr *tree.Tree)
		packages []pkg
		want     []string
		err      string
	}{
		"files, links and hard links": {
			packages: []pkg{{control: fields("a"), data: []string{"/usr/", "/usr/f text", "/usr/h = /usr/f", "/usr/l -> f"}}},
			want:     []string{"/usr/ 750", "/usr/f 2 text", "/usr/h 2 text", "/usr/l -> f"},
		},
		"the first package's directory stays": {
			before:   func(tr *tree.Tree) { tr.Mkdir("/usr", 0o711) },
			packages: []pkg{{control: fields("a"), data: []string{"/usr/", "/usr/f x"}}},
			want:     []string{"/usr/ 711", "/usr/f 1 x"},
		},
		"a directory that is a link is followed": {
			before: func(tr *tree.Tree) {
				tr.MkdirAll("/usr/lib", 0o755)
				tr.Symlink("usr/lib", "/lib")
			},
			packages: []pkg{{control: fields("a"), data: []string{"/lib/", "/lib/f x"}}},
			want:     []string{"/lib -> usr/lib", "/usr/ 755", "/usr/lib/ 755", "/usr/lib/f 1 x"},
		},
		"a link does not replace a directory": {
			before:   func(tr *tree.Tree) { tr.MkdirAll("/d/e", 0o755) },
			packages: []pkg{{control: fields("a"), data: []string{"/d -> x"}}},
			want:     []string{"/d/ 755", "/d/e/ 755"},
		},
		"two owners": {
			packages: []pkg{
				{control: fields("a"), data: []string{"/f 1"}},
				{control: fields("b"), data: []string{"/f 2"}},
			},
			err: "package b: cannot overwrite /f, which is also in package a",
		},
		"a newer owner": {
			packages: []pkg{
				{control: fields("a"), data: []string{"/f 1"}},
				{control: fields("b; Replaces: a (<< 2)"), data: []string{"/f 2"}},
			},
			want: []string{"/f 1 2"},
		},
		"conffiles": {
			before: func(tr *tree.Tree) {
				tr.WriteFile("/mine", []byte("mine"), 0o600)
				tr.WriteFile("/same", []byte("same"), 0o600)
			},
			packages: []pkg{{
				control: fields("a"),
				files:   map[string]string{"conffiles": "/fresh\n/mine\n/same\n"},
				data:    []string{"/fresh fresh", "/mine theirs", "/same same"},
			}},
			want: []string{"/fresh 1 fresh", "/mine 1 mine", "/mine.dpkg-dist 1 theirs", "/same 1 same"},
		},
		"a diversion": {
			before: func(tr *tree.Tree) {
				tr.MkdirAll(Dir, 0o755)
				tr.WriteFile(Dir+"/diversions", []byte("/f\n/f.real\nb\n"), 0o644)
			},
			packages: []pkg{
				{control: fields("a"), data: []string{"/f a"}},
				{control: fields("b"), data: []string{"/f b"}},
			},
			want: []string{"/f 1 b", "/f.real 1 a"},
		},
		"an archive twice": {
			packages: []pkg{{control: fields("a")}, {control: fields("a")}},
			err:      "package a: it is listed twice",
		},
		"a foreign architecture": {
			packages: []pkg{{control: "Package: a\nVersion: 1\nArchitecture: amd64"}},
			err:      "package a: it is for amd64, not arm64",
		},
		"a conffile that is not a path": {
			packages: []pkg{{control: fields("a"), files: map[string]string{"conffiles": "etc\n"}}},
			err:      `package a: conffiles: "etc" is not an entry`,
		},
		"an unknown trigger directive": {
			packages: []pkg{{control: fields("a"), files: map[string]string{"triggers": "listen x\n"}}},
			err:      `package a: triggers: "listen x" is not a directive`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := tree.New(0)
			if test.before != nil {
				test.before(tr)
			}
			_, result, err := install(t, tr, &scripts{}, test.packages...)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || len(result.Failed) > 0 {
				t.Fatal(err, result.Failed)
			}
			if diff := cmp.Diff(test.want, dump(tr)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestConflictNamesBoth(t *testing.T) {
	_, _, err := install(t, tree.New(0), &scripts{},
		pkg{control: fields("a"), data: []string{"/f 1"}}, pkg{control: fields("b"), data: []string{"/f 2"}})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || *conflict != (ConflictError{"/f", "b", "a"}) {
		t.Errorf("error %v", err)
	}
}

func TestOrder(t *testing.T) {
	script := map[string]string{"preinst": "x", "postinst": "x"}
	tests := map[string]struct {
		packages []pkg
		want     []string
	}{
		"dependencies first": {
			packages: []pkg{{control: fields("b; Depends: a"), files: script}, {control: fields("a"), files: script}},
			want:     []string{"a preinst install", "b preinst install", "a postinst configure", "b postinst configure"},
		},
		"pre-dependencies are configured before": {
			packages: []pkg{{control: fields("b; Pre-Depends: a"), files: script}, {control: fields("a; Depends: c"), files: script}, {control: fields("c"), files: script}},
			want: []string{"c preinst install", "a preinst install", "c postinst configure", "a postinst configure",
				"b preinst install", "b postinst configure"},
		},
		"essential packages before all others": {
			packages: []pkg{{control: fields("a"), files: script}, {control: fields("z; Essential: yes"), files: script}},
			want:     []string{"z preinst install", "z postinst configure", "a preinst install", "a postinst configure"},
		},
		"a cycle is broken where no script is": {
			packages: []pkg{{control: fields("a; Depends: b")}, {control: fields("b; Depends: a"), files: script}},
			want:     []string{"b preinst install", "b postinst configure"},
		},
		"a virtual package": {
			packages: []pkg{{control: fields("a; Depends: x (>= 2) | y"), files: script}, {control: fields("b; Provides: x (= 2)"), files: script}},
			want:     []string{"b preinst install", "a preinst install", "b postinst configure", "a postinst configure"},
		},
		"triggers at the end": {
			packages: []pkg{
				{control: fields("a"), files: map[string]string{"postinst": "x", "triggers": "interest /d\ninterest-noawait y\n"}},
				{control: fields("b; Depends: a"), files: map[string]string{"postinst": "x", "triggers": "activate y\n"}},
				{control: fields("c; Pre-Depends: a"), files: map[string]string{"postinst": "x"}, data: []string{"/d/", "/d/f x"}},
			},
			want: []string{"a postinst configure", "c postinst configure", "b postinst configure", "a postinst triggered y /d"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := &scripts{}
			db, result, err := install(t, tree.New(0), s, test.packages...)
			if err != nil || len(result.Failed) > 0 {
				t.Fatal(err, result.Failed)
			}
			if diff := cmp.Diff(test.want, s.ran); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, p := range db.Packages() {
				if p.Status != Installed {
					t.Errorf("%s is %s", p.Name, p.Status)
				}
			}
		})
	}
}

// TestFailure: a failed script leaves no trace, and nothing that depends on
// its package is configured.
func TestFailure(t *testing.T) {
	tr := tree.New(0)
	s := &scripts{}
	s.do = func(s Script) error {
		tr.WriteFile("/trace-"+s.Package.Name+"-"+s.Name, nil, 0o644)
		if s.Package.Name == "bad" && s.Name == "postinst" || s.Package.Name == "worse" {
			return errors.New("no such luck")
		}
		return nil
	}
	script := map[string]string{"preinst": "x", "postinst": "x", "conffiles": "/conf\n"}
	db, result, err := install(t, tr, s,
		pkg{control: fields("bad"), files: script, data: []string{"/conf x"}},
		pkg{control: fields("needs-bad; Depends: bad"), files: map[string]string{"postinst": "x"}},
		pkg{control: fields("worse"), files: map[string]string{"preinst": "x"}, data: []string{"/worse x"}},
		pkg{control: fields("good"), files: map[string]string{"postinst": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/conf.dpkg-new 1 x", "/trace-bad-preinst 1 ", "/trace-good-postinst 1 "}
	if diff := cmp.Diff(want, dump(tr)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var failed []string
	for name, err := range result.Failed {
		failed = append(failed, name+": "+err.Error())
	}
	slices.Sort(failed)
	wantFailed := []string{
		"bad: no such luck",
		"needs-bad: it depends on what is not configured: bad",
		"worse: no such luck",
	}
	if diff := cmp.Diff(wantFailed, failed); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, status := range map[string]Status{"bad": Unpacked, "needs-bad": Unpacked, "good": Installed} {
		if got := db.Package(name).Status; got != status {
			t.Errorf("%s is %s, want %s", name, got, status)
		}
	}
	if db.Package("worse") != nil {
		t.Error("worse is in the database")
	}
	// Another dpkg goes on from there.
	again, err := Open(tr, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Package("bad").Conffiles, []Conffile{{Path: "/conf", MD5: "newconffile"}}) {
		t.Errorf("conffiles of bad: %v", again.Package("bad").Conffiles)
	}
}

func TestStatusFile(t *testing.T) {
	tr := tree.New(0)
	_, _, err := install(t, tr, &scripts{}, pkg{
		control: "Package: a\nHomepage: https://a\nVersion: 1\nArchitecture: arm64\nMulti-Arch: same\nDepends: b(>=1),c|d\nMaintainer: m",
		files:   map[string]string{"conffiles": "/c\n", "postinst": "x", "md5sums": ""},
		data:    []string{"/c x"},
	}, pkg{control: fields("b")}, pkg{control: fields("d")})
	if err != nil {
		t.Fatal(err)
	}
	status, err := tr.ReadFile(Dir + "/status")
	if err != nil {
		t.Fatal(err)
	}
	got, _, _ := strings.Cut(string(status), "\n\n")
	want := `Package: a
Status: install ok installed
Maintainer: m
Architecture: arm64
Multi-Arch: same
Version: 1
Depends: b (>= 1), c | d
Conffiles:
 /c 9dd4e461268c8034f5c8564e155c67a6
Description: x
Homepage: https://a`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	list, err := tr.ReadFile(Dir + "/info/a:arm64.list")
	if err != nil || string(list) != "/.\n/c\n" {
		t.Errorf("list %q, %v", list, err)
	}
	db, err := Open(tr, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(status), string(db.Status())); diff != "" {
		t.Errorf("read and written again (-want +got):\n%s", diff)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nDepends: b (>= 1), c | d\n")
	f.Fuzz(func(t *testing.T, text string) {
		tr := tree.New(0)
		if err := errors.Join(tr.MkdirAll(Dir, 0o755), tr.WriteFile(Dir+"/status", []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		db, err := Open(tr, "arm64")
		if err != nil {
			return
		}
		if err := db.Save(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(tr, "arm64"); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
