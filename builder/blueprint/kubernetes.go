package blueprint

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

const defaultKubernetes = "1.34.4"

var (
	kubernetesVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+$`)
	imageReference    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$`)
	commandFlag       = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

// kubernetes reads the block; checkKubernetes completes it when all cubes of
// the cluster are known.
func (s *section) kubernetes() *Kubernetes {
	b := s.one("kubernetes")
	if b == nil {
		return nil
	}
	k := &Kubernetes{
		Version:       defaultKubernetes,
		PodSubnet:     netip.MustParsePrefix("10.244.0.0/16"),
		ServiceSubnet: netip.MustParsePrefix("10.96.0.0/12"),
		Source:        "auto",
		Backups:       Backups{Every: time.Hour, Keep: 3},
		Range:         b.DefRange,
	}
	s = s.section(b, s.ctx, []string{"version", "control_plane", "pod_subnet", "service_subnet", "source", "mirror",
		"manifests", "images", "kubelet_args", "api_server_args"},
		hcl.BlockHeaderSchema{Type: "backups"}, hcl.BlockHeaderSchema{Type: "merge"})
	if s.text("version", &k.Version) {
		k.Version = strings.TrimPrefix(k.Version, "v")
		if !kubernetesVersion.MatchString(k.Version) {
			s.errorf(s.at("version"), "Invalid version", "A version of Kubernetes has three numbers, like %q, not %q.", defaultKubernetes, k.Version)
		}
	}
	s.controlPlane(&k.ControlPlane, 0)
	s.prefix("pod_subnet", &k.PodSubnet)
	s.prefix("service_subnet", &k.ServiceSubnet)
	s.choice("source", &k.Source, "auto", "release", "modules", "mirror")
	s.url("mirror", &k.Mirror)
	if k.Source == "mirror" && !s.has("mirror") {
		s.errorf(s.at("source"), "Mirror missing", `With source = "mirror", give the mirror's URL as "mirror".`)
	}
	if s.list("manifests", &k.Manifests) {
		s.each("manifests", "Manifest missing", k.Manifests, func(path string) string {
			if _, err := s.readText(path); err != nil {
				return fmt.Sprintf("The manifest %q can't be used: %s.", path, err)
			}
			return ""
		})
	}
	if s.list("images", &k.Images) {
		s.each("images", "Invalid image", k.Images, func(image string) string {
			if !imageReference.MatchString(image) {
				return fmt.Sprintf(`%q isn't the name of an image, like "docker.io/library/nginx:1.29".`, image)
			}
			return ""
		})
	}
	s.arguments("kubelet_args", &k.KubeletArgs)
	s.arguments("api_server_args", &k.APIServerArgs)
	s.backups(&k.Backups)
	s.merge(&k.Merge)
	return k
}

// shortest is how often a cluster can be saved at most.
const shortest = 5 * time.Minute

func (s *section) backups(b *Backups) {
	block := s.one("backups")
	if block == nil {
		return
	}
	s = s.section(block, s.ctx, []string{"every", "keep"})
	var every string
	if s.text("every", &every) {
		d, err := time.ParseDuration(every)
		if err != nil || d != 0 && d < shortest {
			s.errorf(s.at("every"), "Invalid time", `%q isn't a time of at least %d minutes, like "1h" or "90m"; "0" is never.`, every, int(shortest.Minutes()))
		}
		b.Every = d
	}
	s.integer("keep", &b.Keep, 1, 24)
}

// merge reads the block; checkMerge looks at it when all cubes are known.
func (s *section) merge(m *Merge) {
	block := s.one("merge")
	if block == nil {
		return
	}
	s = s.section(block, s.ctx, []string{"mode", "lead"})
	m.Mode, m.Range = mergeAuto, block.DefRange
	s.choice("mode", &m.Mode, mergeAuto, "ask", "off")
	if s.text("lead", &m.Lead) {
		m.Range = s.at("lead")
	}
}

const mergeAuto = "auto"

// controlPlane reads a count or a list of names. The count stands as empty
// names until checkKubernetes fills them in.
func (s *section) controlPlane(dst *[]string, least int) {
	const name = "control_plane"
	a, ok := s.attrs[name]
	if !ok {
		return
	}
	v, ok := s.evaluate(a.Expr, s.ctx)
	if !ok {
		return
	}
	if v.Type() != cty.Number {
		if s.list(name, dst) && len(*dst) == 0 {
			s.errorf(s.at(name), "No control plane", "Name at least one node, or give their number.")
		}
		return
	}
	count := 0
	if s.integer(name, &count, least, 3) {
		*dst = make([]string, count)
	}
}

