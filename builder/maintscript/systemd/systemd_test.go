package systemd

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/maintscript/scripttest"
)

const units = "/usr/lib/systemd/system/"

func TestCommands(t *testing.T) {
	files := map[string]string{
		units + "a.service":                        "[Unit]\n[Install]\nWantedBy=multi-user.target\nAlias=b.service\nAlso=a.socket\n",
		units + "a.socket":                         "[Install]\nWantedBy=sockets.target\n",
		units + "off.service":                      "[Install]\nWantedBy=multi-user.target\n",
		units + "getty@.service":                   "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
		units + "static.service":                   "[Unit]\n",
		"/usr/lib/systemd/system-preset/90.preset": "# comment\ndisable off.service\nenable *\n",
		"/etc/init.d/d":                            "#!/bin/sh\n### BEGIN INIT INFO\n# Default-Start: 2 3\n# Default-Stop: 0\n### END INIT INFO\n",
		"/etc/passwd":                              "root:x:0:0::/:\nu:x:7:7::/:\n",
		"/etc/group":                               "root:x:0:\nadm:x:4:\ng:x:8:\n",
		"/usr/lib/tmpfiles.d/t.conf": "d /var/t 0750 u g\nf /var/t/f - - - - text\nL /var/t/l - - - - f\nL+ /etc/old - - - - new\nd! /var/boot\n" +
			"z /var/z 0600 u\nd$ /run/x\nC /var/c\nf^ /etc/cred - - - - no\nd /var/%m\n",
		"/etc/old": "x", "/var/z": "z", "/usr/share/factory/var/c": "copy",
	}
	const enable = "deb-systemd-helper unmask $u; if deb-systemd-helper --quiet was-enabled $u; then deb-systemd-helper enable $u; else deb-systemd-helper update-state $u; fi\n"
	etc, state := "/etc/systemd", "/var/lib/systemd"
	tests := map[string]struct {
		script, out string
		paths, want []string
	}{
		"deb-systemd-helper before systemctl is there": {
			script: "rm /usr/bin/systemctl; u=a.service\n" + enable,
			paths:  []string{etc, state},
			want: []string{
				"/etc/systemd/system 755 dir",
				"/etc/systemd/system/b.service -> /lib/systemd/system/a.service",
				"/etc/systemd/system/multi-user.target.wants 755 dir",
				"/etc/systemd/system/multi-user.target.wants/a.service -> /lib/systemd/system/a.service",
				"/etc/systemd/system/sockets.target.wants 755 dir",
				"/etc/systemd/system/sockets.target.wants/a.socket -> /lib/systemd/system/a.socket",
				"/var/lib/systemd/deb-systemd-helper-enabled 755 dir",
				"/var/lib/systemd/deb-systemd-helper-enabled/a.service.dsh-also 644 /etc/systemd/system/b.service|/etc/systemd/system/sockets.target.wants/a.socket|/etc/systemd/system/multi-user.target.wants/a.service",
				"/var/lib/systemd/deb-systemd-helper-enabled/b.service 644 ",
				"/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants 755 dir",
				"/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants/a.service 644 ",
				"/var/lib/systemd/deb-systemd-helper-enabled/sockets.target.wants 755 dir",
				"/var/lib/systemd/deb-systemd-helper-enabled/sockets.target.wants/a.socket 644 ",
			},
		},
		"a preset that says no": {
			script: "u=off.service\n" + enable + enable,
			paths:  []string{etc, state},
			want: []string{
				"/var/lib/systemd/deb-systemd-helper-enabled 755 dir",
				"/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants 755 dir",
				"/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants/off.service 644 ",
				"/var/lib/systemd/deb-systemd-helper-enabled/off.service.dsh-also 644 /etc/systemd/system/multi-user.target.wants/off.service",
			},
		},
		"what the administrator disabled stays so": {
			script: "u=a.service\n" + enable + "systemctl disable a.service\n" + enable + "systemctl is-enabled a.service",
			out:    "disabled\nstatus 1\n",
			paths:  []string{etc},
			want:   []string{"/etc/systemd/system 755 dir"},
		},
		"purge leaves nothing": {
			script: "u=a.service\n" + enable + "deb-systemd-helper purge a.service",
			paths:  []string{etc + "/system", state},
		},
		"systemctl enable": {
			script: "systemctl enable getty@tty2.service getty@.service; systemctl is-enabled static.service",
			out:    "static\n",
			paths:  []string{etc},
			want: []string{
				"/etc/systemd/system 755 dir",
				"/etc/systemd/system/getty.target.wants 755 dir",
				"/etc/systemd/system/getty.target.wants/getty@tty1.service -> /usr/lib/systemd/system/getty@.service",
				"/etc/systemd/system/getty.target.wants/getty@tty2.service -> /usr/lib/systemd/system/getty@.service",
			},
		},
		"mask": {
			script: "systemctl mask a; systemctl enable a; systemctl is-enabled a; systemctl unmask a; systemctl is-enabled a.service none.service",
			out:    "Failed to enable unit: Unit file /etc/systemd/system/a.service is masked.\nmasked\ndisabled\nnot-found\nstatus 4\n",
		},
		"nothing is started": {
			script: "systemctl restart a.service && systemctl daemon-reload && deb-systemd-invoke start a.service && invoke-rc.d d start && service d stop",
			out: "Running in chroot, ignoring command 'restart'\nRunning in chroot, ignoring command 'daemon-reload'\n" +
				"invoke-rc.d: policy-rc.d denied execution of start.\n",
		},
		"update-rc.d": {
			script: "update-rc.d d defaults; update-rc.d d defaults; update-rc.d d disable 3",
			paths:  []string{"/etc/rc0.d", "/etc/rc2.d", "/etc/rc3.d"},
			want:   []string{"/etc/rc0.d/K01d -> ../init.d/d", "/etc/rc2.d/S01d -> ../init.d/d", "/etc/rc3.d/K01d -> ../init.d/d"},
		},
		"tmpfiles": {
			script: "systemd-tmpfiles --create t.conf",
			paths:  []string{"/var/t", "/etc/old", "/var/z", "/run", "/var/c"},
			want:   []string{"/var/t/f 644 text", "/var/t/l -> f", "/etc/old -> new", "/var/z 600 7:0 z", "/run/x 755 dir", "/var/c 644 copy"},
		},
		"tmpfiles' directory": {
			script: "systemd-tmpfiles --create t.conf; stat -c '%a %u:%g' /var/t; ls /var",
			out:    "750 7:8\nc\nlib\nt\nz\n",
		},
		"an unknown user": {
			script: "echo 'd /var/y - nosuch' | systemd-tmpfiles --create -",
			out:    "systemd-tmpfiles: /var/y: cannot resolve the name \"nosuch\"\nstatus 73\n",
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

// TestACL compares with what setfacl wrote for the same lines.
func TestACL(t *testing.T) {
	tr := scripttest.Tree(t, map[string]string{
		"/etc/group": "adm:x:4:\n", "/var/log/journal/": "",
		"/usr/lib/tmpfiles.d/j.conf": "a+ /var/log/journal - - - - d:group::r-x,d:group:adm:r-x,group::r-x,group:adm:r-x\n",
	})
	if out := scripttest.Run(t, tr, Commands(), "systemd-tmpfiles --create j.conf"); out != "" {
		t.Fatal(out)
	}
	n, err := tr.Stat("/var/log/journal")
	if err != nil {
		t.Fatal(err)
	}
	const want = "\x02\x00\x00\x00\x01\x00\a\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\b\x00\x05\x00\x04\x00\x00\x00" +
		"\x10\x00\x05\x00\xff\xff\xff\xff \x00\x05\x00\xff\xff\xff\xff"
	if got := n.Xattrs["system.posix_acl_access"]; got != want {
		t.Errorf("access %q", got)
	}
	if got := n.Xattrs["system.posix_acl_default"]; got != want {
		t.Errorf("default %q", got)
	}
}
