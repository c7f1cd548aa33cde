package merged

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// Follower decides whose node a node is.
type Follower struct {
	Name string
	Cube string // the one to whose cluster the node belongs at first
	// ControlPlane is that the node is of that cluster's control plane.
	ControlPlane bool
	Heard        *Heard
	Asker        Asker
	// Keep stores a membership before it holds.
	Keep func(merge.Membership) error
	// Order returns and forgets what a person wants of a node that is away; Again
	// keeps it until later.
	Order func() merge.Order
	Again func(merge.Order) error
	// MayLeave reports whether the cluster that the node is away in does without it;
	// it fails if nobody knows.
	MayLeave func(context.Context) (bool, error)
	// Adopt asks others of the cube whose they are.
	Adopt func(context.Context) (merge.Membership, bool)
	Say   func(string)
	Now   func() time.Time
	Pause func(ctx context.Context, d time.Duration) error
	Log   *slog.Logger

	asked      time.Time
	complained time.Time // said why something can't be undone
	unheard    time.Time // since when nobody knows whether the node may leave
	term       atomic.Uint64
}

// Term is the newest of the node's own cluster's that it knows.
func (f *Follower) Term() uint64 { return f.term.Load() }

// How often a node looks at what it heard, and how often it asks where its
// cluster went: one that became part of another is asked for as long as its
// control plane is away.
const (
	look = 2 * time.Second
	lost = 20 * time.Second
	away = time.Minute
)

// Run returns the node's membership as soon as it is of another cluster than m
// says. That is stored by then.
func (f *Follower) Run(ctx context.Context, m merge.Membership) (merge.Membership, error) {
	for {
		f.term.Store(m.Term)
		next, err := f.step(ctx, m)
		if err != nil {
			return m, err
		}
		if next != m {
			if err := f.Keep(next); err != nil {
				return m, err
			}
			if next.Cluster != m.Cluster && (m.Cluster != "" || next.Cluster != next.Home) {
				return next, nil
			}
			m = next
		}
		if err := f.Pause(ctx, look); err != nil {
			return m, err
		}
	}
}

func (f *Follower) step(ctx context.Context, m merge.Membership) (merge.Membership, error) {
	v := merge.NodeSight{Name: f.Name, Cube: f.Cube, ControlPlane: f.ControlPlane, Heard: f.Heard.Lately()}
	if m.Home == m.Cluster {
		m = f.home(m, v.Heard)
	}
	if m.Home == "" {
		return f.adopt(ctx, m), ctx.Err()
	}
	if !f.complained.IsZero() && f.Now().Sub(f.complained) > patience {
		f.complained = time.Time{}
		f.Say("")
	}
	if f.ControlPlane && m.Home != m.Cluster {
		switch f.Order() {
		case merge.Undo:
			f.release(ctx, m)
			f.asked = time.Time{}
		case merge.Split:
			may, err := f.leave(ctx, m)
			if err != nil || may {
				return m.Return(f.Cube), err
			}
		}
	}
	v.Where = f.where(ctx, m, v.Heard)
	return m.Step(v), ctx.Err()
}

// home finds out which cluster the node's own cube has. Where it was begun
// anew, it is another one than the node knew.
func (f *Follower) home(m merge.Membership, heard []merge.Record) merge.Membership {
	i := slices.IndexFunc(heard, func(h merge.Record) bool { return h.Cube == f.Cube })
	known := slices.ContainsFunc(heard, func(h merge.Record) bool { return h.ID == m.Home })
	if i < 0 || known {
		return m
	}
	return merge.Membership{Home: heard[i].ID, Cluster: heard[i].ID, Cube: f.Cube, Term: heard[i].Term}
}

// adopt is for a card that was flashed anew while its cube is away. It hears its
// own cluster nowhere, but others of its cube know.
func (f *Follower) adopt(ctx context.Context, m merge.Membership) merge.Membership {
	if f.Now().Sub(f.asked) < lost {
		return m
	}
	f.asked = f.Now()
	if found, ok := f.Adopt(ctx); ok {
		return found
	}
	return m
}

// where asks what became of the clusters that are not heard and matter.
func (f *Follower) where(ctx context.Context, m merge.Membership, heard []merge.Record) []merge.Reply {
	silent := func(id string) bool {
		return !slices.ContainsFunc(heard, func(h merge.Record) bool { return h.ID == id })
	}
	var of []string
	wait := lost
	if silent(m.Cluster) {
		of = append(of, m.Cluster)
	}
	if m.Home != m.Cluster && f.ControlPlane && silent(m.Home) {
		if of == nil {
			wait = away
		}
		of = append(of, m.Home)
	}
	if of == nil || f.Now().Sub(f.asked) < wait {
		return nil
	}
	f.asked = f.Now()
	var out []merge.Reply
	for _, h := range heard {
		if h.Phase != merge.Alone {
			continue
		}
		for _, id := range of {
			reply, err := f.Asker.Ask(ctx, h.Cube, merge.Request{Kind: merge.Where, From: merge.Record{ID: m.Home}, Of: id})
			if err != nil {
				f.Log.Debug("cannot ask where a cluster went", "cube", h.Cube, "error", err)
				continue
			}
			out = append(out, reply)
		}
	}
	return out
}

// carried is the time after which a node that nobody answers was carried away, and
// not only left for a moment.
const carried = 5 * time.Minute

// leave tells the cluster that the node is away in that it leaves for good, and
// reports whether it may: as long as others need its vote, it waits.
func (f *Follower) leave(ctx context.Context, m merge.Membership) (bool, error) {
	q := merge.Request{Kind: merge.Leave, From: merge.Record{ID: m.Home, Cube: f.Cube, Term: m.Term}}
	if _, err := f.Asker.Ask(ctx, m.Cube, q); err != nil {
		f.Log.Info("cannot tell the other cluster that the cube leaves", "cube", m.Cube, "error", err)
	}
	may, err := f.MayLeave(ctx)
	switch {
	case ctx.Err() != nil:
		return false, errors.Join(ctx.Err(), f.Again(merge.Split))
	case err == nil:
		f.unheard = time.Time{}
	case f.unheard.IsZero():
		f.unheard = f.Now()
	}
	if may || err != nil && f.Now().Sub(f.unheard) > carried {
		return true, nil
	}
	f.Say("leaving the control plane of " + m.Cube + " before it splits off")
	return false, f.Again(merge.Split)
}

// release asks the cluster that took the place of the node's own to let it live
// again.
func (f *Follower) release(ctx context.Context, m merge.Membership) {
	q := merge.Request{Kind: merge.Release, From: merge.Record{ID: m.Home, Cube: f.Cube, Term: m.Term}}
	reply, err := f.Asker.Ask(ctx, m.Cube, q)
	if err == nil && reply.Verdict != merge.Yes {
		err = fmt.Errorf("the cluster of %s says: %s", m.Cube, reply.Why)
	}
	if err != nil {
		f.complained = f.Now()
		f.Say("cannot undo the merge: " + err.Error())
	}
}
