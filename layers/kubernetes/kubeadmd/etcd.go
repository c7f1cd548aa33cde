package kubeadmd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// EtcdCertificate and EtcdKey are a client's of etcd, made with the card of a
// control-plane node.
const (
	EtcdCertificate = "/etc/kubernetes/picube/etcd.crt"
	EtcdKey         = "/etc/kubernetes/picube/etcd.key"

	etcdAuthority = pkiDir + "/etcd/ca.crt"
	etcdData      = "/var/lib/etcd/member"
	etcdPort      = 2379
)

// etcdMember is a member as etcd's gRPC gateway tells it (etcd v3 API,
// Cluster.MemberList; a 64-bit number is a string in JSON).
type etcdMember struct {
	ID       string   `json:"ID"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peerURLs"`
	// IsLearner says that it has no vote yet.
	IsLearner bool `json:"isLearner"`
}

// isOf reports whether a member is a node, or was to become it.
func (m etcdMember) isOf(name, address string) bool {
	return m.Name == name || slices.Contains(m.PeerURLs, fmt.Sprintf("https://%s:2380", address))
}

// forget takes the member that this node was before its card was flashed anew
// out of etcd: nobody else can be it, and as long as it counts, a control
// plane of three that loses one more node has no majority.
func (e *Engine) forget(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(e.Root, etcdData)); err == nil {
		return nil // this node is still it
	}
	return e.others(ctx, func(client *http.Client, url, _ string, own []etcdMember) error {
		for _, old := range own {
			if err := post(ctx, client, url+"remove", map[string]string{"ID": old.ID}, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// votes reports whether this node is a member of etcd with a vote.
func (e *Engine) votes(ctx context.Context) bool {
	if _, err := os.Stat(filepath.Join(e.Root, etcdData)); err != nil {
		return false
	}
	votes := false
	err := e.others(ctx, func(_ *http.Client, _, _ string, own []etcdMember) error {
		votes = slices.ContainsFunc(own, func(m etcdMember) bool { return m.Name != "" && !m.IsLearner })
		return nil
	})
	return err == nil && votes
}

// others asks the other control-plane nodes, one after the other, for this
// node's own members of etcd, and hands what the first says to do, with the
// address of its gateway and the ID of etcd's cluster.
func (e *Engine) others(ctx context.Context, do func(client *http.Client, url, cluster string, own []etcdMember) error) error {
	address, err := nodeAddress(e.Node)
	if err != nil {
		return err
	}
	client, err := e.etcdClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	var errs []error
	for _, m := range e.Config.ControlPlane {
		if m.Name == e.Node.Hostname {
			continue
		}
		var list struct {
			Header struct {
				Cluster string `json:"cluster_id"`
			} `json:"header"`
			Members []etcdMember `json:"members"`
		}
		url := fmt.Sprintf("https://%s:%d/v3/cluster/member/", m.Address, etcdPort)
		// What one knows who lost touch with the others may be old.
		if err := post(ctx, client, url+"list", map[string]bool{"linearizable": true}, &list); err != nil {
			errs = append(errs, err)
			continue
		}
		return do(client, url, list.Header.Cluster, slices.DeleteFunc(list.Members, func(m etcdMember) bool { return !m.isOf(e.Node.Hostname, address) }))
	}
	return errors.Join(errs...)
}

func (e *Engine) etcdClient() (*http.Client, error) {
	pool, err := e.authority(etcdAuthority)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(e.Root, EtcdCertificate), filepath.Join(e.Root, EtcdKey))
	if err != nil {
		return nil, err
	}
	return &http.Client{Timeout: lookTimeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}}, nil
}

// post sends a question as JSON and reads the answer into answer, if wanted.
func post(ctx context.Context, client *http.Client, url string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", url, resp.Status)
	case answer == nil:
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// etcdURL is the node's own etcd.
func (e *Engine) etcdURL(call string) (string, error) {
	address, err := nodeAddress(e.Node)
	return fmt.Sprintf("https://%s:%d/v3/%s", address, etcdPort, call), err
}

// etcdStatus is what matters here of Maintenance.Status.
type etcdStatus struct {
	Header struct {
		Member   string `json:"member_id"`
		Revision int64  `json:"revision,string"`
	} `json:"header"`
	Leader string `json:"leader"`
}

// leads reports whether the node's member is the one that leads.
func (s etcdStatus) leads() bool { return s.Leader != "" && s.Leader == s.Header.Member }

func (e *Engine) etcdStatus(ctx context.Context, client *http.Client) (etcdStatus, error) {
	var s etcdStatus
	url, err := e.etcdURL("maintenance/status")
	if err != nil {
		return s, err
	}
	return s, post(ctx, client, url, struct{}{}, &s)
}

// etcdKeys is what KV.Range and KV.Txn answer with.
type etcdKeys struct {
	Values []struct {
		Value    []byte `json:"value"`
		Modified int64  `json:"mod_revision,string"`
	} `json:"kvs"`
	Count int64 `json:"count,string"`
}

// heartbeats are the keys of Kubernetes that change all the time though nobody
// changes anything, in the order of their names.
func heartbeats() []string {
	return []string{"/registry/events/", "/registry/leases/", "/registry/masterleases/", "/registry/minions/"}
}

// changes returns what is another one when anything was written to Kubernetes but
// heartbeats: the last revision and the number of keys between those.
func (e *Engine) changes(ctx context.Context, client *http.Client) (string, error) {
	url, err := e.etcdURL("kv/txn")
	if err != nil {
		return "", err
	}
	var ranges []any
	from := "/registry/"
	for _, next := range append(heartbeats(), "/registry0") { // "0" comes after "/"
		ranges = append(ranges, map[string]any{"request_range": map[string]any{
			"key": []byte(from), "range_end": []byte(next), "keys_only": true, "limit": "1",
			"sort_order": "DESCEND", "sort_target": "MOD",
		}})
		from = next[:len(next)-1] + "0"
	}
	var answer struct {
		Responses []struct {
			Range etcdKeys `json:"response_range"`
		} `json:"responses"`
	}
	if err := post(ctx, client, url, map[string]any{"success": ranges}, &answer); err != nil {
		return "", err
	}
	var modified, count int64
	for _, r := range answer.Responses {
		count += r.Range.Count
		for _, kv := range r.Range.Values {
			modified = max(modified, kv.Modified)
		}
	}
	return fmt.Sprintf("%d keys until %d", count, modified), nil
}

// eraKey is where a cluster keeps when it began. Every backup of it has it, and
// so what was restored from one.
const eraKey = "/picube/era"

// era returns when the cluster began, in seconds since 1970; where nobody wrote
// that down yet, it is now.
func (e *Engine) era(ctx context.Context, client *http.Client, now int64) (int64, error) {
	url, err := e.etcdURL("kv/")
	if err != nil {
		return 0, err
	}
	var answer etcdKeys
	if err := post(ctx, client, url+"range", map[string]any{"key": []byte(eraKey)}, &answer); err != nil {
		return 0, err
	}
	if len(answer.Values) > 0 {
		return strconv.ParseInt(string(answer.Values[0].Value), 10, 64)
	}
	value := strconv.AppendInt(nil, now, 10)
	return now, post(ctx, client, url+"put", map[string]any{"key": []byte(eraKey), "value": value}, nil)
}

// snapshot writes etcd's database to w as Maintenance.Snapshot sends it: in
// messages of JSON, the last of which is the hash of all others.
func (e *Engine) snapshot(ctx context.Context, client *http.Client, w io.Writer) error {
	url, err := e.etcdURL("maintenance/snapshot")
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	if err := copySnapshot(w, resp.Body); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// maxMessage bounds one message of a snapshot; etcd sends 32 KiB in each.
const maxMessage = 4 << 20

// copySnapshot takes the database out of the messages.
func copySnapshot(w io.Writer, r io.Reader) error {
	bounded := &io.LimitedReader{R: r}
	messages := json.NewDecoder(bounded)
	hash := sha256.New()
	var last []byte
	for {
		bounded.N = maxMessage
		var message struct {
			Result struct {
				Blob []byte `json:"blob"`
			} `json:"result"`
			Error *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		err := messages.Decode(&message)
		switch {
		case err == io.EOF && bounded.N > 0 && len(last) > 0 && bytes.Equal(last, hash.Sum(nil)):
			_, err = w.Write(last)
			return err
		case err == io.EOF:
			return errors.New("the snapshot is not whole")
		case err != nil:
			return err
		case message.Error != nil:
			return errors.New(message.Error.Message)
		}
		hash.Write(last)
		if _, err := w.Write(last); err != nil {
			return err
		}
		last = message.Result.Blob
	}
}
