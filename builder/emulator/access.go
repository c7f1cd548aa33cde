package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"
)

// access is the files that let the host's programs in while machines run.
type access []string

// accessSuffix is what their names end in, beside the cards' own.
const accessSuffix = ".emulator"

// giveAccess opens a port of the host for each node's ssh, and one for the
// API, and writes variants of the cubes' ssh_config and kubeconfig that lead
// there, each beside its own. Below dir lies a folder per cube.
func giveAccess(e *Emulator, dir string) (access, error) {
	cubes := map[string][]*Node{}
	for _, n := range e.Nodes() {
		cubes[n.card.Segment] = append(cubes[n.card.Segment], n)
	}
	var a access
	for cube, nodes := range cubes {
		err := a.ssh(filepath.Join(dir, cube, "ssh_config"), nodes)
		if err == nil {
			err = a.kubeconfig(e, filepath.Join(dir, cube, "kubeconfig"))
		}
		if err != nil {
			a.remove()
			return nil, fmt.Errorf("cannot give access to the nodes: %w", err)
		}
	}
	return a, nil
}

func (a *access) ssh(name string, nodes []*Node) error {
	config, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	// ssh takes the first value that it finds, so these go in front.
	for _, n := range nodes {
		at, err := n.Forward("127.0.0.1:0", sshPort)
		if err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(at.String())
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "Host %s\n\tHostName %s\n\tPort %s\n\n", n.card.Name, host, port)
	}
	b.Write(config)
	return a.write(name, b.Bytes())
}

// kubeconfig does nothing for a cube without one, or whose API no started node
// serves.
func (a *access) kubeconfig(e *Emulator, name string) error {
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	clusters := clustersOf(&doc)
	if len(clusters) == 0 {
		return fmt.Errorf("%s: cannot find a cluster in it", name)
	}
	served := false
	for _, c := range clusters {
		ok, err := serve(e, c)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		served = served || ok
	}
	if !served {
		return nil
	}
	if text, err = yaml.Marshal(&doc); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return a.write(name, text)
}

// serve leads a cluster of a kubeconfig to a port of the host, if a started
// node serves its API.
func serve(e *Emulator, cluster *yaml.Node) (bool, error) {
	server := value(cluster, "server")
	if server == nil {
		return false, errors.New("cannot find the server of a cluster")
	}
	u, err := url.Parse(server.Value)
	if err != nil {
		return false, err
	}
	n := nodeFor(e, u.Hostname())
	if n == nil {
		return false, nil
	}
	at, err := n.Forward("127.0.0.1:0", apiPort)
	if err != nil {
		return false, err
	}
	// The certificate is still the one for the real name.
	if value(cluster, "tls-server-name") == nil {
		cluster.Content = append(cluster.Content, scalar("tls-server-name"), scalar(u.Hostname()))
	}
	u.Host = at.String()
	server.Value = u.String()
	return true, nil
}

// clustersOf returns the clusters of a kubeconfig.
func clustersOf(doc *yaml.Node) []*yaml.Node {
	if len(doc.Content) != 1 {
		return nil
	}
	list := value(doc.Content[0], "clusters")
	if list == nil {
		return nil
	}
	var clusters []*yaml.Node
	for _, c := range list.Content {
		clusters = append(clusters, value(c, "cluster"))
	}
	return clusters
}

func scalar(text string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(text)
	return n
}

// value finds a key of a YAML mapping.
func value(m *yaml.Node, key string) *yaml.Node {
	if m == nil {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

// nodeFor finds the node that a host name (rpi1, rpi1.local) or address means.
func nodeFor(e *Emulator, host string) *Node {
	for _, n := range e.Nodes() {
		if name, _, _ := strings.Cut(host, "."); name == n.card.Name || host == n.card.Address.String() {
			return n
		}
	}
	return nil
}

func (a *access) write(name string, text []byte) error {
	name += accessSuffix
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return err
	}
	*a = append(*a, name)
	return nil
}

func (a access) remove() {
	for _, name := range a {
		os.Remove(name)
	}
}
