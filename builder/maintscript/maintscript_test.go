package maintscript

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// confmodule is what debconf's library amounts to.
const confmodule = `[ "$DEBIAN_HAS_FRONTEND" ] || exec /usr/share/debconf/frontend "$0" "$@"
[ "$DEBCONF_REDIR" ] || { exec 3>&1 1>&2; DEBCONF_REDIR=1; export DEBCONF_REDIR; }
db() { printf '%s\n' "$*" >&3; read -r line; RET="${line#* }"; return "${line%% *}"; }
`

// archive makes a package: its control fields and files; those that start
// with "/" are data, the others control files.
func archive(fields string, files map[string]string) dpkg.Archive {
	a := dpkg.Archive{Control: map[string][]byte{}}
	a.Control["control"] = []byte("Package: " + strings.ReplaceAll(fields, "; ", "\n") + "\nVersion: 1\nArchitecture: all\nDescription: x\n")
	for name, text := range files {
		if !strings.HasPrefix(name, "/") {
			a.Control[name] = []byte(text)
		}
	}
	a.Entries = func() []deb.Entry {
		var entries []deb.Entry
		for name, text := range files {
			if strings.HasPrefix(name, "/") {
				entries = append(entries, deb.Entry{Path: name, Inode: &tree.Inode{Mode: tree.TypeRegular | 0o755, Content: tree.Bytes([]byte(text))}})
			}
		}
		slices.SortFunc(entries, func(a, b deb.Entry) int { return strings.Compare(a.Path, b.Path) })
		return entries
	}
	return a
}

// base is the essential package with the programs that the tests call.
func base() dpkg.Archive {
	files := map[string]string{
		"/etc/passwd": "root:x:0:0::/:\n", "/etc/group": "root:x:0:\n",
		"/usr/share/debconf/confmodule": confmodule, "/usr/share/debconf/frontend": "#!/usr/bin/perl",
	}
	for _, name := range []string{"sh", "cat", "ln", "rm", "mkdir", "dpkg-trigger", "systemctl", "depmod", "fc-cache", "gcc", "update-initramfs",
		"invoke-rc.d", "setcap", "getopt", "sleep", "sshd"} {
		files["/usr/bin/"+name] = "\x7fELF\x02\x01\x01\x00"
	}
	return archive("base; Essential: yes", files)
}

func postinst(text string) map[string]string {
	return map[string]string{"postinst": "#!/bin/sh\nset -e\n" + text}
}

func configure(t *testing.T, o Options, archives ...dpkg.Archive) (*tree.Tree, Report) {
	t.Helper()
	tr := tree.New(20000 * 86400)
	o.Arch = "arm64"
	report, err := Configure(t.Context(), tr, append([]dpkg.Archive{base()}, archives...), o)
	if err != nil {
		t.Fatal(err)
	}
	return tr, report
}

func summary(r Report) []string {
	var out []string
	for _, p := range r.Packages {
		if p.Name == "base" {
			continue
		}
		line := p.Name + " " + p.Status.String()
		if p.Why != nil {
			line += ": " + p.Why.Error()
		}
		out = append(out, line)
	}
	return out
}

