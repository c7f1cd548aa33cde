package clockd

import (
	"context"
	"time"
)

// Watch sees when the node's clock is set back. It remembers across calls of
// Follow, so that nothing is missed between two of them.
type Watch struct {
	Now func() time.Time
	// Pause waits; it returns early with ctx's error.
	Pause func(ctx context.Context, d time.Duration) error

	last time.Time // without what a step does not change
	back time.Time // when it was seen that it was; zero: there is nothing to tell
}

const (
	lookEvery = 20 * time.Second
	// Less than that is no step worth a word.
	leeway = time.Minute
	// settles is how long others may take to be set back, too: chrony asks every
	// 64 s.
	settles = 3 * time.Minute
)

// Follow looks after the clock until ctx ends, and calls set some minutes after
// it was set back, when those of other nodes were, too. What set returns ends it.
func (w *Watch) Follow(ctx context.Context, set func() error) error {
	for {
		now := w.Now().Round(0)
		if w.last.Sub(now) > leeway {
			w.back = now
		}
		w.last = now
		if !w.back.IsZero() && now.Sub(w.back) >= settles {
			w.back = time.Time{}
			if err := set(); err != nil {
				return err
			}
		}
		if err := w.Pause(ctx, lookEvery); err != nil {
			return err
		}
	}
}
