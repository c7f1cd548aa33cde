package blueprint

import (
	"fmt"
	"net/netip"
	"regexp"
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
		hcl.BlockHeaderSchema{Type: "backups"})
	if s.text("version", &k.Version) {
		k.Version = strings.TrimPrefix(k.Version, "v")
		if !kubernetesVersion.MatchString(k.Version) {
			s.errorf(s.at("version"), "Invalid version", "A version of Kubernetes has three numbers, like %q, not %q.", defaultKubernetes, k.Version)
		}
	}
	s.controlPlane(k)
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

// controlPlane reads a count or a list of names. The count stands in
// ControlPlane as empty names until checkKubernetes fills them in.
func (s *section) controlPlane(k *Kubernetes) {
	a, ok := s.attrs["control_plane"]
	if !ok {
		return
	}
	v, ok := s.evaluate(a.Expr, s.ctx)
	if !ok {
		return
	}
	if v.Type() != cty.Number {
		if s.list("control_plane", &k.ControlPlane) && len(k.ControlPlane) == 0 {
			s.errorf(s.at("control_plane"), "No control plane", "Name at least one node, or give their number.")
		}
		return
	}
	count := 0
	if s.integer("control_plane", &count, 0, 3) {
		k.ControlPlane = make([]string, count)
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
// holds for cubes without one, and without a word the cluster's first node is
// its control plane.
func (p *parser) checkKubernetes(cluster string, cubes []*Cube) {
	var first *Kubernetes
	for _, c := range cubes {
		if c.Kubernetes == nil {
			continue
		}
		if first == nil {
			first = c.Kubernetes
			if first.ControlPlane == nil {
				first.ControlPlane = make([]string, 1)
			}
		}
		p.checkAgreement(first, c.Kubernetes)
		p.fillControlPlane(c)
	}
	if first == nil {
		return
	}
	var all []string
	nodes := map[string]*Node{}
	for _, c := range cubes {
		for _, n := range c.Nodes {
			nodes[n.Name] = n
		}
		if c.Kubernetes == nil {
			inherited := *first
			inherited.ControlPlane = nil
			c.Kubernetes = &inherited
			continue
		}
		all = append(all, c.Kubernetes.ControlPlane...)
	}
	p.checkControlPlane(cluster, first, all, nodes)
	p.checkSubnets(first, cubes[0].Network.Prefix)
}

func (p *parser) checkAgreement(first, k *Kubernetes) {
	if k.Version != first.Version || k.PodSubnet != first.PodSubnet || k.ServiceSubnet != first.ServiceSubnet {
		p.errorf(k.Range, "Different Kubernetes in one cluster", "This block and the one at %s must agree in version, pod_subnet and service_subnet.", first.Range)
	}
}

func (p *parser) fillControlPlane(c *Cube) {
	for i, name := range c.Kubernetes.ControlPlane {
		if name == "" && i < len(c.Nodes) {
			c.Kubernetes.ControlPlane[i] = c.Nodes[i].Name
		}
	}
}

func (p *parser) checkControlPlane(cluster string, first *Kubernetes, all []string, nodes map[string]*Node) {
	if len(nodes) == 0 {
		return // the cube's own mistakes were reported
	}
	seen := map[string]bool{}
	for _, name := range all {
		switch {
		case name == "":
			p.errorf(first.Range, "More control planes than nodes", "The cluster %q hasn't got so many nodes.", cluster)
			return
		case nodes[name] == nil:
			p.errorf(first.Range, "Unknown node", "The cluster %q has no node %q.%s", cluster, name, didYouMean(name, keys(nodes)))
			return
		case seen[name]:
			p.errorf(first.Range, "Duplicate node", `The node %q stands twice in "control_plane".`, name)
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
			Subject:  first.Range.Ptr(),
		})
	default:
		p.errorf(first.Range, "Wrong number of control planes", "The cluster %q has %d control planes; it needs 1 or 3 to agree when one is lost.", cluster, len(all))
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
