package merge

import (
	"strings"
	"testing"
	"time"
)

func TestBefore(t *testing.T) {
	elder := Record{ID: "1", Cube: "beta", Born: 10}
	younger := Record{ID: "2", Cube: "alpha", Born: 20}
	same := Record{ID: "3", Cube: "alpha", Born: 10}
	for name, test := range map[string]struct {
		lead string
		host string
		a, b Record
	}{
		"the elder":                {"", "", elder, younger},
		"of one age, by name":      {"", "", same, elder},
		"the named":                {"alpha", "", younger, elder},
		"both of the named cube":   {"alpha", "", same, younger},
		"a name that nobody bears": {"gamma", "", elder, younger},
		"the host":                 {"beta", "alpha", younger, elder},
		"both are hosts":           {"", "alpha", same, younger},
	} {
		s := Settings{Lead: test.lead, Hosts: []string{test.host}}
		if !s.Before(test.a, test.b) || s.Before(test.b, test.a) || s.Before(test.a, test.a) {
			t.Errorf("%s does not lead", name)
		}
	}
}

func TestHear(t *testing.T) {
	var heard []Record
	for _, r := range []Record{{ID: "b", Version: 2, Term: 7}, {ID: "a", Version: 1}, {ID: "b", Version: 1}, {ID: "b", Version: 2}} {
		heard = Hear(heard, r)
	}
	if len(heard) != 2 || heard[0].ID != "a" || heard[1].Version != 2 || heard[1].Term != 7 {
		t.Errorf("heard %v", heard)
	}
}

