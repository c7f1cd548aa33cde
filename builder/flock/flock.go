// Package flock lets processes keep each other out of a file, on every system
// that the builder runs on. The lock is advisory and ends with the process, so
// nothing has to be cleaned up after a pulled plug.
package flock

import (
	"context"
	"errors"
	"os"
	"time"
)

// poll is how often a lock that somebody else has is asked for again.
const poll = 200 * time.Millisecond

// Acquire makes the file if it is missing, waits until its lock is free or ctx
// ends, and returns what gives the lock back. The file stays: removing it
// would let two processes lock two files of one name.
func Acquire(ctx context.Context, name string) (release func() error, err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		locked, err := Try(f)
		if locked {
			return f.Close, nil
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}
