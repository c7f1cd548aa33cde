//go:build hardware

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/layers/display/hd44780sim"
	"github.com/picube/picube-build/layers/status/statusd"
)

var (
	cardsDir = flag.String("cards", "", "`folder` of the cards of testdata/cards/hardware.hcl, built before")
	qemuDir  = flag.String("qemu", "", "`folder` with a QEMU of version 10 or later")
)

// hardwareCards are those of hardware.hcl.
func hardwareCards(t *testing.T) built {
	t.Helper()
	if *cardsDir == "" {
		return buildCards(t, "hardware.hcl")
	}
	pem, err := os.ReadFile(filepath.Join(*cardsDir, "id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return built{dir: *cardsDir, key: key}
}

// TestHardware looks at what hangs on a board, on Debian's own kernel.
func TestHardware(t *testing.T) {
	cards := hardwareCards(t)
	t.Run("radio", func(t *testing.T) { testRadio(t, cards) })
	t.Run("clocks", func(t *testing.T) { testClocks(t, cards) })
	t.Run("pins", func(t *testing.T) { testPins(t, cards) })
}

func loggedIn(t *testing.T, nodes ...*emulator.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	for _, n := range nodes {
		if err := n.WaitStage(ctx, emulator.Login); err != nil {
			t.Fatal(err)
		}
	}
}

// script runs a script on a node as root and returns what it printed, trimmed.
func script(t *testing.T, n *emulator.Node, text string) string {
	t.Helper()
	return ask(t, n, "sudo sh -c '"+strings.ReplaceAll(text, "'", `'\''`)+"'")
}

// eventually asks a node until the answer is right.
func eventually(t *testing.T, limit time.Duration, what string, right func() (string, bool)) string {
	t.Helper()
	var got string
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Second) {
		var ok bool
		if got, ok = right(); ok {
			return got
		}
		if time.Now().After(end) {
			t.Errorf("%s: not within %v: %s", what, limit, got)
			return got
		}
	}
}

// fanPin is the line of the fan that is switched.
const fanPin = 17

// testRadio has a node's radio meet access points on the air of a simulated
// one. There is no router on its wire.
func testRadio(t *testing.T, cards built) {
	e := emulatorOf(t, emulator.Config{NoDHCP: true})
	n := cards.start(t, e, "rpi1", 1, nil)
	loggedIn(t, n)
	t.Log(script(t, n, "cat /sys/kernel/mm/transparent_hugepage/enabled; "+memory))
	t.Log(script(t, n, "systemctl show -P ExecMainStartTimestampMonotonic picube-display; journalctl -b -u picube-display -o short-monotonic --no-pager"))
	script(t, n, `modprobe mac80211_hwsim radios=3
		for i in $(seq 60); do [ -e /sys/class/net/wlan2 ] && break; sleep 1; done
		for i in $(seq 60); do [ -S /run/wpa_supplicant/wlan0 ] && break; sleep 1; done
		ip netns add air
		for i in 1 2; do iw phy $(cat /sys/class/net/wlan$i/phy80211/name) set netns name air; done
		ip -n air link set lo up`)
	status := func() statusd.Status {
		var s statusd.Status
		if err := json.Unmarshal([]byte(ask(t, n, "picube-node status --json")), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	screen := func() string { return script(t, n, "tr -s ' ' </dev/vcs8") }

	// on lets an access point appear, off lets all disappear.
	on := func(radio int, config string) {
		script(t, n, fmt.Sprintf(`cat >/run/ap%[1]d.conf <<END
interface=wlan%[1]d
driver=nl80211
country_code=DE
hw_mode=g
channel=%[2]d
%[3]s
END
			ip netns exec air hostapd -B -P /run/ap%[1]d.pid /run/ap%[1]d.conf >/run/ap%[1]d.log || cat /run/ap%[1]d.log
			ip -n air addr replace 192.168.%[1]d.1/24 dev wlan%[1]d
			ip netns exec air dnsmasq --user=root --port=0 --conf-file=/dev/null --interface=wlan%[1]d --bind-interfaces \
				--dhcp-range=192.168.%[1]d.10,192.168.%[1]d.20 --dhcp-leasefile=/run/leases%[1]d --pid-file=/run/dhcp%[1]d.pid`,
			radio, 1+5*(radio-1), config))
	}
	off := func() {
		script(t, n, `for f in /run/ap?.pid /run/dhcp?.pid; do [ -e $f ] && kill $(cat $f); done; rm -f /run/dhcp?.pid; sleep 2; true`)
		eventually(t, time.Minute, "off the air", func() (string, bool) {
			s := status()
			return fmt.Sprint(s.WiFi), s.WiFi != nil && s.WiFi.State == "searching"
		})
	}
	const wpa2 = "wpa=2\nwpa_key_mgmt=WPA-PSK\nrsn_pairwise=CCMP\n"
	for _, tt := range []struct {
		name, ssid, keys string
		aps              []string
	}{
		{"WPA2", "Würzburg", "WPA2-PSK", []string{"ssid2=57c3bc727a62757267\n" + wpa2 + "wpa_passphrase=correct horse battery"}},
		{"WPA3", "third generation", "SAE", []string{"ssid=third generation\nwpa=2\nwpa_key_mgmt=SAE\nrsn_pairwise=CCMP\nieee80211w=2\nsae_password=battery, staple"}},
		{"hidden, of any bytes", `\x00\xff\"'\n`, "WPA2-PSK", []string{"ssid2=00ff22270a\nignore_broadcast_ssid=1\n" + wpa2 + "wpa_passphrase=not to be seen"}},
		{"open", "station", "NONE", []string{"ssid=station"}},
		{"the better of two", "Würzburg", "WPA2-PSK", []string{"ssid=station", "ssid2=57c3bc727a62757267\n" + wpa2 + "wpa_passphrase=correct horse battery"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script(t, n, "wpa_cli -i wlan0 disconnect") // until it can choose
			for i, ap := range tt.aps {
				on(i+1, ap)
			}
			script(t, n, "wpa_cli -i wlan0 reconnect")
			network := fmt.Sprintf("192.168.%d.", len(tt.aps))
			eventually(t, 2*time.Minute, "in the network", func() (string, bool) {
				s := status()
				return fmt.Sprintf("%+v %v", s.WiFi, s.Addresses), s.WiFi != nil && s.WiFi.State == "connected" && s.WiFi.SSID == tt.ssid &&
					slices.ContainsFunc(s.Addresses, func(a string) bool { return strings.HasPrefix(a, network) })
			})
			if got := script(t, n, "wpa_cli -i wlan0 status | sed -n s/^key_mgmt=//p"); got != tt.keys {
				t.Errorf("keys by %s, want %s", got, tt.keys)
			}
			routes := ask(t, n, "ip -4 route")
			if !strings.Contains(routes, "default via "+network+"1 dev wlan0") || !strings.Contains(routes, "10.42.0.0/16 dev eth0") {
				t.Errorf("the routes are\n%s", routes)
			}
			off()
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		on(1, "ssid=new password\n"+wpa2+"wpa_passphrase=the new password")
		eventually(t, 2*time.Minute, "turned away", func() (string, bool) {
			s := status()
			return fmt.Sprintf("%+v", s), s.WiFi != nil && *s.WiFi == statusd.WiFi{State: statusd.WrongPassword, SSID: "new password"} &&
				slices.ContainsFunc(s.Problems, func(p string) bool { return strings.HasPrefix(p, "Wi-Fi: wrong password?") })
		})
		eventually(t, time.Minute, "on the display", func() (string, bool) {
			s := screen()
			return s, strings.Contains(s, "wrong password?")
		})
		told := 0
		for range 15 {
			if s := status(); s.WiFi != nil && s.WiFi.State == statusd.WrongPassword {
				told++
			}
			time.Sleep(2 * time.Second)
		}
		t.Logf("told in %d of 15 looks", told)
	})
	t.Log(script(t, n, "iw reg get; rfkill 2>/dev/null; cat /sys/class/rfkill/*/soft; journalctl -b -u wpa_supplicant@wlan0 --no-pager | tail -40; wpa_cli -i wlan0 list_networks"))
	t.Log(script(t, n, memory))
}

// testClocks has five nodes without the internet whose clocks know nothing.
func testClocks(t *testing.T, cards built) {
	const apart, limit = 0.05, 3 * time.Minute
	e := emulatorOf(t, emulator.Config{NoDHCP: true, CPUs: 1, Memory: 512})
	var nodes []*emulator.Node
	for i, year := range []int{1970, 2019, 2038, 0, 1970} {
		nodes = append(nodes, cards.start(t, e, fmt.Sprintf("rpi%d", i+1), i+1, func(c *emulator.Card) {
			if year > 0 {
				c.Clock = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
			}
		}))
		if i%2 == 1 { // more at once would only starve each other
			loggedIn(t, nodes...)
		}
	}
	loggedIn(t, nodes...)
	all := time.Now()
	for _, n := range nodes {
		if got := script(t, n, "[ $(date +%s) -ge $(stat -c %Y /usr/lib/clock-epoch) ] && echo later"); got != "later" {
			t.Errorf("%s: the clock is before the build: %s", n.Name(), ask(t, n, "date; stat -c %y /usr/lib/clock-epoch"))
		}
		t.Log(n.Name(), script(t, n, "date; uptime; journalctl -b -u picube-clock -o cat --no-pager"))
	}
	// The nodes themselves measure how far they are apart.
	offset := regexp.MustCompile(`System clock wrong by (-?[0-9.]+) seconds`)
	measure := func() (worst float64, said string) {
		for i := range nodes[1:] {
			peer := i + 2
			out, err := nodes[0].Run(t.Context(), fmt.Sprintf("sudo timeout 30 chronyd -Q -f /dev/null 'server 10.42.1.%d iburst maxsamples 4' 'pidfile /run/measure.pid' 'cmdport 0' 'bindcmdaddress /' 2>&1", peer))
			m := offset.FindStringSubmatch(out)
			if m == nil {
				return 1e9, fmt.Sprintf("%s%s: %v\n%s", said, nodes[peer-1].Name(), err, out)
			}
			off, _ := strconv.ParseFloat(m[1], 64)
			worst = max(worst, off, -off)
			said += fmt.Sprintf("%s %+.6f s  ", nodes[peer-1].Name(), off)
		}
		return worst, said
	}
	got := eventually(t, limit, "the clocks agree", func() (string, bool) {
		worst, said := measure()
		t.Logf("after %v: %s", time.Since(all).Round(time.Second), said)
		return said, worst < apart
	})
	t.Logf("apart from rpi1 %v after the last one's login: %s", time.Since(all).Round(time.Second), got)
	for _, n := range nodes {
		t.Log(n.Name(), ask(t, n, "date +%s.%N; uptime; chronyc -n tracking; chronyc -n sources"))
	}
}

// testPins runs a card in a Pi 3, whose controllers QEMU has from version 9.
// The display's expander is stood in for by a memory, which takes everything
// too; the simulated module shows what has passed the wires.
func testPins(t *testing.T, cards built) {
	dir := t.TempDir()
	image := filepath.Join(cards.dir, "rpi1.img")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("mcopy", "-i", fmt.Sprintf("%s@@%d", image, 8<<20), "::/overlays/picube-fan-18.dtbo", "::/bcm2837-rpi-3-b.dtb", ".")
	run("fdtoverlay", "-i", "bcm2837-rpi-3-b.dtb", "-o", "tree.dtb", "picube-fan-18.dtbo") // as the firmware does
	wires := filepath.Join(dir, "wires.log")
	e := emulatorOf(t, emulator.Config{QEMU: *qemuDir})
	n := cards.start(t, e, "rpi1", 1, func(c *emulator.Card) {
		c.Machine = emulator.MachineRaspi3B
		c.Args = []string{
			"-dtb", filepath.Join(dir, "tree.dtb"),
			"-device", "at24c-eeprom,bus=i2c-bus.1,address=0x27,rom-size=256,writable=off",
			"-trace", "enable=i2c_event", "-trace", "enable=i2c_send", "-trace", "enable=i2c_recv",
			"-msg", "timestamp=on", "-D", wires,
			"-monitor", "unix:" + filepath.Join(dir, "monitor") + ",server=on,wait=off",
		}
	})
	loggedIn(t, n)
	began := time.Now()
	up, err := strconv.ParseFloat(ask(t, n, "cut -d' ' -f1 /proc/uptime"), 64)
	if err != nil {
		t.Fatal(err)
	}
	asked := time.Since(began)
	poweredOn := began.Add(asked/2 - time.Duration(up*float64(time.Second)))
	pins := monitor(t, filepath.Join(dir, "monitor"))

	t.Run("display", func(t *testing.T) {
		var sights []sight
		var longest int
		var faults []string
		eventually(t, 2*time.Minute, "the node's name and address", func() (string, bool) {
			sights, longest, faults = seen(t, wires)
			return fmt.Sprint(sights), slices.ContainsFunc(sights, func(s sight) bool { return s.text == "rpi1            |10.42.1.1       " })
		})
		if len(sights) == 0 {
			t.Fatal("nothing has passed the wires", script(t, n, "journalctl -b -u picube-display --no-pager; ls -l /dev/i2c* /sys/class/i2c-dev/*/device/of_node"))
		}
		t.Logf("the longest transaction had %d bytes, %.1f ms at 100 kHz", longest, float64(longest+1)*0.09)
		if longest+1 > 222 { // 20 ms
			t.Errorf("the bus is held too long")
		}
		if len(faults) > 0 {
			t.Errorf("lost: %v", faults)
		}
		var lines []string
		for _, s := range sights {
			lines = append(lines, fmt.Sprintf("%6.1f s |%s|", s.at.Sub(poweredOn).Seconds(), s.text))
		}
		t.Log("\n" + strings.Join(lines, "\n"))
		micros, err := strconv.ParseFloat(ask(t, n, "systemctl show -P ExecMainStartTimestampMonotonic picube-display"), 64)
		if err != nil {
			t.Fatal(err)
		}
		first := sights[slices.IndexFunc(sights, func(s sight) bool { return strings.TrimSpace(s.text) != "|" })]
		t.Logf("the unit started %.1f s after power-on, the first text came %.2f s later (give or take %.2f s)",
			micros/1e6, first.at.Sub(poweredOn).Seconds()-micros/1e6, asked.Seconds()/2)
	})
	t.Run("fan", func(t *testing.T) {
		script(t, n, "mount -t tmpfs none /sys/class/thermal && mkdir /sys/class/thermal/thermal_zone0")
		for _, tt := range []struct {
			celsius int
			high    bool
			duty    float64
		}{
			{40, false, 0}, {55, false, 0}, {65, true, 0.5}, {55, true, 0.3}, {80, true, 1}, {45, false, 0}, {70, true, 0.65},
		} {
			script(t, n, fmt.Sprintf("echo %d000 >/sys/class/thermal/thermal_zone0/temp", tt.celsius))
			got := eventually(t, time.Minute, fmt.Sprintf("at %d °C", tt.celsius), func() (string, bool) {
				high, duty := pins.high(fanPin), pins.duty()
				return fmt.Sprintf("GPIO %d high: %v, duty %.3f", fanPin, high, duty), high == tt.high && math.Abs(duty-tt.duty) < 0.01
			})
			t.Logf("%d °C: %s", tt.celsius, got)
		}
		// The daemon dies while the fan turns: from outside, nobody notices.
		lows, looks := 0, 0
		done := make(chan string, 1)
		go func() {
			out, _ := n.Run(t.Context(), "sudo kill -9 $(systemctl show -P MainPID picube-fan); sleep 10; systemctl show -P NRestarts picube-fan")
			done <- strings.TrimSpace(out)
		}()
		restarts := ""
		for restarts == "" {
			select {
			case restarts = <-done:
			default:
				looks++
				if !pins.high(fanPin) || pins.duty() < 0.3 {
					lows++
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		if restarts != "1" || lows > 0 {
			t.Errorf("killed: %s restarts, low in %d of %d looks", restarts, lows, looks)
		}
		t.Logf("killed: %s restart, low in %d of %d looks", restarts, lows, looks)
		script(t, n, "echo 40000 >/sys/class/thermal/thermal_zone0/temp; sleep 6; systemctl stop picube-fan; sleep 1")
		if high, d := pins.high(fanPin), pins.duty(); !high || d < 0.99 {
			t.Errorf("stopped at 40 °C: high %v, duty %v", high, d)
		}
		script(t, n, "systemctl start picube-fan; rm /sys/class/thermal/thermal_zone0/temp; sleep 6")
		if high, d := pins.high(fanPin), pins.duty(); !high || d < 0.99 {
			t.Errorf("without a sensor: high %v, duty %v", high, d)
		}
		t.Log(script(t, n, "picube-node status; journalctl -b -u picube-fan --no-pager | tail -20; umount /sys/class/thermal"))
	})
	t.Run("idle", func(t *testing.T) {
		const ticks = `for p in $(pidof picube-node); do echo $(tr "\0" " " </proc/$p/cmdline | cut -d" " -f2-) $(cat /proc/$p/task/*/schedstat | cut -d" " -f1 | paste -sd+ | sed "s/.*/echo \$(((&)\/1000000)) ms/" | sh); done`
		t.Log(script(t, n, "picube-node status; "+memory+"; "+ticks+"; sleep 60; echo; "+ticks))
	})
	t.Run("farewell", func(t *testing.T) {
		_, _ = n.Run(t.Context(), "sudo systemctl poweroff")
		want := "      rpi1      |Power may be cut"
		eventually(t, 4*time.Minute, "says that the power may be cut", func() (string, bool) {
			sights, _, _ := seen(t, wires)
			last := sights[len(sights)-1].text
			return last, last == want
		})
	})
}

// sight is what could be read on the display, from a moment on.
type sight struct {
	at   time.Time
	text string
}

// seen shows a simulated module what QEMU noted of the I2C bus, and returns
// what a person would have seen, how many bytes the longest transaction had,
// and what the module could not understand.
func seen(t *testing.T, log string) (sights []sight, longest int, faults []string) {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := hd44780sim.New(hd44780sim.Options{Columns: 16, Rows: 2})
	m.Sleep(time.Second) // it had its power long before
	entry := regexp.MustCompile(`@(\d+)\.(\d+):i2c_(event|send|recv) (.*)`)
	data := regexp.MustCompile(`data:0x([0-9a-f]{2})`)
	var transaction []byte
	var before time.Time // the end of the transaction before
	for s := bufio.NewScanner(f); s.Scan(); {
		line := entry.FindStringSubmatch(s.Text())
		if line == nil || !strings.Contains(line[4], "0x27") {
			continue
		}
		sec, _ := strconv.ParseInt(line[1], 10, 64)
		micro, _ := strconv.ParseInt(line[2], 10, 64)
		at := time.Unix(sec, micro*1000)
		switch {
		case line[3] == "send":
			b, _ := strconv.ParseUint(data.FindStringSubmatch(line[4])[1], 16, 8)
			if len(transaction) == 0 && !before.IsZero() {
				m.Sleep(at.Sub(before))
			}
			transaction = append(transaction, byte(b))
		case strings.HasPrefix(line[4], "finish") && len(transaction) > 0:
			if err := m.Write(transaction); err != nil {
				t.Fatal(err)
			}
			longest = max(longest, len(transaction))
			transaction, before = nil, at
			if text := strings.Join(m.Lines(), "|"); len(sights) == 0 || sights[len(sights)-1].text != text {
				sights = append(sights, sight{at, text})
			}
		}
	}
	picture, err := os.Create(filepath.Join(t.ArtifactDir(), "display.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer picture.Close()
	if err := png.Encode(picture, m.Picture()); err != nil {
		t.Fatal(err)
	}
	return sights, longest, m.Faults()
}

// board looks at a Pi's lines past its operating system.
type board struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// monitor opens QEMU's human monitor.
func monitor(t *testing.T, socket string) *board {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b := &board{t, conn, bufio.NewReader(conn)}
	b.answer()
	return b
}

func (b *board) answer() string {
	b.t.Helper()
	text := ""
	for !strings.HasSuffix(text, "(qemu) ") {
		c, err := b.r.ReadByte()
		if err != nil {
			b.t.Fatal(err)
		}
		text += string(c)
	}
	return text
}

// register reads a peripheral's register.
func (b *board) register(address uint32) uint32 {
	b.t.Helper()
	fmt.Fprintf(b.conn, "xp /1wx 0x%x\n", address)
	m := regexp.MustCompile(fmt.Sprintf("%x: 0x([0-9a-f]{8})", address)).FindStringSubmatch(b.answer())
	if m == nil {
		b.t.Fatalf("the monitor does not tell the register 0x%x", address)
	}
	v, err := strconv.ParseUint(m[1], 16, 32)
	if err != nil {
		b.t.Fatal(err)
	}
	return uint32(v)
}

// high reports whether a line is: GPLEV0, BCM2835 ARM Peripherals, 6.1.
func (b *board) high(pin int) bool { return b.register(0x3f200034)>>pin&1 != 0 }

// duty is that of the first PWM channel (the same, 9.6). QEMU has no PWM:
// behind its registers is plain memory, which keeps what the driver wrote.
func (b *board) duty() float64 {
	const control, period, data = 0x3f20c000, 0x3f20c010, 0x3f20c014
	if b.register(control)&1 == 0 {
		return 0
	}
	return float64(b.register(data)) / float64(b.register(period))
}
