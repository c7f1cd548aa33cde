package account

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// wrap makes a command of a function that changes the database.
func wrap(f func(p *shell.Process, d *database) error) shell.Command {
	return func(ctx context.Context, p *shell.Process) int {
		d, err := open(p.Tree)
		if err == nil {
			if err = f(p, d); err == nil {
				err = d.save()
			}
		}
		var status *statusError
		if errors.As(err, &status) {
			p.Errorf("%v", err)
			return status.status
		}
		if err != nil {
			p.Errorf("%v", err)
			return 1
		}
		return 0
	}
}

// statusError carries the exit status that the manual pages name.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

func fail(status int, format string, args ...any) error {
	return &statusError{status, fmt.Sprintf(format, args...)}
}

// nothing stands for checks that find nothing.
func nothing(context.Context, *shell.Process) int { return 0 }

// parse reads short and long options. Those named in values take one; names
// are given as "-g|--gid".
func parse(p *shell.Process, values, flags []string) (set map[string]string, multi map[string][]string, rest []string) {
	set, multi = map[string]string{}, map[string][]string{}
	canonical := func(list []string, name string) string {
		for _, names := range list {
			if slices.Contains(strings.Split(names, "|"), name) {
				first, _, _ := strings.Cut(names, "|")
				return first
			}
		}
		return ""
	}
	args := p.Args[1:]
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return set, multi, append(rest, args[i+1:]...)
		}
		if !strings.HasPrefix(a, "-") || a == "-" {
			rest = append(rest, a)
			continue
		}
		put := func(name, value string) {
			set[name] = value
			multi[name] = append(multi[name], value)
		}
		if strings.HasPrefix(a, "--") {
			name, value, inline := strings.Cut(a, "=")
			if c := canonical(values, name); c != "" {
				if !inline && i+1 < len(args) {
					i++
					value = args[i]
				}
				put(c, value)
			} else if c := canonical(flags, name); c != "" {
				put(c, "")
			} else {
				p.Unsupported("option %s", a)
			}
			continue
		}
		for k := 1; k < len(a); k++ {
			name := "-" + a[k:k+1]
			if c := canonical(values, name); c != "" {
				value := a[k+1:]
				if value == "" && i+1 < len(args) {
					i++
					value = args[i]
				}
				put(c, value)
				break
			}
			c := canonical(flags, name)
			if c == "" {
				p.Unsupported("option %s", a)
			}
			put(c, "")
		}
	}
	return set, multi, rest
}

func has(set map[string]string, name string) bool { _, found := set[name]; return found }

func id(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 1<<31 {
		return 0, fail(3, "invalid numeric id '%s'", s)
	}
	return n, nil
}

// freeID finds a number as useradd and groupadd do: system accounts from the
// top, others after the highest in use.
func freeID(used func(int) bool, low, high int, system bool) (int, error) {
	if system {
		for n := high; n >= low; n-- {
			if !used(n) {
				return n, nil
			}
		}
	} else {
		next := low
		for n := low; n <= high; n++ {
			if used(n) {
				next = n + 1
			}
		}
		if next <= high {
			return next, nil
		}
		for n := low; n <= high; n++ {
			if !used(n) {
				return n, nil
			}
		}
	}
	return 0, fail(4, "no more available ids on the system")
}

func (d *database) usedGID(n int) bool { return d.group.byID(n) != nil }
func (d *database) usedUID(n int) bool { return d.passwd.byID(n) != nil }

func (d *database) freeGID(system bool) (int, error) {
	if system {
		return freeID(d.usedGID, d.def("SYS_GID_MIN", 101), d.def("SYS_GID_MAX", d.def("GID_MIN", 1000)-1), true)
	}
	return freeID(d.usedGID, d.def("GID_MIN", 1000), d.def("GID_MAX", 60000), false)
}

func (d *database) freeUID(system bool) (int, error) {
	if system {
		return freeID(d.usedUID, d.def("SYS_UID_MIN", 101), d.def("SYS_UID_MAX", d.def("UID_MIN", 1000)-1), true)
	}
	return freeID(d.usedUID, d.def("UID_MIN", 1000), d.def("UID_MAX", 60000), false)
}

