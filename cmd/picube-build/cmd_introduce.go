package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/kubernetes"
	"github.com/picube/picube-build/layers/nodeconf"
)

func (c *cli) introduceCommand() *cobra.Command {
	var vars variableFlags
	var out string
	var boot []string
	cmd := &cobra.Command{
		Use:   "introduce HOST GUEST",
		Short: "Let the nodes of two blueprints know each other",
		Long: `introduce writes, for the nodes of each of two blueprints that were built apart,
a signed file that tells them of the other: those of GUEST get certificates of
HOST's identity. There is no secret in the files, and no password goes over the
air: each is believed by the nodes whose own authority signed it.

One card of each blueprint is enough: copy its file to the boot partition, as
picube/introduction.bin, or name the mounted partition with --boot. The node tells
the others of its blueprint. Cards that are built later have the files already.
Then the cluster of GUEST becomes part of HOST's as soon as they are on one wire.`,
		Example: `  picube-build introduce home.hcl friend.hcl
  picube-build introduce home.hcl friend.hcl --boot /media/me/bootfs`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("cannot introduce without two blueprints")
			}
			return nil
		},
		ValidArgsFunction: completeBlueprint,
		RunE: func(_ *cobra.Command, args []string) error {
			var sides [2]kubernetes.Side
			var folders [2]*secrets.Folder
			for i, name := range args {
				var err error
				if sides[i], folders[i], err = c.side(name, vars); err != nil {
					return err
				}
			}
			var files [2][]byte
			var err error
			if files[0], files[1], err = kubernetes.Introduce(sides[0], sides[1], time.Now()); err != nil {
				return usageError{err}
			}
			for i, folder := range folders {
				if err := folder.KeepIntroduction(sides[i].Cluster, sides[1-i].Cube(), files[i]); err != nil {
					return err
				}
			}
			return c.writeIntroductions(args, sides, files, out, boot)
		},
	}
	vars.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "out", "`folder` for the files")
	cmd.Flags().StringArrayVar(&boot, "boot", nil, "mounted boot `partition` of a card that gets its file; may be given again")
	return cmd
}

// writeIntroductions writes each side's file to a folder, or to the cards whose
// boot partitions are given.
func (c *cli) writeIntroductions(args []string, sides [2]kubernetes.Side, files [2][]byte, out string, boot []string) error {
	var written []string
	write := func(side int, folder string) error {
		name := filepath.Join(folder, filepath.FromSlash(introduction.Path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		written = append(written, name)
		return output.Replace(name, files[side])
	}
	for _, folder := range boot {
		node, err := nodeOf(folder)
		if err != nil {
			return err
		}
		side := slices.IndexFunc(sides[:], func(s kubernetes.Side) bool {
			return s.Cluster == node.Cluster && slices.ContainsFunc(s.Plan.Nodes(), func(n *plan.Node) bool { return n.Name == node.Hostname && n.Cube == node.Cube })
		})
		if side < 0 {
			return fmt.Errorf("%s: cannot use this card: %s is in neither blueprint", folder, node.Hostname)
		}
		if err := write(side, folder); err != nil {
			return err
		}
	}
	for i, s := range sides {
		if boot != nil {
			break
		}
		if err := write(i, filepath.Join(out, "introduction-"+s.Cube())); err != nil {
			return err
		}
	}
	if c.json {
		return c.printJSON(map[string][]string{"files": written})
	}
	for i, name := range written {
		if boot != nil {
			fmt.Fprintln(c.stdout, name)
			continue
		}
		fmt.Fprintf(c.stdout, "%s: for the boot partition of a card of %s, as %s\n", relative(name), args[i], introduction.Path)
	}
	return nil
}

// nodeOf is whose card a mounted boot partition is of.
func nodeOf(folder string) (*nodeconf.Node, error) {
	name := filepath.Join(folder, filepath.FromSlash(nodeconf.Path))
	text, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	n, err := nodeconf.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// side reads a blueprint and the identity beside it, which must be there: only a
// build makes one.
func (c *cli) side(name string, vars variableFlags) (s kubernetes.Side, f *secrets.Folder, err error) {
	bp, err := c.load(name, vars)
	if err != nil {
		return s, nil, err
	}
	if s.Plan, err = planRequests(bp); err != nil {
		return s, nil, err
	}
	if s.Cluster, err = chooseCluster(s.Plan, ""); err != nil {
		return s, nil, err
	}
	folder := strings.TrimSuffix(bp.Path, filepath.Ext(bp.Path)) + ".secrets"
	if _, err := os.Stat(folder); err != nil {
		return s, nil, fmt.Errorf("%s: cannot find its identity: %w; build its cards first, or bring %s from where they were built", name, cause(err), folder)
	}
	f = secrets.Open(folder, rand.Reader)
	s.ID, err = f.Cluster(s.Cluster)
	return s, f, err
}
