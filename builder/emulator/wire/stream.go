package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Cable is a station at the other end of a stream socket.
type Cable struct {
	*Port
	conn net.Conn
	err  chan error
}

// PlugConn connects a QEMU network device (-netdev stream): frames with their
// length as four big-endian bytes in front. The cable belongs to the switch
// until Close, or until the other end hangs up.
func (s *Switch) PlugConn(name, segment string, conn net.Conn) *Cable {
	c := &Cable{conn: conn, err: make(chan error, 1)}
	c.Port = s.plug(name, segment, func(buf []byte) {
		if _, err := conn.Write(buf); err != nil {
			conn.Close()
		}
	})
	go func() {
		err := c.read()
		c.Unplug()
		conn.Close()
		c.err <- err
	}()
	return c
}

func (c *Cable) read() error {
	var header [headerSpace]byte
	for {
		if _, err := io.ReadFull(c.conn, header[:]); err != nil {
			if err == io.EOF || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("cable of %s: %w", c.name, err)
		}
		n := binary.BigEndian.Uint32(header[:])
		if n > maxFrame {
			return fmt.Errorf("cable of %s: cannot carry a frame of %d bytes", c.name, n)
		}
		buf := make([]byte, headerSpace+n)
		copy(buf, header[:])
		if _, err := io.ReadFull(c.conn, buf[headerSpace:]); err != nil {
			return fmt.Errorf("cable of %s: %w", c.name, err)
		}
		c.send(buf)
	}
}

// Close unplugs the cable and waits until nothing is read or delivered.
func (c *Cable) Close() error {
	c.Unplug()
	c.conn.Close()
	err := <-c.err
	c.err <- err
	<-c.stopped
	return err
}
