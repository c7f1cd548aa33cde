package kubeadmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/picube/picube-build/layers/cluster/joind"
	"github.com/picube/picube-build/layers/cluster/merge"
	"github.com/picube/picube-build/layers/nodeconf"
)

// A control-plane node whose cluster became part of another one is a worker there
// until it gets a seat in that one's control plane. A label of its Node object
// says so, of a kind that no kubelet may set (admission plugin NodeRestriction),
// and all nodes read there whom to call. What a member needs came with its card;
// who has nothing of the kind is never told, and would only fail.
const (
	seatLabel   = "node-restriction.kubernetes.io/picube-control-plane"
	seatJoining = "joining" // it is to become a member
	seatMember  = "member"  // it is one, and may be called
	seatLeaving = "leaving" // it still is one, but is not to be called any more
)

// seatDir is there as long as the node's static pods and its etcd's data are
// those of another cube's cluster: it goes after they went. Then nothing of home
// is in the way, which is shelved since the node left.
const (
	seatDir       = stateDir + "/seat"
	seatOf        = seatDir + "/cluster"
	seatJoined    = seatDir + "/joined"
	seatDone      = seatDir + "/member"
	seatManifests = seatDir + "/manifests"
	// seatEtcd is the ID of the cluster of etcd that the node is a member of.
	seatEtcd = seatDir + "/etcd"
	// seatLost says that etcd has the node on its list no longer.
	seatLost = seatDir + "/lost"
	// seatsFile keeps who else has one, for a start at which no API answers that
	// the node knew before.
	seatsFile = stateDir + "/seats.json"
)

// seats are the nodes of other cubes in the control plane of a cube's cluster.
type seats struct {
	Cube  string   `json:"cube"`
	Names []string `json:"names"`
}

// IsSeated reports whether the node is, or is to be, of the control plane of
// another cube's cluster.
func (e *Engine) IsSeated() bool { return e.away() && e.IsControlPlane() }

// away reports whether the node works for another cube's cluster.
func (e *Engine) away() bool { return e.at != "" && e.at != e.Config.Home }

// clusterCube is the cube that began the cluster that the node works for.
func (e *Engine) clusterCube() string {
	if e.at == "" {
		return e.Config.Home
	}
	return e.at
}

// isWith reports whether a node that answered works for the same cluster. One
// from before there were several says nothing of it.
func (e *Engine) isWith(p peer) bool {
	switch {
	case p.Of == nil:
		return true
	case !e.Merges(): // it was introduced, this one not yet
		return !p.isAway()
	}
	return p.Of.Cube == e.clusterCube()
}

// hasSeat reports whether the node was told to be of the control plane of the
// cluster that it is a guest of.
func (e *Engine) hasSeat(m merge.Membership) bool {
	text, err := os.ReadFile(filepath.Join(e.Root, seatOf))
	return err == nil && m.Cluster != m.Home && string(text) == m.Cluster && !e.exists(seatLost)
}

// seated are the members of the control plane that are of other cubes.
func (e *Engine) seated(m merge.Membership) []Member {
	names := e.knownSeats(m.Cube)
	if e.hasSeat(m) {
		names = append(names, e.Node.Hostname)
	}
	var out []Member
	for _, c := range e.Config.Cubes {
		for _, member := range c.ControlPlane {
			if c.Name != m.Cube && slices.Contains(names, member.Name) {
				out = append(out, member)
			}
		}
	}
	return out
}

func (e *Engine) knownSeats(cube string) []string {
	var kept seats
	text, err := os.ReadFile(filepath.Join(e.Root, seatsFile))
	if err != nil || json.Unmarshal(text, &kept) != nil || kept.Cube != cube {
		return nil
	}
	return kept.Names
}

// keepSeats writes down who else has a seat. If that is news, the node begins
// anew with it.
func (e *Engine) keepSeats(names []string) error {
	slices.Sort(names)
	names = slices.Compact(names)
	if slices.Equal(names, e.knownSeats(e.clusterCube())) {
		return nil
	}
	text, err := json.Marshal(seats{e.clusterCube(), names})
	if err == nil {
		err = e.write(seatsFile, text)
	}
	if err == nil {
		err = joind.ErrChanged
	}
	return err
}

// observe sees from the cluster's nodes who is of the control plane. Where that
// is not what the node works with, it fails with joind.ErrChanged.
func (e *Engine) observe(ctx context.Context, nodes []nodeObject) error {
	if !e.Merges() {
		return nil
	}
	var names []string
	own := ""
	for _, n := range nodes {
		switch label := n.Metadata.Labels[seatLabel]; {
		case n.Metadata.Name == e.Node.Hostname:
			own = label
		case label == seatMember:
			names = append(names, n.Metadata.Name)
		}
	}
	told := own == seatJoining || own == seatMember
	switch {
	case told && !e.IsSeated() && e.mayServe():
		return e.takeSeat()
	case !told && e.IsSeated():
		if err := e.giveUpSeat(ctx); errors.Is(err, joind.ErrChanged) {
			return err
		}
	}
	return e.keepSeats(names)
}

// mayServe reports whether the node's card has what another cube's control plane
// needs: that cube has to be of the same identity.
func (e *Engine) mayServe() bool {
	return e.away() && e.IsHomeControlPlane() && len(e.Config.ControlPlane) > 0 && !e.isForeign(e.Config.ControlPlane[0].Name)
}

