// Package kubeadmd makes a node part of a Kubernetes cluster with kubeadm and
// the kubelet: what a control-plane node and a worker run with, and the steps
// by which they get there.
package kubeadmd

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/picube/picube-build/layers/nodeconf"
)

// Section is the name of the layer's part of node.yaml.
const Section = "kubernetes"

// Config is that part: what the node must know of its cluster. Secrets are
// files beside it.
type Config struct {
	Version       string            `yaml:"version"` // "v1.34.4"
	PauseImage    string            `yaml:"pauseImage"`
	PodSubnet     string            `yaml:"podSubnet"`
	ServiceSubnet string            `yaml:"serviceSubnet"`
	ControlPlane  []Member          `yaml:"controlPlane"` // the first may begin the cluster
	Labels        map[string]string `yaml:"labels,omitempty"`
	Taints        []string          `yaml:"taints,omitempty"` // "key=value:Effect"
	KubeletArgs   map[string]string `yaml:"kubeletArgs,omitempty"`
	APIServerArgs map[string]string `yaml:"apiServerArgs,omitempty"`
	EtcdImage     string            `yaml:"etcdImage,omitempty"` // on control-plane nodes
	Backups       Backups           `yaml:"backups,omitempty"`
	// Cubes are those that begin clusters of their own, by name, the node's own
	// included; none: there is one cluster.
	Cubes []Cube `yaml:"cubes,omitempty"`
	Merge Merge  `yaml:"merge,omitempty"`
	// Home is the one of Cubes to whose cluster the node belongs at first;
	// ControlPlane is that cube's.
	Home string `yaml:"home,omitempty"`
}

// Cube is one that began a cluster of its own.
type Cube struct {
	Name         string   `yaml:"name"`
	ControlPlane []Member `yaml:"controlPlane"`
}

// Merge says how clusters of one identity that meet become one.
type Merge struct {
	Mode string `yaml:"mode"`           // "auto", "ask" or "off"
	Lead string `yaml:"lead,omitempty"` // the cube whose cluster leads; empty: the eldest
}

// Backups are of etcd, left with workers.
type Backups struct {
	Every time.Duration `yaml:"every"` // "1h0m0s"; 0: never
	Keep  int           `yaml:"keep"`  // by each worker
}

// Member is a control-plane node.
type Member struct {
	Name    string `yaml:"name"`
	Address string `yaml:"address"`
}

// Ports of the API: the server's own, and that of every node's proxy to it.
const (
	APIPort   = 6443
	ProxyPort = 7443
)

// endpoint is what everything on a node calls the API: its own proxy.
func endpoint() string { return fmt.Sprintf("127.0.0.1:%d", ProxyPort) }

// Where kubeadm and the kubelet look.
const (
	pkiDir         = "/etc/kubernetes/pki"
	kubeletConf    = "/etc/kubernetes/kubelet.conf"
	kubeletConfig  = "/var/lib/kubelet/config.yaml"
	kubeletDefault = "/etc/default/kubelet"
	proxyConfig    = "/etc/kubernetes/kube-proxy.yaml"
	// NodeCertificate and NodeKey are the node's own, made with the card.
	NodeCertificate = "/etc/kubernetes/picube/node.crt"
	NodeKey         = "/etc/kubernetes/picube/node.key"
	// AuthorityCertificate is the public half of the cluster's authority.
	AuthorityCertificate = pkiDir + "/ca.crt"
	// nodeConfig is the kubeconfig of the node itself, AdminConfig that of the
	// control plane's own administration, made with the card.
	nodeConfig       = "/etc/kubernetes/picube/node.conf"
	AdminConfig      = "/etc/kubernetes/picube/admin.conf"
	AdminCertificate = "/etc/kubernetes/picube/admin.crt"
	AdminKey         = "/etc/kubernetes/picube/admin.key"
	// resolvConf is what the kubelet gives pods that use the node's resolver.
	resolvConf   = "/etc/kubernetes/picube/resolv.conf"
	resolvedConf = "/etc/systemd/resolved.conf.d/picube-kubernetes.conf"
	// Manifests is where objects lie that the cluster gets when it begins.
	Manifests = "/usr/lib/picube/manifests"

	patchDir    = stateDir + "/patches"
	clusterInfo = stateDir + "/cluster-info.yaml"
	stateDir    = nodeconf.StateDir + "/kubernetes"
	criSocket   = "unix:///run/containerd/containerd.sock"
)

