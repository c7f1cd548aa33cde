// Package emulator starts cards in QEMU, copy-on-write, on a wire in this
// process: what `picube-build boot` shows and what tests of more than one node
// use. No privilege is needed, and nothing is left behind: machines die with
// this process, and all files are in one folder that Close removes.
//
// Not supported: Wi-Fi, what hangs on a board's pins (but see Card.Args), boards
// that QEMU does not know (Pi 5, Zero 2 W), IPv6 beyond the nodes' own
// link-local addresses.
package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator/gateway"
	"github.com/picube/picube-build/builder/emulator/wire"
)

// Config is how an emulator is set up. Only Now must be given.
type Config struct {
	Now    func() time.Time
	Seed   uint64       // of what is left to chance: which packets a bad cable loses
	Dir    string       // where the folder of this run is made; empty: the system's for temporary files
	QEMU   string       // folder with QEMU's programs; empty: they are looked for in PATH
	Accel  string       // AccelTCG, ...; empty: the best that the host has
	CPUs   int          // per node; 0: the host's, at most 4
	Memory int          // MiB per node; 0: 1024
	Host   netip.Prefix // the host's address on the cubes' wire; zero: 10.42.255.254/16
	// Internet opens the way out from the start; NoDHCP is a house without a router.
	Internet bool
	NoDHCP   bool
	// Silence is how long a node may say nothing while somebody waits for it,
	// on a quick machine; it grows with what this one needs. 0: 5 minutes.
	Silence time.Duration
	// Events is told of each node's stages and end. It must return at once and
	// not call back.
	Events func(Event)
}

// Card is a card to start, and the board it is in.
type Card struct {
	Name    string     // the node's, unique
	Image   string     // the .img file; it is never written to
	Size    int64      // of the simulated card; 0: as the image
	Address netip.Addr // on the cubes' wire, unique
	Segment string     // nodes of one segment are on one wire: the cube's name
	Board   string     // the card's, as blueprints have it: rpi3, rpi4, ...
	Machine string     // MachineVirt, ...; empty: MachineVirt
	CPUs    int        // 0: Config's
	Memory  int        // MiB; 0: Config's
	Clock   time.Time  // when it is switched on first; zero: the host's time
	// Args are more of QEMU's: for what hangs on the board.
	Args []string
	// How Run logs in.
	User    string
	Key     ssh.Signer
	HostKey ssh.PublicKey // nil: any
}

// Event is something that happened to a node.
type Event struct {
	Node  string
	Since time.Duration // since it was switched on
	Stage Stage
	Err   error // why it will not come further
}

// Emulator is a wire with machines on it. Its methods may be called from any
// goroutine.
type Emulator struct {
	config  Config
	dir     string
	lock    *os.File // held while the folder is in use
	wire    *wire.Switch
	gateway *gateway.Gateway
	host    *wire.Port
	tell    sync.Mutex // serialises Events

	mu       sync.Mutex
	nodes    []*Node
	pace     float64
	forwards []*forward
	capture  *wire.Capture
	pcap     *os.File
	closed   bool
}

const (
	defaultMemory  = 1024
	defaultSilence = 5 * time.Minute
	// maxSocket is the shortest limit of a unix socket's path among the
	// systems that we run on (macOS).
	maxSocket = 103
)

var (
	defaultHost = netip.MustParsePrefix("10.42.255.254/16")
	// defaultLAN is the household's network, with its router's address.
	defaultLAN = netip.MustParsePrefix("192.168.76.1/24")
)

// New makes an emulator without nodes.
func New(c Config) (*Emulator, error) {
	if c.Now == nil {
		return nil, errors.New("emulator: cannot run without a clock")
	}
	if c.Accel == "" {
		c.Accel = hostAccel()
	}
	if c.CPUs == 0 {
		c.CPUs = defaultCPUs()
	}
	if c.Memory == 0 {
		c.Memory = defaultMemory
	}
	if !c.Host.IsValid() {
		c.Host = defaultHost
	}
	if c.Silence == 0 {
		c.Silence = defaultSilence
	}
	dir, lock, err := makeRunDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	e := &Emulator{config: c, dir: dir, lock: lock, pace: 1}
	random := rand.New(rand.NewPCG(c.Seed, 0))
	e.wire = wire.New(c.Now, random.Float64)
	mac := macOf(c.Host.Addr())
	e.gateway, err = gateway.New(gateway.Config{
		MAC: mac, LAN: defaultLAN, Cubes: c.Host,
		Send: func(frame []byte) { e.host.Send(frame) },
	})
	if err != nil {
		return nil, errors.Join(err, lock.Close(), os.RemoveAll(dir))
	}
	e.host = e.wire.Plug("host", wire.Everywhere, e.gateway.Deliver)
	e.gateway.SetDHCP(!c.NoDHCP)
	e.gateway.SetInternet(c.Internet)
	return e, nil
}

// macOf makes a locally administered MAC address of an address on the wire.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x70, b[0], b[1], b[2], b[3]}
}

