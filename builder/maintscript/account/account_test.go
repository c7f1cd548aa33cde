package account

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/maintscript/scripttest"
)

var files = map[string]string{
	"/etc/passwd":       "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
	"0640 /etc/shadow":  "root:*:1:0:99999:7:::\nnobody:*:1:0:99999:7:::\n",
	"/etc/group":        "root:x:0:\nusers:x:100:\nnogroup:x:65534:\n",
	"0640 /etc/gshadow": "root:*::\nusers:*::\nnogroup:*::\n",
	"/etc/login.defs":   "UID_MIN 1000\nPASS_MAX_DAYS 99999\nPASS_MIN_DAYS 0\nPASS_WARN_AGE 7\n",
	"/etc/skel/.rc":     "rc\n",
	"/usr/lib/sysusers.d/a.conf": "u! web - \"Web server\" /var/www\ng log -\nm web log\n" +
		"u plain 17:nogroup - / /bin/sh\n",
}

const (
	passwdHead = "root:x:0:0:root:/root:/bin/bash|nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"
	groupHead  = "root:x:0:|users:x:100:|nogroup:x:65534:"
)

// The expected files follow Debian 13's programs; the judge compares real ones.
func TestCommands(t *testing.T) {
	tests := map[string]struct {
		script, out string
		paths, want []string
	}{
		"adduser gives uid and gid of their own": {
			script: "adduser --system --group --quiet --comment 'A daemon' --home /var/lib/d --no-create-home _d",
			paths:  []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/passwd-"},
			want: []string{
				"/etc/passwd 644 " + passwdHead + "|_d:x:100:101:A daemon:/var/lib/d:/usr/sbin/nologin",
				"/etc/shadow 640 root:*:1:0:99999:7:::|nobody:*:1:0:99999:7:::|_d:!:20000::::::",
				"/etc/group 644 " + groupHead + "|_d:x:101:",
				"/etc/gshadow 640 root:*::|users:*::|nogroup:*::|_d:!::",
				"/etc/passwd- 644 " + passwdHead + "|_d:x:100:101::/var/lib/d:/usr/sbin/nologin",
			},
		},
		"adduser makes the home once": {
			script: "adduser --system --home /var/lib/d d && adduser --system --home /var/lib/d d",
			paths:  []string{"/etc/passwd", "/var/lib/d"},
			want:   []string{"/etc/passwd 644 " + passwdHead + "|d:x:100:65534::/var/lib/d:/usr/sbin/nologin"},
		},
		"an ordinary user": {
			script: "adduser --disabled-password --comment '' u && id -u u",
			out:    "1000\n",
			paths:  []string{"/home/u", "/etc/group"},
			want: []string{
				"/home/u/.rc 644 1000:1000 rc",
				"/etc/group 644 " + "root:x:0:|users:x:100:u|nogroup:x:65534:|u:x:1000:",
			},
		},
		"a user that is there with another number": {
			script: "adduser --system --uid 65534 nobody",
			out:    "fatal: The user `nobody' already exists, but is not a system user. Exiting.\nstatus 13\n",
		},
		"sysusers counts down from 999": {
			script: "systemd-sysusers a.conf; systemd-sysusers a.conf",
			paths:  []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/group-"},
			want: []string{
				"/etc/passwd 644 " + passwdHead + "|web:x:998:998:Web server:/var/www:/usr/sbin/nologin|plain:x:17:65534::/:/bin/sh",
				"/etc/shadow 640 root:*:1:0:99999:7:::|nobody:*:1:0:99999:7:::|web:!*:20000:::::1:|plain:!*:20000::::::",
				"/etc/group 644 " + groupHead + "|log:x:999:web|web:x:998:",
				"/etc/gshadow 640 root:*::|users:*::|nogroup:*::|log:!*::web|web:!*::",
				"/etc/group- 644 " + groupHead,
			},
		},
		"shadow files made by sysusers are closed": {
			script: "rm /etc/shadow /etc/gshadow; systemd-sysusers a.conf; stat -c '%a' /etc/shadow /etc/gshadow",
			out:    "0\n0\n",
		},
		"pwconv appends what shadow lacks": {
			script: "printf 'a:hash:5:5::/:/bin/sh\\n' >>/etc/passwd; pwconv; tail -n 1 /etc/passwd /etc/shadow -q; stat -c %a /etc/passwd-",
			out:    "a:x:5:5::/:/bin/sh\na:hash:20000:0:99999:7:::\n600\n",
		},
		"groups": {
			script: "groupadd -r g; groupadd -g 7 h; usermod -aG g,h nobody; groupmod -n i h; gpasswd -d nobody g; getent group g i; groupdel g; getent group g",
			out:    "g:x:999:\ni:x:7:nobody\nstatus 2\n",
		},
		"a user goes with its group": {
			script: "useradd -r x; getent passwd x; userdel x; getent passwd x; getent group x",
			out:    "x:x:999:999::/home/x:/bin/sh\nstatus 2\n",
		},
		"locks and expiry": {
			script: "passwd -l root >/dev/null; usermod -L nobody; chage -E 0 nobody; getent shadow root nobody",
			out:    "root:!*:1:0:99999:7:::\nnobody:!*:1:0:99999:7::0:\n",
		},
		"a field that breaks the file": {
			script: "usermod -c 'a:b' nobody",
			out:    "usermod: invalid field 'a:b'\nstatus 3\n",
		},
		"a password from the terminal": {
			script: "passwd root || true",
			out:    "error: script:2: cannot do passwd: a password from the terminal: not supported\nstatus 2\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := scripttest.Tree(t, files)
			out := scripttest.Run(t, tr, Commands(), test.script)
			if diff := cmp.Diff(test.out, out); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, scripttest.Dump(tr, test.paths...)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}
