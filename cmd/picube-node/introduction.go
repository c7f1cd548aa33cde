package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	if err == nil && takeIntroductions(engine, v, log) {
		return read()
	}
	return engine, err
}

// onBoot are the introductions that were put on the boot partition, or that the
// card was built with.
func onBoot() []string {
	names, _ := filepath.Glob(filepath.Join(nodeconf.BootDir, introduction.Pattern))
	return names
}

// lastPut tells them from those of another time, without reading them.
func lastPut() string {
	var b strings.Builder
	for _, name := range onBoot() {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintln(&b, name, info.Size(), info.ModTime())
		}
	}
	return b.String()
}

// takeIntroductions takes those that lie on the boot partition and reports
// whether one of them is new. With one that it can't take the node goes on as
// before, and says so.
func takeIntroductions(engine *kubeadmd.Engine, v *voice, log *slog.Logger) bool {
	var errs []error
	var all []string
	for _, name := range onBoot() {
		data, err := introduction.ReadFile(name)
		said := ""
		if err == nil {
			said, err = engine.TakeIntroduction(data)
		}
		if said != "" {
			all = append(all, said)
		}
		errs = append(errs, err)
	}
	if all == nil {
		_, err := engine.Introduced()
		errs = append(errs, err)
	}
	refused := ""
	if err := errors.Join(errs...); err != nil {
		refused = "refused: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	v.say(&v.refused, refused)
	if all != nil {
		v.introduced(strings.Join(all, "; "), log)
	}
	return all != nil
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
	put := "" // those that were there at the start are read again: they may have been half there
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
		last := put
		if put = lastPut(); put != last && takeIntroductions(engine, v, log) {
			return errIntroduced
		}
	}
}
