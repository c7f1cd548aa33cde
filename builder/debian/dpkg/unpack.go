package dpkg

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/tree"
)

// Archive is a .deb to install.
type Archive struct {
	Control map[string][]byte  // "control", "postinst" …
	Entries func() []deb.Entry // the tree may keep their inodes
}

// scriptNames are the control files that dpkg makes executable.
var scriptNames = []string{"preinst", "postinst", "prerm", "postrm", "config"}

const tmpDir = Dir + "/tmp.ci"

// unpack does what "dpkg --unpack" does with one archive.
func (r *run) unpack(ctx context.Context, a Archive, p *Package) error {
	db := r.db
	old := db.pkgs[p.Name]
	if old != nil && old.Status != NotInstalled && old.Status != ConfigFiles {
		return fmt.Errorf("package %s: cannot upgrade %s to %s: not supported", p.Name, old.Version, p.Version)
	}
	p.Status = HalfInstalled
	if old != nil {
		p.ConfigVersion = old.ConfigVersion
	}
	db.pkgs[p.Name] = p
	db.providers = nil

	directives, err := parseDirectives(string(a.Control["triggers"]))
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	conffiles, err := parseConffiles(string(a.Control["conffiles"]), old)
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	if err := r.activateDirectives(p, directives); err != nil {
		return err
	}
	if err := r.preinst(ctx, a, p, old); err != nil {
		return err
	}
	if err := r.extract(a, p, conffiles); err != nil {
		return err
	}
	for name, text := range sorted(a.Control) {
		if name == "control" || name == "list" || !validName(name) {
			continue
		}
		if err := db.tree.WriteFile(db.InfoFile(p, name), text, controlMode(name)); err != nil {
			return err
		}
	}
	if err := db.changeInterests(p, nil, directives); err != nil {
		return err
	}
	p.Conffiles = conffiles
	p.Status = Unpacked
	return nil
}

func controlMode(name string) uint32 {
	if slices.Contains(scriptNames, name) {
		return 0o755
	}
	return 0o644
}

