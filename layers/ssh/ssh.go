// Package ssh lets people in by key. The host keys are the node's own, made
// at build time, so that the laptop knows them before the first connection.
package ssh

import (
	"errors"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/unit"
)

// config is read before sshd_config's own settings (sshd_config(5), Include).
const config = `# Keys only, unless a user of the blueprint has a password.
PermitRootLogin no
KbdInteractiveAuthentication no
`

// Layer sets up the SSH server.
type Layer struct{}

// Name returns "ssh".
func (Layer) Name() string { return "ssh" }

// Packages returns the server.
func (Layer) Packages(*plan.Root) []string { return []string{"openssh-server"} }

// Apply writes the settings and drops host keys that a script may have made:
// shared keys would let each node pose as every other.
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	text := config
	if !anyPassword(r) {
		text += "PasswordAuthentication no\n"
	}
	var errs []error
	names, err := t.ReadDir("/etc/ssh")
	errs = append(errs, err)
	for _, name := range names {
		if len(name) > 9 && name[:9] == "ssh_host_" {
			errs = append(errs, t.Remove("/etc/ssh/"+name))
		}
	}
	errs = append(errs,
		t.MkdirAll("/etc/ssh/sshd_config.d", 0o755),
		t.WriteFile("/etc/ssh/sshd_config.d/picube.conf", []byte(text), 0o644),
		unit.Enable(t, "ssh.service"),
	)
	return errors.Join(errs...)
}

func anyPassword(r *plan.Root) bool {
	for _, u := range r.Cube.Users {
		if u.PasswordHash != "" {
			return true
		}
	}
	return false
}
