package kubeadmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/layers/nodeconf"
)

// Bounds of what backups cost. Beyond holders a further copy helps nobody; what
// a holder writes a day is little beside what a card bears.
const (
	holders  = 3
	maxDaily = 512 << 20
	// atLeast is how old the newest backup gets where only heartbeats were
	// written: what changed of the nodes themselves counts as such.
	atLeast = 24 * time.Hour
	// firstBackup leaves the first minutes to the cluster.
	firstBackup = 10 * time.Minute
	// soon is when to look again after a failure, or for a turn that is near.
	soon = time.Minute
	late = 10 * time.Minute
)

// Taken is a backup that was left with workers.
type Taken struct {
	Backup  Backup
	Size    int64
	Holders []string // names of the workers
}

func (t Taken) String() string {
	return fmt.Sprintf("backup %s (%d KiB) left with %s", t.Backup, (t.Size+1023)>>10, strings.Join(t.Holders, ", "))
}

// answer is what a node said when it was asked.
type answer struct {
	nodeconf.Peer
	peer
	err error
}

// member is the form in which a node is asked.
func member(p nodeconf.Peer) Member { return Member{Name: p.Name, Address: p.Address} }

// askAll asks nodes at the same time.
func (e *Engine) askAll(ctx context.Context, peers []nodeconf.Peer) []answer {
	answers := make([]answer, len(peers))
	var g errgroup.Group
	g.SetLimit(16) // each takes some memory
	for i, p := range peers {
		g.Go(func() error {
			a, err := e.ask(ctx, member(p))
			answers[i] = answer{p, a, err}
			return nil
		})
	}
	_ = g.Wait()
	return answers
}

// workers are the others that may hold backups, so that the first few of them
// are in as many cubes as can be, the node's own cube last.
func (e *Engine) workers() []nodeconf.Peer {
	type ranked struct {
		nodeconf.Peer
		rank int // among the workers of its cube
		own  int
	}
	count := map[string]int{}
	var all []ranked
	for _, p := range e.Node.Peers {
		if p.Name == e.Node.Hostname || e.isControlPlane(p.Name) {
			continue
		}
		r := ranked{Peer: p, rank: count[p.Cube]}
		if p.Cube == e.Node.Cube {
			r.own = 1
		}
		count[p.Cube]++
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Or(a.rank-b.rank, a.own-b.own) })
	var out []nodeconf.Peer
	for _, r := range all {
		out = append(out, r.Peer)
	}
	return out
}

// askWorkers asks those that may hold backups of this cluster. Of another
// blueprint's nodes, which may never have been here, nothing is expected.
func (e *Engine) askWorkers(ctx context.Context) []answer {
	return slices.DeleteFunc(e.askAll(ctx, e.workers()), func(a answer) bool {
		return a.err == nil && !e.isWith(a.peer) || a.err != nil && e.isForeign(a.Name)
	})
}

func (e *Engine) isControlPlane(name string) bool {
	return slices.ContainsFunc(e.Config.ControlPlane, func(m Member) bool { return m.Name == name })
}

// TakeBackup leaves a backup with workers now. It is for any control-plane node
// whose etcd answers.
func (e *Engine) TakeBackup(ctx context.Context) (Taken, error) {
	client, err := e.etcdClient()
	if err != nil {
		return Taken{}, err
	}
	defer client.CloseIdleConnections()
	status, err := e.etcdStatus(ctx, client)
	if err != nil {
		return Taken{}, fmt.Errorf("etcd: %w", err)
	}
	answers := e.askWorkers(ctx)
	era, err := e.beganAt(ctx, client, answers)
	if err != nil {
		return Taken{}, fmt.Errorf("etcd: %w", err)
	}
	return e.leave(ctx, client, Backup{Era: era, Revision: status.Header.Revision, Time: e.Now().Unix()}, answers)
}

// beganAt is the cluster's era. A new one is later than all that workers know,
// whatever the clock says.
func (e *Engine) beganAt(ctx context.Context, client *http.Client, answers []answer) (int64, error) {
	now := e.Now().Unix()
	for _, a := range answers {
		for _, h := range a.Backups {
			now = max(now, h.Name.Era+1)
		}
	}
	return e.era(ctx, client, now)
}

