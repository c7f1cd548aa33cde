package merge

// Membership is what a node keeps in a file: whose node it is. It is written
// before the node leaves, so that it knows where it belongs whenever it starts.
type Membership struct {
	Home string `json:"home"` // the cluster that its cube began
	// Cluster and Cube are the cluster it belongs to, and where to find it.
	Cluster string `json:"cluster"`
	Cube    string `json:"cube"`
	// Term is the newest of the home cluster's that the node knows; away from
	// home the one in which it left.
	Term uint64 `json:"term"`
}

// NodeSight is what a node knows when it decides.
type NodeSight struct {
	Name string
	Cube string // its own
	// ControlPlane is that the node is of its home cluster's control plane.
	ControlPlane bool
	// Heard are clusters heard lately, the node's own included.
	Heard []Record
	// Where are answers to where the node's cluster and its home went; Of says
	// which, Leader what became of it.
	Where []Reply
}

// Step returns where the node belongs. Where that differs from before in
// Cluster, the node leaves the one and enters the other, once the new
// membership is stored. A node of the home's control plane puts its cluster's
// state aside when it leaves, and back when it comes home.
func (m Membership) Step(v NodeSight) Membership {
	own, alive := find(v.Heard, m.Cluster)
	atHome := m.Cluster == m.Home
	if atHome && alive {
		m.Term = max(m.Term, own.Term)
	}
	if alive && !(atHome && own.Term < m.Term) {
		worker := !(atHome && v.ControlPlane)
		if own.Phase == Dissolved || worker && own.Phase == Workers && own.Leaving == v.Name {
			return m.move(own.Leader, own.LeaderCube)
		}
	}
	if home, ok := find(v.Heard, m.Home); ok && !atHome && home.Recall >= m.Term {
		if v.ControlPlane {
			return m.Return(v.Cube)
		}
		m.Term = home.Term
		return m.move(home.ID, home.Cube)
	}
	for _, w := range v.Where {
		g := w.Leader
		switch {
		case w.Kind != Where:
		case w.Of == m.Cluster && g.State == Absorbed && !(atHome && g.Term < m.Term) && !(alive && g.Term < own.Term):
			return m.move(w.From, w.FromCube)
		case w.Of == m.Home && g.State == Released && !atHome && v.ControlPlane && g.Term >= m.Term:
			return m.Return(v.Cube)
		}
	}
	return m
}

// Return makes a node of a control plane go home. Its state there is of the
// term in which it left; that the node knows a later one tells the cluster not
// to go on with it.
func (m Membership) Return(cube string) Membership {
	m.Term++
	return m.move(m.Home, cube)
}

func (m Membership) move(cluster, cube string) Membership {
	m.Cluster, m.Cube = cluster, cube
	return m
}
