package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v3"
)

// maxNodes bounds what is taken from an API.
const maxNodes = 64 << 20

// kubernetesNode is a node as its cluster sees it.
type kubernetesNode struct {
	Ready   bool   `json:"ready"`
	Role    string `json:"role"` // "control-plane" or "worker"
	Version string `json:"version"`
}

// clusterReport is what one cluster says of its nodes.
type clusterReport struct {
	name  string   // its context in the kubeconfig
	home  string   // the cube that begins it; empty: all that begin none
	cubes []string // whose folders have its kubeconfig
	nodes []clusterNode
	err   string
}

type clusterNode struct {
	name, zone string
	kubernetesNode
}

// askClusters asks each cluster once whose kubeconfig lies beside the cards.
func askClusters(ctx context.Context, sshConfigs []string, doors []door, patience time.Duration, dial dial) []clusterReport {
	var reports []clusterReport
	cubes := map[string][]string{} // by the kubeconfig's content
	var texts []string
	for _, file := range sshConfigs {
		dir := filepath.Dir(file)
		text, err := readBounded(filepath.Join(dir, "kubeconfig"))
		if err != nil {
			continue // a cube without Kubernetes
		}
		if cubes[string(text)] == nil {
			texts = append(texts, string(text))
		}
		cubes[string(text)] = append(cubes[string(text)], filepath.Base(dir))
	}
	for _, text := range texts {
		var config kubeconfig
		err := yaml.Unmarshal([]byte(text), &config)
		if err == nil && (len(config.Clusters) == 0 || len(config.Users) == 0) {
			err = errors.New("cannot find a cluster in its kubeconfig")
		}
		if err != nil {
			reports = append(reports, clusterReport{cubes: cubes[text], err: err.Error()})
			continue
		}
		for i := range config.Clusters {
			r := clusterReport{name: config.Clusters[i].Name, cubes: cubes[text]}
			if i > 0 {
				r.home = strings.TrimPrefix(r.name, config.Clusters[0].Name+"-")
			}
			reports = append(reports, r)
		}
		var g errgroup.Group
		for i := range config.Clusters {
			r := &reports[len(reports)-len(config.Clusters)+i]
			g.Go(func() error {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				var err error
				if r.nodes, err = askCluster(ctx, config, i, doors, dial); err != nil {
					r.err = plain(err).Error()
				}
				return nil
			})
		}
		_ = g.Wait()
	}
	return reports
}

// kubeconfig is what the build writes of one.
type kubeconfig struct {
	Clusters []struct {
		Name    string `yaml:"name"`
		Cluster struct {
			Server    string    `yaml:"server"`
			Authority base64PEM `yaml:"certificate-authority-data"`
		} `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		User struct {
			Certificate base64PEM `yaml:"client-certificate-data"`
			Key         base64PEM `yaml:"client-key-data"`
		} `yaml:"user"`
	} `yaml:"users"`
}

type base64PEM []byte

// UnmarshalYAML decodes it.
func (b *base64PEM) UnmarshalYAML(n *yaml.Node) (err error) {
	*b, err = base64.StdEncoding.DecodeString(n.Value)
	return err
}

func askCluster(ctx context.Context, config kubeconfig, i int, doors []door, dial dial) ([]clusterNode, error) {
	cluster := config.Clusters[i].Cluster
	server, err := url.Parse(cluster.Server)
	if err != nil {
		return nil, err
	}
	user := config.Users[0].User
	pair, err := tls.X509KeyPair(user.Certificate, user.Key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cluster.Authority)
	hosts := []string{server.Hostname()}
	if i := slices.IndexFunc(doors, func(d door) bool { return slices.Contains(d.hosts, server.Hostname()) }); i >= 0 {
		hosts = doors[i].hosts
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialAny(ctx, dial, hosts, server.Port())
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.JoinPath("/api/v1/nodes").String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API answers %s", resp.Status)
	}
	return readNodes(io.LimitReader(resp.Body, maxNodes))
}

// readNodes reads a NodeList (core/v1).
func readNodes(r io.Reader) ([]clusterNode, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name   string            `json:"name"`
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
			Status struct {
				Conditions []struct {
					Type   string `json:"type"`
					Status string `json:"status"`
				} `json:"conditions"`
				NodeInfo struct {
					Version string `json:"kubeletVersion"`
				} `json:"nodeInfo"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := json.NewDecoder(r).Decode(&list); err != nil {
		return nil, fmt.Errorf("the API's answer: %w", err)
	}
	var out []clusterNode
	for _, item := range list.Items {
		n := clusterNode{name: item.Metadata.Name, zone: item.Metadata.Labels["topology.kubernetes.io/zone"]}
		n.Version, n.Role = strings.TrimPrefix(item.Status.NodeInfo.Version, "v"), "worker"
		if _, ok := item.Metadata.Labels["node-role.kubernetes.io/control-plane"]; ok {
			n.Role = "control-plane"
		}
		for _, c := range item.Status.Conditions {
			n.Ready = n.Ready || c.Type == "Ready" && c.Status == "True"
		}
		out = append(out, n)
	}
	return out, nil
}