// leave takes the snapshot and sends it to the first workers that answered, all
// at the same time, so that no more than a few blocks of it are in memory.
func (e *Engine) leave(ctx context.Context, etcd *http.Client, b Backup, answers []answer) (Taken, error) {
	answers = slices.DeleteFunc(slices.Clone(answers), func(a answer) bool { return a.err != nil })
	if len(answers) == 0 {
		return Taken{}, errors.New("no worker answers that could hold a backup")
	}
	key, err := e.sealKey(b.String())
	if err != nil {
		return Taken{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, transfer)
	defer cancel()
	out := &fanout{}
	var g errgroup.Group
	for _, a := range answers[:min(holders, len(answers))] {
		r, w := io.Pipe()
		way := &way{name: a.Name, in: w}
		out.ways = append(out.ways, way)
		g.Go(func() error {
			way.result = e.push(ctx, member(a.Peer), b, r)
			_ = r.Close()
			return nil
		})
	}
	err = e.pour(ctx, etcd, key, out)
	out.end(err)
	_ = g.Wait()
	taken := Taken{Backup: b, Size: out.written}
	var errs []error
	for _, w := range out.ways {
		if w.result == nil {
			taken.Holders = append(taken.Holders, w.name)
		} else {
			errs = append(errs, fmt.Errorf("%s: %w", w.name, w.result))
		}
	}
	if err == nil && len(taken.Holders) == 0 {
		err = errors.Join(errs...)
	}
	return taken, err
}

// pour writes a sealed snapshot to w.
func (e *Engine) pour(ctx context.Context, etcd *http.Client, key sealKey, w io.Writer) error {
	sealed, err := key.seal(w)
	if err != nil {
		return err
	}
	patient := *etcd // as long as anything moves
	patient.Timeout = 0
	if err := e.snapshot(ctx, &patient, sealed); err != nil {
		return err
	}
	return sealed.Close()
}

// push sends a backup to a worker.
func (e *Engine) push(ctx context.Context, m Member, b Backup, r io.Reader) error {
	client, err := e.client(m)
	if err != nil {
		return err
	}
	return put(ctx, client, peerURL(m, backupsPath+b.String()), io.NopCloser(r))
}

// put sends something to another node, which has nothing to answer.
func put(ctx context.Context, client *http.Client, url string, body io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// fanout writes to many; who fails is left out, until nobody is left.
type fanout struct {
	ways    []*way
	written int64
}

type way struct {
	name   string
	in     *io.PipeWriter
	failed bool
	result error
}

func (f *fanout) Write(p []byte) (int, error) {
	left := 0
	for _, w := range f.ways {
		if w.failed {
			continue
		}
		if _, err := w.in.Write(p); err != nil {
			w.failed = true
			continue
		}
		left++
	}
	if left == 0 {
		return 0, errors.New("no worker took it")
	}
	f.written += int64(len(p))
	return len(p), nil
}

// end tells the readers that this was all, or why it was not.
func (f *fanout) end(err error) {
	for _, w := range f.ways {
		_ = w.in.CloseWithError(err)
	}
}

// KeepBackups takes a backup whenever one is due, until ctx ends. Tell is told
// of each, and of each failure.
func (e *Engine) KeepBackups(ctx context.Context, tell func(Taken, error)) error {
	if e.Config.Backups.Every <= 0 || !e.IsControlPlane() {
		return nil
	}
	var k keeper
	for wait := firstBackup; ; {
		if err := e.Pause(ctx, wait); err != nil {
			return err
		}
		taken, next, err := k.turn(ctx, e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || len(taken.Holders) > 0 {
			tell(taken, err)
		}
		wait = next
	}
}

// keeper remembers what the last backup was of.
type keeper struct{ changes string }

// turn takes a backup if it is due and returns when to look again. Who takes it
// needs no election of its own: it is the node whose etcd leads. When the last
// one was is asked of those who hold it: neither a restart nor another leader
// makes it be forgotten.
func (k *keeper) turn(ctx context.Context, e *Engine) (Taken, time.Duration, error) {
	if !e.IsMember() {
		return Taken{}, soon, nil
	}
	client, err := e.etcdClient()
	if err != nil {
		return Taken{}, late, err
	}
	defer client.CloseIdleConnections()
	status, err := e.etcdStatus(ctx, client)
	if err != nil {
		return Taken{}, late, fmt.Errorf("etcd: %w", err)
	}
	if !status.leads() {
		return Taken{}, late, nil
	}
	if len(e.workers()) == 0 {
		return Taken{}, atLeast, nil
	}
	answers := e.askWorkers(ctx)
	if len(answers) == 0 && !slices.ContainsFunc(e.workers(), func(p nodeconf.Peer) bool { return !e.isForeign(p.Name) }) {
		return Taken{}, late, nil
	}
	era, err := e.beganAt(ctx, client, answers)
	if err != nil {
		return Taken{}, late, fmt.Errorf("etcd: %w", err)
	}
	now := e.Now()
	last, known := newest(answers, era, now)
	if wait := last.due(e.Config.Backups.Every).Sub(now); known && wait > 0 {
		return Taken{}, max(wait, soon), nil
	}
	changes, err := e.changes(ctx, client)
	if err != nil {
		return Taken{}, late, fmt.Errorf("etcd: %w", err)
	}
	if known && changes == k.changes && now.Sub(last.at()) < atLeast {
		return Taken{}, e.Config.Backups.Every, nil
	}
	taken, err := e.leave(ctx, client, Backup{Era: era, Revision: status.Header.Revision, Time: now.Unix()}, answers)
	if err != nil {
		return taken, late, err
	}
	k.changes = changes
	return taken, e.Config.Backups.Every, nil
}

// newest is the last backup of an era that any worker holds. One from the future
// is from before the clock was set right.
func newest(answers []answer, era int64, now time.Time) (last held, known bool) {
	for _, a := range answers {
		for _, h := range a.Backups {
			if h.Name.Era == era && h.Name.Time <= now.Unix() && h.Name.Time >= last.Name.Time {
				last, known = h, true
			}
		}
	}
	return last, known
}

func (h held) at() time.Time { return time.Unix(h.Name.Time, 0) }

// due is when the next one may be written: large ones come less often.
func (h held) due(every time.Duration) time.Time {
	wear := time.Duration(float64(h.Size) / maxDaily * float64(24*time.Hour))
	return h.at().Add(max(every, wear))
}
