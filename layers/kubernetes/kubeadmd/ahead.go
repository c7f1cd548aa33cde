package kubeadmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A clock that was hours ahead may be set back when the cube meets another one, or
// the internet. The kubelet takes the youngest of a pod's sandboxes for the one
// that counts (kuberuntime, getSandboxIDsByPodUID): one that ended and is of the
// future makes it replace each that it starts in its place, for as long as the
// clock was ahead. And no API server takes a pod's token that was issued in the
// future. So pods that began then begin anew.

// Runtime is what runs pods.
type Runtime interface {
	// Sandboxes returns those of all pods by ID, those that ended included.
	Sandboxes(ctx context.Context) (map[string]Sandbox, error)
	// Remove ends one, and all that is in it.
	Remove(ctx context.Context, sandbox string) error
}

// Sandbox is what a pod's containers share.
type Sandbox struct {
	Created time.Time
	Ended   bool
}

// sandboxesDir has a folder for each sandbox, made with it.
const sandboxesDir = "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes"

const (
	aheadPause = 20 * time.Second
	// aheadLeeway is what is no step worth a word; API servers grant it, too
	// (go-jose, DefaultLeeway).
	aheadLeeway = time.Minute
	// aheadSettles is how long the clocks of others may take to be set back:
	// chrony asks every 64 s.
	aheadSettles = 3 * time.Minute
)

// FollowClock starts the control plane as Resume does, and has pods of the future
// begin anew until ctx ends.
func (e *Engine) FollowClock(ctx context.Context, log *slog.Logger) error {
	e.clearEnded(ctx, log)
	if err := e.Resume(ctx); err != nil {
		return err
	}
	var since time.Time
	for {
		if err := e.Pause(ctx, aheadPause); err != nil {
			return err
		}
		now := e.Now()
		switch {
		case !e.isAhead(now):
			since = time.Time{}
		case since.IsZero() || since.After(now):
			since = now
		case now.Sub(since) >= aheadSettles:
			log.Warn("the clock was set back, pods begin anew")
			since = time.Time{}
			if err := e.beginAnew(ctx); err != nil && ctx.Err() == nil {
				log.Warn("will try again", "in", aheadSettles, "error", err)
			}
		}
	}
}

// ClearSandboxes removes sandboxes of the future that ended, until ctx ends. It goes
// on while FollowClock waits for a control plane, which may wait for just that: a
// sandbox can't be removed while the kubelet starts something in it.
func (e *Engine) ClearSandboxes(ctx context.Context, log *slog.Logger) error {
	for {
		if err := e.Pause(ctx, aheadPause); err != nil {
			return err
		}
		e.clearEnded(ctx, log)
	}
}

func (e *Engine) clearEnded(ctx context.Context, log *slog.Logger) {
	if err := e.removeAhead(ctx, Sandbox.hasEnded); err != nil && ctx.Err() == nil {
		log.Warn("will try again", "in", aheadPause, "error", err)
	}
}

func (s Sandbox) hasEnded() bool { return s.Ended }

func anySandbox(Sandbox) bool { return true }

// isAhead reports whether there is a sandbox of the future. It costs less than to
// ask for them.
func (e *Engine) isAhead(now time.Time) bool {
	entries, err := os.ReadDir(filepath.Join(e.Root, sandboxesDir))
	if err != nil {
		return false // nothing has run yet
	}
	return slices.ContainsFunc(entries, func(entry fs.DirEntry) bool {
		info, err := entry.Info()
		return err == nil && info.ModTime().After(now.Add(aheadLeeway))
	})
}

// removeAhead removes the sandboxes of the future, of a kind.
func (e *Engine) removeAhead(ctx context.Context, kind func(Sandbox) bool) error {
	now := e.Now()
	if !e.isAhead(now) {
		return nil
	}
	all, err := e.Runtime.Sandboxes(ctx)
	if err != nil {
		return fmt.Errorf("sandboxes: %w", err)
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if all[id].Created.After(now.Add(aheadLeeway)) && kind(all[id]) {
			if err := e.Runtime.Remove(ctx, id); err != nil {
				errs = append(errs, fmt.Errorf("sandbox %s: cannot remove it: %w", id, err))
			}
		}
	}
	return errors.Join(errs...)
}

// beginAnew has all pods of the future begin anew, those of a control plane one
// after the other. The kubelet starts anew, too: it has their tokens in memory.
func (e *Engine) beginAnew(ctx context.Context) error {
	if err := e.holdControlPlane(); err != nil {
		return err
	}
	err := errors.Join(e.removeAhead(ctx, anySandbox), e.systemctl(ctx, "try-restart", "kubelet.service"))
	return errors.Join(err, e.Resume(ctx))
}
