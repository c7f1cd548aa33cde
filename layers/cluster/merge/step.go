package merge

import (
	"fmt"
	"slices"
	"strings"
)

// Sight is what a cluster's control plane sees while it decides.
type Sight struct {
	// Heard are other clusters of the identity that were heard lately.
	Heard []Record
	// Replies are the newest answers of others to this cluster's questions.
	Replies []Reply
	// Clash are the names of nodes that the leader has for others, sorted. Blind is
	// that nobody could look.
	Clash []string
	Blind bool
	// Snapshot is the term in which the newest snapshot was taken.
	Snapshot uint64
	// Frozen is that the cluster takes no more writes from users; of one that is
	// alone, also that it starts no more pods.
	Frozen bool
	// Handed is that every object of a user is at the leader and runs there, or is
	// reported as one that the leader has differently; seen after Frozen.
	Handed bool
	// Workers are the cluster's own, sorted by name.
	Workers []Worker
	// Term is the newest of the cluster's that its control-plane nodes know. It
	// is higher than the record's where a state was put back that had been kept.
	Term uint64
	// Control are the nodes that may be of the control plane; none: nobody looked.
	Control []Control
	// Order is what a person wants.
	Order Order
}

// Worker is a node that is to leave.
type Worker struct {
	Name  string
	Here  bool // takes work of this cluster
	There bool // takes work of the leader
	Left  bool // says that it is the leader's
	Lost  bool // was neither for so long that nobody waits for it
}

// Order is what a person tells a cluster.
type Order string

// The orders. None is the usual case.
const (
	None  Order = ""
	Merge Order = "merge"
	Undo  Order = "undo"
	// Split is Undo without asking the leader, which is far away: it keeps what
	// it was given, and so does the cluster.
	Split Order = "split"
	// Forget, and the name of a cube, tells a leader that this one is gone for good.
	Forget Order = "forget "
)

// Do is a kind of action.
type Do string

// The actions. Each may be done any number of times; whether it is done shows
// in the next sight.
const (
	DoAsk      Do = "ask"       // put Request to the cluster To
	DoSnapshot Do = "snapshot"  // keep a copy of the state, of this term
	DoHandOver Do = "hand over" // apply the users' objects at the cluster To
	DoCordon   Do = "cordon"    // start no more pods
	DoFreeze   Do = "freeze"    // refuse users' writes
	DoThaw     Do = "thaw"      // take them again, and start pods
	DoWithdraw Do = "withdraw"  // delete what the cluster To handed over and nobody touched
	DoForget   Do = "forget"    // delete the nodes of the cluster To that left for good
	DoSpread   Do = "spread"    // make who has a seat a member of the control plane, and nobody else
)

// Action is something to do after the record is stored.
type Action struct {
	Do      Do
	To      string  // a cluster's ID
	Request Request // of DoWithdraw only what the cluster To says of itself
}

// Step brings a cluster one step further. The record that it returns must be
// stored before any of the actions is done; where somebody else stored another
// one meanwhile, neither happens.
func (s Settings) Step(r Record, v Sight) (Record, []Action) {
	next := s.next(r, v)
	if !equal(next, r) {
		next.Version = r.Version + 1
	}
	return next, s.actions(next, v)
}

func (s Settings) next(r Record, v Sight) Record {
	r = r.withoutSilent(v.Heard).withLeft(v.Heard, v.Order)
	if v.Order == Merge {
		r.Hold, r.Told = false, true
	}
	if v.Term > r.Term {
		r.Term = v.Term - 1
		return r.home()
	}
	if v.Order == Split && r.Phase != Alone {
		return r.home()
	}
	if r.Phase != Alone && r.Phase != Asking && r.Phase != Dissolved {
		if next, ok := r.movedOn(v); ok {
			return next
		}
		if v.Order == Undo {
			r.Phase, r.Leaving = Undoing, ""
		}
	}
	answer := v.verdict(r)
	switch r.Phase {
	case Alone:
		leader, ok := s.leader(r, v.Heard)
		follows := ok && s.may(r) && r.hosts() == 0
		if len(v.Control) > 0 {
			r = r.spread(v.Control, follows)
		}
		if follows && len(r.Spread) == 0 {
			r.Phase, r.Leader, r.LeaderCube = Asking, leader.ID, leader.Cube
			r.Term++
		}
	case Asking:
		_, heard := find(v.Heard, r.Leader)
		switch {
		case answer == Yes && v.distinct():
			r.Phase = Snapshot
		case answer == No, !heard, v.Order == Undo:
			r = r.alone()
			r.Hold = r.Hold || v.Order == Undo
		}
	case Snapshot:
		if v.Snapshot == r.Term {
			r.Phase = HandOver
		}
	case HandOver:
		if v.Handed {
			r.Phase = Workers
		}
	case Workers:
		if r.Leaving = leaving(r.Leaving, v.Workers); r.Leaving == "" {
			r.Phase = Closing
		}
	case Closing:
		switch answer {
		case Yes:
			r.Phase = Dissolved
		case No:
			r = r.alone()
		}
	case Undoing:
		switch answer {
		case Yes:
			r = r.home()
		case No:
			r.Phase = Closing
		}
	}
	return r
}