func (s *section) arguments(name string, dst *map[string]string) {
	if !s.table(name, dst) {
		return
	}
	for _, flag := range keys(*dst) {
		if !commandFlag.MatchString(flag) {
			s.errorf(s.at(name), "Invalid argument", `%q isn't the name of an argument; write it without the dashes in front: "max-pods" = "50".`, flag)
		}
	}
}

// checkKubernetes completes the blocks of one cluster's cubes: the first block
// holds for cubes without one, and without a word its cube's first node is the
// control plane. Cubes with a control plane of their own begin further clusters.
func (p *parser) checkKubernetes(cluster string, cubes []*Cube) {
	i := slices.IndexFunc(cubes, func(c *Cube) bool { return c.Kubernetes != nil })
	if i < 0 {
		for _, c := range cubes {
			if c.ControlPlane != nil {
				p.errorf(c.controlPlaneAt, "No Kubernetes", "The cube %q can't have a control plane: it isn't said that the nodes form a cluster. Add the block: kubernetes {}.", c.Name)
			}
		}
		return
	}
	home := cubes[i]
	first := home.Kubernetes
	for _, c := range cubes {
		if k := c.Kubernetes; k != nil && k.ControlPlane != nil && c.ControlPlane != nil {
			p.errorf(c.controlPlaneAt, "Control plane given twice", "The cube %q has a control_plane of its own, so its kubernetes block at %s can't have one.", c.Name, k.Range)
			return
		}
	}
	if home.ControlPlane != nil {
		first.ControlPlane, home.ControlPlane = home.ControlPlane, nil
	} else if first.ControlPlane == nil {
		first.ControlPlane = make([]string, 1)
	}
	var all []string
	nodes, others := map[string]*Node{}, map[string]*Cube{}
	for _, c := range cubes {
		for _, n := range c.Nodes {
			if nodes[n.Name] = n; c.ControlPlane != nil {
				others[n.Name] = c
			}
		}
		if c.Kubernetes == nil {
			inherited := *first
			inherited.ControlPlane = nil
			c.Kubernetes = &inherited
			continue
		}
		p.checkAgreement(first, c.Kubernetes)
		fillControlPlane(c.Kubernetes.ControlPlane, c.Nodes)
		all = append(all, c.Kubernetes.ControlPlane...)
	}
	for _, name := range all {
		if c := others[name]; c != nil {
			p.errorf(first.Range, "Node of another cluster", "The node %q can't be in the control plane of %q: its cube %q begins a cluster of its own.", name, home.Name, c.Name)
			return
		}
	}
	p.checkControlPlane(cluster, first.Range, all, nodes)
	p.checkSubnets(first, cubes[0].Network.Prefix)
	begin := []string{home.Name}
	for _, c := range cubes {
		if c.ControlPlane != nil {
			p.checkOwnControlPlane(c, cubes)
			begin = append(begin, c.Name)
		}
	}
	p.checkMerge(home, begin, cubes)
	if len(begin) == 1 {
		return
	}
	home.ControlPlane = all
	for _, c := range cubes {
		c.Home = home.Name
		if c.ControlPlane != nil {
			c.Home = c.Name
		}
		c.Kubernetes.Merge = first.Merge
	}
}

// checkOwnControlPlane completes that of a cube which begins a cluster.
func (p *parser) checkOwnControlPlane(c *Cube, cubes []*Cube) {
	fillControlPlane(c.ControlPlane, c.Nodes)
	nodes := map[string]*Node{}
	for _, n := range c.Nodes {
		nodes[n.Name] = n
	}
	for _, other := range cubes {
		for _, n := range other.Nodes {
			if other != c && nodes[n.Name] == nil && slices.Contains(c.ControlPlane, n.Name) {
				p.errorf(c.controlPlaneAt, "Node of another cube", "The node %q belongs to the cube %q. The control plane that %q begins with is made of its own nodes: %s.",
					n.Name, other.Name, c.Name, strings.Join(names(c.Nodes), ", "))
				return
			}
		}
	}
	p.checkControlPlane(c.Name, c.controlPlaneAt, c.ControlPlane, nodes)
}

