//go:build judge

package judge

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
// it changes each mode, owner and link, and takes away, one by one, what stands
// in for the programs that the scripts called, and the judge must notice.
func TestLists(t *testing.T) {
	debs := debFolder(t)
	noticed, everCalled := map[string]bool{}, map[string]bool{}
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
			c.testMutations(t, ours)
			if *drop {
				c.testDropped(t, called, noticed)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(everCalled)) {
		if *drop && !noticed[name] {
			t.Errorf("without %s the judge finds no difference in any list", name)
		}
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

// acceptedRules reads what a list's two trees may differ in: any list's, this
// one's, and this one's for the architecture.
func acceptedRules(t testing.TB, list string) []Rule {
	t.Helper()
	var rules []Rule
	for _, file := range []string{"common.txt", list + ".txt", list + "-" + *arch + ".txt"} {
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
			Arch: *arch, Debconf: answers(readList(t, list+".debconf")), Depmod: &modules{},
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

// modules keeps depmod's work, for several workers.
type modules struct{ done sync.Map }

func (m *modules) Get(key string) ([]byte, bool) {
	b, ok := m.done.Load(key)
	if !ok {
		return nil, false
	}
	return b.([]byte), true
}

func (m *modules) Put(key string, data []byte) error { m.done.Store(key, data); return nil }

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

// testMutations shows that the judge fails over one wrong mode, one wrong
// owner and one link that is missing or leads elsewhere, whichever it is, and
// that it names the path. Rules accept some; those are told.
func (c *candidate) testMutations(t *testing.T, ours *tree.Tree) {
	t.Helper()
	judge := comparison{Reference: c.reference, ours: index(ours)}
	changed, accepted := map[Kind]int{}, []string{}
	check := func(p string, kind Kind, instead *tree.Inode) {
		was := judge.ours.nodes[p]
		defer func() { judge.ours.nodes[p] = was }()
		judge.ours.first[instead] = judge.ours.first[was]
		defer delete(judge.ours.first, instead)
		if judge.ours.nodes[p] = instead; instead == nil {
			delete(judge.ours.nodes, p)
		}
		judge.differences = nil
		if err := judge.entry(p); err != nil {
			t.Fatal(err)
		}
		is := func(d Difference) bool { return d.Path == p && d.Kind == kind }
		v := Judge(judge.differences, 1, c.rules)
		switch {
		case slices.ContainsFunc(v.Rejected, is):
		case slices.ContainsFunc(v.Accepted, is):
			accepted = append(accepted, p)
		default:
			t.Errorf("changed the %s of %s, the judge said %v", kind, p, v)
		}
		changed[kind]++
	}
	for p, n := range ours.All() {
		if c.reference.real.nodes[p] == nil {
			continue // accepted as too much
		}
		mode, owner, link := *n, *n, *n
		owner.UID++
		check(p, Owner, &owner)
		if !n.IsSymlink() {
			mode.Mode ^= 0o1
			check(p, Mode, &mode)
			continue
		}
		link.Target += "x"
		check(p, Target, &link)
		check(p, Missing, nil)
	}
	t.Logf("changed one by one: %d modes, %d owners, %d links' targets, %d links away; accepted only at %q",
		changed[Mode], changed[Owner], changed[Target], changed[Missing], accepted)
}

// testDropped shows that the judge notices when a program that was called
// cannot be run, and names a path; noticed is told which. A program that was
// noticed in another list is not dropped again.
func (c *candidate) testDropped(t *testing.T, called, noticed map[string]bool) {
	t.Helper()
	var mu sync.Mutex
	t.Run("without", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(called)) {
			if noticed[name] {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				own := *c // a reference remembers what it has compared
				own.reference = &Reference{c.reference.real, maps.Clone(c.reference.same)}
				rejected := own.compareWithout(t, name).Rejected
				if len(rejected) == 0 {
					t.Log("no difference in this list")
					return
				}
				t.Logf("%d differences, the first is %s %s", len(rejected), rejected[0].Path, rejected[0].Kind)
				mu.Lock()
				defer mu.Unlock()
				noticed[name] = true
			})
		}
	})
}

// compareWithout is the judge's verdict when a program cannot be run.
func (c *candidate) compareWithout(t *testing.T, program string) Verdict {
	t.Helper()
	ours, _ := c.configure(t, func(name string, standIn shell.Command) shell.Command {
		if name != program {
			return standIn
		}
		return func(_ context.Context, p *shell.Process) int {
			p.Unsupported("anything: it was dropped")
			return 1
		}
	})
	return c.compare(t, ours)
}
