// Package gateway is the host's own station on the emulator's wire, a TCP/IP
// stack in user space that needs no privilege: it plays the household's router
// (DHCP, DNS and, only when asked to, the way out), and through it the host's
// programs reach the nodes.
//
// Not supported: IPv6 (nodes have their link-local addresses among themselves),
// ICMP to the outside.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic        = 1
	mtu        = 1500
	queue      = 1024 // frames on their way to the wire
	firstLease = 100  // host part of the first address given out
)

// Config says who the gateway is.
type Config struct {
	MAC net.HardwareAddr
	// LAN is the gateway's address in the network that it gives leases in, a
	// /24; Cubes its address on the cubes' wire, from which it reaches nodes.
	LAN   netip.Prefix
	Cubes netip.Prefix
	// Send puts a frame on the wire; it must not keep it.
	Send func(frame []byte)
}

// Gateway is a running station.
type Gateway struct {
	config  Config
	stack   *stack.Stack
	link    *channel.Endpoint
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	closers []func() error

	mu       sync.Mutex
	stations map[string]netip.Addr // name: address on the cubes' wire
	leases   map[string]netip.Addr // by MAC
	given    int                   // leases that were ever given out
	internet bool
	serves   bool // DHCP
	outside  map[net.Conn]bool
}

// New starts a gateway with DHCP, and without a way out.
func New(c Config) (*Gateway, error) {
	if c.LAN.Bits() != 24 || !c.LAN.Addr().Is4() || !c.Cubes.Addr().Is4() {
		return nil, fmt.Errorf("gateway: cannot use %v and %v: they must be IPv4, the first a /24", c.LAN, c.Cubes)
	}
	g := &Gateway{
		config:   c,
		link:     channel.New(queue, mtu+header.EthernetMinimumSize, tcpip.LinkAddress(c.MAC)),
		stations: map[string]netip.Addr{},
		leases:   map[string]netip.Addr{},
		serves:   true,
		outside:  map[net.Conn]bool{},
	}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := g.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("gateway: %w", err), g.Close())
	}
	return g, nil
}

func (g *Gateway) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	if err := g.stack.CreateNIC(nic, ethernet.New(g.link)); err != nil {
		return errors.New(err.String())
	}
	var routes []tcpip.Route
	for _, p := range []netip.Prefix{g.config.LAN, g.config.Cubes} {
		addr := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFrom4(p.Addr().As4()), PrefixLen: p.Bits(),
		}}
		if err := g.stack.AddProtocolAddress(nic, addr, stack.AddressProperties{}); err != nil {
			return errors.New(err.String())
		}
		routes = append(routes, tcpip.Route{Destination: addr.AddressWithPrefix.Subnet(), NIC: nic})
	}
	g.stack.SetRouteTable(routes)
	sack := tcpip.TCPSACKEnabled(true)
	g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	g.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(g.stack, 0, 256, g.forwardTCP).HandlePacket)
	g.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(g.stack, g.forwardUDP).HandlePacket)

	g.wg.Go(func() {
		for {
			pkt := g.link.ReadContext(ctx)
			if pkt == nil {
				return
			}
			g.config.Send(pkt.ToView().AsSlice())
			pkt.DecRef()
		}
	})
	if err := g.serveDHCP(); err != nil {
		return err
	}
	return g.serveDNS()
}

// Deliver takes a frame from the wire; it is not kept.
func (g *Gateway) Deliver(frame []byte) {
	if !g.forUs(frame) {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	g.link.InjectInbound(0, pkt)
}

// forUs drops what a network card would not hand to its host. With the way out
// open the stack takes every address for its own, and must not answer ARP
// requests for those of others.
func (g *Gateway) forUs(frame []byte) bool {
	if len(frame) < header.EthernetMinimumSize {
		return false
	}
	eth := header.Ethernet(frame)
	to := eth.DestinationAddress()
	if to != tcpip.LinkAddress(g.config.MAC) && to != header.EthernetBroadcastAddress {
		return false
	}
	if eth.Type() == header.ARPProtocolNumber {
		request := header.ARP(frame[header.EthernetMinimumSize:])
		if !request.IsValid() {
			return false
		}
		target, _ := netip.AddrFromSlice(request.ProtocolAddressTarget())
		return request.Op() != header.ARPRequest || target == g.config.LAN.Addr() || target == g.config.Cubes.Addr()
	}
	return true
}

// Add tells the gateway of a station: its name for DNS and its fixed address.
// Its lease is reserved, so the same stations get the same leases in each run.
func (g *Gateway) Add(name string, mac net.HardwareAddr, address netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stations[name] = address
	g.lease(mac)
}

// SetInternet opens or closes the way out: TCP and UDP by the host's own
// sockets. What is open when it closes is cut off.
func (g *Gateway) SetInternet(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.internet = on
	g.stack.SetPromiscuousMode(nic, on)
	g.stack.SetSpoofing(nic, on)
	if !on {
		for c := range g.outside {
			c.Close()
		}
		clear(g.outside)
	}
}

// SetDHCP switches the DHCP server on and off.
func (g *Gateway) SetDHCP(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.serves = on
}

// ForgetLeases is what a router does that loses its memory: from now on every
// station gets an address that none has had, 155 in all.
func (g *Gateway) ForgetLeases() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.leases)
}

// Lease tells the address that a MAC address has or would get by DHCP.
func (g *Gateway) Lease(mac net.HardwareAddr) netip.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lease(mac)
}

// DialContext connects to a TCP port of a station by its address.
func (g *Gateway) DialContext(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialContextTCP(ctx, g.stack, tcpip.FullAddress{
		NIC: nic, Addr: tcpip.AddrFrom4(to.Addr().As4()), Port: to.Port(),
	}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %v: %w", to, err)
	}
	return c, nil
}

// Close ends all connections and stops the station.
func (g *Gateway) Close() error {
	g.SetInternet(false)
	g.cancel()
	for _, close := range g.closers {
		close()
	}
	g.stack.Close()
	g.link.Close()
	g.wg.Wait()
	g.stack.Wait()
	return nil
}

// listenUDP binds a port of the gateway, from which it may also broadcast.
func (g *Gateway) listenUDP(addr tcpip.FullAddress) (*gonet.UDPConn, error) {
	var wq waiter.Queue
	ep, err := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on port %d: %v", addr.Port, err)
	}
	ep.SocketOptions().SetBroadcast(true)
	if err := ep.Bind(addr); err != nil {
		ep.Close()
		return nil, fmt.Errorf("cannot listen on port %d: %v", addr.Port, err)
	}
	c := gonet.NewUDPConn(&wq, ep)
	g.closers = append(g.closers, c.Close)
	return c, nil
}

// deadline is how long a flow without an end (UDP) is kept when it is silent.
const deadline = 60 * time.Second
