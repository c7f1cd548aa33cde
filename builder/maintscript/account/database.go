// Package account is everything with which maintainer scripts make users and
// groups: adduser and its kin, the tools of shadow, systemd-sysusers, getent.
// Numbers are chosen and files written as those programs do it, so that a
// card gets the numbers that dpkg would have given it.
//
// Sources: passwd(5), shadow(5), group(5), gshadow(5), adduser(8),
// adduser.conf(5), useradd(8), systemd-sysusers(8), sysusers.d(5) and the
// behaviour of these programs in Debian 13.
//
// Not supported: passwords (nothing here hashes), NIS entries, subordinate
// ids for system users (nobody gives them any).
package account

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// Commands returns the programs by name.
func Commands() map[string]shell.Command {
	return map[string]shell.Command{
		"adduser":          adduser,
		"addgroup":         adduser,
		"deluser":          deluser,
		"delgroup":         deluser,
		"useradd":          wrap(useradd),
		"userdel":          wrap(userdel),
		"usermod":          wrap(usermod),
		"groupadd":         wrap(groupadd),
		"groupdel":         wrap(groupdel),
		"groupmod":         wrap(groupmod),
		"gpasswd":          wrap(gpasswd),
		"passwd":           wrap(passwd),
		"chage":            wrap(chage),
		"chfn":             wrap(chfn),
		"chsh":             wrap(chsh),
		"pwconv":           wrap(pwconv),
		"grpconv":          wrap(grpconv),
		"pwck":             nothing,
		"grpck":            nothing,
		"getent":           getent,
		"update-passwd":    updatePasswd,
		"systemd-sysusers": sysusers,
	}
}

// table is one of the four files: lines of fields between colons.
type table struct {
	t       *tree.Tree
	path    string
	rows    [][]string
	exists  bool
	changed bool
}

func load(t *tree.Tree, path string) (*table, error) {
	f := &table{t: t, path: path}
	text, err := t.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	f.exists = true
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		if line != "" {
			f.rows = append(f.rows, strings.Split(line, ":"))
		}
	}
	return f, nil
}

// get returns the row of a name; nil if there is none.
func (f *table) get(name string) []string {
	for _, r := range f.rows {
		if r[0] == name {
			return r
		}
	}
	return nil
}

// byID returns the row of passwd or group with a number; nil if there is none.
func (f *table) byID(id int) []string {
	for _, r := range f.rows {
		if n, ok := number(r); ok && n == id {
			return r
		}
	}
	return nil
}

func number(row []string) (int, bool) {
	if len(row) < 3 {
		return 0, false
	}
	n, err := strconv.Atoi(row[2])
	return n, err == nil
}

func (f *table) add(row ...string) {
	f.rows = append(f.rows, row)
	f.changed = true
}

func (f *table) remove(name string) {
	for i, r := range f.rows {
		if r[0] == name {
			f.rows = append(f.rows[:i:i], f.rows[i+1:]...)
			f.changed = true
			return
		}
	}
}

// save writes the file if it changed, and the former one with "-" after its
// name.
func (f *table) save(perm uint32) error {
	if !f.changed {
		return nil
	}
	if err := f.backup(); err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range f.rows {
		b.WriteString(strings.Join(r, ":"))
		b.WriteByte('\n')
	}
	f.changed, f.exists = false, true
	return f.t.WriteFile(f.path, []byte(b.String()), perm)
}

func (f *table) backup() error {
	n, err := f.t.Stat(f.path)
	if err != nil {
		return nil
	}
	text, err := f.t.ReadFile(f.path)
	if err != nil {
		return err
	}
	if err := f.t.WriteFile(f.path+"-", text, n.Perm()); err != nil {
		return err
	}
	return errors.Join(f.t.Chmod(f.path+"-", n.Perm()), f.t.Chown(f.path+"-", n.UID, n.GID))
}

// database is the four files together.
type database struct {
	t                              *tree.Tree
	passwd, shadow, group, gshadow *table
	defs                           map[string]string // login.defs
}

func open(t *tree.Tree) (*database, error) {
	d := &database{t: t, defs: map[string]string{}}
	var err error
	for _, f := range []struct {
		to   **table
		path string
	}{
		{&d.passwd, "/etc/passwd"}, {&d.shadow, "/etc/shadow"},
		{&d.group, "/etc/group"}, {&d.gshadow, "/etc/gshadow"},
	} {
		if *f.to, err = load(t, f.path); err != nil {
			return nil, err
		}
	}
	text, err := t.ReadFile("/etc/login.defs")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if words := strings.Fields(line); len(words) > 1 && !strings.HasPrefix(words[0], "#") {
			d.defs[words[0]] = words[1]
		}
	}
	return d, nil
}

// def returns a number of login.defs.
func (d *database) def(name string, otherwise int) int {
	if n, err := strconv.Atoi(d.defs[name]); err == nil {
		return n
	}
	return otherwise
}

// today is the date that shadow(5) wants: days since 1970.
func (d *database) today() string { return strconv.FormatInt(d.t.Epoch()/86400, 10) }

func (d *database) save() error {
	if !d.passwd.changed && !d.shadow.changed && !d.group.changed && !d.gshadow.changed {
		return nil
	}
	if !d.t.Exists("/etc/.pwd.lock") {
		if err := d.t.WriteFile("/etc/.pwd.lock", nil, 0o600); err != nil {
			return err
		}
	}
	return errors.Join(d.group.save(0o644), d.gshadow.save(0), d.passwd.save(0o644), d.shadow.save(0))
}

// findGroup takes names and numbers.
func (d *database) findGroup(s string) []string {
	if r := d.group.get(s); r != nil {
		return r
	}
	if n, err := strconv.Atoi(s); err == nil {
		return d.group.byID(n)
	}
	return nil
}

// validName is what useradd accepts with Debian's patch: nearly anything that
// cannot break the files.
func validName(s string) bool {
	return s != "" && len(s) <= 32 && !strings.HasPrefix(s, "-") && !strings.HasPrefix(s, "+") &&
		!strings.ContainsAny(s, ":,/ \t\n\x00")
}

func validField(s string) bool { return !strings.ContainsAny(s, ":\n\x00") }

// addGroup appends a group as groupadd does.
func (d *database) addGroup(name string, id int) error {
	switch {
	case !validName(name):
		return fmt.Errorf("'%s' is not a valid group name", name)
	case d.group.get(name) != nil:
		return fmt.Errorf("group '%s' already exists", name)
	}
	d.group.add(name, "x", strconv.Itoa(id), "")
	if d.gshadow.exists {
		d.gshadow.add(name, "!", "", "")
	}
	return nil
}

// setMember puts a user into a group or takes it out.
func (d *database) setMember(group, user string, in bool) {
	change := func(f *table, column int) {
		r := f.get(group)
		if r == nil || len(r) <= column {
			return
		}
		var members []string
		for _, m := range strings.Split(r[column], ",") {
			if m != "" && m != user {
				members = append(members, m)
			}
		}
		if in {
			members = append(members, user)
		}
		if s := strings.Join(members, ","); s != r[column] {
			r[column] = s
			f.changed = true
		}
	}
	if in && d.isMember(group, user) {
		return
	}
	change(d.group, 3)
	change(d.gshadow, 3)
}

func (d *database) isMember(group, user string) bool {
	r := d.group.get(group)
	if len(r) < 4 {
		return false
	}
	for _, m := range strings.Split(r[3], ",") {
		if m == user {
			return true
		}
	}
	return false
}
