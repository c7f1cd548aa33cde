package main

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/spf13/cobra"
)

func (c *cli) planCommand() *cobra.Command {
	var vars variableFlags
	cmd := &cobra.Command{
		Use:               "plan BLUEPRINT",
		Short:             "Show what would be built",
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(_ *cobra.Command, args []string) error {
			bp, err := c.load(args[0], vars)
			if err != nil {
				return err
			}
			p, err := c.plan(bp)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(p)
			}
			return p.Print(c.stdout)
		},
	}
	vars.add(cmd)
	return cmd
}

func (c *cli) plan(bp *blueprint.Blueprint) (*plan.Plan, error) {
	o := plan.Options{Boards: map[string]plan.Board{}}
	for _, b := range boards() {
		o.Boards[b.Name] = plan.Board{Arch: b.Arch}
	}
	p, diags := plan.New(bp, o)
	if len(diags) > 0 {
		c.printDiagnostics(map[string]*hcl.File{}, diags)
	}
	if diags.HasErrors() {
		return nil, usageError{errReported}
	}
	return p, nil
}
