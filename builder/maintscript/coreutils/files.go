package coreutils

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

func basename(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "+as:z", "multiple=a", "suffix:=s", "zero=z")
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	suffix, multiple, end := "", has(opts, "a", "s"), "\n"
	for _, o := range opts {
		switch o.name {
		case "s":
			suffix = o.value
		case "z":
			end = "\x00"
		}
	}
	if !multiple {
		if len(args) > 2 {
			p.Errorf("extra operand '%s'", args[2])
			return 1
		}
		if len(args) == 2 {
			suffix = args[1]
		}
		args = args[:1]
	}
	var o out
	for _, a := range args {
		name := baseOf(a)
		if name != suffix {
			name = strings.TrimSuffix(name, suffix)
		}
		o.WriteString(name + end)
	}
	return o.done(p, 0)
}

// baseOf returns the last element of a path as basename(1) does: "" stays "",
// "/" stays "/".
func baseOf(s string) string {
	t := strings.TrimRight(s, "/")
	if t == "" && s != "" {
		return "/"
	}
	return t[strings.LastIndexByte(t, '/')+1:]
}

func dirOf(s string) string {
	t := strings.TrimRight(s, "/")
	if t == "" {
		if s != "" {
			return "/"
		}
		return "."
	}
	i := strings.LastIndexByte(t, '/')
	if i < 0 {
		return "."
	}
	if d := strings.TrimRight(t[:i], "/"); d != "" {
		return d
	}
	return "/"
}

func dirname(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "+z", "zero=z")
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	end := "\n"
	if has(opts, "z") {
		end = "\x00"
	}
	var o out
	for _, a := range args {
		o.WriteString(dirOf(a) + end)
	}
	return o.done(p, 0)
}

// canonical resolves a path: "e" wants all of it to exist, "f" all but the
// last element, "m" nothing.
func canonical(p *shell.Process, name, mode string) (string, error) {
	full := p.Path(name)
	if full == "" {
		return "", fs.ErrNotExist
	}
	switch mode {
	case "e":
		if _, err := p.Stat(name); err != nil {
			return "", err
		}
	case "m":
		// Resolve what exists, keep the rest.
		rest := ""
		for dir := tree.Clean(full); ; dir = path.Dir(dir) {
			if real, err := p.Tree.RealPath(dir); err == nil {
				return path.Join(real, rest), nil
			}
			if dir == "/" {
				return path.Join(dir, rest), nil
			}
			rest = path.Join(path.Base(dir), rest)
		}
	}
	return p.Tree.RealPath(full)
}

func readlink(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "femnqsvz", "canonicalize=f", "canonicalize-existing=e", "canonicalize-missing=m", "no-newline=n", "quiet=q",
		"silent=s", "verbose=v", "zero=z")
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	mode, end := "", "\n"
	for _, o := range opts {
		switch o.name {
		case "f", "e", "m":
			mode = o.name
		case "n":
			if len(args) == 1 {
				end = ""
			}
		case "z":
			end = "\x00"
		}
	}
	status := 0
	var o out
	for _, a := range args {
		var target string
		var err error
		if mode == "" {
			target, err = p.Tree.Readlink(p.Path(a))
		} else {
			target, err = canonical(p, a, mode)
		}
		if err != nil {
			if has(opts, "v") {
				p.Errorf("%s: %s", a, shell.Reason(err))
			}
			status = 1
			continue
		}
		o.WriteString(target + end)
	}
	return o.done(p, status)
}

func realpath(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "+eELmPqsz", "canonicalize-existing=e", "canonicalize-missing=m", "canonicalize=E", "logical=L", "physical=P",
		"quiet=q", "strip=s", "no-symlinks=s", "zero=z", "relative-to:=to", "relative-base:=base")
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	mode, end, relative := "f", "\n", ""
	for _, o := range opts {
		switch o.name {
		case "e", "m", "s":
			mode = o.name
		case "z":
			end = "\x00"
		case "to":
			relative = o.value
		case "base", "L":
			p.Unsupported("option --%s", o.name)
		}
	}
	status := 0
	var o out
	for _, a := range args {
		var real string
		var err error
		if mode == "s" {
			real = tree.Clean(p.Path(a))
		} else {
			real, err = canonical(p, a, mode)
		}
		if err != nil {
			if !has(opts, "q") {
				p.Errorf("%s: %s", a, shell.Reason(err))
			}
			status = 1
			continue
		}
		if relative != "" {
			base, err := canonical(p, relative, mode)
			if err != nil {
				p.Errorf("%s: %s", relative, shell.Reason(err))
				return 1
			}
			real = relativeTo(base, real)
		}
		o.WriteString(real + end)
	}
	return o.done(p, status)
}

// relativeTo returns target as seen from the directory base; both absolute.
func relativeTo(base, target string) string {
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == '/' })
	}
	b, t := split(base), split(target)
	for len(b) > 0 && len(t) > 0 && b[0] == t[0] {
		b, t = b[1:], t[1:]
	}
	up := slices.Repeat([]string{".."}, len(b))
	if s := strings.Join(append(up, t...), "/"); s != "" {
		return s
	}
	return "."
}

func mkdir(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "pm:vZ", "parents=p", "mode:=m", "verbose=v", "context::=Z")
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	perm := uint32(0o777) &^ p.Umask
	setMode := false
	for _, o := range opts {
		if o.name == "m" {
			m, err := shell.ParseMode(o.value, 0o777, true, p.Umask)
			if err != nil {
				p.Errorf("%s", err)
				return 1
			}
			perm, setMode = m, true
		}
	}
	var o out
	status := 0
	for _, a := range args {
		made, err := makeDir(p, a, perm, has(opts, "p"))
		if err != nil {
			p.Errorf("cannot create directory '%s': %s", a, shell.Reason(err))
			status = 1
			continue
		}
		if setMode && len(made) > 0 && made[len(made)-1] == a {
			sure(p, p.Tree.Chmod(p.Path(a), perm))
		}
		for _, m := range made {
			if has(opts, "v") {
				o.line("mkdir: created directory '" + m + "'")
			}
		}
	}
	return o.done(p, status)
}

// makeDir makes a directory, and with parents those above it, which get the
// mode that the umask leaves and u+wx; it returns what it made.
func makeDir(p *shell.Process, name string, perm uint32, parents bool) (made []string, err error) {
	if name == "" {
		return nil, fs.ErrNotExist
	}
	if parents {
		if n, err := p.Stat(name); err == nil {
			if !n.IsDir() {
				return nil, fs.ErrExist
			}
			return nil, nil
		}
		if up := dirOf(name); up != name && up != "." {
			if made, err = makeDir(p, up, 0o777&^p.Umask|0o300, true); err != nil {
				return made, err
			}
		}
	}
	full := strings.TrimRight(p.Path(name), "/")
	if base := path.Base(full); base == "." || base == ".." {
		if parents {
			return made, nil
		}
		return made, fs.ErrExist
	}
	if err := p.Tree.Mkdir(full, inherited(p, full, perm)); err != nil {
		return made, err
	}
	inheritGroup(p, full)
	return append(made, name), nil
}

// inherited adds the set-group-id bit that a new directory takes from the one
// above it.
func inherited(p *shell.Process, full string, perm uint32) uint32 {
	if n, err := p.Tree.Stat(path.Dir(full)); err == nil && n.Mode&0o2000 != 0 {
		perm |= 0o2000
	}
	return perm
}

