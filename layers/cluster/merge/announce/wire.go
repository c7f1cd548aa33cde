package announce

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// Wire is a node's end of the cubes' wire.
type Wire struct {
	Interface string // "eth0"
	Trust     Trust
	// Certificate and Key are the node's own.
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
	Pause       func(ctx context.Context, d time.Duration) error
}

// Times of the wire: an interface that is not there yet may come, and whoever
// floods it with nonsense must not take more than a part of the processor.
const (
	retry    = 10 * time.Second
	nonsense = 20 * time.Millisecond
)

// Listen tells hear of each announcement that can be believed, and refused of
// each that can't, until ctx ends.
func (w *Wire) Listen(ctx context.Context, hear func(merge.Record), refused func(from net.Addr, err error)) error {
	for {
		conn, err := w.open()
		if err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			w.read(ctx, conn, hear, refused)
			stop()
			conn.Close()
		}
		if err := w.Pause(ctx, retry); err != nil {
			return err
		}
	}
}

func (w *Wire) read(ctx context.Context, conn *net.UDPConn, hear func(merge.Record), refused func(net.Addr, error)) {
	packet := make([]byte, MaxSize+1)
	for {
		n, from, err := conn.ReadFromUDP(packet)
		if err != nil {
			return
		}
		r, err := w.Trust.Open(packet[:n])
		if err == nil {
			hear(r)
			continue
		}
		refused(from, err)
		if w.Pause(ctx, nonsense) != nil {
			return
		}
	}
}

// open joins the group on the interface. Go's socket for that does not hear
// what it sends itself.
func (w *Wire) open() (*net.UDPConn, error) {
	link, err := net.InterfaceByName(w.Interface)
	if err != nil {
		return nil, err
	}
	return net.ListenMulticastUDP("udp4", link, group())
}

func group() *net.UDPAddr { return &net.UDPAddr{IP: net.ParseIP(Group), Port: Port} }

// Send announces a cluster once.
func (w *Wire) Send(r merge.Record) error {
	packet, err := Seal(r, w.Certificate, w.Key)
	if err != nil {
		return err
	}
	conn, err := w.open() // joined to the group, it sends by the right interface
	if err != nil {
		return err
	}
	_, err = conn.WriteToUDP(packet, group())
	return errors.Join(err, conn.Close())
}