// document is one YAML document; keys come out sorted.
type document = map[string]any

func documents(docs ...document) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, d := range docs {
		if err := enc.Encode(d); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), enc.Close()
}

// args is kubeadm's form of a component's further arguments.
func args(sets ...map[string]string) []document {
	all := map[string]string{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	var out []document
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, document{"name": name, "value": all[name]})
	}
	return out
}

// election are the times of leader election. One control-plane node needs no
// election, and renewing a lease every two seconds is work and wear; with
// three, a card that writes slowly must not lose what it leads. A cluster that may
// spread over cubes has it from the beginning: those that join later do as the
// first one does.
func (c Config) election() map[string]string {
	if len(c.ControlPlane) == 1 && len(c.Cubes) < spreadCubes {
		return map[string]string{"leader-elect": "false"}
	}
	return map[string]string{
		"leader-elect":                "true",
		"leader-elect-lease-duration": "120s",
		"leader-elect-renew-deadline": "90s",
		"leader-elect-retry-period":   "15s",
	}
}

// DNS returns the address of the cluster's name server: the tenth of the
// service network, as kubeadm has it.
func (c Config) DNS() (netip.Addr, error) {
	p, err := netip.ParsePrefix(c.ServiceSubnet)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("serviceSubnet: %w", err)
	}
	a := p.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	if !p.Contains(a) {
		return netip.Addr{}, fmt.Errorf("serviceSubnet: cannot hold a name server: %s is too small", p)
	}
	return a, nil
}

// kubelet is the configuration of every node's kubelet
// (kubelet.config.k8s.io/v1beta1).
// authority is the certificate of those who may ask it.
func (c Config) kubelet(authority string) (document, error) {
	dns, err := c.DNS()
	if err != nil {
		return nil, err
	}
	return document{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"cgroupDriver":             "systemd",
		"clusterDNS":               []string{dns.String()},
		"clusterDomain":            "cluster.local",
		"containerRuntimeEndpoint": criSocket,
		"resolvConf":               resolvConf,
		"rotateCertificates":       false,
		"staticPodPath":            "/etc/kubernetes/manifests",
		"authentication": document{
			"anonymous": document{"enabled": false},
			"webhook":   document{"enabled": true},
			"x509":      document{"clientCAFile": authority},
		},
		"authorization": document{"mode": "Webhook"},
		// A board of 1 GiB may have compressed swap; pods do not use it.
		"failSwapOn": false,
		// Everything a card writes wears it: status less often, logs bounded.
		"nodeStatusReportFrequency":        "1m",
		"nodeStatusUpdateFrequency":        "10s",
		"containerLogMaxSize":              "5Mi",
		"containerLogMaxFiles":             2,
		"imageGCHighThresholdPercent":      90,
		"imageGCLowThresholdPercent":       85,
		"runtimeRequestTimeout":            "10m",
		"shutdownGracePeriod":              "30s",
		"shutdownGracePeriodCriticalPods":  "10s",
		"volumeStatsAggPeriod":             "5m",
		"serializeImagePulls":              true,
		"evictionPressureTransitionPeriod": "1m",
		"evictionHard": document{
			"memory.available": "50Mi", "nodefs.available": "5%", "imagefs.available": "5%", "nodefs.inodesFree": "3%",
		},
	}, nil
}

