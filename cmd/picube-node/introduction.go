package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge/introduction"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/nodeconf"
)

// errIntroduced ends what a node does: it knows other clusters now.
var errIntroduced = errors.New("the node was introduced to others")

// openEngine returns the node's engine, which knows what was told to the node
// until now.
func openEngine(v *voice, log *slog.Logger) (*kubeadmd.Engine, error) {
	read := func() (*kubeadmd.Engine, error) {
		n, err := loadPublished()
		if err != nil {
			return nil, err
		}
		engine, ok, err := kubeadmd.New(n, os.Stdout)
		if err == nil && !ok {
			err = errors.New("node.yaml: names no cluster software")
		}
		return engine, err
	}
	engine, err := read()
	if err == nil && takeIntroduction(engine, v, log) {
		return read()
	}
	return engine, err
}

// onBoot is where a person puts an introduction.
const onBoot = nodeconf.BootDir + "/" + introduction.Path

// lastPut tells one from the next, without reading it.
func lastPut() (at time.Time, size int64) {
	if info, err := os.Stat(onBoot); err == nil {
		return info.ModTime(), info.Size()
	}
	return time.Time{}, 0
}

// takeIntroduction takes the introduction that lies on the boot partition and
// reports whether it is a new one. With one that it can't take the node goes on
// as before, and says so.
func takeIntroduction(engine *kubeadmd.Engine, v *voice, log *slog.Logger) bool {
	said := ""
	data, err := introduction.ReadFile(onBoot)
	switch {
	case err == nil:
		said, err = engine.TakeIntroduction(data)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil && said == "" {
		_, err = engine.Introduced()
	}
	if err != nil {
		v.say(&v.refused, "refused: "+err.Error())
		return false
	}
	v.say(&v.refused, "")
	if said != "" {
		v.introduced(said, log)
	}
	return said != ""
}

// introduced tells of an introduction for a while.
func (v *voice) introduced(said string, log *slog.Logger) {
	log.Info("an introduction was read", "says", said)
	v.say(&v.introduction, said)
	time.AfterFunc(strangersStay, func() { v.say(&v.introduction, "") })
}

// nextIntroduced is how often a node looks for introductions, and tells another
// node of those that it has.
const nextIntroduced = time.Minute

// runIntroductions spreads introductions until ctx ends or the node was told of
// others.
func runIntroductions(ctx context.Context, engine *kubeadmd.Engine, v *voice, log *slog.Logger) error {
	news := make(chan string, 1)
	engine.SetNews(func(said string) {
		select {
		case news <- said:
		default:
		}
	})
	peers := slices.DeleteFunc(slices.Clone(engine.Node.Peers), func(p nodeconf.Peer) bool { return p.Name == engine.Node.Hostname })
	now, failure := peers, ""
	var at time.Time // nothing: one that was half there at the start is read again
	var size int64
	for turn := 0; ; turn++ {
		if err := engine.PassOn(ctx, now); err != nil && ctx.Err() == nil && err.Error() != failure {
			failure = err.Error()
			log.Warn("cannot pass an introduction on", "error", err)
		}
		if len(peers) > 0 {
			now = peers[turn%len(peers):][:1]
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case said := <-news:
			v.introduced(said, log)
			// Who brought it has to hear that it arrived.
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			return errIntroduced
		case <-time.After(nextIntroduced):
		}
		newAt, newSize := lastPut()
		if newSize == size && newAt.Equal(at) {
			continue
		}
		if at, size = newAt, newSize; takeIntroduction(engine, v, log) {
			return errIntroduced
		}
	}
}
