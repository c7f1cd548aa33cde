package kubeadmd

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeAPI keeps objects by their path, and knows a few kinds. It refuses people's
// writes where there is a policy that says so.
type fakeAPI struct {
	mu      sync.Mutex
	objects map[string]object
	applied int
	version int
}

var kindsOfTest = []resource{
	{"/api/v1", "v1", "configmaps", "ConfigMap", true}, {"/api/v1", "v1", "services", "Service", true},
	{"/api/v1", "v1", "secrets", "Secret", true}, {"/api/v1", "v1", "namespaces", "Namespace", false},
	{"/api/v1", "v1", "pods", "Pod", true}, {"/api/v1", "v1", "persistentvolumes", "PersistentVolume", false},
	{"/api/v1", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true}, {"/api/v1", "v1", "nodes", "Node", false},
	{"/apis/apps/v1", "apps/v1", "deployments", "Deployment", true}, {"/apis/apps/v1", "apps/v1", "replicasets", "ReplicaSet", true},
	{"/apis/apps/v1", "apps/v1", "statefulsets", "StatefulSet", true}, {"/apis/batch/v1", "batch/v1", "jobs", "Job", true},
}

// discover answers as an API server does that has the kinds of tests.
func discover(root string) object {
	groups := map[string]object{}
	items := []any{}
	for _, k := range kindsOfTest {
		if !strings.HasPrefix(k.path, root+"/") {
			continue
		}
		group, _, _ := strings.Cut(strings.TrimPrefix(k.apiVersion, "v1"), "/")
		if groups[group] == nil {
			groups[group] = object{"metadata": object{"name": group}, "versions": []any{
				object{"version": "v1", "freshness": "Current", "resources": []any{}},
				object{"version": "v1alpha1", "freshness": "Stale", "resources": []any{object{"resource": "gone", "verbs": []string{"create", "list", "patch"}}}},
			}}
			items = append(items, groups[group])
		}
		v := groups[group]["versions"].([]any)[0].(object)
		scope := map[bool]string{true: "Namespaced", false: "Cluster"}[k.namespaced]
		v["resources"] = append(v["resources"].([]any), object{
			"resource": k.name, "responseKind": object{"kind": k.kind}, "scope": scope, "verbs": []string{"create", "list", "patch"},
		})
	}
	return object{"kind": discoveryKind, "items": items}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	p := r.URL.Path
	if (p == "/api" || p == "/apis") && r.Header.Get("Accept") == discoveryType {
		answer(discover(p))
		return
	}
	_, frozen := f.objects[bindings+"/"+freezeName]
	if frozen && r.Method != http.MethodGet && r.Header.Get("Impersonate-User") != mergeUser {
		w.WriteHeader(http.StatusForbidden)
		answer(object{"message": "ValidatingAdmissionPolicy '" + freezeName + "' denied request"})
		return
	}
	switch r.Method {
	case http.MethodPost, http.MethodPut:
		f.put(w, r)
		return
	case http.MethodDelete:
		delete(f.objects, p)
		answer(object{})
		return
	}
	if r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/merge-patch+json" {
		var change object
		if err := json.NewDecoder(r.Body).Decode(&change); err != nil {
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		mergePatch(f.objects[p], change)
		answer(f.objects[p])
		return
	}
	if r.Method == http.MethodPatch {
		data, _ := io.ReadAll(r.Body)
		var o object
		if json.Unmarshal(data, &o) != nil || r.URL.Query().Get("fieldManager") == "" || r.URL.Query().Has("force") {
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		set(o, "made here", "metadata", "uid")
		f.objects[p], f.applied = o, f.applied+1
		answer(o)
		return
	}
	if o, ok := f.objects[p]; ok {
		answer(o)
		return
	}
	dir, name := path.Split(p)
	group, _, _ := strings.Cut(path.Clean(dir), "/namespaces/")
	if slices.ContainsFunc(kindsOfTest, func(k resource) bool { return k.path == group && k.name == name }) {
		items := []object{}
		for at, o := range f.objects {
			if strings.HasPrefix(at, path.Clean(dir)) && path.Base(path.Dir(at)) == name {
				items = append(items, o)
			}
		}
		answer(object{"items": items})
		return
	}
	http.Error(w, "{}", http.StatusNotFound)
}

// mergePatch changes an object as a JSON merge patch says (RFC 7396).
func mergePatch(o, change object) {
	for k, v := range change {
		inner, isObject := v.(object)
		switch {
		case v == nil:
			delete(o, k)
		case isObject:
			if _, ok := o[k].(object); !ok {
				o[k] = object{}
			}
			mergePatch(o[k].(object), inner)
		default:
			o[k] = v
		}
	}
}

// put creates an object or replaces the version of it that was read.
func (f *fakeAPI) put(w http.ResponseWriter, r *http.Request) {
	var o object
	if json.NewDecoder(r.Body).Decode(&o) != nil {
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	p := r.URL.Path
	if r.Method == http.MethodPost {
		p += "/" + cmp.Or(text(o, "metadata", "name"), text(o, "metadata", "generateName")+strconv.Itoa(f.version))
	}
	old, exists := f.objects[p]
	if exists == (r.Method == http.MethodPost) || exists && text(o, "metadata", "resourceVersion") != "" && text(o, "metadata", "resourceVersion") != text(old, "metadata", "resourceVersion") {
		http.Error(w, "{}", http.StatusConflict)
		return
	}
	f.version++
	set(o, strconv.Itoa(f.version), "metadata", "resourceVersion")
	if !r.URL.Query().Has("dryRun") {
		f.objects[p] = o
	}
	_ = json.NewEncoder(w).Encode(o)
}

func parse(t *testing.T, text string) object {
	t.Helper()
	var o object
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func serve(t *testing.T, f *fakeAPI) API {
	s := httptest.NewTLSServer(f)
	t.Cleanup(s.Close)
	return API{URL: s.URL, Client: s.Client()}
}

func TestHandOver(t *testing.T) {
	const apps, core = "/apis/apps/v1/namespaces/default/deployments/", "/api/v1/namespaces/default/"
	from := &fakeAPI{objects: map[string]object{
		apps + "web":              parse(t, `{"metadata":{"name":"web","namespace":"default","uid":"1","managedFields":[]},"spec":{"replicas":2},"status":{"replicas":2}}`),
		apps + "both":             parse(t, `{"metadata":{"name":"both","namespace":"default"},"spec":{"replicas":2}}`),
		core + "configmaps/same":  parse(t, `{"metadata":{"name":"same","namespace":"default"},"data":{"a":"b"}}`),
		core + "services/web":     parse(t, `{"metadata":{"name":"web","namespace":"default"},"spec":{"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7"],"ports":[{"port":80}]}}`),
		core + "pods/web-1":       parse(t, `{"metadata":{"name":"web-1","namespace":"default","ownerReferences":[{"kind":"ReplicaSet"}]}}`),
		"/api/v1/namespaces/shop": parse(t, `{"metadata":{"name":"shop"}}`),
		"/api/v1/nodes/rpi5":      parse(t, `{"metadata":{"name":"rpi5"}}`),
		"/api/v1/namespaces/kube-system/configmaps/own":          parse(t, `{"metadata":{"name":"own","namespace":"kube-system"}}`),
		"/api/v1/namespaces/default/configmaps/kube-root-ca.crt": parse(t, `{"metadata":{"name":"kube-root-ca.crt","namespace":"default"}}`),
		"/apis/batch/v1/namespaces/default/jobs/once":            parse(t, `{"metadata":{"name":"once","namespace":"default","labels":{"controller-uid":"7"}},"spec":{"selector":{"matchLabels":{"controller-uid":"7"}}},"status":{"active":1}}`),
		"/apis/batch/v1/namespaces/default/jobs/done":            parse(t, `{"metadata":{"name":"done","namespace":"default"},"status":{"completionTime":"2026-01-01T00:00:00Z"}}`),
		"/api/v1/persistentvolumes/disk":                         parse(t, `{"metadata":{"name":"disk"},"spec":{"claimRef":{"name":"data","namespace":"default","uid":"9","resourceVersion":"3"}}}`),
		"/api/v1/namespaces/default/persistentvolumeclaims/data": parse(t, `{"metadata":{"name":"data","namespace":"default","annotations":{"pv.kubernetes.io/bind-completed":"yes"}},"spec":{"volumeName":"disk"}}`),
	}}
	to := &fakeAPI{objects: map[string]object{
		apps + "both":            parse(t, `{"metadata":{"name":"both","namespace":"default"},"spec":{"replicas":5,"strategy":{}}}`),
		core + "configmaps/same": parse(t, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"same","namespace":"default"},"data":{"a":"b"}}`),
	}}
	a, b := serve(t, from), serve(t, to)
	for range 2 { // the second time nothing is new, and nothing is wrong
		h, err := HandOver(t.Context(), a, b, "beta/1")
		if err != nil {
			t.Fatal(err)
		}
		if h.Objects != 8 || !slices.Equal(h.Conflicts, []string{"Deployment default/both: another one is there"}) {
			t.Errorf("handed over %+v", h)
		}
	}
	if to.objects[apps+"both"]["spec"].(object)["replicas"] != 5.0 {
		t.Error("an object of the leader was changed")
	}
	for at, want := range map[string]string{
		apps + "web":          `{"replicas":2}`,
		core + "services/web": `{"ports":[{"port":80}]}`,
		"/apis/batch/v1/namespaces/default/jobs/once":            `{}`,
		"/api/v1/persistentvolumes/disk":                         `{"claimRef":{"name":"data","namespace":"default"}}`,
		"/api/v1/namespaces/default/persistentvolumeclaims/data": `{"volumeName":"disk"}`,
	} {
		o := to.objects[at]
		if o == nil || !reflect.DeepEqual(o["spec"], any(parse(t, want))) || o["status"] != nil || text(o, "metadata", "annotations", mergedFrom) != "beta/1" {
			t.Errorf("%s: %v", at, o)
		}
	}
	if o := to.objects["/api/v1/namespaces/default/persistentvolumeclaims/data"]; at(o, "metadata", "annotations", "pv.kubernetes.io/bind-completed") != nil {
		t.Error("the claim says that it is bound")
	}
	for _, gone := range []string{"/api/v1/nodes/rpi5", core + "pods/web-1", "/apis/batch/v1/namespaces/default/jobs/done", "/api/v1/namespaces/kube-system/configmaps/own"} {
		if to.objects[gone] != nil {
			t.Errorf("%s was handed over", gone)
		}
	}
}
