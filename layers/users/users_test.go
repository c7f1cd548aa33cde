package users

import (
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

func base(t *testing.T) *tree.Tree {
	t.Helper()
	tr := tree.New(86400 * 20000)
	for _, dir := range []string{"/etc/sudoers.d", "/etc/skel", "/bin"} {
		if err := tr.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for p, text := range map[string]string{
		"/etc/passwd":       "root:x:0:0:root:/root:/bin/bash\nolder:x:1000:1000::/home/older:/bin/sh\n",
		"/etc/group":        "root:x:0:\nsudo:x:27:\nolder:x:1000:\nvideo:x:44:older\n",
		"/etc/shadow":       "root:*:20000:0:99999:7:::\n",
		"/etc/gshadow":      "root:*::\nsudo:*::\nvideo:*::\n",
		"/etc/skel/.bashrc": "# rc\n",
		"/bin/bash":         "",
	} {
		if err := tr.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func TestApply(t *testing.T) {
	tr := base(t)
	root := &plan.Root{Cube: &blueprint.Cube{Users: []blueprint.User{
		{Name: "pirate", AuthorizedKeys: []string{"ssh-ed25519 AAAA me"}, Sudo: true, Groups: []string{"video"}},
		{Name: "guest", PasswordHash: "$y$hash"},
	}}}
	if err := (Layer{}).Apply(root, tr); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		"/etc/passwd":                       "pirate:x:1001:1001:pirate:/home/pirate:/bin/bash\nguest:x:1002:1002:guest:/home/guest:/bin/bash\n",
		"/etc/group":                        "sudo:x:27:pirate\nolder:x:1000:\nvideo:x:44:older,pirate\npirate:x:1001:\nguest:x:1002:\n",
		"/etc/shadow":                       "pirate:!:20000:0:99999:7:::\nguest:$y$hash:20000:0:99999:7:::\n",
		"/home/pirate/.ssh/authorized_keys": "ssh-ed25519 AAAA me\n",
		"/etc/sudoers.d/picube-pirate":      "pirate ALL=(ALL:ALL) NOPASSWD: ALL\n",
		"/home/guest/.bashrc":               "# rc\n",
	} {
		got, err := tr.ReadFile(p)
		if err != nil || !strings.HasSuffix(string(got), want) {
			t.Errorf("%s: %v\n%s\nwant at its end:\n%s", p, err, got, want)
		}
	}
	for p, want := range map[string][2]uint32{"/home/pirate": {0o700, 1001}, "/home/pirate/.ssh/authorized_keys": {0o600, 1001}, "/etc/sudoers.d/picube-pirate": {0o440, 0}} {
		n, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		if n.Perm() != want[0] || n.UID != want[1] {
			t.Errorf("%s: mode %o, owner %d; want %o, %d", p, n.Perm(), n.UID, want[0], want[1])
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	tests := map[string]blueprint.User{
		"root":  {Name: "root"},
		"shell": {Name: "pirate", Shell: "/bin/zsh"},
		"group": {Name: "pirate", Groups: []string{"gpio"}},
	}
	for name, u := range tests {
		t.Run(name, func(t *testing.T) {
			err := (Layer{}).Apply(&plan.Root{Cube: &blueprint.Cube{Users: []blueprint.User{u}}}, base(t))
			if err == nil || !strings.HasPrefix(err.Error(), `user "`+u.Name+`"`) {
				t.Errorf("error %v, want one that names the user", err)
			}
		})
	}
}