func TestDue(t *testing.T) {
	for name, test := range map[string]struct {
		r     Record
		told  uint64
		since time.Duration
		cubes int
		want  bool
	}{
		"nothing new":       {Record{Version: 3, Phase: Alone}, 3, 4 * time.Second, 2, false},
		"time is over":      {Record{Version: 3, Phase: Alone}, 3, 5 * time.Second, 2, true},
		"one of many":       {Record{Version: 3, Phase: Alone}, 3, time.Minute, 64, false},
		"waiting":           {Record{Version: 4, Phase: Asking}, 3, time.Minute, 64, false},
		"its nodes wait":    {Record{Version: 4, Phase: Workers}, 3, 33 * time.Second, 64, true},
		"but not each time": {Record{Version: 4, Phase: Workers}, 3, 5 * time.Second, 64, false},
	} {
		if got := test.r.Due(test.told, test.since, test.cubes); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestStay is about all that keeps a cluster from following its elder.
func TestStay(t *testing.T) {
	own := Record{ID: "2", Cube: "beta", Born: 20, Kubernetes: "v1.34.4", Phase: Alone}
	elder := Record{ID: "1", Cube: "alpha", Born: 10, Kubernetes: "v1.34.4", Phase: Alone}
	old := elder
	old.Kubernetes = "v1.33.6"
	following := elder
	following.Phase = Asking
	asking := own
	asking.Phase, asking.Leader, asking.LeaderCube, asking.Term = Asking, "1", "alpha", 2
	yes := []Reply{{From: "1", Kind: Admit, Term: 2, Verdict: Yes}}
	held, told := own, own
	held.Hold, told.Told = true, true
	for name, test := range map[string]struct {
		mode Mode
		own  Record
		v    Sight
		want Phase
		text string
	}{
		"follows":               {Auto, own, Sight{Heard: []Record{elder}}, Asking, "asking to follow the cluster of alpha"},
		"nobody there":          {Auto, own, Sight{}, Alone, ""},
		"another Kubernetes":    {Auto, own, Sight{Heard: []Record{old}}, Alone, "it runs Kubernetes v1.33.6, this one v1.34.4; upgrade the lower one"},
		"it follows another":    {Auto, own, Sight{Heard: []Record{following}}, Alone, ""},
		"off":                   {Off, own, Sight{Heard: []Record{elder}}, Alone, ""},
		"off whatever one says": {Off, told, Sight{Heard: []Record{elder}, Order: Merge}, Alone, ""},
		"asks a person":         {Ask, own, Sight{Heard: []Record{elder}}, Alone, `say "picube-node merge"`},
		"a person says so":      {Ask, own, Sight{Heard: []Record{elder}, Order: Merge}, Asking, "asking"},
		"undone":                {Auto, held, Sight{Heard: []Record{elder}}, Alone, `say "picube-node merge"`},
		"let in":                {Auto, asking, Sight{Heard: []Record{elder}, Replies: yes}, Snapshot, "keeping a snapshot"},
		"can't see the leader":  {Auto, asking, Sight{Heard: []Record{elder}, Replies: yes, Blind: true}, Asking, "asking"},
		"a node of one name":    {Auto, asking, Sight{Heard: []Record{elder}, Replies: yes, Clash: []string{"rpi1", "rpi2"}}, Asking, "other nodes named rpi1, rpi2; build these cards with another hostname"},
		"the leader goes":       {Auto, asking, Sight{Clash: []string{"rpi1"}}, Alone, ""},
		"undone, and done":      {Auto, held, Sight{Heard: []Record{elder}, Order: Merge}, Asking, "asking"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Settings{Mode: test.mode}
			r, _ := s.Step(test.own, test.v)
			if r.Phase != test.want {
				t.Errorf("is %s", r.Phase)
			}
			if text := s.Text(r, test.v); !strings.Contains(text, test.text) || (text == "") != (test.text == "") {
				t.Errorf("says %q", text)
			}
		})
	}
}

// TestAnswer is about who is let in.
func TestAnswer(t *testing.T) {
	leader := Record{ID: "1", Cube: "alpha", Born: 10, Kubernetes: "v1.34.4", Phase: Alone}
	guest := Record{ID: "2", Cube: "beta", Born: 20, Kubernetes: "v1.34.4", Phase: Asking, Term: 3}
	full := leader
	for _, id := range []string{"3", "4", "5", "6"} {
		full = full.with(Guest{ID: id, Term: 1, State: Admitted})
	}
	following := leader
	following.Phase, following.LeaderCube = Asking, "gamma"
	elder := guest
	elder.Born = 1
	other := guest
	other.Kubernetes = "v1.33.6"
	touched := leader.with(Guest{ID: "2", Term: 3, State: Absorbed})
	for name, test := range map[string]struct {
		mode Mode
		r    Record
		q    Request
		want Verdict
		why  string
	}{
		"yes":                {Auto, leader, Request{Kind: Admit, From: guest}, Yes, ""},
		"once more":          {Auto, leader.with(Guest{ID: "2", Term: 3, State: Admitted}), Request{Kind: Admit, From: guest}, Yes, ""},
		"an old question":    {Auto, leader.with(Guest{ID: "2", Term: 4, State: Admitted}), Request{Kind: Admit, From: guest}, No, "old"},
		"full":               {Auto, full, Request{Kind: Admit, From: guest}, Later, "others come first"},
		"it follows":         {Auto, following, Request{Kind: Admit, From: guest}, No, "gamma"},
		"off":                {Off, leader, Request{Kind: Admit, From: guest}, No, "not to merge"},
		"an elder":           {Auto, leader, Request{Kind: Admit, From: elder}, No, "does not lead"},
		"another Kubernetes": {Auto, leader, Request{Kind: Admit, From: other}, No, "v1.33.6"},
		"not let in":         {Auto, leader, Request{Kind: Commit, From: guest}, No, "not admitted"},
		"forgotten":          {Auto, leader.with(Guest{ID: "2", Term: 3, State: Forgotten}), Request{Kind: Commit, From: guest}, No, "not admitted"},
		"forgotten, again":   {Auto, leader.with(Guest{ID: "2", Term: 3, State: Forgotten}), Request{Kind: Admit, From: guest}, Yes, ""},
		"forgotten later":    {Auto, leader.with(Guest{ID: "2", Term: 5, State: Forgotten}), Request{Kind: Commit, From: guest}, No, "old"},
		"changed since":      {Auto, touched, Request{Kind: Release, From: guest}, No, "changed since"},
		"nonsense":           {Auto, leader, Request{Kind: "seize", From: guest}, No, "seize"},
	} {
		if _, a := (Settings{Mode: test.mode}).Answer(test.r, test.q, false); a.Verdict != test.want || !strings.Contains(a.Why, test.why) {
			t.Errorf("%s: %s, %q", name, a.Verdict, a.Why)
		}
	}
}

func TestLeaving(t *testing.T) {
	for name, c := range map[string]struct {
		told    string
		workers []Worker
		want    string
	}{
		"nobody":                     {"", nil, ""},
		"the first":                  {"", []Worker{{Name: "b1", Here: true}, {Name: "b2", Here: true}}, "b1"},
		"one that is off":            {"", []Worker{{Name: "b1"}, {Name: "b2", Here: true}}, "b2"},
		"it was told to":             {"b1", []Worker{{Name: "b1", Here: true}, {Name: "b2", Here: true}}, "b1"},
		"it is on its way":           {"b1", []Worker{{Name: "b1", Left: true}, {Name: "b2", Here: true}}, "b1"},
		"it has arrived":             {"b1", []Worker{{Name: "b1", Left: true, There: true}, {Name: "b2", Here: true}}, "b2"},
		"it is lost":                 {"b1", []Worker{{Name: "b1", Lost: true}, {Name: "b2", Here: true}}, "b2"},
		"the last one was told to":   {"b2", []Worker{{Name: "b1", There: true}, {Name: "b2", Here: true}}, "b2"},
		"the last one is on its way": {"b2", []Worker{{Name: "b1", There: true}, {Name: "b2", Left: true}}, ""},
		"it went off":                {"b2", []Worker{{Name: "b1", There: true}, {Name: "b2"}}, "b2"},
	} {
		if got := leaving(c.told, c.workers); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
