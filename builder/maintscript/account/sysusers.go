package account

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// item is a user or group that sysusers.d asks for.
type item struct {
	name              string
	user              bool
	group             string // the primary group of a user, by name
	uid, gid          int
	hasUID, hasGID    bool
	strict            bool // the group must be what it is
	gecos, home       string
	shell             string
	locked            bool
	newUser, newGroup bool
	file              string // take the numbers from this file's owner
}

// systemUsers is one run of systemd-sysusers.
type systemUsers struct {
	t       *tree.Tree
	d       *database
	groups  []*item
	users   []*item
	members map[string][]string // by group
	order   []string            // of the groups in members
	todoUID []*item             // in the order of their creation
	todoGID []*item
	next    int // the search for free numbers goes down from here
}

var sysusersDirs = []string{"/etc/sysusers.d", "/run/sysusers.d", "/usr/local/lib/sysusers.d", "/usr/lib/sysusers.d"}

func sysusers(ctx context.Context, p *shell.Process) int {
	s := &systemUsers{t: p.Tree, members: map[string][]string{}, next: 1000}
	var files []string
	inline := false
	for _, a := range p.Args[1:] {
		switch {
		case a == "--inline":
			inline = true
		case strings.HasPrefix(a, "--root=") && (a == "--root=" || a == "--root=/"):
		case strings.HasPrefix(a, "--replace="):
		case a == "-":
			files = append(files, a)
		case strings.HasPrefix(a, "-"):
			p.Unsupported("option %s", a)
		default:
			files = append(files, a)
		}
	}
	var err error
	if s.d, err = open(p.Tree); err == nil {
		err = s.run(p, files, inline)
	}
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	return 0
}

func (s *systemUsers) run(p *shell.Process, files []string, inline bool) error {
	var texts []string
	switch {
	case inline:
		texts = append(texts, strings.Join(files, "\n"))
	case len(files) == 0:
		for _, f := range ConfigFiles(s.t, sysusersDirs) {
			files = append(files, f)
		}
		fallthrough
	default:
		for _, f := range files {
			var text []byte
			var err error
			if f == "-" {
				text, err = shell.ReadAll(p.Stdin)
			} else {
				text, err = s.read(f)
			}
			if err != nil {
				return err
			}
			texts = append(texts, string(text))
		}
	}
	for _, text := range texts {
		for line := range strings.SplitSeq(text, "\n") {
			if err := s.parse(strings.TrimSpace(line)); err != nil {
				return err
			}
		}
	}
	s.implicit()
	for _, g := range s.groups {
		if err := s.addGroup(g); err != nil {
			return err
		}
	}
	for _, u := range s.users {
		if err := s.process(u); err != nil {
			return err
		}
	}
	return s.write()
}

