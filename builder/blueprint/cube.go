package blueprint

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// What a user would choose who doesn't choose.
const (
	defaultSuite  = "trixie"
	defaultUser   = "pirate"
	defaultShell  = "/bin/bash"
	defaultPrefix = "10.42.0.0/16"
)

// suites are Debian's that can be built.
var suites = []string{defaultSuite}

// maxNodes is the last node number whose address ends in one byte; cubes have
// the same limit.
const maxNodes = 254

var cubeBlocks = []hcl.BlockHeaderSchema{
	{Type: "base", LabelNames: []string{"kind"}},
	{Type: "archive", LabelNames: []string{"name"}},
	{Type: "user", LabelNames: []string{"name"}},
	{Type: "network"},
	{Type: "node", LabelNames: []string{"hostname"}},
	{Type: "wifi"},
	{Type: "kubernetes"},
	{Type: "display", LabelNames: []string{"kind"}},
	{Type: "fan", LabelNames: []string{"kind"}},
	{Type: "time"},
	{Type: "status"},
}

// readCube reads the block in the file's place-th position, from 0.
func (p *parser) readCube(b *hcl.Block, place int) *Cube {
	c := &Cube{Name: b.Labels[0], Number: place + 1, Range: b.DefRange}
	if why := checkHostname("cube", c.Name); why != "" {
		p.errorf(b.LabelRanges[0], "Invalid cube name", "%s", why)
	}
	s := p.section(b, nil, []string{"nodes!", "hostname", "number", "cluster", "board", "packages", "debconf", "control_plane"}, cubeBlocks...)
	about := map[string]cty.Value{"name": cty.StringVal(c.Name), "number": cty.NumberIntVal(int64(c.Number))}
	s.ctx = p.context(map[string]cty.Value{"cube": cty.ObjectVal(about)})
	if s.integer("number", &c.Number, 1, maxNodes) {
		about["number"] = cty.NumberIntVal(int64(c.Number))
		s.ctx = p.context(map[string]cty.Value{"cube": cty.ObjectVal(about)})
	}
	if s.text("cluster", &c.Cluster) {
		if why := checkHostname("cluster", c.Cluster); why != "" {
			s.errorf(s.at("cluster"), "Invalid cluster name", "%s", why)
		}
	}
	count := 0
	s.integer("nodes", &count, 1, maxNodes)
	board := p.defaultBoard()
	s.board(&board)
	s.packages(&c.Packages)
	s.table("debconf", &c.Debconf)

	c.Base = s.base()
	c.Base.Archives = append(c.Base.Archives, s.archives(c.Base.Kind)...)
	c.Network = s.network()
	c.Users = s.users()
	c.Nodes = s.nodes(c, count, board, place == 0)
	c.Time = Time{Zone: answeredZone(c.Debconf)}
	if s.layerExists("time") {
		s.time(&c.Time)
	}
	if s.layerExists("wifi") {
		c.WiFi = s.wifis(c.Nodes)
	}
	if s.layerExists("kubernetes") {
		c.Kubernetes = s.kubernetes()
		s.controlPlane(&c.ControlPlane, 1)
		c.controlPlaneAt = s.at("control_plane")
	}
	if s.layerExists("display") {
		c.Displays = s.displays(c.Nodes)
	}
	if s.layerExists("fan") {
		c.Fans = s.fans(c.Nodes)
	}
	if s.layerExists("status") {
		c.Status = s.status()
	}
	if len(c.Nodes) == count {
		s.checkSensors(c)
		s.checkPins(c)
	}
	return c
}

// layerExists refuses the blocks of a layer that this version doesn't have.
func (s *section) layerExists(name string) bool {
	if slices.Contains(s.Layers, name) {
		return true
	}
	for _, b := range s.blocks.OfType(name) {
		s.errorf(b.DefRange, "Not supported yet", "This version of picube-build can't build %q blocks yet. Remove the block to build the rest.", name)
	}
	return false
}

func (p *parser) defaultBoard() string {
	if len(p.Boards) == 0 {
		return ""
	}
	return p.Boards[0].Name
}

func (p *parser) boardByName(name string) (Board, bool) {
	i := slices.IndexFunc(p.Boards, func(b Board) bool { return b.Name == name })
	if i < 0 {
		return Board{}, false
	}
	return p.Boards[i], true
}

func (s *section) board(dst *string) {
	var names []string
	for _, b := range s.Boards {
		names = append(names, b.Name)
	}
	s.choice("board", dst, names...)
}

