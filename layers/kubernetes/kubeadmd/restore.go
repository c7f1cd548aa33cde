package kubeadmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/picube/picube-build/layers/nodeconf"
)

// A control plane whose card was flashed anew knows nothing of its cluster. Before
// it begins one, it asks all others:
//
//	somebody holds a backup  ──> restore the newest, and begin on top of it
//	nobody, but there are members  ──> ask a person
//	nobody is a member  ──> the first start of all: begin
//
// The restored database gets its place by one rename: whatever was cut off
// before that is done again, and nothing after it.
const (
	etcdDir    = "/var/lib/etcd"
	restoreDir = "/var/lib/etcd.picube" // on the same file system
	// beginEmpty is a person's word that no backup is to be waited for.
	beginEmpty = stateDir + "/begin-empty"
	// restoredFrom holds the name of the backup that the node was made from.
	restoredFrom = stateDir + "/restored"
	// etcdTools is where the image of etcd is mounted for its etcdutl.
	etcdTools = "/run/picube/etcd"
)

// Times of asking. A node that refuses is starting and will answer soon; one
// that is off is not waited for.
const (
	askPause  = 2 * time.Second
	starting  = 20 * time.Second
	nextAsked = 10 * time.Second
)

// revisionBump is how far a restored etcd jumps ahead, so that nobody holds a
// revision that it gives to something else ("etcdutl snapshot restore
// --bump-revision").
const revisionBump = "1000000000"

// BeginEmpty lets a node begin an empty cluster though others belong to one.
func (e *Engine) BeginEmpty() error {
	switch {
	case !e.MayBegin():
		return fmt.Errorf("%s is not the node that begins the cluster: %s is", e.Node.Hostname, e.Config.ControlPlane[0].Name)
	case e.exists(done):
		return fmt.Errorf("%s belongs to a cluster already", e.Node.Hostname)
	}
	return e.write(beginEmpty, nil)
}

// Restored returns the backup that the node was made from; ok says whether it
// was.
func (e *Engine) Restored() (b Backup, ok bool) {
	text, err := os.ReadFile(filepath.Join(e.Root, restoredFrom))
	if err != nil {
		return Backup{}, false
	}
	b, err = ParseBackup(string(text))
	return b, err == nil
}

func (e *Engine) exists(name string) bool {
	_, err := os.Stat(filepath.Join(e.Root, name))
	return err == nil
}

// recall brings back what the cluster was, if it was one.
func (e *Engine) recall(ctx context.Context) error {
	for {
		if e.exists(etcdData) || e.exists(beginEmpty) {
			return nil
		}
		answers, err := e.askOthers(ctx)
		if err != nil {
			return err
		}
		if answers, err = e.ours(answers); err != nil {
			return err
		}
		restored, err := e.restoreNewest(ctx, answers)
		if restored {
			return nil
		}
		members := slices.ContainsFunc(answers, func(a answer) bool { return a.Member })
		if !members && err == nil {
			return nil
		}
		why := "no backup was found"
		if err != nil {
			why = "its backups cannot be restored: " + err.Error()
		}
		e.Say("its cluster exists, but " + why + "; `sudo picube-node begin --empty` starts an empty one")
		if err := e.Pause(ctx, nextAsked); err != nil {
			return err
		}
		if len(e.Config.ControlPlane) > 1 {
			return errors.New("others of the control plane may have come up that have the cluster's state")
		}
	}
}

// askOthers asks every other node what it is. Those that are just starting are
// asked again for a while.
func (e *Engine) askOthers(ctx context.Context) ([]answer, error) {
	others := slices.DeleteFunc(slices.Clone(e.Node.Peers), func(p nodeconf.Peer) bool { return p.Name == e.Node.Hostname })
	var answers []answer
	for until := e.Now().Add(starting); ; {
		var again []nodeconf.Peer
		for _, a := range e.askAll(ctx, others) {
			if errors.Is(a.err, syscall.ECONNREFUSED) && e.Now().Before(until) {
				again = append(again, a.Peer)
			} else {
				answers = append(answers, a)
			}
		}
		if ctx.Err() != nil || len(again) == 0 {
			return answers, ctx.Err()
		}
		others = again
		if err := e.Pause(ctx, askPause); err != nil {
			return nil, err
		}
	}
}

