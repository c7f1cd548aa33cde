package alternatives

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/maintscript/scripttest"
	"github.com/picube/picube-build/builder/maintscript/shell"
)

func TestCommand(t *testing.T) {
	const vim = "update-alternatives --quiet --install /usr/bin/editor editor /usr/bin/vim 30 --slave /usr/share/man/editor.1 editor.1 /usr/share/man/vim.1\n"
	const nano = "update-alternatives --quiet --install /usr/bin/editor editor /usr/bin/nano 40\n"
	tests := map[string]struct {
		script string
		out    string
		want   []string
	}{
		"install": {
			script: vim,
			out:    "update-alternatives: using /usr/bin/vim to provide /usr/bin/editor (editor) in auto mode\n",
			want: []string{
				"/etc/alternatives/editor -> /usr/bin/vim",
				"/etc/alternatives/editor.1 -> /usr/share/man/vim.1",
				"/usr/bin/editor -> /etc/alternatives/editor",
				"/usr/share/man/editor.1 -> /etc/alternatives/editor.1",
				"/var/lib/dpkg/alternatives/editor 644 auto|/usr/bin/editor|editor.1|/usr/share/man/editor.1||/usr/bin/vim|30|/usr/share/man/vim.1|",
			},
		},
		"a better choice has no slave": {
			script: "exec >/dev/null;" + vim + nano,
			want: []string{
				"/etc/alternatives/editor -> /usr/bin/nano",
				"/usr/bin/editor -> /etc/alternatives/editor",
				"/var/lib/dpkg/alternatives/editor 644 auto|/usr/bin/editor|editor.1|/usr/share/man/editor.1||/usr/bin/nano|40||/usr/bin/vim|30|/usr/share/man/vim.1|",
			},
		},
		"what was set by hand stays": {
			script: "exec >/dev/null;" + vim + "update-alternatives --set editor /usr/bin/vim\n" + nano,
			want: []string{
				"/etc/alternatives/editor -> /usr/bin/vim",
				"/etc/alternatives/editor.1 -> /usr/share/man/vim.1",
				"/usr/bin/editor -> /etc/alternatives/editor",
				"/usr/share/man/editor.1 -> /etc/alternatives/editor.1",
				"/var/lib/dpkg/alternatives/editor 644 manual|/usr/bin/editor|editor.1|/usr/share/man/editor.1||/usr/bin/nano|40||/usr/bin/vim|30|/usr/share/man/vim.1|",
			},
		},
		"remove the last": {
			script: "exec >/dev/null;" + vim + "update-alternatives --remove editor /usr/bin/vim; update-alternatives --remove editor /usr/bin/vim",
		},
		"remove the best": {
			script: "exec >/dev/null;" + vim + nano + "update-alternatives --remove editor /usr/bin/nano",
			want: []string{
				"/etc/alternatives/editor -> /usr/bin/vim",
				"/etc/alternatives/editor.1 -> /usr/share/man/vim.1",
				"/usr/bin/editor -> /etc/alternatives/editor",
				"/usr/share/man/editor.1 -> /etc/alternatives/editor.1",
				"/var/lib/dpkg/alternatives/editor 644 auto|/usr/bin/editor|editor.1|/usr/share/man/editor.1||/usr/bin/vim|30|/usr/share/man/vim.1|",
			},
		},
		"query": {
			script: "update-alternatives --query editor",
			out:    "update-alternatives: error: no alternatives for editor\nstatus 2\n",
		},
		"a missing program": {
			script: "update-alternatives --install /usr/bin/x x /usr/bin/none 1",
			out:    "update-alternatives: error: alternative path /usr/bin/none doesn't exist\nstatus 2\n",
		},
		"a name that leads elsewhere": {
			script: "update-alternatives --install /usr/bin/x ../x /usr/bin/vim 1",
			out:    "update-alternatives: error: alternative name (../x) must not contain '/' and spaces\nstatus 2\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tr := scripttest.Tree(t, map[string]string{"/usr/bin/vim": "v", "/usr/bin/nano": "n", "/usr/share/man/vim.1": "m"})
			out := scripttest.Run(t, tr, map[string]shell.Command{"update-alternatives": Command}, test.script)
			if diff := cmp.Diff(test.out, out); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			got := scripttest.Dump(tr, "/etc/alternatives", "/usr/bin/editor", "/usr/share/man/editor.1", "/var/lib/dpkg/alternatives")
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}