func (s *section) packages(dst *[]string) {
	if !s.list("packages", dst) {
		return
	}
	s.each("packages", "Invalid package name", *dst, checkPackage)
	slices.Sort(*dst)
	*dst = slices.Compact(*dst)
}

func (s *section) network() Network {
	n := Network{Interface: "eth0", Prefix: netip.MustParsePrefix(defaultPrefix), DHCP: true}
	b := s.one("network")
	if b == nil {
		return n
	}
	s = s.section(b, s.ctx, []string{"interface", "prefix", "dhcp", "dns"})
	if s.text("interface", &n.Interface) && !interfaceName.MatchString(n.Interface) {
		s.errorf(s.at("interface"), "Invalid interface name", `%q isn't the name of a network interface; a Raspberry Pi's is "eth0".`, n.Interface)
	}
	switch ok := s.prefix("prefix", &n.Prefix); {
	case !ok && s.has("prefix"):
		n.Prefix = netip.Prefix{} // so that nothing is said about addresses
	case n.Prefix.Bits() > 30:
		s.errorf(s.at("prefix"), "Network too small", "%s has no room for nodes.", n.Prefix)
		n.Prefix = netip.Prefix{}
	}
	s.boolean("dhcp", &n.DHCP)
	var servers []string
	s.list("dns", &servers)
	s.each("dns", "Invalid name server", servers, func(text string) string {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Sprintf("A name server is given by its address, %q isn't one.", text)
		}
		n.DNS = append(n.DNS, addr)
		return ""
	})
	return n
}

func (s *section) users() []User {
	var users []User
	seen := map[string]hcl.Range{}
	for _, b := range s.blocks.OfType("user") {
		u := User{Name: b.Labels[0], Shell: defaultShell}
		if why := checkUser(u.Name); why != "" {
			s.errorf(b.LabelRanges[0], "Invalid user name", "%s", why)
		}
		if first, ok := seen[u.Name]; ok {
			s.errorf(b.DefRange, "Duplicate user", "The user %q stands already at %s.", u.Name, first)
		}
		seen[u.Name] = b.DefRange

		s := s.section(b, s.ctx, []string{"authorized_keys", "password_hash", "sudo", "groups", "shell"})
		if s.list("authorized_keys", &u.AuthorizedKeys) {
			s.each("authorized_keys", "Invalid SSH key", u.AuthorizedKeys, checkKey)
			for i, k := range u.AuthorizedKeys {
				u.AuthorizedKeys[i] = strings.TrimSpace(k)
			}
		}
		if s.secret("password_hash", &u.PasswordHash) && !passwordHash.MatchString(string(u.PasswordHash)) {
			s.errorf(s.at("password_hash"), "Invalid password hash",
				`"password_hash" isn't in crypt(3) form ($y$… or $6$…). Make one with "mkpasswd" or "openssl passwd -6".`)
		}
		s.boolean("sudo", &u.Sudo)
		if s.list("groups", &u.Groups) {
			s.each("groups", "Invalid group name", u.Groups, func(g string) string {
				if !userName.MatchString(g) {
					return fmt.Sprintf("%q can't be the name of a group.", g)
				}
				return ""
			})
		}
		if s.text("shell", &u.Shell) && !shellPath.MatchString(u.Shell) {
			s.errorf(s.at("shell"), "Invalid shell", `"shell" is the absolute path of a program, such as "/bin/bash", not %q.`, u.Shell)
		}
		u.GenerateKey = len(u.AuthorizedKeys) == 0 && u.PasswordHash == ""
		users = append(users, u)
	}
	if users == nil {
		users = []User{{Name: defaultUser, Sudo: true, Shell: defaultShell, GenerateKey: true}}
	}
	return users
}

// nodes makes the cube's nodes. The first cube of a file has rpi1, rpi2 …;
// the others carry their cube's name, so that adding a cube renames nothing.
func (s *section) nodes(c *Cube, count int, board string, first bool) []*Node {
	var nodes []*Node
	for n := 1; n <= count; n++ {
		node := &Node{Number: n, Board: board, Name: fmt.Sprintf("rpi%d", n), Range: c.Range}
		if !first {
			node.Name = fmt.Sprintf("%s-%d", c.Name, n)
		}
		if s.has("hostname") && !s.hostname(node) {
			return nil // wrong for one, wrong for all
		}
		nodes = append(nodes, node)
	}
	s.overrides(nodes)
	s.addresses(c, nodes)
	return nodes
}

