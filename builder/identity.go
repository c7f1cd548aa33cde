package builder

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/nodeconf"
)

// Where the node's host key goes (sshd_config(5), HostKey).
const hostKeyFile = "/etc/ssh/ssh_host_ed25519_key"

// nodeConfig is what every card says of itself, before the layers add to it.
func (b *Builder) nodeConfig(n *plan.Node, id *secrets.Cluster) *nodeconf.Node {
	spec := b.cubes[n.Cube].Spec.Network
	conf := &nodeconf.Node{
		Hostname:  n.Name,
		MachineID: id.MachineID(n.Name),
		Cube:      n.Cube,
		Cluster:   n.Cluster,
		Number:    n.Number,
		Role:      n.Role,
		Board:     n.Board,
		NotBefore: b.epoch.UTC().Format("2006-01-02T15:04:05Z"),
		Network:   nodeconf.Network{Interface: spec.Interface, Address: n.Address.String(), DHCP: spec.DHCP},
	}
	for _, a := range spec.DNS {
		conf.Network.DNS = append(conf.Network.DNS, a.String())
	}
	for _, c := range b.plan.Cubes {
		for _, p := range c.Nodes {
			if p.Cluster == n.Cluster {
				conf.Peers = append(conf.Peers, nodeconf.Peer{Name: p.Name, Address: p.Address.Addr().String(), Cube: p.Cube, Role: p.Role})
			}
		}
	}
	return conf
}

// card prepares a node's card.
func (b *Builder) card(n *plan.Node, root *rootImage, dir string) (card, error) {
	id := b.ids[n.Cluster]
	c := card{
		node: n, compress: b.Compress, step: b.Report.Step,
		path:   filepath.Join(dir, n.Name+".img"+b.Compress.Suffix()),
		diskID: id.DiskID(n.Name), volumeID: id.VolumeID(n.Name),
		root: root,
	}
	var err error
	if c.boot, err = b.bootTree(n, c, id); err != nil {
		return c, err
	}
	if c.bootSum, err = bootDigest(c.boot, root.Boot); err != nil {
		return c, err
	}
	c.inputSum, err = c.inputs()
	return c, err
}

// bootTree makes the node's boot partition: what it shares with the cards of
// the same root, its command line, node.yaml and its keys.
func (b *Builder) bootTree(n *plan.Node, c card, id *secrets.Cluster) (*tree.Tree, error) {
	t := tree.New(b.epoch.Unix())
	for p, node := range c.root.Boot.All() {
		if err := t.Put(p, &tree.Inode{Mode: node.Mode, ModTime: node.ModTime, Content: node.Content}); err != nil {
			return nil, err
		}
	}
	conf := b.nodeConfig(n, id)
	for _, l := range b.Layers {
		if nl, ok := l.(NodeLayer); ok {
			if err := nl.Node(b.plan, n, conf, t); err != nil {
				return nil, fmt.Errorf("node %q: layer %s: %w", n.Name, l.Name(), err)
			}
		}
	}
	yaml, err := conf.Marshal()
	if err != nil {
		return nil, err
	}
	board, ok := firmware.Lookup(n.Board)
	if !ok {
		return nil, fmt.Errorf("node %q: cannot find board %q", n.Name, n.Board)
	}
	partition := "PARTUUID=" + c.table().PARTUUID(2)
	commandLine := []byte(firmware.CommandLine([]firmware.Board{board}, partition))
	switch b.cubes[n.Cube].Spec.Base.Kind {
	case blueprint.BaseRaspios:
		commandLine = []byte(firmware.RaspiosCommandLine(partition))
	case blueprint.BaseImage:
		if commandLine, err = imageCommandLine(t, partition, conf.MachineID); err != nil {
			return nil, fmt.Errorf("node %q: %w", n.Name, err)
		}
	}
	host := id.Ed25519("ssh-host", n.Name)
	files := map[string][]byte{
		"/cmdline.txt":      commandLine,
		"/" + nodeconf.Path: yaml,
		"/" + path.Join(nodeconf.IdentityDir, hostKeyFile):          secrets.SSHPrivateKey(host, n.Name),
		"/" + path.Join(nodeconf.IdentityDir, hostKeyFile) + ".pub": []byte(secrets.SSHPublicKey(host, n.Name) + "\n"),
	}
	for p, data := range files {
		if err := errors.Join(t.MkdirAll(path.Dir(p), 0o755), t.WriteFile(p, data, 0o600)); err != nil {
			return nil, err
		}
	}
	return t, nil
}
