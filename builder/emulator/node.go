package emulator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator/wire"
)

// Node is a board with a card in it.
type Node struct {
	e       *Emulator
	card    Card
	number  int
	board   board
	mac     net.HardwareAddr
	disk    string // the overlay
	log     *os.File
	console *console

	power sync.Mutex // held while it is switched on or off

	mu        sync.Mutex
	plugged   bool // has power
	run       *run // nil: off, or on its way through a reset
	scanned   int  // lines of the console that were looked at for stages
	firstLine int  // of the console since the node was switched on
	began     time.Time
	heard     time.Time // when it last said something
	stage     Stage
	reached   map[Stage]time.Duration
	resets    int
	dying     string // what the console said of its end
	err       error
	cut       bool
	faults    wire.Faults
	segment   string
	changed   chan struct{} // closed and replaced with each change
	client    *ssh.Client
	moment    *moment // what Recall brings back; nil: nothing
}

// run is a machine from power on to power off.
type run struct {
	cmd    *exec.Cmd
	input  io.WriteCloser // the console's
	stderr *tailBuffer
	done   chan struct{} // closed when the process is gone and cleaned up after

	// Guarded by the node's mu.
	qmp    *qmp
	cable  *wire.Cable
	up     bool // switchOn is through
	wanted bool // its end
}

// NodeError is a node that does not do what is waited for.
type NodeError struct {
	Node  string
	Err   error
	Lines []string // the console's last
}

func (e *NodeError) Error() string {
	text := fmt.Sprintf("node %s: %v", e.Node, e.Err)
	if len(e.Lines) > 0 {
		text += "; its console's last lines:\n  " + strings.Join(e.Lines, "\n  ")
	}
	return text
}

func (e *NodeError) Unwrap() error { return e.Err }

const (
	lastLines    = 15
	maxResets    = 5                // without coming as far as Userspace
	connectLimit = 60 * time.Second // for QEMU to come up and connect
	waitDelay    = 5 * time.Second  // for the pipes of a QEMU that is dead
	afterDeath   = time.Second      // for the rest of a panic's text
	buttonLimit  = 10 * time.Second // to say something more once the power button is pressed, on a quick host
	buttonAgain  = 5 * time.Second  // between two presses
)

func newNode(e *Emulator, card Card, number int) *Node {
	b, _ := boards(card.Machine)
	n := &Node{
		e: e, card: card, number: number, board: b,
		mac:     b.mac(card.Address),
		disk:    filepath.Join(e.dir, fmt.Sprintf("%d.qcow2", number)),
		segment: card.Segment,
		reached: map[Stage]time.Duration{},
		changed: make(chan struct{}),
	}
	return n
}

// insert puts a card into the board.
func (n *Node) insert(image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return fmt.Errorf("cannot start without its card: %w", err)
	}
	size := max(info.Size(), n.card.Size)
	if n.card.Machine != MachineVirt {
		// QEMU's SD card wants a power of two.
		size = powerOfTwo(size)
	}
	if err := createOverlay(n.disk, image, size); err != nil {
		return err
	}
	n.card.Image = image
	if n.log == nil {
		name := filepath.Join(n.e.dir, filepath.Base(n.card.Name)+".console")
		if n.log, err = os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		n.console = newConsole(n.log)
	}
	return nil
}

func powerOfTwo(n int64) int64 {
	p := int64(1)
	for p < n {
		p *= 2
	}
	return p
}

func (n *Node) socket(what string) string {
	return filepath.Join(n.e.dir, fmt.Sprintf("%d.%s", n.number, what))
}

// started says whether the node has been switched on yet.
func (n *Node) started() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.began.IsZero()
}

// Name returns the node's name.
func (n *Node) Name() string { return n.card.Name }

// Address returns the node's address on the cubes' wire.
func (n *Node) Address() netip.Addr { return n.card.Address }

// Lease returns the address that the household's DHCP server has for it.
func (n *Node) Lease() netip.Addr { return n.e.gateway.Lease(n.mac) }