func (s *systemUsers) read(name string) ([]byte, error) {
	if strings.HasPrefix(name, "/") {
		return s.t.ReadFile(name)
	}
	for _, dir := range sysusersDirs {
		text, err := s.t.ReadFile(dir + "/" + name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return nil, fmt.Errorf("Failed to open '%s': No such file or directory", name)
}

// ConfigFiles lists the *.conf files of directories in order of precedence:
// of files with the same name only the first directory's counts. They come
// sorted by name.
func ConfigFiles(t *tree.Tree, dirs []string) []string {
	byName := map[string]string{}
	var names []string
	for _, dir := range dirs {
		entries, _ := t.ReadDir(dir)
		for _, n := range entries {
			if strings.HasSuffix(n, ".conf") && byName[n] == "" {
				byName[n] = dir + "/" + n
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	var out []string
	for _, n := range names {
		if target, err := t.Readlink(byName[n]); err == nil && target == "/dev/null" {
			continue
		}
		out = append(out, byName[n])
	}
	return out
}

// Words splits a configuration line as systemd does: quotes hold words
// together, a backslash takes the next character as it is.
func Words(line string) []string {
	var out []string
	var word strings.Builder
	in := false
	quote := byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			in = true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t':
			if in {
				out = append(out, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}

func (s *systemUsers) parse(line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	words := Words(line)
	if len(words) < 2 {
		return fmt.Errorf("cannot read the sysusers line %q", line)
	}
	for len(words) < 6 {
		words = append(words, "-")
	}
	field := func(i int) string {
		if words[i] == "-" {
			return ""
		}
		return words[i]
	}
	kind, name, number := words[0], words[1], field(2)
	locked := strings.HasSuffix(kind, "!")
	kind = strings.TrimSuffix(kind, "!")
	if !validName(name) || !validField(words[3]) || !validField(words[4]) || !validField(words[5]) {
		return fmt.Errorf("cannot use the sysusers line %q", line)
	}
	switch kind {
	case "r":
		return nil
	case "m":
		if !slices.Contains(s.order, number) {
			s.order = append(s.order, number)
		}
		if !slices.Contains(s.members[number], name) {
			s.members[number] = append(s.members[number], name)
		}
		return nil
	case "g", "u":
	default:
		return fmt.Errorf("cannot use the sysusers line %q", line)
	}
	i := &item{name: name, user: kind == "u", locked: locked, gecos: field(3), home: field(4), shell: field(5)}
	if strings.HasPrefix(number, "/") {
		i.file, number = number, ""
	}
	first, second, two := strings.Cut(number, ":")
	if two {
		if n, err := strconv.Atoi(second); err == nil {
			i.gid, i.hasGID, i.strict = n, true, true
		} else {
			i.group = second
		}
	}
	if first != "" && first != "-" {
		n, err := strconv.Atoi(first)
		if err != nil {
			return fmt.Errorf("cannot use the sysusers line %q", line)
		}
		if i.user {
			i.uid, i.hasUID = n, true
		} else {
			i.gid, i.hasGID = n, true
		}
	}
	list := &s.groups
	if i.user {
		list = &s.users
	}
	if !slices.ContainsFunc(*list, func(o *item) bool { return o.name == name }) {
		*list = append(*list, i)
	}
	return nil
}

func byItem(list []*item, name string) *item {
	for _, i := range list {
		if i.name == name {
			return i
		}
	}
	return nil
}

// implicit adds the users and groups that only "m" lines name.
func (s *systemUsers) implicit() {
	for _, g := range s.order {
		for _, u := range s.members[g] {
			if byItem(s.users, u) == nil {
				s.users = append(s.users, &item{name: u, user: true})
			}
		}
		if byItem(s.users, g) == nil && byItem(s.groups, g) == nil {
			s.groups = append(s.groups, &item{name: g})
		}
	}
}

func (s *systemUsers) process(i *item) error {
	var queued *item
	if !i.hasGID {
		name := i.group
		if name == "" {
			name = i.name
		}
		if queued = byItem(s.groups, name); queued == nil && i.group != "" {
			queued = byItem(s.users, i.group)
		}
	}
	switch {
	case queued != nil && queued.newGroup:
		i.gid, i.hasGID, i.strict = queued.gid, queued.hasGID, true
	case i.group != "":
		r := s.d.group.get(i.group)
		if r == nil {
			return fmt.Errorf("Group %s not found.", i.group)
		}
		i.gid, _ = number(r)
		i.hasGID, i.strict = true, true
	default:
		if err := s.addGroup(i); err != nil {
			return err
		}
	}
	return s.addUser(i)
}

func (s *systemUsers) uidFree(n int, name string, checkGroup bool) bool {
	for _, i := range s.todoUID {
		if i.uid == n {
			return false
		}
	}
	if checkGroup {
		for _, i := range s.todoGID {
			if i.gid == n && i.name != name {
				return false
			}
		}
		if g := s.d.group.byID(n); g != nil && g[0] != name {
			return false
		}
	}
	return !s.d.usedUID(n)
}

func (s *systemUsers) gidFree(n int, name string, checkUser bool) bool {
	for _, i := range s.todoGID {
		if i.gid == n {
			return false
		}
	}
	if checkUser {
		for _, i := range s.todoUID {
			if i.uid == n {
				return false
			}
		}
		if s.d.usedUID(n) {
			return false
		}
	}
	return !s.d.usedGID(n)
}

func (s *systemUsers) search(free func(int) bool) (int, error) {
	for s.next--; s.next > 0; s.next-- {
		if free(s.next) {
			return s.next, nil
		}
	}
	return 0, errors.New("No free ID available.")
}

func (s *systemUsers) addGroup(i *item) error {
	if r := s.d.group.get(i.name); r != nil {
		i.gid, i.hasGID = number(r)
		return nil
	}
	if i.hasGID {
		free := s.gidFree(i.gid, i.name, false)
		if i.strict {
			if free {
				return fmt.Errorf("Failed to create %s: please create GID %d", i.name, i.gid)
			}
			return nil
		}
		i.hasGID = free
	}
	if !i.hasGID && i.hasUID && s.gidFree(i.uid, i.name, true) {
		i.gid, i.hasGID = i.uid, true
	}
	if !i.hasGID && i.file != "" {
		if n, err := s.t.Stat(i.file); err == nil && n.GID > 0 && n.GID < 1000 && s.gidFree(int(n.GID), i.name, true) {
			i.gid, i.hasGID = int(n.GID), true
		}
	}
	if !i.hasGID {
		n, err := s.search(func(n int) bool { return s.gidFree(n, i.name, true) })
		if err != nil {
			return err
		}
		i.gid, i.hasGID = n, true
	}
	i.newGroup = true
	s.todoGID = append(s.todoGID, i)
	return nil
}

func (s *systemUsers) addUser(i *item) error {
	if s.d.passwd.get(i.name) != nil {
		return nil
	}
	if i.hasUID && !s.uidFree(i.uid, i.name, !i.strict) {
		i.hasUID = false
	}
	if !i.hasUID && i.file != "" {
		if n, err := s.t.Stat(i.file); err == nil && n.UID > 0 && n.UID < 1000 && s.uidFree(int(n.UID), i.name, true) {
			i.uid, i.hasUID = int(n.UID), true
		}
	}
	if !i.hasUID && i.hasGID && s.uidFree(i.gid, i.name, true) {
		i.uid, i.hasUID = i.gid, true
	}
	if !i.hasUID {
		n, err := s.search(func(n int) bool { return s.uidFree(n, i.name, true) })
		if err != nil {
			return err
		}
		i.uid, i.hasUID = n, true
	}
	i.newUser = true
	s.todoUID = append(s.todoUID, i)
	return nil
}

func (s *systemUsers) write() error {
	d := s.d
	shadowNew, gshadowNew := !d.shadow.exists, !d.gshadow.exists
	for _, g := range s.order {
		for _, f := range []*table{d.group, d.gshadow} {
			if r := f.get(g); len(r) > 3 {
				members := strings.FieldsFunc(r[3], func(c rune) bool { return c == ',' })
				before := len(members)
				for _, m := range s.members[g] {
					if !slices.Contains(members, m) {
						members = append(members, m)
					}
				}
				if len(members) > before {
					slices.Sort(members)
					r[3] = strings.Join(slices.Compact(members), ",")
					f.changed = true
				}
			}
		}
	}
	for _, i := range s.todoGID {
		members := slices.Sorted(slices.Values(s.members[i.name]))
		d.group.add(i.name, "x", strconv.Itoa(i.gid), strings.Join(members, ","))
		d.gshadow.add(i.name, "!*", "", strings.Join(members, ","))
	}
	for _, i := range s.todoUID {
		home := i.home
		if home == "" {
			home = "/"
		}
		d.passwd.add(i.name, "x", strconv.Itoa(i.uid), strconv.Itoa(i.gid), i.gecos, home, i.loginShell())
		expire := ""
		if i.locked {
			expire = "1"
		}
		hash := "!*"
		if i.name == "root" {
			hash = "!unprovisioned"
		}
		d.shadow.add(i.name, hash, d.today(), "", "", "", "", expire, "")
	}
	if err := d.save(); err != nil {
		return err
	}
	// Files that did not exist are made unreadable; shadowconfig opens them.
	for _, f := range []struct {
		path string
		made bool
	}{{"/etc/shadow", shadowNew}, {"/etc/gshadow", gshadowNew}} {
		if f.made && s.t.Exists(f.path) {
			if err := s.t.Chmod(f.path, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *item) loginShell() string {
	switch {
	case i.shell != "":
		return path.Clean(i.shell)
	case i.name == "root":
		return "/bin/sh"
	}
	return "/usr/sbin/nologin"
}
