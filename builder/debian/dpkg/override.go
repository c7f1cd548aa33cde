package dpkg

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Diversion says where a package's file really goes (dpkg-divert(1)).
type Diversion struct {
	From, To string
	Package  string // whose own file stays in place; ":" for a local diversion
}

// Diversions reads the database's diversions in their order.
func (db *DB) Diversions() ([]Diversion, error) {
	text, err := db.read("diversions")
	if err != nil {
		return nil, err
	}
	all := lines(text)
	if len(all)%3 != 0 {
		return nil, fmt.Errorf("%s/diversions: %d lines are not a multiple of three", Dir, len(all))
	}
	var out []Diversion
	for ; len(all) > 0; all = all[3:] {
		out = append(out, Diversion{all[0], all[1], all[2]})
	}
	return out, nil
}

// SetDiversions writes them, the former file beside it.
func (db *DB) SetDiversions(all []Diversion) error {
	sortByBin(all, func(d Diversion) string { return d.From })
	var b strings.Builder
	for _, d := range all {
		b.WriteString(d.From + "\n" + d.To + "\n" + d.Package + "\n")
	}
	return db.replace("diversions", b.String())
}

// sortByBin orders entries as dpkg writes them: by its hash table of paths
// (lib/dpkg/fsys-hash.c).
func sortByBin[T any](all []T, name func(T) string) {
	slices.SortStableFunc(all, func(a, b T) int {
		return cmp.Compare(fnv(strings.TrimPrefix(name(a), "/"))%262139, fnv(strings.TrimPrefix(name(b), "/"))%262139)
	})
}

// read returns a file of the database, "" if there is none yet.
func (db *DB) read(name string) (string, error) {
	text, err := db.tree.ReadFile(Dir + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// replace writes a file of the database and keeps the former one as "-old".
func (db *DB) replace(name, text string) error {
	if db.tree.Exists(Dir + "/" + name) {
		old, err := db.read(name)
		if err != nil {
			return err
		}
		if err := db.tree.WriteFile(Dir+"/"+name+"-old", []byte(old), 0o644); err != nil {
			return err
		}
	}
	return db.tree.WriteFile(Dir+"/"+name, []byte(text), 0o644)
}

// diverted returns where a path of a package really lies.
func diverted(all []Diversion, p string, pkg *Package) string {
	for _, d := range all {
		if d.From == p && d.Package != pkg.Name {
			return d.To
		}
	}
	return p
}

// StatOverride is an owner and mode that hold against any package's
// (dpkg-statoverride(1)). User and group are names, or numbers after "#".
type StatOverride struct {
	User, Group string
	Mode        uint32
	Path        string
}

// StatOverrides reads the database's overrides in their order.
func (db *DB) StatOverrides() ([]StatOverride, error) {
	text, err := db.read("statoverride")
	if err != nil {
		return nil, err
	}
	var out []StatOverride
	for _, line := range lines(text) {
		words := strings.SplitN(line, " ", 4)
		if len(words) != 4 {
			return nil, fmt.Errorf("%s/statoverride: %q is not an entry", Dir, line)
		}
		mode, err := strconv.ParseUint(words[2], 8, 12)
		if err != nil {
			return nil, fmt.Errorf("%s/statoverride: %q is not a mode", Dir, words[2])
		}
		out = append(out, StatOverride{words[0], words[1], uint32(mode), words[3]})
	}
	return out, nil
}

// SetStatOverrides writes them, the former file beside it.
func (db *DB) SetStatOverrides(all []StatOverride) error {
	sortByBin(all, func(o StatOverride) string { return o.Path })
	var b strings.Builder
	for _, o := range all {
		fmt.Fprintf(&b, "%s %s %o %s\n", o.User, o.Group, o.Mode, o.Path)
	}
	return db.replace("statoverride", b.String())
}

// UserID returns a user's number.
func (db *DB) UserID(name string) (uint32, error) { return db.id("/etc/passwd", name) }

// GroupID returns a group's number.
func (db *DB) GroupID(name string) (uint32, error) { return db.id("/etc/group", name) }

// id looks a name, or a number after "#", up.
func (db *DB) id(file, name string) (uint32, error) {
	number, isNumber := strings.CutPrefix(name, "#")
	if isNumber {
		n, err := strconv.ParseUint(number, 10, 32)
		return uint32(n), err
	}
	text, err := db.tree.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		words := strings.Split(line, ":")
		if len(words) > 2 && words[0] == name {
			n, err := strconv.ParseUint(words[2], 10, 32)
			return uint32(n), err
		}
	}
	return 0, fmt.Errorf("%s: no %q", file, name)
}
