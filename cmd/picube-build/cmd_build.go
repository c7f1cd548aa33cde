package main

import (
	"github.com/spf13/cobra"
)

func (c *cli) buildCommand() *cobra.Command {
	var vars variableFlags
	var out, node string
	cmd := &cobra.Command{
		Use:               "build BLUEPRINT",
		Short:             "Build the cards (the default)",
		Example:           "  picube-build blueprints/picube.hcl\n  picube-build --node rpi3 -o /tmp/cards blueprints/picube.hcl",
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], vars)
			if err != nil {
				return err
			}
			_, err = c.plan(bp)
			return err
		},
	}
	vars.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "out", "`folder` for the cards")
	cmd.Flags().StringVar(&node, "node", "", "build one node's card, by host `name`")
	return cmd
}
