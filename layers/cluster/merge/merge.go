// Package merge decides how clusters of one identity that meet become one. It
// does nothing itself: no network, no clock, no chance. Each of its functions
// takes what is known and returns what is to be kept and done; a daemon calls
// them again and again, so whatever is cut off is simply done once more.
//
// Three things are kept:
//
//   - a Record by every cluster, in its own store, replaced only if nobody else
//     did meanwhile. So a majority of the cluster's control plane stands behind
//     whatever it says.
//   - a Guest in the record of a cluster that leads, for each that it has let in.
//   - a Membership by every node, in a file: whose node it is.
//
// The losing cluster goes through the phases below and asks its leader two
// questions, Admit and Commit. The answer to Commit is the one moment at which
// its objects change hands: before it the loser is whole and can go back, from
// then on the leader has everything and the loser, which took no more writes,
// is only left to be cleared away.
//
// Who leads is a total order of what clusters never change (see Settings), so
// no circle can form; and a cluster that follows another or asks to lets
// nobody in, so all of a merge goes one way.
//
// Not here: which objects users made and how they are handed over.
package merge

import (
	"cmp"
	"reflect"
	"slices"
	"time"
)

// Phase is how far a cluster has come in following another one.
type Phase string

// The phases, in their order.
const (
	// Alone is a cluster that follows nobody; it may lead others.
	Alone Phase = "alone"
	// Asking waits to be let in.
	Asking Phase = "asking"
	// Snapshot keeps a copy of the state, for the day of an undo.
	Snapshot Phase = "snapshot"
	// HandOver gives the leader what users made.
	HandOver Phase = "hand-over"
	// Workers lets the workers leave one by one.
	Workers Phase = "workers"
	// Closing takes no more writes, hands over what was written meanwhile, and
	// asks the leader to take the cluster's place.
	Closing Phase = "closing"
	// Dissolved has lost its place: the control plane leaves, too.
	Dissolved Phase = "dissolved"
	// Undoing goes back to Alone as soon as the leader has let it go.
	Undoing Phase = "undoing"
)

// Record is what a cluster says of itself and keeps of others.
type Record struct {
	ID         string `json:"id"`   // random, made when the cluster begins
	Cube       string `json:"cube"` // the one that began it
	Born       int64  `json:"born"` // seconds since 1970 by the clock of that day
	Kubernetes string `json:"kubernetes"`
	// Version grows with every change: of two copies the higher one is newer.
	Version uint64 `json:"version"`
	// Term grows whenever the cluster begins or ends following another one. What
	// was asked or allowed in one term is worth nothing in another.
	Term   uint64 `json:"term"`
	Phase  Phase  `json:"phase"`
	Leader string `json:"leader,omitempty"` // the followed cluster's ID
	// LeaderCube is the cube where it is to be found.
	LeaderCube string `json:"leaderCube,omitempty"`
	// Leaving is the worker that has to leave now.
	Leaving string `json:"leaving,omitempty"`
	// Recall calls nodes back that left in this term or before.
	Recall uint64 `json:"recall,omitempty"`
	// Hold stops the cluster from following others by itself: a person undid it.
	Hold bool `json:"hold,omitempty"`
	// Told is that a person wants it to follow.
	Told bool `json:"told,omitempty"`
	// Guests are the clusters it has dealt with as a leader, by ID.
	Guests []Guest `json:"guests,omitempty"`
	// Spread are the nodes of other cubes that are of the control plane, in the
	// order in which they came: the last one may be about to join. Resigning is the
	// one of them that has to leave it now.
	Spread    []Seat `json:"spread,omitempty"`
	Resigning string `json:"resigning,omitempty"`
}

// Guest is a cluster that follows, as its leader keeps it.
type Guest struct {
	ID    string     `json:"id"`
	Cube  string     `json:"cube,omitempty"`
	Term  uint64     `json:"term"` // the guest's own
	State GuestState `json:"state"`
	// Left is that a part of the leader went away for good.
	Left bool `json:"left,omitempty"`
}

// GuestState is what a leader has allowed a guest.
type GuestState string

// The states of a guest.
const (
	// Admitted may hand over its objects and send its workers.
	Admitted GuestState = "admitted"
	// Absorbed has become part of the leader.
	Absorbed GuestState = "absorbed"
	// Released may live on its own again, or was never to be absorbed; in its
	// term nothing can change that.
	Released GuestState = "released"
	// Forgotten was admitted and then not heard any more. It counts no longer, but
	// its term is kept: what it asked in an earlier one may still be under way.
	Forgotten GuestState = "forgotten"
)

