package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
)

// Account is what a card was made to be, setting by setting: enough to tell
// later what a changed blueprint means for it. It holds no secret.
type Account struct {
	Node    string `json:"node"`
	Cube    string `json:"cube"`
	Cluster string `json:"cluster"`
	Role    string `json:"role"`
	// Settings are by the names that the language has for them.
	Settings map[string]string `json:"settings"`
}

// Accounts returns those of all cards, in the blueprint's order. Seal turns a
// secret of a cluster into something that only tells whether it is the same.
func (p *Plan) Accounts(seal func(cluster, secret string) string) []Account {
	var all []Account
	for _, c := range p.Cubes {
		for _, n := range c.Nodes {
			a := account{map[string]string{}, func(secret blueprint.Secret) string { return seal(n.Cluster, string(secret)) }}
			a.hardware(c.Spec, n)
			a.system(c.Spec, n, p.Root(n.Root))
			if c.Spec.Kubernetes != nil {
				a.kubernetes(p, c.Spec.Kubernetes, n)
			}
			all = append(all, Account{Node: n.Name, Cube: n.Cube, Cluster: n.Cluster, Role: n.Role, Settings: a.settings})
		}
	}
	return all
}

type account struct {
	settings map[string]string
	seal     func(blueprint.Secret) string
}

// add notes a setting that is not empty. What is no text is noted as JSON.
func (a account) add(name string, v any) {
	text, ok := v.(string)
	if list, is := v.([]string); is {
		text, ok = strings.Join(list, " "), true
	}
	if !ok {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err) // the blueprint's own types always marshal
		}
		text = string(data)
	}
	if text != "" && text != "null" && text != "{}" {
		a.settings[name] = text
	}
}

// digest notes something too long to be shown.
func (a account) digest(name string, v any) {
	a.add(name, v)
	if text, ok := a.settings[name]; ok {
		a.settings[name] = digestOf(text)
	}
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("sha256:%x", sum[:8])
}

// hardware notes the board and what hangs on it.
func (a account) hardware(c *blueprint.Cube, n *Node) {
	a.add("board", n.Board)
	a.add("features", strings.Join(features(c), ", "))
	things := map[string][]any{} // of a kind there may be several
	for _, d := range c.Displays {
		if slices.Contains(d.On, n.Name) {
			d.On = nil // the others' cards are not this one
			things["display "+d.Kind] = append(things["display "+d.Kind], d)
		}
	}
	for _, f := range c.Fans {
		if slices.Contains(f.On, n.Name) {
			f.On = nil
			things["fan "+f.Kind] = append(things["fan "+f.Kind], f)
		}
	}
	for _, w := range c.WiFi {
		if slices.Contains(w.On, n.Name) {
			w.On = nil
			things["wifi"] = append(things["wifi"], w, a.seal(w.PSK))
		}
	}
	for name, list := range things {
		a.digest(name, list)
	}
}

// system notes what Debian is told.
func (a account) system(c *blueprint.Cube, n *Node, r *Root) {
	a.add("cube", n.Cube)
	a.add("cluster", n.Cluster)
	a.add("address", n.Address.String())
	a.add("base", strings.TrimSpace(c.Base.Kind+" "+c.Base.Suite))
	a.add("base.components", c.Base.Components)
	a.add("base.recommends", fmt.Sprint(c.Base.Recommends))
	a.add("base.sha256", c.Base.SHA256)
	for _, archive := range c.Base.Archives {
		a.digest(fmt.Sprintf("archive %q", archive.Name), archive)
	}
	a.add("packages", packagesOf(c, n.Spec))
	a.add("debconf", c.Debconf)
	for _, u := range c.Users {
		a.digest(fmt.Sprintf("user %q", u.Name), []any{u, a.seal(u.PasswordHash)})
	}
	a.add("network.interface", c.Network.Interface)
	a.add("network.prefix", c.Network.Prefix.String())
	a.add("network.dhcp", fmt.Sprint(c.Network.DHCP))
	a.add("network.dns", c.Network.DNS)
	a.add("time.zone", c.Time.Zone)
	a.add("time.servers", c.Time.Servers)
	if c.Status != nil {
		a.add("status", fmt.Sprint("port ", c.Status.Port))
	}
	if r == nil {
		return
	}
	var versions []string
	for _, pkg := range r.Packages {
		versions = append(versions, pkg.Name+"="+pkg.Version)
	}
	a.digest("versions", versions)
}

// kubernetes notes what the node is told of its cluster.
func (a account) kubernetes(p *Plan, k *blueprint.Kubernetes, n *Node) {
	a.add("role", n.Role)
	var peers []string
	for _, peer := range p.Nodes() {
		if peer.Cluster == n.Cluster {
			peers = append(peers, peer.Name)
		}
	}
	a.add("nodes", peers)
	names := func(nodes []*Node) (list []string) {
		for _, n := range nodes {
			list = append(list, n.Name)
		}
		return list
	}
	const prefix = "kubernetes."
	controlPlane := p.ControlPlane(n.Cluster, n.Home)
	a.add(prefix+"control_plane", names(controlPlane))
	if len(controlPlane) > 0 { // as it is called where others begin clusters, too
		a.add("home", cmp.Or(n.Home, controlPlane[0].Cube))
	}
	var cubes []string
	for _, c := range p.Beginners(n.Cluster) {
		cubes = append(cubes, c.Spec.Name)
	}
	a.add(prefix+"clusters", cubes)
	a.add(prefix+"merge.mode", k.Merge.Mode)
	a.add(prefix+"merge.lead", k.Merge.Lead)
	a.add(prefix+"version", k.Version)
	a.add(prefix+"pod_subnet", k.PodSubnet.String())
	a.add(prefix+"service_subnet", k.ServiceSubnet.String())
	a.add(prefix+"images", k.Images)
	a.add(prefix+"kubelet_args", k.KubeletArgs)
	a.add(prefix+"backups", fmt.Sprintf("every %s, keep %d", k.Backups.Every, k.Backups.Keep))
	a.add("labels", n.Spec.Labels)
	a.add("taints", n.Spec.Taints)
	if n.Role == RoleControlPlane {
		a.add(prefix+"manifests", k.Manifests)
		a.add(prefix+"api_server_args", k.APIServerArgs)
	}
}
