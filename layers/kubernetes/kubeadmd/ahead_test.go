package kubeadmd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// sandboxes are those of a node, kept as containerd does.
type sandboxes struct {
	t     *testing.T
	e     *Engine
	all   map[string]Sandbox
	fails string // the one that can't be removed
}

func (s *sandboxes) add(id string, created time.Time, ended bool) {
	s.t.Helper()
	dir := filepath.Join(s.e.Root, sandboxesDir, id)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chtimes(dir, created, created)); err != nil {
		s.t.Fatal(err)
	}
	s.all[id] = Sandbox{Created: created, Ended: ended}
}

func (s *sandboxes) Sandboxes(context.Context) (map[string]Sandbox, error) {
	return maps.Clone(s.all), nil
}

func (s *sandboxes) Remove(_ context.Context, id string) error {
	if id == s.fails {
		return errors.New("in use")
	}
	delete(s.all, id)
	return os.Remove(filepath.Join(s.e.Root, sandboxesDir, id))
}

func (s *sandboxes) left() string { return strings.Join(slices.Sorted(maps.Keys(s.all)), " ") }

// A cube began three hours ahead, and its clock is set back: what ended while it was
// off goes at once, what runs when the others' clocks were set back, too.
func TestFollowClock(t *testing.T) {
	e, ran := engine(t, node(1, "control-plane"), config(1))
	withAuthority(t, e)
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	e.Now = func() time.Time { return now }
	s := &sandboxes{t: t, e: e, all: map[string]Sandbox{}}
	e.Runtime = s
	for _, name := range []string{"etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"} {
		write(t, e, manifestsDir+"/"+name, []byte(name))
	}
	write(t, e, etcdData, nil)
	write(t, e, done, nil)
	s.add("old-ended", now.Add(3*time.Hour), true)
	s.add("young", now.Add(-time.Hour), false)
	s.add("young-ended", now.Add(-time.Hour), true)
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))

	steps := []struct {
		before func()
		want   string // what is left after the step
	}{
		{nil, "young young-ended"}, // what ended while the node was off
		{func() { s.add("runs", now.Add(3*time.Hour), false) }, "runs young young-ended"},
		{func() { now = now.Add(2 * time.Minute) }, "runs young young-ended"},
		{func() { s.fails = "runs"; now = now.Add(aheadSettles) }, "runs young young-ended"},
		{func() { s.fails = "" }, "runs young young-ended"},
		{func() { now = now.Add(aheadSettles) }, "young young-ended"},
		{func() { s.add("soon", now.Add(30*time.Second), false) }, "soon young young-ended"},
	}
	at := 0
	e.Pause = func(context.Context, time.Duration) error {
		if got := s.left(); got != steps[at].want {
			t.Errorf("step %d: left are %q, want %q", at, got, steps[at].want)
		}
		if at++; at == len(steps) {
			return context.Canceled
		}
		now = now.Add(aheadPause)
		steps[at].before()
		return nil
	}
	if err := e.FollowClock(t.Context(), log); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Twice all began anew, as one of them could not be removed.
	start := []string{"systemctl --no-block try-restart kubelet.service", "wait http://127.0.0.1:2381/readyz", "wait https://127.0.0.1:6443/readyz"}
	if want := append(slices.Clone(start), start...); !slices.Equal(*ran, want) {
		t.Errorf("ran %q, want %q", *ran, want)
	}
	if text := said.String(); strings.Count(text, "set back") != 2 || !strings.Contains(text, "sandbox runs: cannot remove it: in use") {
		t.Errorf("said %s", text)
	}
	if entries, err := os.ReadDir(filepath.Join(e.Root, manifestsDir)); err != nil || len(entries) != 4 {
		t.Errorf("the control plane is %v, %v", entries, err)
	}
}

// A sandbox in which the kubelet starts something can't be removed; etcd comes only
// when it is, though, and all else waits for etcd.
func TestClearSandboxes(t *testing.T) {
	e, _ := engine(t, node(1, "control-plane"), config(1))
	withAuthority(t, e)
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	e.Now = func() time.Time { return now }
	s := &sandboxes{t: t, e: e, all: map[string]Sandbox{}, fails: "etcd"}
	e.Runtime = s
	write(t, e, manifestsDir+"/etcd.yaml", []byte("etcd"))
	write(t, e, manifestsDir+"/kube-apiserver.yaml", []byte("api"))
	write(t, e, etcdData, nil)
	write(t, e, done, nil)
	s.add("etcd", now.Add(3*time.Hour), true)
	s.add("runs", now.Add(3*time.Hour), false)
	s.add("young-ended", now.Add(-time.Hour), true)
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	pauses := 0
	e.Pause = func(context.Context, time.Duration) error {
		if pauses++; pauses == 3 {
			return context.Canceled
		}
		if pauses == 2 {
			s.fails = "" // it started, and failed
		}
		return nil
	}
	e.Wait = func(ctx context.Context, url string) error {
		if url != etcdReady {
			return nil
		}
		if err := e.ClearSandboxes(ctx, log); !errors.Is(err, context.Canceled) {
			return err
		}
		if got := s.left(); got != "young-ended" {
			t.Errorf("etcd waits for %q", got)
		}
		return nil
	}
	if err := e.beginAnew(t.Context()); err == nil || !strings.Contains(err.Error(), "sandbox etcd: cannot remove it: in use") {
		t.Error(err)
	}
	if strings.Count(said.String(), "in use") != 1 {
		t.Errorf("said %s", said.String())
	}
}
