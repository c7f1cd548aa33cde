package systemd

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// Tags of entries in an access control list and the layout of the attribute
// that holds it: linux/posix_acl.h, linux/posix_acl_xattr.h.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclVersion = 2
	aclNoID    = 0xffffffff
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// acl adds a line's entries to a file's lists: "d:group:adm:r-x,group::r-x".
// What an entry does not say follows from the file's mode, and the mask is
// what the group entries need, as acl_calc_mask(3) has it.
func (l *tmpLine) acl(t *tree.Tree, p string) error {
	n, err := t.Stat(p)
	if err != nil {
		return err
	}
	if n.IsSymlink() {
		return nil
	}
	var access, standard []aclEntry
	for one := range strings.SplitSeq(l.argument, ",") {
		one, isDefault := cutDefault(strings.TrimSpace(one))
		e, err := parseACL(t, one, n)
		if err != nil {
			return err
		}
		if !isDefault {
			access = append(access, e)
		} else if n.IsDir() {
			standard = append(standard, e)
		}
	}
	for _, list := range []struct {
		attr    string
		entries []aclEntry
	}{{"system.posix_acl_access", access}, {"system.posix_acl_default", standard}} {
		if list.entries == nil {
			continue
		}
		all := complete(list.entries, n)
		if err := t.SetXattr(p, list.attr, encodeACL(all)); err != nil {
			return err
		}
		if list.attr != "system.posix_acl_access" {
			continue
		}
		// The mode shows the mask where it showed the group.
		mask := all[slices.IndexFunc(all, func(e aclEntry) bool { return e.tag == aclMask })].perm
		if err := t.Chmod(p, n.Perm()&^0o070|uint32(mask)<<3); err != nil {
			return err
		}
	}
	return nil
}

func cutDefault(s string) (string, bool) {
	for _, prefix := range []string{"d:", "default:"} {
		if rest, found := strings.CutPrefix(s, prefix); found {
			return rest, true
		}
	}
	return s, false
}

func parseACL(t *tree.Tree, s string, n *tree.Inode) (aclEntry, error) {
	words := strings.Split(s, ":")
	if len(words) != 3 {
		return aclEntry{}, fmt.Errorf("cannot use the access control entry %q", s)
	}
	e := aclEntry{id: aclNoID}
	for _, c := range words[2] {
		switch c {
		case 'r':
			e.perm |= 4
		case 'w':
			e.perm |= 2
		case 'x':
			e.perm |= 1
		case 'X':
			if n.IsDir() || n.Perm()&0o111 != 0 {
				e.perm |= 1
			}
		case '-':
		default:
			return aclEntry{}, fmt.Errorf("cannot use the access control entry %q", s)
		}
	}
	file := ""
	switch words[0] {
	case "u", "user":
		if e.tag = aclUserObj; words[1] != "" {
			e.tag, file = aclUser, "/etc/passwd"
		}
	case "g", "group":
		if e.tag = aclGroupObj; words[1] != "" {
			e.tag, file = aclGroup, "/etc/group"
		}
	case "o", "other":
		e.tag = aclOther
	case "m", "mask":
		e.tag = aclMask
	default:
		return aclEntry{}, fmt.Errorf("cannot use the access control entry %q", s)
	}
	if file != "" {
		id, err := lookupID(t, file, words[1])
		if err != nil {
			return aclEntry{}, err
		}
		e.id = id
	}
	return e, nil
}

// complete adds the entries that every list has, sorted as the kernel wants.
func complete(entries []aclEntry, n *tree.Inode) []aclEntry {
	has := func(tag uint16) bool {
		return slices.ContainsFunc(entries, func(e aclEntry) bool { return e.tag == tag })
	}
	for tag, shift := range map[uint16]int{aclUserObj: 6, aclGroupObj: 3, aclOther: 0} {
		if !has(tag) {
			entries = append(entries, aclEntry{tag, uint16(n.Perm()>>shift) & 7, aclNoID})
		}
	}
	if !has(aclMask) {
		var mask uint16
		for _, e := range entries {
			if e.tag == aclUser || e.tag == aclGroup || e.tag == aclGroupObj {
				mask |= e.perm
			}
		}
		entries = append(entries, aclEntry{aclMask, mask, aclNoID})
	}
	slices.SortFunc(entries, func(a, b aclEntry) int {
		if a.tag != b.tag {
			return int(a.tag) - int(b.tag)
		}
		return int(int64(a.id) - int64(b.id))
	})
	return entries
}

func encodeACL(entries []aclEntry) string {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}