func (s *section) hostname(node *Node) bool {
	outer := s.ctx
	defer func() { s.ctx = outer }()
	s.ctx = s.ctx.NewChild()
	s.ctx.Variables = map[string]cty.Value{"node": cty.ObjectVal(map[string]cty.Value{
		"number": cty.NumberIntVal(int64(node.Number)),
	})}
	if !s.text("hostname", &node.Name) {
		return false
	}
	if why := checkHostname("host", node.Name); why != "" {
		s.errorf(s.at("hostname"), "Invalid host name", "%s", why)
		return false
	}
	return true
}

// overrides applies the node blocks.
func (s *section) overrides(nodes []*Node) {
	byName := map[string]*Node{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	seen := map[string]hcl.Range{}
	for _, b := range s.blocks.OfType("node") {
		name := b.Labels[0]
		s := s.section(b, s.ctx, []string{"board", "packages", "address", "labels", "taints"})
		n := byName[name]
		if n == nil {
			if len(nodes) > 0 {
				s.errorf(b.LabelRanges[0], "Unknown node", "The cube has no node %q.%s Its nodes are: %s.",
					name, didYouMean(name, keys(byName)), strings.Join(names(nodes), ", "))
			}
			n = &Node{} // what stands in the block is checked all the same
		}
		if first, ok := seen[name]; ok {
			s.errorf(b.DefRange, "Duplicate node block", "The node %q has a block already at %s.", name, first)
		}
		seen[name] = b.DefRange
		n.Range = b.DefRange
		s.board(&n.Board)
		s.packages(&n.Packages)
		var address string
		if s.text("address", &address) {
			addr, err := netip.ParseAddr(address)
			if err != nil || !addr.Is4() {
				s.errorf(s.at("address"), "Invalid address", `"address" must be an IPv4 address such as "10.42.1.7", not %q.`, address)
			}
			n.Address = addr
		}
		if s.table("labels", &n.Labels) {
			for _, k := range keys(n.Labels) {
				if !labelKey.MatchString(k) || !labelValue.MatchString(n.Labels[k]) {
					s.errorf(s.at("labels"), "Invalid label", "%q = %q isn't a label of Kubernetes: letters, digits, '-', '_' and '.', at most 63.", k, n.Labels[k])
				}
			}
		}
		if s.list("taints", &n.Taints) {
			s.each("taints", "Invalid taint", n.Taints, func(t string) string {
				if !taint.MatchString(t) {
					return fmt.Sprintf("%q isn't a taint: write key=value:NoSchedule, :PreferNoSchedule or :NoExecute.", t)
				}
				return ""
			})
		}
	}
}

func names(nodes []*Node) []string {
	list := make([]string, len(nodes))
	for i, n := range nodes {
		list[i] = n.Name
	}
	return list
}

// addresses gives each node without an address the one of its number.
func (s *section) addresses(c *Cube, nodes []*Node) {
	prefix := c.Network.Prefix
	if !prefix.IsValid() {
		return
	}
	for _, n := range nodes {
		if !n.Address.IsValid() {
			n.Address = address(prefix, c.Number, n.Number)
		}
	}
	room := 1<<min(32-prefix.Bits(), 30) - 2
	if len(nodes) > room {
		s.errorf(s.at("nodes"), "More nodes than addresses", "%s has addresses for %d nodes, the cube has %d.", prefix, room, len(nodes))
		return
	}
	for _, n := range nodes {
		if !prefix.Contains(n.Address) || n.Address == prefix.Addr() || n.Address == broadcast(prefix) {
			s.errorf(n.Range, "Address outside the network", "The node %q would get %s, which no node of %s can have.", n.Name, n.Address, prefix)
			return // the others are outside for the same reason
		}
	}
}

// address counts cubes in the last byte but one and nodes in the last; in a
// network too small for that it counts nodes alone.
func address(prefix netip.Prefix, cube, node int) netip.Addr {
	offset := node
	if prefix.Bits() <= 16 {
		offset += cube << 8
	}
	return add(prefix.Addr(), offset)
}

func add(a netip.Addr, offset int) netip.Addr {
	b := a.As4()
	n := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3]) + offset
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func broadcast(p netip.Prefix) netip.Addr { return add(p.Addr(), 1<<(32-p.Bits())-1) }

// checkCubes looks at what no cube can see alone.
func (p *parser) checkCubes(cubes []*Cube) {
	p.checkCubeNames(cubes)
	cluster := ""
	for _, c := range cubes {
		if c.Cluster != "" {
			continue
		}
		if cluster == "" {
			cluster = c.Name
		}
		c.Cluster = cluster
	}
	p.checkNodeNames(cubes)
	p.checkAddresses(cubes)
	p.checkClusters(cubes)
	p.checkBoards(cubes)
}

