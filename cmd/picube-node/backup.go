package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/status/statusd"
)

// nodeEngine is the node's, for a person's command.
func nodeEngine() (*kubeadmd.Engine, error) {
	n, err := loadPublished()
	if err != nil {
		return nil, err
	}
	engine, ok, err := kubeadmd.New(n, io.Discard)
	if err == nil && !ok {
		err = fmt.Errorf("%s is of no cluster", n.Hostname)
	}
	return engine, err
}

// clusterEngine is that of a control-plane node.
func clusterEngine() (*kubeadmd.Engine, error) {
	engine, err := nodeEngine()
	if err == nil && !engine.IsControlPlane() {
		err = fmt.Errorf("%s is not a control-plane node", engine.Node.Hostname)
	}
	return engine, err
}

// soon is how often a node that is no member yet is looked at.
const soon = 10 * time.Second

// keepBackups takes backups for as long as the node runs.
func keepBackups(ctx context.Context, engine *kubeadmd.Engine, log *slog.Logger) error {
	if !engine.IsControlPlane() {
		return nil
	}
	if err := untilMember(ctx, engine); err != nil {
		return err
	}
	// What it was restored from is known only now.
	if err := tellBackup(engine, kubeadmd.Taken{}, nil); err != nil {
		log.Warn("cannot tell of backups", "error", err)
	}
	return engine.KeepBackups(ctx, func(t kubeadmd.Taken, err error) {
		if err != nil {
			log.Warn("cannot leave a backup", "error", err)
		} else {
			log.Info(t.String())
		}
		if err := tellBackup(engine, t, err); err != nil {
			log.Warn("cannot tell of backups", "error", err)
		}
	})
}

// tellBackup lets the status page and displays know.
func tellBackup(engine *kubeadmd.Engine, t kubeadmd.Taken, failure error) error {
	var b statusd.Backup
	if from, ok := engine.Restored(); ok {
		at := time.Unix(from.Time, 0).UTC()
		b.Restored = &at
	}
	switch {
	case failure != nil:
		b.Problem = failure.Error()
	case len(t.Holders) > 0:
		at := time.Unix(t.Backup.Time, 0).UTC()
		b.Time, b.Bytes, b.Holders = &at, t.Size, t.Holders
	}
	return statusd.SetBackup(b)
}

// backup leaves a backup with workers now.
func backup(ctx context.Context) error {
	engine, err := clusterEngine()
	if err != nil {
		return err
	}
	taken, err := engine.TakeBackup(ctx)
	if err != nil {
		return err
	}
	fmt.Println(taken)
	return tellBackup(engine, taken, nil)
}

// begin lets the node begin an empty cluster.
func begin(args []string) error {
	if len(args) != 1 || args[0] != "--empty" {
		return errors.New("cannot begin a cluster but with --empty; it begins by itself where there is none")
	}
	engine, err := clusterEngine()
	if err != nil {
		return err
	}
	return engine.BeginEmpty()
}