// PlugIn switches the node on. Its disk is as it was left.
func (n *Node) PlugIn(ctx context.Context) error {
	n.power.Lock()
	defer n.power.Unlock()
	n.mu.Lock()
	if n.plugged {
		n.mu.Unlock()
		return nil
	}
	n.plugged = true
	n.began = n.e.config.Now()
	n.err, n.resets = nil, 0
	n.firstLine = n.console.next()
	n.mu.Unlock()
	if err := n.switchOn(ctx); err != nil {
		n.mu.Lock()
		n.plugged = false
		n.mu.Unlock()
		return fmt.Errorf("node %s: %w", n.card.Name, err)
	}
	return nil
}

// PlugInCard puts a fresh card into a node that is off, and switches it on.
func (n *Node) PlugInCard(ctx context.Context, image string) error {
	n.power.Lock()
	n.mu.Lock()
	plugged := n.plugged
	n.mu.Unlock()
	err := errors.New("cannot change the card while it is on")
	if !plugged {
		err = n.insert(image)
	}
	n.power.Unlock()
	if err != nil {
		return fmt.Errorf("node %s: %w", n.card.Name, err)
	}
	return n.PlugIn(ctx)
}

// PullPlug takes the power away, at once: what the guest had not flushed to
// its card is lost. It returns when the machine is gone.
func (n *Node) PullPlug() {
	n.power.Lock()
	defer n.power.Unlock()
	n.mu.Lock()
	n.plugged = false
	r := n.run
	if r != nil {
		r.wanted = true
	}
	n.mu.Unlock()
	if r != nil {
		r.cmd.Process.Kill()
		<-r.done
	}
}

// Shutdown presses the power button and waits until the node is off. If ctx
// ends first, or the board has no such button, or nobody there heeds it, the
// plug is pulled.
func (n *Node) Shutdown(ctx context.Context) error {
	defer n.PullPlug()
	n.mu.Lock()
	r := n.run
	if r != nil {
		r.wanted, n.plugged = true, false
	}
	n.mu.Unlock()
	if r == nil || n.card.Machine != MachineVirt {
		return nil
	}
	if err := r.qmp.run("system_powerdown", nil); err != nil {
		return fmt.Errorf("node %s: %w", n.card.Name, err)
	}
	limit := func() time.Duration { return time.Duration(float64(buttonLimit) * n.e.Pace()) }
	heed, again := time.NewTimer(limit()), time.NewTicker(buttonAgain)
	defer heed.Stop()
	defer again.Stop()
	for {
		_, _, _, said := n.console.since(1 << 62)
		select {
		case <-r.done:
			return nil
		case <-said:
			heed.Reset(limit())
		case <-again.C:
			// A system that is still starting did not notice; one that is gone says
			// so by itself.
			_ = r.qmp.run("system_powerdown", nil)
		case <-heed.C:
			return fmt.Errorf("node %s: cannot shut it down: it does not heed the power button", n.card.Name)
		case <-ctx.Done():
			return fmt.Errorf("node %s: cannot wait longer for it to shut down: %w", n.card.Name, ctx.Err())
		}
	}
}

// prepare reads from the card what the firmware would load.
func (n *Node) prepare() (Machine, error) {
	disk, err := openOverlay(n.disk, n.card.Image)
	if err != nil {
		return Machine{}, err
	}
	defer disk.Close()
	boot, err := readBoot(disk, disk.size, n.board, filters(n.card.Board)...)
	if err != nil {
		return Machine{}, fmt.Errorf("card %s: %w", n.card.Image, err)
	}
	m := Machine{
		Name: n.card.Name, Type: n.card.Machine, Accel: n.e.config.Accel,
		CPUs: n.card.CPUs, Memory: n.card.Memory,
		CommandLine: boot.commandLine,
		Disk:        n.disk, MAC: n.mac,
		Wire: n.socket("wire"), Control: n.socket("qmp"), Stages: n.socket("stage"),
		Clock: n.card.Clock, Args: n.card.Args,
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&m.Kernel, boot.kernel}, {&m.Initramfs, boot.initramfs}, {&m.DeviceTree, boot.deviceTree}} {
		if *f.to, err = boot.extract(n.e.dir, f.from); err != nil {
			return Machine{}, err
		}
	}
	return m, nil
}

