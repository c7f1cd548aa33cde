package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/layers/status/statusd"
)

func (c *cli) statusCommand() *cobra.Command {
	var out string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the cubes' nodes are",
		Long: `Show how the nodes are whose cards were built: each is asked over ssh, with the
keys beside its card, and their cluster with its kubeconfig. Nodes that don't
answer are listed with the reason.`,
		Example: `  picube-build status
  picube-build status -o out --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dialer := &net.Dialer{Timeout: patience}
			all, err := c.askNodes(cmd.Context(), out, patience, dialer.DialContext)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(all)
			}
			return printNodes(c.stdout, all)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "out", "`folder` that the cards were built into")
	cmd.Flags().DurationVar(&patience, "timeout", 10*time.Second, "how long a node may take to answer")
	return cmd
}

// nodeReport is what is known of a node, from itself and from its cluster.
type nodeReport struct {
	Cube       string          `json:"cube"`
	Cluster    string          `json:"cluster,omitempty"` // the one that knows it, by its context in the kubeconfig
	Name       string          `json:"name"`
	Error      string          `json:"error,omitempty"` // why it says nothing of itself
	Status     *statusd.Status `json:"status,omitempty"`
	Kubernetes *kubernetesNode `json:"kubernetes,omitempty"`
	// KubernetesError is why its cluster says nothing of it.
	KubernetesError string `json:"kubernetesError,omitempty"`
}

// dial is net.Dialer's DialContext.
type dial func(ctx context.Context, network, address string) (net.Conn, error)

// askNodes asks all nodes of all cubes below a folder, and their clusters.
func (c *cli) askNodes(ctx context.Context, out string, patience time.Duration, dial dial) ([]nodeReport, error) {
	configs, err := filepath.Glob(filepath.Join(out, "*", "ssh_config"))
	if err != nil {
		return nil, err
	}
	if len(configs) == 0 {
		return nil, fmt.Errorf("%s: cannot find a cube's ssh_config in it; build one, or say where with -o", out)
	}
	var all []nodeReport
	var doors []door
	for _, file := range configs {
		found, err := readSSHConfig(file)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			all = append(all, nodeReport{Cube: filepath.Base(filepath.Dir(file)), Name: d.name})
		}
		doors = append(doors, found...)
	}
	keys := c.userKeys()
	defer keys.close()
	var g errgroup.Group
	g.SetLimit(32)
	for i := range all {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			status, err := doors[i].status(ctx, keys, dial)
			if err != nil {
				all[i].Error = err.Error()
				return nil
			}
			all[i].Status = &status
			return nil
		})
	}
	clusters := askClusters(ctx, configs, doors, patience, dial)
	_ = g.Wait()
	return join(all, clusters), ctx.Err()
}

// join adds to the nodes what their clusters say, and those that only a cluster
// knows. A node may stand in two lists, as one of its cluster and of the one
// that this one followed: then it is where it is ready.
func join(all []nodeReport, clusters []clusterReport) []nodeReport {
	for _, cluster := range clusters {
		for i := range all {
			// Of a node that nobody knows its own cluster's silence is to blame.
			if slices.Contains(cluster.cubes, all[i].Cube) && (cluster.home == "" || cluster.home == all[i].Cube) {
				all[i].KubernetesError = cluster.err
			}
		}
	}
	for _, cluster := range clusters {
		for _, n := range cluster.nodes {
			i := slices.IndexFunc(all, func(r nodeReport) bool {
				return r.Name == n.name && (slices.Contains(cluster.cubes, r.Cube) || r.Cluster != "" && r.Cube == n.zone)
			})
			if i < 0 {
				i = len(all)
				all = append(all, nodeReport{Cube: n.zone, Name: n.name, Error: "its card was not built here"})
			}
			r := &all[i]
			if r.Kubernetes == nil || n.Ready && !r.Kubernetes.Ready {
				r.Cluster, r.Kubernetes, r.KubernetesError = cluster.name, &n.kubernetesNode, ""
			}
		}
	}
	return all
}

// printNodes is for people. Whose cluster a node belongs to is only of interest
// where there are several.
func printNodes(w io.Writer, all []nodeReport) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	clusters := map[string]bool{}
	for _, n := range all {
		if n.Cluster != "" {
			clusters[n.Cluster] = true
		}
	}
	if len(clusters) > 1 {
		fmt.Fprint(tw, "CLUSTER\t")
	}
	fmt.Fprintln(tw, "CUBE\tNODE\tROLE\tSTAGE\tKUBERNETES\tVERSION\tTEMP\tREMARKS")
	for _, n := range all {
		if len(clusters) > 1 {
			fmt.Fprintf(tw, "%s\t", cmp.Or(n.Cluster, "-"))
		}
		role, stage, temp, kubernetes, version := "-", "-", "-", "-", "-"
		var remarks []string
		if n.Kubernetes != nil {
			role, kubernetes, version = n.Kubernetes.Role, "NotReady", n.Kubernetes.Version
			if n.Kubernetes.Ready {
				kubernetes = "Ready"
			}
		}
		if s := n.Status; s != nil {
			if stage = s.Stage; n.Kubernetes == nil { // who was of a control plane may work for another one now
				role = s.Role
			}
			if s.Temperature != nil {
				temp = fmt.Sprintf("%.0f°C", *s.Temperature)
			}
			remarks = append(remarks, s.Problems...)
			if s.Stage != "ready" && s.ClusterView != "" {
				remarks = append(remarks, s.ClusterView)
			}
		} else {
			remarks = append(remarks, "does not answer: "+n.Error)
		}
		if n.KubernetesError != "" {
			remarks = append(remarks, "cluster: "+n.KubernetesError)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Cube, n.Name, role, stage, kubernetes, version, temp, strings.Join(remarks, "; "))
	}
	return tw.Flush()
}

// plain takes the wrapping from an error of the network, whose cause is what a
// person wants to read.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}
