package merged

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// Kept is what a cluster keeps.
type Kept struct {
	Record merge.Record
	Order  merge.Order // of a person, until it was obeyed
	// Revision names what was read, so that only that is replaced.
	Revision string
}

// Store is where a cluster keeps its record. A majority of its control plane
// stands behind it.
type Store interface {
	Load(ctx context.Context) (Kept, error)
	// Save fails with ErrChanged if somebody else saved since.
	Save(ctx context.Context, k Kept) error
}

// ErrChanged is that somebody else was quicker.
var ErrChanged = errors.New("somebody else changed it meanwhile")

// Works are done to a cluster, each of them any number of times.
type Works interface {
	// Leads reports whether this node is the one of the control plane that acts.
	Leads(ctx context.Context) (bool, error)
	// See adds to a sight what the cluster's state says.
	See(ctx context.Context, r merge.Record, v *merge.Sight) error
	// Do does any action but DoAsk.
	Do(ctx context.Context, r merge.Record, a merge.Action) error
	// Tell leaves a word for those who look at the cluster.
	Tell(ctx context.Context, text string) error
}

// Asker puts a question to the control plane of a cube.
type Asker interface {
	Ask(ctx context.Context, cube string, q merge.Request) (merge.Reply, error)
}

// Controller brings a cluster from step to step. It runs on each node of its
// control plane.
type Controller struct {
	Settings merge.Settings
	Cubes    int // that may have clusters
	Store    Store
	Works    Works
	Asker    Asker
	Heard    *Heard
	// Term is the newest of the cluster's that this node knows.
	Term func() uint64
	// Announce sends a record to all who listen.
	Announce func(merge.Record) error
	// Say is told, in words for a person, what the cluster is doing; alone says
	// that it goes on with its own work meanwhile.
	Say   func(text string, alone bool)
	Now   func() time.Time
	Pause func(ctx context.Context, d time.Duration) error
	Log   *slog.Logger

	replies []merge.Reply
	refused map[string]time.Time // by the cluster that said no
	said    string
	begun   time.Time

	mu       sync.Mutex
	present  merge.Record // as read last
	read     time.Time
	told     uint64 // version of the last announcement, by whichever node
	toldTime time.Time
}

// Times of the loop: quiet as long as nothing is to be done, since each look
// is a question to an API server on a small board.
const (
	quiet = 10 * time.Second
	busy  = 2 * time.Second
	// patience is the time until a cluster that said no is asked again.
	patience = 5 * time.Minute
	// fresh is how often the record is read in any case, stale how old one may
	// be that is announced.
	fresh = 20 * time.Second
	stale = 2 * time.Minute
)

// Run steps until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.refused, c.begun = map[string]time.Time{}, c.Now()
	failure := ""
	for {
		wait, err := c.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failure = ""
		case err.Error() != failure:
			failure = err.Error()
			c.Log.Warn("merge: will try again", "error", err)
		}
		if err != nil {
			wait = quiet
		}
		if err := c.Pause(ctx, wait); err != nil {
			return err
		}
	}
}

// turn is one step, and what follows from it.
func (c *Controller) turn(ctx context.Context) (time.Duration, error) {
	kept, err := c.Store.Load(ctx)
	if err != nil {
		return 0, err
	}
	c.learn(kept.Record)
	leads, err := c.Works.Leads(ctx)
	if err != nil || !leads {
		return quiet, err
	}
	if c.isNew(kept.Record) {
		return busy, nil
	}
	v := merge.Sight{Heard: c.others(kept.Record), Replies: c.replies, Term: c.Term(), Order: kept.Order}
	if err := c.Works.See(ctx, kept.Record, &v); err != nil {
		return 0, err
	}
	next, actions := c.Settings.Step(kept.Record, v)
	if next.Version != kept.Record.Version || kept.Order != merge.None {
		err := c.Store.Save(ctx, Kept{Record: next, Revision: kept.Revision})
		if errors.Is(err, ErrChanged) {
			return busy, nil
		}
		if err != nil {
			return 0, err
		}
		c.Log.Info("merge", "phase", next.Phase, "term", next.Term, "leader", next.LeaderCube, "leaving", next.Leaving)
		c.learn(next)
	}
	c.tell(ctx, c.Settings.Text(next, v), next.Phase == merge.Alone)
	var errs []error
	for _, a := range actions {
		if a.Do == merge.DoAsk {
			errs = append(errs, c.ask(ctx, a, v.Heard))
		} else {
			errs = append(errs, c.Works.Do(ctx, next, a))
		}
	}
	wait := quiet
	if next.Phase != merge.Alone && next.Phase != merge.Asking || next.Version != kept.Record.Version {
		wait = busy
	}
	return wait, errors.Join(errs...)
}

