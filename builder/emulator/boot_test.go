//go:build long

package emulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator/wire"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// start starts cards and waits until all have come to Login.
func start(t testing.TB, ctx context.Context, e *Emulator, cards ...Card) []*Node {
	t.Helper()
	var nodes []*Node
	for _, c := range cards {
		n, err := e.Start(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := n.WaitStage(ctx, Login); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

// run runs a command that must succeed.
func must(t testing.TB, ctx context.Context, n *Node, command string) string {
	t.Helper()
	out, err := n.Run(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestNetwork(t *testing.T) {
	ctx := testContext(t)
	c := newCards(t)
	e := newEmulator(t, Config{})
	if err := e.Capture(); err != nil {
		t.Fatal(err)
	}
	first, second := c.card(1, ""), c.card(2, "")
	second.Segment = "other"
	nodes := start(t, ctx, e, first, second)
	n1, n2 := nodes[0], nodes[1]
	_, reached := n1.Stage()
	t.Logf("stages %v, pace %.1f", reached, e.Pace())
	if _, ok := reached[Configured]; !ok {
		t.Error("the stage told on the virtio port did not arrive")
	}

	pings := func(want bool, why string) {
		t.Helper()
		_, err := n1.Run(ctx, "ping 10.42.1.2")
		if (err == nil) != want {
			t.Errorf("%s: ping: %v", why, err)
		}
	}
	pings(false, "segments of their own")
	e.JoinSegments("picube", "other")
	pings(true, "segments joined")
	n2.CutCable()
	if _, err := n2.WaitConsole(ctx, regexp.MustCompile("^carrier 0$")); err != nil {
		t.Error(err)
	}
	pings(false, "cable cut")
	if out, err := n1.Run(ctx, "carrier"); strings.TrimSpace(out) != "1" {
		t.Errorf("carrier of an uncut cable: %q, %v", out, err)
	}
	n2.MendCable()
	if out := must(t, ctx, n2, "carrier"); out != "1" {
		t.Errorf("carrier of a mended cable: %q", out)
	}
	pings(true, "cable mended")
	e.SplitSegments("other", "picube")
	pings(false, "segments split")
	n2.MoveTo("picube")
	pings(true, "moved")
	if err := n2.SetFaults(wire.Faults{Loss: 1}); err != nil {
		t.Fatal(err)
	}
	pings(false, "everything lost")
	if err := n2.SetFaults(wire.Faults{Delay: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	pings(true, "delayed")

	if got, want := must(t, ctx, n1, "dhcp"), n1.Lease().String()+"/24 router 192.168.76.1 dns 192.168.76.1"; got != want {
		t.Errorf("lease %q, want %q", got, want)
	}
	if got := must(t, ctx, n1, "resolve rpi2"); got != "10.42.1.2" {
		t.Errorf("rpi2 is %q", got)
	}
	internet(t, ctx, e, n1)

	addr, err := n1.Forward("127.0.0.1:0", 22)
	if err != nil {
		t.Fatal(err)
	}
	host, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 8)
	if _, err := io.ReadFull(host, greeting); string(greeting) != "SSH-2.0-" {
		t.Errorf("the host's port says %q, %v", greeting, err)
	}
	host.Close()
	if _, err := n2.Forward(addr.String(), 22); err == nil || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("a port in use: %v", err)
	}

	saved, err := e.Save(t.TempDir())
	if err != nil || len(saved) != 3 {
		t.Errorf("saved %q, %v", saved, err)
	}
	tool(t, "tcpdump", "-n", "-r", saved[2], "icmp")
	nothingLeft(t, e)
}

// internet has a guest reach a server of the host's, on an address that is
// neither loopback nor on the wire, with the way out closed and open.
func internet(t *testing.T, ctx context.Context, e *Emulator, n *Node) {
	t.Helper()
	var outside net.IP
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip := a.(*net.IPNet).IP.To4(); ip != nil && ip.IsGlobalUnicast() {
			outside = ip
		}
	}
	if outside == nil {
		t.Log("the host has no network; the way out is not tested")
		return
	}
	l, err := net.Listen("tcp", net.JoinHostPort(outside.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	if out, err := n.Run(ctx, "get "+l.Addr().String()); err == nil {
		t.Errorf("there is a way out: %q", out)
	}
	e.SetInternet(true)
	if out := must(t, ctx, n, "get "+l.Addr().String()); out != "hello" {
		t.Errorf("the way out leads to %q", out)
	}
	e.SetInternet(false)
	if out, err := n.Run(ctx, "get "+l.Addr().String()); err == nil {
		t.Errorf("there is still a way out: %q", out)
	}
}

// nothingLeft closes the emulator and looks for what it should have removed.
func nothingLeft(t *testing.T, e *Emulator) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(e.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", e.dir, err)
	}
	if left := machines(t, e); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
}

// machines returns the command lines of processes that use the run's folder.
func machines(t *testing.T, e *Emulator) (found []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, _ := os.ReadFile(name); bytes.Contains(b, []byte(e.dir)) {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

func TestPower(t *testing.T) {
	ctx := testContext(t)
	c := newCards(t)
	e := newEmulator(t, Config{})
	card := c.card(1, "")
	card.Size = 4 << 30
	card.Clock = time.Date(1970, 1, 1, 12, 0, 0, 0, time.UTC)
	before, err := os.ReadFile(card.Image)
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, ctx, e, card)[0]
	clock := regexp.MustCompile(`^time (\d+)$`)
	match, err := n.WaitConsole(ctx, clock)
	if err != nil {
		t.Fatal(err)
	}
	if sec, _ := strconv.Atoi(match[1]); sec < 12*3600 || sec > 13*3600 {
		t.Errorf("switched on in 1970, the guest's clock is %d", sec)
	}
	if got := must(t, ctx, n, "size"); got != strconv.Itoa(4<<30/512) {
		t.Errorf("a card of %s sectors", got)
	}
	again := func(why string, on func() error) {
		t.Helper()
		if err := on(); err != nil {
			t.Fatalf("%s: %v", why, err)
		}
		if err := n.WaitStage(ctx, Login); err != nil {
			t.Fatalf("%s: %v", why, err)
		}
	}

	must(t, ctx, n, "write remember")
	n.PullPlug()
	if s, _ := n.Stage(); s != Off {
		t.Errorf("without power: %v", s)
	}
	if err := n.WaitStage(ctx, Login); err == nil || !strings.Contains(err.Error(), "it is off") {
		t.Errorf("waiting for a node without power: %v", err)
	}
	again("plugged in", func() error { return n.PlugIn(ctx) })
	if got := must(t, ctx, n, "read"); got != "remember" {
		t.Errorf("after the plug was pulled: %q", got)
	}

	must(t, ctx, n, "reboot")
	if _, err := n.WaitConsole(ctx, regexp.MustCompile("reboot: Restarting system")); err != nil {
		t.Fatal(err)
	}
	for s := Login; s >= Login; s, _ = n.Stage() {
		time.Sleep(50 * time.Millisecond)
	}
	again("rebooted", func() error { return nil })
	if got := must(t, ctx, n, "read"); got != "remember" {
		t.Errorf("after a reboot: %q", got)
	}

	must(t, ctx, n, "poweroff")
	if err := n.WaitOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Err(); err != nil {
		t.Error(err)
	}
	again("a fresh card", func() error { return n.PlugInCard(ctx, card.Image) })
	if got := must(t, ctx, n, "read"); got != "" {
		t.Errorf("a fresh card remembers %q", got)
	}

	after, err := os.ReadFile(card.Image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the image was written to")
	}
	nothingLeft(t, e)
}

// TestRecall has two nodes become what they were, in memory, on their cards and
// towards each other, though one has lost its power since.
func TestRecall(t *testing.T) {
	ctx := testContext(t)
	c := newCards(t)
	e := newEmulator(t, Config{})
	if err := e.Recall(ctx); err != nil {
		t.Error("no nodes, nothing to recall: ", err)
	}
	nodes := start(t, ctx, e, c.card(1, ""), c.card(2, ""))
	if err := e.Recall(ctx); err == nil || !strings.Contains(err.Error(), "node rpi2: cannot recall what was never kept") {
		t.Errorf("nothing was kept: %v", err)
	}
	for _, n := range nodes {
		must(t, ctx, n, "write then")
	}
	if err := e.Keep(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, n := range nodes {
			must(t, ctx, n, "write now")
		}
		nodes[1].PullPlug()
		if err := e.Recall(ctx); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if got := must(t, ctx, n, "read"); got != "then" {
				t.Errorf("%s remembers %q", n.Name(), got)
			}
			if s, _ := n.Stage(); s != Login {
				t.Errorf("%s: %v", n.Name(), s)
			}
		}
	}
	nodes[1].PullPlug()
	if err := e.Keep(); err == nil || !strings.Contains(err.Error(), "node rpi2: it is off") {
		t.Errorf("a node without power: %v", err)
	}
	nothingLeft(t, e)
}

func TestFailures(t *testing.T) {
	ctx := testContext(t)
	c := newCards(t)
	e := newEmulator(t, Config{Silence: 15 * time.Second})

	panics, err := e.Start(ctx, c.card(1, "guest.panic=1"))
	if err != nil {
		t.Fatal(err)
	}
	err = panics.WaitStage(ctx, Login)
	var failed *NodeError
	if !errors.As(err, &failed) || failed.Node != "rpi1" || !strings.Contains(err.Error(), "Kernel panic") ||
		!strings.Contains(strings.Join(failed.Lines, "\n"), "told to panic") {
		t.Errorf("a panic: %v", err)
	}
	panics.PullPlug()

	hangs, err := e.Start(ctx, c.card(2, "guest.hang=1"))
	if err != nil {
		t.Fatal(err)
	}
	if err = hangs.WaitStage(ctx, Login); !errors.As(err, &failed) || failed.Node != "rpi2" || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("a hang: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err = hangs.WaitStage(short, Login); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "hangs") {
		t.Errorf("too little time: %v", err)
	}
	if _, err := e.Start(ctx, c.card(2, "")); err == nil || !strings.Contains(err.Error(), "rpi2") {
		t.Errorf("a name twice: %v", err)
	}
	hangs.mu.Lock()
	running := hangs.run
	hangs.mu.Unlock()
	if running == nil {
		t.Fatal("the node that hangs is off")
	}
	running.cmd.Process.Kill()
	for hangs.Err() == nil && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	if err := hangs.Err(); err == nil || !strings.Contains(err.Error(), "QEMU ended: signal: killed") {
		t.Errorf("a machine that was killed: %v", err)
	}
	nothingLeft(t, e)
}
