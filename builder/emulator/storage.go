package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/picube/picube-build/builder/disk"
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

// CopyPartition writes a partition of the card (1: the first), as the node left
// it, to a file that is sparse where it is empty, so that other tools can look
// at it. The node must be off.
func (n *Node) CopyPartition(number int, to string) error {
	n.power.Lock()
	defer n.power.Unlock()
	n.mu.Lock()
	plugged := n.plugged
	n.mu.Unlock()
	err := errors.New("cannot copy from its card while it is on")
	if !plugged {
		err = copyPartition(n.disk, n.card.Image, number, to)
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", n.card.Name, err)
	}
	return nil
}

func copyPartition(name, image string, number int, to string) error {
	card, err := openOverlay(name, image)
	if err != nil {
		return err
	}
	defer card.Close()
	table, err := disk.Read(card, card.size)
	if err != nil {
		return err
	}
	if number < 1 || number > len(table.Partitions) {
		return fmt.Errorf("cannot find partition %d", number)
	}
	p := table.Partitions[number-1]
	return copySparse(to, io.NewSectionReader(card, p.Start, p.Size))
}

// copySparse writes all that is not zero.
func copySparse(to string, from *io.SectionReader) (err error) {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(from.Size()); err != nil {
		return err
	}
	part, zero := make([]byte, overlayCluster), make([]byte, overlayCluster)
	for at := int64(0); at < from.Size(); at += overlayCluster {
		n, err := from.ReadAt(part, at)
		if err != nil && err != io.EOF {
			return err
		}
		if bytes.Equal(part[:n], zero[:n]) {
			continue
		}
		if _, err := f.WriteAt(part[:n], at); err != nil {
			return err
		}
	}
	return nil
}