func TestConfigure(t *testing.T) {
	tests := map[string]struct {
		options  Options
		packages []dpkg.Archive
		want     []string
		files    map[string]string // what files hold afterwards; "-" for nothing there
	}{
		"what a script does": {
			packages: []dpkg.Archive{archive("a", postinst(`echo "$0 $* $DPKG_MAINTSCRIPT_PACKAGE" >/etc/a; ln -s a /etc/b`))},
			want:     []string{"a installed"},
			files:    map[string]string{"/etc/b": "/var/lib/dpkg/info/a.postinst configure  a\n"},
		},
		"an unknown program ends the script, whatever comes after": {
			packages: []dpkg.Archive{
				archive("a", postinst("echo x >/etc/a\ngcc || true\necho y >/etc/b")),
				archive("b; Depends: a", postinst("echo z >/etc/c")),
				archive("c", postinst("echo z >/etc/d")),
			},
			want: []string{
				"a unpacked: postinst: /var/lib/dpkg/info/a.postinst:4: cannot run gcc: not emulated",
				"b unpacked: it depends on what is not configured: a",
				"c installed",
			},
			files: map[string]string{"/etc/a": "-", "/etc/b": "-", "/etc/c": "-", "/etc/d": "z\n"},
		},
		"a failing script": {
			packages: []dpkg.Archive{archive("a", postinst("echo x >/etc/a; echo 'no luck' >&2; exit 3"))},
			want:     []string{"a unpacked: postinst configure  ended with status 3: no luck"},
			files:    map[string]string{"/etc/a": "-"},
		},
		"a script without end": {
			options:  Options{Limits: shell.Limits{Steps: 1000}},
			packages: []dpkg.Archive{archive("a", postinst("echo x >/etc/a\nwhile :; do :; done"))},
			want:     []string{"a unpacked: postinst: /var/lib/dpkg/info/a.postinst:4: cannot go on: more than 1000 steps"},
			files:    map[string]string{"/etc/a": "-"},
		},
		"a script that writes without end": {
			options:  Options{Limits: shell.Limits{Output: 1000}},
			packages: []dpkg.Archive{archive("a", postinst("while :; do echo xxxxxxxxxx >>/etc/a; done"))},
			want:     []string{"a unpacked: postinst: /var/lib/dpkg/info/a.postinst:3: cannot go on: more than 1000 bytes written"},
			files:    map[string]string{"/etc/a": "-"},
		},
		"a script that forks without end": {
			options: Options{Limits: shell.Limits{Processes: 20}},
			packages: []dpkg.Archive{
				archive("a", postinst("echo x >/etc/a\nf() { f | f & }\nf; wait")),
				archive("b", postinst("echo y >/etc/b")),
			},
			want: []string{
				"a unpacked: postinst: /var/lib/dpkg/info/a.postinst:4: cannot go on: more than 20 processes at a time",
				"b installed",
			},
			files: map[string]string{"/etc/a": "-", "/etc/b": "y\n"},
		},
		"a way out of the tree": {
			packages: []dpkg.Archive{archive("a", postinst("ln -s /../../../../etc /out; echo x >/out/../../a; cat /out/passwd >/etc/copy"))},
			want:     []string{"a installed"},
			files:    map[string]string{"/a": "x\n", "/etc/copy": "root:x:0:0::/:\n"},
		},
		"nothing is started": {
			packages: []dpkg.Archive{archive("a", postinst("systemctl restart x 2>/dev/null; /usr/sbin/policy-rc.d x start || echo $? >/etc/policy"))},
			want:     []string{"a installed"},
			files:    map[string]string{"/etc/policy": "101\n", "/usr/sbin/policy-rc.d": "-"},
		},
		"debconf answers": {
			options: Options{Debconf: map[string]string{"a/given": "from the blueprint"}},
			packages: []dpkg.Archive{archive("a", map[string]string{
				"templates": "Template: a/given\nType: string\nDefault: nothing\nDescription: x\n\nTemplate: a/choice\nType: select\nChoices: one, two\nDefault: two\nDescription: y\n long\n",
				"config":    "#!/bin/sh\n. /usr/share/debconf/confmodule\ndb INPUT high a/choice || true; db GO",
				"postinst":  "#!/bin/sh\n. /usr/share/debconf/confmodule\ndb GET a/given; echo \"$RET\" >/etc/given; db GET a/choice; echo \"$RET\" >/etc/choice; db FGET a/choice seen; echo \"$RET\" >>/etc/choice",
			})},
			want:  []string{"a installed"},
			files: map[string]string{"/etc/given": "from the blueprint\n", "/etc/choice": "two\ntrue\n"},
		},
		"a trigger": {
			packages: []dpkg.Archive{
				archive("a", map[string]string{"triggers": "interest-noawait t\n", "postinst": "#!/bin/sh\necho \"$*\" >>/etc/a"}),
				archive("b; Depends: a", postinst("dpkg-trigger --no-await t")),
			},
			want:  []string{"a installed", "b installed"},
			files: map[string]string{"/etc/a": "configure \ntriggered t\n"},
		},
		"a cache for the first boot": {
			packages: []dpkg.Archive{archive("fontconfig", map[string]string{"triggers": "interest-noawait /usr/share/fonts\n", "postinst": "#!/bin/sh\nfc-cache -s"})},
			want:     []string{"fontconfig triggers-pending: the first boot processes its triggers /usr/share/fonts"},
		},
		"what is of the build goes": {
			packages: []dpkg.Archive{archive("a", postinst("mkdir -p /run/a /run/lock /tmp/a"))},
			want:     []string{"a installed"},
			files:    map[string]string{"/run/a": "-", "/tmp/a": "-"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr, report := configure(t, test.options, test.packages...)
			if diff := cmp.Diff(test.want, summary(report)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for path, want := range test.files {
				text, err := tr.ReadFile(path)
				if err != nil {
					text = []byte("-")
				}
				if string(text) != want {
					t.Errorf("%s: %q, want %q", path, text, want)
				}
			}
		})
	}
}

// TestBounded: what a stand-in would do for ever, or with memory that no host
// has, ends too. Whether it fails or does nothing is its own affair.
func TestBounded(t *testing.T) {
	commands := base()
	entries := commands.Entries
	commands.Entries = func() []deb.Entry {
		all := entries()
		for _, name := range []string{"sed", "mawk", "awk", "grep", "dd", "head", "seq", "printf", "truncate", "find", "cp", "mv", "chown", "sort", "tr", "expr", "yes", "sha256sum", "tee", "xargs", "sleep"} {
			all = append(all, deb.Entry{Path: "/usr/sbin/" + name, Inode: &tree.Inode{Mode: tree.TypeRegular | 0o755, Content: tree.Bytes([]byte("\x7fELF"))}})
		}
		return all
	}
	for _, script := range []string{
		"echo | sed ':a;ba'", "echo a | sed ':a;s/a/aa/g;ta'", "echo | sed 's/^/\\n/;P;D'", "echo a | sed ':a;H;G;ba'", "awk 'BEGIN { while (1); }'",
		"printf '%0100d' 0 | tr 0 a | grep -E '^(a*)*(a*)*(a*)*b$'", "printf '%0100d' 0 | tr 0 a | sed -E 's/(a|aa)+$b/x/;s/^((a*)*)*c/x/'",
		"dd if=/dev/zero of=/a bs=1000000000 count=1000", "dd if=/dev/zero of=/a", "cat /dev/zero >/a", "head -c 999999999999 /dev/zero >/a",
		"seq 1 99999999999 >/a", "printf '%999999999d' 1 >/a", "printf '%*d' 2147483647 1", "truncate -s 1000000000000 /a",
		"x=$(printf '%099999d' 1); while :; do x=$x$x; done", "cat /dev/zero | sort", "cat /dev/zero | tr -d b | sha256sum",
		"ln -s /b /a; ln -s /a /b; cat /a; echo x >/a; find -L / -name x", "mkdir /d; ln -s . /d/d; find -L /d; cp -rL /d /e",
		"mkdir /d; cp -r /d /d/e; mv /d /d/e", "ln -s /../../.. /d; chown -R 1 /d/; rm -rf /d/../../../nothing",
		"while :; do sleep 1000; done", "yes a | xargs echo >/dev/null", "trap 'kill $$' TERM; while :; do kill $$; done",
		"awk 'BEGIN { s = \"a\"; while (1) s = s s }'", "awk 'BEGIN { s = \"a\"; for (i = 0; i < 60; i++) s = sprintf(\"%s%s\", s, s) }'",
		"echo a | awk '{ while (1) gsub(/a/, \"&&\") }'", "awk 'BEGIN { while (1) a[i++] = 1 }'", "awk 'function f(s) { return f(s s) } BEGIN { f(\"a\") }'",
		"echo a | awk '{ for (i = 1; i <= 1000000; i++) $i = $0; print }'", "awk 'BEGIN { printf \"%*d\", 999999999, 1 }'",
		"awk -v OFS=$(printf '%099999d' 1) 'BEGIN { NF = 1000000; print }'", "awk 'BEGIN { while (1) print \"a\" }'",
		"echo a | sed ':a;a text\ns/^a\\{0,99999\\}/&a/;ta'", "echo a >/f; sed ':a;r /f\ns/^/a/;ba' /f", "yes | head -c 4000000 | sed 's/y/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy/'",
		"set -- 1; while [ $# -lt 60000 ]; do set -- \"$@\" \"$@\"; done; printf '%099999d' \"$@\" >/dev/null",
		"x=$(printf '%0999999d' 1); while :; do i=$((i+1)); eval \"x$i=\\${x}$i\"; done",
		"printf '%0999999d' 1 >/f; set -- /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f /f; sort \"$@\" \"$@\" \"$@\" \"$@\" \"$@\" \"$@\" \"$@\" \"$@\"",
		"printf '%0999999d' 1 | xargs -I{} echo {}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}",
		"echo x >/f; while :; do cat /f /f >/g; mv /g /f; done", "expr 9999999999999999999999999999999999999 '*' 99999999999999999999999999999999",
	} {
		t.Run(script, func(t *testing.T) {
			tr := tree.New(0)
			report, err := Configure(t.Context(), tr, []dpkg.Archive{commands, archive("a", postinst(script)), archive("b", postinst("echo y >/etc/b"))},
				Options{Arch: "arm64", Limits: shell.Limits{Time: time.Second, Output: 8 << 20, Steps: 10_000}})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(summary(report))
			if !tr.Exists("/etc/b") {
				t.Error("the next package is not configured")
			}
		})
	}
}

func TestReport(t *testing.T) {
	_, report := configure(t, Options{}, archive("linux-image", postinst("update-initramfs -c -k 6.12; sshd -t")))
	if !slices.Equal(report.Kernels, []string{"6.12"}) {
		t.Errorf("kernels %v", report.Kernels)
	}
	var skipped []string
	for _, s := range report.Skipped {
		skipped = append(skipped, s.Program)
	}
	if !slices.Equal(skipped, []string{"sshd", "update-initramfs"}) {
		t.Errorf("skipped %v", skipped)
	}
}

func TestCauses(t *testing.T) {
	_, report := configure(t, Options{}, archive("a", postinst("gcc")))
	var unknown *shell.UnknownCommandError
	if p := report.Unfinished(); len(p) != 1 || !errors.As(p[0].Why, &unknown) || unknown.Name != "gcc" {
		t.Errorf("unfinished %v", p)
	}
}

// TestSame: the same packages give the same tree, file by file.
func TestSame(t *testing.T) {
	var dumps [2][]string
	for i := range dumps {
		tr, _ := configure(t, Options{Debconf: map[string]string{"a/b": "c", "a/d": "e"}},
			archive("a", postinst("mkdir /etc/a; echo x >/etc/a/x")), archive("b; Depends: a", postinst("dpkg-trigger --no-await t")))
		for p, n := range tr.All() {
			text, _ := tr.ReadFile(p)
			dumps[i] = append(dumps[i], fmt.Sprint(p, n.Mode, n.UID, n.GID, n.ModTime, n.Target, string(text)))
		}
	}
	if diff := cmp.Diff(dumps[0], dumps[1]); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
}

func TestCapabilities(t *testing.T) {
	for text, want := range map[string]string{
		"cap_net_raw+ep":        "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"cap_net_raw,cap_bpf=p": "\x00\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00",
		"cap_net_raw=eip":       "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		if got, err := capabilityValue(text); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := capabilityValue("cap_none+ep"); err == nil {
		t.Error("an unknown capability is accepted")
	}
}