// inheritGroup gives a new file the group of a set-group-id directory.
func inheritGroup(p *shell.Process, full string) {
	if n, err := p.Tree.Stat(path.Dir(full)); err == nil && n.Mode&0o2000 != 0 && n.GID != 0 {
		sure(p, p.Tree.Lchown(full, 0, n.GID))
	}
}

func rmdir(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "pv", "parents=p", "verbose=v", "ignore-fail-on-non-empty=i")
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	status := 0
	for _, a := range args {
		for name := a; ; name = dirOf(name) {
			err := removeDir(p, name)
			if err != nil {
				if !(has(opts, "i") && errors.Is(err, tree.ErrNotEmpty)) {
					p.Errorf("failed to remove '%s': %s", name, shell.Reason(err))
					status = 1
				}
				break
			}
			if has(opts, "v") {
				fmt.Fprintf(p.Stdout, "rmdir: removing directory, '%s'\n", name)
			}
			if !has(opts, "p") || dirOf(name) == "." || dirOf(name) == "/" {
				break
			}
		}
	}
	return status
}

func removeDir(p *shell.Process, name string) error {
	n, err := p.Lstat(name)
	if err != nil {
		return err
	}
	if !n.IsDir() {
		return tree.ErrNotDir
	}
	if base := path.Base(p.Path(name)); base == "." {
		return tree.ErrInvalid
	}
	return p.Tree.Remove(p.Path(name))
}

func rm(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "frRivdI", "force=f", "recursive=r", "verbose=v", "dir=d", "interactive::=interactive", "one-file-system", "preserve-root::=pr",
		"no-preserve-root")
	force, recursive := has(opts, "f"), has(opts, "r", "R")
	if len(args) == 0 {
		if force {
			return 0
		}
		p.Errorf("missing operand")
		return 1
	}
	if has(opts, "i", "I", "interactive") {
		p.Unsupported("asking")
	}
	status := 0
	for _, a := range args {
		fail := func(reason string) {
			p.Errorf("cannot remove '%s': %s", a, reason)
			status = 1
		}
		base := path.Base(a)
		n, err := p.Lstat(a)
		switch {
		case force && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, tree.ErrNotDir)):
			continue
		case err != nil:
			fail(shell.Reason(err))
			continue
		case base == "." || base == "..":
			p.Errorf("refusing to remove '.' or '..' directory: skipping '%s'", a)
			status = 1
			continue
		case n.IsDir() && !recursive && !has(opts, "d"):
			fail("Is a directory")
			continue
		}
		if real, err := p.Tree.RealPath(p.Path(a)); n.IsDir() && err == nil && real == "/" {
			p.Errorf("it is dangerous to operate recursively on '/'")
			return 1
		}
		if n.IsDir() && recursive {
			err = p.Tree.RemoveAll(strings.TrimRight(p.Path(a), "/"))
		} else {
			err = p.Tree.Remove(p.Path(a))
		}
		if err != nil {
			fail(shell.Reason(err))
			continue
		}
		if has(opts, "v") {
			kind := ""
			if n.IsDir() {
				kind = "directory "
			}
			fmt.Fprintf(p.Stdout, "removed %s'%s'\n", kind, a)
		}
	}
	return status
}

func unlink(_ context.Context, p *shell.Process) int {
	_, args := parse(p, "")
	if len(args) != 1 {
		p.Errorf("missing operand")
		return 1
	}
	n, err := p.Lstat(args[0])
	if err == nil && n.IsDir() {
		err = tree.ErrIsDir
	}
	if err == nil {
		err = p.Tree.Remove(p.Path(args[0]))
	}
	if err != nil {
		p.Errorf("cannot unlink '%s': %s", args[0], shell.Reason(err))
		return 1
	}
	return 0
}

// targets works out, for cp, mv, ln and install, what goes where: into a
// directory (-t, or the last operand) or to a name.
func targets(p *shell.Process, opts []option, args []string) (pairs [][2]string, ok bool) {
	dir, given := "", false
	for _, o := range opts {
		if o.name == "t" {
			dir, given = o.value, true
		}
	}
	if len(args) == 0 || !given && len(args) == 1 {
		p.Errorf("missing file operand")
		return nil, false
	}
	if !given {
		last := args[len(args)-1]
		n, err := p.Stat(last)
		isDir := err == nil && n.IsDir() && !has(opts, "T")
		if isDir && has(opts, "n-dereference") { // ln -n: a link to a directory is a name
			if l, err := p.Lstat(last); err == nil && l.IsSymlink() {
				isDir = false
			}
		}
		if !isDir {
			if len(args) > 2 {
				p.Errorf("target '%s' is not a directory", last)
				return nil, false
			}
			return [][2]string{{args[0], last}}, true
		}
		dir, args = last, args[:len(args)-1]
	} else if n, err := p.Stat(dir); err != nil || !n.IsDir() {
		p.Errorf("target directory '%s': Not a directory", dir)
		return nil, false
	}
	for _, a := range args {
		pairs = append(pairs, [2]string{a, strings.TrimSuffix(dir, "/") + "/" + baseOf(a)})
	}
	return pairs, true
}

// same reports whether two names lead to one file.
func same(p *shell.Process, a, b string) bool {
	x, errX := p.Lstat(a)
	y, errY := p.Lstat(b)
	return errX == nil && errY == nil && x == y
}

// backup moves what lies at a destination aside, as -b, --backup and
// --suffix ask for; only simple and existing backups without numbers.
func backup(p *shell.Process, opts []option, dest string) error {
	want, suffix := false, "~"
	if s := p.Env["SIMPLE_BACKUP_SUFFIX"]; s != "" {
		suffix = s
	}
	for _, o := range opts {
		switch o.name {
		case "b":
			want = true
			switch o.value {
			case "numbered", "t":
				p.Unsupported("numbered backups")
			case "none", "off":
				want = false
			}
		case "S":
			suffix = o.value
			want = true
		}
	}
	if !want {
		return nil
	}
	if _, err := p.Lstat(dest); err != nil {
		return nil
	}
	return p.Tree.Rename(p.Path(dest), p.Path(dest+suffix))
}

// copier is what cp and install have in common.
type copier struct {
	p                          *shell.Process
	opts                       []option
	recursive, force, link     bool
	followArgs, followAll      bool
	mode, owner, times, xattrs bool // what to preserve
	links                      map[*tree.Inode]string
	keepLinks                  bool
	symlink                    bool
	update, noClobber, verbose bool
	removeFirst                bool
	status                     int
}