func groupadd(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-g|--gid", "-K|--key", "-p|--password", "-U|--users"},
		[]string{"-f|--force", "-o|--non-unique", "-r|--system"})
	if len(rest) != 1 {
		return fail(2, "usage: groupadd [options] GROUP")
	}
	if d.group.get(rest[0]) != nil {
		if has(set, "-f") {
			return nil
		}
		return fail(9, "group '%s' already exists", rest[0])
	}
	gid := 0
	var err error
	if has(set, "-g") {
		if gid, err = id(set["-g"]); err != nil {
			return err
		}
		if d.usedGID(gid) && !has(set, "-o") {
			if !has(set, "-f") {
				return fail(4, "GID '%d' already exists", gid)
			}
			set["-g"] = ""
			gid, err = d.freeGID(has(set, "-r"))
		}
	} else {
		gid, err = d.freeGID(has(set, "-r"))
	}
	if err != nil {
		return err
	}
	if err := d.addGroup(rest[0], gid); err != nil {
		return err
	}
	for _, u := range strings.Split(set["-U"], ",") {
		if u != "" {
			d.setMember(rest[0], u, true)
		}
	}
	return nil
}

func groupdel(p *shell.Process, d *database) error {
	_, _, rest := parse(p, nil, []string{"-f|--force"})
	if len(rest) != 1 {
		return fail(2, "usage: groupdel [options] GROUP")
	}
	r := d.group.get(rest[0])
	if r == nil {
		return fail(6, "group '%s' does not exist", rest[0])
	}
	for _, u := range d.passwd.rows {
		if len(u) > 3 && u[3] == r[2] {
			return fail(8, "cannot remove the primary group of user '%s'", u[0])
		}
	}
	d.group.remove(rest[0])
	d.gshadow.remove(rest[0])
	return nil
}

func groupmod(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-g|--gid", "-n|--new-name", "-p|--password"}, []string{"-o|--non-unique", "-a|--append"})
	if len(rest) != 1 {
		return fail(2, "usage: groupmod [options] GROUP")
	}
	r := d.group.get(rest[0])
	if r == nil {
		return fail(6, "group '%s' does not exist", rest[0])
	}
	if has(set, "-g") {
		gid, err := id(set["-g"])
		if err != nil {
			return err
		}
		if d.usedGID(gid) && !has(set, "-o") {
			return fail(4, "GID '%d' already exists", gid)
		}
		old := r[2]
		r[2] = strconv.Itoa(gid)
		d.group.changed = true
		for _, u := range d.passwd.rows {
			if len(u) > 3 && u[3] == old {
				u[3] = r[2]
				d.passwd.changed = true
			}
		}
	}
	if name := set["-n"]; name != "" {
		if !validName(name) || d.group.get(name) != nil {
			return fail(9, "group '%s' already exists or is not valid", name)
		}
		if s := d.gshadow.get(rest[0]); s != nil {
			s[0] = name
			d.gshadow.changed = true
		}
		r[0] = name
		d.group.changed = true
	}
	return nil
}