// Start puts a card into a machine and switches it on. It returns when the
// machine runs; ctx is for that alone.
func (e *Emulator) Start(ctx context.Context, card Card) (*Node, error) {
	n, err := e.add(card)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", card.Name, err)
	}
	if err := n.PlugIn(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

// add makes a node that is off.
func (e *Emulator) add(card Card) (*Node, error) {
	if card.Machine == "" {
		card.Machine = MachineVirt
	}
	if card.CPUs == 0 {
		card.CPUs = e.config.CPUs
	}
	if card.Memory == 0 {
		card.Memory = e.config.Memory
	}
	b, ok := boards(card.Machine)
	switch {
	case !ok:
		return nil, fmt.Errorf("machine %q: cannot emulate it", card.Machine)
	case !card.Address.Is4():
		return nil, errors.New("cannot be on the wire without an IPv4 address")
	case !e.config.Host.Contains(card.Address):
		return nil, fmt.Errorf("address %v: cannot be reached from the host's %v", card.Address, e.config.Host)
	}
	if b.cpus > 0 {
		card.CPUs, card.Memory = b.cpus, b.memory
	}
	if err := checkQEMU(e.config.QEMU, b); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.New("cannot start when the emulator is closed")
	}
	all, soon := card.Memory, card.Memory
	for _, n := range e.nodes {
		all += n.card.Memory
		if !n.started() {
			soon += n.card.Memory
		}
		if n.card.Name == card.Name || n.card.Address == card.Address {
			return nil, fmt.Errorf("cannot have the name or the address of %s (%v)", n.card.Name, n.card.Address)
		}
	}
	n := newNode(e, card, len(e.nodes)+1)
	if len(n.socket("wire")) > maxSocket {
		return nil, fmt.Errorf("folder %s: cannot hold sockets, its path is too long: choose another for temporary files", e.dir)
	}
	if err := checkMemory(soon, all); err != nil {
		return nil, err
	}
	if err := n.insert(card.Image); err != nil {
		return nil, err
	}
	e.nodes = append(e.nodes, n)
	e.gateway.Add(card.Name, n.mac, card.Address)
	return n, nil
}

// checkMemory refuses nodes that the host has no memory for: soon is what those
// want that have not been started yet, all what every node wants. Those that
// run have not touched all of theirs yet, so what is free does not tell enough.
func checkMemory(soon, all int) error {
	total, available := hostMemory()
	if available == 0 || soon <= available && all <= total*9/10 {
		return nil
	}
	return fmt.Errorf("cannot have so much memory: the nodes would need %d MiB in all, the host has %d MiB, of which %d are free; start fewer of them, or give each less",
		all, total, available)
}

// Nodes returns the nodes in the order in which they were started.
func (e *Emulator) Nodes() []*Node {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.nodes)
}

// Node returns a node by its name, or nil.
func (e *Emulator) Node(name string) *Node {
	for _, n := range e.Nodes() {
		if n.card.Name == name {
			return n
		}
	}
	return nil
}

// JoinSegments connects two segments with a cable; SplitSegments pulls it.
func (e *Emulator) JoinSegments(a, b string) { e.wire.Join(a, b) }

// SplitSegments takes away what JoinSegments connected.
func (e *Emulator) SplitSegments(a, b string) { e.wire.Split(a, b) }

// SetInternet opens and closes the way out.
func (e *Emulator) SetInternet(on bool) { e.gateway.SetInternet(on) }

// SetDHCP switches the household's DHCP server on and off.
func (e *Emulator) SetDHCP(on bool) { e.gateway.SetDHCP(on) }

// ForgetLeases makes the DHCP server give other addresses than before; who has
// one keeps it until it asks again.
func (e *Emulator) ForgetLeases() { e.gateway.ForgetLeases() }

// Capture writes all frames from now on to wire.pcap in the run's folder,
// from which Save copies it.
func (e *Emulator) Capture() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.capture != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(e.dir, "wire.pcap"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	c, err := e.wire.Capture(wire.Everywhere, f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	e.capture, e.pcap = c, f
	return nil
}

// Save copies what helps to understand a failure (every node's console, the
// capture if there is one) to a folder, and returns the files' paths.
func (e *Emulator) Save(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var saved []string
	for _, pattern := range []string{"*.console", "wire.pcap"} {
		names, err := filepath.Glob(filepath.Join(e.dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			to := filepath.Join(dir, filepath.Base(name))
			if err := copyFile(to, name); err != nil {
				return saved, err
			}
			saved = append(saved, to)
		}
	}
	return saved, nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Shutdown presses every node's power button, waits until all are off or ctx
// ends, and closes the emulator.
func (e *Emulator) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, n := range e.Nodes() {
		wg.Go(func() { n.Shutdown(ctx) })
	}
	wg.Wait()
	return e.Close()
}

// Close kills all machines and removes every file of the run. It may be called
// more than once.
func (e *Emulator) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	nodes, forwards := slices.Clone(e.nodes), e.forwards
	e.mu.Unlock()

	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(n.PullPlug)
	}
	wg.Wait()
	for _, f := range forwards {
		f.close()
	}
	var errs []error
	if e.capture != nil {
		errs = append(errs, e.capture.Stop(), e.pcap.Close())
	}
	e.host.Unplug()
	errs = append(errs, e.gateway.Close())
	for _, n := range nodes {
		errs = append(errs, n.log.Close())
	}
	return errors.Join(append(errs, e.lock.Close(), os.RemoveAll(e.dir))...)
}

// event tells whoever wants to know.
func (e *Emulator) event(ev Event) {
	if e.config.Events == nil {
		return
	}
	e.tell.Lock()
	defer e.tell.Unlock()
	e.config.Events(ev)
}

// silence is how long a node may be silent, given what this host delivers.
func (e *Emulator) silence() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Duration(float64(e.config.Silence) * e.pace)
}

// measure learns how slow this host is from how long a kernel took to come up,
// which is the same work everywhere.
func (e *Emulator) measure(kernel time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pace = max(e.pace, float64(kernel)/float64(quickKernel))
}

// Pace says how much slower than a quick machine this one is, as measured by
// the kernels that came up so far: at least 1. Time limits are multiplied by it.
func (e *Emulator) Pace() float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pace
}

// quickKernel is what an idle 2-core machine needs from power on to the first
// program, by software emulation.
const quickKernel = 6 * time.Second
