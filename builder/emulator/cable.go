package emulator

import (
	"fmt"

	"github.com/picube/picube-build/builder/emulator/wire"
)

// CutCable cuts the node's network cable; the guest sees that the link is gone.
func (n *Node) CutCable() { n.setCable(func() { n.cut = true }) }

// MendCable mends it.
func (n *Node) MendCable() { n.setCable(func() { n.cut = false }) }

// SetFaults makes the cable slow or lossy, in both directions.
func (n *Node) SetFaults(f wire.Faults) error {
	if f.Delay < 0 || f.Loss < 0 || f.Loss > 1 {
		return fmt.Errorf("node %s: cannot have a cable with a delay of %v and a loss of %v", n.card.Name, f.Delay, f.Loss)
	}
	n.setCable(func() { n.faults = f })
	return nil
}

// MoveTo plugs the cable into another segment.
func (n *Node) MoveTo(segment string) { n.setCable(func() { n.segment = segment }) }

func (n *Node) setCable(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	n.applyCable()
}

// applyCable brings the cable of a running machine into the state that the
// node's should have; one that is switched on later gets it then. n.mu is held.
func (n *Node) applyCable() {
	r := n.run
	if r == nil || !r.up {
		return
	}
	r.cable.Move(n.segment)
	r.cable.SetFaults(n.faults)
	if n.cut {
		r.cable.Cut()
	} else {
		r.cable.Mend()
	}
	// The cable is what counts; this is so that the guest notices, as far as
	// its network card can.
	go r.qmp.run("set_link", map[string]any{"name": "net0", "up": !n.cut})
}
