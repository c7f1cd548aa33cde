package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/account"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// tmpLine is one line of tmpfiles.d(5).
type tmpLine struct {
	kind             string
	force            bool // "+"
	boot             bool // "!"
	onlyIfTarget     bool // "?"
	credential       bool // "^"
	path             string
	mode             uint32
	hasMode          bool
	maskMode         bool // "~"
	modeOnCreate     bool // ":"
	user, group      string
	userOnCreate     bool
	groupOnCreate    bool
	argument         string
	hasArg, ignoreIt bool // ignoreIt: "-", failures do not count
}

var tmpfilesDirs = []string{"/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"}

// tmpfiles is systemd-tmpfiles --create. File attributes (chattr) are left to
// the first boot, where the same lines are applied again.
func tmpfiles(ctx context.Context, p *shell.Process) int {
	var files, prefixes, excluded []string
	create, remove := false, false
	for _, a := range p.Args[1:] {
		name, value, _ := strings.Cut(a, "=")
		switch {
		case name == "--create":
			create = true
		case name == "--remove":
			remove = true
		case name == "--prefix":
			prefixes = append(prefixes, value)
		case name == "--exclude-prefix":
			excluded = append(excluded, value)
		case name == "--root" && (value == "" || value == "/"):
		case name == "--boot" || name == "--graceful" || name == "--replace" || name == "--clean" || a == "-E":
			if a == "-E" {
				excluded = append(excluded, "/dev", "/proc", "/run", "/sys")
			}
		case a == "-":
			files = append(files, a)
		case strings.HasPrefix(a, "-"):
			p.Unsupported("option %s", a)
		default:
			files = append(files, a)
		}
	}
	if len(files) == 0 {
		files = account.ConfigFiles(p.Tree, tmpfilesDirs)
	}
	status := 0
	var lines []tmpLine
	for _, f := range files {
		var text []byte
		var err error
		switch {
		case f == "-":
			text, err = shell.ReadAll(p.Stdin)
		case strings.HasPrefix(f, "/"):
			text, err = p.Tree.ReadFile(f)
		default:
			err = fs.ErrNotExist
			for _, dir := range tmpfilesDirs {
				if text, err = p.Tree.ReadFile(dir + "/" + f); !errors.Is(err, fs.ErrNotExist) {
					break
				}
			}
		}
		if err != nil {
			p.Errorf("Failed to open '%s': %v", f, err)
			status = 1
			continue
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			l, err := parseTmpLine(p.Tree, line)
			if err != nil {
				p.Errorf("%s: %v", f, err)
				status = 65
				continue
			}
			lines = append(lines, l)
		}
	}
	done := map[string]string{}
	for _, l := range lines {
		under := func(dir string) bool {
			return l.path == dir || strings.HasPrefix(l.path, strings.TrimSuffix(dir, "/")+"/")
		}
		if l.boot || prefixes != nil && !slices.ContainsFunc(prefixes, under) || slices.ContainsFunc(excluded, under) {
			continue
		}
		if strings.Contains("fFwdDeqQvLcbpC", l.kind) && l.kind != "w" && l.kind != "e" {
			if was := done[l.path]; was != "" && was != l.kind || was == l.kind && l.kind != "" && was != "" {
				continue // the first line for a path counts
			}
			done[l.path] = l.kind
		}
		var err error
		if remove && (l.kind == "r" || l.kind == "R") {
			err = l.remove(p.Tree)
		}
		if create && err == nil {
			err = l.create(p.Tree)
		}
		if err != nil && !l.ignoreIt {
			p.Errorf("%s: %v", l.path, err)
			status = 73
		}
	}
	return status
}

