package merged

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// mute answers nothing, and counts who says that he leaves.
type mute struct{ left int }

func (m *mute) Ask(_ context.Context, _ string, q merge.Request) (merge.Reply, error) {
	if q.Kind == merge.Leave && q.From.ID == "b" && q.From.Term == 7 {
		m.left++
	}
	return merge.Reply{}, errors.New("off")
}

// A node that a person splits off tells the other cluster, and waits until that
// one does without it; one that nobody answers was carried away.
func TestSplit(t *testing.T) {
	away := merge.Membership{Home: "b", Cluster: "a", Cube: "alpha", Term: 7}
	unknown := errors.New("nobody answers")
	for name, test := range map[string]struct {
		may   []error // what MayLeave says each minute; nil: it may not yet
		stays int     // minutes
	}{
		"no member":          {nil, 0},
		"a member":           {[]error{nil, nil, nil}, 3},
		"carried away":       {[]error{unknown, unknown, unknown, unknown, unknown, unknown, unknown, unknown}, 6},
		"unheard for a time": {[]error{unknown, unknown, unknown, nil, unknown, unknown, unknown, unknown}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			now, minute, asker, order := time.Unix(0, 0), 0, &mute{}, merge.Split
			f := &Follower{
				Name: "beta1", Cube: "beta", ControlPlane: true, Asker: asker, Log: slog.New(slog.DiscardHandler), Say: func(string) {},
				Now: func() time.Time { return now }, Heard: NewHeard(2, func() time.Time { return now }),
				Order: func() merge.Order { o := order; order = merge.None; return o },
				Again: func(o merge.Order) error { order = o; return nil },
				MayLeave: func(context.Context) (bool, error) {
					if minute >= len(test.may) {
						return true, nil
					}
					return false, test.may[minute]
				},
			}
			for ; minute < 20; minute++ {
				next, err := f.step(t.Context(), away)
				if err != nil {
					t.Fatal(err)
				}
				if next != away {
					if minute != test.stays || next.Cluster != "b" || next.Cube != "beta" || next.Term != 8 || asker.left != minute+1 {
						t.Errorf("after %d minutes %+v, told %d times", minute, next, asker.left)
					}
					return
				}
				now = now.Add(time.Minute)
			}
			t.Error("never leaves")
		})
	}
}
