package kubeadmd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Handing over is how users' objects get from a cluster that ends into the one
// that it becomes part of: all that users made, as they made it; what the system
// made for itself, or out of theirs, the leader's system makes anew.
//
// Server-side apply alone would not do: of an object that both have it makes
// one with the fields of both. So an object of the leader that did not come
// from here is never touched.

// mergedFrom is the annotation that says where an object came from.
const mergedFrom = "picube.io/merged-from"

// object is any object, as JSON has it.
type object = map[string]any

// API is a cluster's API.
type API struct {
	URL    string
	Client *http.Client
}

// Handed is what became of an attempt to hand over.
type Handed struct {
	Objects   int             // there are
	Conflicts []string        // those that the leader has differently or refuses, sorted
	present   map[string]bool // all of them, by name
	given     map[string]sent // those that the leader has
}

// HandOver applies all users' objects of one cluster at another one; origin
// names the first. It may be done any number of times.
func HandOver(ctx context.Context, from, to API, origin string) (Handed, error) {
	return handOver(ctx, from, to, origin, nil, forLeader)
}

// handOver leaves out what was given before and is the same. As says in what form
// the other cluster gets an object.
func handOver(ctx context.Context, from, to API, origin string, before map[string]sent, as func(object) object) (Handed, error) {
	h := Handed{present: map[string]bool{}, given: map[string]sent{}}
	objects, err := from.userObjects(ctx)
	if err != nil {
		return h, err
	}
	kinds, err := to.resources(ctx)
	if err != nil {
		return h, err
	}
	slices.SortStableFunc(objects, func(a, b object) int { return cmp.Compare(order(a), order(b)) })
	var errs []error
	for rest := objects; len(rest) > 0; {
		// What others need comes first, the rest at once.
		n := slices.IndexFunc(rest, func(o object) bool { return order(o) != order(rest[0]) })
		if n < 0 {
			n = len(rest)
		}
		results := make([]result, n)
		var group errgroup.Group
		group.SetLimit(atOnce)
		for i, o := range rest[:n] {
			group.Go(func() error {
				results[i] = to.give(ctx, o, origin, objects, kinds, before[describe(o)], as)
				return nil
			})
		}
		_ = group.Wait()
		for i, o := range rest[:n] {
			if err := h.note(o, results[i]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", describe(o), err))
			}
		}
		rest = rest[n:]
	}
	slices.Sort(h.Conflicts)
	return h, errors.Join(errs...)
}

// result is what became of an object.
type result struct {
	sent
	known bool // the other cluster has its kind
	err   error
}

// note adds what became of an object.
func (h *Handed) note(o object, r result) error {
	h.Objects++
	h.present[describe(o)] = true
	if r.err != nil {
		return r.err
	}
	if r.known && (r.why == "" || r.why == otherPorts || r.why == sameThere) {
		h.given[describe(o)] = r.sent
	}
	if r.why != "" && r.why != sameThere {
		h.Conflicts = append(h.Conflicts, describe(o)+": "+r.why)
	}
	return nil
}

// give applies an object, unless it is as it was before.
func (a API) give(ctx context.Context, o object, origin string, all []object, kinds []resource, before sent, as func(object) object) result {
	at := slices.IndexFunc(kinds, func(r resource) bool { return r.apiVersion == o["apiVersion"] && r.kind == o["kind"] })
	switch {
	case at < 0 && isDefined(o, all): // perhaps just now
		return result{err: errors.New("cannot find its kind in the other cluster yet")}
	case at < 0:
		return result{sent: sent{why: "its kind is not known there"}}
	}
	what := sent{path: kinds[at].of(o), of: kinds[at]}
	text, err := json.Marshal(as(o))
	if err != nil {
		return result{err: err}
	}
	what.digest = sha256.Sum256(text)
	if before.path == what.path && before.digest == what.digest {
		return result{before, true, nil}
	}
	what.why, err = a.apply(ctx, what.path, as(o), origin)
	return result{what, true, err}
}

// isDefined reports whether the kind of an object comes with the others.
func isDefined(o object, objects []object) bool {
	group, _, _ := strings.Cut(text(o, "apiVersion"), "/")
	return slices.ContainsFunc(objects, func(d object) bool {
		return text(d, "kind") == "CustomResourceDefinition" && text(d, "spec", "group") == group && text(d, "spec", "names", "kind") == text(o, "kind")
	})
}

