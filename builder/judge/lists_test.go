//go:build judge

package judge

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/maintscript"
	"github.com/picube/picube-build/builder/tree"
)

// lists are the package lists in testdata, and which of their packages the
// engine may leave to the first boot.
var lists = []struct {
	name string
	left []string
}{
	{"minimal", nil},
	{"picube", nil},
	{"broad", []string{
		"fontconfig", "install-info", "libglib2.0-0t64", "man-db", // their caches
		"postgresql-17", "postgresql", // initdb runs the server
		"ssl-cert", "console-setup", "emacs-nox", // a key; compiled keymaps; compiled Lisp
	}},
}

// TestLists builds each list with dpkg and with our engine and compares.
func TestLists(t *testing.T) {
	debs := *debDir
	if debs == "" {
		debs = cacheDir(t, "debs")
	}
	for _, list := range lists {
		if *onlyList != "" && *onlyList != list.name {
			continue
		}
		t.Run(list.name, func(t *testing.T) {
			real := openTruth(t, makeTruth(t, list.name, debs))
			archives := openPackages(t, real, debs)
			ours, result := configure(t, archives, maintscript.Options{
				Debconf: answers(readList(t, list.name+".debconf")),
				Locales: func(context.Context) (*tree.Tree, error) { return openLocales(t, real, debs), nil },
			})
			var b strings.Builder
			for _, p := range result.Unfinished() {
				fmt.Fprintf(&b, "package %s is left %s: %v\n", p.Name, p.Status, p.Why)
				if !slices.Contains(list.left, p.Name) {
					t.Errorf("package %s is left %s: %v", p.Name, p.Status, p.Why)
				}
			}
			for _, s := range result.Skipped {
				fmt.Fprintf(&b, "skipped %s: %s\n", s.Program, s.Why)
			}
			var rules []Rule
			for _, file := range []string{"common.txt", list.name + ".txt"} {
				r, err := ParseRules(file, readList(t, "../accepted/"+file))
				if err != nil {
					t.Fatal(err)
				}
				rules = append(rules, r...)
			}
			v := compare(t, real, ours, rules)
			t.Logf("%d packages, %d entries, %d accepted differences", len(archives), v.Entries, len(v.Accepted))
			if !v.OK() {
				t.Error(v)
			}
			if *report != "" {
				file := filepath.Join(*report, "judge-"+list.name+".txt")
				if err := os.WriteFile(file, []byte(b.String()+v.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if list.name == "minimal" && v.OK() { // one list tells; each comparison reads it all
				testMutations(t, real, ours, rules)
				testDroppedCommands(t, real, archives, rules)
			}
		})
	}
}

func configure(t *testing.T, archives []dpkg.Archive, o maintscript.Options) (*tree.Tree, maintscript.Report) {
	t.Helper()
	ours := tree.New(epoch)
	o.Arch = "amd64"
	result, err := maintscript.Configure(context.Background(), ours, archives, o)
	if err != nil {
		t.Fatal(err)
	}
	return ours, result
}

// answers makes Configure's option of what debconf-set-selections(1) takes.
func answers(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if fields := strings.SplitN(strings.TrimSpace(line), " ", 4); len(fields) == 4 {
			out[fields[1]] = fields[3]
		}
	}
	return out
}

func compare(t *testing.T, real, ours *tree.Tree, rules []Rule) Verdict {
	t.Helper()
	differences, entries, err := Compare(real, ours)
	if err != nil {
		t.Fatal(err)
	}
	return Judge(differences, entries, rules)
}

// testMutations shows that the judge fails over one wrong mode, owner or unit
// link, and that it names the path.
func testMutations(t *testing.T, real, ours *tree.Tree, rules []Rule) {
	unit := ""
	for p, n := range ours.Below("/etc/systemd/system") {
		if n.IsSymlink() && strings.HasSuffix(path.Dir(p), ".wants") {
			unit = p
			break
		}
	}
	for _, m := range []struct {
		path   string
		kind   Kind
		change func(p string) error
	}{
		{"/usr/bin/passwd", Mode, func(p string) error { return ours.Chmod(p, 0o755) }},
		{"/etc/shadow", Owner, func(p string) error { return ours.Chown(p, 0, 0) }},
		{unit, Missing, ours.Remove},
		{"/etc/passwd", Content, func(p string) error { return ours.WriteFile(p, []byte("root:x:0:0::/:/bin/sh\n"), 0o644) }},
	} {
		mark := ours.Mark()
		if err := m.change(m.path); err != nil {
			t.Fatal(err)
		}
		v := compare(t, real, ours, rules)
		ours.Rollback(mark)
		if len(v.Rejected) != 1 || v.Rejected[0].Path != m.path || v.Rejected[0].Kind != m.kind {
			t.Errorf("changed the %s of %s, the judge said %v", m.kind, m.path, v)
		}
	}
}

// testDroppedCommands shows that the judge misses the work of each command
// that has a stand-in: the scripts call it by a name that has none.
func testDroppedCommands(t *testing.T, real *tree.Tree, archives []dpkg.Archive, rules []Rule) {
	for command, miss := range map[string]string{
		"ldconfig":            "/etc/ld.so.cache",
		"systemd-hwdb":        "/usr/lib/udev/hwdb.bin",
		"journalctl":          "/var/lib/systemd/catalog/database",
		"update-alternatives": "/etc/alternatives/awk",
		"deb-systemd-helper":  "/etc/systemd/system/timers.target.wants/fstrim.timer",
		"systemd-sysusers":    "/etc/passwd",
		"systemd-tmpfiles":    "/etc/mtab",
		"pam-auth-update":     "/etc/pam.d/common-auth",
		"dpkg-statoverride":   "/var/lib/dpkg/statoverride",
	} {
		crippled := slices.Clone(archives)
		for i, a := range crippled {
			crippled[i].Control = maps.Clone(a.Control)
			for _, script := range []string{"preinst", "postinst"} {
				if text, ok := a.Control[script]; ok {
					crippled[i].Control[script] = bytes.ReplaceAll(text, []byte(command), []byte("no-"+command))
				}
			}
		}
		ours, _ := configure(t, crippled, maintscript.Options{})
		v := compare(t, real, ours, rules)
		named := slices.ContainsFunc(v.Rejected, func(d Difference) bool { return d.Path == miss })
		if !named {
			t.Errorf("without %s the judge does not name %s, but says %v", command, miss, v)
		}
	}
}