func cp(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "abdfiHlLnPpRrsS:t:TuvxZ", "archive=a", "backup::=b", "force=f", "interactive=i", "link=l", "dereference=L",
		"no-dereference=P", "preserve::=preserve", "no-preserve:=no-preserve", "recursive=R", "symbolic-link=s", "suffix:=S",
		"target-directory:=t", "no-target-directory=T", "update::=u", "verbose=v", "one-file-system=x", "no-clobber=n",
		"remove-destination=remove", "reflink::=reflink", "sparse:=sparse", "attributes-only=attributes", "parents", "strip-trailing-slashes=strip",
		"context::=Z")
	c := &copier{p: p, opts: opts, links: map[*tree.Inode]string{}, followAll: true, followArgs: true}
	follow := ""
	for _, o := range opts {
		switch o.name {
		case "a":
			c.recursive, c.mode, c.owner, c.times, c.xattrs, c.keepLinks = true, true, true, true, true, true
			follow = "P"
		case "d":
			c.keepLinks = true
			follow = "P"
		case "f":
			c.force = true
		case "l":
			c.link = true
		case "s":
			c.symlink = true
		case "L", "P", "H":
			follow = o.name
		case "n":
			c.noClobber = true
		case "R", "r":
			c.recursive = true
		case "u":
			c.update = true
			if o.value != "" && o.value != "older" {
				p.Unsupported("--update=%s", o.value)
			}
		case "v":
			c.verbose = true
		case "remove":
			c.removeFirst = true
		case "p":
			c.mode, c.owner, c.times = true, true, true
		case "preserve", "no-preserve":
			on := o.name == "preserve"
			if o.value == "" {
				c.mode, c.owner, c.times = true, true, true
			}
			for what := range strings.SplitSeq(o.value, ",") {
				switch what {
				case "mode":
					c.mode = on
				case "ownership":
					c.owner = on
				case "timestamps":
					c.times = on
				case "links":
					c.keepLinks = on
				case "xattr":
					c.xattrs = on
				case "all":
					c.mode, c.owner, c.times, c.xattrs, c.keepLinks = on, on, on, on, on
				case "", "context":
				default:
					p.Unsupported("--%s=%s", o.name, what)
				}
			}
		case "i", "attributes", "parents":
			p.Unsupported("option %s", o.name)
		}
	}
	switch {
	case follow == "L":
	case follow == "H":
		c.followAll = false
	case follow == "P" || c.recursive:
		c.followAll, c.followArgs = false, false
	}
	if c.link {
		c.followAll, c.followArgs = follow == "L", follow == "L"
	}
	pairs, ok := targets(p, opts, args)
	if !ok {
		return 1
	}
	for _, pair := range pairs {
		c.copy(pair[0], pair[1], c.followArgs, 0)
	}
	return c.status
}

func (c *copier) fail(format string, args ...any) {
	c.p.Errorf(format, args...)
	c.status = 1
}

func (c *copier) copy(from, to string, follow bool, depth int) {
	p := c.p
	look := p.Lstat
	if follow {
		look = p.Stat
	}
	n, err := look(from)
	if err != nil {
		c.fail("cannot stat '%s': %s", from, shell.Reason(err))
		return
	}
	if n.IsDir() {
		if !c.recursive {
			c.fail("-r not specified; omitting directory '%s'", from)
			return
		}
		c.directory(n, from, to, depth)
		return
	}
	old, err := p.Lstat(to)
	if err == nil {
		if c.noClobber {
			return
		}
		target, terr := p.Stat(to)
		switch {
		case old.IsDir():
			c.fail("cannot overwrite directory '%s' with non-directory", to)
			return
		case old == n || terr == nil && target == n && !c.removeFirst && !n.IsSymlink():
			c.fail("'%s' and '%s' are the same file", from, to)
			return
		case c.update && old.ModTime >= n.ModTime:
			return
		}
		if err := backup(p, c.opts, to); err != nil {
			c.fail("cannot backup '%s': %s", to, shell.Reason(err))
			return
		}
		if c.removeFirst || c.link && c.force || c.symlink && c.force {
			sure(p, p.Tree.Remove(p.Path(to)))
		}
	}
	if c.verbose {
		fmt.Fprintf(p.Stdout, "'%s' -> '%s'\n", from, to)
	}
	if err := c.file(n, from, to); err != nil {
		c.fail("cannot create '%s': %s", to, shell.Reason(err))
	}
}

func (c *copier) file(n *tree.Inode, from, to string) error {
	p, full := c.p, c.p.Path(to)
	switch {
	case c.link:
		source := p.Path(from)
		if c.followArgs {
			source, _ = p.Tree.RealPath(source)
		}
		return p.Tree.Link(source, full)
	case c.symlink:
		return p.Tree.Symlink(from, full)
	case c.keepLinks && n.Links() > 1:
		if first, ok := c.links[n]; ok {
			sure(p, p.Tree.Remove(full))
			return p.Tree.Link(first, full)
		}
		c.links[n] = full
	}
	if n.IsSymlink() {
		if l, err := p.Lstat(to); err == nil && !l.IsDir() {
			if err := p.Tree.Remove(full); err != nil {
				return err
			}
		}
		if err := p.Tree.Symlink(n.Target, full); err != nil {
			return err
		}
		if c.owner {
			sure(p, p.Tree.Lchown(full, n.UID, n.GID))
		}
		if c.times {
			return p.Tree.SetModTime(full, n.ModTime)
		}
		inheritGroup(p, full)
		return nil
	}
	if !n.IsRegular() {
		switch n.Type() {
		case tree.TypeChar, tree.TypeBlock, tree.TypeFifo, tree.TypeSocket:
			if !c.recursive {
				data, err := p.ReadFile(from)
				if err != nil {
					return err
				}
				return p.WriteFile(to, data)
			}
			if err := p.Tree.Mknod(full, n.Type()|n.Perm()&^p.Umask, n.Major, n.Minor); err != nil {
				return err
			}
			return c.attributes(n, full)
		}
	}
	if strings.HasSuffix(to, "/") {
		return tree.ErrNotDir
	}
	target, err := p.Stat(to)
	if err == nil && !target.IsRegular() { // a device
		data, err := p.ReadFile(from)
		if err != nil {
			return err
		}
		return p.WriteFile(to, data)
	}
	isNew := err != nil
	if l, lerr := p.Lstat(to); isNew && lerr == nil && l.IsSymlink() {
		if !c.removeFirst && !c.force {
			return errors.New("not writing through dangling symlink")
		}
	}
	if err := p.Tree.WriteContent(full, n.Content, n.Perm()&^(p.Umask|0o6000)); err != nil {
		return err
	}
	if isNew {
		inheritGroup(p, full)
	}
	return c.attributes(n, full)
}

func (c *copier) attributes(n *tree.Inode, full string) error {
	t := c.p.Tree
	if c.owner {
		if err := t.Chown(full, n.UID, n.GID); err != nil {
			return err
		}
	}
	if c.mode {
		if err := t.Chmod(full, n.Perm()); err != nil {
			return err
		}
	}
	if c.xattrs {
		for _, name := range slices.Sorted(maps.Keys(n.Xattrs)) {
			if err := t.SetXattr(full, name, n.Xattrs[name]); err != nil {
				return err
			}
		}
	}
	if c.times {
		real, err := t.RealPath(full)
		if err != nil {
			return err
		}
		return t.SetModTime(real, n.ModTime)
	}
	return nil
}

// maxDepth bounds how deep directories are walked.
const maxDepth = 200

