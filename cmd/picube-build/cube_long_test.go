//go:build long

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
)

// TestCards boots the shipped blueprint's real cards in every way that is
// promised. They are built once for all.
func TestCards(t *testing.T) {
	cards := buildCards(t, "picube.hcl")
	t.Run("cube", func(t *testing.T) { testCube(t, cards) })
	t.Run("ends", func(t *testing.T) { testEnds(t, cards) })
	t.Run("faults", func(t *testing.T) { testFaults(t, cards) })
	t.Run("raspi3b", func(t *testing.T) { testRealBoard(t, cards) })
}

// booted is `picube-build boot` as a person runs it, in a process of its own.
type booted struct {
	t      *testing.T
	cmd    *exec.Cmd
	tmp    string // where all its files are
	cards  built
	ended  chan error
	lines  *lines
	stderr bytes.Buffer
}

// lines are what a program has printed so far.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (l *lines) read(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		l.mu.Lock()
		fmt.Fprintln(&l.text, s.Text())
		close(l.more)
		l.more = make(chan struct{})
		l.mu.Unlock()
	}
}

func (l *lines) get() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String(), l.more
}

// boot starts it. This program is its own picube-build: see TestMain.
func boot(t *testing.T, cards built, args ...string) *booted {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "picube-build")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	b := &booted{t: t, tmp: t.TempDir(), cards: cards, ended: make(chan error, 1), lines: &lines{more: make(chan struct{})}}
	b.run(program, args...)
	t.Cleanup(func() { b.cmd.Process.Kill() })
	return b
}

func (b *booted) run(program string, args ...string) {
	b.t.Helper()
	c, _ := testCLI(b.t)
	b.cmd = exec.Command(program, append([]string{"boot", "-o", b.cards.out, b.cards.blueprint}, args...)...)
	b.cmd.Env = append(os.Environ(), "TMPDIR="+b.tmp, "XDG_CACHE_HOME="+c.env["XDG_CACHE_HOME"])
	b.stderr.Reset()
	b.cmd.Stderr = &b.stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func() {
		b.lines.read(out)
		b.ended <- b.cmd.Wait()
	}()
}

// await waits until it has printed a text.
func (b *booted) await(text string, limit time.Duration) string {
	b.t.Helper()
	over := time.After(limit)
	for {
		said, more := b.lines.get()
		if strings.Contains(said, text) {
			return said
		}
		select {
		case <-more:
		case err := <-b.ended:
			b.t.Fatalf("picube-build ended, %v, before it said %q:\n%s%s", err, text, said, &b.stderr)
		case <-over:
			b.t.Fatalf("picube-build has not said %q in %v:\n%s%s", text, limit, said, &b.stderr)
		}
	}
}

// end waits for its end, checks that nothing is left and returns the exit code.
func (b *booted) end() int {
	b.t.Helper()
	select {
	case <-b.ended:
	case <-time.After(5 * time.Minute):
		b.t.Fatal("picube-build does not end")
	}
	b.nothingLeft()
	return b.cmd.ProcessState.ExitCode()
}

func (b *booted) nothingLeft() {
	b.t.Helper()
	if left := b.machines(); len(left) > 0 {
		b.t.Errorf("still running: %d", left)
	}
	if left, err := os.ReadDir(b.tmp); err != nil || len(left) > 0 {
		b.t.Errorf("left behind in %s: %v, %v", b.tmp, left, err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.cards.dir, "*.emulator")); len(left) > 0 {
		b.t.Errorf("left behind: %q", left)
	}
}