// filters gives the sections of config.txt that apply to a board.
func filters(board string) []string {
	switch board {
	case "rpi2":
		return []string{"pi2"}
	case "rpi3":
		return []string{"pi3"}
	case "zero2w":
		return []string{"pi3", "pi02"}
	case "rpi4":
		return []string{"pi4"}
	case "cm4":
		return []string{"pi4", "cm4"}
	case "rpi5":
		return []string{"pi5"}
	}
	return nil
}

// switchOn starts QEMU and waits until it has connected to the wire.
func (n *Node) switchOn(ctx context.Context) error {
	m, err := n.prepare()
	if err != nil {
		return err
	}
	sockets := []string{m.Wire, m.Control}
	if m.Type == MachineVirt {
		sockets = append(sockets, m.Stages)
	}
	var listeners []net.Listener
	hangUp := func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	defer hangUp()
	for _, s := range sockets {
		l, err := net.Listen("unix", s)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	defer context.AfterFunc(ctx, hangUp)()

	r, err := n.launch(m)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-r.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	conns, err := accept(listeners)
	if err == nil {
		err = n.connect(r, conns)
	}
	if err == nil {
		return nil
	}
	for _, c := range conns {
		c.Close()
	}
	r.cmd.Process.Kill()
	<-r.done
	if text := r.stderr.String(); text != "" {
		return fmt.Errorf("QEMU: %s", text)
	}
	return fmt.Errorf("QEMU: cannot reach it: %w", errors.Join(err, context.Cause(ctx)))
}

func accept(listeners []net.Listener) ([]net.Conn, error) {
	var conns []net.Conn
	for _, l := range listeners {
		c, err := l.Accept()
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// connect takes what QEMU has connected: wire, control and, on virt, stages.
func (n *Node) connect(r *run, conns []net.Conn) error {
	q := newQMP(conns[1])
	if err := q.run("qmp_capabilities", nil); err != nil {
		return err
	}
	if len(conns) > 2 {
		go n.readStages(conns[2])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.run != r {
		return errGone
	}
	r.qmp = q
	r.cable = n.e.wire.PlugConn(n.card.Name, n.segment, conns[0])
	r.up = true
	n.applyCable()
	return nil
}

// launch starts the process and what watches over it.
func (n *Node) launch(m Machine) (*run, error) {
	r := &run{done: make(chan struct{}), stderr: &tailBuffer{}}
	r.cmd = exec.Command(program(n.e.config.QEMU, n.board.binary), Args(m)...)
	r.cmd.Stdout = (*consoleWriter)(n)
	r.cmd.Stderr = r.stderr
	r.cmd.SysProcAttr = ownGroup()
	r.cmd.WaitDelay = waitDelay
	var err error
	if r.input, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.run = r
	n.heard = n.e.config.Now()
	n.dying = ""
	n.scanned = n.console.next()
	n.reached = map[Stage]time.Duration{}
	n.setStage(Firmware)
	n.mu.Unlock()

	started := make(chan error)
	go func() {
		// On Linux the machine is killed when the thread that started it ends,
		// so this thread must live as long as the machine.
		runtime.LockOSThread()
		err := r.cmd.Start()
		started <- err
		if err == nil {
			err = r.cmd.Wait()
		}
		n.ended(r, err)
	}()
	if err := <-started; err != nil {
		<-r.done
		return nil, err
	}
	return r, nil
}

// ended cleans up after a machine and decides what its end means.
func (n *Node) ended(r *run, wait error) {
	n.mu.Lock()
	cable, q, client := r.cable, r.qmp, n.client
	n.client = nil
	n.mu.Unlock()
	if client != nil {
		client.Close()
	}
	if cable != nil {
		cable.Close()
	}
	reason := ""
	if q != nil {
		q.wait()
		reason = q.shutdownReason()
	}
	n.mu.Lock()
	n.run = nil
	stage := n.stage
	n.setStage(Off)
	again := false
	switch {
	case !r.up, r.wanted, !n.plugged, n.err != nil:
		n.plugged = n.plugged && !r.up
	case reason == "guest-reset" && stage < Userspace && n.resets >= maxResets:
		n.setError(errors.New("starts again and again"))
	case reason == "guest-reset":
		again = true
		n.resets++
		if stage >= Userspace {
			n.resets = 0
		}
	case reason == "guest-shutdown":
		n.plugged = false
	default:
		if text := r.stderr.String(); text != "" {
			wait = fmt.Errorf("%w: %s", wait, text)
		}
		n.setError(fmt.Errorf("QEMU ended: %w", wait))
	}
	n.notify()
	n.mu.Unlock()
	close(r.done)
	if again {
		go n.restart()
	}
}

// restart follows a guest's own reset.
func (n *Node) restart() {
	n.power.Lock()
	defer n.power.Unlock()
	n.mu.Lock()
	plugged := n.plugged
	n.mu.Unlock()
	if !plugged {
		return
	}
	if err := n.switchOn(context.Background()); err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.setError(fmt.Errorf("cannot start again: %w", err))
	}
}

// setError records why the node will not come further. n.mu is held.
func (n *Node) setError(err error) { n.setErrorAt(err, n.console.tail(lastLines)) }

func (n *Node) setErrorAt(err error, lines []string) {
	if n.err != nil {
		return
	}
	n.plugged = false
	n.err = &NodeError{Node: n.card.Name, Err: err, Lines: lines}
	n.e.event(Event{Node: n.card.Name, Since: n.e.config.Now().Sub(n.began), Stage: n.stage, Err: n.err})
	n.notify()
}

// setStage records a stage. n.mu is held.
func (n *Node) setStage(s Stage) {
	since := n.e.config.Now().Sub(n.began)
	if s == Off {
		n.stage = Off
		n.e.event(Event{Node: n.card.Name, Since: since, Stage: Off})
		return
	}
	if _, ok := n.reached[s]; ok {
		return
	}
	n.reached[s] = since
	n.stage = max(n.stage, s)
	n.e.event(Event{Node: n.card.Name, Since: since, Stage: s})
	n.notify()
}

// notify wakes whoever waits for a change. n.mu is held.
func (n *Node) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// consoleWriter is a node that takes its machine's output.
type consoleWriter Node

// Write never fails for the machine's sake: a full disk must not stop a guest
// in the middle of a line.
func (w *consoleWriter) Write(p []byte) (int, error) {
	n := (*Node)(w)
	if _, err := n.console.Write(p); err != nil {
		n.mu.Lock()
		n.setError(fmt.Errorf("cannot write its console: %w", err))
		n.mu.Unlock()
		return 0, err
	}
	n.scan()
	return len(p), nil
}

// scan looks at what is new on the console.
func (n *Node) scan() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = n.e.config.Now()
	lines, partial, next, _ := n.console.since(n.scanned)
	n.scanned = next
	if s := stageOf(partial); s == Login {
		n.setStage(s)
	}
	for _, line := range lines {
		if s := stageOf(line); s != Off {
			n.setStage(s)
		}
		if strings.Contains(line, " as init process") {
			n.e.measure(n.heard.Sub(n.began))
		}
		if d := deathOf(line); d != "" && n.dying == "" {
			n.dying = d
			r := n.run
			time.AfterFunc(afterDeath, func() { n.die(r, d) })
		}
	}
}

// die ends a machine whose guest will not come up any more.
func (n *Node) die(r *run, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r == nil || n.run != r {
		return
	}
	n.setErrorAt(errors.New(why), n.console.around(why, lastLines))
	r.cmd.Process.Kill()
}

// readStages reads the port on which the guest tells its stages.
func (n *Node) readStages(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		n.mu.Lock()
		n.heard = n.e.config.Now()
		if s := stageOf(plain(lines.Text())); s != Off {
			n.setStage(s)
		}
		n.mu.Unlock()
	}
}

// Stage returns how far the node has come, and when, counted from power on, it
// has reached each stage.
func (n *Node) Stage() (Stage, map[Stage]time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stage, maps.Clone(n.reached)
}

// Err tells why the node will not come further, or nil.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// Console returns all lines of the console that are in memory, the last one
// perhaps incomplete.
func (n *Node) Console() []string {
	lines, partial, _, _ := n.console.since(0)
	if partial != "" {
		lines = append(lines, partial)
	}
	return lines
}

// Type types on the node's console.
func (n *Node) Type(text string) error {
	n.mu.Lock()
	r := n.run
	n.mu.Unlock()
	if r == nil {
		return fmt.Errorf("node %s: cannot type on it: it is off", n.card.Name)
	}
	_, err := io.WriteString(r.input, text)
	return err
}

// attach shows the console to a person and lets them type on it.
func (n *Node) attach(screen io.Writer, keys io.Reader) {
	n.console.mu.Lock()
	n.console.screen = screen
	n.console.mu.Unlock()
	if keys == nil {
		return
	}
	go func() {
		b := make([]byte, 256)
		for {
			k, err := keys.Read(b)
			if err != nil {
				return
			}
			// What is typed while the node is off goes nowhere.
			n.Type(string(b[:k]))
		}
	}()
}

// WaitStage waits until the node has reached a stage or a later one.
func (n *Node) WaitStage(ctx context.Context, s Stage) error {
	return n.wait(ctx, "stage "+s.String(), func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.stage >= s
	})
}