func useradd(p *shell.Process, d *database) error {
	set, multi, rest := parse(p, []string{"-b|--base-dir", "-c|--comment", "-d|--home|--home-dir", "-e|--expiredate", "-f|--inactive",
		"-g|--gid", "-G|--groups", "-k|--skel", "-K|--key", "-p|--password", "-s|--shell", "-u|--uid", "-Z|--selinux-user"},
		[]string{"-l|--no-log-init", "-m|--create-home", "-M|--no-create-home", "-N|--no-user-group", "-o|--non-unique",
			"-r|--system", "-U|--user-group", "-F|--add-subids-for-system", "--badname"})
	if len(rest) != 1 {
		return fail(2, "usage: useradd [options] LOGIN")
	}
	name := rest[0]
	for _, kv := range multi["-K"] {
		key, value, _ := strings.Cut(kv, "=")
		d.defs[key] = value
	}
	system := has(set, "-r")
	switch {
	case !validName(name):
		return fail(3, "invalid user name '%s'", name)
	case d.passwd.get(name) != nil:
		return fail(9, "user '%s' already exists", name)
	case !validField(set["-c"]) || !validField(set["-d"]) || !validField(set["-s"]) || !validField(set["-p"]):
		return fail(3, "invalid field")
	}
	var uid int
	var err error
	if has(set, "-u") {
		if uid, err = id(set["-u"]); err != nil {
			return err
		}
		if d.usedUID(uid) && !has(set, "-o") {
			return fail(4, "UID %d is not unique", uid)
		}
	} else if uid, err = d.freeUID(system); err != nil {
		return err
	}
	gid := d.def("USERS_GID", 100)
	switch {
	case has(set, "-g"):
		g := d.findGroup(set["-g"])
		if g == nil {
			return fail(6, "group '%s' does not exist", set["-g"])
		}
		gid, _ = number(g)
	case !has(set, "-N") && (has(set, "-U") || d.defs["USERGROUPS_ENAB"] != "no"):
		if d.group.get(name) != nil {
			return fail(9, "group %s exists - if you want to add this user to that group, use -g.", name)
		}
		gid = uid
		if d.usedGID(gid) {
			if gid, err = d.freeGID(system); err != nil {
				return err
			}
		}
		if err := d.addGroup(name, gid); err != nil {
			return err
		}
	}
	home := set["-d"]
	if home == "" {
		base := set["-b"]
		if base == "" {
			base = "/home"
		}
		home = base + "/" + name
	}
	login := set["-s"]
	if !has(set, "-s") {
		login = "/bin/sh"
	}
	password := "x"
	if !d.shadow.exists {
		password = "!"
		if has(set, "-p") {
			password = set["-p"]
		}
	}
	d.passwd.add(name, password, strconv.Itoa(uid), strconv.Itoa(gid), set["-c"], home, login)
	if d.shadow.exists {
		hash := "!"
		if has(set, "-p") {
			hash = set["-p"]
		}
		row := []string{name, hash, d.today(), "", "", "", set["-f"], set["-e"], ""}
		if !system {
			row[3], row[4], row[5] = d.defs["PASS_MIN_DAYS"], d.defs["PASS_MAX_DAYS"], d.defs["PASS_WARN_AGE"]
		}
		d.shadow.add(row...)
	}
	for _, g := range strings.Split(set["-G"], ",") {
		if g == "" {
			continue
		}
		r := d.findGroup(g)
		if r == nil {
			return fail(6, "group '%s' does not exist", g)
		}
		d.setMember(r[0], name, true)
	}
	if !system {
		if err := d.subordinate(name, uid); err != nil {
			return err
		}
	}
	create := has(set, "-m") || !system && d.defs["CREATE_HOME"] == "yes" && !has(set, "-M")
	if !create || p.Tree.Exists(home) {
		return nil
	}
	skel := set["-k"]
	if skel == "" {
		skel = "/etc/skel"
	}
	mode := uint32(0o777 &^ 0o022)
	if m, err := strconv.ParseUint(d.defs["HOME_MODE"], 8, 12); err == nil {
		mode = uint32(m)
	}
	return makeHome(p.Tree, home, skel, uint32(uid), uint32(gid), mode)
}

