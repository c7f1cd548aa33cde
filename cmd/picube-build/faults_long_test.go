//go:build long

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/emulator"
)

// Each pull takes two nodes about three minutes on two processors, two at a
// time; the promise was checked with ten.
var (
	pulls = flag.Int("pulls", 2, "how often the plug is pulled during the first boot")
	seed  = flag.Uint64("pull-seed", 5, "of the moments at which the plug is pulled")
)

// testFaults has two real cards in a house without router or internet, one of
// them switched on in 1970 and in a cube of its own, and does to them what
// happens to a cube on a table.
func testFaults(t *testing.T, cards built) {
	e := emulatorOf(t, emulator.Config{NoDHCP: true, CPUs: 1})
	n1 := cards.start(t, e, "rpi1", 1, nil)
	n2 := cards.start(t, e, "rpi2", 2, func(c *emulator.Card) {
		c.Segment = "other"
		c.Clock = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	})
	up(t, n1)
	up(t, n2)
	_, stages := n2.Stage()
	firstBoot := stages[emulator.Login]

	reach := func(t *testing.T, from *emulator.Node, want bool, why string, peers ...string) {
		t.Helper()
		for _, peer := range peers {
			command := "ping -c 1 -W 2 " + peer
			if want {
				// A name or an address may have to be found again first.
				command = "for i in 1 2 3 4 5 6 7 8 9 10; do ping -c 1 -W 5 " + peer + " && exit; sleep 2; done; exit 1"
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			if _, err := from.Run(ctx, command); (err == nil) != want {
				t.Errorf("%s: %s reaches %s: %v, want %v: %v", why, from.Name(), peer, err == nil, want, err)
			}
			cancel()
		}
	}

	t.Run("no internet, no router", func(t *testing.T) {
		for _, n := range []*emulator.Node{n1, n2} {
			clean(t, n)
			for command, want := range map[string]string{
				"ip -4 route show default":               "",
				"getent ahosts debian.org; true":         "",
				"ip -4 -o addr show eth0 | wc -l":        "1",
				"timeout 5 ping -c 1 192.0.2.1; echo $?": "2", // unreachable, at once
			} {
				if got := ask(t, n, command+" 2>/dev/null"); got != want {
					t.Errorf("%s: %s: %q, want %q", n.Name(), command, got, want)
				}
			}
		}
	})
	t.Run("1970", func(t *testing.T) {
		if got := ask(t, n2, "[ $(date +%s) -ge $(stat -c %Y /usr/lib/clock-epoch) ] && echo later"); got != "later" {
			t.Errorf("the clock is before the build: %s", ask(t, n2, "date; stat -c %y /usr/lib/clock-epoch"))
		}
		t.Log(ask(t, n2, "date; journalctl -b -o short-iso | head -3; timedatectl"))
	})
	t.Run("segments", func(t *testing.T) {
		reach(t, n1, false, "apart", "10.42.1.2", "rpi2.local")
		e.JoinSegments("picube", "other")
		reach(t, n1, true, "joined", "10.42.1.2", "rpi2.local")
		reach(t, n2, true, "joined", "10.42.1.1", "rpi1.local")
		e.SplitSegments("picube", "other")
		reach(t, n1, false, "apart again", "10.42.1.2")
		e.JoinSegments("picube", "other")
		reach(t, n1, true, "joined again", "10.42.1.2")
	})
	t.Run("cable", func(t *testing.T) {
		e.JoinSegments("picube", "other")
		const downs = "cat /sys/class/net/eth0/carrier_down_count"
		before := ask(t, n2, downs)
		n2.CutCable()
		reach(t, n1, false, "cut", "10.42.1.2")
		e.SetDHCP(true) // when it is mended it leads to a router
		n2.MendCable()
		reach(t, n1, true, "mended", "10.42.1.2", "rpi2.local")
		reach(t, n2, true, "mended", "10.42.1.1", "rpi1.local")
		if after := ask(t, n2, downs); after == before {
			t.Errorf("rpi2 has not seen that its cable was cut: %s times before and after", after)
		}
		got := ""
		for range 60 { // networkd asks once a minute
			if got = ask(t, n2, "ip -4 -o addr show eth0"); strings.Contains(got, n2.Lease().String()+"/") {
				break
			}
			time.Sleep(2 * time.Second)
		}
		if !strings.Contains(got, n2.Lease().String()+"/") || !strings.Contains(got, "10.42.1.2/16") {
			t.Errorf("addresses beside a router: %s", got)
		}
		reach(t, n2, false, "no internet behind the router", "1.1.1.1")
	})
	t.Run("full disk", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := n2.FillDisk(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, n2, "df -B1 --output=avail / | tail -1"); got != "0" {
			t.Errorf("%s bytes are free", got)
		}
		n2.PullPlug()
		if err := n2.PlugIn(ctx); err != nil {
			t.Fatal(err)
		}
		up(t, n2)
		if got := ask(t, n2, "hostname"); got != "rpi2" {
			t.Errorf("with a full disk the node is %q", got)
		}
		t.Log(ask(t, n2, "systemctl is-system-running --wait; systemctl --failed --no-legend; df -h /"))
		ask(t, n2, "sudo rm "+emulator.FillFile+" && sudo touch /etc/room")
	})
	t.Run("pulls", func(t *testing.T) { pullPlugs(t, cards, firstBoot, n1, n2) })
}

