package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/miekg/dns"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// pair is a gateway and, in the place of a node, another one without any
// services in its way, on one wire.
func pair(t *testing.T) (gateway, node *Gateway) {
	t.Helper()
	start := func(mac byte, lan, cubes string, peer **Gateway) *Gateway {
		g, err := New(Config{
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, mac}, LAN: netip.MustParsePrefix(lan), Cubes: netip.MustParsePrefix(cubes),
			Send: func(frame []byte) {
				if *peer != nil {
					(*peer).Deliver(frame)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	var a, b *Gateway
	a = start(1, "192.168.76.1/24", "10.42.255.254/16", &b)
	b = start(2, "192.168.76.100/24", "10.42.1.1/16", &a)
	b.SetDHCP(false)
	return a, b
}

func TestDHCP(t *testing.T) {
	g, _ := pair(t)
	mac := net.HardwareAddr{2, 0x70, 10, 42, 1, 1}
	other := net.HardwareAddr{2, 0x70, 10, 42, 1, 2}
	g.Add("rpi1", mac, netip.MustParseAddr("10.42.1.1"))
	tests := []struct {
		name string
		mac  net.HardwareAddr
		mod  []dhcpv4.Modifier
		want string
	}{
		{"discover", mac, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)}, "OFFER 192.168.76.100"},
		{"request", mac, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 76, 100)))}, "ACK 192.168.76.100"},
		{"renew", mac, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithClientIP(net.IPv4(192, 168, 76, 100))}, "ACK 192.168.76.100"},
		{"somebody else's", mac, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 76, 101)))}, "NAK 0.0.0.0"},
		{"another house's", mac, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1)))}, "none"},
		{"unknown station", other, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)}, "OFFER 192.168.76.101"},
		{"release", mac, []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease)}, "none"},
		{"a server's", mac, []dhcpv4.Modifier{func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply }}, "none"},
	}
	for _, test := range tests {
		request, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(test.mac)}, test.mod...)...)
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if reply := g.answerDHCP(request); reply != nil {
			got = fmt.Sprintf("%v %v", reply.MessageType(), reply.YourIPAddr)
			if reply.TransactionID != request.TransactionID {
				t.Errorf("%s: another transaction", test.name)
			}
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	g.SetDHCP(false)
	request, _ := dhcpv4.NewDiscovery(mac)
	if g.answerDHCP(request) != nil {
		t.Error("answered without a server")
	}
	g.SetDHCP(true)
	g.lease(mac)
	before := g.given
	g.ForgetLeases()
	if a := g.lease(mac); a.As4()[3] != byte(firstLease+before) {
		t.Errorf("after all was forgotten: %v, the address number %d", a, before)
	}
	for i := range 300 {
		g.lease(net.HardwareAddr{4, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	if a := g.lease(net.HardwareAddr{5, 0, 0, 0, 0, 0}); a.IsValid() {
		t.Errorf("gave %v out when there was none left", a)
	}
}

// TestDHCPOnTheWire asks as a station without an address does, by broadcast.
func TestDHCPOnTheWire(t *testing.T) {
	_, node := pair(t)
	c, err := node.listenUDP(tcpip.FullAddress{NIC: nic, Port: dhcpv4.ClientPort})
	if err != nil {
		t.Fatal(err)
	}
	discover, err := dhcpv4.NewDiscovery(node.config.MAC, dhcpv4.WithBroadcast(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(discover.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort}); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 1500)
	n, _, err := c.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := dhcpv4.FromBytes(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	mask, _ := offer.SubnetMask().Size()
	got := fmt.Sprint(offer.MessageType(), offer.YourIPAddr, mask, offer.Router(), offer.DNS(), offer.IPAddressLeaseTime(0))
	if diff := cmp.Diff("OFFER 192.168.76.100 24 [192.168.76.1] [192.168.76.1] 24h0m0s", got); diff != "" {
		t.Error(diff)
	}
}

func TestDialContext(t *testing.T) {
	g, node := pair(t)
	l, err := gonet.ListenTCP(node.stack, tcpip.FullAddress{Addr: tcpip.AddrFrom4([4]byte{10, 42, 1, 1}), Port: 22}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.WriteString(c, "SSH-2.0\n")
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := g.DialContext(ctx, netip.MustParseAddrPort("10.42.1.1:22"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); string(b) != "SSH-2.0\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	c.Close()
	if _, err := g.DialContext(ctx, netip.MustParseAddrPort("10.42.1.1:23")); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := g.DialContext(short, netip.MustParseAddrPort("10.42.1.9:22")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestDNS(t *testing.T) {
	g, node := pair(t)
	g.Add("rpi1", net.HardwareAddr{2, 0, 0, 0, 0, 9}, netip.MustParseAddr("10.42.1.1"))
	ask := func(name string, kind uint16) string {
		c, err := gonet.DialUDP(node.stack, nil, &tcpip.FullAddress{Addr: tcpip.AddrFrom4([4]byte{192, 168, 76, 1}), Port: 53}, ipv4.ProtocolNumber)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		co := &dns.Conn{Conn: c}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if err := co.WriteMsg(new(dns.Msg).SetQuestion(name, kind)); err != nil {
			t.Fatal(err)
		}
		m, err := co.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		out := dns.RcodeToString[m.Rcode]
		for _, rr := range m.Answer {
			out += " " + rr.(*dns.A).A.String()
		}
		return out
	}
	tests := []struct {
		name string
		kind uint16
		want string
	}{
		{"rpi1.", dns.TypeA, "NOERROR 10.42.1.1"},
		{"RPI1.lan.", dns.TypeA, "NOERROR 10.42.1.1"},
		{"rpi1.", dns.TypeAAAA, "NOERROR"},
		{"debian.org.", dns.TypeA, "SERVFAIL"},
	}
	for _, test := range tests {
		if got := ask(test.name, test.kind); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.name, dns.TypeToString[test.kind], got, test.want)
		}
	}
}

// TestARP sees that the gateway never takes another station's address for its
// own, not even while it stands in for the whole world.
func TestARP(t *testing.T) {
	g, node := pair(t)
	g.SetInternet(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := node.DialContext(ctx, netip.MustParseAddrPort("10.42.1.77:22"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("reached a station that is not there: %v", err)
	}
}

func FuzzDeliver(f *testing.F) {
	g, err := New(Config{
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, LAN: netip.MustParsePrefix("192.168.76.1/24"), Cubes: netip.MustParsePrefix("10.42.255.254/16"),
		Send: func([]byte) {},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { g.Close() })
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x02\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"))
	f.Add([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00\x00\x1c"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		// Put the rest of the stack behind the addresses, not in front of them.
		if len(frame) >= 6 {
			copy(frame, g.config.MAC)
		}
		g.Deliver(frame)
	})
}
