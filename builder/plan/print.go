package plan

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/picube/picube-build/builder/blueprint"
)

// Print writes the plan for people. Sensitive values are left out or hidden.
func (p *Plan) Print(w io.Writer) error {
	var b bytes.Buffer
	for _, c := range p.Cubes {
		c.print(&b)
	}
	for _, r := range p.Roots {
		r.print(&b, p.Nodes())
	}
	if p.Changes != nil {
		p.Changes.print(&b)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (c *Cube) print(b *bytes.Buffer) {
	s := c.Spec
	begins := ""
	if len(s.ControlPlane) > 0 {
		begins = ", begins one of its own"
	}
	fmt.Fprintf(b, "Cube %s (number %d of cluster %s%s), %s, wire %s\n", s.Name, s.Number, s.Cluster, begins, describeBase(s.Base), s.Network.Prefix)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  NODE\tBOARD\tROLE\tADDRESS\tROOT")
	for _, n := range c.Nodes {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", n.Name, n.Board, n.Role, n.Address.Addr(), n.Root)
	}
	t.Flush()
	for _, u := range s.Users {
		fmt.Fprintf(b, "  user %s: %s\n", u.Name, describe(u))
	}
	if k := s.Kubernetes; k != nil {
		fmt.Fprintf(b, "  kubernetes %s, pods %s, services %s\n", k.Version, k.PodSubnet, k.ServiceSubnet)
		if k.Merge.Mode != "" && len(s.ControlPlane) > 0 {
			fmt.Fprintf(b, "  merge: %s\n", describeMerge(k.Merge))
		}
	}
	for _, wifi := range s.WiFi {
		key := "open"
		if wifi.PSK != "" {
			key = "psk " + wifi.PSK.String()
		}
		fmt.Fprintf(b, "  wifi %q: %s, country %s\n", wifi.SSID, key, wifi.Country)
	}
	fmt.Fprintln(b)
}

func describeMerge(m blueprint.Merge) string {
	if m.Lead == "" {
		return m.Mode + ", the eldest cluster leads"
	}
	return m.Mode + ", the cluster of " + m.Lead + " leads"
}

func describeBase(b blueprint.Base) string {
	if b.Kind == blueprint.BaseImage {
		return "image " + path.Base(filepath.ToSlash(b.Source))
	}
	if b.Kind == blueprint.BaseRaspios {
		return "Debian " + b.Suite + " with Raspberry Pi's kernel"
	}
	return "Debian " + b.Suite
}

func describe(u blueprint.User) string {
	var with []string
	switch n := len(u.AuthorizedKeys); {
	case u.GenerateKey:
		with = append(with, "a key pair made by the build")
	case n == 1:
		with = append(with, "1 key")
	case n > 1:
		with = append(with, fmt.Sprintf("%d keys", n))
	}
	if u.PasswordHash != "" {
		with = append(with, "password "+u.PasswordHash.String())
	}
	if u.Sudo {
		with = append(with, "sudo")
	}
	return strings.Join(with, ", ")
}

func (r *Root) print(b *bytes.Buffer, nodes []*Node) {
	var on []string
	for _, n := range nodes {
		if n.Root == r.Name {
			on = append(on, n.Name)
		}
	}
	fmt.Fprintf(b, "Root %s (%s, boards: %s), shared by %s\n", r.Name, r.Arch, strings.Join(r.Boards, " "), strings.Join(on, " "))
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	if len(r.Packages) == 0 {
		fmt.Fprintln(t, "  PACKAGE\tASKED FOR BY")
		for _, q := range r.Requests {
			fmt.Fprintf(t, "  %s\t%s\n", q.Name, q.By)
		}
		t.Flush()
		fmt.Fprint(b, "  There is no lock yet: the first build chooses versions and what else these need.\n\n")
		return
	}
	total := int64(0)
	fmt.Fprintln(t, "  PACKAGE\tVERSION\tSIZE\tBECAUSE OF")
	for _, pkg := range r.Packages {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", pkg.Name, pkg.Version, size(pkg.Size), pkg.Why)
		total += pkg.Size
	}
	t.Flush()
	fmt.Fprintf(b, "  %d packages, %s\n", len(r.Packages), size(total))
	r.printLeft(b)
	fmt.Fprintln(b)
}

func (r *Root) printLeft(b *bytes.Buffer) {
	switch {
	case r.Left == nil:
		fmt.Fprintln(b, "  Which of them the first boot has to configure is known when they are downloaded.")
	case len(r.Left) == 0:
		fmt.Fprintln(b, "  All of them are configured by the build.")
	default:
		fmt.Fprintln(b, "  The first boot has to configure:")
		for _, l := range r.Left {
			fmt.Fprintf(b, "  %s: %s\n", l.Name, l.Why)
		}
	}
}

// size is in decimal units, as apt and the makers of cards count.
func size(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