func up(t *testing.T, n *emulator.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	if err := n.WaitStage(ctx, emulator.Login); err != nil {
		t.Fatal(err)
	}
}

// clean sees that a node is what its card promises, and wants nothing. That it
// lets us in shows its host key, too.
func clean(t *testing.T, n *emulator.Node) {
	t.Helper()
	said := ask(t, n, "hostname; systemctl is-system-running --wait; systemctl --failed --no-legend; sudo dpkg --audit; "+
		"ls /boot/firmware/picube/identity 2>/dev/null; sudo find / -xdev -name '.picube-*'; sudo stat -c '%a %U %s' /etc/ssh/ssh_host_ed25519_key | cut -d' ' -f1,2; "+
		"df -BG --output=size / | tail -1 | tr -d ' '; findmnt -no FSTYPE /boot/firmware; cat /etc/machine-id | wc -c")
	want := n.Name() + "\nrunning\n600 root\n4G\nvfat\n33"
	if said != want {
		t.Errorf("%s says\n%s\nwant\n%s", n.Name(), said, want)
	}
}

// pullPlugs pulls the plug of fresh cards at random moments, spread over what a
// first boot takes, and sees that they come up clean all the same.
func pullPlugs(t *testing.T, cards built, firstBoot time.Duration, nodes ...*emulator.Node) {
	random := rand.New(rand.NewPCG(*seed, 0))
	moments := make([]time.Duration, *pulls)
	for i := range moments {
		moments[i] = time.Duration((float64(i) + random.Float64()) / float64(*pulls) * float64(firstBoot))
	}
	ids := map[string]string{}
	for _, n := range nodes {
		ids[n.Name()] = ask(t, n, "cat /etc/machine-id")
		n.PullPlug()
	}
	var wg sync.WaitGroup
	for lane, n := range nodes {
		wg.Go(func() {
			for i := lane; i < len(moments); i += len(nodes) {
				t.Run(fmt.Sprintf("%.1fs", moments[i].Seconds()), func(t *testing.T) {
					pullPlug(t, n, filepath.Join(cards.dir, n.Name()+".img"), moments[i])
					if id := ask(t, n, "cat /etc/machine-id"); id != ids[n.Name()] {
						t.Errorf("machine id %s, the first boot of the same card gave %s", id, ids[n.Name()])
					}
					n.PullPlug()
					checkRoot(t, n)
				})
			}
		})
	}
	wg.Wait()
}

func pullPlug(t *testing.T, n *emulator.Node, image string, moment time.Duration) {
	t.Helper()
	n.PullPlug()
	if err := n.PlugInCard(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	time.Sleep(moment)
	stage, _ := n.Stage()
	said := n.Console()
	n.PullPlug()
	t.Logf("%s: pulled at %v, stage %v: %q", n.Name(), moment, stage, said[max(0, len(said)-2):])
	if err := n.PlugIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	up(t, n)
	clean(t, n)
}

// checkRoot has e2fsck look at the root of a node that was just cut off: the
// journal must be all that there is to do, and the free counts, which the
// kernel writes to the superblock only when it has time. Anything else is not
// for "preen" to decide.
func checkRoot(t *testing.T, n *emulator.Node) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root.ext4")
	if err := n.CopyPartition(2, root); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	out, err := exec.Command("e2fsck", "-fp", root).CombinedOutput()
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Errorf("e2fsck -fp: %v\n%s", err, out)
	}
	if out, err := exec.Command("e2fsck", "-fn", root).CombinedOutput(); err != nil {
		t.Errorf("e2fsck -fn: %v\n%s", err, out)
	}
}
