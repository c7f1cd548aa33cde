//go:build linux

// Guest is the one program on the cards that the emulator's own tests boot: an
// init that loads the modules beside it, takes its address from the kernel's
// command line and another by DHCP, and answers a few commands over ssh. It
// brings a machine up in seconds where a Debian needs a minute.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// stateOffset is where on its card, before the first partition, a guest keeps
// the text that "write" gave it.
const (
	stateOffset = 1 << 20
	stateSize   = 512
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	// An init that ends makes the kernel panic.
}

func run() error {
	for _, m := range []string{"proc", "sysfs", "devtmpfs"} {
		dir := map[string]string{"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev"}[m]
		if err := errors.Join(os.MkdirAll(dir, 0o755), unix.Mount(m, dir, m, 0, "")); err != nil {
			return err
		}
	}
	options := map[string]string{}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for _, f := range strings.Fields(string(line)) {
		key, value, _ := strings.Cut(f, "=")
		options[key] = value
	}
	if options["guest.panic"] != "" {
		return errors.New("told to panic")
	}
	for options["guest.hang"] != "" {
		time.Sleep(time.Hour)
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, m := range modules {
		f, err := os.Open(m)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("module %s: %w", m, err)
		}
	}
	fmt.Println("picube: stage userspace")
	if err := addresses(options["guest.address"]); err != nil {
		return err
	}
	if err := serve(options["guest.key"]); err != nil {
		return err
	}
	// One stage by the port, to see that it works.
	if port, err := stagePort(); err == nil {
		fmt.Fprintln(port, "picube: stage configured")
	}
	fmt.Printf("time %d\n%s login: ", time.Now().Unix(), options["guest.name"])
	watchCarrier()
	return nil
}

// watchCarrier tells on the console of each change: over a cable that is cut
// nobody could ask.
func watchCarrier() {
	for last := ""; ; time.Sleep(100 * time.Millisecond) {
		b, err := os.ReadFile("/sys/class/net/eth0/carrier")
		if now := strings.TrimSpace(string(b)); err == nil && now != last {
			fmt.Printf("\ncarrier %s\n", now)
			last = now
		}
	}
}

func stagePort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if b, _ := os.ReadFile(n); strings.TrimSpace(string(b)) == "picube.stage" {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_WRONLY, 0)
		}
	}
	return nil, os.ErrNotExist
}

func addresses(fixed string) error {
	link, err := eth0()
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(fixed)
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(link), netlink.AddrAdd(link, addr))
}

func eth0() (netlink.Link, error) {
	for range 100 {
		if link, err := netlink.LinkByName("eth0"); err == nil {
			return link, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.New("no eth0")
}

// dhcp asks for a lease and takes it.
func dhcp() (string, error) {
	link, err := eth0()
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3}),
		unix.BindToDevice(fd, "eth0"),
		unix.Bind(fd, &unix.SockaddrInet4{Port: dhcpv4.ClientPort}),
	); err != nil {
		return "", err
	}
	exchange := func(m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
		buf := make([]byte, 1500)
		for range 5 {
			to := &unix.SockaddrInet4{Port: dhcpv4.ServerPort, Addr: [4]byte{255, 255, 255, 255}}
			if err := unix.Sendto(fd, m.ToBytes(), 0, to); err != nil {
				return nil, err
			}
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue
			}
			if reply, err := dhcpv4.FromBytes(buf[:n]); err == nil && reply.TransactionID == m.TransactionID {
				return reply, nil
			}
		}
		return nil, errors.New("no answer")
	}
	discover, err := dhcpv4.NewDiscovery(link.Attrs().HardwareAddr, dhcpv4.WithBroadcast(true))
	if err != nil {
		return "", err
	}
	offer, err := exchange(discover)
	if err != nil {
		return "", err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		return "", err
	}
	ack, err := exchange(request)
	if err != nil {
		return "", err
	}
	if ack.MessageType() != dhcpv4.MessageTypeAck {
		return "", fmt.Errorf("%v", ack.MessageType())
	}
	mask, _ := ack.SubnetMask().Size()
	addr, err := netlink.ParseAddr(fmt.Sprintf("%v/%d", ack.YourIPAddr, mask))
	if err != nil {
		return "", err
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return "", err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: ack.Router()[0]}); err != nil {
		return "", err
	}
	resolv := fmt.Sprintf("nameserver %v\n", ack.DNS()[0])
	if err := errors.Join(os.MkdirAll("/etc", 0o755), os.WriteFile("/etc/resolv.conf", []byte(resolv), 0o644)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v router %v dns %v", addr.IPNet, ack.Router()[0], ack.DNS()[0]), nil
}

