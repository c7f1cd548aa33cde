package dpkg

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/tree"
)

// Dir is where the database lies in a tree.
const Dir = "/var/lib/dpkg"

const infoDir = Dir + "/info"

// DB is the database of one tree. Status is kept here and written by Save;
// all else (file lists, diversions, triggers …) lives in the tree, so that
// taking back a change of the tree takes it back too.
type DB struct {
	tree *tree.Tree
	arch string
	pkgs map[string]*Package

	// Derived from the tree; nil means to be read again.
	owners    map[string][]*Package // by path as listed
	interests []interest            // of file triggers

	providers map[string][]*Package // by virtual name; nil means to be made
}

// Open reads the tree's database; a tree without one gets an empty one for
// the architecture.
func Open(t *tree.Tree, arch string) (*DB, error) {
	db := &DB{tree: t, arch: arch, pkgs: map[string]*Package{}}
	for _, dir := range []string{"alternatives", "info", "parts", "triggers", "updates"} {
		if err := t.MkdirAll(Dir+"/"+dir, 0o755); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct {
		name, text string
		perm       uint32
	}{
		{"arch", arch + "\n", 0o644},
		{"arch-native", arch + "\n", 0o644},
		{"info/format", "1\n", 0o644},
		{"lock", "", 0o640},
		{"lock-frontend", "", 0o640},
		{"triggers/Lock", "", 0o600},
		{"triggers/Unincorp", "", 0o644},
		{"status", "", 0o644},
	} {
		if t.Exists(Dir + "/" + f.name) {
			continue
		}
		if err := t.WriteFile(Dir+"/"+f.name, []byte(f.text), f.perm); err != nil {
			return nil, err
		}
	}
	if names, _ := t.ReadDir(Dir + "/updates"); len(names) > 0 {
		return nil, fmt.Errorf("dpkg's database: a change was cut off (%s/updates is not empty)", Dir)
	}
	text, err := t.ReadFile(Dir + "/status")
	if err != nil {
		return nil, err
	}
	for c, err := range control.Paragraphs(string(text)) {
		if err != nil {
			return nil, fmt.Errorf("%s/status: %w", Dir, err)
		}
		p, err := readPackage(c)
		if err != nil {
			return nil, fmt.Errorf("%s/status: %w", Dir, err)
		}
		if p.Architecture != arch && p.Architecture != "all" && p.Status > ConfigFiles || db.pkgs[p.Name] != nil {
			return nil, fmt.Errorf("%s/status: package %s:%s: foreign architectures are not supported",
				Dir, p.Name, p.Architecture)
		}
		db.pkgs[p.Name] = p
	}
	return db, nil
}

// Arch returns the architecture the database is for.
func (db *DB) Arch() string { return db.arch }

// Tree returns the tree that the database describes.
func (db *DB) Tree() *tree.Tree { return db.tree }

// Package returns a package by its name, with or without ":arch"; nil if the
// database does not know it.
func (db *DB) Package(name string) *Package {
	name, arch, qualified := strings.Cut(name, ":")
	p := db.pkgs[name]
	if p == nil || qualified && arch != p.Architecture && arch != "any" && !(arch == db.arch && p.Architecture == "all") {
		return nil
	}
	return p
}

// Packages returns all packages sorted by name.
func (db *DB) Packages() []*Package {
	var all []*Package
	for _, name := range slices.Sorted(maps.Keys(db.pkgs)) {
		all = append(all, db.pkgs[name])
	}
	return all
}

// hashOrder returns all packages in the order in which dpkg walks them: that
// of its hash table, FNV-1a over the name modulo 65521 (lib/dpkg/pkg-hash.c,
// strhash.c). Uid allocation follows from it.
func (db *DB) hashOrder() []*Package {
	all := db.Packages()
	slices.SortStableFunc(all, func(a, b *Package) int {
		return cmp.Compare(fnv(a.Name)%65521, fnv(b.Name)%65521)
	})
	return all
}

func fnv(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}

// provides returns the packages that provide a virtual one, by its name.
func (db *DB) provides() map[string][]*Package {
	if db.providers == nil {
		db.providers = map[string][]*Package{}
		for _, p := range db.Packages() {
			if p.Status <= ConfigFiles {
				continue
			}
			for _, v := range p.relations("Provides") {
				db.providers[v[0].name] = append(db.providers[v[0].name], p)
			}
		}
	}
	return db.providers
}

// Status returns the text of the status file.
func (db *DB) Status() []byte {
	var b strings.Builder
	for _, p := range db.Packages() {
		if p.Status == NotInstalled {
			continue
		}
		b.WriteString(p.stanza())
	}
	return []byte(b.String())
}

// Save writes the status file.
func (db *DB) Save() error {
	return db.tree.WriteFile(Dir+"/status", db.Status(), 0o644)
}

// snapshot returns a function that brings all packages, and all that is
// derived from the tree, back to what they are now.
func (db *DB) snapshot() func() {
	pkgs := make(map[string]*Package, len(db.pkgs))
	values := make(map[string]Package, len(db.pkgs))
	for name, p := range db.pkgs {
		pkgs[name], values[name] = p, *p
	}
	return func() {
		db.pkgs = pkgs
		for name, p := range pkgs {
			*p = values[name]
		}
		db.owners, db.interests, db.providers = nil, nil, nil
	}
}

// InfoFile returns the path of one of a package's files in the database:
// "list", "postinst" …
func (db *DB) InfoFile(p *Package, kind string) string {
	return infoDir + "/" + p.Info() + "." + kind
}

// readInfo returns such a file, "" if there is none.
func (db *DB) readInfo(p *Package, kind string) (string, error) {
	b, err := db.tree.ReadFile(db.InfoFile(p, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// Files returns the paths that a package lists, "/." for the root.
func (db *DB) Files(p *Package) ([]string, error) {
	text, err := db.readInfo(p, "list")
	return lines(text), err
}

func lines(text string) []string {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// Owners returns the packages that list a path, sorted by name.
func (db *DB) Owners(p string) ([]*Package, error) {
	if err := db.loadOwners(); err != nil {
		return nil, err
	}
	return db.owners[p], nil
}

func (db *DB) loadOwners() error {
	if db.owners != nil {
		return nil
	}
	owners := map[string][]*Package{}
	for _, p := range db.Packages() {
		if p.Status == NotInstalled || p.Status == ConfigFiles {
			continue
		}
		files, err := db.Files(p)
		if err != nil {
			return err
		}
		for _, f := range files {
			owners[f] = append(owners[f], p)
		}
	}
	db.owners = owners
	return nil
}

// Listed iterates over every listed path and its owners, sorted by path.
func (db *DB) Listed(yield func(p string, owners []*Package) bool) error {
	if err := db.loadOwners(); err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(db.owners)) {
		if !yield(p, db.owners[p]) {
			break
		}
	}
	return nil
}

// listName is how dpkg writes a path: the root is "/.".
func listName(p string) string {
	if p == "/" {
		return "/."
	}
	return path.Clean(p)
}
