package blueprint

import "slices"

// checkBoards says what boards can't do that the blueprint asks of them.
func (p *parser) checkBoards(cubes []*Cube) {
	for _, c := range cubes {
		for _, n := range c.Nodes {
			board, ok := p.boardByName(n.Board)
			if !ok {
				continue // said before
			}
			why := board.cannotStart(c.Base.Kind)
			if why != "" {
				p.errorf(n.Range, "Board can't start on this base", "The node %q is a %s: %s", n.Name, n.Board, why)
			}
			// etcd runs on 64-bit machines only (etcd.io/docs, "Supported platforms").
			if c.Kubernetes != nil && slices.Contains(slices.Concat(c.Kubernetes.ControlPlane, c.ControlPlane), n.Name) && board.Arch == "armhf" {
				p.errorf(n.Range, "Board can't be a control plane",
					"The node %q is a %s, whose 32-bit system can't run etcd. It can be a worker: name a 64-bit node in \"control_plane\".", n.Name, n.Board)
			}
			if n.Range == c.Range && why != "" {
				break // the others are the same board
			}
		}
	}
}

// cannotStart says why a card on a base does not start the board; empty: it
// does.
func (b Board) cannotStart(base string) string {
	switch base {
	case BaseDebian:
		return b.NotOnDebian
	case BaseRaspios:
		return b.NotOnRaspios
	}
	return ""
}
