package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/cluster/merge/announce"
	"github.com/picube/picube-build/layers/cluster/merge/merged"
	"github.com/picube/picube-build/layers/kubernetes/kubeadmd"
	"github.com/picube/picube-build/layers/status/statusd"
)

// errMoved ends what a node does for a cluster: it is of another one now.
var errMoved = errors.New("the node goes to another cluster")

// voice tells the display and the journal what the node does in its cluster, and
// what that does with others.
type voice struct {
	log *slog.Logger

	mu      sync.Mutex
	cluster string
	merge   string // in the cluster's place
	beside  string // of another cluster that is here
	others  string // of what is none of ours
	refused string // of an introduction that can't be taken
	// introduction is of one that was taken.
	introduction string
	said         string
}

func (v *voice) say(to *string, text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	*to = text
	parts := []string{cmp.Or(v.merge, v.cluster), v.beside, v.refused, v.introduction, v.others}
	whole := strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
	if whole == v.said {
		return
	}
	v.said = whole
	v.log.Info(whole)
	if err := statusd.SetCluster(whole); err != nil {
		v.log.Warn("cannot tell the display", "error", err)
	}
}

// mergeStore is where the node's own cluster keeps its record.
func mergeStore(engine *kubeadmd.Engine, own kubeadmd.API) kubeadmd.RecordStore {
	return kubeadmd.RecordStore{API: own, New: engine.NewRecord, Random: rand.Reader}
}

// runMerge lets clusters meet until ctx ends or the node is of another one.
func runMerge(ctx context.Context, engine *kubeadmd.Engine, v *voice, log *slog.Logger) error {
	m, err := engine.Membership()
	if err != nil {
		return err
	}
	wire, err := newWire(engine)
	if err != nil {
		return err
	}
	conf := engine.Config
	heard := merged.NewHeard(len(conf.Cubes), time.Now)
	follower := &merged.Follower{
		Name: engine.Node.Hostname, Cube: conf.Home, ControlPlane: engine.IsHomeControlPlane(), Heard: heard, Asker: engine,
		Keep: engine.KeepMembership, Order: engine.TakeOrder, Again: engine.Order, MayLeave: engine.MayLeave, Adopt: engine.Adopt,
		Say: func(text string) { v.say(&v.merge, text) }, Now: time.Now, Pause: pause, Log: log,
	}
	g, ctx := errgroup.WithContext(ctx)
	overhear := func(merge.Record) {}
	// A node with a seat in another cube's control plane serves; it decides nothing.
	if engine.IsControlPlane() && !engine.IsSeated() {
		c, works, err := newController(engine, wire, heard, v, log)
		if err != nil {
			return err
		}
		c.Term, overhear = follower.Term, c.Overhear
		tookIn := make(chan struct{}, 1)
		engine.SetAnswer(func(ctx context.Context, q merge.Request) (merge.Reply, error) {
			reply, err := c.Answer(ctx, q, works.Untouched)
			if err == nil && q.Kind == merge.Commit && reply.Verdict == merge.Yes {
				select {
				case tookIn <- struct{}{}:
				default:
				}
			}
			return reply, err
		})
		defer engine.SetAnswer(nil)
		g.Go(func() error { return backupsAfter(ctx, tookIn, engine, log) })
		g.Go(func() error {
			if err := untilMember(ctx, engine); err != nil {
				return err
			}
			return c.Run(ctx)
		})
		g.Go(func() error { return c.RunReading(ctx) })
		g.Go(func() error { return c.RunAnnouncements(ctx) })
	}
	g.Go(func() error { return listen(ctx, wire, func(r merge.Record) { heard.Hear(r); overhear(r) }, v, log) })
	g.Go(func() error {
		next, err := follower.Run(ctx, m)
		if err != nil {
			return err
		}
		log.Info("the node goes to another cluster", "cube", next.Cube, "cluster", next.Cluster)
		return errMoved
	})
	return g.Wait()
}

// strangersStay is how long a cube of another identity is spoken of.
const strangersStay = 10 * time.Minute

// listen hears other clusters, and tells of those that are none of ours.
func listen(ctx context.Context, wire *announce.Wire, hear func(merge.Record), v *voice, log *slog.Logger) error {
	var said time.Time
	return wire.Listen(ctx, hear, func(from net.Addr, err error) {
		log.Debug("announcement refused", "from", from, "error", err)
		if !errors.Is(err, announce.ErrStranger) || time.Since(said) < strangersStay {
			return
		}
		said = time.Now()
		log.Warn("a cube of another identity is on the wire, it is left alone", "address", from)
		v.say(&v.others, "another cluster's cube is here, it is left alone")
		time.AfterFunc(strangersStay, func() { v.say(&v.others, "") })
	})
}

// untilMember waits until there is a cluster at all.
func untilMember(ctx context.Context, engine *kubeadmd.Engine) error {
	for !engine.IsMember() {
		if err := engine.Pause(ctx, soon); err != nil {
			return err
		}
	}
	return nil
}

