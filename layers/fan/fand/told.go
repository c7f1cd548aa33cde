package fand

import (
	"sync"

	"github.com/picube/picube-build/layers/status/statusd"
)

// Told makes one fan of all of a node's for its status: the first that has a
// problem, else the first.
type Told struct {
	Tell func(statusd.Fan) error

	mu   sync.Mutex
	fans []statusd.Fan
}

// Add takes a further fan in and returns how it tells its state.
func (t *Told) Add(f statusd.Fan) func(statusd.Fan) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := len(t.fans)
	t.fans = append(t.fans, f)
	return func(f statusd.Fan) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.fans[i] = f
		for _, other := range t.fans {
			if other.Problem != "" {
				return t.Tell(other)
			}
		}
		return t.Tell(t.fans[0])
	}
}