// distinct reports whether no node would take another one's place.
func (v Sight) distinct() bool { return len(v.Clash) == 0 && !v.Blind }

// verdict returns the leader's answer to what the record asks now, if there is
// one.
func (v Sight) verdict(r Record) Verdict {
	asked := map[Phase]Kind{Asking: Admit, Closing: Commit, Undoing: Release}[r.Phase]
	for _, a := range v.Replies {
		if a.Kind == asked && a.From == r.Leader && a.Term == r.Term {
			return a.Verdict
		}
	}
	return ""
}

// alone ends the following of another cluster.
func (r Record) alone() Record {
	r.Phase, r.Leader, r.LeaderCube, r.Leaving = Alone, "", "", ""
	r.Term++
	return r
}

// home ends it by a person's wish: nodes that left come back, and it does not
// begin again by itself.
func (r Record) home() Record {
	r.Recall = r.Term
	r = r.alone()
	r.Hold, r.Told = true, false
	return r
}

// withoutSilent ends the stay of guests that are not heard any more or have
// gone on: they would keep the cluster from following another one for ever.
// Such a guest's Commit is refused, so it asks anew when it comes back.
func (r Record) withoutSilent(heard []Record) Record {
	for _, g := range r.Guests {
		if h, ok := find(heard, g.ID); g.State == Admitted && (!ok || h.Term > g.Term) {
			g.State = Forgotten
			r = r.with(g)
		}
	}
	return r
}

// may reports whether the cluster may follow another one at all.
func (s Settings) may(r Record) bool {
	return s.Mode == Auto && !r.Hold || s.Mode != Off && r.Told
}

// leader returns the cluster that this one should follow.
func (s Settings) leader(r Record, heard []Record) (Record, bool) {
	best, found := r, false
	for _, h := range heard {
		if h.Phase == Alone && h.Kubernetes == r.Kubernetes && s.Before(h, best) {
			best, found = h, true
		}
	}
	return best, found
}

// queue counts those that wait for the same leader and come first. Not all have
// to ask it again and again: it has room for a few.
func (s Settings) queue(r Record, heard []Record) int {
	n := 0
	for _, h := range heard {
		if h.Phase == Asking && h.Leader == r.Leader && s.Before(h, r) {
			n++
		}
	}
	return n
}

// leaving returns the worker that is to leave now: the one that was told to
// until it has arrived, then the next; empty when none is left. Nobody waits for the
// arrival of the last one.
func leaving(told string, workers []Worker) string {
	next := ""
	for _, w := range slices.Backward(workers) {
		if w.Here && !w.There && w.Name != told {
			next = w.Name
		}
	}
	i := slices.IndexFunc(workers, func(w Worker) bool { return w.Name == told })
	if i >= 0 && !workers[i].There && !workers[i].Lost && !(workers[i].Left && next == "") {
		return told
	}
	return next
}

// movedOn is what becomes of a cluster whose leader became part of another one.
// Either the leader had taken its place before, then it was handed on with the
// rest; or it never will, and all is to be done again.
func (r Record) movedOn(v Sight) (Record, bool) {
	i := slices.IndexFunc(v.Replies, func(w Reply) bool {
		return w.Kind == Where && w.Term == r.Term && w.Of == r.Leader && w.Leader.State == Absorbed
	})
	if i < 0 {
		return r, false
	}
	w := v.Replies[i]
	if w.Own.State == Absorbed && w.Own.Term == r.Term {
		r.Leader, r.LeaderCube = w.From, w.FromCube
		if r.Phase != Undoing {
			r.Phase = Dissolved
		}
		return r, true
	}
	if r.Phase == Undoing {
		return r.home(), true
	}
	return r.alone(), true
}