// Kubeadm returns the file that "kubeadm init" or "kubeadm join" of a
// control-plane node is given (kubeadm.k8s.io/v1beta4).
func (c Config) Kubeadm(n *nodeconf.Node, join bool) ([]byte, error) {
	address, err := nodeAddress(n)
	if err != nil {
		return nil, err
	}
	kubelet, err := c.kubelet(AuthorityCertificate)
	if err != nil {
		return nil, err
	}
	registration := document{
		"name":             n.Hostname,
		"criSocket":        criSocket,
		"imagePullPolicy":  "IfNotPresent",
		"kubeletExtraArgs": args(c.kubeletArgs(n, address)),
		"taints":           taints(c.Taints),
	}
	// A card answers slowly; who gives up early only has to begin again.
	timeouts := document{
		"controlPlaneComponentHealthCheck": "20m0s",
		"kubeletHealthCheck":               "10m0s",
		"kubernetesAPICall":                "5m0s",
		"etcdAPICall":                      "5m0s",
		"discovery":                        "10m0s",
		"tlsBootstrap":                     "10m0s",
	}
	const version = "kubeadm.k8s.io/v1beta4"
	if join {
		return documents(document{
			"apiVersion": version, "kind": "JoinConfiguration",
			"nodeRegistration": registration, "timeouts": timeouts,
			"patches":      document{"directory": patchDir},
			"controlPlane": document{"localAPIEndpoint": document{"advertiseAddress": address, "bindPort": APIPort}},
			"discovery":    document{"file": document{"kubeConfigPath": AdminConfig}},
		})
	}
	return documents(
		document{
			"apiVersion": version, "kind": "InitConfiguration",
			"nodeRegistration": registration, "timeouts": timeouts,
			"patches":          document{"directory": patchDir},
			"localAPIEndpoint": document{"advertiseAddress": address, "bindPort": APIPort},
		},
		document{
			"apiVersion": version, "kind": "ClusterConfiguration",
			"clusterName": n.Cluster,
			// Nobody looks after a cube once a year.
			"certificateValidityPeriod": "87600h",
			"kubernetesVersion":         c.Version,
			"controlPlaneEndpoint":      endpoint(),
			"encryptionAlgorithm":       "ECDSA-P256",
			"networking":                document{"podSubnet": c.PodSubnet, "serviceSubnet": c.ServiceSubnet, "dnsDomain": "cluster.local"},
			"apiServer":                 document{"certSANs": c.names(), "extraArgs": args(apiServer(), c.APIServerArgs)},
			"controllerManager": document{"extraArgs": args(c.election(), map[string]string{
				"allocate-node-cidrs": "true", "node-cidr-mask-size": "24",
			})},
			"scheduler": document{"extraArgs": args(c.election())},
			"etcd":      document{"local": document{"dataDir": "/var/lib/etcd", "extraArgs": args(etcd())}},
		},
		kubelet,
	)
}

// apiServer is what the API server does with less on a small board. Without
// priorities and fairness the two limits alone hold: fair queues for the few
// clients of a cube are a good part of what a starting API server computes.
// Nor does anybody here read how many objects etcd has of a hundred kinds, which
// is asked every minute otherwise. And an etcd that answers after three seconds is
// slow, not gone.
func apiServer() map[string]string {
	return map[string]string{
		"etcd-healthcheck-timeout":       "1m0s",
		"etcd-readycheck-timeout":        "1m0s",
		"etcd-count-metric-poll-period":  "10m0s",
		"enable-priority-and-fairness":   "false",
		"max-requests-inflight":          "100",
		"max-mutating-requests-inflight": "50",
		"event-ttl":                      "30m0s",
		"profiling":                      "false",
	}
}

// etcd's times in milliseconds: a write to a card takes what a network does
// elsewhere. Fewer snapshots are fewer writes, and so is not to log each request
// that took a tenth of a second: a megabyte in a quarter of an hour on an emulated board.
func etcd() map[string]string {
	return map[string]string{
		"heartbeat-interval":        "500",
		"election-timeout":          "5000",
		"snapshot-count":            "5000",
		"log-level":                 "warn",
		"quota-backend-bytes":       "1073741824",
		"auto-compaction-retention": "1h",
	}
}

// names are what the API server's certificate must answer to: whatever a
// laptop, another node or a pod may call it.
func (c Config) names() []string {
	names := []string{"127.0.0.1", "localhost"}
	for _, m := range c.ControlPlane {
		names = append(names, m.Name, m.Name+".local", m.Address)
	}
	// Those of other cubes may become members when clusters are one.
	for _, cube := range c.Cubes {
		for _, m := range cube.ControlPlane {
			if !slices.Contains(c.ControlPlane, m) {
				names = append(names, m.Name, m.Name+".local", m.Address)
			}
		}
	}
	return names
}

