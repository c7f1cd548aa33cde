package kubeadmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many questions an API server is asked at once: most of the time
// that one takes on a small board it waits.
const atOnce = 4

// resource is a kind of objects and where they are.
type resource struct {
	path       string // "/api/v1", "/apis/apps/v1"
	apiVersion string
	name       string // "deployments"
	kind       string // "Deployment"
	namespaced bool
}

// discovery is all that an API server has, in one answer (Kubernetes, aggregated
// discovery, since 1.30: APIGroupDiscoveryList of apidiscovery.k8s.io/v2). Versions
// are in the order in which they are preferred.
type discovery struct {
	Kind  string `json:"kind"`
	Items []struct {
		Metadata struct {
			Name string `json:"name"` // empty: core
		} `json:"metadata"`
		Versions []struct {
			Version   string `json:"version"`
			Freshness string `json:"freshness"`
			Resources []struct {
				Resource     string `json:"resource"`
				ResponseKind struct {
					Kind string `json:"kind"`
				} `json:"responseKind"`
				Scope string   `json:"scope"`
				Verbs []string `json:"verbs"`
			} `json:"resources"`
		} `json:"versions"`
	} `json:"items"`
}

const (
	discoveryKind = "APIGroupDiscoveryList"
	discoveryType = "application/json;g=apidiscovery.k8s.io;v=v2;as=" + discoveryKind
)

// resources returns the kinds of objects that can be listed and applied, each
// in the version that its group prefers of those that have it.
func (a API) resources(ctx context.Context) ([]resource, error) {
	var out []resource
	for _, root := range []string{"/api", "/apis"} {
		var d discovery
		if err := a.getAs(ctx, root, discoveryType, &d); err != nil {
			return nil, err
		}
		if d.Kind != discoveryKind {
			return nil, fmt.Errorf("%s: the answer is %q, not %q; Kubernetes has that since 1.30", root, d.Kind, discoveryKind)
		}
		for _, g := range d.Items {
			seen := map[string]bool{}
			for _, v := range g.Versions {
				r := resource{path: root + "/" + v.Version, apiVersion: v.Version}
				if g.Metadata.Name != "" {
					r.apiVersion = g.Metadata.Name + "/" + v.Version
					r.path = root + "/" + r.apiVersion
				}
				// A group that another server keeps (APIService) may have lost it; what is
				// in it does not lie in this cluster's state.
				if v.Freshness == "Stale" {
					continue
				}
				for _, l := range v.Resources {
					r.name, r.kind, r.namespaced = l.Resource, l.ResponseKind.Kind, l.Scope == "Namespaced"
					can := func(verb string) bool { return slices.Contains(l.Verbs, verb) }
					if !seen[r.name] && can("list") && can("patch") && can("create") && !slices.Contains(systemKinds(), r.kind) {
						out = append(out, r)
					}
					seen[r.name] = true
				}
			}
		}
	}
	return out, nil
}

// systemKinds are those that only the system makes, or that are of a node.
func systemKinds() []string {
	return []string{
		"Node", "Event", "Lease", "LeaseCandidate", "Endpoints", "EndpointSlice", "ControllerRevision", "CSINode", "CSIStorageCapacity",
		"VolumeAttachment", "CertificateSigningRequest", "APIService", "FlowSchema", "PriorityLevelConfiguration",
		"IPAddress", "ServiceCIDR", "ResourceSlice", "StorageVersion", "ClusterTrustBundle",
	}
}

// everything returns users' objects with the kind of each.
func (a API) everything(ctx context.Context) (out []object, of []resource, err error) {
	kinds, err := a.resources(ctx)
	if err != nil {
		return nil, nil, err
	}
	return a.listAll(ctx, kinds)
}

// listAll returns users' objects of some kinds, with the kind of each.
func (a API) listAll(ctx context.Context, kinds []resource) (out []object, of []resource, err error) {
	lists := make([][]object, len(kinds))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, r := range kinds {
		group.Go(func() (err error) {
			lists[i], err = a.list(ctx, r)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for i, list := range lists {
		out, of = append(out, list...), append(of, slices.Repeat(kinds[i:i+1], len(list))...)
	}
	return out, of, nil
}

// list returns users' objects of a kind.
func (a API) list(ctx context.Context, r resource) (out []object, err error) {
	next := ""
	for {
		code, data, err := a.do(ctx, http.MethodGet, r.path+"/"+r.name+"?limit=100&continue="+url.QueryEscape(next), "", nil)
		if err != nil {
			return nil, err
		}
		if code == http.StatusNotFound || code == http.StatusMethodNotAllowed {
			return out, nil // a kind that was removed just now, or has no list
		}
		if code != http.StatusOK {
			return nil, fmt.Errorf("%s: %d %s", r.name, code, message(data))
		}
		var list struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []object `json:"items"`
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		for _, o := range list.Items {
			o["apiVersion"], o["kind"] = r.apiVersion, r.kind
			if isUsers(o) {
				out = append(out, o)
			}
		}
		if next = list.Metadata.Continue; next == "" {
			return out, nil
		}
	}
}

// items returns all objects of a list, whosever they are.
func (a API) items(ctx context.Context, path string) ([]object, error) {
	var list struct {
		Items []object `json:"items"`
	}
	err := a.get(ctx, path, &list)
	return list.Items, err
}

// changeAll sends for each object of a kind a JSON merge patch (RFC 7396), if there
// is one.
func (a API) changeAll(ctx context.Context, r resource, patch func(object) object) error {
	objects, err := a.items(ctx, r.path+"/"+r.name)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range objects {
		o["apiVersion"], o["kind"] = r.apiVersion, r.kind // which a list leaves out
		change := patch(o)
		if change == nil {
			continue
		}
		body, err := json.Marshal(change)
		if err != nil {
			return err
		}
		code, answer, err := a.asMerge().do(ctx, http.MethodPatch, r.of(o), "application/merge-patch+json", body)
		if err == nil && code/100 != 2 && code != http.StatusNotFound {
			err = fmt.Errorf("%d %s", code, message(answer))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: cannot change it: %w", describe(o), err))
		}
	}
	return errors.Join(errs...)
}

// of is where an object of the kind is.
func (r resource) of(o object) string {
	p := r.path
	if r.namespaced {
		p += "/namespaces/" + url.PathEscape(text(o, "metadata", "namespace"))
	}
	return p + "/" + r.name + "/" + url.PathEscape(text(o, "metadata", "name"))
}