func parseTmpLine(t *tree.Tree, line string) (tmpLine, error) {
	words := account.Words(line)
	// The argument is the rest of the line as it stands.
	if len(words) < 2 {
		return tmpLine{}, fmt.Errorf("cannot read the line %q", line)
	}
	var l tmpLine
	l.kind = words[0][:1]
	for _, c := range words[0][1:] {
		switch c {
		case '+':
			l.force = true
		case '!':
			l.boot = true
		case '?':
			l.onlyIfTarget = true
		case '^':
			l.credential = true
		case '-':
			l.ignoreIt = true
		case '=', '~', '$':
		default:
			return tmpLine{}, fmt.Errorf("cannot use the modifier %q in %q", c, line)
		}
	}
	if !strings.Contains("fFwdDeqQvLcbpCxXrRzZtThHaAm", l.kind) {
		return tmpLine{}, fmt.Errorf("cannot use the type %q", words[0])
	}
	var err error
	if l.path, err = expandTmp(t, words[1]); err != nil {
		return tmpLine{}, err
	}
	if !strings.HasPrefix(l.path, "/") {
		return tmpLine{}, fmt.Errorf("cannot use the path %q: it is not absolute", l.path)
	}
	l.path = path.Clean(l.path)
	field := func(i int) string {
		if len(words) > i && words[i] != "-" {
			return words[i]
		}
		return ""
	}
	mode := field(2)
	for mode != "" && (mode[0] == '~' || mode[0] == ':') {
		if mode[0] == '~' {
			l.maskMode = true
		} else {
			l.modeOnCreate = true
		}
		mode = mode[1:]
	}
	if mode != "" {
		m, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return tmpLine{}, fmt.Errorf("cannot use the mode %q", mode)
		}
		l.mode, l.hasMode = uint32(m), true
	}
	l.user, l.userOnCreate = strings.CutPrefix(field(3), ":")
	l.group, l.groupOnCreate = strings.CutPrefix(field(4), ":")
	if len(words) > 6 && field(6) != "" {
		// Only quotes around the whole argument are taken off.
		rest := line
		for range 6 {
			rest = strings.TrimLeft(rest, " \t")
			if i := strings.IndexAny(rest, " \t"); i >= 0 {
				rest = rest[i:]
			}
		}
		rest = strings.TrimSpace(rest)
		if len(rest) > 1 && (rest[0] == '"' || rest[0] == '\'') && rest[len(rest)-1] == rest[0] {
			rest = rest[1 : len(rest)-1]
		}
		if l.argument, err = expandTmp(t, unescapeC(rest)); err != nil {
			return tmpLine{}, err
		}
		l.hasArg = true
	}
	return l, nil
}

