package main

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers"
	"github.com/picube/picube-build/layers/kubernetes"
)

func (c *cli) kubeconfigCommand() *cobra.Command {
	var (
		vars            variableFlags
		server, cluster string
	)
	cmd := &cobra.Command{
		Use:   "kubeconfig BLUEPRINT",
		Short: "Print a file for kubectl, with full rights",
		Long: `Print a file for kubectl, with full rights in the blueprint's cluster. It is
made of the keys beside the blueprint; the cubes need not be there. Where several
cubes begin clusters of their own it has a context for each, CLUSTER-CUBE for all
but the first, unless --server names one.`,
		Example: `  picube-build kubeconfig blueprints/picube.hcl > ~/.kube/picube
  picube-build kubeconfig --server https://10.42.1.1:6443 blueprints/picube.hcl`,
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], vars)
			if err != nil {
				return err
			}
			p, diags := plan.New(bp, builder.PlanOptions(layers.All(layers.Options{Kubernetes: &kubernetes.Layer{}})))
			if diags.HasErrors() {
				return diags
			}
			if cluster, err = chooseCluster(p, cluster); err != nil {
				return err
			}
			contexts := []kubernetes.Context{{Name: cluster, Server: server}}
			if server == "" {
				if contexts, err = kubernetes.Contexts(p, cluster); err != nil {
					return err
				}
			}
			stem := strings.TrimSuffix(bp.Path, filepath.Ext(bp.Path))
			id, err := secrets.Open(stem+".secrets", rand.Reader).Cluster(cluster)
			if err != nil {
				return err
			}
			config, err := kubernetes.Kubeconfig(id, contexts...)
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(config)
			return err
		},
	}
	vars.add(cmd)
	cmd.Flags().StringVar(&server, "server", "", "`URL` of the API; by default the first control-plane node's .local name")
	cmd.Flags().StringVar(&cluster, "cluster", "", "`name` of the cluster, where the blueprint has more than one")
	return cmd
}

// chooseCluster returns the cluster that is meant: the only one with
// Kubernetes, or that of the name.
func chooseCluster(p *plan.Plan, name string) (string, error) {
	var all []string
	for _, c := range p.Cubes {
		if c.Spec.Kubernetes != nil && !slices.Contains(all, c.Spec.Cluster) {
			all = append(all, c.Spec.Cluster)
		}
	}
	switch {
	case len(all) == 0:
		return "", fmt.Errorf("%s: has no kubernetes block", p.Blueprint)
	case name == "" && len(all) == 1:
		return all[0], nil
	case name == "":
		return "", usagef("cannot guess the cluster: choose one with --cluster: %s", strings.Join(all, ", "))
	case !slices.Contains(all, name):
		return "", usagef("cluster %q: cannot find it; there are: %s", name, strings.Join(all, ", "))
	}
	return name, nil
}