func (c *copier) directory(n *tree.Inode, from, to string, depth int) {
	p := c.p
	if depth > maxDepth {
		p.Unsupported("directories more than %d deep", maxDepth)
	}
	if old, err := p.Stat(to); err == nil && !old.IsDir() {
		c.fail("cannot overwrite non-directory '%s' with directory '%s'", to, from)
		return
	} else if err == nil && old == n {
		c.fail("cannot copy a directory, '%s', into itself, '%s'", from, to)
		return
	}
	src, _ := p.Tree.RealPath(p.Path(from))
	dst, _ := p.Tree.RealPath(p.Path(to))
	if strings.HasPrefix(dst+"/", src+"/") {
		c.fail("cannot copy a directory, '%s', into itself, '%s'", from, to)
		return
	}
	isNew := false
	if _, err := p.Stat(to); err != nil {
		full := strings.TrimRight(p.Path(to), "/")
		if err := p.Tree.Mkdir(full, inherited(p, full, n.Perm()&^p.Umask)); err != nil {
			c.fail("cannot create directory '%s': %s", to, shell.Reason(err))
			return
		}
		inheritGroup(p, full)
		isNew = true
		if c.verbose {
			fmt.Fprintf(p.Stdout, "'%s' -> '%s'\n", from, to)
		}
	}
	names, err := p.Tree.ReadDir(p.Path(from))
	if err != nil {
		c.fail("cannot access '%s': %s", from, shell.Reason(err))
		return
	}
	for _, name := range names {
		c.copy(strings.TrimSuffix(from, "/")+"/"+name, strings.TrimSuffix(to, "/")+"/"+name, c.followAll, depth+1)
	}
	if isNew || c.mode || c.owner {
		if err := c.attributes(n, p.Path(to)); err != nil {
			c.fail("failed to preserve attributes of '%s': %s", to, shell.Reason(err))
		}
	}
}

func mv(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "bfinS:t:TuvZ", "backup::=b", "force=f", "interactive=i", "no-clobber=n", "suffix:=S", "target-directory:=t",
		"no-target-directory=T", "update::=u", "verbose=v", "strip-trailing-slashes=strip", "no-copy")
	pairs, ok := targets(p, opts, args)
	if !ok {
		return 1
	}
	status := 0
	for _, pair := range pairs {
		from, to := pair[0], pair[1]
		fail := func(format string, args ...any) {
			p.Errorf(format, args...)
			status = 1
		}
		n, err := p.Lstat(from)
		if err != nil {
			fail("cannot stat '%s': %s", from, shell.Reason(err))
			continue
		}
		if old, err := p.Lstat(to); err == nil {
			if has(opts, "n") || has(opts, "u") && old.ModTime >= n.ModTime {
				continue
			}
			switch {
			case old == n:
				if path.Clean(p.Path(from)) == path.Clean(p.Path(to)) || !n.IsRegular() || n.Links() < 2 {
					fail("'%s' and '%s' are the same file", from, to)
					continue
				}
				sure(p, p.Tree.Remove(p.Path(from))) // two links of one file
				continue
			case old.IsDir() && !n.IsDir():
				fail("cannot overwrite directory '%s' with non-directory", to)
				continue
			case !old.IsDir() && n.IsDir():
				fail("cannot overwrite non-directory '%s' with directory '%s'", to, from)
				continue
			}
			if err := backup(p, opts, to); err != nil {
				fail("cannot backup '%s': %s", to, shell.Reason(err))
				continue
			}
		}
		err = p.Tree.Rename(strings.TrimRight(p.Path(from), "/"), strings.TrimRight(p.Path(to), "/"))
		if err != nil {
			fail("cannot move '%s' to '%s': %s", from, to, shell.Reason(err))
			continue
		}
		if has(opts, "v") {
			fmt.Fprintf(p.Stdout, "renamed '%s' -> '%s'\n", from, to)
		}
	}
	return status
}

func ln(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "bfinsrLPS:t:TvdF", "backup::=b", "force=f", "interactive=i", "no-dereference=n", "symbolic=s", "relative=r",
		"logical=L", "physical=P", "suffix:=S", "target-directory:=t", "no-target-directory=T", "verbose=v")
	if len(args) == 1 && !has(opts, "t") {
		args = append(args, ".")
	}
	if has(opts, "n") {
		opts = append(opts, option{name: "n-dereference"})
	}
	pairs, ok := targets(p, opts, args)
	if !ok {
		return 1
	}
	status := 0
	for _, pair := range pairs {
		target, name := pair[0], pair[1]
		full := p.Path(name)
		symbolic := has(opts, "s")
		if symbolic && has(opts, "r") {
			base, err := canonical(p, dirOf(name), "m")
			var real string
			if err == nil {
				real, err = canonical(p, target, "m")
			}
			if err != nil {
				p.Errorf("failed to create symbolic link '%s': %s", name, shell.Reason(err))
				status = 1
				continue
			}
			target = relativeTo(base, real)
		}
		kind := "hard"
		if symbolic {
			kind = "symbolic"
		} else if n, err := p.Stat(target); err != nil && !has(opts, "P") {
			if _, lerr := p.Lstat(target); lerr != nil {
				p.Errorf("failed to access '%s': %s", target, shell.Reason(err))
				status = 1
				continue
			}
		} else if err == nil && n.IsDir() {
			p.Errorf("%s: hard link not allowed for directory", target)
			status = 1
			continue
		}
		fail := func(err error) {
			p.Errorf("failed to create %s link '%s': %s", kind, name, shell.Reason(err))
			status = 1
		}
		if old, err := p.Lstat(name); err == nil {
			if has(opts, "f") || has(opts, "b", "S") {
				switch {
				case old.IsDir():
					p.Errorf("%s: cannot overwrite directory", name)
					status = 1
					continue
				case !symbolic && same(p, target, name):
					if path.Clean(p.Path(target)) == path.Clean(full) {
						p.Errorf("'%s' and '%s' are the same file", target, name)
						status = 1
					}
					continue
				}
				if err := backup(p, opts, name); err != nil {
					fail(err)
					continue
				}
				if _, err := p.Lstat(name); err == nil {
					sure(p, p.Tree.Remove(full))
				}
			}
		}
		var err error
		if symbolic {
			err = p.Tree.Symlink(target, full)
			if err == nil {
				inheritGroup(p, full)
			}
		} else {
			source := p.Path(target)
			if has(opts, "L") {
				source, _ = p.Tree.RealPath(source)
			}
			err = p.Tree.Link(source, full)
		}
		if err != nil {
			fail(err)
			continue
		}
		if has(opts, "v") {
			arrow := "=>"
			if symbolic {
				arrow = "->"
			}
			fmt.Fprintf(p.Stdout, "'%s' %s '%s'\n", name, arrow, target)
		}
	}
	return status
}