// takeSeat makes the node a member at its next start.
func (e *Engine) takeSeat() error {
	m, err := e.Membership()
	if err != nil {
		return err
	}
	if err := e.dropSeat(); err != nil {
		return err
	}
	if err := e.write(seatOf, []byte(m.Cluster)); err != nil {
		return err
	}
	if err := errors.Join(syncDir(filepath.Join(e.Root, seatDir)), syncDir(filepath.Join(e.Root, stateDir))); err != nil {
		return err
	}
	return joind.ErrChanged
}

// giveUpSeat ends it as soon as etcd has the node on its list no longer: until
// then the others may need its vote.
func (e *Engine) giveUpSeat(ctx context.Context) error {
	listed, err := e.isListed(ctx)
	switch {
	case err != nil:
		return err
	case listed:
		return errors.New("waiting to be taken off etcd's list")
	}
	if err := e.write(seatLost, nil); err != nil {
		return err
	}
	return joind.ErrChanged
}

// isTold fails if the node has no seat, or not any more.
func (e *Engine) isTold(ctx context.Context) error {
	conf, err := e.tlsConfig(e.present())
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: lookTimeout, Transport: &http.Transport{TLSClientConfig: conf}}
	defer client.CloseIdleConnections()
	data, err := get(ctx, client, "https://"+endpoint()+"/api/v1/nodes/"+e.Node.Hostname)
	if err != nil {
		return err
	}
	var n nodeObject
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("node %s: %w", e.Node.Hostname, err)
	}
	if label := n.Metadata.Labels[seatLabel]; label == seatJoining || label == seatMember {
		return nil
	}
	return e.giveUpSeat(ctx)
}

// dropSeat removes what the node had as a member of another cube's control plane.
// Nothing of it may run any more.
func (e *Engine) dropSeat() error {
	if !e.exists(seatDir) {
		return nil
	}
	if err := errors.Join(
		e.removeManifests(manifestsDir),
		os.RemoveAll(filepath.Join(e.Root, etcdDir)),
		syncDir(filepath.Join(e.Root, filepath.Dir(etcdDir))),
	); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(e.Root, seatDir))
}

// removeManifests removes static pods.
func (e *Engine) removeManifests(dir string) error {
	files, err := filepath.Glob(filepath.Join(e.Root, dir, "*.yaml"))
	errs := []error{err}
	for _, f := range files {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}

// forgetCertificate lets kubeadm make another certificate for the API server: the
// one of home need not have all names that the other cluster wants in it, while
// the new one is good at home, too.
func (e *Engine) forgetCertificate() error {
	return errors.Join(
		remove(filepath.Join(e.Root, pkiDir, "apiserver.crt")),
		remove(filepath.Join(e.Root, pkiDir, "apiserver.key")),
	)
}

// MayLeave reports whether the cluster that the node is a guest of does without
// it: it has no seat in the control plane, or has lost it. It fails if nobody
// knows.
func (e *Engine) MayLeave(ctx context.Context) (bool, error) {
	if !e.IsSeated() {
		return true, nil
	}
	listed, err := e.isListed(ctx)
	return err == nil && !listed, err
}

// isListed asks the other members of the control plane whether etcd has the node
// on its list. What a cluster says that somebody began anew in the old one's place
// counts nothing: the node's data may be all that is left of that.
func (e *Engine) isListed(ctx context.Context) (bool, error) {
	known, err := os.ReadFile(filepath.Join(e.Root, seatEtcd))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	listed := false
	err = e.others(ctx, func(_ *http.Client, url, cluster string, own []etcdMember) error {
		if len(known) > 0 && cluster != string(known) {
			return fmt.Errorf("%s: another cluster is in the place of the one that the node is of", url)
		}
		listed = len(own) > 0
		return nil
	})
	return listed, err
}

// knowEtcd writes down whose member the node has become.
func (e *Engine) knowEtcd(ctx context.Context) error {
	return e.others(ctx, func(_ *http.Client, _, cluster string, _ []etcdMember) error {
		return e.write(seatEtcd, []byte(cluster))
	})
}

// findSeats asks the control-plane nodes of other cubes whether they are of this
// node's cluster, and those of the own cube whom they call: one that was off or is
// new does not know whom to call if all of its own cube are gone, and must not
// begin in their place.
func (e *Engine) findSeats(ctx context.Context) error {
	if len(e.Config.Cubes) < spreadCubes {
		return nil
	}
	var others []nodeconf.Peer
	for _, c := range e.Config.Cubes {
		for _, m := range c.ControlPlane {
			if c.Name != e.clusterCube() && m.Name != e.Node.Hostname && !e.isForeign(m.Name) {
				others = append(others, nodeconf.Peer{Name: m.Name, Address: m.Address, Cube: c.Name})
			}
		}
	}
	for _, p := range e.Node.Peers {
		if p.Name != e.Node.Hostname && e.homeOf(p.Cube) == e.clusterCube() && !e.isForeign(p.Name) {
			others = append(others, p)
		}
	}
	names := e.knownSeats(e.clusterCube())
	for _, a := range e.askAll(ctx, others) {
		if a.err != nil || !e.isWith(a.peer) {
			continue
		}
		names = append(names, a.Seats...)
		if a.Seated {
			names = append(names, a.Name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == e.Node.Hostname })
	return e.keepSeats(names)
}
