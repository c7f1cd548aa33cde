package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/tree"
)

func TestStageOf(t *testing.T) {
	tests := []struct {
		line string
		want Stage
	}{
		{"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x410fd083]", Kernel},
		{"[    5.178815] clk: Disabling unused clocks", Off},
		{"[   17.000000] systemd[1]: systemd 257.13-1~deb13u1 running in system mode", Userspace},
		{"Welcome to Debian GNU/Linux 13 (trixie)!", Userspace},
		{"picube: stage grown", Grown},
		{"[   31.5] picube: stage configured", Configured},
		{"picube: stage joined as worker", Joined},
		{"picube: stage ready", Ready},
		{"picube: stage unheard-of", Off},
		{"picube: stage off", Off},
		{"rpi1 login: ", Login},
		{"rpi1 login:", Login},
		{"rpi1 login: [  144.133915] input: gpio-keys as /devices/platform/gpio-keys/input/input0", Login},
		{"rpi1 login: pirate", Off},
		{"Last login: Sat Nov 21", Off},
	}
	for _, test := range tests {
		if got := stageOf(test.line); got != test.want {
			t.Errorf("%q: %v, want %v", test.line, got, test.want)
		}
	}
}

func TestParseStage(t *testing.T) {
	for s := Firmware; s <= Ready; s++ {
		if got, err := ParseStage(s.String()); got != s || err != nil {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	_, err := ParseStage("of")
	want := `stage "of": cannot wait for it: stages are firmware, kernel, userspace, grown, configured, login, joined, ready`
	if fmt.Sprint(err) != want {
		t.Errorf("%v", err)
	}
}

func TestConsole(t *testing.T) {
	var file bytes.Buffer
	c := newConsole(&file)
	said := "one\r\r\n\x1b[0;1;32m  OK  \x1b[0m] Started \x1b]0;title\x07getty\n\n\r[*  ] Job\r[ * ] Job\r\n" + strings.Repeat("x", 2*maxLine) + "\nrpi1 login: "
	for _, part := range []string{said[:7], said[7:20], said[20:]} {
		if _, err := c.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if file.String() != said {
		t.Error("the file has not all")
	}
	lines, partial, next, more := c.since(0)
	want := []string{"one", "  OK  ] Started getty", "", "[ * ] Job", strings.Repeat("x", maxLine)}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if partial != "rpi1 login: " || next != 5 {
		t.Errorf("partial %q, next %d", partial, next)
	}
	select {
	case <-more:
		t.Error("there is more already")
	default:
	}
	if diff := cmp.Diff([]string{"one", "  OK  ] Started getty"}, c.around("OK", 9)[:2]); diff != "" {
		t.Error(diff)
	}
	if next := c.next(); next != 6 {
		t.Errorf("the next machine begins at line %d", next)
	}
	c.Write([]byte("[    0.000000] Booting"))
	if _, partial, _, _ := c.since(6); partial != "[    0.000000] Booting" {
		t.Errorf("after a login prompt the next machine says %q", partial)
	}
	c.Write([]byte("\n"))
	for range maxLines {
		c.Write([]byte("a line\n"))
	}
	<-more
	lines, _, next, _ = c.since(0)
	if len(lines) != maxLines || next != maxLines+7 {
		t.Errorf("%d lines, next %d", len(lines), next)
	}
	if lines, _, _, _ := c.since(next - 1); len(lines) != 1 {
		t.Errorf("%d lines since the last but one", len(lines))
	}
	if got := c.tail(2); len(got) != 2 || got[1] != "a line" {
		t.Errorf("tail %q", got)
	}
}

func TestFindBoot(t *testing.T) {
	pi3, _ := boards(MachineRaspi3B)
	virt, _ := boards(MachineVirt)
	tests := []struct {
		name    string
		board   board
		filters []string
		files   map[string]string
		want    string
		err     string
	}{{
		name: "Debian's", board: virt,
		files: map[string]string{
			"config.txt":   "arm_64bit=1\nkernel=vmlinuz-6.12\ninitramfs initrd.img-6.12 followkernel # a comment\n",
			"cmdline.txt":  "console=tty0 console=ttyS1,115200 root=PARTUUID=1-02 rw rootwait\nnever read\n",
			"vmlinuz-6.12": "", "initrd.img-6.12": "",
		},
		want: "/vmlinuz-6.12 /initrd.img-6.12  root=PARTUUID=1-02 rw rootwait console=ttyAMA0,115200 kpti=0 mitigations=off systemd.default_timeout_start_sec=15min systemd.default_device_timeout_sec=15min",
	}, {
		name: "Raspberry Pi OS's", board: pi3,
		files: map[string]string{
			"config.txt":  "auto_initramfs=1\n[pi4]\nkernel=kernel_pi4.img\n[all]\n",
			"cmdline.txt": "console=serial0,115200 quiet",
			"KERNEL8.IMG": "", "initramfs8": "", "bcm2710-rpi-3-b.dtb": "",
		},
		want: "/KERNEL8.IMG /initramfs8 /bcm2710-rpi-3-b.dtb quiet console=ttyS1,115200 modprobe.blacklist=cdc_subset kpti=0 mitigations=off systemd.default_timeout_start_sec=15min systemd.default_device_timeout_sec=15min",
	}, {
		name: "filters", board: virt, filters: []string{"pi4"},
		files: map[string]string{
			"config.txt": "os_prefix=new/\n[pi3]\nkernel=a\n[pi4]\nkernel=b\n[none]\nkernel=c\n[all]\n",
			"new/b":      "", "new/cmdline.txt": "quiet",
		},
		want: "/new/b   quiet console=ttyAMA0,115200 kpti=0 mitigations=off systemd.default_timeout_start_sec=15min systemd.default_device_timeout_sec=15min",
	}, {
		name: "nothing there", board: pi3,
		files: map[string]string{"config.txt": "initramfs initrd.img\n"},
		err: `boot partition: cannot find the kernel kernel8.img
boot partition: cannot find the initramfs initrd.img
boot partition: cannot find a device tree for the board: bcm2837-rpi-3-b.dtb or bcm2710-rpi-3-b.dtb
boot partition: cannot find the command line cmdline.txt`,
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := tree.New(0)
			for name, text := range test.files {
				if err := files.MkdirAll(filepath.ToSlash(filepath.Dir("/"+name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := files.WriteFile("/"+name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := findBoot(files, test.board, test.filters...)
			if test.err != "" {
				if fmt.Sprint(err) != test.err {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join([]string{b.kernel, b.initramfs, b.deviceTree, b.commandLine}, " "); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestCheckVersion(t *testing.T) {
	virt, _ := boards(MachineVirt)
	pi4, _ := boards(MachineRaspi4B)
	tests := []struct {
		text  string
		board board
		want  string
	}{
		{"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", virt, ""},
		{"QEMU emulator version 10.0.13", pi4, ""},
		{"QEMU emulator version 6.2.0", virt, "QEMU: cannot use version 6.2: it must be 7.2 or later"},
		{"QEMU emulator version 7.1.0", virt, "QEMU: cannot use version 7.1: it must be 7.2 or later"},
		{"QEMU emulator version 8.2.0", pi4, "QEMU: cannot be this board in version 8.2: it must be 9.0 or later"},
		{"hello", virt, `QEMU: cannot tell its version from "hello"`},
	}
	for _, test := range tests {
		got := ""
		if err := checkVersion(test.text, test.board); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.text, got, test.want)
		}
	}
}

// TestStartRefuses starts what can't be started, with a QEMU that only has a
// version. Afterwards nothing is left.
func TestStartRefuses(t *testing.T) {
	qemu := t.TempDir()
	script := "#!/bin/sh\nif [ \"$1\" = --version ]; then echo QEMU emulator version 7.2.0; else echo it is broken >&2; exit 1; fi\n"
	if err := os.WriteFile(filepath.Join(qemu, "qemu-system-aarch64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "rpi1.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	good := Card{Name: "rpi1", Image: image, Address: netip.MustParseAddr("10.42.1.1"), Segment: "picube"}
	tests := []struct {
		name   string
		config Config
		change func(*Card)
		want   string
	}{
		{"no QEMU", Config{QEMU: t.TempDir()}, nil, "cannot find qemu-system-aarch64: install it with"},
		{"no image", Config{}, func(c *Card) { c.Image = "/none.img" }, "node rpi1: cannot start without its card: stat /none.img"},
		{"not an image", Config{}, nil, "node rpi1: card " + image},
		{"no address", Config{}, func(c *Card) { c.Address = netip.Addr{} }, "cannot be on the wire without an IPv4 address"},
		{"an address elsewhere", Config{}, func(c *Card) { c.Address = netip.MustParseAddr("10.99.0.1") }, "cannot be reached from the host's 10.42.255.254/16"},
		{"no such machine", Config{}, func(c *Card) { c.Machine = "pdp11" }, `machine "pdp11": cannot emulate it`},
		{"QEMU too old for the board", Config{}, func(c *Card) { c.Machine = MachineRaspi4B }, "cannot be this board in version 7.2"},
		{"too much memory", Config{}, func(c *Card) { c.Memory = 1 << 30 }, "the nodes would need 1073741824 MiB in all"},
		{"a folder that is too long", Config{Dir: longDir(t)}, nil, "cannot hold sockets, its path is too long"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := test.config
			c.Now = time.Now
			if c.QEMU == "" {
				c.QEMU = qemu
			}
			if c.Dir == "" {
				c.Dir = shortDir(t)
			}
			e, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			card := good
			if test.change != nil {
				test.change(&card)
			}
			_, err = e.Start(t.Context(), card)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Count(err.Error(), "node rpi1: ") != 1 {
				t.Errorf("%v, want %s", err, test.want)
			}
			if err := errors.Join(e.Close(), e.Close()); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(c.Dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestForwardRefuses gives way to two nodes at one port.
func TestForwardRefuses(t *testing.T) {
	e, err := New(Config{Now: time.Now, Dir: shortDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(e, Card{Name: "rpi1", Machine: MachineVirt, Address: netip.MustParseAddr("10.42.1.1")}, 1)
	at, err := n.Forward("127.0.0.1:0", sshPort)
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Forward(at.String(), sshPort)
	if want := "node rpi1: port " + at.String() + ": cannot give way to it"; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v, want %s", err, want)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", at.String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

// TestMakeRunDir sees that a new run removes what a killed one left, and leaves
// alone what is in use or nobody's.
func TestMakeRunDir(t *testing.T) {
	parent := t.TempDir()
	used, lock, err := makeRunDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	killed, lock2, err := makeRunDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	lock2.Close()
	other := filepath.Join(parent, "picube-notes")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	_, lock3, err := makeRunDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	defer lock3.Close()
	for dir, want := range map[string]bool{used: true, killed: false, other: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func longDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", maxSocket))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// shortDir is short enough for sockets wherever tests run.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestTable(t *testing.T) {
	got := table([][]string{{"NODE", "STAGE", "LAST LINE"}, {"rpi1", "userspace", "systemd[1]:\tStarted"}, {"würfel", "", ""}}, 30)
	want := []string{
		"NODE    STAGE      LAST LINE",
		"rpi1    userspace  systemd[1]",
		"würfel",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestShareCPUs(t *testing.T) {
	for _, test := range []struct{ host, nodes, want int }{{2, 1, 2}, {2, 2, 1}, {2, 5, 1}, {8, 5, 1}, {16, 5, 3}, {32, 1, 4}} {
		if got := shareCPUs(test.host, test.nodes); got != test.want {
			t.Errorf("%d CPUs, %d nodes: %d, want %d", test.host, test.nodes, got, test.want)
		}
	}
}

func FuzzConsole(f *testing.F) {
	f.Add([]byte("\x1b[1mone\r\ntwo\x1b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newConsole(&bytes.Buffer{})
		c.Write(b)
		for _, line := range c.tail(10) {
			stageOf(line)
			deathOf(line)
			if strings.ContainsAny(line, "\x1b\n\r") {
				t.Errorf("%q", line)
			}
		}
	})
}
