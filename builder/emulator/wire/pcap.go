package wire

import (
	"encoding/binary"
	"io"
	"sync"
)

// Capture writes what passes the switch to a pcap file, for tcpdump and
// Wireshark. Format: the classic one, with nanoseconds,
// https://ietf-opsawg-wg.github.io/draft-ietf-opsawg-pcap/draft-ietf-opsawg-pcap.html
type Capture struct {
	s       *Switch
	segment string

	mu  sync.Mutex
	w   io.Writer
	err error
}

// Capture begins to write every frame that a station could send to the segment,
// or every frame at all if segment is Everywhere. Writing is part of the
// forwarding, so w must not block.
func (s *Switch) Capture(segment string, w io.Writer) (*Capture, error) {
	var b [24]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], 0xa1b23c4d)
	le.PutUint16(b[4:], 2)
	le.PutUint16(b[6:], 4)
	le.PutUint32(b[16:], maxFrame)
	le.PutUint32(b[20:], 1) // Ethernet
	if _, err := w.Write(b[:]); err != nil {
		return nil, err
	}
	c := &Capture{s: s, segment: segment, w: w}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.captures[c] = true
	return c, nil
}

func (c *Capture) write(frame []byte) {
	now := c.s.now()
	b := make([]byte, 16, 16+len(frame))
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(now.Unix()))
	le.PutUint32(b[4:], uint32(now.Nanosecond()))
	le.PutUint32(b[8:], uint32(len(frame)))
	le.PutUint32(b[12:], uint32(len(frame)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		_, c.err = c.w.Write(append(b, frame...))
	}
}

// Stop ends the capture and says whether all was written.
func (c *Capture) Stop() error {
	c.s.mu.Lock()
	delete(c.s.captures, c)
	c.s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