// order puts first what others need.
func order(o object) int {
	first := []string{
		"CustomResourceDefinition", "Namespace", "PriorityClass", "StorageClass", "ServiceAccount", "Secret", "ConfigMap",
		"PersistentVolume", "PersistentVolumeClaim", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Service",
	}
	last := []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicyBinding"}
	kind := text(o, "kind")
	if i := slices.Index(first, kind); i >= 0 {
		return i
	}
	return len(first) + 1 + slices.Index(last, kind)
}

// manager is the field manager of what a cluster handed over
// (Kubernetes, server-side apply).
func manager(origin string) string { return "picube-merge-" + origin }

// apply makes or brings up to date an object, unless another one is there or the
// server won't have it: then it returns why.
func (a API) apply(ctx context.Context, path string, o object, origin string) (why string, err error) {
	there, err := a.read(ctx, path)
	switch {
	case err != nil:
		return "", err
	case there != nil && text(there, "metadata", "annotations", mergedFrom) != origin:
		if reflect.DeepEqual(part(forLeader(there), o), o) {
			return sameThere, nil
		}
		return "another one is there", nil
	case text(there, "metadata", "deletionTimestamp") != "":
		return "", errors.New("an earlier one is still being deleted there")
	}
	set(o, origin, "metadata", "annotations", mergedFrom)
	code, answer, err := a.patch(ctx, path, o, origin)
	if err == nil && code == http.StatusUnprocessableEntity && dropNodePorts(o) {
		// A port that is not free is the likeliest reason.
		if code, _, err = a.patch(ctx, path, o, origin); err == nil && code/100 == 2 {
			return otherPorts, nil
		}
	}
	switch {
	case err != nil:
		return "", err
	case code == http.StatusConflict && text(there, "metadata", "name") != "":
		return "it was changed there", nil
	case code/100 == 4 && code != http.StatusConflict && code != http.StatusTooManyRequests && !isTransient(answer):
		return fmt.Sprintf("%d %s", code, message(answer)), nil
	case code/100 != 2:
		return "", fmt.Errorf("%d %s", code, message(answer))
	}
	return "", nil
}

// otherPorts is why a service is at the leader, but not as it was; sameThere that
// the leader has the object as its own.
const (
	otherPorts = "it got other node ports"
	sameThere  = "the same one is there"
)

func (a API) patch(ctx context.Context, path string, o object, origin string) (int, []byte, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, nil, err
	}
	return a.do(ctx, http.MethodPatch, path+"?fieldManager="+url.QueryEscape(manager(origin)), "application/apply-patch+yaml", body)
}

// isTransient reports whether a refusal is one of the first seconds of a
// namespace, which has no service account yet, or of its last ones.
func isTransient(answer []byte) bool {
	return slices.ContainsFunc([]string{
		"error looking up service account", "not yet ready to handle request", "because it is being terminated",
	}, func(words string) bool { return strings.Contains(message(answer), words) })
}

// dropNodePorts takes out which ports of nodes a service has.
func dropNodePorts(o object) bool {
	ports, _ := at(o, "spec", "ports").([]any)
	dropped := false
	for _, p := range ports {
		if at(p, "nodePort") != nil {
			drop(p.(object), "nodePort")
			dropped = true
		}
	}
	return text(o, "kind") == "Service" && dropped
}

// placed is an object and where it is.
type placed struct {
	object
	path string
}

// given returns what a cluster handed over to this one.
func (a API) given(ctx context.Context, origin string) ([]placed, error) {
	objects, kinds, err := a.everything(ctx)
	return handedBy(origin, objects, kinds), err
}

// handedBy returns those objects that a cluster handed over.
func handedBy(origin string, objects []object, kinds []resource) (out []placed) {
	for i, o := range objects {
		if text(o, "metadata", "annotations", mergedFrom) == origin {
			out = append(out, placed{o, kinds[i].of(o)})
		}
	}
	return out
}