// backupsAfter leaves a backup whenever another cluster was taken in: an older
// one would lose it.
func backupsAfter(ctx context.Context, tookIn <-chan struct{}, engine *kubeadmd.Engine, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tookIn:
		}
		taken, err := engine.TakeBackup(ctx)
		if err != nil {
			log.Warn("cannot leave a backup", "error", err)
		} else {
			log.Info(taken.String())
		}
		if err := tellBackup(engine, taken, err); err != nil {
			log.Warn("cannot tell of backups", "error", err)
		}
	}
}

func newController(engine *kubeadmd.Engine, wire *announce.Wire, heard *merged.Heard, v *voice, log *slog.Logger) (*merged.Controller, *kubeadmd.Merging, error) {
	conf := engine.Config
	works, err := engine.NewMerging()
	if err != nil {
		return nil, nil, err
	}
	return &merged.Controller{
		Settings: merge.Settings{Mode: merge.Mode(conf.Merge.Mode), Lead: conf.Merge.Lead, Hosts: engine.Hosts()},
		Cubes:    len(conf.Cubes), Store: mergeStore(engine, works.Own), Works: works, Asker: engine, Heard: heard,
		Announce: wire.Send, Now: time.Now, Pause: pause, Log: log,
		Say: func(text string, alone bool) {
			instead, beside := text, ""
			if alone {
				instead, beside = "", text
			}
			v.say(&v.merge, instead)
			v.say(&v.beside, beside)
		},
	}, works, nil
}

// newWire is the node's end of the wire, with the certificate of its card.
func newWire(engine *kubeadmd.Engine) (*announce.Wire, error) {
	pair, err := engine.Certificate()
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: cannot sign announcements with this kind of key", kubeadmd.NodeKey)
	}
	pool, err := engine.Authority()
	if err != nil {
		return nil, err
	}
	return &announce.Wire{
		Interface: engine.Node.Network.Interface, Certificate: leaf, Key: key, Pause: pause,
		Trust: announce.Trust{Authority: pool, CubeOf: engine.CubeOf, Now: time.Now},
	}, nil
}

const mergeUsage = "usage: picube-node merge [status | undo | split | forget CUBE]"

// mergeCommand tells the node's cluster to follow another one, or to live on
// its own again.
func mergeCommand(ctx context.Context, args []string) error {
	orders := map[string]merge.Order{"": merge.Merge, "status": merge.None, "undo": merge.Undo, "split": merge.Split}
	order, ok := orders[strings.Join(args, " ")]
	if len(args) == 2 && args[0] == "forget" {
		order, ok = merge.Forget+merge.Order(args[1]), true
	}
	if !ok {
		return errors.New(mergeUsage)
	}
	engine, err := nodeEngine()
	switch {
	case err != nil:
		return err
	case !engine.Merges():
		return errors.New("the blueprint has one cluster, and it was introduced to no other: there is nothing to merge")
	case !engine.IsHomeControlPlane():
		return fmt.Errorf("%s is not a control-plane node of its cube", engine.Node.Hostname)
	}
	m, err := engine.Membership()
	if err != nil {
		return err
	}
	works, err := engine.NewMerging()
	if err != nil {
		return err
	}
	if order == merge.None {
		introduced, err := engine.Introduced()
		for _, said := range introduced {
			fmt.Println(said)
		}
		if err != nil {
			fmt.Println("refused:", err)
		}
	}
	if order == merge.None && m.Cluster != m.Home {
		fmt.Printf("the cluster of %s is part of the cluster of %s\n", engine.Config.Home, m.Cube)
		if engine.IsSeated() {
			fmt.Printf("%s is of its control plane\n", engine.Node.Hostname)
		}
		return nil
	}
	r, err := engine.MergeOrder(ctx, mergeStore(engine, works.Own), order)
	if err != nil {
		return err
	}
	if order != merge.None {
		fmt.Println("the cluster was told; `picube-node merge status` says how far it is")
		return nil
	}
	fmt.Printf("cluster %s of %s: %s", r.ID, r.Cube, r.Phase)
	if r.LeaderCube != "" {
		fmt.Printf(", the cluster of %s leads", r.LeaderCube)
	}
	if r.Leaving != "" {
		fmt.Printf(", %s leaves", r.Leaving)
	}
	if r.Hold {
		fmt.Print(", and stays so until it is told")
	}
	fmt.Println()
	for _, guest := range r.Guests {
		fmt.Printf("cluster %s of %s: %s", guest.ID, guest.Cube, guest.State)
		if guest.Left {
			fmt.Print(", and left for good")
		}
		fmt.Println()
	}
	for _, seat := range r.Spread {
		fmt.Printf("%s of %s has a seat in the control plane", seat.Name, seat.Cube)
		if seat.Name == r.Resigning {
			fmt.Print(", and leaves it")
		}
		fmt.Println()
	}
	return nil
}