func serve(key string) error {
	authorized, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return err
	}
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if string(k.Marshal()) != string(authorized) {
			return nil, errors.New("who are you?")
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", ":22")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go session(c, config)
		}
	}()
	return nil
}

func session(c net.Conn, config *ssh.ServerConfig) {
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for ch := range channels {
		channel, requests, err := ch.Accept()
		if err != nil {
			return
		}
		go func() {
			defer channel.Close()
			for r := range requests {
				if r.Type != "exec" {
					r.Reply(false, nil)
					continue
				}
				var command struct{ Line string }
				ssh.Unmarshal(r.Payload, &command)
				r.Reply(true, nil)
				status := struct{ Code uint32 }{}
				if err := execute(channel, strings.Fields(command.Line)); err != nil {
					fmt.Fprintln(channel.Stderr(), err)
					status.Code = 1
				}
				channel.SendRequest("exit-status", false, ssh.Marshal(status))
				return
			}
		}()
	}
}

func execute(out io.Writer, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "ping":
		return ping(args[1])
	case len(args) == 2 && args[0] == "get":
		c, err := net.DialTimeout("tcp", args[1], 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.Copy(out, c)
		return err
	case len(args) == 2 && args[0] == "resolve":
		found, err := net.LookupHost(args[1])
		fmt.Fprintln(out, strings.Join(found, " "))
		return err
	case len(args) == 1 && args[0] == "dhcp":
		lease, err := dhcp()
		fmt.Fprintln(out, lease)
		return err
	case len(args) == 1 && args[0] == "carrier":
		b, err := os.ReadFile("/sys/class/net/eth0/carrier")
		out.Write(b)
		return err
	case len(args) == 2 && args[0] == "write":
		f, err := os.OpenFile("/dev/vda", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		b := make([]byte, stateSize)
		copy(b, args[1])
		_, err = f.WriteAt(b, stateOffset)
		return errors.Join(err, f.Sync(), f.Close())
	case len(args) == 1 && args[0] == "read":
		f, err := os.Open("/dev/vda")
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, stateSize)
		_, err = f.ReadAt(b, stateOffset)
		fmt.Fprintln(out, strings.TrimRight(string(b), "\x00"))
		return err
	case len(args) == 1 && args[0] == "size":
		b, err := os.ReadFile("/sys/block/vda/size")
		out.Write(b)
		return err
	case len(args) == 1 && args[0] == "reboot":
		return later(func() { unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) })
	case len(args) == 1 && args[0] == "poweroff":
		return later(func() { unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) })
	case len(args) == 1 && args[0] == "panic":
		return later(func() { os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) })
	}
	return fmt.Errorf("cannot %q", args)
}

// later lets the answer to the command out first.
func later(f func()) error {
	time.AfterFunc(200*time.Millisecond, f)
	return nil
}

func ping(to string) error {
	addr, err := netip.ParseAddr(to)
	if err != nil {
		return err
	}
	c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 1500)
	for seq := range 3 {
		b, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid(), Seq: seq, Data: []byte("picube")}}).Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				break
			}
			m, err := icmp.ParseMessage(1, buf[:n])
			if err == nil && m.Type == ipv4.ICMPTypeEchoReply && from.String() == to {
				return nil
			}
		}
	}
	return errors.New("no answer")
}
