package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/flock"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
)

// keyFile is the key of a user for whom the blueprint names none.
const keyFile = "id_ed25519"

// madeKeyComment marks the keys that are ours.
const madeKeyComment = "picube"

// giveKeys lets the cluster's own key in where a user could not log in at all.
func giveKeys(cube *blueprint.Cube, id *secrets.Cluster) {
	for i := range cube.Users {
		u := &cube.Users[i]
		if len(u.AuthorizedKeys) == 0 && u.PasswordHash == "" {
			u.AuthorizedKeys = []string{secrets.SSHPublicKey(id.Ed25519("ssh-user"), madeKeyComment)}
		}
	}
}

// hasMadeKey reports whether a user logs in with the cluster's own key.
func hasMadeKey(u blueprint.User, id *secrets.Cluster) bool {
	return len(u.AuthorizedKeys) == 1 && u.AuthorizedKeys[0] == secrets.SSHPublicKey(id.Ed25519("ssh-user"), madeKeyComment)
}

// cubeDir makes the cube's folder and keeps other builds out of it until
// release is called. What lies in it holds secrets.
func (b *Builder) cubeDir(ctx context.Context, c *plan.Cube) (_ string, release func() error, err error) {
	dir, err := filepath.Abs(filepath.Join(b.Out, c.Spec.Name))
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(b.Out, 0o755); err != nil {
		return "", nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", nil, err
	}
	lock := filepath.Join(dir, ".lock")
	if release, err = flock.Acquire(ctx, lock); err != nil {
		return "", nil, fmt.Errorf("%s: %w", dir, err)
	}
	// Nobody else writes here, so what has a temporary name was left by a
	// build that was killed.
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil {
		return "", nil, errors.Join(err, release())
	}
	for _, name := range left {
		if name != lock && filepath.Base(name) != output.RecordsFile {
			err = errors.Join(err, os.Remove(name))
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, release())
	}
	return dir, release, nil
}

// laptopFiles writes what lets the laptop in: the key, the nodes' host keys,
// and an ssh configuration that uses both.
func (b *Builder) laptopFiles(c *plan.Cube, dir string) error {
	id := b.ids[c.Spec.Cluster]
	config, known := b.sshConfig(c, id, dir)
	files := map[string]string{"ssh_config": config, "known_hosts": known}
	for _, u := range c.Spec.Users {
		if hasMadeKey(u, id) {
			files[keyFile] = string(secrets.SSHPrivateKey(id.Ed25519("ssh-user"), madeKeyComment))
		}
	}
	for _, l := range b.Layers {
		ll, ok := l.(LaptopLayer)
		if !ok {
			continue
		}
		more, err := ll.LaptopFiles(b.plan, c)
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.Name(), err)
		}
		for name, data := range more {
			files[name] = string(data)
		}
	}
	for name, text := range files {
		if err := output.Replace(filepath.Join(dir, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// sshConfig returns ssh_config(5) and known_hosts (sshd(8)) for a cube. A
// node answers to its name, whatever address it has today.
func (b *Builder) sshConfig(c *plan.Cube, id *secrets.Cluster, dir string) (config, known string) {
	var conf, hosts strings.Builder
	conf.WriteString("# ssh -F ssh_config NODE\n")
	for _, n := range c.Nodes {
		fmt.Fprintf(&conf, "\nHost %s\n\tHostName %s.local\n\tHostKeyAlias %s\n", n.Name, n.Name, n.Name)
		fmt.Fprintf(&hosts, "%s,%s.local,%s %s\n", n.Name, n.Name, n.Address.Addr(), secrets.SSHPublicKey(id.Ed25519("ssh-host", n.Name), ""))
	}
	fmt.Fprintf(&conf, "\nHost *\n\tUserKnownHostsFile %q\n\tStrictHostKeyChecking yes\n", filepath.Join(dir, "known_hosts"))
	if users := c.Spec.Users; len(users) > 0 {
		fmt.Fprintf(&conf, "\tUser %s\n", users[0].Name)
		if hasMadeKey(users[0], id) {
			fmt.Fprintf(&conf, "\tIdentityFile %q\n\tIdentitiesOnly yes\n", filepath.Join(dir, keyFile))
		}
	}
	return conf.String(), hosts.String()
}
