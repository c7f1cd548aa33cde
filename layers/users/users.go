// Package users makes the blueprint's accounts.
package users

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// Ids of ordinary accounts (Debian Policy 9.2.2).
const firstID, lastID = 1000, 59999

// Layer makes users with their keys.
type Layer struct{}

// Name returns "users".
func (Layer) Name() string { return "users" }

// Packages returns sudo where a user is to have it.
func (Layer) Packages(r *plan.Root) []string {
	for _, u := range r.Cube.Users {
		if u.Sudo {
			return []string{"sudo"}
		}
	}
	return nil
}

// Apply adds the accounts in the blueprint's order.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	for _, u := range r.Cube.Users {
		if err := add(t, u); err != nil {
			return fmt.Errorf("user %q: %w", u.Name, err)
		}
	}
	return nil
}

func add(t *tree.Tree, u blueprint.User) error {
	passwd, err := readTable(t, "/etc/passwd")
	if err != nil {
		return err
	}
	group, err := readTable(t, "/etc/group")
	if err != nil {
		return err
	}
	if passwd.row(u.Name) != nil {
		return errors.New("cannot make it: the distribution has an account of this name")
	}
	id, err := freeID(passwd, group)
	if err != nil {
		return err
	}
	shell := u.Shell
	if shell == "" {
		shell = "/bin/bash"
	}
	if !t.Exists(shell) {
		return fmt.Errorf("cannot make it: no package brings the shell %s", shell)
	}
	home := "/home/" + u.Name
	days := strconv.FormatInt(t.Epoch()/86400, 10)
	hash := string(u.PasswordHash)
	if hash == "" {
		hash = "!"
	}
	shadow, err := readTable(t, "/etc/shadow")
	if err != nil {
		return err
	}
	gshadow, err := readTable(t, "/etc/gshadow")
	if err != nil {
		return err
	}
	number := strconv.FormatUint(uint64(id), 10)
	passwd.add(u.Name, "x", number, number, u.Name, home, shell)
	shadow.add(u.Name, hash, days, "0", "99999", "7", "", "", "")
	group.add(u.Name, "x", number, "")
	gshadow.add(u.Name, "!", "", "")
	groups := slices.Clone(u.Groups)
	if u.Sudo {
		groups = append(groups, "sudo")
	}
	for _, g := range groups {
		if err := join(group, g, u.Name); err != nil {
			return err
		}
		// A group without a shadow entry has no shadowed members.
		_ = join(gshadow, g, u.Name)
	}
	return errors.Join(passwd.write(t), shadow.write(t), group.write(t), gshadow.write(t),
		makeHome(t, u, home, id), sudoers(t, u))
}

// sudoers lets a user without a password become root: there is nothing that
// sudo could ask for.
func sudoers(t *tree.Tree, u blueprint.User) error {
	if !u.Sudo || u.PasswordHash != "" {
		return nil
	}
	line := fmt.Sprintf("%s ALL=(ALL:ALL) NOPASSWD: ALL\n", u.Name)
	// sudo skips files with a dot or a tilde in their name.
	return t.WriteFile("/etc/sudoers.d/picube-"+strings.ReplaceAll(u.Name, ".", "_"), []byte(line), 0o440)
}

func makeHome(t *tree.Tree, u blueprint.User, home string, id uint32) error {
	if err := t.MkdirAll(path.Dir(home), 0o755); err != nil {
		return err
	}
	if err := t.Mkdir(home, 0o700); err != nil {
		return err
	}
	for p, n := range t.Below("/etc/skel") {
		if !n.IsRegular() || path.Dir(p) != "/etc/skel" {
			continue
		}
		if err := t.WriteContent(path.Join(home, path.Base(p)), n.Content, n.Perm()); err != nil {
			return err
		}
	}
	if len(u.AuthorizedKeys) > 0 {
		keys := strings.Join(u.AuthorizedKeys, "\n") + "\n"
		if err := errors.Join(
			t.Mkdir(home+"/.ssh", 0o700),
			t.WriteFile(home+"/.ssh/authorized_keys", []byte(keys), 0o600),
		); err != nil {
			return err
		}
	}
	var paths []string
	for p := range t.Below(home) {
		paths = append(paths, p)
	}
	for _, p := range paths {
		if err := t.Lchown(p, id, id); err != nil {
			return err
		}
	}
	return nil
}

// table is one of the colon-separated files: passwd(5), group(5), shadow(5),
// gshadow(5).
type table struct {
	path string
	rows [][]string
}

func readTable(t *tree.Tree, p string) (*table, error) {
	text, err := t.ReadFile(p)
	if err != nil {
		return nil, err
	}
	tab := &table{path: p}
	for line := range strings.Lines(string(text)) {
		tab.rows = append(tab.rows, strings.Split(strings.TrimSuffix(line, "\n"), ":"))
	}
	return tab, nil
}

func (tab *table) row(name string) []string {
	for _, r := range tab.rows {
		if r[0] == name {
			return r
		}
	}
	return nil
}

func (tab *table) add(fields ...string) { tab.rows = append(tab.rows, fields) }

func (tab *table) write(t *tree.Tree) error {
	var b strings.Builder
	for _, r := range tab.rows {
		b.WriteString(strings.Join(r, ":"))
		b.WriteByte('\n')
	}
	return t.WriteFile(tab.path, []byte(b.String()), 0o644)
}

// join adds a member to a group, the last field of group and gshadow alike.
func join(tab *table, group, user string) error {
	row := tab.row(group)
	if len(row) != 4 {
		return fmt.Errorf("group %q: cannot join it: no package brings it", group)
	}
	if row[3] != "" {
		user = row[3] + "," + user
	}
	row[3] = user
	return nil
}

func freeID(tables ...*table) (uint32, error) {
	used := map[string]bool{}
	for _, tab := range tables {
		for _, r := range tab.rows {
			if len(r) > 2 {
				used[r[2]] = true
			}
		}
	}
	for id := uint32(firstID); id <= lastID; id++ {
		if !used[strconv.FormatUint(uint64(id), 10)] {
			return id, nil
		}
	}
	return 0, errors.New("cannot find a free id")
}
