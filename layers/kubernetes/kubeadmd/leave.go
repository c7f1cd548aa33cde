package kubeadmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A node enters another cluster without a new start of the system: everything
// of the one it was in stops, what a control plane keeps is put aside, and then
// it joins like any worker. The kubelet itself clears away pods that it finds
// and nobody wants, with their mounts, so nothing here goes near a volume.
//
// All of it is done again from the beginning if it was cut off.
const (
	// entered names the cluster that the node's programs work for; at home
	// there is none.
	entered       = stateDir + "/entered"
	manifestsDir  = "/etc/kubernetes/manifests"
	manifestsHome = stateDir + "/home-manifests"
	kubepods      = "/sys/fs/cgroup/kubepods.slice"
	cniAddresses  = "/var/lib/cni/networks"
	// cniFile is the only network configuration that containerd finds.
	cniFile = "/etc/cni/net.d/10-picube.conflist"
)

// grace is how long pods may take to end by themselves.
const (
	grace     = 20 * time.Second
	gracePoll = 500 * time.Millisecond
)

// Settle makes the node work for the cluster that it belongs to.
func (e *Engine) Settle(ctx context.Context) error {
	if !e.Merges() {
		return nil
	}
	if err := e.installHost(); err != nil {
		return err
	}
	m, err := e.Membership()
	if err != nil {
		return err
	}
	want := m.Cluster
	if m.Cluster == m.Home {
		want = ""
	}
	text, err := os.ReadFile(filepath.Join(e.Root, entered))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(text) == want {
		return e.stepDown(ctx)
	}
	e.Say("leaving for the cluster of " + m.Cube)
	if err := e.stop(ctx); err != nil {
		return err
	}
	if err := e.dropSeat(); err != nil {
		return err
	}
	if e.IsHomeControlPlane() {
		if err := e.shelve(m.Home, want == ""); err != nil {
			return err
		}
	}
	if err := e.change(); err != nil {
		return err
	}
	if err := e.write(entered, []byte(want)); err != nil {
		return err
	}
	if e.IsControlPlane() {
		return e.startServices(ctx)
	}
	return nil
}

// stepDown makes a worker of a node that lost its seat.
func (e *Engine) stepDown(ctx context.Context) error {
	if !e.exists(seatLost) {
		return nil
	}
	e.Say("leaving the control plane")
	if err := e.stop(ctx); err != nil {
		return err
	}
	return e.dropSeat()
}

// stop stops what works for a cluster.
func (e *Engine) stop(ctx context.Context) error {
	if err := e.Run(ctx, "systemctl", "stop", "kubelet.service", "kube-proxy.service"); err != nil {
		return err
	}
	// Its rules would lead to the old cluster's pods, whose addresses are others'
	// in the next one. If that fails, kube-proxy puts it right when it starts.
	if err := e.Run(ctx, "kube-proxy", "--cleanup"); err != nil && ctx.Err() != nil {
		return err
	}
	// From here on no start of the kubelet, after a pulled plug either, must
	// bring the control plane back.
	switch {
	case e.exists(seatDir):
		if err := e.removeManifests(manifestsDir); err != nil {
			return err
		}
	case e.IsHomeControlPlane():
		if err := e.moveManifests(manifestsDir, manifestsHome); err != nil {
			return err
		}
	}
	if err := e.killPods(ctx); err != nil {
		return err
	}
	if err := e.removeAhead(ctx, anySandbox); err != nil {
		return err
	}
	// The next cluster gives pods other addresses; a bridge with the old one
	// would refuse them, and until there are new ones none must be given.
	if err := e.DropBridge(); err != nil {
		return err
	}
	return errors.Join(
		os.RemoveAll(filepath.Join(e.Root, cniAddresses)),
		remove(filepath.Join(e.Root, cniFile)),
	)
}