// machines are the processes that have a file of the run on their command
// line.
func (b *booted) machines() (pids []int) {
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(names) == 0 {
		b.t.Fatalf("cannot look for processes: %v", err)
	}
	for _, name := range names {
		if line, _ := os.ReadFile(name); bytes.Contains(line, []byte(b.tmp)) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// ssh runs a script on a node, the way a person gets in.
func (b *booted) ssh(node, script string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", "-F", filepath.Join(b.cards.dir, "ssh_config.emulator"), node, "sh -s")
	cmd.Stdin = strings.NewReader(script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ssh %s: %w: %s", node, err, &stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// maxMemory is what picube-build itself may take for five nodes, in KiB.
const maxMemory = 100 << 10

// testCube is the promise of the verb: five cards come up as themselves, find
// each other and let the host in, while nobody has touched a keyboard.
func testCube(t *testing.T, cards built) {
	names := []string{"rpi1", "rpi2", "rpi3", "rpi4", "rpi5"}
	b := boot(t, cards, "--until", "login", "--keep")
	said := b.await("  LOGIN\n", 30*time.Minute)
	for _, name := range names {
		said = b.await("\n"+name+"  10.42.1.", time.Minute)
	}
	t.Logf("picube-build boot:\n%s", said)

	var checks strings.Builder
	fmt.Fprintln(&checks, "hostname; systemctl is-system-running --wait; systemctl --failed --no-legend; sudo dpkg --audit; dpkg -l | sed 1,5d | grep -v ^ii; ls /boot/firmware/picube/identity 2>/dev/null")
	for i, name := range names {
		for _, peer := range []string{fmt.Sprintf("10.42.1.%d", i+1), name + ".local"} {
			fmt.Fprintf(&checks, "ping -c 2 -i 0.2 -W 10 %s >/dev/null || echo cannot reach %s\n", peer, peer)
		}
	}
	fmt.Fprintln(&checks, "cat /etc/machine-id; true")
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			out, err := b.ssh(name, checks.String())
			said := strings.Split(out, "\n")
			if err != nil || len(said) != 3 || said[0] != name || said[1] != "running" {
				t.Errorf("%s: %q, %v", name, said, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[said[len(said)-1]] = true
		})
	}
	wg.Wait()
	if len(ids) != len(names) {
		t.Errorf("machine ids %v of %d nodes", ids, len(names))
	}
	for command, want := range map[string]string{
		// Where the root and the consoles are stands in a conffile that is there to be edited.
		"sudo dpkg --verify; true":                           "??5?????? c /etc/default/raspi-firmware",
		"findmnt -no FSTYPE /":                               "ext4",
		"findmnt -no FSTYPE /boot/firmware":                  "vfat",
		"sudo stat -c '%a %U' /etc/ssh/ssh_host_ed25519_key": "600 root",
		"df -BG --output=size / | tail -1 | tr -d ' '":       "4G",
	} {
		if got, err := b.ssh("rpi1", command); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", command, got, err, want)
		}
	}
	for _, command := range []string{"systemd-analyze; free -m; df -h / /boot/firmware", "picube-node status", "apt-get -s upgrade"} {
		out, err := b.ssh("rpi1", command)
		t.Logf("%s\n%s %v", command, out, err)
	}
	if top := highWater(t, b.cmd.Process.Pid); top > maxMemory {
		t.Errorf("picube-build took %d KiB of memory, more than %d", top, maxMemory)
	} else {
		t.Logf("picube-build took %d KiB of memory at most", top)
	}

	begin := time.Now()
	b.cmd.Process.Signal(os.Interrupt)
	if code := b.end(); code != exitDone {
		t.Errorf("exit code %d: %s", code, &b.stderr)
	}
	t.Logf("shut down in %v", time.Since(begin).Round(time.Second))
}

// highWater is the most memory that a process has had, in KiB (proc(5), VmHWM).
func highWater(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatalf("no VmHWM in\n%s", status)
	return 0
}

// testEnds ends runs early in every way, and looks for what is left.
func testEnds(t *testing.T, cards built) {
	text, err := os.ReadFile(cards.blueprint)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte("nodes    = 5"), []byte("nodes = 5\nnetwork { dhcp = false }"), 1)
	if err := os.WriteFile(cards.blueprint, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	b := boot(t, cards, "--nodes", "rpi1")
	if code := b.end(); code != exitFailed || !strings.Contains(b.stderr.String(), "node rpi1: the card is not what the blueprint says now") {
		t.Errorf("a card that is stale: exit code %d: %s", code, &b.stderr)
	}
	if err := os.WriteFile(cards.blueprint, text, 0o600); err != nil {
		t.Fatal(err)
	}

	b = boot(t, cards, "--nodes", "rpi1", "--until", "login")
	program := b.cmd.Path
	running := func() {
		t.Helper()
		b.await("kernel\n", 3*time.Minute)
		if len(b.machines()) != 1 {
			t.Fatalf("machines: %v", b.machines())
		}
	}
	again := func(args ...string) {
		t.Helper()
		b.lines = &lines{more: make(chan struct{})}
		b.run(program, append([]string{"--nodes", "rpi1"}, args...)...)
	}
	running()
	b.cmd.Process.Signal(os.Interrupt)
	b.await("Ctrl-C again", time.Minute)
	b.cmd.Process.Signal(os.Interrupt)
	if code := b.end(); code != exitInterrupted || !strings.Contains(b.stderr.String(), "cannot wait longer for stage login") {
		t.Errorf("Ctrl-C twice: exit code %d: %s", code, &b.stderr)
	}

	again()
	running()
	b.cmd.Process.Signal(syscall.SIGHUP)
	if code := b.end(); code != exitDone {
		t.Errorf("the terminal is closed: exit code %d: %s", code, &b.stderr)
	}

	again("--until", "login")
	running()
	machine, err := os.FindProcess(b.machines()[0])
	if err != nil {
		t.Fatal(err)
	}
	machine.Kill()
	if code := b.end(); code != exitFailed || !strings.Contains(b.stderr.String(), "node rpi1: QEMU ended: signal: killed") || !strings.Contains(b.stderr.String(), "its console's last lines:") {
		t.Errorf("a machine is killed: exit code %d: %s", code, &b.stderr)
	}

	again("--until", "login", "--timeout", "1s")
	if code := b.end(); code != exitFailed || !strings.Contains(b.stderr.String(), "node rpi1: cannot wait longer for stage userspace: the limit of 1s is over") {
		t.Errorf("too late: exit code %d: %s", code, &b.stderr)
	}

	again("--until", "login")
	running()
	b.cmd.Process.Kill()
	<-b.ended
	for begin := time.Now(); len(b.machines()) > 0 && time.Since(begin) < 10*time.Second; {
		time.Sleep(50 * time.Millisecond)
	}
	if left := b.machines(); len(left) > 0 {
		t.Errorf("killed, and still running: %v", left)
	}
	again("--until", "kernel") // cleans up after it
	if code := b.end(); code != exitDone {
		t.Errorf("after a run that was killed: exit code %d: %s", code, &b.stderr)
	}
}

// testRealBoard runs a card in the board that it is for, on one wire with
// another.
func testRealBoard(t *testing.T, cards built) {
	e := newEmulator(t)
	pi := cards.start(t, e, "rpi3", 3, func(c *emulator.Card) { c.Machine = emulator.MachineRaspi3B })
	virt := cards.start(t, e, "rpi1", 1, func(c *emulator.Card) { c.CPUs = 1 })
	for _, n := range []*emulator.Node{pi, virt} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		if err := n.WaitStage(ctx, emulator.Login); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if got := ask(t, pi, "tr -d '\\0' </proc/device-tree/model"); !strings.HasPrefix(got, "Raspberry Pi 3 Model B") {
		t.Errorf("the board is %q", got)
	}
	if got := ask(t, pi, "systemctl is-system-running --wait; true"); got != "running" {
		t.Errorf("%s: %s", got, ask(t, pi, "systemctl --failed --no-legend; systemctl list-jobs"))
	}
	for _, peer := range []string{"10.42.1.1", "rpi1.local"} {
		ask(t, pi, "ping -c 3 -W 10 "+peer)
	}
	for _, peer := range []string{"10.42.1.3", "rpi3.local"} {
		ask(t, virt, "ping -c 3 -W 10 "+peer)
	}
	t.Log(ask(t, pi, "ip -br addr; lsmod | grep -E 'usb|cdc|rndis|smsc'; free -m"))
	if got := ask(t, pi, "ip -4 -br addr show eth0"); !strings.Contains(got, pi.Lease().String()) {
		t.Errorf("no lease %v: %s", pi.Lease(), got)
	}
}
