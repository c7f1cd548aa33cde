package kubeadmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/picube/picube-build/layers/cluster/joind"
)

// maxAnswer bounds what is taken from the API: a node of it is some kilobytes.
const maxAnswer = 64 << 20

// Network is the cluster's state as one node sees and follows it.
type Network struct {
	Engine *Engine
	// Apply brings the kernel's routes and the pods' network to what the
	// cluster says.
	Apply func(Routes) error

	client *http.Client
	silent int // times that no API answered
}

// Routes are where pods are.
type Routes struct {
	Own   netip.Prefix                // of this node's pods; zero until the cluster gave one
	Nodes map[netip.Prefix]netip.Addr // other nodes' pods, and the way to them
}

// nodeObject is the part of a Node object that matters here (core/v1).
type nodeObject struct {
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		PodCIDR string `json:"podCIDR"`
	} `json:"spec"`
	Status struct {
		Addresses []struct {
			Type    string `json:"type"`
			Address string `json:"address"`
		} `json:"addresses"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

func (n nodeObject) ready() bool {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

func (n nodeObject) address() (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if a.Type == "InternalIP" {
			addr, err := netip.ParseAddr(a.Address)
			return addr, err == nil
		}
	}
	return netip.Addr{}, false
}

// tlsConfig trusts an identity's authority alone and shows the node's certificate
// of it.
func (e *Engine) tlsConfig(id identity) (*tls.Config, error) {
	pool, err := e.authority(id.authority)
	if err != nil {
		return nil, err
	}
	pair, err := e.pair(id.node, NodeKey)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// authority reads an authority's certificate.
func (e *Engine) authority(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(filepath.Join(e.Root, name))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: cannot find a certificate in it", name)
	}
	return pool, nil
}

// Look asks the other control-plane nodes what they are, and whether one serves
// this cluster. All are known by their certificates.
func (n *Network) Look(ctx context.Context) joind.Sight {
	var sight joind.Sight
	conf, err := n.Engine.tlsConfig(n.Engine.present())
	if err != nil {
		return sight
	}
	before := true
	for _, m := range n.Engine.Config.ControlPlane {
		if m.Name == n.Engine.Node.Hostname {
			before = false
			continue
		}
		if p, err := n.Engine.ask(ctx, m); err == nil {
			sight.Reachable++
			switch {
			case p.Member && n.Engine.isWith(p):
				sight.Members++
			case before:
				sight.Before++
			}
		}
		client := &http.Client{Timeout: lookTimeout, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		_, err := get(ctx, client, fmt.Sprintf("https://%s:%d/readyz", m.Address, APIPort))
		sight.Serves = sight.Serves || err == nil
		if errors.As(err, &x509.UnknownAuthorityError{}) {
			sight.Stranger = m.Address
		}
	}
	if sight.Members == 0 && !sight.Serves {
		sight.Changed = errors.Is(n.Engine.findSeats(ctx), joind.ErrChanged)
	}
	return sight
}

// lookTimeout is for one question to a control plane, which on a card may have
// much to do.
const lookTimeout = time.Minute

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("%s: answer is larger than %d bytes", url, maxAnswer)
	}
	return data, nil
}

// lookElsewhere is how often no API answers before the node asks for others.
const lookElsewhere = 10

// Follow reads the cluster's nodes and applies the routes to their pods.
func (n *Network) Follow(ctx context.Context) (joind.View, error) {
	if n.client == nil {
		conf, err := n.Engine.tlsConfig(n.Engine.present())
		if err != nil {
			return joind.View{}, err
		}
		n.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: conf}}
	}
	data, err := get(ctx, n.client, "https://"+endpoint()+"/api/v1/nodes")
	if err != nil {
		if n.silent++; n.silent%lookElsewhere == 0 {
			err = errors.Join(err, n.Engine.findSeats(ctx))
		}
		return joind.View{}, err
	}
	var list struct {
		Items []nodeObject `json:"items"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return joind.View{}, fmt.Errorf("nodes: %w", err)
	}
	if err := n.Engine.observe(ctx, list.Items); err != nil {
		return joind.View{}, err
	}
	view, routes := read(list.Items, n.Engine.Node.Hostname)
	return view, n.Apply(routes)
}

// read takes from a list of nodes what the named one must know.
func read(nodes []nodeObject, own string) (joind.View, Routes) {
	view := joind.View{Nodes: len(nodes)}
	routes := Routes{Nodes: map[netip.Prefix]netip.Addr{}}
	for _, item := range nodes {
		ready := item.ready()
		if ready {
			view.NodesReady++
		}
		pods, err := netip.ParsePrefix(item.Spec.PodCIDR)
		if item.Metadata.Name == own {
			view.Registered, view.Ready = true, ready
			if err == nil {
				routes.Own = pods
			}
			continue
		}
		if address, ok := item.address(); ok && err == nil {
			routes.Nodes[pods] = address
		}
	}
	return view, routes
}

// bridge is the device between a node's pods.
const bridge = "cni0"

// CNI is the network of a node's pods (CNI specification 1.0): a bridge with
// addresses from the node's share.
func CNI(pods netip.Prefix) ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": "picube",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false, "hairpinMode": true, "promiscMode": false,
				"ipam": map[string]any{
					"type": "host-local", "ranges": []any{[]any{map[string]any{"subnet": pods.String()}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		},
	}, "", "  ")
}
