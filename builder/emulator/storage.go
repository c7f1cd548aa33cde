package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// FillFile is what FillDisk makes; without it there is room again.
const FillFile = "/var/tmp/picube.fill"

// FillDisk fills the node's root file system, what is kept for root included,
// until leave bytes are free. It needs a user who may use sudo.
func (n *Node) FillDisk(ctx context.Context, leave int64) error {
	// On a full disk fallocate fails, having taken all that there was.
	command := fmt.Sprintf(`sudo sh -c 'fallocate -l $(($(stat -fc "%%f * %%S" /) - %d)) %[2]s || [ -s %[2]s ]; sync'`, leave, FillFile)
	_, err := n.Run(ctx, command)
	return err
}

// CopyCard writes the card as the node left it to a file, sparse where it is
// empty, so that other tools can look at it. The node must be off.
func (n *Node) CopyCard(to string) error {
	n.power.Lock()
	defer n.power.Unlock()
	n.mu.Lock()
	plugged := n.plugged
	n.mu.Unlock()
	err := errors.New("cannot copy its card while it is on")
	if !plugged {
		err = copyOverlay(to, n.disk, n.card.Image)
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", n.card.Name, err)
	}
	return nil
}

func copyOverlay(to, name, image string) (err error) {
	from, err := openOverlay(name, image)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(from.size); err != nil {
		return err
	}
	cluster, zero := make([]byte, overlayCluster), make([]byte, overlayCluster)
	for at := int64(0); at < from.size; at += overlayCluster {
		part := cluster[:min(overlayCluster, from.size-at)]
		if _, err := from.ReadAt(part, at); err != nil && err != io.EOF {
			return err
		}
		if bytes.Equal(part, zero[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, at); err != nil {
			return err
		}
	}
	return nil
}
