package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (c *cli) checkCommand() *cobra.Command {
	var vars variableFlags
	cmd := &cobra.Command{
		Use:               "check BLUEPRINT",
		Short:             "Report every mistake in a blueprint",
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(_ *cobra.Command, args []string) error {
			_, files, diags, err := c.parse(args[0], vars)
			switch {
			case err != nil:
				return err
			case c.json:
				err = c.printJSON(checkResult(diags))
			case len(diags) > 0:
				c.printDiagnostics(files, diags)
			default:
				fmt.Fprintf(c.stdout, "%s is valid.\n", args[0])
			}
			if diags.HasErrors() {
				return usageError{errReported}
			}
			return err
		},
	}
	vars.add(cmd)
	return cmd
}
