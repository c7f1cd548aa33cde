// Package joind brings a node into its cluster and keeps it there. It knows
// no engine: what kubeadm or another one does is behind Engine.
//
//	look ── a control plane answers? ── yes ──> join, or work
//	     └─ no ─ am I the one who may begin? ── yes ──> begin
//	                                         └─ no ──> look again
//
// Each step may be cut off anywhere and is done again at the next start.
package joind

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Engine is a way to form a cluster.
type Engine interface {
	// Prepare writes what the node runs with; it may run at every start.
	Prepare(ctx context.Context) error
	// IsControlPlane and MayBegin are what the node is meant to be.
	IsControlPlane() bool
	MayBegin() bool
	// IsMember reports whether Begin, Join or Work was done before.
	IsMember() bool
	// Begin makes a new cluster, Join a further control-plane node, Work a
	// worker.
	Begin(ctx context.Context) error
	Join(ctx context.Context) error
	Work(ctx context.Context) error
}

// Cluster is the cluster as a node sees it from outside.
type Cluster interface {
	// Look asks the other control-plane nodes.
	Look(ctx context.Context) Sight
	// Follow brings the node's routes to the cluster's present state and
	// returns what the node is in it.
	Follow(ctx context.Context) (View, error)
}

// ErrChanged ends what a node does: it is to be something else now, or knows
// others, and has to begin anew.
var ErrChanged = errors.New("the node begins anew")

// Sight is what a node that is no member yet sees on the wire.
type Sight struct {
	Changed   bool // the node learned of others, see ErrChanged
	Reachable int  // control-plane nodes that answer at all, the node itself left out
	Members   int  // those of them that belong to the cluster
	Before    int  // those that do not, and stand before the node in the cluster's list
	Serves    bool // one of them serves the cluster
	// Stranger is the address of a control plane that has the place of one of
	// ours and belongs to another cluster; empty: there is none.
	Stranger string
}

// View is what the node knows of its cluster.
type View struct {
	Registered bool // the cluster knows the node
	Ready      bool // the node takes work
	Nodes      int  // of the cluster
	NodesReady int
}

// Joiner runs the state machine.
type Joiner struct {
	Engine  Engine
	Cluster Cluster
	// ControlPlanes is how many nodes the control plane is to have.
	ControlPlanes int
	Log           *slog.Logger
	// Stage is told of each stage that the node reaches: joined, ready.
	Stage func(string) error
	// Say is told, in words for a person, what the node is doing.
	Say func(string)
	// Pause waits; it returns early with ctx's error.
	Pause func(ctx context.Context, d time.Duration) error
}

// Times of the machine: a failed step is tried again soon, since what hinders
// it in the first minutes is mostly another node that is not there yet.
const (
	retry    = 5 * time.Second
	maxRetry = time.Minute
	// follow is how often the node looks for other nodes' routes, quick until
	// it is ready itself.
	followSoon = 3 * time.Second
	follow     = 20 * time.Second
	// turns is how often a control-plane node looks before it joins though
	// others have not: a quarter of an hour.
	turns = 180
)

// Run brings the node into its cluster and follows it until ctx ends.
func (j *Joiner) Run(ctx context.Context) error {
	if err := j.Engine.Prepare(ctx); err != nil {
		return err
	}
	if err := j.until(ctx, j.enter); err != nil {
		return err
	}
	return j.follow(ctx)
}

// until repeats a step until it succeeds or ctx ends.
func (j *Joiner) until(ctx context.Context, step func(context.Context) error) error {
	wait := retry
	for {
		err := step(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrChanged) {
			return err
		}
		j.Log.Warn("will try again", "in", wait, "error", err)
		if err := j.Pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, maxRetry)
	}
}

// enter makes the node a member.
func (j *Joiner) enter(ctx context.Context) error {
	if j.Engine.IsMember() {
		if j.Engine.IsControlPlane() {
			return nil
		}
		return j.Engine.Work(ctx)
	}
	others := j.ControlPlanes
	if j.Engine.IsControlPlane() {
		others-- // it is one of them
	}
	for looks := 1; ; looks++ {
		sight := j.Cluster.Look(ctx)
		if sight.Changed {
			return ErrChanged
		}
		// The state's replicas come one after the other: two at once are in
		// each other's way, and in that of the node that is just beginning.
		turn := sight.Members > 0 && (sight.Before == 0 || looks > turns)
		switch {
		case sight.Serves && !j.Engine.IsControlPlane():
			j.Say("joining as a worker")
			return j.Engine.Work(ctx)
		case sight.Serves && turn:
			j.Say("joining the control plane")
			return j.Engine.Join(ctx)
		case j.Engine.MayBegin() && !sight.Serves && sight.Members == 0 && j.seesMajority(sight.Reachable):
			j.Say("beginning a cluster")
			return j.Engine.Begin(ctx)
		}
		text := fmt.Sprintf("looking for the cluster: %d of %d control-plane nodes answer", sight.Reachable, others)
		switch {
		case sight.Stranger != "":
			text = fmt.Sprintf("refused: %s is the control plane of another cluster", sight.Stranger)
		case sight.Serves:
			text = "waiting for its turn to join the control plane"
		case sight.Members > 0:
			text = fmt.Sprintf("waiting for the cluster: %d of its control-plane nodes come up", sight.Members)
		}
		j.Say(text)
		if err := j.Pause(ctx, retry); err != nil {
			return err
		}
	}
}

// seesMajority keeps two halves of a control plane from each beginning a
// cluster: only one half can be the larger one.
func (j *Joiner) seesMajority(reachable int) bool {
	return 2*(reachable+1) > j.ControlPlanes
}

// follow keeps the node's routes right and tells what it is in the cluster.
func (j *Joiner) follow(ctx context.Context) error {
	told := ""
	for {
		wait := followSoon
		view, err := j.Cluster.Follow(ctx)
		stage := ""
		switch {
		case errors.Is(err, ErrChanged):
			return err
		case err != nil:
			j.Log.Debug("the cluster does not answer", "error", err)
			j.Say("waiting for the cluster")
		case view.Ready:
			stage, wait = "ready", follow
			j.Say(fmt.Sprintf("ready, %d of %d nodes are", view.NodesReady, view.Nodes))
		case view.Registered:
			stage = "joined"
			j.Say("joined, not ready yet")
		default:
			j.Say("waiting to be known")
		}
		if stage != "" && stage != told {
			if told == "" && stage == "ready" {
				if err := j.Stage("joined"); err != nil {
					return err
				}
			}
			told = stage
			if err := j.Stage(stage); err != nil {
				return err
			}
		}
		if err := j.Pause(ctx, wait); err != nil {
			return err
		}
	}
}