func install(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "bcCdDg:m:o:pst:TvS:Z", "backup::=b", "compare=C", "directory=d", "group:=g", "mode:=m", "owner:=o",
		"preserve-timestamps=p", "strip=s", "target-directory:=t", "no-target-directory=T", "verbose=v", "suffix:=S")
	mode, uid, gid := "755", -1, -1
	for _, o := range opts {
		var err error
		switch o.name {
		case "m":
			mode = o.value
		case "o":
			uid, err = lookupID(p, o.value, false)
		case "g":
			gid, err = lookupID(p, o.value, true)
		}
		if err != nil {
			p.Errorf("%s", err)
			return 1
		}
	}
	dirs := has(opts, "d")
	perm, err := shell.ParseMode(mode, 0, dirs, 0)
	if err != nil {
		p.Errorf("%s", err)
		return 1
	}
	finish := func(name string) {
		full := p.Path(name)
		n, err := p.Tree.Stat(full)
		if err != nil {
			return
		}
		u, g := n.UID, n.GID
		if uid >= 0 {
			u = uint32(uid)
		}
		if gid >= 0 {
			g = uint32(gid)
		}
		sure(p, p.Tree.Chown(full, u, g))
		sure(p, p.Tree.Chmod(full, perm))
	}
	status := 0
	if dirs {
		for _, a := range args {
			made, err := makeDir(p, a, 0o755, true)
			if err != nil {
				p.Errorf("cannot create directory '%s': %s", a, shell.Reason(err))
				status = 1
				continue
			}
			for _, m := range made {
				sure(p, p.Tree.Chmod(p.Path(m), 0o755))
				if has(opts, "v") {
					fmt.Fprintf(p.Stdout, "install: creating directory '%s'\n", m)
				}
			}
			finish(a)
		}
		return status
	}
	if has(opts, "D") {
		dir := ""
		for _, o := range opts {
			if o.name == "t" {
				dir = o.value
			}
		}
		if dir == "" && len(args) > 1 {
			dir = dirOf(args[len(args)-1])
		}
		if made, err := makeDir(p, dir, 0o755, true); err == nil {
			for _, m := range made {
				sure(p, p.Tree.Chmod(p.Path(m), 0o755))
			}
		}
	}
	pairs, ok := targets(p, opts, args)
	if !ok {
		return 1
	}
	for _, pair := range pairs {
		from, to := pair[0], pair[1]
		n, err := p.Stat(from)
		if err != nil {
			p.Errorf("cannot stat '%s': %s", from, shell.Reason(err))
			status = 1
			continue
		}
		if n.IsDir() {
			p.Errorf("omitting directory '%s'", from)
			status = 1
			continue
		}
		var data []byte
		if !n.IsRegular() {
			if data, err = p.ReadFile(from); err != nil {
				p.Errorf("cannot open '%s': %s", from, shell.Reason(err))
				status = 1
				continue
			}
		}
		if err = backup(p, opts, to); err == nil {
			if l, lerr := p.Lstat(to); lerr == nil && !l.IsDir() { // install always makes a new file
				err = p.Tree.Remove(p.Path(to))
			}
		}
		if err == nil && n.IsRegular() {
			err = p.Tree.WriteContent(p.Path(to), n.Content, 0o600)
		} else if err == nil {
			err = p.Tree.WriteFile(p.Path(to), data, 0o600)
		}
		if err != nil {
			p.Errorf("cannot create regular file '%s': %s", to, shell.Reason(err))
			status = 1
			continue
		}
		finish(to)
		if has(opts, "p") {
			sure(p, p.Tree.SetModTime(p.Path(to), n.ModTime))
		}
		if has(opts, "v") {
			fmt.Fprintf(p.Stdout, "'%s' -> '%s'\n", from, to)
		}
	}
	return status
}

func touch(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "acd:fhmr:t:", "no-create=c", "date:=d", "no-dereference=h", "reference:=r", "time:=time")
	when := p.Tree.Epoch()
	for _, o := range opts {
		switch o.name {
		case "r":
			n, err := p.Stat(o.value)
			if err != nil {
				p.Errorf("failed to get attributes of '%s': %s", o.value, shell.Reason(err))
				return 1
			}
			when = n.ModTime
		case "d":
			t, ok := parseTime(p, o.value)
			if !ok {
				p.Unsupported("the date %q", o.value)
			}
			when = t
		case "t":
			t, ok := parseStamp(o.value)
			if !ok {
				p.Errorf("invalid date format '%s'", o.value)
				return 1
			}
			when = t
		}
	}
	if len(args) == 0 {
		p.Errorf("missing file operand")
		return 1
	}
	status := 0
	for _, a := range args {
		look := p.Stat
		if has(opts, "h") {
			look = p.Lstat
		}
		if _, err := look(a); err != nil {
			if has(opts, "c", "h") {
				continue
			}
			if f, err := p.Append(a); err != nil {
				p.Errorf("cannot touch '%s': %s", a, shell.Reason(err))
				status = 1
				continue
			} else {
				f.Close()
			}
			inheritGroup(p, p.Path(a))
		}
		if has(opts, "a") && !has(opts, "m") {
			continue // no access times here
		}
		full := p.Path(a)
		if !has(opts, "h") {
			full, _ = p.Tree.RealPath(full)
		}
		sure(p, p.Tree.SetModTime(full, when))
	}
	return status
}

func truncate(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "cs:r:o", "no-create=c", "size:=s", "reference:=r")
	size := int64(-1)
	for _, o := range opts {
		if o.name == "s" {
			if strings.ContainsAny(o.value, "+-<>/%") {
				p.Unsupported("the size %q", o.value)
			}
			size = count(p, o.value)
		}
	}
	if size < 0 || size > tree.MaxFile {
		p.Unsupported("this size")
	}
	status := 0
	for _, a := range args {
		data, err := p.ReadFile(a)
		if err != nil && has(opts, "c") {
			continue
		}
		b := make([]byte, size)
		copy(b, data)
		if err := p.WriteFile(a, b); err != nil {
			p.Errorf("cannot open '%s' for writing: %s", a, shell.Reason(err))
			status = 1
		}
	}
	return status
}

// each calls f for a path and, with recursive, for everything below it; links
// found on the way are not followed.
func each(p *shell.Process, name string, recursive bool, depth int, f func(name string, n *tree.Inode)) {
	n, err := p.Lstat(name)
	if err != nil {
		return
	}
	if depth > maxDepth {
		p.Unsupported("directories more than %d deep", maxDepth)
	}
	f(name, n)
	if !recursive || !n.IsDir() {
		return
	}
	names, _ := p.Tree.ReadDir(p.Path(name))
	for _, child := range names {
		each(p, strings.TrimSuffix(name, "/")+"/"+child, true, depth+1, f)
	}
}

func chmod(_ context.Context, p *shell.Process) int {
	// A mode such as -x looks like an option.
	args := slices.Clone(p.Args)
	modeAt := -1
	for i, a := range args[1:] {
		if a == "--" {
			break
		}
		if len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "rwxXstugo,+-=01234567") == "" && strings.IndexByte("rwxXstugo01234567", a[1]) >= 0 {
			modeAt = i + 1
			break
		}
	}
	mode := ""
	if modeAt > 0 {
		mode = args[modeAt]
		args = slices.Delete(args, modeAt, modeAt+1)
	}
	p.Args = args
	opts, files := parse(p, "cfvRh", "changes=c", "silent=f", "quiet=f", "verbose=v", "recursive=R", "reference:=ref", "preserve-root", "no-preserve-root")
	for _, o := range opts {
		if o.name == "ref" {
			n, err := p.Stat(o.value)
			if err != nil {
				p.Errorf("failed to get attributes of '%s': %s", o.value, shell.Reason(err))
				return 1
			}
			mode = fmt.Sprintf("%05o", n.Perm())
		}
	}
	if mode == "" {
		if len(files) == 0 {
			p.Errorf("missing operand")
			return 1
		}
		mode, files = files[0], files[1:]
	}
	if _, err := shell.ParseMode(mode, 0, false, p.Umask); err != nil {
		p.Errorf("invalid mode: '%s'", mode)
		return 1
	}
	if len(files) == 0 {
		p.Errorf("missing operand after '%s'", mode)
		return 1
	}
	status := 0
	for _, a := range files {
		if n, err := p.Stat(a); err != nil {
			if l, lerr := p.Lstat(a); lerr == nil && l.IsSymlink() && has(opts, "R") {
				continue
			}
			if !has(opts, "f") {
				p.Errorf("cannot access '%s': %s", a, shell.Reason(err))
			}
			status = 1
			continue
		} else if !has(opts, "R") {
			perm, _ := shell.ParseMode(mode, n.Perm(), n.IsDir(), p.Umask)
			report(p, opts, a, n, perm)
			sure(p, p.Tree.Chmod(p.Path(a), perm))
			continue
		}
		top := true
		each(p, a, true, 0, func(name string, n *tree.Inode) {
			if n.IsSymlink() {
				if !top {
					return
				}
				n, _ = p.Stat(name)
			}
			top = false
			perm, _ := shell.ParseMode(mode, n.Perm(), n.IsDir(), p.Umask)
			report(p, opts, name, n, perm)
			sure(p, p.Tree.Chmod(p.Path(name), perm))
		})
	}
	return status
}