// WaitOff waits until the node has switched itself off.
func (n *Node) WaitOff(ctx context.Context) error {
	return n.wait(ctx, "its end", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.run == nil && !n.plugged
	})
}

// WaitConsole waits until a line of the console matches that was said since the
// node was last switched on, and returns the match and its groups.
func (n *Node) WaitConsole(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	n.mu.Lock()
	at := n.firstLine
	n.mu.Unlock()
	var match []string
	err := n.wait(ctx, fmt.Sprintf("%q on its console", re), func() bool {
		lines, partial, next, _ := n.console.since(at)
		at = next
		for _, line := range append(lines, partial) {
			if match = re.FindStringSubmatch(line); match != nil {
				return true
			}
		}
		return false
	})
	return match, err
}

// wait waits for a condition, which it looks at whenever the node says or does
// something. It gives up when the node dies, is off, or is silent for too long.
func (n *Node) wait(ctx context.Context, what string, done func() bool) error {
	for {
		_, _, _, said := n.console.since(1 << 62)
		n.mu.Lock()
		changed, err, off, heard, quiet := n.changed, n.err, n.run == nil && !n.plugged, n.heard, n.stage >= Login
		n.mu.Unlock()
		if done() {
			return nil
		}
		// A system that has come up has nothing to say.
		limit := n.e.silence()
		left := limit - n.e.config.Now().Sub(heard)
		if quiet {
			left = limit
		}
		switch {
		case err != nil:
			return err
		case off:
			return n.failed(fmt.Errorf("cannot wait for %s: it is off", what))
		case left <= 0:
			return n.failed(fmt.Errorf("hangs: has said nothing for %v, waiting for %s", limit.Round(time.Second), what))
		}
		silent := time.NewTimer(left)
		select {
		case <-said:
		case <-changed:
		case <-silent.C:
		case <-ctx.Done():
			silent.Stop()
			return n.failed(fmt.Errorf("cannot wait longer for %s: %w", what, context.Cause(ctx)))
		}
		silent.Stop()
	}
}

func (n *Node) failed(err error) error {
	return &NodeError{Node: n.card.Name, Err: err, Lines: n.console.tail(lastLines)}
}

// tailBuffer keeps the last of what a program said.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - maxLine; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(plain(strings.ReplaceAll(string(t.b), "\n", "\t")))
}