func (p *parser) checkCubeNames(cubes []*Cube) {
	names, numbers := map[string]*Cube{}, map[int]*Cube{}
	for _, c := range cubes {
		if first, ok := names[c.Name]; ok {
			p.errorf(c.Range, "Duplicate cube", "The cube %q stands already at %s.", c.Name, first.Range)
		} else if first, ok := numbers[c.Number]; ok {
			p.errorf(c.Range, "Duplicate cube number", "The cubes %q and %q both have the number %d, so they would have the same addresses.", first.Name, c.Name, c.Number)
		}
		names[c.Name], numbers[c.Number] = c, c
	}
}

// checkNodeNames reports, once per pair of cubes, the host names they share.
func (p *parser) checkNodeNames(cubes []*Cube) {
	type pair struct{ first, second *Cube }
	owner := map[string]*Cube{}
	shared := map[pair][]string{}
	var order []pair
	for _, c := range cubes {
		for _, n := range c.Nodes {
			first, taken := owner[n.Name]
			if !taken {
				owner[n.Name] = c
				continue
			}
			k := pair{first, c}
			if shared[k] == nil {
				order = append(order, k)
			}
			if !slices.Contains(shared[k], n.Name) {
				shared[k] = append(shared[k], n.Name)
			}
		}
	}
	for _, k := range order {
		list := strings.Join(shared[k], ", ")
		if k.first == k.second {
			p.errorf(k.second.Range, "Duplicate host names", `Several nodes of the cube %q would be called %s. Use "${node.number}" in "hostname".`, k.second.Name, list)
		} else {
			p.errorf(k.second.Range, "Duplicate host names", `The cubes %q and %q both have nodes called %s. Use "${cube.name}" in "hostname".`, k.first.Name, k.second.Name, list)
		}
	}
}

func (p *parser) checkAddresses(cubes []*Cube) {
	owner, cube := map[netip.Addr]*Node{}, map[netip.Addr]*Cube{}
	for _, c := range cubes {
		for _, n := range c.Nodes {
			first, taken := owner[n.Address]
			if !taken {
				owner[n.Address], cube[n.Address] = n, c
				continue
			}
			if by := cube[n.Address]; !n.Address.IsValid() || first.Name == n.Name || by != c && by.Number == c.Number {
				continue // the network, the names or the cubes' numbers were reported
			}
			p.errorf(n.Range, "Duplicate address", "The nodes %q and %q both have the address %s.", first.Name, n.Name, n.Address)
			if n.Range == c.Range {
				break // the cube's whole range collides
			}
		}
	}
}

// nodesOf are the host names that an "on" attribute chooses.
func (s *section) nodesOf(nodes []*Node, fallback []string) []string {
	var on []string
	if !s.list("on", &on) {
		return fallback
	}
	known := names(nodes)
	if len(known) > 0 {
		s.each("on", "Unknown node", on, func(name string) string {
			if slices.Contains(known, name) {
				return ""
			}
			return fmt.Sprintf("The cube has no node %q.%s Its nodes are: %s.", name, didYouMean(name, known), strings.Join(known, ", "))
		})
	}
	return on
}

func (s *section) url(name string, dst *string) {
	if s.text(name, dst) && !httpURL.MatchString(*dst) {
		s.errorf(s.at(name), "Invalid URL", "%q must begin with http:// or https:// and a host, not %q.", name, *dst)
	}
	*dst = strings.TrimRight(*dst, "/")
}

// checkClusters looks at the cubes of each cluster together.
func (p *parser) checkClusters(cubes []*Cube) {
	clusters := map[string][]*Cube{}
	for _, c := range cubes {
		clusters[c.Cluster] = append(clusters[c.Cluster], c)
	}
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		members := clusters[name]
		for _, c := range members[1:] {
			if c.Network.Prefix != members[0].Network.Prefix && c.Network.Prefix.IsValid() && members[0].Network.Prefix.IsValid() {
				p.errorf(c.Range, "Different networks in one cluster", "The cubes %q and %q form one cluster, so they need the same network, not %s and %s.",
					members[0].Name, c.Name, members[0].Network.Prefix, c.Network.Prefix)
			}
		}
		p.checkKubernetes(name, members)
	}
}

// answeredZone is the zone that tzdata's answers choose, UTC if they choose
// none.
func answeredZone(debconf map[string]string) string {
	area := debconf["tzdata/Areas"]
	if zone := debconf["tzdata/Zones/"+area]; area != "" && zone != "" {
		return area + "/" + zone
	}
	return "Etc/UTC"
}