// Announcement is the part of a record that others are told.
func (r Record) Announcement() Record {
	r.Guests, r.Spread, r.Resigning = nil, nil, ""
	return r
}

// Interval is the time between two announcements of a cluster where there may be
// as many cubes: the more, the less often, so that a wire carries the same
// whatever its size (RFC 3550, section 6.2, has such a rule).
func Interval(cubes int) time.Duration {
	return max(minInterval, time.Duration(cubes)*2*time.Second)
}

const minInterval = 5 * time.Second

// Silence is the time after which a cluster is not there: several announcements
// were all lost, and nobody is that busy.
func Silence(cubes int) time.Duration { return max(minSilence, 6*Interval(cubes)) }

const minSilence = time.Minute

// Due reports whether the record is to be announced, since a time after its
// version told was. What a cluster does on its way into another one its nodes
// wait for; the others, who may be many, have time.
func (r Record) Due(told uint64, since time.Duration, cubes int) bool {
	news := r.Version != told && r.Phase != Alone && r.Phase != Asking
	return since >= Interval(cubes) || news && since >= max(minInterval, Interval(cubes)/4)
}

// Hear puts an announcement among those heard, which are sorted by ID. Of one
// cluster the newest counts, in whatever order they came.
func Hear(heard []Record, r Record) []Record {
	i, found := slices.BinarySearchFunc(heard, r.ID, func(h Record, id string) int { return cmp.Compare(h.ID, id) })
	if !found {
		return slices.Insert(slices.Clone(heard), i, r)
	}
	if heard[i].Version >= r.Version {
		return heard
	}
	heard[i] = r
	return heard
}

func find(heard []Record, id string) (Record, bool) {
	i := slices.IndexFunc(heard, func(h Record) bool { return h.ID == id })
	if i < 0 {
		return Record{}, false
	}
	return heard[i], true
}

// guest returns the entry of a cluster; its state is empty if there is none.
func (r Record) guest(id string) Guest {
	i := slices.IndexFunc(r.Guests, func(g Guest) bool { return g.ID == id })
	if i < 0 {
		return Guest{ID: id}
	}
	return r.Guests[i]
}

// with returns the record with a guest's entry replaced.
func (r Record) with(g Guest) Record {
	i, found := slices.BinarySearchFunc(r.Guests, g.ID, func(o Guest, id string) int { return cmp.Compare(o.ID, id) })
	r.Guests = slices.Clone(r.Guests)
	if found {
		r.Guests[i] = g
	} else {
		r.Guests = slices.Insert(r.Guests, i, g)
	}
	return r
}

// hosts counts the guests that are on their way.
func (r Record) hosts() int {
	n := 0
	for _, g := range r.Guests {
		if g.State == Admitted {
			n++
		}
	}
	return n
}

func equal(a, b Record) bool {
	lists := slices.Equal(a.Guests, b.Guests) && slices.Equal(a.Spread, b.Spread)
	a.Guests, b.Guests, a.Spread, b.Spread = nil, nil, nil, nil
	return lists && reflect.DeepEqual(a, b)
}

// Mode says whether a cluster that meets an elder one follows it.
type Mode string

// The modes.
const (
	Auto Mode = "auto" // by itself
	Ask  Mode = "ask"  // when a person says so
	Off  Mode = "off"  // never, nor does it lead
)

// Settings are what the blueprint says of merging.
type Settings struct {
	Mode Mode
	Lead string // the cube whose cluster leads; empty: the eldest
	// Hosts are the cubes whose identity stays where there are several: their
	// clusters lead all others.
	Hosts []string
}

// Before reports whether a leads b: a host, else the one that is named, else the
// elder, else the one with the lesser name. A clock that was wrong when a cluster
// began makes it elder or younger than it is, but for everybody alike.
func (s Settings) Before(a, b Record) bool {
	if host := slices.Contains(s.Hosts, a.Cube); host != slices.Contains(s.Hosts, b.Cube) {
		return host
	}
	if s.Lead != "" && (a.Cube == s.Lead) != (b.Cube == s.Lead) {
		return a.Cube == s.Lead
	}
	return cmp.Or(cmp.Compare(a.Born, b.Born), cmp.Compare(a.Cube, b.Cube), cmp.Compare(a.ID, b.ID)) < 0
}