// restoreNewest restores the newest backup that is genuine and whole. What the
// holders say of their backups is a claim: each is only what it decrypts to.
func (e *Engine) restoreNewest(ctx context.Context, answers []answer) (bool, error) {
	type copied struct {
		held
		from nodeconf.Peer
	}
	var all []copied
	for _, a := range answers {
		for _, h := range a.Backups {
			all = append(all, copied{h, a.Peer})
		}
	}
	slices.SortStableFunc(all, func(a, b copied) int { return b.Name.compare(a.Name) })
	var errs []error
	for _, c := range all {
		e.Say(fmt.Sprintf("restoring the backup of %s from %s", e.when(c.Name), c.from.Name))
		err := e.restore(ctx, member(c.from), c.Name)
		if err == nil {
			e.Say("restored the backup of " + e.when(c.Name))
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s of %s: %w", c.Name, c.from.Name, err))
	}
	return false, errors.Join(errs...)
}

// when says when a backup was made, and how old it is where the clock can know.
func (e *Engine) when(b Backup) string {
	at, now := time.Unix(b.Time, 0).UTC(), e.Now()
	text := at.Format("2006-01-02 15:04 UTC")
	if now.Before(at) {
		return text
	}
	age := strings.TrimSuffix(now.Sub(at).Round(time.Minute).String(), "0s")
	return fmt.Sprintf("%s, %s old", text, cmp.Or(age, "0m"))
}

// restore makes etcd's data out of a backup, with the member that kubeadm's
// manifest of etcd starts.
func (e *Engine) restore(ctx context.Context, from Member, b Backup) error {
	dir := filepath.Join(e.Root, restoreDir)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	snapshot, data := filepath.Join(dir, "snapshot.db"), filepath.Join(dir, "etcd")
	if err := e.fetch(ctx, from, b, snapshot); err != nil {
		return err
	}
	if err := e.etcdutl(ctx, snapshot, data); err != nil {
		return err
	}
	if err := syncAll(data); err != nil {
		return err
	}
	if err := e.write(restoredFrom, []byte(b.String())); err != nil {
		return err
	}
	to := filepath.Join(e.Root, etcdDir)
	// Renaming replaces a folder only if it is empty.
	if err := os.Rename(data, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// fetch brings a backup here and opens it.
func (e *Engine) fetch(ctx context.Context, from Member, b Backup, file string) error {
	key, err := e.sealKey(b.String())
	if err != nil {
		return err
	}
	client, err := e.client(from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transfer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peerURL(from, backupsPath+b.String()), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(key.open(f, io.LimitReader(resp.Body, maxBackup)), f.Close())
}

// etcdutl runs "etcdutl snapshot restore" out of the image of etcd, where it lies
// for this.
func (e *Engine) etcdutl(ctx context.Context, snapshot, data string) error {
	address, err := nodeAddress(e.Node)
	if err != nil {
		return err
	}
	if e.Config.EtcdImage == "" {
		return errors.New("node.yaml: kubernetes: etcdImage: is missing")
	}
	tools := filepath.Join(e.Root, etcdTools)
	if err := os.MkdirAll(tools, 0o700); err != nil {
		return err
	}
	images := func(args ...string) error {
		return e.Run(ctx, "ctr", append([]string{"--namespace", "k8s.io", "images"}, args...)...)
	}
	if err := images("mount", e.Config.EtcdImage, tools); err != nil {
		return err
	}
	peer := fmt.Sprintf("https://%s:2380", address)
	err = e.Run(ctx, path.Join(filepath.ToSlash(tools), "usr/local/bin/etcdutl"), "snapshot", "restore", snapshot,
		"--data-dir", data, "--name", e.Node.Hostname, "--initial-cluster", e.Node.Hostname+"="+peer,
		"--initial-advertise-peer-urls", peer, "--bump-revision", revisionBump, "--mark-compacted")
	return errors.Join(err, images("unmount", "--rm", tools))
}

// syncAll brings a folder and everything below it onto the card.
func syncAll(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		return syncDir(name)
	})
}
