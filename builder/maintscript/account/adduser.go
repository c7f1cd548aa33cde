package account

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// adduser is Debian's adduser and addgroup. It calls groupadd, useradd and
// usermod as the Perl program does, each of which leaves its own backup.
func adduser(ctx context.Context, p *shell.Process) int {
	set, _, rest := parse(p,
		[]string{"--uid", "--gid", "--ingroup", "--home", "--shell", "--gecos|--comment", "--firstuid", "--lastuid", "--firstgid", "--lastgid",
			"--conf", "--stdoutmsglevel", "--stderrmsglevel", "--logmsglevel"},
		[]string{"--system", "--group", "--quiet|-q", "--verbose", "--debug", "--no-create-home", "--disabled-password", "--disabled-login",
			"--force-badname", "--allow-badname", "--allow-all-names", "--allow-bad-names", "--add-extra-groups|--add_extra_groups"})
	a := &adder{p: p, set: set, conf: config(p)}
	group := p.Name() == "addgroup"
	system := has(set, "--system")
	var err error
	switch {
	case len(rest) == 2 && !group:
		err = a.addToGroup(ctx, rest[0], rest[1])
	case len(rest) != 1:
		err = fail(10, "Only one or two names allowed.")
	case system && (group || has(set, "--group") && has(set, "--group-only")):
		err = a.systemGroup(ctx, rest[0])
	case group || has(set, "--group") && !system:
		err = a.plainGroup(ctx, rest[0])
	case system:
		err = a.systemUser(ctx, rest[0])
	default:
		err = a.user(ctx, rest[0])
	}
	var status *statusError
	if errors.As(err, &status) {
		fmt.Fprintf(p.Stderr, "fatal: %v\n", err)
		return status.status
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "fatal: %v\n", err)
		return 1
	}
	return 0
}

type adder struct {
	p    *shell.Process
	set  map[string]string
	conf map[string]string
}