func report(p *shell.Process, opts []option, name string, n *tree.Inode, perm uint32) {
	changed := n.Perm() != perm
	if has(opts, "c") && changed || has(opts, "v") && changed {
		fmt.Fprintf(p.Stdout, "mode of '%s' changed from %04o (%s) to %04o (%s)\n", name, n.Perm(), modeString(n.Mode)[1:], perm, modeString(n.Type() | perm)[1:])
	} else if has(opts, "v") {
		fmt.Fprintf(p.Stdout, "mode of '%s' retained as %04o (%s)\n", name, perm, modeString(n.Mode)[1:])
	}
}

// modeString is the first column of ls -l.
func modeString(mode uint32) string {
	kind := map[uint32]byte{
		tree.TypeSocket: 's', tree.TypeSymlink: 'l', tree.TypeRegular: '-', tree.TypeBlock: 'b', tree.TypeDir: 'd',
		tree.TypeChar: 'c', tree.TypeFifo: 'p',
	}[mode&tree.TypeMask]
	b := []byte{kind}
	for i, c := range "rwxrwxrwx" {
		if mode&(0o400>>i) == 0 {
			c = '-'
		}
		b = append(b, byte(c))
	}
	special := func(at int, bit uint32, c byte) {
		if mode&bit == 0 {
			return
		}
		if b[at] == '-' {
			c -= 32
		}
		b[at] = c
	}
	special(3, 0o4000, 's')
	special(6, 0o2000, 's')
	special(9, 0o1000, 't')
	return string(b)
}

// chown is chown and chgrp.
func chown(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "cfvhRHLP", "changes=c", "silent=f", "quiet=f", "verbose=v", "no-dereference=h", "dereference", "recursive=R",
		"reference:=ref", "from:=from", "preserve-root", "no-preserve-root")
	uid, gid := -1, -1
	fromUID, fromGID := -1, -1
	haveRef := false
	var err error
	for _, o := range opts {
		switch o.name {
		case "ref":
			n, err := p.Stat(o.value)
			if err != nil {
				p.Errorf("failed to get attributes of '%s': %s", o.value, shell.Reason(err))
				return 1
			}
			uid, gid, haveRef = int(n.UID), int(n.GID), true
			if p.Name() == "chgrp" {
				uid = -1
			}
		case "from":
			if fromUID, fromGID, err = parseOwner(p, o.value); err != nil {
				p.Errorf("%s", err)
				return 1
			}
		case "L":
			p.Unsupported("option -L")
		}
	}
	if !haveRef {
		if len(args) == 0 {
			p.Errorf("missing operand")
			return 1
		}
		if p.Name() == "chgrp" {
			gid, err = lookupID(p, args[0], true)
		} else {
			uid, gid, err = parseOwner(p, args[0])
		}
		if err != nil {
			p.Errorf("%s", err)
			return 1
		}
		args = args[1:]
	}
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	status := 0
	for _, a := range args {
		change := func(name string, n *tree.Inode, set func(string, uint32, uint32) error) {
			if fromUID >= 0 && n.UID != uint32(fromUID) || fromGID >= 0 && n.GID != uint32(fromGID) {
				return
			}
			u, g := n.UID, n.GID
			if uid >= 0 {
				u = uint32(uid)
			}
			if gid >= 0 {
				g = uint32(gid)
			}
			mode := n.Perm()
			if has(opts, "v") {
				what := "retained as"
				if u != n.UID || g != n.GID {
					what = "changed to"
				}
				fmt.Fprintf(p.Stdout, "ownership of '%s' %s %s:%s\n", name, what, nameOf(p, u, false), nameOf(p, g, true))
			} else if has(opts, "c") && (u != n.UID || g != n.GID) {
				fmt.Fprintf(p.Stdout, "changed ownership of '%s' from %s:%s to %s:%s\n", name,
					nameOf(p, n.UID, false), nameOf(p, n.GID, true), nameOf(p, u, false), nameOf(p, g, true))
			}
			isLink := n.IsSymlink()
			if set(p.Path(name), u, g) != nil || isLink {
				return
			}
			// Like Linux, a change of owner takes the set-id bits of a file,
			// for root too; the set-group-id bit only if the group may execute.
			if n.IsRegular() && mode&0o6000 != 0 {
				drop := uint32(0o4000)
				if mode&0o010 != 0 {
					drop |= 0o2000
				}
				sure(p, p.Tree.Chmod(p.Path(name), mode&^drop))
			}
		}
		n, err := p.Stat(a)
		if has(opts, "h") || has(opts, "R") {
			n, err = p.Lstat(a)
		}
		if err != nil {
			if !has(opts, "f") {
				p.Errorf("cannot access '%s': %s", a, shell.Reason(err))
			}
			status = 1
			continue
		}
		if has(opts, "R") {
			each(p, a, true, 0, func(name string, n *tree.Inode) {
				if !n.IsSymlink() {
					change(name, n, p.Tree.Chown)
				} else if has(opts, "h") {
					change(name, n, p.Tree.Lchown)
				} else if target, err := p.Stat(name); err == nil {
					change(name, target, p.Tree.Chown)
				}
			})
			continue
		}
		set := p.Tree.Chown
		if has(opts, "h") {
			set = p.Tree.Lchown
		}
		change(a, n, set)
	}
	return status
}

// parseOwner reads USER, USER:GROUP, USER: and :GROUP; a dot may stand for
// the colon.
func parseOwner(p *shell.Process, s string) (uid, gid int, err error) {
	uid, gid = -1, -1
	user, grp, colon := strings.Cut(s, ":")
	if !colon {
		if _, err := lookupID(p, s, false); err != nil && strings.Contains(s, ".") {
			user, grp, colon = strings.Cut(s, ".")
		}
	}
	if user != "" {
		if uid, err = lookupID(p, user, false); err != nil {
			return uid, gid, fmt.Errorf("invalid user: '%s'", s)
		}
	}
	switch {
	case grp != "":
		if gid, err = lookupID(p, grp, true); err != nil {
			return uid, gid, fmt.Errorf("invalid group: '%s'", s)
		}
	case colon && user != "": // the user's login group
		for _, f := range accounts(p, "/etc/passwd") {
			if f[2] == strconv.Itoa(uid) {
				gid, _ = strconv.Atoi(f[3])
				return uid, gid, nil
			}
		}
		return uid, gid, fmt.Errorf("invalid spec: '%s'", s)
	}
	return uid, gid, nil
}

