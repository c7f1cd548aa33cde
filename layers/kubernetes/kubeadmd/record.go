package kubeadmd

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/merged"
)

// A cluster keeps its record in a ConfigMap of its own API; with it goes what a
// person wants of it, who may write that from any control-plane node.
const (
	recordPath  = "/api/v1/namespaces/kube-system/configmaps/picube-merge"
	configMaps  = "/api/v1/namespaces/kube-system/configmaps"
	eventsPath  = "/api/v1/namespaces/default/events"
	recordField = "record"
	orderField  = "order"
)

// mergeUser is who keeps the record and freezes: an administrator acts as this
// user, so that a cluster that takes no more writes from people takes these.
const mergeUser = "picube:merge"

// asMerge sends requests as mergeUser (Kubernetes' user impersonation).
type asMerge struct{ http.RoundTripper }

func (a asMerge) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Impersonate-User", mergeUser)
	r.Header.Set("Impersonate-Group", "system:masters")
	return a.RoundTripper.RoundTrip(r)
}

// apiTimeout bounds one call: an API server on a card under load answers late.
const apiTimeout = time.Minute

// APIOf returns the API of the control plane of a cube, as its administrator:
// all clusters of an identity know the same ones.
func (e *Engine) APIOf(cube string) (API, error) {
	members := e.cube(cube)
	if members == nil {
		return API{}, fmt.Errorf("cannot find the control plane of %q", cube)
	}
	return e.apiAt(members)
}

// apiAt returns the API of the first of some API servers that answers.
func (e *Engine) apiAt(members []Member) (API, error) {
	id := e.identityFor(members[0].Name)
	pool, err := e.authority(id.authority)
	if err != nil {
		return API{}, err
	}
	pair, err := e.pair(id.admin, AdminKey)
	if err != nil {
		return API{}, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout}
	return API{
		// Every API server has this among its names, whatever its address.
		URL: fmt.Sprintf("https://127.0.0.1:%d", APIPort),
		Client: &http.Client{Timeout: apiTimeout, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
			IdleConnTimeout: apiTimeout, MaxIdleConns: atOnce, MaxIdleConnsPerHost: atOnce,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var errs []error
				for _, m := range members {
					c, err := dialer.DialContext(ctx, network, fmt.Sprintf("%s:%d", m.Address, APIPort))
					if err == nil {
						return c, nil
					}
					errs = append(errs, err)
				}
				return nil, errors.Join(errs...)
			},
		}},
	}, nil
}

// asMerge returns the API as mergeUser sees it.
func (a API) asMerge() API {
	client := *a.Client
	client.Transport = asMerge{client.Transport}
	return API{URL: a.URL, Client: &client}
}

// RecordStore is the store of a cluster's record in its API.
type RecordStore struct {
	API API
	// New is the record of a cluster that has none yet, but for its ID, which is
	// made of Random.
	New    func(ctx context.Context) (merge.Record, error)
	Random io.Reader
}

// Load reads the record; where there is none yet, it makes it.
func (s RecordStore) Load(ctx context.Context) (merged.Kept, error) {
	var k merged.Kept
	o, err := s.API.asMerge().read(ctx, recordPath)
	if err == nil && o == nil {
		if o, err = s.create(ctx); err == nil && o == nil {
			return k, merged.ErrChanged
		}
	}
	if err != nil {
		return k, fmt.Errorf("the cluster's record: %w", err)
	}
	err = json.Unmarshal([]byte(text(o, "data", recordField)), &k.Record)
	if err == nil && k.Record.ID == "" {
		err = errors.New("cannot find its id")
	}
	if err != nil {
		return k, fmt.Errorf("the cluster's record: ConfigMap kube-system/picube-merge: %w", err)
	}
	k.Order, k.Revision = merge.Order(text(o, "data", orderField)), text(o, "metadata", "resourceVersion")
	return k, nil
}

func (s RecordStore) create(ctx context.Context) (object, error) {
	r, err := s.New(ctx)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 8)
	if _, err := io.ReadFull(s.Random, id); err != nil {
		return nil, err
	}
	r.ID, r.Version, r.Term, r.Phase = hex.EncodeToString(id), 1, 1, merge.Alone
	return s.write(ctx, http.MethodPost, configMaps, merged.Kept{Record: r})
}

