// Package ldcache does over a tree what ldconfig(8) does on a running system:
// it writes /etc/ld.so.cache and keeps the links from sonames to libraries.
//
// The cache is glibc's format 1.1 (glibc-ld.so.cache1.1, since glibc 2.33)
// with its extension section, byte for byte as Debian's glibc 2.36 to 2.41
// write it: elf/ldconfig.c, elf/cache.c and sysdeps/generic/dl-cache.h in
// glibc's source, with Debian's two changes (multiarch directories are built
// in, links of dynamic linkers stay as they are).
//
// Not supported: a.out libraries, big-endian machines, x86 ISA level notes in
// glibc-hwcaps directories, and the auxiliary cache
// /var/cache/ldconfig/aux-cache, which holds inode numbers and would be wrong
// on every card. Architectures: amd64, arm64, armhf, i386.
package ldcache

import (
	"bytes"
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

const (
	cachePath    = "/etc/ld.so.cache"
	configPath   = "/etc/ld.so.conf"
	programPath  = "/usr/sbin/ldconfig"
	hwcapsFolder = "glibc-hwcaps"
)

// Update makes /etc/ld.so.cache and the soname links anew. The tree's own
// /usr/sbin/ldconfig tells the machine and the version that goes into the
// cache.
func Update(t *tree.Tree) error {
	generator, machine, err := program(t)
	if err != nil {
		return err
	}
	dirs := &dirList{tree: t}
	if err := dirs.readConfig(configPath, 0); err != nil {
		return err
	}
	triplet := machine.triplet()
	for _, dir := range []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib", "/usr/lib"} {
		dirs.add(dir)
	}
	c := cache{generator: generator}
	for _, dir := range dirs.list {
		if dir.hwcaps != "" {
			c.strings.add(dir.hwcaps)
		}
		libs, err := search(t, dir, machine)
		if err != nil {
			return fmt.Errorf("directory %s: %w", dir.path, err)
		}
		for _, lib := range libs {
			name := lib.name
			if dir.hwcaps == "" {
				name = lib.soname // relies on the link
			}
			c.add(entry{
				soname: lib.soname,
				path:   dir.path + "/" + name,
				flags:  lib.flags,
				hwcaps: dir.hwcaps,
			})
		}
	}
	return write(t, cachePath, c.encode())
}

// write replaces a file as rename(2) does, so that a hard link or a link in
// its place is not written through.
func write(t *tree.Tree, p string, data []byte) error {
	if err := t.Put(p, &tree.Inode{
		Mode:    tree.TypeRegular | 0o644,
		ModTime: t.Epoch(),
		Content: tree.Bytes(data),
	}); err != nil {
		return fmt.Errorf("cannot write the library cache: %w", err)
	}
	return nil
}

// program reads from the tree's ldconfig what depends on its build: the
// string that names it in the cache, and the machine it is for.
func program(t *tree.Tree) (string, machine, error) {
	data, err := t.ReadFile(programPath)
	if err != nil {
		return "", 0, fmt.Errorf("cannot tell the version of ldconfig: %w", err)
	}
	e, err := parseHeader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", programPath, err)
	}
	m := machine(e.machine)
	if m.triplet() == "" {
		return "", 0, fmt.Errorf("%s: cannot make a library cache for ELF machine %d", programPath, e.machine)
	}
	start := bytes.Index(data, []byte("ldconfig ("))
	if start < 0 {
		return "", 0, fmt.Errorf("%s: cannot find its version string", programPath)
	}
	end := bytes.IndexByte(data[start:], 0)
	if end < 0 || end > 200 {
		return "", 0, fmt.Errorf("%s: its version string has no end", programPath)
	}
	return string(data[start : start+end]), m, nil
}

type directory struct {
	path   string // as configured, links and all
	node   *tree.Inode
	hwcaps string // name below glibc-hwcaps
}

type dirList struct {
	tree *tree.Tree
	list []directory
}

// readConfig reads an ld.so.conf file; a missing one is no error.
func (d *dirList) readConfig(name string, depth int) error {
	if depth > 16 {
		return fmt.Errorf("%s: cannot include configuration files more than 16 deep", name)
	}
	data, err := d.tree.ReadFile(name)
	if err != nil {
		return nil // ldconfig goes on without it
	}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, "\x00")
		line = strings.Trim(line, " \t\n\v\f\r")
		word, rest := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 {
			word, rest = line[:i], line[i+1:]
		}
		switch {
		case line == "":
		case word == "include" && rest != "":
			for _, pattern := range strings.Fields(rest) {
				if !strings.HasPrefix(pattern, "/") {
					pattern = path.Join(path.Dir(name), pattern)
				}
				for _, file := range d.glob(pattern) {
					if err := d.readConfig(file, depth+1); err != nil {
						return err
					}
				}
			}
		case strings.EqualFold(word, "hwcap") && rest != "": // obsolete, ignored
		default:
			dir, _, _ := strings.Cut(line, "=") // libc type, obsolete
			d.add(strings.TrimRight(dir, " \t\v\f\r"))
		}
	}
	return nil
}

