package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/layers/cluster/joind"
	"github.com/picube/picube-build/layers/cluster/proxyd"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/status/statusd"
)

// join brings the node into its cluster and keeps it there, with the proxy to
// the API that everything on the node uses. A node that goes to another cluster
// begins anew there, and so does one that was told of others or has another place
// in its cluster.
func join(ctx context.Context) error {
	log := logger()
	v := &voice{log: log}
	for {
		err := joinOne(ctx, v, log)
		if !errors.Is(err, errMoved) && !errors.Is(err, errIntroduced) && !errors.Is(err, joind.ErrChanged) {
			return err
		}
	}
}

// joinOne does so for the cluster that the node is of now.
func joinOne(ctx context.Context, v *voice, log *slog.Logger) error {
	engine, err := openEngine(v, log)
	if err != nil {
		return err
	}
	if err := kubeadmd.DefaultRoute(); err != nil {
		return err
	}
	if err := engine.Masquerade(); err != nil {
		return err
	}
	kernel := kubeadmd.Kernel{Engine: engine}
	engine.Pause, engine.Signal, engine.DropBridge = pause, kernel.Signal, kernel.DropBridge
	engine.Runtime = kubeadmd.Containerd{}
	engine.Say = func(text string) { v.say(&v.cluster, text) }
	v.say(&v.merge, "")
	v.say(&v.beside, "")
	if err := engine.Settle(ctx); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", kubeadmd.ProxyPort))
	if err != nil {
		return err
	}
	defer listener.Close()
	joiner := joind.Joiner{
		Engine:        engine,
		Cluster:       &kubeadmd.Network{Engine: engine, Apply: kernel.Apply},
		ControlPlanes: len(engine.Config.ControlPlane),
		Log:           log,
		Stage:         statusd.SetStage,
		Say:           engine.Say,
		Pause:         pause,
	}
	// Whoever can't be asked must not begin to ask.
	peers, err := net.Listen("tcp", fmt.Sprintf(":%d", kubeadmd.PeerPort))
	if err != nil {
		return err
	}
	defer peers.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return engine.ServePeers(ctx, peers) })
	g.Go(func() error { return keepBackups(ctx, engine, log) })
	g.Go(func() error { return proxyd.New(log, engine.Backends()...).Serve(ctx, listener) })
	g.Go(func() error { return joiner.Run(ctx) })
	g.Go(func() error { return engine.FollowClock(ctx, log) })
	g.Go(func() error { return engine.ClearSandboxes(ctx, log) })
	g.Go(func() error { return runIntroductions(ctx, engine, v, log) })
	if engine.Merges() {
		g.Go(func() error { return runMerge(ctx, engine, v, log) })
	}
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// hold prepares a start of the control plane, for Resume.
func hold() error {
	n, err := loadPublished()
	if err != nil {
		return err
	}
	engine, ok, err := kubeadmd.New(n, os.Stdout)
	if err != nil || !ok {
		return err
	}
	return engine.Hold()
}

// withoutTime leaves the time to the journal.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
