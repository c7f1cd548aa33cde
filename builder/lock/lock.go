// Package lock reads and writes <blueprint>.lock.hcl: every input of a build
// with its version, size and SHA-256, so that a later build uses exactly what
// the first one did.
//
// A lock holds paths within archives, never hosts: it works with any mirror.
package lock

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Format is the number that locks of this kind carry.
const Format = 1

// Lock is what a lock file holds.
type Lock struct {
	Created time.Time // to the second
	Suites  []Suite
	Sets    []Set
	Inputs  []Input
}

// Suite is a suite of an archive, and the Release that was used.
type Suite struct {
	Archive, Name string // "debian", "trixie"
	Version       string // "13.7"; may be empty
	Date          time.Time
	SHA256        string // of the InRelease file
}

// Set is a list of packages that was chosen as one.
type Set struct {
	Name, Arch string
	// Requests is what was asked for, in any form that the caller compares.
	Requests []string
	Packages []Package
}

// Package is a package of a set.
type Package struct {
	Name, Version, Arch string
	Archive             string // Suite.Archive
	Path                string // below the archive's URL
	Size                int64
	SHA256              string
	// By is who wanted it first: another package of the set, or whoever made
	// the request ("picube.hcl"). May be empty.
	By string
}

// Input is anything else that was downloaded or built.
type Input struct {
	Name    string // "kubernetes/kubelet"
	Version string
	Source  string // where it came from, in words of who wrote it; may be empty
	Path    string // slash path below that source; may be empty
	Size    int64
	SHA256  string
}

// Path returns the place of a blueprint's lock: picube.lock.hcl beside
// picube.hcl.
func Path(blueprint string) string { return strings.TrimSuffix(blueprint, ".hcl") + ".lock.hcl" }

