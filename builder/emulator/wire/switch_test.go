package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lan is a switch with stations a1, a2 (segment a), b1 (segment b) and host
// (everywhere); every frame that arrives is recorded.
type lan struct {
	*Switch
	t        *testing.T
	ports    map[string]*Port
	arrivals chan string
}

func newLAN(t *testing.T) *lan {
	l := &lan{
		Switch:   New(time.Now, func() float64 { return 0.5 }),
		t:        t,
		ports:    map[string]*Port{},
		arrivals: make(chan string, 100),
	}
	for name, segment := range map[string]string{"a1": "a", "a2": "a", "b1": "b", "host": Everywhere} {
		p := l.Plug(name, segment, func(frame []byte) { l.arrivals <- name + " " + string(frame[14:]) })
		l.ports[name] = p
		t.Cleanup(p.Unplug)
	}
	return l
}

// mac gives a station's address: "02", its name, zeros.
func mac(name string) []byte {
	if name == "all" {
		return bytes.Repeat([]byte{0xff}, 6)
	}
	b := make([]byte, 6)
	b[0] = 2
	copy(b[1:], name)
	return b
}

func frame(from, to, text string) []byte {
	return append(append(append([]byte{}, mac(to)...), mac(from)...), "\x88\xb5"+text...)
}

// send sends a frame and returns who got it.
func (l *lan) send(from, to string) string {
	l.t.Helper()
	l.ports[from].Send(frame(from, to, "x"))
	var got []string
	for {
		select {
		case a := <-l.arrivals:
			got = append(got, strings.Fields(a)[0])
		case <-time.After(20 * time.Millisecond):
			slices.Sort(got)
			return strings.Join(got, " ")
		}
	}
}

func TestSwitch(t *testing.T) {
	l := newLAN(t)
	steps := []struct {
		do       func()
		from, to string
		want     string
		why      string
	}{
		{nil, "a1", "all", "a2 host", "a broadcast stays in its segment"},
		{nil, "host", "all", "a1 a2 b1", "the host reaches all segments"},
		{nil, "b1", "all", "host", "a segment of its own"},
		{nil, "a2", "a1", "a1", "learned from the broadcast"},
		{nil, "a1", "nobody", "a2 host", "unknown: to all of the segment"},
		{nil, "a1", "b1", "a2 host", "known elsewhere, but not connected"},
		{nil, "a1", "a1", "", "never back"},
		{func() { l.Join("b", "a") }, "a1", "all", "a2 b1 host", "joined"},
		{nil, "b1", "a1", "a1", "one wire"},
		{func() { l.Split("a", "b") }, "b1", "a1", "host", "split"},
		{func() { l.Join("a", "c"); l.Join("c", "b") }, "b1", "all", "a1 a2 host", "joined through a third"},
		{func() { l.Split("c", "a") }, "b1", "all", "host", "split in the middle"},
		{l.ports["a2"].Cut, "a1", "all", "host", "cut"},
		{nil, "a2", "all", "", "cut is cut both ways"},
		{l.ports["a2"].Mend, "a2", "all", "a1 host", "mended"},
		{func() { l.ports["a2"].Move("b") }, "a2", "all", "b1 host", "moved"},
		{nil, "a1", "a2", "host", "moved away"},
		{func() { l.ports["a2"].Move("a") }, "a1", "a2", "a2 host", "moved back, to be learned again"},
		{func() { l.ports["a2"].SetFaults(Faults{Loss: 0.6}) }, "a1", "all", "host", "lost"},
		{func() { l.ports["a2"].SetFaults(Faults{Loss: 0.4}) }, "a1", "all", "a2 host", "lucky"},
		{l.ports["a2"].Unplug, "a1", "a2", "host", "unplugged"},
		{nil, "a2", "all", "", "unplugged both ways"},
	}
	for i, step := range steps {
		if step.do != nil {
			step.do()
		}
		if got := l.send(step.from, step.to); got != step.want {
			t.Errorf("step %d (%s): %s to %s reached %q, want %q", i, step.why, step.from, step.to, got, step.want)
		}
	}
	if diff := cmp.Diff([]string{"a", "b"}, l.Segments()); diff != "" {
		t.Error(diff)
	}
}

