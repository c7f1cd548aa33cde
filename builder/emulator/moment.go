package emulator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"
)

// moment is what a node was when Keep was called, besides what QEMU keeps.
type moment struct {
	stage   Stage
	reached map[Stage]time.Duration
}

// momentTag is the name of QEMU's snapshot, in the node's overlay.
const momentTag = "kept"

// Keep has all nodes remember what they are now, with memory, processors and
// cards, for Recall; it takes the place of what was kept before. All must be on,
// and be MachineVirt. A GiB of memory that is in use is as much on the disk. What
// is on the wire just then is lost.
func (e *Emulator) Keep() error {
	return e.still(func(n *Node, q *qmp) error {
		if n.card.Machine != MachineVirt {
			return fmt.Errorf("cannot keep what a %s is", n.card.Machine)
		}
		if err := q.monitor("savevm " + momentTag); err != nil {
			return err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.moment = &moment{stage: n.stage, reached: maps.Clone(n.reached)}
		return nil
	})
}

// Recall makes all nodes what they were at Keep, whatever happened since, those
// without power included. It can't be done once a node has another card.
// Their clocks go on from then, and connections from the host are lost.
func (e *Emulator) Recall(ctx context.Context) error {
	for _, n := range e.Nodes() {
		if err := n.PlugIn(ctx); err != nil {
			return err
		}
	}
	return e.still(func(n *Node, q *qmp) error {
		n.mu.Lock()
		kept, client := n.moment, n.client
		n.client = nil
		n.mu.Unlock()
		if client != nil {
			client.Close()
		}
		if kept == nil {
			return errors.New("cannot recall what was never kept")
		}
		if err := q.monitor("loadvm " + momentTag); err != nil {
			return err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		// What the machine said before belongs to a time that never was.
		n.firstLine = n.console.next()
		n.scanned = n.firstLine
		n.heard = n.e.config.Now()
		n.stage, n.reached = kept.stage, maps.Clone(kept.reached)
		n.notify()
		return nil
	})
}

// still does something to all nodes while none of them runs, so that no node
// remembers a packet that another has yet to send.
func (e *Emulator) still(do func(*Node, *qmp) error) error {
	nodes := e.Nodes()
	errs := make([]error, len(nodes))
	each := func(step func(*Node, *qmp) error) error {
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() {
				n.mu.Lock()
				var q *qmp
				if n.run != nil {
					q = n.run.qmp
				}
				n.mu.Unlock()
				errs[i] = errors.New("it is off")
				if q != nil {
					errs[i] = step(n, q)
				}
				if errs[i] != nil {
					errs[i] = fmt.Errorf("node %s: %w", n.card.Name, errs[i])
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	for _, n := range nodes {
		n.power.Lock()
		defer n.power.Unlock()
	}
	err := each(func(_ *Node, q *qmp) error { return q.run("stop", nil) })
	if err == nil {
		err = each(do)
	}
	return errors.Join(err, each(func(_ *Node, q *qmp) error { return q.run("cont", nil) }))
}