// spreadCubes is how many cubes with clusters of their own it takes until the
// control plane of all of them may spread.
const spreadCubes = 3

func (c Config) kubeletArgs(n *nodeconf.Node, address string) map[string]string {
	labels := []string{"topology.kubernetes.io/zone=" + n.Cube}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		labels = append(labels, k+"="+c.Labels[k])
	}
	own := map[string]string{
		"node-ip": address, "hostname-override": n.Hostname, "node-labels": strings.Join(labels, ","),
	}
	maps.Copy(own, c.KubeletArgs)
	return own
}

// taints turns "key=value:Effect" into objects; none means none, where
// kubeadm would keep ordinary pods off the control plane of a cube that is
// small enough as it is.
func taints(list []string) []document {
	out := []document{}
	for _, t := range list {
		pair, effect, _ := strings.Cut(t, ":")
		key, value, _ := strings.Cut(pair, "=")
		d := document{"key": key, "effect": effect}
		if value != "" {
			d["value"] = value
		}
		out = append(out, d)
	}
	return out
}

func nodeAddress(n *nodeconf.Node) (string, error) {
	p, err := netip.ParsePrefix(n.Network.Address)
	if err != nil {
		return "", fmt.Errorf("node.yaml: network: address: %w", err)
	}
	return p.Addr().String(), nil
}

// Patches are changes to the static pods that kubeadm writes, by file name:
// a card under load is slow, not dead.
func Patches() map[string]string {
	const probes = `spec:
  containers:
  - name: %s
    livenessProbe: {timeoutSeconds: 60, periodSeconds: 30, failureThreshold: 20, initialDelaySeconds: 120}
    startupProbe: {timeoutSeconds: 60, periodSeconds: 10, failureThreshold: 180}
%s`
	const ready = "    readinessProbe: {timeoutSeconds: 60, periodSeconds: 10, failureThreshold: 6}\n"
	// kubeadm 1.34 has the scheduler asked every second, each time with a new TLS
	// handshake. All of the probe stands here, for a version that does not ask.
	const schedulerReady = `    readinessProbe:
      httpGet: {host: 127.0.0.1, path: /readyz, port: 10259, scheme: HTTPS}
      timeoutSeconds: 60
      periodSeconds: 10
      failureThreshold: 6
`
	// What is requested is each one's part of a processor that has too much to do.
	// All others wait for etcd, and try again when it is late, but kubeadm's part for
	// it is the smallest.
	const share = "    resources: {requests: {cpu: 200m}}\n"
	return map[string]string{
		"kube-apiserver+strategic.yaml":          fmt.Sprintf(probes, "kube-apiserver", ready),
		"kube-controller-manager+strategic.yaml": fmt.Sprintf(probes, "kube-controller-manager", ""),
		"kube-scheduler+strategic.yaml":          fmt.Sprintf(probes, "kube-scheduler", schedulerReady),
		"etcd+strategic.yaml":                    fmt.Sprintf(probes, "etcd", ready+share),
	}
}

// KubeConfig returns a kubeconfig whose user has a certificate in files.
func KubeConfig(server, user, authority, certificate, key string) ([]byte, error) {
	return documents(document{
		"apiVersion": "v1", "kind": "Config", "current-context": "picube",
		"clusters": []document{{"name": "picube", "cluster": document{"server": server, "certificate-authority": authority}}},
		"users":    []document{{"name": user, "user": document{"client-certificate": certificate, "client-key": key}}},
		"contexts": []document{{"name": "picube", "context": document{"cluster": "picube", "user": user}}},
	})
}

// KubeProxy is the configuration of every node's kube-proxy
// (kubeproxy.config.k8s.io/v1alpha1).
func (c Config) KubeProxy(n *nodeconf.Node) ([]byte, error) {
	return documents(document{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "iptables",
		"clusterCIDR":        c.PodSubnet,
		"hostnameOverride":   n.Hostname,
		"clientConnection":   document{"kubeconfig": nodeConfig},
		"conntrack":          document{"maxPerCore": 0},
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
	})
}