func (s Settings) actions(r Record, v Sight) []Action {
	ask := func(k Kind) Action {
		return Action{Do: DoAsk, To: r.Leader, Request: Request{Kind: k, From: r.Announcement()}}
	}
	var out []Action
	switch r.Phase {
	case Alone:
		if v.Frozen {
			out = append(out, Action{Do: DoThaw})
		}
		if len(v.Control) > 0 {
			out = append(out, Action{Do: DoSpread})
		}
	case Asking:
		if s.queue(r, v.Heard) < room && v.distinct() {
			out = append(out, ask(Admit))
		}
	case Snapshot:
		out = append(out, Action{Do: DoSnapshot})
	case HandOver:
		out = append(out, Action{Do: DoHandOver, To: r.Leader})
	case Workers:
		out = append(out, Action{Do: DoCordon})
	case Closing:
		switch {
		case !v.Frozen:
			out = append(out, Action{Do: DoFreeze})
		case !v.Handed:
			out = append(out, Action{Do: DoHandOver, To: r.Leader})
		default:
			// What became part of this cluster goes with it.
			out = append(out, Action{Do: DoAsk, To: r.Leader, Request: Request{Kind: Commit, From: r}})
		}
	case Undoing:
		out = append(out, ask(Release))
	}
	if _, heard := find(v.Heard, r.Leader); !heard && r.Leader != "" && r.Phase != Dissolved {
		for _, h := range v.Heard {
			if h.Phase == Alone {
				out = append(out, Action{Do: DoAsk, To: h.ID, Request: Request{Kind: Where, From: r.Announcement(), Of: r.Leader}})
			}
		}
	}
	for _, g := range r.Guests {
		// Only when the guest lives again: until then this is all there is.
		if h, ok := find(v.Heard, g.ID); ok && g.State == Released && h.Phase == Alone && h.Term > g.Term {
			out = append(out, Action{Do: DoWithdraw, To: g.ID, Request: Request{From: h}})
		}
		if g.Left && r.Phase == Alone && r.hasLeft(g.Cube) && !r.seats(g.Cube) {
			out = append(out, Action{Do: DoForget, To: g.ID})
		}
	}
	return out
}

// Text tells a person what a cluster is doing; empty: nothing worth a word.
func (s Settings) Text(r Record, v Sight) string {
	to := "the cluster of " + r.LeaderCube
	switch r.Phase {
	case Asking:
		if len(v.Clash) > 0 {
			return fmt.Sprintf("can't follow %s: it has other nodes named %s; build these cards with another hostname", to, strings.Join(v.Clash, ", "))
		}
		if v.verdict(r) == Later || s.queue(r, v.Heard) >= room {
			return "waiting to follow " + to + ": others come first"
		}
		return "asking to follow " + to
	case Snapshot:
		return "keeping a snapshot before following " + to
	case HandOver:
		return "handing over to " + to
	case Workers:
		if r.Leaving == "" {
			return "workers leave for " + to
		}
		return fmt.Sprintf("%s leaves for %s", r.Leaving, to)
	case Closing:
		return "closing, " + to + " takes over"
	case Dissolved:
		return "became part of " + to
	case Undoing:
		return "undoing, " + to + " has to let it go"
	}
	if text := r.spreading(v.Control); text != "" {
		return text
	}
	for _, g := range r.Guests {
		if h, ok := find(v.Heard, g.ID); ok && g.State == Admitted && h.Term == g.Term && h.Phase != Asking {
			return fmt.Sprintf("the cluster of %s joins: %s", h.Cube, h.Phase)
		}
	}
	for _, h := range v.Heard {
		if h.Kubernetes != r.Kubernetes && s.Before(h, r) {
			return fmt.Sprintf("can't follow the cluster of %s: it runs Kubernetes %s, this one %s; upgrade the lower one", h.Cube, h.Kubernetes, r.Kubernetes)
		}
	}
	if leader, ok := s.leader(r, v.Heard); ok && !s.may(r) && s.Mode != Off {
		return fmt.Sprintf("the cluster of %s is here; say \"picube-node merge\" to follow it", leader.Cube)
	}
	return ""
}