// isTouched reports whether somebody changed an object who is neither the
// system nor who handed it over.
func isTouched(o object) bool {
	origin := manager(text(o, "metadata", "annotations", mergedFrom))
	fields, _ := at(o, "metadata", "managedFields").([]any)
	return slices.ContainsFunc(fields, func(f any) bool {
		system := []string{origin, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-apiserver", "picube-merge"}
		return text(f, "subresource") != "status" && !slices.Contains(system, text(f, "manager"))
	})
}

// conflicts begins the names of the ConfigMaps that say what became of a cube's
// objects.
const conflicts = "picube-merge-conflicts-"

// lasting counts the objects that the leader has from this cluster until somebody
// deletes them.
func (h Handed) lasting() (n int) {
	for name, what := range h.given {
		if isLasting(name, what) {
			n++
		}
	}
	return n
}

// isLasting leaves out Jobs: those that are done may go by themselves.
func isLasting(name string, what sent) bool {
	return !strings.HasPrefix(name, "Job ") && what.why != sameThere
}

// lacks names what a cluster was given and does not have, or not for long, sorted.
func (a API) lacks(ctx context.Context, origin string, h Handed) ([]string, error) {
	var kinds []resource
	for _, what := range h.given {
		if !slices.Contains(kinds, what.of) {
			kinds = append(kinds, what.of)
		}
	}
	objects, of, err := a.listAll(ctx, kinds)
	if err != nil {
		return nil, err
	}
	has := handedBy(origin, objects, of)
	stays := map[string]bool{}
	for _, o := range has {
		stays[describe(o.object)] = text(o.object, "metadata", "deletionTimestamp") == ""
	}
	var out []string
	for name, what := range h.given {
		if isLasting(name, what) && !stays[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// isIntact reports whether what a cluster handed over is there, and nobody has
// touched it.
func (a API) isIntact(ctx context.Context, origin string) (bool, error) {
	objects, _, err := a.everything(ctx)
	if err != nil {
		return false, err
	}
	left := 0
	for _, o := range objects {
		if text(o, "metadata", "annotations", mergedFrom) != origin {
			continue
		}
		if isTouched(o) {
			return false, nil
		}
		if text(o, "kind") != "Job" {
			left++
		}
	}
	reports, err := a.items(ctx, configMaps)
	if err != nil {
		return false, err
	}
	for _, o := range reports {
		name := text(o, "metadata", "name")
		if !strings.HasPrefix(name, conflicts) || text(o, "data", "origin") != origin {
			continue
		}
		given, err := strconv.Atoi(text(o, "data", "given"))
		if err != nil {
			return false, fmt.Errorf("ConfigMap %s: cannot read how many objects were given: %w", name, err)
		}
		if left < given {
			return false, nil
		}
	}
	return true, nil
}

// prune deletes what a cluster had handed over before, and its user has deleted
// since. Where nobody knows what that was, everything has to be looked at.
func (a API) prune(ctx context.Context, origin string, before map[string]sent, now map[string]bool) error {
	var given []placed
	if before == nil {
		all, err := a.given(ctx, origin)
		if err != nil {
			return err
		}
		given = all
	}
	for name, what := range before {
		if now[name] {
			continue
		}
		o, err := a.read(ctx, what.path)
		if err != nil {
			return err
		}
		if text(o, "metadata", "annotations", mergedFrom) == origin {
			given = append(given, placed{o, what.path})
		}
	}
	given = slices.DeleteFunc(given, func(g placed) bool {
		return now[describe(g.object)] || isTouched(g.object)
	})
	return a.delete(ctx, given)
}

// withdrawable finds what a cluster handed over and nobody has changed, which goes when
// that one lives on its own again. It takes a while.
func (a API) withdrawable(ctx context.Context, origin string) ([]placed, error) {
	objects, kinds, err := a.everything(ctx)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{} // namespaces in which somebody else has something
	var gone []placed
	for i, o := range objects {
		if text(o, "metadata", "annotations", mergedFrom) == origin && !isTouched(o) {
			gone = append(gone, placed{o, kinds[i].of(o)})
		} else {
			used[text(o, "metadata", "namespace")] = true
		}
	}
	return slices.DeleteFunc(gone, func(g placed) bool {
		kind := text(g.object, "kind")
		// With a definition all of its objects go, whosever they are.
		return kind == "CustomResourceDefinition" || kind == "Namespace" && used[text(g.object, "metadata", "name")]
	}), nil
}

// delete deletes objects, what needs others first. What is on a volume stays:
// it is the other cluster's, too.
func (a API) delete(ctx context.Context, gone []placed) error {
	slices.SortStableFunc(gone, func(a, b placed) int { return cmp.Compare(order(b.object), order(a.object)) })
	var errs []error
	for _, g := range gone {
		if text(g.object, "kind") != "PersistentVolume" {
			continue
		}
		code, answer, err := a.do(ctx, http.MethodPatch, g.path, "application/merge-patch+json", []byte(`{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`))
		if err == nil && code/100 != 2 && code != http.StatusNotFound {
			err = fmt.Errorf("%d %s", code, message(answer))
		}
		if err != nil {
			return fmt.Errorf("%s: cannot keep what is on it: %w", describe(g.object), err)
		}
	}
	for _, g := range gone {
		code, answer, err := a.do(ctx, http.MethodDelete, g.path+"?propagationPolicy=Background", "", nil)
		if err == nil && code/100 != 2 && code != http.StatusNotFound && code != http.StatusConflict {
			err = fmt.Errorf("%d %s", code, message(answer))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: cannot delete it: %w", describe(g.object), err))
		}
	}
	return errors.Join(errs...)
}

// part returns of a what b has, too: the rest are the server's defaults.
func part(a, b any) any {
	switch b := b.(type) {
	case map[string]any:
		m, ok := a.(map[string]any)
		if !ok {
			return a
		}
		out := object{}
		for k, v := range b {
			if _, ok := m[k]; ok {
				out[k] = part(m[k], v)
			}
		}
		return out
	case []any:
		l, ok := a.([]any)
		if !ok || len(l) != len(b) {
			return a
		}
		out := make([]any, len(l))
		for i := range l {
			out[i] = part(l[i], b[i])
		}
		return out
	}
	return a
}

// userObjects returns everything that users made.
func (a API) userObjects(ctx context.Context) ([]object, error) {
	objects, _, err := a.everything(ctx)
	return objects, err
}

// isUsers reports whether an object is one that a user made: not the system's
// own, and not one that another object stands for.
func isUsers(o object) bool {
	name, namespace := text(o, "metadata", "name"), text(o, "metadata", "namespace")
	if owners, _ := at(o, "metadata", "ownerReferences").([]any); len(owners) > 0 {
		return false
	}
	if at(o, "metadata", "deletionTimestamp") != nil {
		return false
	}
	system := []string{"kube-system", "kube-public", "kube-node-lease"}
	if slices.Contains(system, namespace) {
		return false
	}
	switch text(o, "kind") {
	case "Namespace":
		return name != "default" && !slices.Contains(system, name)
	case "Service":
		return name != "kubernetes" || namespace != "default"
	case "ServiceAccount":
		return name != "default"
	case "ConfigMap":
		return name != "kube-root-ca.crt"
	case "Secret":
		return text(o, "type") != "kubernetes.io/service-account-token"
	case "Pod":
		phase := text(o, "status", "phase")
		return text(o, "metadata", "annotations", "kubernetes.io/config.mirror") == "" && phase != "Succeeded" && phase != "Failed"
	case "Job": // a finished one would run once more
		return !isDone(o)
	case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
		return name != freezeName
	case "PriorityClass":
		return !strings.HasPrefix(name, "system-")
	case "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding":
		return text(o, "metadata", "labels", "kubernetes.io/bootstrapping") == "" &&
			!strings.HasPrefix(name, "system:") && !strings.HasPrefix(name, "kubeadm:")
	}
	return true
}

// forLeader returns an object without what only holds where it was made. What
// is not changed is shared with the given one.
func forLeader(o object) object {
	out := object{"apiVersion": o["apiVersion"], "kind": o["kind"]}
	for k, v := range o {
		if k != "status" && k != "metadata" {
			out[k] = copied(v)
		}
	}
	meta := object{"name": text(o, "metadata", "name")}
	if namespace := text(o, "metadata", "namespace"); namespace != "" {
		meta["namespace"] = namespace
	}
	for _, k := range []string{"labels", "annotations"} {
		if v := at(o, "metadata", k); v != nil {
			meta[k] = copied(v)
		}
	}
	out["metadata"] = meta
	for _, a := range []string{
		mergedFrom, "kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation",
		"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller", suspendedJob,
	} {
		drop(out, "metadata", "annotations", a)
	}
	if m, _ := meta["annotations"].(object); len(m) == 0 {
		delete(meta, "annotations")
	}
	switch text(o, "kind") {
	case "Service":
		if text(o, "spec", "clusterIP") != "None" { // another one's here
			drop(out, "spec", "clusterIP")
			drop(out, "spec", "clusterIPs")
		}
		drop(out, "spec", "healthCheckNodePort")
	case "PersistentVolume":
		drop(out, "spec", "claimRef", "uid")
		drop(out, "spec", "claimRef", "resourceVersion")
	case "ServiceAccount":
		delete(out, "secrets")
	case "Pod":
		drop(out, "spec", "nodeName")
	case "Job":
		forgetJob(out)
		if text(o, "metadata", "annotations", suspendedJob) != "" {
			set(out, false, "spec", "suspend")
		}
	}
	return out
}

// forgetJob takes out what ties a job's pods to the job of that time.
func forgetJob(o object) {
	if manual, _ := at(o, "spec", "manualSelector").(bool); manual {
		return
	}
	drop(o, "spec", "selector")
	for _, where := range [][]string{{"metadata"}, {"spec", "template", "metadata"}} {
		for _, l := range []string{"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"} {
			drop(o, append(slices.Clone(where), "labels", l)...)
		}
	}
}

func describe(o object) string {
	name := text(o, "metadata", "name")
	if namespace := text(o, "metadata", "namespace"); namespace != "" {
		name = namespace + "/" + name
	}
	return text(o, "kind") + " " + name
}

func (a API) get(ctx context.Context, path string, answer any) error {
	return a.getAs(ctx, path, "", answer)
}

// getAs asks for an answer of a media type.
func (a API) getAs(ctx context.Context, path, accept string, answer any) error {
	code, data, err := a.request(ctx, http.MethodGet, path, http.Header{"Accept": {cmp.Or(accept, "application/json")}}, nil)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return fmt.Errorf("%s: %d %s", path, code, message(data))
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// read returns an object; nil: there is none.
func (a API) read(ctx context.Context, path string) (object, error) {
	code, data, err := a.do(ctx, http.MethodGet, path, "", nil)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusNotFound:
		return nil, nil
	case code != http.StatusOK:
		return nil, fmt.Errorf("%d %s", code, message(data))
	}
	var o object
	return o, json.Unmarshal(data, &o)
}

func (a API) do(ctx context.Context, method, path, kind string, body []byte) (code int, answer []byte, err error) {
	header := http.Header{}
	if kind != "" {
		header.Set("Content-Type", kind)
	}
	return a.request(ctx, method, path, header, body)
}

func (a API) request(ctx context.Context, method, path string, header http.Header, body []byte) (code int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, a.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = header
	resp, err := a.Client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if len(answer) > maxAnswer {
		err = fmt.Errorf("%s: answer is larger than %d bytes", path, maxAnswer)
	}
	return resp.StatusCode, answer, err
}

// message is the text of a metav1.Status.
func message(answer []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) != nil {
		return ""
	}
	return status.Message
}

// at returns what stands at a place in an object, if anything.
func at(o any, path ...string) any {
	for _, p := range path {
		m, ok := o.(map[string]any)
		if !ok {
			return nil
		}
		o = m[p]
	}
	return o
}

func text(o any, path ...string) string {
	s, _ := at(o, path...).(string)
	return s
}

func drop(o object, path ...string) {
	if m, ok := at(o, path[:len(path)-1]...).(map[string]any); ok {
		delete(m, path[len(path)-1])
	}
}

func set(o object, v any, path ...string) {
	for _, p := range path[:len(path)-1] {
		next, ok := o[p].(map[string]any)
		if !ok {
			next = object{}
			o[p] = next
		}
		o = next
	}
	o[path[len(path)-1]] = v
}

// copied is a deep copy of what JSON can hold.
func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(object, len(v))
		for k, e := range v {
			out[k] = copied(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = copied(e)
		}
		return out
	}
	return v
}
