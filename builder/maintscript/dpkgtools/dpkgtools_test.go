package dpkgtools

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/maintscript/scripttest"
	"github.com/picube/picube-build/builder/tree"
)

type noScripts struct{}

func (noScripts) Run(context.Context, dpkg.Script) error { return nil }

func archive(control, files string) dpkg.Archive {
	return dpkg.Archive{Control: map[string][]byte{"control": []byte(control + "\nDescription: short\n long\n"), "postinst": []byte("x")}, Entries: func() []deb.Entry {
		var entries []deb.Entry
		for _, f := range strings.Fields(files) {
			entries = append(entries, deb.Entry{Path: f, Inode: &tree.Inode{Mode: tree.TypeRegular | 0o644}})
		}
		return entries
	}}
}

// The expected output follows dpkg 1.22's texts.
func TestCommands(t *testing.T) {
	tests := map[string]struct{ script, out string }{
		"versions": {
			script: "c() { dpkg --compare-versions \"$@\" && echo yes || echo no; }\n" +
				"c 1 lt 2; c 1.0~rc1 lt 1.0; c '' lt 1; c '' lt-nl 1; c 1:0 gt 9; c 1 eq 1-0; c 2 le-nl ''",
			out: "yes\nyes\nyes\nno\nyes\nyes\nyes\n",
		},
		"a wrong relation": {script: "dpkg --compare-versions 1 x 2", out: "dpkg: error: --compare-versions bad relation\nstatus 2\n"},
		"architecture":     {script: "dpkg --print-architecture", out: "arm64\n"},
		"what dpkg can do": {script: "dpkg --assert-multi-arch && dpkg --assert-time-travel", out: "status 2\n"},
		"list of files":    {script: "dpkg -L a", out: "/usr/bin/a\n/usr/share/a\n"},
		"whose file":       {script: "dpkg -S /usr/bin/a bin/b; dpkg-query -S /none", out: "a:arm64: /usr/bin/a\nb: /usr/bin/b\ndpkg-query: no path found matching pattern /none\nstatus 1\n"},
		"status":           {script: "dpkg -s b | grep -v Desc", out: "Package: b\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n long\n"},
		"no such package":  {script: "dpkg -s none", out: "dpkg-query: package 'none' is not installed and no information is available\nstatus 1\n"},
		"a format":         {script: `dpkg-query -W -f='${Package} ${binary:Package} ${db:Status-Abbrev}|${Version;5}|${source:Package}\n' a 'b*'`, out: "a a:arm64 ii |    1|a\nb b ii |    2|b\n"},
		"control files":    {script: "dpkg-query --control-path a postinst; dpkg-query -c a postinst", out: "/var/lib/dpkg/info/a:arm64.postinst\n/var/lib/dpkg/info/a:arm64.postinst\n"},
		"divert and rename": {
			script: "dpkg-divert --package b --rename --divert /usr/bin/a.real --add /usr/bin/a; ls /usr/bin/a*; dpkg-divert --truename /usr/bin/a; dpkg-divert --listpackage /usr/bin/a; dpkg -L a | tail -n 2; cat /var/lib/dpkg/diversions; dpkg-divert --quiet --package b --rename --remove /usr/bin/a; ls /usr/bin/a /usr/bin/a.real",
			out: "Adding 'diversion of /usr/bin/a to /usr/bin/a.real by b'\n/usr/bin/a.real\n/usr/bin/arch\n/usr/bin/awk\n/usr/bin/a.real\nb\n" +
				"diverted by b to: /usr/bin/a.real\n/usr/share/a\n/usr/bin/a\n/usr/bin/a.real\nb\nls: cannot access '/usr/bin/a.real': No such file or directory\n/usr/bin/a\nstatus 2\n",
		},
		"a diversion that clashes": {
			script: "dpkg-divert --quiet --no-rename --package a --add /x; dpkg-divert --no-rename --package b --add /x",
			out:    "dpkg-divert: error: 'diversion of /x to /x.distrib by b' clashes with 'diversion of /x to /x.distrib by a'\nstatus 2\n",
		},
		"an override": {
			script: "dpkg-statoverride --list /usr/bin/a || dpkg-statoverride --update --add root u 2750 /usr/bin/a; dpkg-statoverride --list; stat -c '%a %u:%g' /usr/bin/a; dpkg-statoverride --add root u 0 /usr/bin/a",
			out:    "root u 2750 /usr/bin/a\n2750 0:7\ndpkg-statoverride: error: an override for '/usr/bin/a' already exists; aborting\nstatus 2\n",
		},
		"triggers": {
			script: "dpkg-trigger --check-supported && dpkg-trigger t && dpkg-trigger --no-await t && dpkg-trigger --by-package=b /f; cat /var/lib/dpkg/triggers/Unincorp; dpkg-trigger ../x",
			out:    "t - pkg\n/f b\ndpkg-trigger: error: invalid trigger name \"../x\"\nstatus 2\n",
		},
		"installing is refused": {
			script: "dpkg -i x.deb || true",
			out:    "error: script:2: cannot do dpkg: dpkg -i x.deb: not supported\nstatus 2\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := scripttest.Tree(t, map[string]string{"/etc/passwd": "root:x:0:0::/:\n", "/etc/group": "u:x:7:\n"})
			db, err := dpkg.Open(tr, "arm64")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Install(t.Context(), []dpkg.Archive{
				archive("Package: a\nVersion: 1\nArchitecture: arm64\nMulti-Arch: same", "/usr/bin/a /usr/share/a"),
				archive("Package: b\nVersion: 2\nArchitecture: all", "/usr/bin/b"),
			}, noScripts{}, dpkg.Options{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.out, scripttest.Run(t, tr, Commands(db), test.script)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
