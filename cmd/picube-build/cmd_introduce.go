package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/kubernetes"
)

func (c *cli) introduceCommand() *cobra.Command {
	var vars variableFlags
	var out string
	cmd := &cobra.Command{
		// Cards read the file from the next version on; until then it would promise
		// too much.
		Hidden: true,
		Use:    "introduce HOST GUEST",
		Short:  "Let the nodes of two blueprints know each other",
		Long: `introduce writes, for the nodes of each of two blueprints that were built apart,
a signed file that tells them of the other: those of GUEST get certificates of
HOST's identity. There is no secret in the files, and no password goes over the
air: each is believed by the nodes whose own authority signed it.`,
		Example: "  picube-build introduce home.hcl friend.hcl",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("cannot introduce without two blueprints")
			}
			return nil
		},
		ValidArgsFunction: completeBlueprint,
		RunE: func(_ *cobra.Command, args []string) error {
			var sides [2]kubernetes.Side
			for i, name := range args {
				var err error
				if sides[i], err = c.side(name, vars); err != nil {
					return err
				}
			}
			forHost, forGuest, err := kubernetes.Introduce(sides[0], sides[1], time.Now())
			if err != nil {
				return usageError{err}
			}
			var written []string
			for i, data := range [][]byte{forHost, forGuest} {
				name := filepath.Join(out, "introduction-"+sides[i].Plan.Blueprint, filepath.FromSlash(introduction.Path))
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					return err
				}
				if err := output.Replace(name, data); err != nil {
					return err
				}
				written = append(written, name)
			}
			if c.json {
				return c.printJSON(map[string][]string{"files": written})
			}
			for i, name := range written {
				fmt.Fprintf(c.stdout, "%s: for the boot partition of each card of %s, as %s\n", relative(name), args[i], introduction.Path)
			}
			return nil
		},
	}
	vars.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "out", "`folder` for the files")
	return cmd
}

// side reads a blueprint and the identity beside it, which must be there: only a
// build makes one.
func (c *cli) side(name string, vars variableFlags) (kubernetes.Side, error) {
	bp, err := c.load(name, vars)
	if err != nil {
		return kubernetes.Side{}, err
	}
	p, err := planRequests(bp)
	if err != nil {
		return kubernetes.Side{}, err
	}
	s := kubernetes.Side{Plan: p}
	if s.Cluster, err = chooseCluster(p, ""); err != nil {
		return s, err
	}
	folder := strings.TrimSuffix(bp.Path, filepath.Ext(bp.Path)) + ".secrets"
	if _, err := os.Stat(folder); err != nil {
		return s, fmt.Errorf("%s: cannot find its identity: %w; build its cards first, or bring %s from where they were built", name, cause(err), folder)
	}
	s.ID, err = secrets.Open(folder, rand.Reader).Cluster(s.Cluster)
	return s, err
}
