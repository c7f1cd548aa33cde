package kubeadmd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks our routes, so that stale ones are found again
// (rtnetlink(7), rtm_protocol; the numbers above 4 are free to be used).
const routeProtocol = 142

// Kernel applies routes on the node.
type Kernel struct{ Engine *Engine }

// Apply makes the kernel's routes to pods those given, and tells containerd
// which addresses its own pods have.
func (k Kernel) Apply(r Routes) error {
	if err := k.routes(r); err != nil {
		return err
	}
	if !r.Own.IsValid() {
		return nil
	}
	text, err := CNI(r.Own)
	if err != nil {
		return err
	}
	return k.Engine.write(cniFile, text)
}

func (k Kernel) routes(r Routes) error {
	link, err := netlink.LinkByName(k.Engine.Node.Network.Interface)
	if err != nil {
		return fmt.Errorf("%s: %w", k.Engine.Node.Network.Interface, err)
	}
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: routeProtocol}
	present, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("routes: cannot list them: %w", err)
	}
	var errs []error
	right := map[netip.Prefix]bool{}
	for _, route := range present {
		dst, ok := prefix(route.Dst)
		via, _ := netip.AddrFromSlice(route.Gw.To4())
		if ok && r.Nodes[dst] == via {
			right[dst] = true
			continue
		}
		errs = append(errs, netlink.RouteDel(&route))
	}
	for dst, via := range r.Nodes {
		if right[dst] {
			continue
		}
		errs = append(errs, netlink.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Protocol: routeProtocol, Dst: ipNet(dst), Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		}))
	}
	return errors.Join(errs...)
}

// DropBridge removes the bridge between a node's pods.
func (Kernel) DropBridge() error {
	link, err := netlink.LinkByName(bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", bridge, err)
	}
	return nil
}

// Signal sends a signal to a process of the node.
func (Kernel) Signal(pid int, s syscall.Signal) error { return unix.Kill(pid, s) }

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP.To4())
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, bits), ok
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// lastResort is a device that leads nowhere.
const lastResort = "picube0"

// DefaultRoute makes sure that there is always a default route: kubeadm and
// kube-proxy ask the kernel for the address of the way out, also where there
// is none. Its metric is the worst, so any real one is preferred.
func DefaultRoute() error {
	link, err := netlink.LinkByName(lastResort)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		err = netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: lastResort}})
		if err == nil {
			link, err = netlink.LinkByName(lastResort)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", lastResort, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("%s: %w", lastResort, err)
	}
	err = netlink.RouteAdd(&netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Priority: 1<<31 - 1,
		Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
	})
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

// Masquerade gives what pods send out of the cluster the node's address.
// Between pods and nodes addresses stay what they are.
func (e *Engine) Masquerade() error {
	wire, err := netip.ParsePrefix(e.Node.Network.Address)
	if err != nil {
		return err
	}
	const chain = "PICUBE-OUT"
	pods := e.Config.PodSubnet
	steps := [][]string{{"-N", chain}, {"-F", chain}}
	for _, dst := range []string{pods, wire.Masked().String(), "224.0.0.0/4"} {
		steps = append(steps, []string{"-A", chain, "-d", dst, "-j", "RETURN"})
	}
	steps = append(steps, []string{"-A", chain, "-j", "MASQUERADE"})
	jump := []string{"POSTROUTING", "-s", pods, "-j", chain}
	for i, s := range steps {
		if err := iptables(s...); err != nil && i > 0 { // the chain may be there
			return err
		}
	}
	if iptables(append([]string{"-C"}, jump...)...) == nil {
		return nil
	}
	return iptables(append([]string{"-A"}, jump...)...)
}

func iptables(args ...string) error {
	cmd := exec.Command("iptables", append([]string{"-w", "-t", "nat"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables %v: %w: %s", args, err, out)
	}
	return nil
}