func sorted(m map[string][]byte) func(func(string, []byte) bool) {
	return func(yield func(string, []byte) bool) {
		names := make([]string, 0, len(m))
		for name := range m {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}

// preinst runs the new package's script from where dpkg puts it, among the
// other control files.
func (r *run) preinst(ctx context.Context, a Archive, p, old *Package) error {
	if a.Control["preinst"] == nil {
		return nil
	}
	t := r.db.tree
	if err := t.MkdirAll(tmpDir, 0o755); err != nil {
		return err
	}
	for name, text := range sorted(a.Control) {
		if !validName(name) {
			continue
		}
		if err := t.WriteFile(tmpDir+"/"+name, text, controlMode(name)); err != nil {
			return err
		}
	}
	args := []string{"install"}
	if old != nil && old.Status == ConfigFiles {
		args = append(args, old.Version, p.Version)
	}
	if err := r.script(ctx, p, "preinst", tmpDir+"/preinst", args...); err != nil {
		return err
	}
	if err := t.RemoveAll(tmpDir); err != nil {
		return err
	}
	return r.incorporate()
}

// parseConffiles reads an archive's conffiles and what the last version's
// were.
func parseConffiles(text string, old *Package) ([]Conffile, error) {
	var out []Conffile
	for _, line := range lines(text) {
		flag, name, ok := strings.Cut(line, " ")
		if !ok {
			flag, name = "", line
		}
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !strings.HasPrefix(name, "/") || flag != "" && flag != "remove-on-upgrade" {
			return nil, fmt.Errorf("conffiles: %q is not an entry", line)
		}
		c := Conffile{Path: path.Clean(name), MD5: "newconffile", RemoveOnUpgrade: flag != ""}
		if old != nil {
			for _, o := range old.Conffiles {
				if o.Path == c.Path {
					c.MD5 = o.MD5
				}
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// ConflictError is a file that two packages bring.
type ConflictError struct {
	Path, Package, Owner string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("package %s: cannot overwrite %s, which is also in package %s", e.Package, e.Path, e.Owner)
}

// extract puts an archive's entries into the tree and writes the list.
func (r *run) extract(a Archive, p *Package, conffiles []Conffile) error {
	db := r.db
	diversions, err := db.Diversions()
	if err != nil {
		return err
	}
	overrides, err := db.StatOverrides()
	if err != nil {
		return err
	}
	if err := db.loadOwners(); err != nil {
		return err
	}
	var list, sums strings.Builder
	taken := map[*Package][]string{}
	for _, e := range a.Entries() {
		name := tree.Clean(e.Path)
		if strings.Contains(name, "\n") {
			return fmt.Errorf("package %s: newline in the name %q", p.Name, name)
		}
		list.WriteString(listName(name) + "\n")
		use := diverted(diversions, name, p)
		if err := r.activateFile(use, p); err != nil {
			return err
		}
		for _, o := range db.owners[listName(name)] {
			if o == p || e.Inode.IsDir() || diverted(diversions, name, o) != use {
				continue
			}
			if !p.replaces(o) {
				return &ConflictError{name, p.Name, o.Name}
			}
			taken[o] = append(taken[o], listName(name))
		}
		for _, o := range overrides {
			if o.Path != name {
				continue
			}
			if err := db.override(e.Inode, o); err != nil {
				return fmt.Errorf("package %s: %w", p.Name, err)
			}
		}
		isConffile := slices.ContainsFunc(conffiles, func(c Conffile) bool { return c.Path == name && !c.RemoveOnUpgrade })
		if isConffile {
			if use, err = db.tree.RealPath(use); err != nil {
				return fmt.Errorf("package %s: conffile %w", p.Name, err)
			}
			use += ".dpkg-new"
		}
		if err := put(db.tree, use, e.Inode); err != nil {
			return fmt.Errorf("package %s: %w", p.Name, err)
		}
		if a.Control["md5sums"] == nil && e.Inode.IsRegular() {
			sum, err := digest(e.Inode)
			if err != nil {
				return fmt.Errorf("package %s: %s: %w", p.Name, name, err)
			}
			sums.WriteString(sum + "  " + name[1:] + "\n")
		}
	}
	if a.Control["md5sums"] == nil {
		if err := db.tree.WriteFile(db.InfoFile(p, "md5sums"), []byte(sums.String()), 0o644); err != nil {
			return err
		}
	}
	for o, names := range taken {
		if err := db.disown(o, names); err != nil {
			return err
		}
	}
	for _, f := range lines(list.String()) {
		if i, found := slices.BinarySearchFunc(db.owners[f], p, byName); !found {
			db.owners[f] = slices.Insert(slices.Clone(db.owners[f]), i, p)
		}
	}
	return db.tree.WriteFile(db.InfoFile(p, "list"), []byte(list.String()), 0o644)
}

func byName(a, b *Package) int { return strings.Compare(a.Name, b.Name) }

func (p *Package) replaces(o *Package) bool {
	return slices.ContainsFunc(p.relations("Replaces"), func(r []relation) bool { return r[0].name == o.Name && r[0].admits(o.Version) })
}

// disown takes paths that another package has replaced off a package's list.
func (db *DB) disown(p *Package, names []string) error {
	files, err := db.Files(p)
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(names, f) })
	for _, name := range names {
		db.owners[name] = slices.DeleteFunc(slices.Clone(db.owners[name]), func(o *Package) bool { return o == p })
	}
	return db.tree.WriteFile(db.InfoFile(p, "list"), []byte(strings.Join(files, "\n")+"\n"), 0o644)
}

func (db *DB) override(n *tree.Inode, o StatOverride) error {
	uid, err := db.UserID(o.User)
	if err != nil {
		return err
	}
	gid, err := db.GroupID(o.Group)
	if err != nil {
		return err
	}
	n.UID, n.GID, n.Mode = uid, gid, n.Type()|o.Mode
	return nil
}

// put places an entry as dpkg does: a directory that is there, or a link to
// one, stays as it is, whatever the archive says of its owner and mode.
func put(t *tree.Tree, p string, n *tree.Inode) error {
	if p == "/" {
		return nil
	}
	there, err := t.Lstat(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) && !t.Exists(path.Dir(p)) {
		// dpkg would fail; archives made by hand lack directories.
		if err := t.MkdirAll(path.Dir(p), 0o755); err != nil {
			return err
		}
	}
	if there != nil && n.IsDir() {
		if target, err := t.Stat(p); err == nil && target.IsDir() {
			return nil
		}
		if err := t.Remove(p); err != nil {
			return err
		}
	}
	if there != nil && there.IsDir() {
		if n.IsSymlink() {
			return nil
		}
		if err := t.RemoveAll(p); err != nil {
			return err
		}
	}
	return t.Put(p, n)
}

// digest returns a file's MD5 as dpkg's database keeps it.
func digest(n *tree.Inode) (string, error) {
	h := md5.New()
	if n.Content != nil {
		if _, err := io.Copy(h, io.NewSectionReader(n.Content, 0, n.Content.Size())); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
