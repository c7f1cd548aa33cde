package kubeadmd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// A cluster that another one is about to take the place of takes no more writes
// from people, so that none is lost on the way: a ValidatingAdmissionPolicy
// (admissionregistration.k8s.io/v1, in Kubernetes since 1.30) refuses them. It
// is not asked about itself, so it can always be taken away again.
const (
	freezeName = "picube-merge-freeze"
	policies   = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
	bindings   = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
)

// system is who may go on: the system's own components, and the merge itself.
func system() string {
	users := []string{mergeUser, "system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"}
	return `request.userInfo.username in ["` + strings.Join(users, `", "`) + `"] ||
request.userInfo.username.startsWith("system:node:") ||
request.userInfo.username.startsWith("system:serviceaccount:kube-system:")`
}

// freeze refuses users' writes.
func (a API) freeze(ctx context.Context) error {
	meta := object{"name": freezeName}
	policy := object{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": meta,
		"spec": object{
			"failurePolicy": "Fail",
			"matchConstraints": object{"resourceRules": []any{object{
				"apiGroups": []any{"*"}, "apiVersions": []any{"*"}, "resources": []any{"*", "*/scale"},
				"operations": []any{"CREATE", "UPDATE", "DELETE"},
			}}},
			"validations": []any{object{
				"expression": system(), "reason": "Forbidden",
				"message": "this cluster becomes part of another one: try again in some minutes, there",
			}},
		},
	}
	binding := object{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta,
		"spec": object{"policyName": freezeName, "validationActions": []any{"Deny"}},
	}
	for _, o := range []struct {
		path string
		object
	}{{policies, policy}, {bindings, binding}} {
		code, answer, err := a.asMerge().send(ctx, http.MethodPost, o.path, o.object)
		if err == nil && code/100 != 2 && code != http.StatusConflict {
			err = fmt.Errorf("%d %s", code, message(answer))
		}
		if err != nil {
			return fmt.Errorf("cannot stop writes: %w", err)
		}
	}
	return nil
}

// thaw takes them again.
func (a API) thaw(ctx context.Context) error {
	var errs []error
	for _, path := range []string{bindings, policies} {
		code, answer, err := a.asMerge().do(ctx, http.MethodDelete, path+"/"+freezeName, "", nil)
		if err == nil && code/100 != 2 && code != http.StatusNotFound {
			err = fmt.Errorf("%d %s", code, message(answer))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot take writes again: %w", err)
	}
	return nil
}

// isFreezing reports whether writes are to be refused.
func (a API) isFreezing(ctx context.Context) (bool, error) {
	o, err := a.asMerge().read(ctx, bindings+"/"+freezeName)
	return o != nil, err
}

// refuses reports whether they are: a policy takes some seconds until each API
// server knows of it, and one that answers says nothing of the others. So all
// of them are asked, as a person.
func (a API) refuses(ctx context.Context) (bool, error) {
	code, answer, err := a.send(ctx, http.MethodPost, "/api/v1/namespaces/default/configmaps?dryRun=All", object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"generateName": "picube-merge-probe-", "namespace": "default"},
	})
	switch {
	case err != nil:
		return false, err
	case code/100 == 2:
		return false, nil
	case strings.Contains(message(answer), freezeName):
		return true, nil
	}
	return false, fmt.Errorf("cannot find out whether writes are refused: %d %s", code, message(answer))
}