// checkMerge looks at what the clusters of the named cubes do when they meet.
func (p *parser) checkMerge(home *Cube, begin []string, cubes []*Cube) {
	for _, c := range cubes {
		if k := c.Kubernetes; c != home && k.Merge.Range != home.Kubernetes.Merge.Range && k.Merge.Range != (hcl.Range{}) {
			p.errorf(k.Merge.Range, "Merge block of another cube", "How the clusters merge is said once, in the kubernetes block of the cube %q.", home.Name)
		}
	}
	m := &home.Kubernetes.Merge
	switch {
	case len(begin) == 1 && m.Mode != "":
		p.add(&hcl.Diagnostic{
			Severity: hcl.DiagWarning,
			Summary:  "Nothing to merge",
			Detail:   fmt.Sprintf("All cubes begin one cluster, that of %q. A cube begins one of its own with: control_plane = 1.", home.Name),
			Subject:  m.Range.Ptr(),
		})
		*m = Merge{}
	case len(begin) > 1 && m.Mode == "":
		m.Mode = mergeAuto
	}
	switch i := slices.IndexFunc(cubes, func(c *Cube) bool { return c.Name == m.Lead }); {
	case m.Lead == "" || slices.Contains(begin, m.Lead):
	case i < 0:
		p.errorf(m.Range, "Unknown cube", "There is no cube %q in the cluster.%s Those that can lead are: %s.", m.Lead, didYouMean(m.Lead, begin), strings.Join(begin, ", "))
	default:
		p.errorf(m.Range, "Cube without a cluster", "The cube %q can't lead: it begins no cluster of its own. Those that do are: %s.", m.Lead, strings.Join(begin, ", "))
	}
}

func (p *parser) checkAgreement(first, k *Kubernetes) {
	if k.Version != first.Version || k.PodSubnet != first.PodSubnet || k.ServiceSubnet != first.ServiceSubnet {
		p.errorf(k.Range, "Different Kubernetes in one cluster", "This block and the one at %s must agree in version, pod_subnet and service_subnet.", first.Range)
	}
}

// fillControlPlane turns a count into the names of the first nodes.
func fillControlPlane(list []string, nodes []*Node) {
	for i, name := range list {
		if name == "" && i < len(nodes) {
			list[i] = nodes[i].Name
		}
	}
}

func (p *parser) checkControlPlane(cluster string, at hcl.Range, all []string, nodes map[string]*Node) {
	if len(nodes) == 0 {
		return // the cube's own mistakes were reported
	}
	seen := map[string]bool{}
	for _, name := range all {
		switch {
		case name == "":
			p.errorf(at, "More control planes than nodes", "The cluster %q hasn't got so many nodes.", cluster)
			return
		case nodes[name] == nil:
			p.errorf(at, "Unknown node", "The cluster %q has no node %q.%s", cluster, name, didYouMean(name, keys(nodes)))
			return
		case seen[name]:
			p.errorf(at, "Duplicate node", `The node %q stands twice in "control_plane".`, name)
			return
		}
		seen[name] = true
	}
	switch len(all) {
	case 1:
	case 3:
		p.add(&hcl.Diagnostic{
			Severity: hcl.DiagWarning,
			Summary:  "Three control planes on SD cards",
			Detail:   "Each of the three writes everything that any of them is told, and waits for the slowest card. Use good cards, or one control plane.",
			Subject:  at.Ptr(),
		})
	default:
		p.errorf(at, "Wrong number of control planes", "The cluster %q has %d control planes; it needs 1 or 3 to agree when one is lost.", cluster, len(all))
	}
}

func (p *parser) checkSubnets(k *Kubernetes, wire netip.Prefix) {
	nets := []struct {
		name   string
		prefix netip.Prefix
	}{{"pod_subnet", k.PodSubnet}, {"service_subnet", k.ServiceSubnet}, {"the cubes' network", wire}}
	for i, a := range nets {
		for _, b := range nets[i+1:] {
			if a.prefix.Overlaps(b.prefix) {
				p.errorf(k.Range, "Networks overlap", "%s (%s) and %s (%s) overlap; choose others.", a.name, a.prefix, b.name, b.prefix)
			}
		}
	}
}
