// Package maintscript configures Debian packages in a tree without running a
// line of the target's code: maintainer scripts are interpreted, and the
// programs they call are Go functions that have the tree as their world.
//
// A script is a transaction. If it fails, passes a limit or calls a program
// that has no stand-in, all it did is taken back and its package stays
// "unpacked", as do those that depend on it; the card configures them at its
// first boot.
//
// What is of one machine is not made here: SSH host keys, the machine id,
// initramfs and boot partition. Report.Skipped names every such program.
package maintscript

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/depmod"
	"github.com/picube/picube-build/builder/maintscript/debconf"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// Options are what Configure may be told.
type Options struct {
	Arch    string            // Debian's name: "arm64"
	Debconf map[string]string // answers by question: "tzdata/Areas" = "Europe"
	Limits  shell.Limits      // zero fields mean the shell's defaults
	// Locales returns the tree of package locales-all in the version of the
	// libc6 to be installed: compiled locales are taken from there. Nil leaves
	// package locales, if it has any to make, to the first boot.
	Locales func(ctx context.Context) (*tree.Tree, error)
	// Wanted are the packages that somebody asked for by name: apt may remove
	// the others when nothing needs them any more. Nil: it may remove none.
	Wanted   []string
	Depmod   depmod.Cache    // keeps modules' indexes; may be nil
	Progress func(dpkg.Step) // told of each step as it begins; may be nil
	// Program may replace what stands in for a program, which is called by its
	// name or path, or take it away by returning nil: a test of the tests. It
	// may be nil.
	Program func(name string, standIn shell.Command) shell.Command
	Output  func(pkg, text string) // told what scripts print; may be nil
}

// Package tells how far one package got.
type Package struct {
	Name, Version string
	Status        dpkg.Status
	Why           error // nil if it is installed
}

// Report is what Configure did.
type Report struct {
	Packages []Package // those that were to be installed, sorted by name
	Scripts  int       // maintainer scripts that ran to their end, for triggers too
	// Kernels are the versions that an initramfs is to be made for. Put it
	// at /boot/initrd.img-<version> too: update-initramfs on the card updates
	// only what it finds there.
	Kernels []string
	Skipped []Skip // sorted
}

// Skip is a program that did nothing on purpose.
type Skip struct{ Program, Why string }

// Unfinished returns the packages that are left to the first boot.
func (r Report) Unfinished() []Package {
	var out []Package
	for _, p := range r.Packages {
		if p.Status != dpkg.Installed {
			out = append(out, p)
		}
	}
	return out
}

// PendingError says which triggers are left to the first boot: they make
// caches that no emulation makes.
type PendingError struct{ Triggers []string }

func (e *PendingError) Error() string {
	return "the first boot processes its triggers " + strings.Join(e.Triggers, ", ")
}

// AgainError says which program of a package's postinst did nothing: the
// first boot runs that postinst once more.
type AgainError struct{ Program, Why string }

func (e *AgainError) Error() string {
	return "the first boot runs its postinst again for " + e.Program + ": " + e.Why
}

