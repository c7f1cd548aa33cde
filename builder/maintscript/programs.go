package maintscript

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/certhash"
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/depmod"
	"github.com/picube/picube-build/builder/hwdb"
	"github.com/picube/picube-build/builder/journalcatalog"
	"github.com/picube/picube-build/builder/ldcache"
	"github.com/picube/picube-build/builder/maintscript/account"
	"github.com/picube/picube-build/builder/maintscript/alternatives"
	"github.com/picube/picube-build/builder/maintscript/coreutils"
	"github.com/picube/picube-build/builder/maintscript/dpkgtools"
	"github.com/picube/picube-build/builder/maintscript/pam"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/maintscript/systemd"
	"github.com/picube/picube-build/builder/tree"
)

// Programs returns the names or paths of all programs that have a stand-in,
// sorted.
func Programs() ([]string, error) {
	t := tree.New(0)
	db, err := dpkg.Open(t, "arm64")
	if err != nil {
		return nil, err
	}
	names := slices.Collect(maps.Keys(newWorld(t, db, Options{}).programs))
	names = append(names, "python3")
	slices.Sort(names)
	return names, nil
}

// allPrograms returns every program that has a stand-in, by name or path.
func (w *world) allPrograms() map[string]shell.Command {
	all := map[string]shell.Command{}
	for _, some := range []map[string]shell.Command{
		coreutils.Commands(), account.Commands(), dpkgtools.Commands(w.db), systemd.Commands(), w.debconf.Commands(), w.own(), w.notHere(), w.later(), w.onceMore(),
	} {
		maps.Copy(all, some)
	}
	return all
}

// own returns the programs that are neither Unix's nor Debian's machinery.
func (w *world) own() map[string]shell.Command {
	return map[string]shell.Command{
		"update-alternatives": alternatives.Command,
		"pam-auth-update":     pam.Command(w.debconf),
		"ldconfig": w.update(func(ctx context.Context, p *shell.Process) error {
			return ldcache.Update(p.Tree)
		}),
		"systemd-hwdb": w.update(func(ctx context.Context, p *shell.Process) error {
			for _, a := range p.Args[1:] {
				if a == "--usr" {
					return hwdb.Update(p.Tree, "/usr/lib/udev")
				}
			}
			return hwdb.Update(p.Tree, "/etc/udev")
		}),
		"journalctl": w.update(func(ctx context.Context, p *shell.Process) error {
			if p.Args[len(p.Args)-1] != "--update-catalog" {
				p.Unsupported("%s", strings.Join(p.Args, " "))
			}
			return journalcatalog.Update(p.Tree)
		}),
		"depmod":                   w.update(w.noteDepmod),
		"openssl":                  w.update(openssl),
		"c_rehash":                 w.update(openssl),
		"systemd-machine-id-setup": w.update(emptyMachineID),
		"linux-update-symlinks":    w.update(linuxSymlinks),
		"linux-run-hooks":          linuxRunHooks,
		"linux-version":            linuxVersion,
		"update-initramfs":         w.updateInitramfs,
		"chronyd":                  chronyd,
		"dpkg-realpath":            dpkgRealpath,
		"setcap":                   setcap,
		"getcap":                   getcap,
		"ischroot":                 succeed, // nothing may be restarted
		"aa-enabled":               failWith(1),
		"aa-status":                failWith(1),
		"selinuxenabled":           failWith(1),
		"systemd-detect-virt":      failWith(1),
		"dbus-send":                failWith(1),
		"ssh-keygen":               w.sshKeygen,
		"perl":                     perl,
		"getopt":                   getopt,
		"locale":                   locale,
		"update-locale":            w.update(updateLocale),
		"localedef":                w.localedef,
		"setpriv":                  runAs,
		"mkfontscale":              w.update(mkfontscale),
		"lpstat":                   lpstat,
		"su":                       su,
		"pg_lsclusters":            pgLsclusters,
		"pg_updatedicts":           w.update(postgresDictionaries),
		"ufw":                      ufw,
		"/usr/lib/emacsen-common/emacs-package-install": w.update(emacsPackage),
		"runuser":           runAs,
		"ucfq":              ucfq,
		"helpztags":         helpztags,
		"update-catalog":    w.update(updateCatalog),
		"update-xmlcatalog": w.update(updateXMLCatalog),
		"iconv":             iconv,
		"dd":                dd,
		"stty":              failWith(1),
		"findmnt":           failWith(1),
		"lsmod":             succeed,
		"smartctl":          succeed,
	}
}

