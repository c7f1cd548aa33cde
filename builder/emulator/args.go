package emulator

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Machines that QEMU can be. MachineVirt is QEMU's own board, the quickest;
// the others are real boards, far slower, for one node at a time.
const (
	MachineVirt    = "virt"
	MachineRaspi2B = "raspi2b"
	MachineRaspi3B = "raspi3b"
	MachineRaspi4B = "raspi4b"
)

// Accelerators.
const (
	AccelTCG = "tcg" // software emulation, works everywhere
	AccelKVM = "kvm"
	AccelHVF = "hvf"
)

// tcg is software emulation. What is translated may take half a GiB for each
// of the first two processors: enough to log in with one, and with two for a
// control plane, whose programs are large; QEMU's own limit is a GiB.
func tcg(m Machine) string {
	return fmt.Sprintf("tcg,thread=multi,tb-size=%d", 512*min(m.CPUs, 2))
}

// Machine is one QEMU process: all that its argument list depends on.
type Machine struct {
	Name        string // the node's
	Type        string // MachineVirt, ...
	Accel       string
	CPUs        int
	Memory      int // MiB
	Kernel      string
	Initramfs   string // empty: none
	DeviceTree  string // real boards only; QEMU makes virt's itself
	CommandLine string
	Disk        string // a qcow2 file
	MAC         net.HardwareAddr
	Wire        string    // unix socket of the switch; QEMU connects
	Control     string    // unix socket for QMP; QEMU connects
	Stages      string    // unix socket for the port picube.stage; QEMU connects; virt only
	Clock       time.Time // when the guest is switched on; zero: the host's time
	Args        []string  // the card's own
}

// StagePort is the name of the virtio serial port on which a node may report
// its stages (/dev/virtio-ports/picube.stage in the guest).
const StagePort = "picube.stage"

// board is what QEMU fixes for a machine type.
type board struct {
	binary  string // of QEMU
	cpus    int    // 0: free
	memory  int    // MiB, 0: free
	console string // the kernel's name of the serial line that QEMU shows
	trees   []string
	since   int    // QEMU's major version that has it
	filter  string // config.txt's conditional filter
}

// boards gives the QEMU facts per machine type. On the Pis with Bluetooth the
// device tree gives the good UART to it, so the console is the mini UART, the
// second serial line.
func boards(machine string) (board, bool) {
	switch machine {
	case MachineVirt:
		return board{binary: "qemu-system-aarch64", console: "ttyAMA0", since: 7}, true
	case MachineRaspi2B:
		return board{binary: "qemu-system-arm", cpus: 4, memory: 1024, console: "ttyAMA0", since: 7, filter: "pi2",
			trees: []string{"bcm2836-rpi-2-b.dtb", "bcm2709-rpi-2-b.dtb"}}, true
	case MachineRaspi3B:
		return board{binary: "qemu-system-aarch64", cpus: 4, memory: 1024, console: "ttyS1", since: 7, filter: "pi3",
			trees: []string{"bcm2837-rpi-3-b.dtb", "bcm2710-rpi-3-b.dtb"}}, true
	case MachineRaspi4B:
		return board{binary: "qemu-system-aarch64", cpus: 4, memory: 2048, console: "ttyS1", since: 9, filter: "pi4",
			trees: []string{"bcm2711-rpi-4-b.dtb"}}, true
	}
	return board{}, false
}

// real reports whether the machine is a board that there is, with the network
// card that QEMU gives it.
func (b board) real() bool { return b.filter != "" }

// mac gives the MAC address of the board with an address on the cubes' wire.
// QEMU's USB network card tells its guest an address that begins with 40,
// whatever it is given (hw/usb/dev-network.c). That one is not locally
// administered, so Linux calls the interface eth0, as on the board itself.
func (b board) mac(a netip.Addr) net.HardwareAddr {
	mac := macOf(a)
	if b.real() {
		mac[0] = 0x40
	}
	return mac
}

// Args gives the arguments for QEMU (without the program's name). A guest that
// reboots makes QEMU exit, because what it boots next must be read from its
// card again: the kernel may have been upgraded.
func Args(m Machine) []string {
	args := []string{
		"-name", escape(m.Name),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-smp", fmt.Sprint(m.CPUs),
		"-m", fmt.Sprint(m.Memory),
		"-rtc", "base=" + clock(m.Clock),
		"-kernel", m.Kernel,
	}
	if m.Initramfs != "" {
		args = append(args, "-initrd", m.Initramfs)
	}
	args = append(args,
		"-append", m.CommandLine,
		"-chardev", "socket,id=control,path="+escape(m.Control),
		"-mon", "chardev=control,mode=control",
		"-chardev", "stdio,id=console,signal=off",
		"-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path="+escape(m.Wire),
	)
	if m.Type != MachineVirt {
		args = append(args, realBoard(m)...)
	} else {
		args = append(args, virt(m)...)
	}
	return append(args, m.Args...)
}

func virt(m Machine) []string {
	machine, cpu, accel := "virt", "cortex-a72", tcg(m)
	switch m.Accel {
	case AccelKVM:
		machine, cpu, accel = "virt,gic-version=max", "host", "kvm"
	case AccelHVF:
		cpu, accel = "host", "hvf"
	}
	return []string{
		"-machine", machine,
		"-cpu", cpu,
		"-accel", accel,
		"-serial", "chardev:console",
		"-drive", "if=none,id=card,format=qcow2,file=" + escape(m.Disk),
		"-device", "virtio-blk-pci,drive=card",
		// The boot ROM is not used and lies in a package of its own.
		"-device", "virtio-net-pci,netdev=net0,romfile=,mac=" + m.MAC.String(),
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=stages,path=" + escape(m.Stages),
		"-device", "virtserialport,chardev=stages,name=" + StagePort,
	}
}

func realBoard(m Machine) []string {
	args := []string{
		"-machine", m.Type,
		"-accel", tcg(m),
		"-dtb", m.DeviceTree,
	}
	if b, _ := boards(m.Type); b.console != "ttyAMA0" {
		args = append(args, "-serial", "null")
	}
	return append(args,
		"-serial", "chardev:console",
		"-drive", "if=sd,format=qcow2,file="+escape(m.Disk),
		"-device", "usb-net,netdev=net0,mac="+m.MAC.String(),
	)
}

// clock writes a time as -rtc wants it.
func clock(t time.Time) string {
	if t.IsZero() {
		return "utc"
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}

// escape doubles the commas, which separate QEMU's options.
func escape(s string) string {
	return strings.ReplaceAll(s, ",", ",,")
}