// Save replaces what was read.
func (s RecordStore) Save(ctx context.Context, k merged.Kept) error {
	o, err := s.write(ctx, http.MethodPut, recordPath, k)
	if err != nil {
		return fmt.Errorf("the cluster's record: %w", err)
	}
	if o == nil {
		return merged.ErrChanged
	}
	return nil
}

// write returns nothing where somebody else was quicker.
func (s RecordStore) write(ctx context.Context, method, path string, k merged.Kept) (object, error) {
	record, err := json.Marshal(k.Record)
	if err != nil {
		return nil, err
	}
	meta := object{"name": "picube-merge", "namespace": "kube-system"}
	if k.Revision != "" {
		meta["resourceVersion"] = k.Revision
	}
	o := object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": object{recordField: string(record), orderField: string(k.Order)}}
	code, answer, err := s.API.asMerge().send(ctx, method, path, o)
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusConflict || code == http.StatusNotFound:
		return nil, nil
	case code/100 != 2:
		return nil, fmt.Errorf("%d %s", code, message(answer))
	}
	return o, json.Unmarshal(answer, &o)
}

// order leaves a person's word for the control plane.
func (s RecordStore) order(ctx context.Context, o merge.Order) (merge.Record, error) {
	for {
		k, err := s.Load(ctx)
		if err != nil || o == merge.None {
			return k.Record, err
		}
		k.Order = o
		if err := s.Save(ctx, k); !errors.Is(err, merged.ErrChanged) {
			return k.Record, err
		}
	}
}

// send sends an object as JSON.
func (a API) send(ctx context.Context, method, path string, o object) (code int, answer []byte, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, nil, err
	}
	return a.do(ctx, method, path, "application/json", body)
}