func mknod(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "m:Z", "mode:=m")
	if len(args) < 2 {
		p.Errorf("missing operand")
		return 1
	}
	perm := 0o666 &^ p.Umask
	for _, o := range opts {
		if o.name == "m" {
			m, err := shell.ParseMode(o.value, 0o666, false, p.Umask)
			if err != nil {
				p.Errorf("%s", err)
				return 1
			}
			perm = m
		}
	}
	kind, ok := map[string]uint32{"b": tree.TypeBlock, "c": tree.TypeChar, "u": tree.TypeChar, "p": tree.TypeFifo}[args[1]]
	var major, minor uint64
	var err error
	if ok && kind != tree.TypeFifo {
		if len(args) != 4 {
			p.Errorf("missing operand after '%s'", args[len(args)-1])
			return 1
		}
		if major, err = strconv.ParseUint(args[2], 0, 12); err == nil {
			minor, err = strconv.ParseUint(args[3], 0, 20)
		}
	}
	if !ok || err != nil {
		p.Errorf("invalid device")
		return 1
	}
	if err := p.Tree.Mknod(p.Path(args[0]), kind|perm, uint32(major), uint32(minor)); err != nil {
		p.Errorf("%s: %s", args[0], shell.Reason(err))
		return 1
	}
	return 0
}

func mkfifo(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "m:Z", "mode:=m")
	perm := 0o666 &^ p.Umask
	for _, o := range opts {
		if o.name == "m" {
			m, err := shell.ParseMode(o.value, 0o666, false, p.Umask)
			if err != nil {
				p.Errorf("%s", err)
				return 1
			}
			perm = m
		}
	}
	status := 0
	for _, a := range args {
		if err := p.Tree.Mknod(p.Path(a), tree.TypeFifo|perm, 0, 0); err != nil {
			p.Errorf("cannot create fifo '%s': %s", a, shell.Reason(err))
			status = 1
		}
	}
	return status
}

// mktemp takes the first name of a fixed sequence that is free, so that the
// same build makes the same names.
func mktemp(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "duqp:t", "directory=d", "dry-run=u", "quiet=q", "tmpdir::=p", "suffix:=suffix")
	dir, inDir, suffix := "", false, ""
	for _, o := range opts {
		switch o.name {
		case "p":
			dir, inDir = o.value, true
		case "t":
			inDir = true
		case "suffix":
			suffix = o.value
		}
	}
	template := "tmp.XXXXXXXXXX"
	if len(args) > 0 {
		template = args[0]
	} else {
		inDir = true
	}
	if inDir {
		if dir == "" || has(opts, "t") {
			if env := p.Env["TMPDIR"]; env != "" {
				dir = env
			} else if dir == "" {
				dir = "/tmp"
			}
		}
		template = strings.TrimSuffix(dir, "/") + "/" + template
	}
	if suffix == "" {
		if i := strings.LastIndexByte(template, 'X'); i >= 0 {
			template, suffix = template[:i+1], template[i+1:]
		}
	}
	stem := strings.TrimRight(template, "X")
	xs := len(template) - len(stem)
	if xs < 3 || strings.Contains(suffix, "/") {
		p.Errorf("too few X's in template '%s'", template+suffix)
		return 1
	}
	for i := range 10000 {
		name := stem + fmt.Sprintf("%0*d", xs, i)[:xs] + suffix
		if _, err := p.Lstat(name); err == nil {
			continue
		}
		var err error
		switch {
		case has(opts, "u"):
		case has(opts, "d"):
			err = p.Tree.Mkdir(p.Path(name), 0o700)
		default:
			err = p.Tree.WriteFile(p.Path(name), nil, 0o600)
		}
		if err != nil {
			if !has(opts, "q") {
				p.Errorf("failed to create file via template '%s': %s", template+suffix, shell.Reason(err))
			}
			return 1
		}
		fmt.Fprintln(p.Stdout, name)
		return 0
	}
	p.Errorf("failed to create file via template '%s': File exists", template+suffix)
	return 1
}

// tempfile is debianutils' older mktemp.
func tempfile(_ context.Context, p *shell.Process) int {
	opts, _ := parse(p, "d:p:s:m:n:", "directory:=d", "prefix:=p", "suffix:=s", "mode:=m", "name:=n")
	dir, prefix, suffix, perm := "/tmp", "file", "", uint32(0o600)
	if env := p.Env["TMPDIR"]; env != "" {
		dir = env
	}
	for _, o := range opts {
		switch o.name {
		case "d":
			dir = o.value
		case "p":
			prefix = o.value
		case "s":
			suffix = o.value
		case "m":
			m, err := shell.ParseMode(o.value, 0, false, 0)
			if err != nil {
				p.Errorf("%s", err)
				return 1
			}
			perm = m
		case "n":
			p.Unsupported("option -n")
		}
	}
	for i := range 10000 {
		name := fmt.Sprintf("%s/%s%06d%s", strings.TrimSuffix(dir, "/"), prefix, i, suffix)
		if _, err := p.Lstat(name); err == nil {
			continue
		}
		if err := p.Tree.WriteFile(p.Path(name), nil, perm); err != nil {
			p.Errorf("%s: %s", name, shell.Reason(err))
			return 1
		}
		fmt.Fprintln(p.Stdout, name)
		return 0
	}
	return 1
}

func stat(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "Lc:ft", "dereference=L", "format:=c", "printf:=printf", "file-system=f", "terse=t")
	format, end := "", "\n"
	for _, o := range opts {
		switch o.name {
		case "c":
			format = o.value
		case "printf":
			format, end = unescapeY(o.value), ""
		case "f", "t":
			p.Unsupported("option -%s", o.name)
		}
	}
	if len(args) == 0 {
		p.Errorf("missing operand")
		return 1
	}
	if format == "" {
		p.Unsupported("the long form")
	}
	status := 0
	var o out
	for _, a := range args {
		look := p.Lstat
		if has(opts, "L") {
			look = p.Stat
		}
		n, err := look(a)
		if err != nil {
			p.Errorf("cannot statx '%s': %s", a, shell.Reason(err))
			status = 1
			continue
		}
		o.WriteString(statFormat(p, format, a, n) + end)
	}
	return o.done(p, status)
}

