// Package merged runs what package merge decides: on every node that may be of
// another cluster one day a Follower, and on the control plane a Controller. It
// knows no engine: what a cluster keeps, and how objects get from one to the
// other, is behind Store and Works.
package merged

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// Heard are the clusters that announced themselves lately.
type Heard struct {
	silence time.Duration
	now     func() time.Time

	mu  sync.Mutex
	all map[string]heard
}

type heard struct {
	record merge.Record
	at     time.Time
}

// NewHeard returns a table that forgets what was silent for too long, where
// there may be as many clusters as cubes.
func NewHeard(cubes int, now func() time.Time) *Heard {
	return &Heard{silence: merge.Silence(cubes), now: now, all: map[string]heard{}}
}

// maxHeard bounds the table; more clusters than this have no cubes.
const maxHeard = 256

// Hear notes an announcement. An older one than is known counts nothing, not
// even as a sign of life: it may be a copy that somebody sent again. A cluster
// whose state was put back is believed when its former state is forgotten.
func (h *Heard) Hear(r merge.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget()
	known, ok := h.all[r.ID]
	if ok && known.record.Version > r.Version || !ok && len(h.all) >= maxHeard {
		return
	}
	h.all[r.ID] = heard{r, h.now()}
}

func (h *Heard) forget() {
	for id, known := range h.all {
		if h.now().Sub(known.at) > h.silence {
			delete(h.all, id)
		}
	}
}

// Lately returns the clusters that were heard, sorted by ID.
func (h *Heard) Lately() []merge.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget()
	var out []merge.Record
	for _, known := range h.all {
		out = append(out, known.record)
	}
	slices.SortFunc(out, func(a, b merge.Record) int { return strings.Compare(a.ID, b.ID) })
	return out
}
