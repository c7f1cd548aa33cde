package statusd

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/layers/nodeconf"
)

// Live tells everything about the node that it runs on.
type Live struct {
	Node *nodeconf.Node
	Now  func() time.Time

	mu     sync.Mutex
	failed []string // units, asked for rarely: it takes a process
	asked  time.Time

	turnedAway   WiFi // the radio's last state of that kind
	turnedAwayAt time.Time
}

// askEvery is how old the list of failed units may be.
const askEvery = time.Minute

// AtOnce is Status but for the failed units: whom it would have to ask for them
// is busy in the first seconds of a boot.
func (l *Live) AtOnce() Status {
	s := Collect(os.DirFS("/"), l.Node)
	s.Addresses = addresses()
	s.Disk = disk("/")
	if w, ok := wifi(supplicant); ok {
		w = l.steady(w)
		s.WiFi = &w
	}
	s.FindProblems()
	return s
}

// turnedAwayFor is how long a radio that was turned away counts as that while
// it tries again.
const turnedAwayFor = 30 * time.Second

// steady keeps what a display shows from changing with each attempt.
func (l *Live) steady(w WiFi) WiFi {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch now := l.Now(); {
	case w.State == WrongPassword:
		l.turnedAway, l.turnedAwayAt = w, now
	case w.State == "searching" && l.turnedAway.State != "" && now.Sub(l.turnedAwayAt) < turnedAwayFor:
		return l.turnedAway
	default:
		l.turnedAway = WiFi{}
	}
	return w
}

// Status collects the state; what cannot be had is left out.
func (l *Live) Status(ctx context.Context) Status {
	s := l.AtOnce()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.Now(); l.asked.IsZero() || now.Sub(l.asked) > askEvery {
		l.failed, l.asked = failedUnits(ctx), now
	}
	s.FailedUnits = l.failed
	s.FindProblems()
	return s
}

// supplicant is wpa_supplicant's control interface of the radio.
const supplicant = "/run/wpa_supplicant/wlan0"

// addresses are the node's own, but those that only work on one wire.
func addresses() []string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range list {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			out = append(out, ip.IP.String())
		}
	}
	return out
}

func disk(dir string) Memory {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return Memory{}
	}
	size := int64(st.Bsize) //nolint:unconvert // an int32 on 32-bit boards
	return Memory{Total: int64(st.Blocks) * size, Available: int64(st.Bavail) * size}
}

func failedUnits(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager").Output()
	if err != nil {
		return nil
	}
	var units []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 0 {
			units = append(units, f[0])
		}
	}
	return units
}

// wifi asks wpa_supplicant through its control interface (wpa_ctrl(8) in its
// own documentation): datagrams with a command and its answer.
func wifi(socket string) (WiFi, bool) {
	// The answers come to a name that is no file (unix(7), abstract).
	conn, err := net.DialUnix("unixgram", &net.UnixAddr{Name: "@" + rand.Text(), Net: "unixgram"}, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return WiFi{}, false
	}
	defer conn.Close()
	ask := func(command string) (string, error) {
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return "", err
		}
		if _, err := fmt.Fprint(conn, command); err != nil {
			return "", err
		}
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		return string(answer[:n]), err
	}
	state, err := ask("STATUS")
	if err != nil {
		return WiFi{}, false
	}
	networks, err := ask("LIST_NETWORKS")
	if err != nil {
		return WiFi{}, false
	}
	return readWiFi(state, networks), true
}