// config reads adduser.conf over the built-in defaults.
func config(p *shell.Process) map[string]string {
	conf := map[string]string{
		"first_system_uid": "100", "last_system_uid": "999", "first_system_gid": "100", "last_system_gid": "999",
		"first_uid": "1000", "last_uid": "59999", "first_gid": "1000", "last_gid": "59999",
		"dshell": "/bin/bash", "dhome": "/home", "skel": "/etc/skel", "usergroups": "yes", "users_group": "users",
		"dir_mode": "0700", "sys_dir_mode": "0755", "extra_groups": "users", "add_extra_groups": "0",
		"skel_ignore_regex": `\.(dpkg|ucf)-(old|new|dist|save)$`,
	}
	text, err := p.Tree.ReadFile("/etc/adduser.conf")
	if err != nil {
		return conf
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if found && !strings.HasPrefix(key, "#") {
			conf[strings.ToLower(strings.TrimSpace(key))] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return conf
}

func (a *adder) number(option, key string) int {
	s := a.set[option]
	if s == "" {
		s = a.conf[key]
	}
	n, _ := strconv.Atoi(s)
	return n
}

func first(low, high int, used func(int) bool) (int, error) {
	for n := low; n <= high; n++ {
		if !used(n) {
			return n, nil
		}
	}
	return 0, fail(55, "No ID is available in the range %d-%d.", low, high)
}

func (a *adder) systemGID(d *database) (int, error) {
	return first(a.number("--firstgid", "first_system_gid"), a.number("--lastgid", "last_system_gid"), d.usedGID)
}

// isSystem reports whether a row's number is one of a system account.
func (a *adder) isSystem(row []string, kind string) bool {
	n, ok := number(row)
	low, _ := strconv.Atoi(a.conf["first_system_"+kind])
	high, _ := strconv.Atoi(a.conf["last_system_"+kind])
	return ok && n >= low && n <= high
}

func (a *adder) run(ctx context.Context, args ...string) error {
	if status := a.p.Run(ctx, shell.Call{Args: args}); status != 0 {
		return fail(82, "`%s' returned error code %d. Exiting.", strings.Join(args, " "), status)
	}
	return nil
}

func (a *adder) addToGroup(ctx context.Context, user, group string) error {
	d, err := open(a.p.Tree)
	switch {
	case err != nil:
		return err
	case d.passwd.get(user) == nil:
		return fail(12, "The user `%s' does not exist.", user)
	case d.group.get(group) == nil:
		return fail(12, "The group `%s' does not exist.", group)
	case d.isMember(group, user):
		return nil
	}
	return a.run(ctx, "usermod", "-a", "-G", group, user)
}

func (a *adder) systemGroup(ctx context.Context, name string) error {
	d, err := open(a.p.Tree)
	if err != nil {
		return err
	}
	if r := d.group.get(name); r != nil {
		switch {
		case has(a.set, "--gid") && a.set["--gid"] != r[2]:
			return fail(13, "The group `%s' already exists, but has a different GID. Exiting.", name)
		case !a.isSystem(r, "gid"):
			return fail(13, "The group `%s' already exists and is not a system group. Exiting.", name)
		}
		return nil
	}
	gid, err := a.chosen(d, "--gid", d.usedGID, func() (int, error) { return a.systemGID(d) })
	if err != nil {
		return err
	}
	return a.run(ctx, "groupadd", "-g", strconv.Itoa(gid), name)
}

// chosen returns the number that an option asks for, or a free one.
func (a *adder) chosen(d *database, option string, used func(int) bool, free func() (int, error)) (int, error) {
	if !has(a.set, option) {
		return free()
	}
	n, err := strconv.Atoi(a.set[option])
	if err != nil {
		return 0, fail(10, "%s is not a number", a.set[option])
	}
	if used(n) {
		return 0, fail(54, "The ID `%d' is already in use.", n)
	}
	return n, nil
}

func (a *adder) plainGroup(ctx context.Context, name string) error {
	d, err := open(a.p.Tree)
	if err != nil {
		return err
	}
	if d.group.get(name) != nil {
		return fail(11, "The group `%s' already exists.", name)
	}
	gid, err := a.chosen(d, "--gid", d.usedGID, func() (int, error) {
		return first(a.number("--firstgid", "first_gid"), a.number("--lastgid", "last_gid"), d.usedGID)
	})
	if err != nil {
		return err
	}
	return a.run(ctx, "groupadd", "-g", strconv.Itoa(gid), name)
}

func (a *adder) systemUser(ctx context.Context, name string) error {
	d, err := open(a.p.Tree)
	if err != nil {
		return err
	}
	if r := d.passwd.get(name); r != nil {
		switch {
		case !a.isSystem(r, "uid"):
			return fail(13, "The user `%s' already exists, but is not a system user. Exiting.", name)
		case has(a.set, "--uid") && a.set["--uid"] != r[2]:
			return fail(13, "The user `%s' already exists with a different UID. Exiting.", name)
		}
		return nil
	}
	uid, err := a.chosen(d, "--uid", d.usedUID, func() (int, error) {
		return first(a.number("--firstuid", "first_system_uid"), a.number("--lastuid", "last_system_uid"), d.usedUID)
	})
	if err != nil {
		return err
	}
	group := "nogroup"
	gid := 65534
	switch {
	case has(a.set, "--gid") || has(a.set, "--ingroup"):
		g := d.findGroup(a.set["--gid"] + a.set["--ingroup"])
		if g == nil {
			return fail(12, "The group `%s' does not exist.", a.set["--gid"]+a.set["--ingroup"])
		}
		group = g[0]
		gid, _ = number(g)
	case has(a.set, "--group"):
		group = name
		if g := d.group.get(name); g != nil {
			gid, _ = number(g)
			break
		}
		if has(a.set, "--uid") {
			gid = uid
			if d.usedGID(gid) {
				return fail(54, "The GID %d is already in use.", gid)
			}
		} else if gid, err = a.systemGID(d); err != nil {
			return err
		}
		if err := a.run(ctx, "groupadd", "-g", strconv.Itoa(gid), name); err != nil {
			return err
		}
	}
	home := a.set["--home"]
	if home == "" {
		home = "/nonexistent"
	}
	login := a.set["--shell"]
	if login == "" {
		login = "/usr/sbin/nologin"
	}
	if err := a.run(ctx, "useradd", "-r",
		"-K", "SYS_UID_MIN="+strconv.Itoa(a.number("--firstuid", "first_system_uid")),
		"-K", "SYS_UID_MAX="+strconv.Itoa(a.number("--lastuid", "last_system_uid")),
		"-d", home, "-g", group, "-s", login, "-u", strconv.Itoa(uid), name); err != nil {
		return err
	}
	if has(a.set, "--gecos") {
		if err := a.run(ctx, "usermod", "-c", a.set["--gecos"], name); err != nil {
			return err
		}
	}
	return a.home(home, "", uid, gid, "sys_dir_mode")
}

func (a *adder) home(home, skel string, uid, gid int, mode string) error {
	home = path.Clean(home)
	if has(a.set, "--no-create-home") || home == "/nonexistent" || strings.HasPrefix(home, "/nonexistent/") || a.p.Tree.Exists(home) {
		return nil
	}
	m, err := strconv.ParseUint(a.conf[mode], 8, 12)
	if err != nil {
		m = 0o755
	}
	if err := makeHome(a.p.Tree, home, skel, uint32(uid), uint32(gid), uint32(m)); err != nil || skel == "" {
		return err
	}
	ignore, err := regexp.Compile(a.conf["skel_ignore_regex"])
	if err != nil {
		return nil
	}
	names, _ := a.p.Tree.ReadDir(home)
	for _, n := range names {
		if ignore.MatchString(n) {
			if err := a.p.Tree.RemoveAll(home + "/" + n); err != nil {
				return err
			}
		}
	}
	return nil
}

// user makes an ordinary account, as far as that needs no terminal.
func (a *adder) user(ctx context.Context, name string) error {
	d, err := open(a.p.Tree)
	if err != nil {
		return err
	}
	if d.passwd.get(name) != nil {
		return fail(11, "The user `%s' already exists.", name)
	}
	if !has(a.set, "--disabled-password") && !has(a.set, "--disabled-login") {
		a.p.Unsupported("a password from the terminal")
	}
	own := strings.EqualFold(a.conf["usergroups"], "yes") && !has(a.set, "--ingroup") && !has(a.set, "--gid")
	used := d.usedUID
	if own {
		used = func(n int) bool { return d.usedUID(n) || d.usedGID(n) }
	}
	uid, err := a.chosen(d, "--uid", d.usedUID, func() (int, error) {
		return first(a.number("--firstuid", "first_uid"), a.number("--lastuid", "last_uid"), used)
	})
	if err != nil {
		return err
	}
	gid := uid
	if own {
		if err := a.run(ctx, "groupadd", "-g", strconv.Itoa(gid), name); err != nil {
			return err
		}
	} else {
		wanted := a.set["--gid"] + a.set["--ingroup"]
		if wanted == "" {
			wanted = a.conf["users_group"]
		}
		g := d.findGroup(wanted)
		if g == nil {
			return fail(12, "The group `%s' does not exist.", wanted)
		}
		gid, _ = number(g)
	}
	home := a.set["--home"]
	if home == "" {
		home = a.conf["dhome"] + "/" + name
	}
	login := a.set["--shell"]
	if login == "" {
		login = a.conf["dshell"]
		if has(a.set, "--disabled-login") {
			login = "/usr/sbin/nologin"
		}
	}
	if err := a.run(ctx, "useradd", "-d", home, "-g", strconv.Itoa(gid), "-s", login, "-u", strconv.Itoa(uid), name); err != nil {
		return err
	}
	if err := a.home(home, a.conf["skel"], uid, gid, "dir_mode"); err != nil {
		return err
	}
	if has(a.set, "--gecos") {
		if err := a.run(ctx, "usermod", "-c", a.set["--gecos"], name); err != nil {
			return err
		}
	}
	if own && a.conf["users_group"] != "" {
		return a.run(ctx, "usermod", "-a", "-G", a.conf["users_group"], name)
	}
	return nil
}

// deluser is deluser and delgroup.
func deluser(ctx context.Context, p *shell.Process) int {
	set, _, rest := parse(p, []string{"--home", "--conf", "--backup-to"},
		[]string{"--system", "--group", "--quiet|-q", "--remove-home", "--remove-all-files", "--backup", "--force", "--only-if-empty", "--verbose"})
	d, err := open(p.Tree)
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	a := &adder{p: p, set: set, conf: config(p)}
	switch {
	case len(rest) == 2:
		if d.passwd.get(rest[0]) == nil || d.group.get(rest[1]) == nil {
			p.Errorf("The user or group does not exist.")
			return 12
		}
		err = a.run(ctx, "gpasswd", "-d", rest[0], rest[1])
	case len(rest) != 1:
		return 10
	case p.Name() == "delgroup" || has(set, "--group"):
		if d.group.get(rest[0]) == nil {
			if has(set, "--system") {
				return 0
			}
			return 12
		}
		err = a.run(ctx, "groupdel", rest[0])
	default:
		r := d.passwd.get(rest[0])
		if r == nil {
			if has(set, "--system") {
				return 0
			}
			return 12
		}
		if has(set, "--system") && !a.isSystem(r, "uid") {
			return 13
		}
		args := []string{"userdel", rest[0]}
		if has(set, "--remove-home") {
			args = []string{"userdel", "-r", rest[0]}
		}
		err = a.run(ctx, args...)
	}
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	return 0
}
