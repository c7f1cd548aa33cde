package joind

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// fake is a node and its cluster, as a script of what happens.
type fake struct {
	controlPlane, first, member bool
	fails                       int // steps that fail before one succeeds
	reachable                   []int
	serves                      []bool
	members, before             []int
	stranger                    string
	views                       []View

	did    []string
	cancel context.CancelFunc
}

func (f *fake) Prepare(context.Context) error { return nil }
func (f *fake) IsControlPlane() bool          { return f.controlPlane }
func (f *fake) MayBegin() bool                { return f.first }
func (f *fake) IsMember() bool                { return f.member }

func (f *fake) step(name string) error {
	if f.fails > 0 {
		f.fails--
		f.did = append(f.did, name+" failed")
		return errors.New("the plug was pulled")
	}
	f.did = append(f.did, name)
	return nil
}

func (f *fake) Begin(context.Context) error { return f.step("begin") }
func (f *fake) Join(context.Context) error  { return f.step("join") }
func (f *fake) Work(context.Context) error  { return f.step("work") }

func (f *fake) Look(context.Context) Sight {
	f.did = append(f.did, "look")
	return Sight{
		Reachable: next(&f.reachable), Members: next(&f.members), Before: next(&f.before),
		Serves: next(&f.serves), Stranger: f.stranger,
	}
}

// next takes the first of a script, whose last stays.
func next[T any](script *[]T) (n T) {
	if len(*script) == 0 {
		return n
	}
	n = (*script)[0]
	if len(*script) > 1 {
		*script = (*script)[1:]
	}
	return n
}

func (f *fake) Follow(context.Context) (View, error) {
	if len(f.views) == 0 {
		f.cancel()
		return View{}, errors.New("over")
	}
	v := f.views[0]
	f.views = f.views[1:]
	return v, nil
}

func TestRun(t *testing.T) {
	yes, no := []bool{true}, []bool{false}
	tests := map[string]struct {
		fake fake
		of   int
		want []string
	}{
		"worker":               {fake{fails: 1, reachable: []int{0, 1}, serves: []bool{false, true}}, 1, []string{"look", "look", "work failed", "look", "work"}},
		"worker comes back":    {fake{member: true}, 1, []string{"work"}},
		"among strangers":      {fake{reachable: []int{1, 1}, serves: []bool{false, true}, stranger: "10.42.1.1"}, 1, []string{"look", "say refused: 10.42.1.1 is the control plane of another cluster", "look", "work"}},
		"only control plane":   {fake{controlPlane: true, first: true, reachable: []int{0}, serves: no}, 1, []string{"look", "begin"}},
		"first alone of three": {fake{controlPlane: true, first: true, reachable: []int{0, 0, 1}, serves: []bool{false, false, false}}, 3, []string{"look", "look", "look", "begin"}},
		"first comes back":     {fake{controlPlane: true, first: true, reachable: []int{2}, members: []int{2}, serves: yes}, 3, []string{"look", "join"}},
		"first flashed anew":   {fake{controlPlane: true, first: true, reachable: []int{2, 2}, members: []int{2}, serves: []bool{false, true}}, 3, []string{"look", "look", "join"}},
		"first, another half":  {fake{controlPlane: true, first: true, reachable: []int{2, 2}, members: []int{0, 1}, serves: yes}, 3, []string{"look", "look", "join"}},
		"second waits":         {fake{controlPlane: true, reachable: []int{2, 2, 2}, members: []int{0, 0, 1}, before: []int{1, 1, 0}, serves: []bool{false, true}}, 3, []string{"look", "look", "look", "join"}},
		"third waits":          {fake{controlPlane: true, reachable: []int{2, 2, 2, 2}, members: []int{0, 1, 1, 2}, before: []int{2, 1, 1, 0}, serves: yes}, 3, []string{"look", "look", "look", "look", "join"}},
		"second never comes":   {fake{controlPlane: true, reachable: []int{2}, members: []int{1}, before: []int{1}, serves: yes}, 3, append(slices.Repeat([]string{"look"}, turns+1), "join")},
		"cut off while it began": {fake{controlPlane: true, first: true, fails: 2, reachable: []int{0}, serves: no}, 1,
			[]string{"look", "begin failed", "look", "begin failed", "look", "begin"}},
		"member": {fake{controlPlane: true, member: true}, 1, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := test.fake
			f.views = []View{{}, {Registered: true}, {Registered: true, Ready: true}, {Registered: true, Ready: true}}
			ctx, cancel := context.WithCancel(t.Context())
			f.cancel = cancel
			var stages []string
			j := Joiner{
				Engine: &f, Cluster: &f, ControlPlanes: test.of, Log: slog.New(slog.DiscardHandler),
				Stage: func(s string) error { stages = append(stages, s); return nil },
				Say: func(text string) {
					if strings.Contains(text, "another cluster") {
						f.did = append(f.did, "say "+text)
					}
				},
				Pause: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
			}
			if err := j.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if !slices.Equal(f.did, test.want) {
				t.Errorf("did %q, want %q", f.did, test.want)
			}
			if want := []string{"joined", "ready"}; !slices.Equal(stages, want) {
				t.Errorf("stages %q, want %q", stages, want)
			}
		})
	}
}
