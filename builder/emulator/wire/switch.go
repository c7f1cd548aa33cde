// Package wire is an Ethernet switch in user space: stations on cables, cables
// in segments, segments that are joined and split while frames flow. Cables
// can be cut, delayed and made lossy, and all that passes can be captured.
//
// It is our own because what tests must do to a network (cut, split, lose) is
// not what existing user-space switches offer. Not supported: VLANs, spanning
// tree (joins must not form what would be a loop of cables; they can't, since
// segments that are joined are one broadcast domain here), IGMP snooping.
package wire

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Limits of what a station may make the switch remember.
const (
	maxFrame    = 64<<10 + 4096 // what QEMU's stream protocol allows
	minFrame    = 14            // an Ethernet header
	maxQueue    = 1024          // frames waiting for a station; more are dropped, as in any switch
	maxLearned  = 4096
	headerSpace = 4 // QEMU's length field in front of each frame
)

// Everywhere is the segment of a station that hears and reaches every segment
// without connecting them: the host.
const Everywhere = "*"

type address [6]byte

// Switch connects ports. The zero value is not usable; use New.
type Switch struct {
	now    func() time.Time
	random func() float64

	mu       sync.Mutex
	ports    map[*Port]bool
	learned  map[address]*Port
	links    map[[2]string]bool
	captures map[*Capture]bool
}

// New makes a switch without ports. random gives numbers in [0,1), for loss.
func New(now func() time.Time, random func() float64) *Switch {
	return &Switch{
		now:      now,
		random:   random,
		ports:    map[*Port]bool{},
		learned:  map[address]*Port{},
		links:    map[[2]string]bool{},
		captures: map[*Capture]bool{},
	}
}

// Faults is what is wrong with a cable, in both directions.
type Faults struct {
	Delay time.Duration // each way
	Loss  float64       // share of frames lost, each way: 0 none, 1 all
}

// Port is where a station's cable ends.
type Port struct {
	s       *Switch
	name    string
	queue   chan queued
	done    chan struct{}
	once    sync.Once
	stopped chan struct{}

	// Guarded by s.mu.
	segment string
	cut     bool
	faults  Faults
}

// queued is a frame on its way to a station, with room for QEMU's header.
type queued struct {
	buf []byte
	due time.Time
}

// plug connects a station. deliver gets each frame for it with its length in
// front, as QEMU wants it. The buffer is shared with other stations.
func (s *Switch) plug(name, segment string, deliver func(buf []byte)) *Port {
	p := &Port{
		s: s, name: name, segment: segment,
		queue:   make(chan queued, maxQueue),
		done:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	s.mu.Lock()
	s.ports[p] = true
	s.mu.Unlock()
	go p.run(deliver)
	return p
}

// Plug connects a station. deliver gets each frame for it, from one goroutine;
// it must neither change nor keep the frame.
func (s *Switch) Plug(name, segment string, deliver func(frame []byte)) *Port {
	return s.plug(name, segment, func(buf []byte) { deliver(buf[headerSpace:]) })
}

func (p *Port) run(deliver func([]byte)) {
	defer close(p.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-p.done:
			return
		case q := <-p.queue:
			if wait := q.due.Sub(p.s.now()); !q.due.IsZero() && wait > 0 {
				timer.Reset(wait)
				select {
				case <-p.done:
					return
				case <-timer.C:
				}
			}
			deliver(q.buf)
		}
	}
}

// Unplug takes the station off the switch; frames on their way are lost. It
// does not wait for a delivery that is under way.
func (p *Port) Unplug() {
	p.once.Do(func() { close(p.done) })
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	delete(p.s.ports, p)
	p.s.forget(p)
}

// Cut cuts the cable; Mend joins its ends.
func (p *Port) Cut() { p.setCut(true) }

// Mend mends a cable that was cut.
func (p *Port) Mend() { p.setCut(false) }

func (p *Port) setCut(cut bool) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.cut = cut
	p.s.forget(p)
}

// SetFaults replaces what is wrong with the cable.
func (p *Port) SetFaults(f Faults) error {
	if f.Delay < 0 || f.Loss < 0 || f.Loss > 1 {
		return fmt.Errorf("cable of %s: cannot have a delay of %v and a loss of %v", p.name, f.Delay, f.Loss)
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.faults = f
	return nil
}

// Move plugs the cable into another segment.
func (p *Port) Move(segment string) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.segment = segment
	p.s.forget(p)
}

func (s *Switch) forget(p *Port) {
	maps.DeleteFunc(s.learned, func(_ address, q *Port) bool { return p == q })
}

// Join connects two segments; Split takes that connection away.
func (s *Switch) Join(a, b string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[link(a, b)] = true
}

// Split takes away the connection that Join made between two segments. They
// may still be connected through a third.
func (s *Switch) Split(a, b string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, link(a, b))
	clear(s.learned)
}

func link(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// connected says whether frames pass from one segment to another.
func (s *Switch) connected(a, b string) bool {
	if a == b || a == Everywhere || b == Everywhere {
		return true
	}
	if len(s.links) == 0 {
		return false
	}
	seen := map[string]bool{a: true}
	for next := []string{a}; len(next) > 0; next = next[1:] {
		for l := range s.links {
			other := l[1]
			if l[1] == next[0] {
				other = l[0]
			} else if l[0] != next[0] {
				continue
			}
			if other == b {
				return true
			}
			if !seen[other] {
				seen[other] = true
				next = append(next, other)
			}
		}
	}
	return false
}

// Send takes a frame from the station. The frame is copied.
func (p *Port) Send(frame []byte) {
	buf := make([]byte, headerSpace+len(frame))
	binary.BigEndian.PutUint32(buf, uint32(len(frame)))
	copy(buf[headerSpace:], frame)
	p.send(buf)
}

// send takes a frame with its length in front; it belongs to the switch then.
func (p *Port) send(buf []byte) {
	frame := buf[headerSpace:]
	if len(frame) < minFrame {
		return
	}
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ports[p] || p.cut || s.lost(p) {
		return
	}
	to, from := address(frame[:6]), address(frame[6:12])
	if _, known := s.learned[from]; known || !from.group() && len(s.learned) < maxLearned {
		s.learned[from] = p
	}
	for c := range s.captures {
		if s.connected(c.segment, p.segment) {
			c.write(frame)
		}
	}
	if q := s.learned[to]; q != nil && !to.group() && s.connected(p.segment, q.segment) {
		if q != p {
			s.forward(p, q, buf)
		}
		return
	}
	for q := range s.ports {
		if q != p && s.connected(p.segment, q.segment) {
			s.forward(p, q, buf)
		}
	}
}

func (s *Switch) forward(from, to *Port, buf []byte) {
	if to.cut || s.lost(to) {
		return
	}
	q := queued{buf: buf}
	if delay := from.faults.Delay + to.faults.Delay; delay > 0 {
		q.due = s.now().Add(delay)
	}
	select {
	case to.queue <- q:
	default:
	}
}

func (s *Switch) lost(p *Port) bool { return p.faults.Loss > 0 && s.random() < p.faults.Loss }

// group says whether an address is for many stations (broadcast, multicast).
func (a address) group() bool { return a[0]&1 != 0 }

// Segments lists the segments that have stations, sorted.
func (s *Switch) Segments() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for p := range s.ports {
		names[p.segment] = true
	}
	delete(names, Everywhere)
	return slices.Sorted(maps.Keys(names))
}