// notHere returns programs that need a running machine, or make what is of
// one machine only. They succeed and do nothing.
func (w *world) notHere() map[string]shell.Command {
	all := map[string]shell.Command{}
	for program, why := range map[string]string{
		"sshd":         "host keys are of one card: they come with its identity, not with the shared root",
		"dbus-uuidgen": "the machine id is of one card",
		"udevadm":      "no udev runs",
		"modprobe":     "no kernel runs",
		"sysctl":       "no kernel runs",
		"vgcfgbackup":  "there are no volumes",
		"/usr/share/postgresql-common/pg_checksystem": "there are no databases to check the disks of",
		"py3compile":      noByteCode,
		"py3clean":        noByteCode,
		"apparmor_parser": "profiles are loaded at boot",
		"restorecon":      "no SELinux policy is loaded",
		"nscd":            "nothing is cached",
		"loginctl":        "nobody is logged in",
		"telinit":         "no init runs",
		"systemd-notify":  "no manager runs",
		"/etc/kernel/postinst.d/z50-raspi-firmware":       "the boot partition is made by the builder; on the card this hook keeps it up to date",
		"/etc/initramfs/post-update.d/z50-raspi-firmware": "the boot partition is made by the builder; on the card this hook keeps it up to date",
	} {
		all[program] = func(context.Context, *shell.Process) int {
			w.skip(program, why)
			return 0
		}
	}
	return all
}

// update makes a command of a function that fails with an error.
func (w *world) update(f func(ctx context.Context, p *shell.Process) error) shell.Command {
	return func(ctx context.Context, p *shell.Process) int {
		if err := f(ctx, p); err != nil {
			p.Errorf("%v", err)
			return 1
		}
		return 0
	}
}

func succeed(context.Context, *shell.Process) int { return 0 }

func failWith(status int) shell.Command {
	return func(context.Context, *shell.Process) int { return status }
}

// noteDepmod puts depmod off to the end: it takes seconds, and a kernel with
// extra modules asks for it more than once.
func (w *world) noteDepmod(ctx context.Context, p *shell.Process) error {
	var versions []string
	for _, a := range p.Args[1:] {
		switch {
		case a == "-a" || a == "-A" || a == "--all" || a == "--quick":
		case strings.HasPrefix(a, "-"):
			p.Unsupported("option %s", a)
		default:
			versions = append(versions, a)
		}
	}
	if len(versions) != 1 || strings.Contains(versions[0], "/") {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	w.modules[versions[0]] = true
	return nil
}

func (w *world) depmod(ctx context.Context, version string) error {
	if w.o.Depmod == nil {
		return depmod.Run(ctx, w.t, version)
	}
	return depmod.RunCached(ctx, w.t, version, w.o.Depmod)
}

// openssl does "openssl rehash", which is also called c_rehash.
func openssl(ctx context.Context, p *shell.Process) error {
	args := p.Args[1:]
	if p.Name() == "openssl" {
		if len(args) == 0 || args[0] != "rehash" {
			p.Unsupported("%s", strings.Join(p.Args, " "))
		}
		args = args[1:]
	}
	for len(args) > 0 && (args[0] == "-v" || args[0] == "-compat") {
		if args[0] == "-compat" {
			p.Unsupported("option -compat")
		}
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"/etc/ssl/certs"}
	}
	for _, dir := range args {
		real, err := p.Tree.RealPath(p.Path(dir))
		if err != nil {
			return err
		}
		if err := certhash.Rehash(p.Tree, real); err != nil {
			return err
		}
	}
	return nil
}

// emptyMachineID leaves an empty id, which systemd fills in at every card's
// first boot.
func emptyMachineID(ctx context.Context, p *shell.Process) error {
	if p.Tree.Exists("/etc/machine-id") {
		return nil
	}
	return p.Tree.WriteFile("/etc/machine-id", nil, 0o644)
}

func chronyd(ctx context.Context, p *shell.Process) int {
	if len(p.Args) != 2 || p.Args[1] != "-p" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	text, err := p.Tree.ReadFile("/etc/chrony/chrony.conf")
	if err != nil {
		p.Errorf("Could not open configuration file /etc/chrony/chrony.conf : %s", shell.Reason(err))
		return 1
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if line = strings.TrimSpace(line); line != "" && strings.IndexByte("!;#%", line[0]) < 0 {
			fmt.Fprintln(p.Stdout, line)
		}
	}
	return 0
}

func dpkgRealpath(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	end := "\n"
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch {
		case args[0] == "-z" || args[0] == "--zero":
			end = "\x00"
		case args[0] == "--root" && len(args) > 1:
			if args[1] != "" && args[1] != "/" {
				p.Unsupported("--root %s", args[1])
			}
			args = args[1:]
		}
		args = args[1:]
	}
	if len(args) != 1 {
		p.Errorf("error: missing pathname")
		return 2
	}
	real, err := p.Tree.RealPath(p.Path(args[0]))
	if err != nil {
		p.Errorf("error: %v", err)
		return 1
	}
	fmt.Fprint(p.Stdout, real+end)
	return 0
}

// sshKeygen makes no host keys; see notHere.
func (w *world) sshKeygen(ctx context.Context, p *shell.Process) int {
	for i, a := range p.Args[1:] {
		if a == "-A" || a == "-f" && strings.HasPrefix(p.Args[i+2], "/etc/ssh/ssh_host_") {
			w.skip("ssh-keygen", "host keys are of one card: they come with its identity, not with the shared root")
			return 0
		}
	}
	p.Unsupported("%s", strings.Join(p.Args, " "))
	return 1
}

// perl does nothing but answer the question whether it works.
func perl(ctx context.Context, p *shell.Process) int {
	if len(p.Args) != 3 || p.Args[1] != "-e" || p.Args[2] != "" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	return 0
}
