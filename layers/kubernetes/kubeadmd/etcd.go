package kubeadmd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
}

// forget takes the member that this node was before its card was flashed anew
// out of etcd: nobody else can be it, and as long as it counts, a control
// plane of three that loses one more node has no majority.
func (e *Engine) forget(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(e.Root, etcdData)); err == nil {
		return nil // this node is still it
	}
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
			Members []etcdMember `json:"members"`
		}
		url := fmt.Sprintf("https://%s:%d/v3/cluster/member/", m.Address, etcdPort)
		if err := post(ctx, client, url+"list", struct{}{}, &list); err != nil {
			errs = append(errs, err)
			continue
		}
		own := fmt.Sprintf("https://%s:2380", address)
		for _, old := range list.Members {
			if old.Name != e.Node.Hostname && !slices.Contains(old.PeerURLs, own) {
				continue
			}
			if err := post(ctx, client, url+"remove", map[string]string{"ID": old.ID}, nil); err != nil {
				return err
			}
		}
		return nil
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
