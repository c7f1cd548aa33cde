package kubeadmd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// When workers begin to leave, the leader has all workloads. Those whose node
// goes must not be started once more on the ones that are left, which go next, and
// at last on the control plane alone, which has to close the cluster then. So all
// nodes are cordoned (kubectl cordon): what runs goes on, and new pods wait.

// cordoned is the annotation of a node that a merge cordoned.
const cordoned = "picube.io/cordoned-by-merge"

// cordon cordons those nodes that nobody else has.
func (a API) cordon(ctx context.Context) error {
	return a.changeNodes(ctx, `{"metadata":{"annotations":{"`+cordoned+`":"true"}},"spec":{"unschedulable":true}}`, func(node object) bool {
		unschedulable, _ := at(node, "spec", "unschedulable").(bool)
		return !unschedulable
	})
}

// uncordon lets pods start again.
func (a API) uncordon(ctx context.Context) error {
	return a.changeNodes(ctx, `{"metadata":{"annotations":{"`+cordoned+`":null}},"spec":{"unschedulable":null}}`, isCordoned)
}

// isCordoned reports whether a merge has cordoned a node.
func (a API) isCordoned(ctx context.Context) (bool, error) {
	found := false
	err := a.changeNodes(ctx, "", func(node object) bool {
		found = found || isCordoned(node)
		return false
	})
	return found, err
}

func isCordoned(node object) bool { return text(node, "metadata", "annotations", cordoned) != "" }

// changeNodes sends a JSON merge patch for each node of some.
func (a API) changeNodes(ctx context.Context, patch string, which func(node object) bool) error {
	var list struct {
		Items []object `json:"items"`
	}
	if err := a.get(ctx, "/api/v1/nodes", &list); err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	var errs []error
	for _, node := range list.Items {
		if !which(node) {
			continue
		}
		name := text(node, "metadata", "name")
		code, answer, err := a.asMerge().do(ctx, http.MethodPatch, "/api/v1/nodes/"+name, "application/merge-patch+json", []byte(patch))
		if err == nil && code/100 != 2 && code != http.StatusNotFound {
			err = fmt.Errorf("%d %s", code, message(answer))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: cannot cordon or uncordon it: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// idle names the workloads that are to have pods and have none that is available,
// of those that count.
func (a API) idle(ctx context.Context, counts func(object) bool) ([]string, error) {
	var out []string
	for _, name := range []string{"deployments", "statefulsets"} {
		var list struct {
			Items []object `json:"items"`
		}
		if err := a.get(ctx, "/apis/apps/v1/"+name, &list); err != nil {
			return nil, err
		}
		for _, o := range list.Items {
			wanted, given := at(o, "spec", "replicas"), at(o, "status", "availableReplicas")
			if counts(o) && wanted != 0.0 && (given == nil || given == 0.0) {
				out = append(out, name+"/"+text(o, "metadata", "namespace")+"/"+text(o, "metadata", "name"))
			}
		}
	}
	return out, nil
}