// tell leaves an event about a node, where "kubectl get events" shows it.
func (a API) tell(ctx context.Context, node, reason, words string, now time.Time) error {
	at := now.UTC().Format(time.RFC3339)
	kind := "Normal"
	if reason == reasonConflict {
		kind = "Warning"
	}
	code, answer, err := a.asMerge().send(ctx, http.MethodPost, eventsPath, object{
		"apiVersion": "v1", "kind": "Event",
		"metadata":       object{"generateName": "picube-merge-", "namespace": "default"},
		"involvedObject": object{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
		"reason":         reason, "message": words[:min(len(words), 1000)], "type": kind, "count": 1,
		"firstTimestamp": at, "lastTimestamp": at, "source": object{"component": "picube"},
	})
	if err == nil && code/100 != 2 {
		err = fmt.Errorf("event: %d %s", code, message(answer))
	}
	return err
}

// Reasons of events.
const (
	reasonMerge    = "ClusterMerge"
	reasonConflict = "ClusterMergeConflict"
)

// nodes returns a cluster's nodes and whether they are ready, by name.
func (a API) nodes(ctx context.Context) (map[string]bool, error) {
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := a.get(ctx, "/api/v1/nodes", &list); err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, n := range list.Items {
		out[n.Metadata.Name] = n.ready()
	}
	return out, nil
}

// addresses returns where a cluster's nodes are, by name.
func (a API) addresses(ctx context.Context) (map[string]netip.Addr, error) {
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := a.get(ctx, "/api/v1/nodes", &list); err != nil {
		return nil, err
	}
	out := map[string]netip.Addr{}
	for _, n := range list.Items {
		out[n.Metadata.Name], _ = n.address()
	}
	return out, nil
}

// deleteNode removes a node that is of another cluster now.
func (a API) deleteNode(ctx context.Context, name string) error {
	code, answer, err := a.asMerge().do(ctx, http.MethodDelete, "/api/v1/nodes/"+name, "", nil)
	if err == nil && code/100 != 2 && code != http.StatusNotFound {
		err = fmt.Errorf("%d %s", code, message(answer))
	}
	if err != nil {
		return fmt.Errorf("node %s: cannot delete it: %w", name, err)
	}
	return nil
}

// evacuate removes a node that left, and its pods: what they did others do at
// once, and not after the minutes for which a silent node is waited for.
func (a API) evacuate(ctx context.Context, name string) error {
	pods, err := a.items(ctx, "/api/v1/pods?fieldSelector=spec.nodeName%3D"+name)
	if err != nil {
		return err
	}
	if err := a.deleteNode(ctx, name); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, p := range pods {
		group.Go(func() error {
			path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s?gracePeriodSeconds=0", text(p, "metadata", "namespace"), text(p, "metadata", "name"))
			code, answer, err := a.asMerge().do(ctx, http.MethodDelete, path, "", nil)
			if err == nil && code/100 != 2 && code != http.StatusNotFound {
				err = fmt.Errorf("%d %s", code, message(answer))
			}
			if err != nil {
				return fmt.Errorf("pod %s: cannot delete it: %w", text(p, "metadata", "name"), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// MergeOrder leaves a person's word where the node's cluster, or the node alone
// while it is away, obeys it. It returns the cluster's record.
func (e *Engine) MergeOrder(ctx context.Context, s RecordStore, o merge.Order) (merge.Record, error) {
	m, err := e.Membership()
	if err != nil {
		return merge.Record{}, err
	}
	cube, forget := strings.CutPrefix(string(o), string(merge.Forget))
	if forget && m.Cluster == m.Home {
		kept, err := s.Load(ctx)
		if err != nil {
			return merge.Record{}, err
		}
		if !slices.ContainsFunc(kept.Record.Guests, func(g merge.Guest) bool { return g.Cube == cube && g.State == merge.Absorbed }) {
			return merge.Record{}, fmt.Errorf("cannot find a cluster of %q that became part of this one", cube)
		}
	}
	if m.Cluster == m.Home || o == merge.None {
		return s.order(ctx, o)
	}
	if o == merge.Merge || forget {
		return merge.Record{}, fmt.Errorf("its cluster is part of the cluster of %s", m.Cube)
	}
	return merge.Record{}, e.Order(o)
}

// keptSnapshots is how many copies of the state a control-plane node keeps of
// its own, one for each of the last merges.
const keptSnapshots = 2

// Where they lie, sealed like backups, and the term of the newest.
const (
	snapshotsDir = stateDir + "/merge"
	snapshotTerm = snapshotsDir + "/term"
)

// keepSnapshot keeps a copy of the state here and, where there are any, with
// workers.
func (e *Engine) keepSnapshot(ctx context.Context, r merge.Record) error {
	client, err := e.etcdClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	status, err := e.etcdStatus(ctx, client)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	b := Backup{Era: r.Born, Revision: status.Header.Revision, Time: e.Now().Unix()}
	key, err := e.sealKey(b.String())
	if err != nil {
		return err
	}
	dir := filepath.Join(e.Root, snapshotsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, unfinished+"*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = e.pour(ctx, client, key, tmp)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := errors.Join(os.Rename(tmp.Name(), filepath.Join(dir, b.String())), syncDir(dir)); err != nil {
		return err
	}
	e.dropSnapshots(dir)
	if len(e.workers()) > 0 {
		if _, err := e.TakeBackup(ctx); err != nil {
			e.Say("the snapshot is kept here only: " + err.Error())
		}
	}
	return e.write(snapshotTerm, fmt.Appendf(nil, "%s %d", r.ID, r.Term))
}

// dropSnapshots removes all but the newest, and what was left half-way.
func (e *Engine) dropSnapshots(dir string) {
	v := vault{dir: dir}
	v.tidy()
	all, _ := v.list()
	slices.SortFunc(all, func(a, b held) int { return int(b.Name.Time - a.Name.Time) })
	for _, h := range all[min(len(all), keptSnapshots):] {
		_ = os.Remove(filepath.Join(dir, h.Name.String()))
	}
}

// snapshotOf returns the term in which the node kept a copy of a cluster's state.
func (e *Engine) snapshotOf(id string) uint64 {
	text, err := os.ReadFile(filepath.Join(e.Root, snapshotTerm))
	if err != nil {
		return 0
	}
	var term uint64
	if _, err := fmt.Sscanf(strings.TrimPrefix(string(text), id), " %d", &term); err != nil {
		return 0
	}
	return term
}
