package gateway

import (
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
)

const leaseTime = 24 * time.Hour

// serveDHCP answers DHCP clients (RFC 2131). Broken requests get no answer.
func (g *Gateway) serveDHCP() error {
	c, err := g.listenUDP(tcpip.FullAddress{NIC: nic, Port: dhcpv4.ServerPort})
	if err != nil {
		return err
	}
	g.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			request, err := dhcpv4.FromBytes(buf[:n])
			if err != nil {
				continue
			}
			reply := g.answerDHCP(request)
			if reply == nil {
				continue
			}
			// Always to all: a client without an address can't be asked for
			// its MAC address by ARP.
			to := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
			if ip := request.ClientIPAddr; !ip.IsUnspecified() {
				to.IP = ip
			}
			c.WriteTo(reply.ToBytes(), to)
		}
	})
	return nil
}

func (g *Gateway) answerDHCP(request *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.serves || request.OpCode != dhcpv4.OpcodeBootRequest || len(request.ClientHWAddr) != 6 {
		return nil
	}
	ours := g.config.LAN.Addr().AsSlice()
	if server := request.ServerIdentifier(); server != nil && !server.Equal(ours) {
		return nil
	}
	lease := g.lease(request.ClientHWAddr)
	answer := dhcpv4.MessageTypeOffer
	switch request.MessageType() {
	case dhcpv4.MessageTypeDiscover:
	case dhcpv4.MessageTypeRequest:
		answer = dhcpv4.MessageTypeAck
		wanted := request.RequestedIPAddress()
		if wanted == nil {
			wanted = request.ClientIPAddr
		}
		if !lease.IsValid() || !wanted.Equal(lease.AsSlice()) {
			lease, answer = netip.Addr{}, dhcpv4.MessageTypeNak
		}
	default:
		return nil
	}
	if !lease.IsValid() && answer != dhcpv4.MessageTypeNak {
		return nil
	}
	reply, err := dhcpv4.NewReplyFromRequest(request,
		dhcpv4.WithMessageType(answer), dhcpv4.WithServerIP(ours),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ours)))
	if err != nil {
		return nil
	}
	if lease.IsValid() {
		reply.YourIPAddr = lease.AsSlice()
		reply.UpdateOption(dhcpv4.OptIPAddressLeaseTime(leaseTime))
		reply.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(g.config.LAN.Bits(), 32)))
		reply.UpdateOption(dhcpv4.OptRouter(ours))
		reply.UpdateOption(dhcpv4.OptDNS(ours))
	}
	return reply
}

// lease returns the address for a MAC address, or none when all are given out.
func (g *Gateway) lease(mac net.HardwareAddr) netip.Addr {
	if a, ok := g.leases[string(mac)]; ok {
		return a
	}
	last := firstLease + g.given
	if last > 254 {
		return netip.Addr{}
	}
	g.given++
	b := g.config.LAN.Addr().As4()
	b[3] = byte(last)
	a := netip.AddrFrom4(b)
	g.leases[string(mac)] = a
	return a
}
