// Package identityd applies picube/node.yaml on the card: host name, machine
// id, hosts, addresses, host keys, mount points. It runs in the initramfs
// before systemd does, so that systemd finds the machine id, and again as a
// unit, since a later kernel upgrade replaces our initramfs by Debian's.
//
// Whoever edits node.yaml makes mistakes. With one, the node starts as it did
// the last time, and says what is wrong.
//
// It is idempotent and safe to be cut off: every file is replaced by a rename,
// and a secret leaves the boot partition only after it is on the disk.
package identityd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/layers/nodeconf"
)

// maxSecret bounds one identity file.
const maxSecret = 1 << 20

// Identity is where the node's parts lie while it is applied.
type Identity struct {
	Root string // the root file system: "/" or where the initramfs mounted it
	Boot string // the boot partition
	// Disk is the partition table's id as PARTUUIDs show it ("1a2b3c4d"), or
	// empty where it is not known.
	Disk string
}

// lastFile is the node.yaml that was applied last.
const lastFile = nodeconf.StateDir + "/node.yaml"

// RefusedError says why node.yaml was not applied, and the one before was.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%v; this node goes on as it was before", e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// load reads and checks a node.yaml.
func (id Identity) load(name string) (*nodeconf.Node, error) {
	data, err := readBounded(name, nodeconf.MaxSize)
	if err != nil {
		return nil, err
	}
	n, err := nodeconf.Parse(data)
	if err != nil {
		return nil, err
	}
	return n, id.check(n)
}

// Apply brings the root file system to what node.yaml says. With mistakes in
// it, it returns the node as it was before and a *RefusedError; a node that
// never had another is not touched.
func (id Identity) Apply() (*nodeconf.Node, error) {
	n, err := id.load(filepath.Join(id.Boot, nodeconf.Path))
	if err == nil {
		return n, id.apply(n)
	}
	last, lastErr := id.load(filepath.Join(id.Root, lastFile))
	if lastErr != nil {
		return nil, err
	}
	refused := &RefusedError{err}
	if err := id.apply(last); err != nil {
		return nil, errors.Join(refused, err)
	}
	return last, refused
}

func (id Identity) apply(n *nodeconf.Node) error {
	text, err := n.Marshal()
	if err != nil {
		return err
	}
	files := []file{
		{"/etc/hostname", n.Hostname + "\n", 0o644},
		{"/etc/hosts", hosts(n), 0o644},
		{"/etc/systemd/network/10-picube.network", network(n), 0o644},
	}
	if id.firstBoot() {
		files = append(files, file{"/etc/machine-id", n.MachineID + "\n", 0o444})
	}
	for _, f := range files {
		if err := id.write(f); err != nil {
			return err
		}
	}
	if err := errors.Join(id.mounts(), id.secrets()); err != nil {
		return err
	}
	if len(n.WiFi) > 0 { // after the secrets, whose networks they replace
		if err := id.write(file{wifiFile, wifi(n.WiFi), 0o600}); err != nil {
			return err
		}
	}
	return id.write(file{lastFile, string(text), 0o600})
}

// firstBoot reports whether the card has no machine id yet. One that it has
// is never changed: logs and leases hang on it.
func (id Identity) firstBoot() bool {
	text, err := os.ReadFile(filepath.Join(id.Root, "/etc/machine-id"))
	return err != nil || !machineID.MatchString(strings.TrimSpace(string(text)))
}

func hosts(n *nodeconf.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost\n127.0.1.1\t%s\n", n.Hostname)
	b.WriteString("::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n")
	if len(n.Peers) > 0 {
		b.WriteString("\n# The nodes of this cluster on the cubes' wire.\n")
	}
	for _, p := range n.Peers {
		if strings.HasPrefix(n.Network.Address, p.Address+"/") {
			p.Name = n.Hostname
		}
		fmt.Fprintf(&b, "%s\t%s\n", p.Address, p.Name)
	}
	return b.String()
}

// network is the node's systemd.network(5) file. The fixed address must not
// wait for DHCP, which may never answer.
func network(n *nodeconf.Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written at each start from picube/node.yaml on the boot partition.\n[Match]\nName=%s\n\n[Network]\nAddress=%s\n", n.Network.Interface, n.Network.Address)
	if n.Network.DHCP {
		b.WriteString("DHCP=yes\n")
	}
	for _, dns := range n.Network.DNS {
		fmt.Fprintf(&b, "DNS=%s\n", dns)
	}
	b.WriteString("LinkLocalAddressing=ipv6\nConfigureWithoutCarrier=yes\n\n[Link]\nRequiredForOnline=no\n")
	return b.String()
}

// mounts turns the labels in fstab, which all cards share, into this card's
// own partitions: two cards in one reader would be taken for one another.
func (id Identity) mounts() error {
	if id.Disk == "" {
		return nil
	}
	for _, f := range []string{"/etc/fstab", "/etc/default/raspi-firmware"} {
		name := filepath.Join(id.Root, f)
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		own := strings.NewReplacer("LABEL=rootfs", "PARTUUID="+id.Disk+"-02", "LABEL=bootfs", "PARTUUID="+id.Disk+"-01").Replace(string(text))
		if err := id.write(file{f, own, 0o644}); err != nil {
			return err
		}
	}
	return nil
}

// secrets moves the files below picube/identity to their places.
func (id Identity) secrets() error {
	from := filepath.Join(id.Boot, nodeconf.IdentityDir)
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var moved []string
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: cannot take it over: not a regular file", p)
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		data, err := readBounded(p, maxSecret)
		if err != nil {
			return err
		}
		perm := fs.FileMode(0o600)
		if strings.HasSuffix(rel, ".pub") || strings.HasSuffix(rel, ".crt") {
			perm = 0o644
		}
		moved = append(moved, p)
		return id.write(file{"/" + rel, string(data), perm})
	})
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	for _, p := range moved {
		if err := erase(p); err != nil {
			return fmt.Errorf("identity: cannot erase %s: %w", p, err)
		}
	}
	return os.RemoveAll(from)
}

// erase overwrites a file in place before removing it. FAT writes in place;
// what the card's own wear levelling keeps is out of reach.
func erase(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, info.Size()), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Remove(p)
}

type file struct {
	path, content string
	perm          fs.FileMode
}

// write replaces a file below Root unless it holds the content already.
func (id Identity) write(f file) error {
	name := filepath.Join(id.Root, f.path)
	if old, err := os.ReadFile(name); err == nil && string(old) == f.content {
		return nil
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".picube-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(f.content)
	if err == nil {
		err = tmp.Chmod(f.perm)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", f.path, err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func readBounded(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: cannot read %d bytes, the limit is %d", name, info.Size(), limit)
	}
	return os.ReadFile(name)
}
