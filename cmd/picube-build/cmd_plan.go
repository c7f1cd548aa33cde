package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/layers"
	"github.com/picube/picube-build/layers/kubernetes"
)

func (c *cli) planCommand() *cobra.Command {
	var flags buildFlags
	var requests bool
	cmd := &cobra.Command{
		Use:   "plan BLUEPRINT",
		Short: "Show what would be built",
		Long: `plan shows nodes, roles, addresses and packages with versions and sizes. If there
is no lock file yet it is made, as the first build would.

Where cards were built before, it shows what the blueprint means for them now:
which have to be written and why, which may stay in their nodes, and what to
tell a running cluster.`,
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], flags.vars)
			if err != nil {
				return err
			}
			var p *plan.Plan
			if requests {
				p, err = planRequests(bp)
			} else {
				p, err = c.planLocked(cmd.Context(), bp, flags)
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(p)
			}
			return p.Print(c.stdout)
		},
	}
	flags.vars.add(cmd)
	cmd.Flags().StringVarP(&flags.out, "output", "o", "out", "`folder` that cards were built into before")
	cmd.Flags().BoolVar(&requests, "requests", false, "show packages as asked for, without lock or network")
	return cmd
}

func planRequests(bp *blueprint.Blueprint) (*plan.Plan, error) {
	p, diags := plan.New(bp, builder.PlanOptions(layers.All(layers.Options{Kubernetes: &kubernetes.Layer{}})))
	if diags.HasErrors() {
		return nil, usageError{diags}
	}
	return p, nil
}

func (c *cli) planLocked(ctx context.Context, bp *blueprint.Blueprint, flags buildFlags) (*plan.Plan, error) {
	reporter := c.reporter()
	defer reporter.Close()
	b, err := c.builder(bp, flags, reporter)
	if err != nil {
		return nil, err
	}
	return b.Plan(ctx)
}
