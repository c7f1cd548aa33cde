package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

const (
	dnsPort    = 53
	dnsTTL     = 60
	dnsTimeout = 10 * time.Second
)

// serveDNS answers for the stations, and for the rest of the world by the
// host's own resolver while the way out is open.
func (g *Gateway) serveDNS() error {
	at := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(g.config.LAN.Addr().As4()), Port: dnsPort}
	c, err := g.listenUDP(at)
	if err != nil {
		return err
	}
	l, err := gonet.ListenTCP(g.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("cannot listen on port %d: %w", dnsPort, err)
	}
	g.closers = append(g.closers, l.Close)
	g.wg.Go(func() { (&dns.Server{PacketConn: c, Handler: g}).ActivateAndServe() })
	g.wg.Go(func() { (&dns.Server{Listener: l, Handler: g}).ActivateAndServe() })
	return nil
}

// ServeDNS implements dns.Handler.
func (g *Gateway) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	reply := new(dns.Msg).SetReply(m)
	reply.RecursionAvailable = true
	if len(m.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
	} else {
		reply.Rcode, reply.Answer = g.resolve(m.Question[0])
	}
	w.WriteMsg(reply)
}

func (g *Gateway) resolve(q dns.Question) (int, []dns.RR) {
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	g.mu.Lock()
	address, known := g.stations[strings.TrimSuffix(name, ".lan")]
	internet := g.internet
	g.mu.Unlock()
	switch {
	case known:
		return dns.RcodeSuccess, records(q, []netip.Addr{address})
	case !internet:
		return dns.RcodeServerFailure, nil
	case q.Qtype != dns.TypeA:
		return dns.RcodeSuccess, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), dnsTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	var notFound *net.DNSError
	if errors.As(err, &notFound) && notFound.IsNotFound {
		return dns.RcodeNameError, nil
	}
	if err != nil {
		return dns.RcodeServerFailure, nil
	}
	return dns.RcodeSuccess, records(q, found)
}

func records(q dns.Question, addresses []netip.Addr) []dns.RR {
	if q.Qtype != dns.TypeA {
		return nil
	}
	var out []dns.RR
	for _, a := range addresses {
		if a = a.Unmap(); a.Is4() {
			out = append(out, &dns.A{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: dnsTTL},
				A:   a.AsSlice(),
			})
		}
	}
	return out
}
