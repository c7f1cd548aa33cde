package merge

import "fmt"

// Kind is a kind of question between clusters.
type Kind string

// The questions.
const (
	Admit   Kind = "admit"   // may the asking cluster follow?
	Commit  Kind = "commit"  // take its place: everything has been handed over
	Release Kind = "release" // let it go again
	Where   Kind = "where"   // did the cluster Of become part of the one that is asked?
	Leave   Kind = "leave"   // it goes away for good, with what it has
)

// Request is a question. Who asks is known by certificate.
type Request struct {
	Kind Kind   `json:"kind"`
	From Record `json:"from"`
	Of   string `json:"of,omitempty"`
}

// Verdict is an answer's gist.
type Verdict string

// The verdicts. No is final for the term that asked.
const (
	Yes   Verdict = "yes"
	Later Verdict = "later"
	No    Verdict = "no"
)

// Reply is an answer.
type Reply struct {
	From     string  `json:"from"` // the answering cluster
	FromCube string  `json:"fromCube"`
	Kind     Kind    `json:"kind"`
	Term     uint64  `json:"term"` // of the question
	Verdict  Verdict `json:"verdict,omitempty"`
	Why      string  `json:"why,omitempty"`
	// Of Where: what was asked about, and what the one that answers keeps of it
	// and of the one that asks.
	Of     string `json:"of,omitempty"`
	Leader Guest  `json:"leader,omitzero"`
	Own    Guest  `json:"own,omitzero"`
}

// room is how many clusters a leader lets in at once: each hands its objects
// to an API server on a small board.
const room = 4

// Answer answers another cluster's question. The record that it returns must
// be stored before the reply is sent. Untouched is whether nobody changed what
// the asking cluster handed over; only Release wants to know.
func (s Settings) Answer(r Record, q Request, untouched bool) (Record, Reply) {
	next, a := s.answer(r, q, untouched)
	if !equal(next, r) {
		next.Version = r.Version + 1
	}
	a.From, a.FromCube, a.Kind, a.Term = r.ID, r.Cube, q.Kind, q.From.Term
	return next, a
}

func (s Settings) answer(r Record, q Request, untouched bool) (Record, Reply) {
	g := r.guest(q.From.ID)
	no := func(format string, args ...any) (Record, Reply) {
		return r, Reply{Verdict: No, Why: fmt.Sprintf(format, args...)}
	}
	switch {
	case q.Kind == Where:
		return r, Reply{Of: q.Of, Leader: r.guest(q.Of), Own: g}
	case g.Term > q.From.Term:
		return no("the question is an old one")
	}
	now := Guest{ID: q.From.ID, Cube: q.From.Cube, Term: q.From.Term}
	known := g.State != "" && g.Term == q.From.Term
	switch q.Kind {
	case Admit:
		switch {
		case known && g.State == Admitted:
			return r, Reply{Verdict: Yes}
		case known && g.State != Forgotten:
			return no("it was %s", g.State)
		case s.Mode == Off:
			return no("it is not to merge")
		case r.Phase != Alone:
			return no("it is about to follow the cluster of %s", r.LeaderCube)
		case r.Kubernetes != q.From.Kubernetes:
			return no("it runs Kubernetes %s, not %s", r.Kubernetes, q.From.Kubernetes)
		case !s.Before(r, q.From):
			return no("it does not lead; do the blueprints name different ones?")
		case r.hosts() >= room:
			return r, Reply{Verdict: Later, Why: "others come first"}
		}
		now.State = Admitted
		return r.with(now), Reply{Verdict: Yes}
	case Commit:
		switch {
		case known && g.State == Absorbed:
			return r, Reply{Verdict: Yes}
		case known && g.State == Admitted && r.Phase == Alone:
			now.State = Absorbed
			r = r.with(now)
			// What became part of the guest is part of this one now; their nodes
			// may come back and ask.
			for _, of := range q.From.Guests {
				if of.State == Absorbed && of.ID != r.ID && r.guest(of.ID).Term <= of.Term {
					r = r.with(of)
				}
			}
			return r, Reply{Verdict: Yes}
		}
		// A copy of this question may still be under way: it must get the same
		// answer, since the one that asks takes writes again after this one.
		now.State = Released
		return r.with(now), Reply{Verdict: No, Why: "it was not admitted, or its leader follows another one"}
	case Leave:
		if known && g.State == Absorbed && !g.Left {
			g.Left = true
			r = r.with(g)
		}
		return r, Reply{Verdict: Yes}
	case Release:
		if known && g.State == Absorbed && r.seats(q.From.Cube) {
			return no("its node is of the control plane here, so it can only be split off")
		}
		if known && g.State == Absorbed && !untouched {
			return no("what it handed over was changed since")
		}
		now.State = Released
		return r.with(now), Reply{Verdict: Yes}
	}
	return no("it can't be asked %q", q.Kind)
}