// subordinate gives a user ranges in subuid and subgid as useradd does.
func (d *database) subordinate(name string, uid int) error {
	for _, f := range []struct{ path, prefix string }{{"/etc/subuid", "SUB_UID"}, {"/etc/subgid", "SUB_GID"}} {
		s, err := load(d.t, f.path)
		if err != nil {
			return err
		}
		count := d.def(f.prefix+"_COUNT", 65536)
		if !s.exists || count == 0 || s.get(name) != nil {
			continue
		}
		next := d.def(f.prefix+"_MIN", 100000)
		for _, r := range s.rows {
			if len(r) < 3 {
				continue
			}
			first, _ := strconv.Atoi(r[1])
			n, _ := strconv.Atoi(r[2])
			next = max(next, first+n)
		}
		s.add(name, strconv.Itoa(next), strconv.Itoa(count))
		if err := s.save(0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeHome makes a home directory and copies the skeleton into it.
func makeHome(t *tree.Tree, home, skel string, uid, gid, mode uint32) error {
	if err := t.MkdirAll(home, 0o755); err != nil {
		return err
	}
	if err := errors.Join(t.Chown(home, uid, gid), t.Chmod(home, mode)); err != nil {
		return err
	}
	if skel == "" {
		return nil
	}
	type entry struct {
		path string
		node *tree.Inode
	}
	var all []entry
	for p, n := range t.Below(skel) {
		all = append(all, entry{p, n})
	}
	for _, e := range all {
		rel := strings.TrimPrefix(e.path, path.Clean(skel))
		if rel == "" {
			continue
		}
		to := home + rel
		c := &tree.Inode{Mode: e.node.Mode, UID: uid, GID: gid, ModTime: e.node.ModTime, Content: e.node.Content, Target: e.node.Target}
		if err := t.Put(to, c); err != nil {
			return err
		}
	}
	return nil
}

func userdel(p *shell.Process, d *database) error {
	set, _, rest := parse(p, nil, []string{"-f|--force", "-r|--remove"})
	if len(rest) != 1 {
		return fail(2, "usage: userdel [options] LOGIN")
	}
	r := d.passwd.get(rest[0])
	if r == nil {
		return fail(6, "user '%s' does not exist", rest[0])
	}
	if has(set, "-r") && len(r) > 5 && strings.Count(path.Clean(r[5]), "/") > 1 {
		if err := p.Tree.RemoveAll(r[5]); err != nil {
			return err
		}
	}
	d.deleteUser(rest[0])
	return nil
}

// deleteUser takes a user out of all files, and its own group if nobody else
// is in it.
func (d *database) deleteUser(name string) {
	r := d.passwd.get(name)
	d.passwd.remove(name)
	d.shadow.remove(name)
	for _, g := range d.group.rows {
		if d.isMember(g[0], name) {
			d.setMember(g[0], name, false)
		}
	}
	g := d.group.get(name)
	if g == nil || len(r) < 4 || len(g) < 4 || g[2] != r[3] || g[3] != "" || d.defs["USERGROUPS_ENAB"] == "no" {
		return
	}
	for _, u := range d.passwd.rows {
		if len(u) > 3 && u[3] == g[2] {
			return
		}
	}
	d.group.remove(name)
	d.gshadow.remove(name)
}

func usermod(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-c|--comment", "-d|--home", "-e|--expiredate", "-f|--inactive", "-g|--gid", "-G|--groups",
		"-l|--login", "-p|--password", "-s|--shell", "-u|--uid", "-v|--add-subuids", "-w|--add-subgids"},
		[]string{"-a|--append", "-m|--move-home", "-o|--non-unique", "-L|--lock", "-U|--unlock", "-r|--remove", "-b|--badname"})
	if len(rest) != 1 {
		return fail(2, "usage: usermod [options] LOGIN")
	}
	name := rest[0]
	r := d.passwd.get(name)
	if len(r) < 7 {
		return fail(6, "user '%s' does not exist", name)
	}
	for _, option := range []string{"-l", "-m", "-v", "-w"} {
		if has(set, option) {
			p.Unsupported("option %s", option)
		}
	}
	change := func(column int, value string) error {
		if !validField(value) {
			return fail(3, "invalid field '%s'", value)
		}
		if r[column] != value {
			r[column] = value
			d.passwd.changed = true
		}
		return nil
	}
	if has(set, "-g") {
		g := d.findGroup(set["-g"])
		if g == nil {
			return fail(6, "group '%s' does not exist", set["-g"])
		}
		set["-g"] = g[2]
	}
	if has(set, "-u") {
		uid, err := id(set["-u"])
		if err != nil {
			return err
		}
		if other := d.passwd.byID(uid); other != nil && other[0] != name && !has(set, "-o") {
			return fail(4, "UID '%d' already exists", uid)
		}
	}
	for option, column := range map[string]int{"-c": 4, "-d": 5, "-s": 6, "-g": 3, "-u": 2} {
		if has(set, option) {
			if err := change(column, set[option]); err != nil {
				return err
			}
		}
	}
	if s := d.shadow.get(name); len(s) > 8 {
		old := strings.Join(s, ":")
		switch {
		case has(set, "-L") && !strings.HasPrefix(s[1], "!"):
			s[1] = "!" + s[1]
		case has(set, "-U") && strings.HasPrefix(s[1], "!") && len(s[1]) > 1:
			s[1] = s[1][1:]
		case has(set, "-p"):
			s[1], s[2] = set["-p"], d.today()
		}
		if has(set, "-e") {
			s[7] = days(set["-e"])
		}
		if has(set, "-f") {
			s[6] = set["-f"]
		}
		if strings.Join(s, ":") != old {
			d.shadow.changed = true
		}
	}
	if has(set, "-G") {
		wanted := map[string]bool{}
		for _, g := range strings.Split(set["-G"], ",") {
			if g == "" {
				continue
			}
			row := d.findGroup(g)
			if row == nil {
				return fail(6, "group '%s' does not exist", g)
			}
			wanted[row[0]] = true
		}
		for _, g := range d.group.rows {
			switch {
			case wanted[g[0]]:
				d.setMember(g[0], name, !has(set, "-r"))
			case !has(set, "-a") && !has(set, "-r") && d.isMember(g[0], name):
				d.setMember(g[0], name, false)
			}
		}
	}
	return nil
}

// days turns the dates of shadow's options into days since 1970.
func days(s string) string {
	if s == "" || s == "-1" {
		return ""
	}
	return s
}

func gpasswd(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-a|--add", "-d|--delete", "-M|--members", "-A|--administrators"}, []string{"-r|--remove-password", "-R|--restrict"})
	if len(rest) != 1 || d.group.get(rest[0]) == nil {
		return fail(3, "group '%s' does not exist in /etc/group", strings.Join(rest, " "))
	}
	switch {
	case has(set, "-a"):
		if d.passwd.get(set["-a"]) == nil {
			return fail(3, "user '%s' does not exist", set["-a"])
		}
		d.setMember(rest[0], set["-a"], true)
	case has(set, "-d"):
		if !d.isMember(rest[0], set["-d"]) {
			return fail(3, "user '%s' is not a member of '%s'", set["-d"], rest[0])
		}
		d.setMember(rest[0], set["-d"], false)
	default:
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	return nil
}

func passwd(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-n|--mindays", "-x|--maxdays", "-w|--warndays", "-i|--inactive"},
		[]string{"-l|--lock", "-u|--unlock", "-d|--delete", "-e|--expire", "-q|--quiet", "-S|--status", "-a|--all"})
	if len(rest) != 1 || len(set) == 0 {
		p.Unsupported("a password from the terminal")
	}
	s := d.shadow.get(rest[0])
	if len(s) < 9 {
		return fail(1, "user '%s' does not exist", rest[0])
	}
	switch {
	case has(set, "-S"):
		state := "P"
		if s[1] == "" {
			state = "NP"
		} else if s[1][0] == '!' || s[1][0] == '*' {
			state = "L"
		}
		fmt.Fprintf(p.Stdout, "%s %s\n", rest[0], state)
		return nil
	case has(set, "-l"):
		if !strings.HasPrefix(s[1], "!") {
			s[1] = "!" + s[1]
		}
	case has(set, "-u"):
		if len(s[1]) > 1 {
			s[1] = strings.TrimPrefix(s[1], "!")
		}
	case has(set, "-d"):
		s[1] = ""
	case has(set, "-e"):
		s[2] = "0"
	default:
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	d.shadow.changed = true
	return nil
}

func chage(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-d|--lastday", "-E|--expiredate", "-I|--inactive", "-m|--mindays", "-M|--maxdays", "-W|--warndays"}, []string{"-l|--list"})
	if len(rest) != 1 {
		return fail(2, "usage: chage [options] LOGIN")
	}
	s := d.shadow.get(rest[0])
	if len(s) < 9 {
		return fail(1, "user '%s' does not exist in /etc/passwd", rest[0])
	}
	for option, column := range map[string]int{"-d": 2, "-m": 3, "-M": 4, "-W": 5, "-I": 6, "-E": 7} {
		if has(set, option) {
			s[column] = days(set[option])
			d.shadow.changed = true
		}
	}
	return nil
}

func chfn(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-f|--full-name", "-r|--room", "-w|--work-phone", "-h|--home-phone", "-o|--other"}, nil)
	if len(rest) != 1 {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	r := d.passwd.get(rest[0])
	if len(r) < 7 {
		return fail(1, "user '%s' does not exist", rest[0])
	}
	parts := strings.SplitN(r[4]+",,,,", ",", 5)
	for option, i := range map[string]int{"-f": 0, "-r": 1, "-w": 2, "-h": 3, "-o": 4} {
		if has(set, option) {
			if !validField(set[option]) {
				return fail(1, "invalid field")
			}
			parts[i] = set[option]
		}
	}
	r[4] = strings.TrimRight(strings.Join(parts, ","), ",")
	d.passwd.changed = true
	return nil
}

func chsh(p *shell.Process, d *database) error {
	set, _, rest := parse(p, []string{"-s|--shell"}, nil)
	if len(rest) != 1 || !has(set, "-s") || !validField(set["-s"]) {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	r := d.passwd.get(rest[0])
	if len(r) < 7 {
		return fail(1, "user '%s' does not exist", rest[0])
	}
	r[6] = set["-s"]
	d.passwd.changed = true
	return nil
}

// pwconv moves passwords to shadow: what shadow has stays first, what it
// lacks follows in passwd's order.
func pwconv(p *shell.Process, d *database) error {
	for _, s := range slices.Clone(d.shadow.rows) {
		if d.passwd.get(s[0]) == nil {
			d.shadow.remove(s[0])
		}
	}
	for _, r := range d.passwd.rows {
		if len(r) < 7 {
			continue
		}
		s := d.shadow.get(r[0])
		switch {
		case s == nil:
			d.shadow.add(r[0], r[1], d.today(), d.defs["PASS_MIN_DAYS"], d.defs["PASS_MAX_DAYS"], d.defs["PASS_WARN_AGE"], "", "", "")
		case r[1] != "x" && len(s) > 2:
			s[1], s[2] = r[1], d.today()
			d.shadow.changed = true
		}
		if r[1] != "x" {
			r[1] = "x"
			d.passwd.changed = true
		}
	}
	if err := d.save(); err != nil || !p.Tree.Exists("/etc/passwd-") {
		return err
	}
	// The backup may hold passwords.
	return p.Tree.Chmod("/etc/passwd-", 0o600)
}

func grpconv(p *shell.Process, d *database) error {
	for _, s := range slices.Clone(d.gshadow.rows) {
		if d.group.get(s[0]) == nil {
			d.gshadow.remove(s[0])
		}
	}
	for _, r := range d.group.rows {
		if len(r) < 4 {
			continue
		}
		s := d.gshadow.get(r[0])
		switch {
		case s == nil:
			d.gshadow.add(r[0], r[1], "", r[3])
		case len(s) > 3:
			if r[1] != "x" {
				s[1] = r[1]
				d.gshadow.changed = true
			}
			if s[3] != r[3] {
				s[3] = r[3]
				d.gshadow.changed = true
			}
		}
		if r[1] != "x" {
			r[1] = "x"
			d.group.changed = true
		}
	}
	return nil
}

// updatePasswd changes nothing: the master files are what the system was made
// from.
func updatePasswd(context.Context, *shell.Process) int { return 0 }

func getent(ctx context.Context, p *shell.Process) int {
	var words []string
	for _, a := range p.Args[1:] {
		if !strings.HasPrefix(a, "-") {
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		p.Errorf("wrong number of arguments")
		return 1
	}
	file, found := map[string]string{"passwd": "/etc/passwd", "group": "/etc/group", "shadow": "/etc/shadow", "gshadow": "/etc/gshadow"}[words[0]]
	if !found {
		switch words[0] {
		case "hosts", "ahosts", "ahostsv4", "ahostsv6", "services", "protocols", "networks", "netgroup", "initgroups":
			return 2
		}
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	f, err := load(p.Tree, file)
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	if len(words) == 1 {
		for _, r := range f.rows {
			fmt.Fprintln(p.Stdout, strings.Join(r, ":"))
		}
		return 0
	}
	status := 0
	for _, key := range words[1:] {
		r := f.get(key)
		if n, err := strconv.Atoi(key); r == nil && err == nil && (words[0] == "passwd" || words[0] == "group") {
			r = f.byID(n)
		}
		if r == nil {
			status = 2
			continue
		}
		fmt.Fprintln(p.Stdout, strings.Join(r, ":"))
	}
	return status
}