func unescapeC(s string) string {
	return strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`, `\x20`, " ").Replace(s)
}

// expandTmp fills in specifiers. Those that only a booted machine knows make
// the line fail, as they do in a chroot.
func expandTmp(t *tree.Tree, s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case '%':
			b.WriteByte('%')
		case 't':
			b.WriteString("/run")
		case 'S':
			b.WriteString("/var/lib")
		case 'C':
			b.WriteString("/var/cache")
		case 'L':
			b.WriteString("/var/log")
		case 'T':
			b.WriteString("/tmp")
		case 'V':
			b.WriteString("/var/tmp")
		case 'h':
			b.WriteString("/root")
		case 'u', 'g':
			b.WriteString("root")
		case 'U', 'G':
			b.WriteString("0")
		case 'm':
			id, err := t.ReadFile("/etc/machine-id")
			if s := strings.TrimSpace(string(id)); err == nil && len(s) == 32 {
				b.WriteString(s)
				break
			}
			return s, nil // no such path exists
		case 'b', 'v', 'H', 'l', 'q':
			return s, nil
		default:
			return "", fmt.Errorf("cannot expand %%%c", s[i])
		}
	}
	return b.String(), nil
}

func (l *tmpLine) remove(t *tree.Tree) error {
	for _, p := range globTree(t, l.path) {
		var err error
		if l.kind == "R" {
			err = t.RemoveAll(p)
		} else {
			err = t.Remove(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *tmpLine) create(t *tree.Tree) error {
	if strings.Contains(l.path, "%") || l.credential {
		return nil // what it names is known to a booted machine only
	}
	parent := func() error {
		err := t.MkdirAll(path.Dir(l.path), 0o755)
		return err
	}
	n, err := t.Lstat(l.path)
	there := err == nil
	switch l.kind {
	case "f", "F":
		if there && !n.IsRegular() {
			return fmt.Errorf("it exists and is not a regular file")
		}
		if !there || l.force || l.kind == "F" {
			if err := parent(); err != nil {
				return err
			}
			if err := t.WriteFile(l.path, []byte(l.argument), 0o644); err != nil {
				return err
			}
		}
		return l.perms(t, l.path, !there, 0o644)
	case "w":
		for _, p := range globTree(t, l.path) {
			if err := t.WriteFile(p, []byte(l.argument), 0o644); err != nil {
				return err
			}
		}
	case "d", "D", "q", "Q", "v":
		if there {
			if d, err := t.Stat(l.path); err != nil || !d.IsDir() {
				return nil
			}
		} else {
			if err := parent(); err != nil {
				return err
			}
			if err := t.Mkdir(l.path, 0o755); err != nil {
				return err
			}
		}
		return l.perms(t, l.path, !there, 0o755)
	case "e":
		for _, p := range globTree(t, l.path) {
			if d, err := t.Stat(p); err == nil && d.IsDir() {
				if err := l.perms(t, p, false, 0); err != nil {
					return err
				}
			}
		}
	case "p":
		if there {
			return nil
		}
		if err := parent(); err != nil {
			return err
		}
		if err := t.Mknod(l.path, tree.TypeFifo|0o644, 0, 0); err != nil {
			return err
		}
		return l.perms(t, l.path, true, 0o644)
	case "L":
		target := l.argument
		if !l.hasArg {
			target = "/usr/share/factory" + l.path
		}
		if l.onlyIfTarget {
			from := target
			if !strings.HasPrefix(from, "/") {
				from = path.Join(path.Dir(l.path), from)
			}
			if !t.Exists(from) {
				return nil
			}
		}
		if there {
			if !l.force || n.IsSymlink() && n.Target == target {
				return nil
			}
			if err := t.RemoveAll(l.path); err != nil {
				return err
			}
		}
		if err := parent(); err != nil {
			return err
		}
		return t.Symlink(target, l.path)
	case "C":
		from := l.argument
		if !l.hasArg {
			from = "/usr/share/factory" + l.path
		}
		if !t.Exists(from) {
			return nil
		}
		if there && !l.force {
			if names, err := t.ReadDir(l.path); err != nil || len(names) > 0 {
				return nil
			}
		}
		if err := parent(); err != nil {
			return err
		}
		if err := copyTree(t, from, l.path); err != nil {
			return err
		}
		return l.perms(t, l.path, !there, 0)
	case "a", "A":
		for _, p := range globTree(t, l.path) {
			if err := l.acl(t, p); err != nil {
				return err
			}
		}
	case "z", "m":
		for _, p := range globTree(t, l.path) {
			if err := l.perms(t, p, false, 0); err != nil {
				return err
			}
		}
	case "Z":
		for _, top := range globTree(t, l.path) {
			var all []string
			for p, n := range t.Below(top) {
				if !n.IsSymlink() {
					all = append(all, p)
				}
			}
			for _, p := range all {
				if err := l.perms(t, p, false, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// perms sets owner and mode as far as the line names them.
func (l *tmpLine) perms(t *tree.Tree, p string, fresh bool, standard uint32) error {
	n, err := t.Stat(p)
	if err != nil {
		return err
	}
	uid, gid := n.UID, n.GID
	if l.user != "" && (fresh || !l.userOnCreate) {
		if uid, err = lookupID(t, "/etc/passwd", l.user); err != nil {
			return err
		}
	}
	if l.group != "" && (fresh || !l.groupOnCreate) {
		if gid, err = lookupID(t, "/etc/group", l.group); err != nil {
			return err
		}
	}
	if uid != n.UID || gid != n.GID {
		if err := t.Chown(p, uid, gid); err != nil {
			return err
		}
	}
	mode := n.Perm()
	switch {
	case l.hasMode && (fresh || !l.modeOnCreate):
		mode = l.mode
		if l.maskMode {
			mode = masked(n, l.mode)
		}
	case fresh && standard != 0:
		mode = standard
	}
	if mode != n.Perm() {
		return t.Chmod(p, mode)
	}
	return nil
}

// masked is what "~" makes of a mode: no bit that the file does not have in
// kind.
func masked(n *tree.Inode, mode uint32) uint32 {
	perm := n.Perm()
	if perm&0o111 == 0 {
		mode &^= 0o111
	}
	if perm&0o222 == 0 {
		mode &^= 0o222
	}
	if perm&0o444 == 0 {
		mode &^= 0o444
	}
	if !n.IsDir() {
		mode &^= 0o7000
	}
	return mode
}

func lookupID(t *tree.Tree, file, name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	text, err := t.ReadFile(file)
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
	return 0, fmt.Errorf("cannot resolve the name %q", name)
}

func copyTree(t *tree.Tree, from, to string) error {
	type entry struct {
		path string
		node *tree.Inode
	}
	real, err := t.RealPath(from)
	if err != nil {
		return err
	}
	var all []entry
	for p, n := range t.Below(real) {
		all = append(all, entry{p, n})
	}
	for _, e := range all {
		c := &tree.Inode{Mode: e.node.Mode, UID: e.node.UID, GID: e.node.GID, ModTime: e.node.ModTime, Content: e.node.Content,
			Target: e.node.Target, Major: e.node.Major, Minor: e.node.Minor}
		if err := t.Put(to+strings.TrimPrefix(e.path, real), c); err != nil {
			return err
		}
	}
	return nil
}

// globTree returns the paths that a pattern matches, sorted.
func globTree(t *tree.Tree, pattern string) []string {
	if !strings.ContainsAny(pattern, "*?[") {
		if _, err := t.Lstat(pattern); err != nil {
			return nil
		}
		return []string{pattern}
	}
	found := []string{""}
	for _, part := range strings.Split(strings.Trim(pattern, "/"), "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?[") {
				if _, err := t.Lstat(dir + "/" + part); err == nil {
					next = append(next, dir+"/"+part)
				}
				continue
			}
			names, _ := t.ReadDir(dir + "/")
			for _, n := range names {
				if ok, err := path.Match(part, n); ok && err == nil && (n[0] != '.' || part[0] == '.') {
					next = append(next, dir+"/"+n)
				}
			}
		}
		found = next
	}
	return found
}