// Read reads a lock file. A missing one is fs.ErrNotExist; faults in its text
// are hcl.Diagnostics.
func Read(path string) (*Lock, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, fmt.Errorf("%s: has %d bytes, more than a lock can have", path, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l, diags := Parse(path, b)
	if diags.HasErrors() {
		return nil, diags
	}
	return l, nil
}

const maxSize = 16 << 20

// Write writes a lock file whole or not at all; one that holds the same
// already stays as it is.
func (l *Lock) Write(path string) error {
	b := l.Bytes()
	if old, err := os.ReadFile(path); err == nil && slices.Equal(old, b) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Set returns the set of a name and an architecture, nil if there is none.
func (l *Lock) Set(name, arch string) *Set {
	for i := range l.Sets {
		if l.Sets[i].Name == name && l.Sets[i].Arch == arch {
			return &l.Sets[i]
		}
	}
	return nil
}

// Why returns the chain of those who wanted a package, from the request to
// the package itself: "picube.hcl", "initramfs-tools", "cpio".
func (s *Set) Why(name string) []string {
	by := map[string]string{}
	for _, p := range s.Packages {
		by[p.Name] = p.By
	}
	chain := []string{name}
	for range s.Packages { // a damaged lock may hold a circle
		who := by[name]
		if who == "" {
			break
		}
		chain = append(chain, who)
		name = who
	}
	slices.Reverse(chain)
	return chain
}

// Input returns the input of a name, nil if there is none.
func (l *Lock) Input(name string) *Input {
	for i := range l.Inputs {
		if l.Inputs[i].Name == name {
			return &l.Inputs[i]
		}
	}
	return nil
}

// Date returns the date of a suite's Release; zero if the lock has none.
func (l *Lock) Date(archive, suite string) time.Time {
	for _, s := range l.Suites {
		if s.Archive == archive && s.Name == suite {
			return s.Date
		}
	}
	return time.Time{}
}

// Wanted is what a blueprint asks of a lock.
type Wanted struct {
	Suites []Suite // archive and name count
	Sets   []Set   // all but the packages counts
	Inputs []Input // name and version count
}

// Check returns an error that names all that has changed since the lock was
// made, and what to do.
func (l *Lock) Check(path, blueprint string, w Wanted) error {
	var changes []string
	changes = append(changes, compare(keys(l.Suites, Suite.key), keys(w.Suites, Suite.key), "archive suite ")...)
	changes = append(changes, compare(keys(l.Inputs, Input.key), keys(w.Inputs, Input.key), "input ")...)
	changes = append(changes, compare(keys(l.Sets, Set.key), keys(w.Sets, Set.key), "package set ")...)
	for _, s := range w.Sets {
		if have := l.Set(s.Name, s.Arch); have != nil {
			changes = append(changes, compare(have.Requests, s.Requests, "package ")...)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	slices.Sort(changes)
	return fmt.Errorf("%s: does not fit the blueprint: %s: run \"picube-build update %s\"", path, strings.Join(slices.Compact(changes), ", "), blueprint)
}

func (s Suite) key() string { return s.Archive + " " + s.Name }

func (s Set) key() string { return s.Name + " " + s.Arch }

func (i Input) key() string { return strings.TrimSpace(i.Name + " " + i.Version) }

func keys[T any](list []T, key func(T) string) []string {
	var all []string
	for _, v := range list {
		all = append(all, key(v))
	}
	return all
}

func compare(have, want []string, what string) []string {
	var changes []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			changes = append(changes, what+w+" is new")
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			changes = append(changes, what+h+" is gone")
		}
	}
	return changes
}

// Change is a difference between two locks.
type Change struct {
	Name     string // "libc6"; for a suite "debian trixie"
	Old, New string // versions; empty: not there
}

// String says it in words: "libc6 2.41-12 -> 2.41-13".
func (c Change) String() string {
	switch {
	case c.Old == "":
		return c.Name + " " + c.New + " (new)"
	case c.New == "":
		return c.Name + " " + c.Old + " (gone)"
	case c.Old == c.New:
		return c.Name + " " + c.Old + " (other content)"
	}
	return c.Name + " " + c.Old + " -> " + c.New
}

// Diff returns what changed from l to newer: suites, then inputs, then
// packages, each sorted by name. A package that changed alike in several sets
// is told once.
func (l *Lock) Diff(newer *Lock) []Change {
	var changes []Change
	changes = append(changes, diff(suiteStates(l), suiteStates(newer))...)
	changes = append(changes, diff(inputStates(l), inputStates(newer))...)
	return append(changes, diff(packageStates(l), packageStates(newer))...)
}

// state is a version and what tells two contents of it apart.
type state struct{ name, version, sha256 string }

func suiteStates(l *Lock) map[string]state {
	m := map[string]state{}
	for _, s := range l.Suites {
		name := s.Archive + " " + s.Name
		m[name] = state{name, strings.TrimSpace(s.Version + " of " + s.Date.UTC().Format(time.DateTime)), s.SHA256}
	}
	return m
}

func inputStates(l *Lock) map[string]state {
	m := map[string]state{}
	for _, i := range l.Inputs {
		m[i.Name] = state{i.Name, i.Version, i.SHA256}
	}
	return m
}

func packageStates(l *Lock) map[string]state {
	m := map[string]state{}
	for _, s := range l.Sets {
		for _, p := range s.Packages {
			m[s.key()+" "+p.Name] = state{p.Name, p.Version, p.SHA256}
		}
	}
	return m
}

func diff(old, new map[string]state) []Change {
	var changes []Change
	for key, o := range old {
		if n, ok := new[key]; !ok {
			changes = append(changes, Change{o.name, o.version, ""})
		} else if n != o {
			changes = append(changes, Change{o.name, o.version, n.version})
		}
	}
	for key, n := range new {
		if _, ok := old[key]; !ok {
			changes = append(changes, Change{n.name, "", n.version})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Old, b.Old), cmp.Compare(a.New, b.New))
	})
	return slices.Compact(changes)
}

func checkDigest(s string) error {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 || strings.ToLower(s) != s {
		return errors.New("this is not a SHA-256: 64 hexadecimal digits in lower case")
	}
	return nil
}

// checkPath wants a relative slash path that stays below where it starts.
func checkPath(s string) error {
	if !fs.ValidPath(s) || s == "." || strings.ContainsAny(s, "\\?#\n") {
		return errors.New("this is not a path below an archive's address")
	}
	return nil
}
