package maintscript

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// Names of capabilities by number (capabilities(7), linux/capability.h).
var capabilities = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
	"net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot",
	"sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
	"audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
	"perfmon", "bpf", "checkpoint_restore",
}

const capabilityAttr = "security.capability"

// setcap writes file capabilities as setcap(8) does: the text has clauses
// such as "cap_net_raw,cap_net_admin=ep" or "cap_net_raw+ep".
func setcap(ctx context.Context, p *shell.Process) int {
	args := slices.DeleteFunc(slices.Clone(p.Args[1:]), func(s string) bool { return s == "-q" || s == "-v" })
	if len(args) == 0 || len(args)%2 != 0 {
		p.Errorf("usage: setcap (-r|<capsN>) <fileN>")
		return 1
	}
	for ; len(args) > 0; args = args[2:] {
		value := ""
		if args[0] != "-r" {
			var err error
			if value, err = capabilityValue(args[0]); err != nil {
				p.Errorf("%v", err)
				return 1
			}
		}
		if err := p.Tree.SetXattr(p.Path(args[1]), capabilityAttr, value); err != nil {
			p.Errorf("Failed to set capabilities on file '%s': %s", args[1], shell.Reason(err))
			return 1
		}
	}
	return 0
}

// capabilityValue makes the attribute's bytes: struct vfs_cap_data, revision 2.
func capabilityValue(text string) (string, error) {
	var permitted, inheritable uint64
	effective := false
	for _, clause := range strings.Fields(text) {
		i := strings.IndexAny(clause, "=+-")
		if i < 0 || clause[i] == '-' {
			return "", fmt.Errorf("cannot use the capabilities %q", text)
		}
		var set uint64
		for _, name := range strings.Split(clause[:i], ",") {
			n := slices.Index(capabilities, strings.TrimPrefix(strings.ToLower(name), "cap_"))
			if n < 0 {
				return "", fmt.Errorf("cannot use the capability %q", name)
			}
			set |= 1 << n
		}
		for _, flag := range clause[i+1:] {
			switch flag {
			case 'e':
				effective = true
			case 'p':
				permitted |= set
			case 'i':
				inheritable |= set
			default:
				return "", fmt.Errorf("cannot use the capabilities %q", text)
			}
		}
	}
	magic := uint32(0x02000000)
	if effective {
		magic |= 1
	}
	var b []byte
	for _, v := range []uint32{magic, uint32(permitted), uint32(inheritable), uint32(permitted >> 32), uint32(inheritable >> 32)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return string(b), nil
}

// getcap prints the capabilities of files that have some.
func getcap(ctx context.Context, p *shell.Process) int {
	for _, f := range p.Args[1:] {
		if strings.HasPrefix(f, "-") {
			continue
		}
		n, err := p.Stat(f)
		if err != nil || len(n.Xattrs[capabilityAttr]) < 12 {
			continue
		}
		v := n.Xattrs[capabilityAttr]
		permitted := binary.LittleEndian.Uint32([]byte(v[4:8]))
		var names []string
		for i, name := range capabilities {
			if i < 32 && permitted&(1<<i) != 0 {
				names = append(names, "cap_"+name)
			}
		}
		fmt.Fprintf(p.Stdout, "%s %s=ep\n", f, strings.Join(names, ","))
	}
	return 0
}