func statFormat(p *shell.Process, format, name string, n *tree.Inode) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		for i < len(format)-1 && strings.IndexByte("#-+ 0123456789.", format[i]) >= 0 {
			i++
		}
		flags := format[start:i]
		var s string
		switch c := format[i]; c {
		case '%':
			s = "%"
		case 'a':
			s = strconv.FormatUint(uint64(n.Perm()), 8)
			if strings.Contains(flags, "#") {
				s, flags = "0"+s, strings.ReplaceAll(flags, "#", "")
			}
		case 'A':
			s = modeString(n.Mode)
		case 'f':
			s = strconv.FormatUint(uint64(n.Mode), 16)
		case 'F':
			s = map[uint32]string{
				tree.TypeSocket: "socket", tree.TypeSymlink: "symbolic link", tree.TypeRegular: "regular file",
				tree.TypeBlock: "block special file", tree.TypeDir: "directory", tree.TypeChar: "character special file", tree.TypeFifo: "fifo",
			}[n.Type()]
			if n.IsRegular() && n.Size() == 0 {
				s = "regular empty file"
			}
		case 'u':
			s = strconv.Itoa(int(n.UID))
		case 'g':
			s = strconv.Itoa(int(n.GID))
		case 'U':
			s = nameOf(p, n.UID, false)
		case 'G':
			s = nameOf(p, n.GID, true)
		case 'h':
			s = strconv.Itoa(n.Links())
		case 's':
			s = strconv.FormatInt(n.Size(), 10)
			if n.IsDir() {
				s = "4096"
			}
		case 'n':
			s = name
		case 'N':
			s = "'" + name + "'"
			if n.IsSymlink() {
				s += " -> '" + n.Target + "'"
			}
		case 'X', 'Y', 'Z':
			s = strconv.FormatInt(n.ModTime, 10)
		case 'y', 'x', 'z':
			s = formatTime(n.ModTime, "%Y-%m-%d %H:%M:%S.000000000 +0000")
		case 't':
			s = strconv.FormatUint(uint64(n.Major), 16)
		case 'T':
			s = strconv.FormatUint(uint64(n.Minor), 16)
		default:
			p.Unsupported("the format %%%c", c)
		}
		width := strings.TrimLeft(flags[1:], "#+ ")
		if width != "" {
			s = fmt.Sprintf("%"+width+"s", s)
		}
		b.WriteString(s)
	}
	return b.String()
}

// ls prints names, one a line, and -l, -d, -a, -A, -1, -R less, -t, -r, -F,
// -n as scripts read them.
func ls(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "1aAdlnrtFhiLpqQSUX", "all=a", "almost-all=A", "directory=d", "reverse=r", "color::=color", "classify::=F",
		"time-style:=time-style", "numeric-uid-gid=n", "dereference=L", "group-directories-first=gdf", "human-readable=h", "sort:=sort")
	if has(opts, "h", "i", "q", "Q", "S", "X", "gdf", "sort") {
		p.Unsupported("these options")
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	long := has(opts, "l", "n")
	status := 0
	var o out
	type entry struct {
		name string
		n    *tree.Inode
	}
	order := func(list []entry) {
		if has(opts, "U") {
			return
		}
		slices.SortStableFunc(list, func(a, b entry) int {
			if has(opts, "t") && a.n.ModTime != b.n.ModTime {
				return int(b.n.ModTime - a.n.ModTime)
			}
			return strings.Compare(a.name, b.name)
		})
		if has(opts, "r") {
			slices.Reverse(list)
		}
	}
	show := func(list []entry, total bool) {
		order(list)
		rows := make([][]string, len(list))
		blocks := int64(0)
		widths := make([]int, 4)
		for i, e := range list {
			user, grp := nameOf(p, e.n.UID, false), nameOf(p, e.n.GID, true)
			if has(opts, "n") {
				user, grp = strconv.Itoa(int(e.n.UID)), strconv.Itoa(int(e.n.GID))
			}
			size := strconv.FormatInt(e.n.Size(), 10)
			if e.n.IsDir() {
				size = "4096"
			}
			if e.n.Type() == tree.TypeChar || e.n.Type() == tree.TypeBlock {
				size = fmt.Sprintf("%d, %d", e.n.Major, e.n.Minor)
			}
			blocks += (e.n.Size() + 4095) / 4096 * 4
			rows[i] = []string{strconv.Itoa(e.n.Links()), user, grp, size}
			for j, s := range rows[i] {
				widths[j] = max(widths[j], len(s))
			}
		}
		if long && total {
			fmt.Fprintf(&o, "total %d\n", blocks)
		}
		for i, e := range list {
			mark := ""
			if has(opts, "F", "p") && e.n.IsDir() {
				mark = "/"
			} else if has(opts, "F") && e.n.IsRegular() && e.n.Mode&0o111 != 0 {
				mark = "*"
			} else if has(opts, "F") && e.n.IsSymlink() && !long {
				mark = "@"
			}
			if !long {
				o.line(e.name + mark)
				continue
			}
			r := rows[i]
			fmt.Fprintf(&o, "%s %*s %-*s %-*s %*s %s %s", modeString(e.n.Mode), widths[0], r[0], widths[1], r[1], widths[2], r[2],
				widths[3], r[3], formatTime(e.n.ModTime, "%b %e  %Y"), e.name+mark)
			if e.n.IsSymlink() {
				o.WriteString(" -> " + e.n.Target)
			}
			o.WriteByte('\n')
		}
	}
	var files, dirs []entry
	for _, a := range args {
		n, err := p.Stat(a)
		if l, lerr := p.Lstat(a); lerr == nil && l.IsSymlink() && (err != nil || (long || has(opts, "d", "F")) && !has(opts, "L") && !strings.HasSuffix(a, "/")) {
			n, err = l, nil
		}
		if err != nil {
			p.Errorf("cannot access '%s': %s", a, shell.Reason(err))
			status = 2
			continue
		}
		if n.IsDir() && !has(opts, "d") {
			dirs = append(dirs, entry{a, n})
		} else {
			files = append(files, entry{a, n})
		}
	}
	if len(files) > 0 {
		show(files, false)
	}
	order(dirs)
	for i, d := range dirs {
		if len(files)+len(dirs) > 1 || status != 0 && len(args) > 1 {
			if i > 0 || len(files) > 0 {
				o.WriteByte('\n')
			}
			o.line(d.name + ":")
		}
		var list []entry
		if has(opts, "a") {
			up, err := p.Stat(d.name + "/..")
			if err == nil {
				list = append(list, entry{".", d.n}, entry{"..", up})
			}
		}
		names, _ := p.Tree.ReadDir(p.Path(d.name))
		for _, name := range names {
			if name[0] == '.' && !has(opts, "a", "A") {
				continue
			}
			look := p.Lstat
			if has(opts, "L") {
				look = p.Stat
			}
			if n, err := look(strings.TrimSuffix(d.name, "/") + "/" + name); err == nil {
				list = append(list, entry{name, n})
			}
		}
		show(list, true)
	}
	return o.done(p, status)
}

func du(_ context.Context, p *shell.Process) int {
	opts, args := parse(p, "sbkach", "summarize=s", "bytes=b", "total=c", "all=a", "apparent-size=apparent")
	if has(opts, "a", "c", "h") || !has(opts, "s") {
		p.Unsupported("options but -s, -b and -k")
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	status := 0
	for _, a := range args {
		if _, err := p.Lstat(a); err != nil {
			p.Errorf("cannot access '%s': %s", a, shell.Reason(err))
			status = 1
			continue
		}
		total := int64(0)
		seen := map[*tree.Inode]bool{}
		each(p, a, true, 0, func(_ string, n *tree.Inode) {
			if seen[n] {
				return
			}
			seen[n] = true
			size := n.Size()
			if n.IsDir() {
				size = 4096
			}
			if !has(opts, "b") {
				size = (size + 4095) / 4096 * 4
			}
			total += size
		})
		fmt.Fprintf(p.Stdout, "%d\t%s\n", total, a)
	}
	return status
}

// sure takes the result of changing what was just looked at. It cannot fail;
// if it does all the same, the script must not go on as if it had not.
func sure(p *shell.Process, err error) {
	if err != nil {
		p.Unsupported("%v", err)
	}
}