// killPods ends whatever runs in pods: first they are asked to.
func (e *Engine) killPods(ctx context.Context) error {
	for waited := time.Duration(0); waited < grace; waited += gracePoll {
		left := e.podProcesses()
		if len(left) == 0 {
			break
		}
		if waited == 0 {
			for _, pid := range left {
				_ = e.Signal(pid, syscall.SIGTERM)
			}
		}
		if err := e.Pause(ctx, gracePoll); err != nil {
			return err
		}
	}
	err := os.WriteFile(filepath.Join(e.Root, kubepods, "cgroup.kill"), []byte("1"), 0o200)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// podProcesses are the processes of all pods (cgroups, cgroup-v2.rst).
func (e *Engine) podProcesses() []int {
	var out []int
	_ = filepath.WalkDir(filepath.Join(e.Root, kubepods), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil //nolint:nilerr // a pod that just ended
		}
		text, _ := os.ReadFile(name)
		for line := range strings.Lines(string(text)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 1 {
				out = append(out, pid)
			}
		}
		return nil
	})
	return out
}

// shelve puts the control plane's state aside, or back.
func (e *Engine) shelve(id string, back bool) error {
	state, aside := etcdDir, etcdDir+"."+id
	if !back {
		if !e.exists(etcdData) {
			return nil // it was cut off after this
		}
		return e.move(state, aside)
	}
	if e.exists(aside) {
		if err := e.move(aside, state); err != nil {
			return err
		}
	}
	if e.exists(etcdData) {
		return nil
	}
	// A card that was flashed anew while its cluster was away has nothing: it
	// begins like any other, with a backup.
	return remove(filepath.Join(e.Root, done))
}

// switchedOn marks that Hold is done since the node was switched on.
const switchedOn = "/run/picube/held"

// Hold keeps the kubelet of a node that was switched on from starting a control
// plane all at once: Resume does it. It has to run before the kubelet does.
func (e *Engine) Hold() error {
	if e.exists(switchedOn) {
		return nil
	}
	if err := e.holdControlPlane(); err != nil {
		return err
	}
	return e.write(switchedOn, nil)
}

// holdControlPlane puts those static pods aside that Resume starts one after the
// other; etcd waits for nobody.
func (e *Engine) holdControlPlane() error {
	if !e.IsControlPlane() || !e.IsMember() {
		return nil
	}
	return e.moveManifests(manifestsDir, e.held(), "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml")
}

// held is where static pods wait. Those of home stay where they are as long as
// there are others.
func (e *Engine) held() string {
	if e.exists(seatDir) {
		return seatManifests
	}
	return manifestsHome
}

// Resume starts a control plane whose node was switched on or came home, its
// parts one after the other, as when it began: those that find no API end, and
// the kubelet lets them wait for minutes before it starts them again.
func (e *Engine) Resume(ctx context.Context) error {
	if !e.IsControlPlane() || !e.IsMember() || !e.exists(e.held()) || !e.exists(etcdData) {
		return nil
	}
	for _, part := range []struct{ name, ready string }{
		{"etcd.yaml", etcdReady}, {"kube-apiserver.yaml", fmt.Sprintf("https://127.0.0.1:%d/readyz", APIPort)},
	} {
		if err := e.moveManifests(e.held(), manifestsDir, part.name); err != nil {
			return err
		}
		if err := e.Wait(ctx, part.ready); err != nil {
			return err
		}
	}
	if err := e.moveManifests(e.held(), manifestsDir); err != nil {
		return err
	}
	return remove(filepath.Join(e.Root, e.held()))
}

// moveManifests moves static pods, those of the given names or all.
func (e *Engine) moveManifests(from, to string, names ...string) error {
	from, to = filepath.Join(e.Root, from), filepath.Join(e.Root, to)
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	errs := []error{os.MkdirAll(from, 0o755), os.MkdirAll(to, 0o755)}
	for _, entry := range entries {
		if names == nil || slices.Contains(names, entry.Name()) {
			errs = append(errs, os.Rename(filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())))
		}
	}
	return errors.Join(append(errs, syncDir(from), syncDir(to))...)
}

// move renames a folder; one that is in the way has to be empty.
func (e *Engine) move(from, to string) error {
	from, to = filepath.Join(e.Root, from), filepath.Join(e.Root, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := remove(to); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(from)), syncDir(filepath.Dir(to)))
}

// remove removes a file or an empty folder that may not be there.
func remove(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