// Configure installs packages into a tree and configures them. The packages
// must be all that their dependencies need beyond what the tree's database
// has; their order does not matter to the result but where Debian leaves a
// choice. An error means that the tree is of no use; what a script could not
// do is in the report.
func Configure(ctx context.Context, t *tree.Tree, archives []dpkg.Archive, o Options) (Report, error) {
	db, err := dpkg.Open(t, o.Arch)
	if err != nil {
		return Report{}, err
	}
	w := newWorld(t, db, o)
	for _, name := range slices.Sorted(maps.Keys(o.Debconf)) {
		owner, _, _ := strings.Cut(name, "/")
		if err := w.debconf.Preseed(owner, name, "", o.Debconf[name]); err != nil {
			return Report{}, fmt.Errorf("debconf: %w", err)
		}
	}
	if err := w.prepare(); err != nil {
		return Report{}, err
	}
	before := map[string]bool{}
	for _, p := range db.Packages() {
		before[p.Name] = p.Status == dpkg.Installed
	}
	result, err := db.Install(ctx, archives, w, dpkg.Options{Wanted: o.Wanted, Progress: o.Progress})
	if err != nil {
		return Report{}, err
	}
	if err := w.finish(ctx); err != nil {
		return Report{}, err
	}
	var report Report
	seen := map[string]bool{}
	for _, p := range db.Packages() {
		seen[p.Name] = true
		if !before[p.Name] {
			why := result.Failed[p.Name]
			if why == nil && p.Status == dpkg.TriggersPending {
				why = &PendingError{p.Pending}
			}
			if again := w.again[p.Name]; why == nil && again != nil {
				why = again
			}
			report.Packages = append(report.Packages, Package{p.Name, p.Version, p.Status, why})
		}
	}
	for name, why := range result.Failed {
		if !seen[name] {
			report.Packages = append(report.Packages, Package{Name: name, Status: dpkg.NotInstalled, Why: why})
		}
	}
	slices.SortFunc(report.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	report.Scripts = w.scripts
	report.Kernels = slices.Sorted(maps.Keys(w.kernels))
	for _, name := range slices.Sorted(maps.Keys(w.skipped)) {
		report.Skipped = append(report.Skipped, Skip{name, w.skipped[name]})
	}
	return report, nil
}

// world is what scripts see beside the tree. It runs them for dpkg.
type world struct {
	t        *tree.Tree
	db       *dpkg.DB
	o        Options
	shell    *shell.Shell
	programs map[string]shell.Command
	debconf  *debconf.Store
	kernels  map[string]bool
	modules  map[string]bool // kernel versions that want depmod
	pending  map[string]bool // triggers left to the first boot
	skipped  map[string]string
	again    map[string]*AgainError // by package
	running  string                 // the package whose script runs

	scripts   int
	ownPolicy bool
}

func newWorld(t *tree.Tree, db *dpkg.DB, o Options) *world {
	w := &world{t: t, db: db, o: o, debconf: debconf.NewStore(t), kernels: map[string]bool{}, modules: map[string]bool{}, pending: map[string]bool{}, skipped: map[string]string{}, again: map[string]*AgainError{}}
	w.programs = w.allPrograms()
	w.shell = shell.New(shell.Config{
		Tree:   t,
		Lookup: w.program,
		Limits: o.Limits,
	})
	return w
}

// ExitError is a script that ended with a status other than 0.
type ExitError struct {
	Script string // "postinst configure"
	Status int
	Output string // the last of what it printed to its standard error
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("%s ended with status %d", e.Script, e.Status)
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// Run runs one maintainer script; it makes world a dpkg.Scripts.
func (w *world) Run(ctx context.Context, s dpkg.Script) error {
	w.running = s.Package.Name
	text, err := w.t.ReadFile(s.Path)
	if err != nil {
		return err
	}
	var errors tail
	out := &sink{w: w, pkg: s.Package.Name}
	status, err := w.shell.Run(ctx, shell.Script{
		Name:   s.Path,
		Text:   text,
		Args:   s.Args,
		Env:    w.environment(s),
		Dir:    "/",
		Stdout: out,
		Stderr: multi{out, &errors},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	if status != 0 {
		return &ExitError{s.Name + " " + strings.Join(s.Args, " "), status, errors.last()}
	}
	w.scripts++
	return nil
}

// environment is what dpkg gives a script when an image is built.
func (w *world) environment(s dpkg.Script) map[string]string {
	version := "1.22.22"
	if p := w.db.Package("dpkg"); p != nil {
		version = p.Version
	}
	return map[string]string{
		"PATH":                              "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":                              "/root",
		"LC_ALL":                            "C.UTF-8",
		"DEBIAN_FRONTEND":                   "noninteractive",
		"DEBCONF_NONINTERACTIVE_SEEN":       "true",
		"DPKG_ADMINDIR":                     dpkg.Dir,
		"DPKG_ROOT":                         "",
		"DPKG_RUNNING_VERSION":              version,
		"DPKG_MAINTSCRIPT_PACKAGE":          s.Package.Name,
		"DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
		"DPKG_MAINTSCRIPT_ARCH":             s.Package.Architecture,
		"DPKG_MAINTSCRIPT_NAME":             s.Name,
		"DPKG_MAINTSCRIPT_DEBUG":            "0",
		"SOURCE_DATE_EPOCH":                 fmt.Sprint(w.t.Epoch()),
	}
}

// skip notes that a program does nothing at build, and why.
func (w *world) skip(program, why string) { w.skipped[program] = why }

// policy tells invoke-rc.d and its like that nothing may be started.
const (
	policy     = "/usr/sbin/policy-rc.d"
	policyText = "#!/bin/sh\nexit 101\n"
)

func (w *world) prepare() error {
	if w.t.Exists(policy) {
		return nil
	}
	w.ownPolicy = true
	if err := w.t.MkdirAll(path.Dir(policy), 0o755); err != nil {
		return err
	}
	return w.t.WriteFile(policy, []byte(policyText), 0o755)
}

// finish makes what many scripts ask for once, and removes what is of the
// build, not of the card, as mmdebstrap does: /run and /tmp are empty at boot,
// and every card has a machine id of its own.
func (w *world) finish(ctx context.Context) error {
	for _, v := range slices.Sorted(maps.Keys(w.modules)) {
		if err := w.depmod(ctx, v); err != nil {
			return fmt.Errorf("modules of kernel %s: %w", v, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.again)) {
		w.db.Again(name)
	}
	for _, trigger := range slices.Sorted(maps.Keys(w.pending)) {
		if err := w.db.Leave(trigger); err != nil {
			return err
		}
	}
	if err := w.db.Save(); err != nil {
		return err
	}
	if w.ownPolicy {
		if err := w.t.Remove(policy); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run", "/tmp"} {
		names, err := w.t.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, n := range names {
			if dir == "/run" && n == "lock" {
				continue // base-files makes it
			}
			if err := w.t.RemoveAll(dir + "/" + n); err != nil {
				return err
			}
		}
	}
	return w.t.RemoveAll("/var/lib/dbus/machine-id")
}

type sink struct {
	w   *world
	pkg string
}

func (s *sink) Write(b []byte) (int, error) {
	if s.w.o.Output != nil {
		s.w.o.Output(s.pkg, string(b))
	}
	return len(b), nil
}

type multi [2]interface{ Write([]byte) (int, error) }

func (m multi) Write(b []byte) (int, error) {
	if n, err := m[0].Write(b); err != nil {
		return n, err
	}
	return m[1].Write(b)
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

const tailLength = 2000

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	if len(t.b) > 2*tailLength {
		t.b = append(t.b[:0], t.b[len(t.b)-tailLength:]...)
	}
	return len(b), nil
}

// last returns the last line that says something.
func (t *tail) last() string {
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