func TestDelay(t *testing.T) {
	l := newLAN(t)
	if err := l.ports["a2"].SetFaults(Faults{Delay: 60 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for i := range 3 {
		l.ports["a2"].Send(frame("a2", "a1", fmt.Sprint(i)))
	}
	var got []string
	for range 6 {
		if a := <-l.arrivals; strings.HasPrefix(a, "a1") {
			got = append(got, a)
		}
	}
	if diff := cmp.Diff([]string{"a1 0", "a1 1", "a1 2"}, got); diff != "" {
		t.Error(diff)
	}
	if d := time.Since(start); d < 60*time.Millisecond || d > time.Second {
		t.Errorf("delayed by %v, not by 60ms once", d)
	}
	if err := l.ports["a2"].SetFaults(Faults{Loss: 2}); err == nil {
		t.Error("a loss of 200 % was accepted")
	}
}

// TestPlugConn speaks QEMU's stream protocol with the switch.
func TestPlugConn(t *testing.T) {
	s := New(time.Now, func() float64 { return 0 })
	qemu, ours := net.Pipe()
	c := s.PlugConn("rpi1", "a", ours)
	arrived := make(chan string, 1)
	host := s.Plug("host", Everywhere, func(frame []byte) { arrived <- string(frame[14:]) })
	defer host.Unplug()

	f := frame("rpi1", "all", "hello")
	go qemu.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...))
	if got := <-arrived; got != "hello" {
		t.Errorf("arrived %q", got)
	}
	host.Send(frame("host", "rpi1", "hi"))
	got := make([]byte, 4+16)
	if _, err := io.ReadFull(qemu, got); err != nil {
		t.Fatal(err)
	}
	if want := append([]byte{0, 0, 0, 16}, frame("host", "rpi1", "hi")...); !bytes.Equal(got, want) {
		t.Errorf("got\n%swant\n%s", hex.Dump(got), hex.Dump(want))
	}
	qemu.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if got := s.Segments(); len(got) != 0 {
		t.Errorf("still plugged in: %q", got)
	}
}

func TestPlugConnRefuses(t *testing.T) {
	for _, sent := range []string{"\xff\xff\xff\xff", "\x00\x00", "\x00\x00\x00\x40abc"} {
		s := New(time.Now, func() float64 { return 0 })
		qemu, ours := net.Pipe()
		c := s.PlugConn("rpi1", "a", ours)
		qemu.Write([]byte(sent))
		qemu.Close()
		if err := c.Close(); err == nil || !strings.HasPrefix(err.Error(), "cable of rpi1: ") {
			t.Errorf("%q: %v", sent, err)
		}
	}
}

// TestCapture has tcpdump read what was captured.
func TestCapture(t *testing.T) {
	l := newLAN(t)
	l.now = func() time.Time { return time.Unix(1700000000, 123456789).UTC() }
	var file bytes.Buffer
	c, err := l.Capture("a", &file)
	if err != nil {
		t.Fatal(err)
	}
	l.send("a1", "a2")
	l.send("b1", "all")
	l.send("host", "all")
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	l.send("a1", "a2")
	cmd := exec.Command("tcpdump", "-r", "-", "-tt", "-n", "-e", "--nano")
	cmd.Stdin = &file
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tcpdump: %v", err)
	}
	want := `1700000000.123456789 02:61:31:00:00:00 > 02:61:32:00:00:00, ethertype Unknown (0x88b5), length 15: 
1700000000.123456789 02:68:6f:73:74:00 > ff:ff:ff:ff:ff:ff, ethertype Unknown (0x88b5), length 15: 
`
	var got strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "17") {
			got.WriteString(line)
		}
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func FuzzPlugConn(f *testing.F) {
	f.Add(append([]byte{0, 0, 0, 15}, frame("a", "all", "x")...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		s := New(time.Now, func() float64 { return 0 })
		host := s.Plug("host", Everywhere, func([]byte) {})
		defer host.Unplug()
		qemu, ours := net.Pipe()
		c := s.PlugConn("rpi1", "a", ours)
		qemu.Write(sent)
		qemu.Close()
		c.Close()
	})
}