// glob is glob(3) with wildcards in the last component only, which is all
// that ld.so.conf files use.
func (d *dirList) glob(pattern string) []string {
	dir, last := path.Split(pattern)
	names, err := d.tree.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, name := range names {
		if strings.HasPrefix(name, ".") && !strings.HasPrefix(last, ".") {
			continue
		}
		if ok, err := path.Match(last, name); ok && err == nil {
			found = append(found, dir+name)
		}
	}
	return found
}

// add appends a directory that exists and is not there under another name,
// and those of its glibc-hwcaps.
func (d *dirList) add(dir string) {
	dir = strings.TrimRight(dir, "/")
	if dir == "" || !d.addOne(dir, "") {
		return
	}
	parent := dir + "/" + hwcapsFolder
	names, err := d.tree.ReadDir(parent)
	if err != nil {
		return
	}
	for _, name := range names {
		if name[0] != '.' && !strings.Contains(name, ":") {
			d.addOne(parent+"/"+name, name)
		}
	}
}

func (d *dirList) addOne(dir, hwcaps string) bool {
	node, err := d.tree.Stat(dir)
	if err != nil || !node.IsDir() {
		return false
	}
	for _, other := range d.list {
		if other.node == node {
			return false
		}
	}
	d.list = append(d.list, directory{dir, node, hwcaps})
	return true
}

type library struct {
	name, soname string
	flags        int32
	isLink       bool
}

// search finds the libraries of a directory, the best of each soname, and
// repairs their links.
func search(t *tree.Tree, dir directory, m machine) ([]library, error) {
	names, err := t.ReadDir(dir.path)
	if err != nil {
		return nil, err
	}
	best := map[string]library{}
	for _, name := range names {
		if !isLibraryName(name) {
			continue
		}
		full := dir.path + "/" + name
		there, err := t.Lstat(full)
		if err != nil {
			return nil, err
		}
		isLink := there.IsSymlink()
		node, err := t.Stat(full)
		if err != nil {
			if isLink && strings.Contains(name, ".so.") { // stale
				if err := t.Remove(full); err != nil {
					return nil, err
				}
			}
			continue
		}
		if !node.IsRegular() || node.Content == nil {
			continue
		}
		elf, err := parseLibrary(node.Content, node.Size())
		if err != nil {
			continue // ldconfig warns and goes on
		}
		flags, ok := m.flags(elf)
		if !ok {
			continue
		}
		lib := library{name: name, soname: cmp.Or(elf.soname, name), flags: flags, isLink: isLink}
		if isLink && name != lib.soname {
			// Only libx.so of a soname libx.so.N is a link for the
			// compiler; any other link stands for the file itself.
			lib.isLink = strings.HasSuffix(name, ".so") && strings.HasPrefix(lib.soname, name)
		}
		if lib.isLink {
			lib.soname = name
		}
		old, seen := best[lib.soname]
		switch {
		case !seen:
			best[lib.soname] = lib
		case old.isLink && !lib.isLink,
			old.isLink == lib.isLink && compareNames(old.name, lib.name) < 0:
			old.name, old.isLink = lib.name, lib.isLink
			best[lib.soname] = old
		}
	}
	libs := make([]library, 0, len(best))
	for _, lib := range best {
		libs = append(libs, lib)
	}
	slices.SortFunc(libs, func(a, b library) int { return cmp.Compare(a.soname, b.soname) })
	if dir.hwcaps != "" {
		return libs, nil
	}
	for _, lib := range libs {
		if !lib.isLink {
			if err := link(t, dir.path, lib); err != nil {
				return nil, err
			}
		}
	}
	return libs, nil
}

// isLibraryName is the heuristic of glibc's elf/dl-is_dso.h, without the
// temporary names of dpkg, rpm and prelink.
func isLibraryName(name string) bool {
	if strings.Contains(name, ";") || strings.HasSuffix(name, ".dpkg-new") ||
		strings.HasSuffix(name, ".dpkg-tmp") || strings.Contains(name, ".#prelink#") {
		return false
	}
	if strings.HasPrefix(name, "ld.so.") || strings.HasPrefix(name, "ld64.so.") {
		return true
	}
	return (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "ld-")) && strings.Contains(name, ".so")
}

// dynamicLinkers are the sonames whose existing links Debian's ldconfig
// leaves alone, lest it break another architecture on the same system.
var dynamicLinkers = []string{
	"ld-linux-aarch64.so.1", "ld-linux-armhf.so.3", "ld-linux-x32.so.2", "ld-linux-x86-64.so.2",
	"ld-linux.so.2", "ld-linux.so.3", "ld.so.1", "ld64.so.1", "ld64.so.2",
}

// link makes the soname a link to the library unless it leads there already
// or is a file of its own.
func link(t *tree.Tree, dir string, lib library) error {
	soname := dir + "/" + lib.soname
	if strings.Contains(lib.soname, "/") {
		return nil // no file of this directory; ldconfig fails to link it and goes on
	}
	there, err := t.Lstat(soname)
	if err != nil {
		return t.Symlink(lib.name, soname)
	}
	if !there.IsSymlink() {
		return nil
	}
	if to, err := t.Stat(soname); err == nil {
		file, err := t.Stat(dir + "/" + lib.name)
		if err != nil {
			return err
		}
		if to == file || slices.Contains(dynamicLinkers, lib.soname) {
			return nil
		}
	}
	if err := t.Remove(soname); err != nil {
		return err
	}
	return t.Symlink(lib.name, soname)
}
