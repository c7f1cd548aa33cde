//go:build judge

package judge

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/maintscript"
	"github.com/picube/picube-build/builder/maintscript/shell"
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

// TestLists builds each list with dpkg and with our engine and compares. Then
// it takes away what stands in for the programs that the scripts called, one
// by one, and the judge must notice.
func TestLists(t *testing.T) {
	debs := debFolder(t)
	dropped, everCalled := map[string]bool{}, map[string]bool{}
	for _, list := range lists {
		if *onlyList != "" && *onlyList != list.name {
			continue
		}
		t.Run(list.name, func(t *testing.T) {
			c := newCandidate(t, list.name, debs)
			called := map[string]bool{}
			ours, result := c.configure(t, func(name string, standIn shell.Command) shell.Command {
				return func(ctx context.Context, p *shell.Process) int {
					called[name] = true
					return standIn(ctx, p)
				}
			})
			maps.Copy(everCalled, called)
			v := c.compare(t, ours)
			t.Logf("%d packages, %d scripts run, %d packages left to the first boot, %d entries compared, %d differences accepted",
				len(c.archives), result.Scripts, len(result.Unfinished()), v.Entries, len(v.Accepted))
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
			if !v.OK() {
				t.Error(v)
			}
			if *report != "" {
				file := filepath.Join(*report, "judge-"+list.name+".txt")
				if err := os.WriteFile(file, []byte(b.String()+v.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if !v.OK() {
				return
			}
			if list.name == "minimal" { // one list tells
				c.testMutations(t, ours)
			}
			if slices.Contains(strings.Split(*drop, ","), list.name) {
				c.testDropped(t, called, dropped)
			}
			if list.name == "minimal" && *drop != "" {
				c.testIdle(t, called)
			}
		})
	}
	if *onlyList != "" {
		return
	}
	programs, err := maintscript.Programs()
	if err != nil {
		t.Fatal(err)
	}
	programs = slices.DeleteFunc(programs, func(name string) bool { return everCalled[name] })
	t.Logf("%d programs called; no script calls %s", len(everCalled), strings.Join(programs, " "))
}

// acceptedRules reads what a list's two trees may differ in.
func acceptedRules(t testing.TB, list string) []Rule {
	t.Helper()
	var rules []Rule
	for _, file := range []string{"common.txt", list + ".txt"} {
		r, err := ParseRules(file, readList(t, "../accepted/"+file))
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r...)
	}
	return rules
}

// candidate is a list that our engine installs, and what dpkg made of it.
type candidate struct {
	reference *Reference
	archives  []dpkg.Archive
	options   maintscript.Options
	rules     []Rule
}

// newCandidate opens what dpkg made of a list, and the list's packages.
func newCandidate(t testing.TB, list, debs string) *candidate {
	t.Helper()
	real := openTruth(t, makeTruth(t, list, debs))
	c := &candidate{
		reference: NewReference(real),
		archives:  openPackages(t, real, debs),
		rules:     acceptedRules(t, list),
		options: maintscript.Options{
			Arch: *arch, Debconf: answers(readList(t, list+".debconf")), Depmod: modules{},
			Wanted:  strings.Fields(readList(t, list+".packages")),
			Locales: func(context.Context) (*tree.Tree, error) { return openLocales(t, real, debs), nil },
		},
	}
	for _, a := range c.archives {
		p, err := control.Parse(string(a.Control["control"]))
		if err != nil {
			t.Fatal(err)
		}
		if p.Get("Priority") == "required" { // mmdebstrap asks for them
			c.options.Wanted = append(c.options.Wanted, p.Get("Package"))
		}
	}
	return c
}

// modules keeps depmod's work.
type modules map[string][]byte

func (m modules) Get(key string) ([]byte, bool)     { b, ok := m[key]; return b, ok }
func (m modules) Put(key string, data []byte) error { m[key] = data; return nil }

// configure installs the list; program may replace what stands in for
// programs.
func (c *candidate) configure(t testing.TB, program func(string, shell.Command) shell.Command) (*tree.Tree, maintscript.Report) {
	t.Helper()
	ours := tree.New(epoch)
	o := c.options
	o.Program = program
	result, err := maintscript.Configure(t.Context(), ours, c.archives, o)
	if err != nil {
		t.Fatal(err)
	}
	return ours, result
}

func (c *candidate) compare(t *testing.T, ours *tree.Tree) Verdict {
	t.Helper()
	differences, entries, err := c.reference.Compare(ours)
	if err != nil {
		t.Fatal(err)
	}
	return Judge(differences, entries, c.rules)
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

// BenchmarkConfigure tells the processor seconds that a list's scripts need,
// all else that makes a configured tree of its packages included, but for
// depmod, which has a cache of its own, and the peak of the process's memory.
func BenchmarkConfigure(b *testing.B) {
	debs := debFolder(b)
	for _, list := range lists {
		if *onlyList != "" && *onlyList != list.name {
			continue
		}
		b.Run(list.name, func(b *testing.B) {
			c := newCandidate(b, list.name, debs)
			c.configure(b, nil)
			before, _ := usage(b)
			for b.Loop() {
				c.configure(b, nil)
			}
			after, peak := usage(b)
			b.ReportMetric((after-before)/float64(b.N), "cpu-s/op")
			b.ReportMetric(peak, "peak-MiB")
		})
	}
}

// usage returns the processor seconds that this process has used, and the
// most memory it ever had.
func usage(t testing.TB) (seconds, mib float64) {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9, float64(r.Maxrss) / 1024
}

// testMutations shows that the judge fails over one wrong mode, owner or unit
// link, and that it names the path.
func (c *candidate) testMutations(t *testing.T, ours *tree.Tree) {
	t.Helper()
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
		v := c.compare(t, ours)
		ours.Rollback(mark)
		if len(v.Rejected) != 1 || v.Rejected[0].Path != m.path || v.Rejected[0].Kind != m.kind {
			t.Errorf("changed the %s of %s, the judge said %v", m.kind, m.path, v)
		}
	}
}

// testDropped shows that the judge notices when a program that was called
// cannot be run, and names a path. Programs that were dropped before are not
// dropped again.
func (c *candidate) testDropped(t *testing.T, called, dropped map[string]bool) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(called)) {
		if dropped[name] {
			continue
		}
		dropped[name] = true
		v := c.compareWithout(t, name, func(_ context.Context, p *shell.Process) int {
			p.Unsupported("anything: it was dropped")
			return 1
		})
		if len(v.Rejected) == 0 {
			t.Errorf("without %s the judge finds no difference", name)
			continue
		}
		t.Logf("without %s: %d differences, the first is %s %s", name, len(v.Rejected), v.Rejected[0].Path, v.Rejected[0].Kind)
	}
}

// testIdle tells which stand-ins might as well do nothing and succeed, as far
// as the judge sees: those that only answer questions.
func (c *candidate) testIdle(t *testing.T, called map[string]bool) {
	t.Helper()
	var unnoticed []string
	for _, name := range slices.Sorted(maps.Keys(called)) {
		v := c.compareWithout(t, name, func(context.Context, *shell.Process) int { return 0 })
		if len(v.Rejected) == 0 {
			unnoticed = append(unnoticed, name)
		}
	}
	t.Logf("%d stand-ins made idle; not noticed: %s", len(called), strings.Join(unnoticed, " "))
}

// compareWithout is the judge's verdict with another stand-in for a program.
func (c *candidate) compareWithout(t *testing.T, program string, instead shell.Command) Verdict {
	t.Helper()
	ours, _ := c.configure(t, func(name string, standIn shell.Command) shell.Command {
		if name == program {
			return instead
		}
		return standIn
	})
	return c.compare(t, ours)
}
