package gateway

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const dialTimeout = 30 * time.Second

// target is where a flow wants to go, and whether it may. Addresses that mean
// the host itself or the networks of this wire are never reached from inside.
func (g *Gateway) target(id stack.TransportEndpointID) (string, bool) {
	addr, ok := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	if !ok || !addr.IsGlobalUnicast() || g.config.LAN.Contains(addr) || g.config.Cubes.Contains(addr) {
		return "", false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return netip.AddrPortFrom(addr, id.LocalPort).String(), g.internet
}

// track remembers a connection of the host, so that closing the way out cuts it.
func (g *Gateway) track(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.internet {
		c.Close()
		return false
	}
	g.outside[c] = true
	return true
}

func (g *Gateway) untrack(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.outside, c)
	c.Close()
}

func (g *Gateway) forwardTCP(r *tcp.ForwarderRequest) {
	to, ok := g.target(r.ID())
	if !ok {
		r.Complete(true)
		return
	}
	out, err := net.DialTimeout("tcp", to, dialTimeout)
	if err != nil || !g.track(out) {
		r.Complete(true)
		return
	}
	defer g.untrack(out)
	var wq waiter.Queue
	ep, tcpErr := r.CreateEndpoint(&wq)
	r.Complete(tcpErr != nil)
	if tcpErr != nil {
		return
	}
	Splice(gonet.NewTCPConn(&wq, ep), out)
}

// Splice copies both ways until both ends have said all, then closes them.
func Splice(a, b net.Conn) {
	var wg sync.WaitGroup
	half := func(to, from net.Conn) {
		io.Copy(to, from)
		if c, ok := to.(interface{ CloseWrite() error }); ok {
			c.CloseWrite()
		}
	}
	wg.Go(func() { half(a, b) })
	wg.Go(func() { half(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}

func (g *Gateway) forwardUDP(r *udp.ForwarderRequest) {
	to, ok := g.target(r.ID())
	if !ok {
		return
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		return
	}
	in := gonet.NewUDPConn(&wq, ep)
	go g.relayUDP(in, to)
}

// relayUDP carries one flow until it has been silent for a while.
func (g *Gateway) relayUDP(in *gonet.UDPConn, to string) {
	defer in.Close()
	out, err := net.Dial("udp", to)
	if err != nil || !g.track(out) {
		return
	}
	defer g.untrack(out)
	var wg sync.WaitGroup
	half := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			idle := time.AfterFunc(deadline, func() { from.Close() })
			n, err := from.Read(buf)
			idle.Stop()
			if err != nil {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	wg.Go(func() { half(in, out) })
	wg.Go(func() { half(out, in) })
	wg.Wait()
}