// isNew reports whether the node began to listen too lately to say that a guest
// is silent: it would have to begin anew.
func (c *Controller) isNew(r merge.Record) bool {
	return c.Now().Sub(c.begun) < merge.Silence(c.Cubes) && slices.ContainsFunc(r.Guests, func(g merge.Guest) bool {
		heard := slices.ContainsFunc(c.Heard.Lately(), func(h merge.Record) bool { return h.ID == g.ID })
		return g.State == merge.Admitted && !heard
	})
}

// others are the other clusters; one that just refused this one is as good as
// not there until it may have changed its mind.
func (c *Controller) others(r merge.Record) []merge.Record {
	return slices.DeleteFunc(c.Heard.Lately(), func(h merge.Record) bool {
		at, refused := c.refused[h.ID]
		return h.ID == r.ID || refused && r.Phase == merge.Alone && c.Now().Sub(at) < patience
	})
}

// ask puts a question and keeps the answer for the next turn.
func (c *Controller) ask(ctx context.Context, a merge.Action, heard []merge.Record) error {
	cube := a.Request.From.LeaderCube
	if i := slices.IndexFunc(heard, func(h merge.Record) bool { return h.ID == a.To }); i >= 0 {
		cube = heard[i].Cube
	}
	reply, err := c.Asker.Ask(ctx, cube, a.Request)
	switch {
	case err != nil:
		return err
	case reply.From != a.To:
		return errors.New("the cluster of " + cube + " is another one now")
	}
	if reply.Verdict == merge.No {
		c.Log.Warn("merge: refused", "by", cube, "question", reply.Kind, "why", reply.Why)
		if reply.Kind == merge.Admit {
			c.refused[a.To] = c.Now()
		}
	}
	c.replies = slices.DeleteFunc(c.replies, func(r merge.Reply) bool { return r.From == reply.From || r.Term != reply.Term })
	c.replies = append(c.replies, reply)
	return nil
}

// tell says what changed.
func (c *Controller) tell(ctx context.Context, text string, alone bool) {
	c.Say(text, alone)
	if text == c.said {
		return
	}
	c.said = text
	if text == "" {
		return
	}
	if err := c.Works.Tell(ctx, text); err != nil && ctx.Err() == nil {
		c.Log.Warn("merge: cannot tell", "text", text, "error", err)
	}
}

// learn notes the cluster's present record.
func (c *Controller) learn(r merge.Record) {
	c.Heard.Hear(r.Announcement())
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ID != c.present.ID || r.Version >= c.present.Version {
		c.present, c.read = r, c.Now()
	}
}

// Overhear is told of every announcement on the wire: what another node of the
// control plane said just now need not be said again.
func (c *Controller) Overhear(r merge.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ID == c.present.ID && r.Version >= c.told {
		c.told, c.toldTime = r.Version, c.Now()
	}
}

// RunReading reads the record while a step takes its time, until ctx ends:
// whoever is silent is taken for dead.
func (c *Controller) RunReading(ctx context.Context) error {
	for {
		c.mu.Lock()
		old := c.present.ID != "" && c.Now().Sub(c.read) > fresh
		c.mu.Unlock()
		if old {
			if kept, err := c.Store.Load(ctx); err == nil {
				c.learn(kept.Record)
			}
		}
		if err := c.Pause(ctx, fresh/4); err != nil {
			return err
		}
	}
}

// RunAnnouncements announces the cluster until ctx ends, as long as its store
// answers.
func (c *Controller) RunAnnouncements(ctx context.Context) error {
	for {
		if r, ok := c.due(); ok {
			if err := c.Announce(r); err != nil {
				c.Log.Debug("cannot announce the cluster", "error", err)
			}
		}
		if err := c.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// due returns what is to be announced now.
func (c *Controller) due() (merge.Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.Now()
	if c.present.ID == "" || now.Sub(c.read) > stale || !c.present.Due(c.told, now.Sub(c.toldTime), c.Cubes) {
		return merge.Record{}, false
	}
	c.told, c.toldTime = c.present.Version, now
	return c.present.Announcement(), true
}

// Answer answers another cluster's question. Untouched is asked only where it
// matters.
func (c *Controller) Answer(ctx context.Context, q merge.Request, untouched func(ctx context.Context, guest string) (bool, error)) (merge.Reply, error) {
	for {
		kept, err := c.Store.Load(ctx)
		if err != nil {
			return merge.Reply{}, err
		}
		intact := false
		if q.Kind == merge.Release {
			if intact, err = untouched(ctx, q.From.ID); err != nil {
				return merge.Reply{}, err
			}
		}
		next, reply := c.Settings.Answer(kept.Record, q, intact)
		if next.Version == kept.Record.Version {
			return reply, nil
		}
		order := kept.Order // is for the one that leads
		err = c.Store.Save(ctx, Kept{Record: next, Order: order, Revision: kept.Revision})
		if errors.Is(err, ErrChanged) && ctx.Err() == nil {
			continue
		}
		if err == nil {
			c.learn(next)
		}
		return reply, err
	}
}
