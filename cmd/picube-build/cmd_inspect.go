package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/image"
	"github.com/picube/picube-build/builder/tree"
)

func (c *cli) inspectCommand() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "inspect IMAGE [PATH]",
		Short: "Show what is on an image",
		Long: `inspect shows an image's partitions and node, or with a path what lies there: a
folder's entries, a file's content. Paths are those of the running node, so the
boot partition is at /boot/firmware.`,
		Example:           "  picube-build inspect out/picube/rpi1.img /etc/os-release\n  picube-build inspect -r out/picube/rpi1.img /boot/firmware",
		Args:              imageArgs(1, 2),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, size, err := openImage(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			card, err := image.Open(cmd.Context(), f, size)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if len(args) == 1 {
				return c.printCard(card, size)
			}
			return c.printPath(cmd.Context(), card, args[1], recursive)
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "list what is below folders, too")
	return cmd
}

// cardSummary is what --json prints of a card.
type cardSummary struct {
	Size       int64              `json:"size"`
	DiskID     string             `json:"diskID"`
	Partitions []partitionSummary `json:"partitions"`
	Node       string             `json:"node,omitempty"`
	Cube       string             `json:"cube,omitempty"`
	Cluster    string             `json:"cluster,omitempty"`
	Role       string             `json:"role,omitempty"`
	Board      string             `json:"board,omitempty"`
	Address    string             `json:"address,omitempty"`
}

type partitionSummary struct {
	Number   int    `json:"number"`
	Type     string `json:"type"`
	Start    int64  `json:"start"` // in bytes
	Size     int64  `json:"size"`  // in bytes
	PARTUUID string `json:"partuuid"`
	Label    string `json:"label,omitempty"`
	UUID     string `json:"uuid,omitempty"`
}

func summarize(card *image.Card, size int64) cardSummary {
	s := cardSummary{Size: size, DiskID: fmt.Sprintf("%08x", card.Table.ID)}
	for _, p := range card.Table.Partitions {
		s.Partitions = append(s.Partitions, partitionSummary{
			Number: p.Number, Type: fmt.Sprintf("%02x", p.Type), Start: p.Start, Size: p.Size, PARTUUID: card.Table.PARTUUID(p.Number),
		})
	}
	for i := range s.Partitions {
		switch p := &s.Partitions[i]; p.PARTUUID {
		case card.BootUUID:
			id := card.BootFS.VolumeID
			p.Label, p.UUID = card.BootFS.Label, fmt.Sprintf("%04X-%04X", id>>16, id&0xFFFF)
		case card.RootUUID:
			u := card.RootFS.UUID()
			p.Label, p.UUID = card.RootFS.Label(), fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		}
	}
	if n, err := card.Node(); err == nil {
		s.Node, s.Cube, s.Cluster, s.Role, s.Board, s.Address = n.Hostname, n.Cube, n.Cluster, n.Role, n.Board, n.Network.Address
	}
	return s
}

func (c *cli) printCard(card *image.Card, size int64) error {
	s := summarize(card, size)
	if c.json {
		return c.printJSON(s)
	}
	t := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "size\t%d\n", s.Size)
	fmt.Fprintf(t, "disk id\t%s\n", s.DiskID)
	if s.Node != "" {
		fmt.Fprintf(t, "node\t%s (%s, %s of cube %s, cluster %s)\n", s.Node, s.Board, s.Role, s.Cube, s.Cluster)
		fmt.Fprintf(t, "address\t%s\n", s.Address)
	}
	fmt.Fprintln(t)
	fmt.Fprintln(t, "PARTITION\tTYPE\tSTART\tSIZE\tLABEL\tUUID\tPARTUUID")
	for _, p := range s.Partitions {
		fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%s\t%s\t%s\n", p.Number, p.Type, p.Start, p.Size, p.Label, p.UUID, p.PARTUUID)
	}
	return t.Flush()
}

// entry is a line of a listing.
type entry struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"` // as ls prints it
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   int64  `json:"size"`
	Time   string `json:"time"`
	Target string `json:"target,omitempty"` // of a link
}

func (c *cli) printPath(ctx context.Context, card *image.Card, name string, recursive bool) error {
	t, p, err := card.Resolve(name)
	if err != nil {
		return err
	}
	n, err := t.Stat(p)
	if err != nil {
		return err
	}
	if n.IsRegular() && !c.json {
		if n.Content == nil {
			return nil
		}
		_, err := io.Copy(c.stdout, contextReader{ctx, io.NewSectionReader(n.Content, 0, n.Size())})
		return err
	}
	list := []entry{}
	for at, n := range t.Below(p) {
		rest := strings.TrimPrefix(strings.TrimPrefix(at, p), "/")
		if n.IsDir() && at == p || !recursive && strings.Contains(rest, "/") {
			continue
		}
		list = append(list, entry{
			Path: path.Join(tree.Clean(name), rest), Mode: mode(n), UID: n.UID, GID: n.GID, Size: n.Size(),
			Time: time.Unix(n.ModTime, 0).UTC().Format(time.RFC3339), Target: n.Target,
		})
	}
	if c.json {
		return c.printJSON(list)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 1, ' ', tabwriter.AlignRight)
	for _, e := range list {
		arrow := ""
		if e.Target != "" {
			arrow = " -> " + e.Target
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t %s  %s%s\n", e.Mode, e.UID, e.GID, e.Size, e.Time, e.Path, arrow)
	}
	return w.Flush()
}

// mode is an inode's type and permissions as ls -l prints them.
func mode(n *tree.Inode) string {
	kinds := map[uint32]byte{
		tree.TypeSocket: 's', tree.TypeSymlink: 'l', tree.TypeRegular: '-',
		tree.TypeBlock: 'b', tree.TypeDir: 'd', tree.TypeChar: 'c', tree.TypeFifo: 'p',
	}
	m := []byte("?rwxrwxrwx")
	if kind, ok := kinds[n.Type()]; ok {
		m[0] = kind
	}
	for i := range 9 {
		if n.Perm()&(1<<(8-i)) == 0 {
			m[i+1] = '-'
		}
	}
	for i, special := range []struct {
		bit       uint32
		set, only byte // with and without the permission to execute
	}{{0o4000, 's', 'S'}, {0o2000, 's', 'S'}, {0o1000, 't', 'T'}} {
		at := 3 * (i + 1)
		switch {
		case n.Perm()&special.bit == 0:
		case m[at] == '-':
			m[at] = special.only
		default:
			m[at] = special.set
		}
	}
	return string(m)
}
