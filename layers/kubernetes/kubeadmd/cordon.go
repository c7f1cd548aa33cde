package kubeadmd

import (
	"context"
	"slices"
)

// When workers begin to leave, the leader has all workloads. Those whose node
// goes must not be started once more on the ones that are left, which go next, and
// at last on the control plane alone, which has to close the cluster then. So all
// nodes are cordoned (kubectl cordon): what runs goes on, and new pods wait.

// cordoned is the annotation of a node that a merge cordoned.
const cordoned = "picube.io/cordoned-by-merge"

func nodes() resource { return resource{"/api/v1", "v1", "nodes", "Node", false} }

// cordon cordons those nodes that nobody else has.
func (a API) cordon(ctx context.Context) error {
	return a.changeAll(ctx, nodes(), func(node object) object {
		if unschedulable, _ := at(node, "spec", "unschedulable").(bool); unschedulable {
			return nil
		}
		return object{"metadata": object{"annotations": object{cordoned: "true"}}, "spec": object{"unschedulable": true}}
	})
}

// uncordon lets pods start again.
func (a API) uncordon(ctx context.Context) error {
	return a.changeAll(ctx, nodes(), func(node object) object {
		if !isCordoned(node) {
			return nil
		}
		return object{"metadata": object{"annotations": object{cordoned: nil}}, "spec": object{"unschedulable": nil}}
	})
}

// isCordoned reports whether a merge has cordoned a node.
func (a API) isCordoned(ctx context.Context) (bool, error) {
	list, err := a.items(ctx, "/api/v1/nodes")
	return slices.ContainsFunc(list, isCordoned), err
}

func isCordoned(node object) bool { return text(node, "metadata", "annotations", cordoned) != "" }

// idle names the workloads that are to have pods and have none that is available,
// of those that count.
func (a API) idle(ctx context.Context, counts func(object) bool) ([]string, error) {
	var out []string
	for _, name := range []string{"deployments", "statefulsets"} {
		list, err := a.items(ctx, "/apis/apps/v1/"+name)
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			wanted, given := at(o, "spec", "replicas"), at(o, "status", "availableReplicas")
			if counts(o) && wanted != 0.0 && (given == nil || given == 0.0) {
				out = append(out, name+"/"+text(o, "metadata", "namespace")+"/"+text(o, "metadata", "name"))
			}
		}
	}
	return out, nil
}
