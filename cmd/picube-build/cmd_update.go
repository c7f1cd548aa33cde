package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) updateCommand() *cobra.Command {
	var flags buildFlags
	cmd := &cobra.Command{
		Use:               "update BLUEPRINT",
		Short:             "Lock the newest versions and show what changed",
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], flags.vars)
			if err != nil {
				return err
			}
			reporter := c.reporter()
			defer reporter.Close()
			b, err := c.builder(bp, flags, reporter)
			if err != nil {
				return err
			}
			changes, err := b.Update(cmd.Context())
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(changes)
			}
			for _, change := range changes {
				fmt.Fprintln(c.stdout, change)
			}
			return nil
		},
	}
	flags.vars.add(cmd)
	return cmd
}
