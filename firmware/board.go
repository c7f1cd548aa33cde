// Package firmware knows the boards and what their firmware wants to find on
// the boot partition: firmware files, kernel, initramfs, device trees,
// config.txt and cmdline.txt.
package firmware

import (
	"slices"
	"strings"
)

// Board is one row of the board table.
type Board struct {
	Name  string // as the blueprint has it
	Model string
	Arch  string // Debian's name: arm64, armhf

	KernelPackage string
	// DeviceTrees are the files of the kernel package that the firmware may
	// choose for the board; empty where the machine brings its own.
	DeviceTrees []string
	// Files must be on the boot partition besides kernel, initramfs and device
	// trees; they come from the package raspi-firmware.
	Files []string
	// Config are lines of config.txt for this board alone, below Filter.
	Filter string
	Config []string
	// Consoles are the kernel's, the last one being /dev/console.
	Consoles []string
	// Modules are what the initramfs must be able to load to reach the card.
	Modules []string

	// NotOnDebian says why Debian's kernel does not start the board; empty: it
	// does.
	NotOnDebian string
	// Raspios is how the board starts with Raspberry Pi's own kernel; no
	// Flavour: it does not.
	Raspios Raspios

	Memory int    // MiB of the smallest model sold
	WiFi   string // the chip, empty: no radio
	Header Header

	QEMU QEMU
}

// Header is what can be connected to a board.
type Header struct {
	GPIO string // label of the GPIO character device that drives it
	Pins int    // its lines, from 0
	// Taken are lines that are never free, and by what.
	Taken map[int]string
	I2C   map[int]I2C // by the number that people know the bus by
	PWM   map[int]PWM // by the line
	// Fan says that there is a fan's plug that the firmware drives.
	Fan bool
}

// I2C is a bus.
type I2C struct {
	Controller string // its node in the device tree, by which the kernel's number for it is found
	SDA, SCL   int
}

// PWM is what makes a line a PWM output.
type PWM struct {
	Channel int    // of the controller
	Pins    string // label of the line's pin group in Linux' device tree
}

// PWMController is the label of the header's PWM controller in the device
// trees of all boards, PWMNode its node.
const (
	PWMController = "pwm"
	PWMNode       = "pwm@7e20c000"
)

// QEMU says which machine runs a card of the board.
type QEMU struct {
	Machine string // -M
	CPU     string // -cpu where the machine does not fix it
	Since   int    // QEMU's major version that has it
}

// filesystems are what init mounts: the root and, for node.yaml, the boot
// partition. ext4 asks for its checksum by the alias crypto-crc32c, which only
// a modprobe could resolve.
func fileSystems() []string {
	return []string{"ext4", "crc32c_generic", "vfat", "nls_cp437", "nls_ascii"}
}

// virtio lets the card of every board start in QEMU's virt machine.
func virtio() []string {
	return []string{"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng"}
}

// Boards returns the table. The first one is the default.
func Boards() []Board {
	// GPIO chips of the BCM283x and BCM2711: drivers/pinctrl/bcm/pinctrl-bcm2835.c.
	const bcm2835, bcm2711 = "pinctrl-bcm2835", "pinctrl-bcm2711"
	// The good UART of a Pi with Bluetooth belongs to the radio; the header has
	// the mini UART, which Debian's device trees call serial1.
	pi := []string{"tty0", "ttyS1,115200"}
	taken := map[int]string{14: "the serial console", 15: "the serial console"}
	// Nodes of Linux' bcm283x.dtsi, pin groups of bcm283x.dtsi and bcm2711.dtsi.
	pi3Header := Header{GPIO: bcm2835, Pins: 28, Taken: taken,
		I2C: map[int]I2C{0: {"i2c@7e205000", 0, 1}, 1: {"i2c@7e804000", 2, 3}},
		PWM: map[int]PWM{12: {0, "pwm0_gpio12"}, 13: {1, "pwm1_gpio13"}, 18: {0, "pwm0_gpio18"}, 19: {1, "pwm1_gpio19"}}}
	// Bus 0 of a BCM2711 belongs to cameras and screens.
	pi4Header := Header{GPIO: bcm2711, Pins: 28, Taken: taken,
		I2C: map[int]I2C{1: {"i2c@7e804000", 2, 3}},
		PWM: map[int]PWM{12: {0, "pwm0_0_gpio12"}, 13: {1, "pwm0_1_gpio13"}, 18: {0, "pwm0_0_gpio18"}, 19: {1, "pwm0_1_gpio19"}}}
	pi3Files := []string{"bootcode.bin", "start.elf", "fixup.dat"}
	pi4Files := []string{"start4.elf", "fixup4.dat"} // its boot code is in flash
	// The card slot of BCM2837 is the SD host (bcm2835) in Linux' device trees
	// and the Arasan controller (sdhci-iproc) in Raspberry Pi's.
	pi3Modules := []string{"bcm2835", "sdhci-iproc"}
	// BCM2711: emmc2, whose voltage is switched by two regulators; or a disk
	// on the USB 3 hub behind PCIe.
	pi4Modules := []string{"sdhci-iproc", "fixed", "gpio-regulator",
		"reset-raspberrypi", "xhci-pci", "usb-storage", "uas", "sd_mod"}
	return []Board{
		{
			Name: "rpi3", Model: "Raspberry Pi 3 Model A+, B and B+", Arch: "arm64",
			KernelPackage: "linux-image-arm64",
			DeviceTrees:   []string{"bcm2837-rpi-3-b.dtb", "bcm2837-rpi-3-b-plus.dtb", "bcm2837-rpi-3-a-plus.dtb"},
			Files:         pi3Files, Filter: "pi3", Consoles: pi, Modules: pi3Modules,
			Raspios: Raspios{rpiV8, []string{"bcm2710-rpi-3-b.dtb", "bcm2710-rpi-3-b-plus.dtb"}},
			Memory:  512, WiFi: "BCM43438 or CYW43455", Header: pi3Header,
			QEMU: QEMU{Machine: "raspi3b", Since: 7},
		},
		{
			Name: "zero2w", Model: "Raspberry Pi Zero 2 W", Arch: "arm64",
			KernelPackage: "linux-image-arm64",
			DeviceTrees:   []string{"bcm2837-rpi-zero-2-w.dtb"},
			Files:         pi3Files, Consoles: pi, Modules: pi3Modules,
			// Named, since Raspberry Pi's own tree for it is bcm2710-rpi-zero-2.dtb,
			// without the "w", and its firmware derives names from its own.
			Filter: "pi02", Config: []string{"device_tree=bcm2837-rpi-zero-2-w.dtb"},
			Raspios: Raspios{rpiV8, []string{"bcm2710-rpi-zero-2.dtb"}},
			Memory:  512, WiFi: "BCM43436", Header: pi3Header,
			QEMU: QEMU{Machine: "raspi3b", Since: 7},
		},
		{
			Name: "rpi4", Model: "Raspberry Pi 4 Model B and 400", Arch: "arm64",
			KernelPackage: "linux-image-arm64",
			DeviceTrees:   []string{"bcm2711-rpi-4-b.dtb", "bcm2711-rpi-400.dtb"},
			Files:         pi4Files, Filter: "pi4", Consoles: pi, Modules: pi4Modules,
			Raspios: Raspios{rpiV8, []string{"bcm2711-rpi-4-b.dtb", "bcm2711-rpi-400.dtb"}},
			Memory:  1024, WiFi: "CYW43455", Header: pi4Header,
			QEMU: QEMU{Machine: "raspi4b", Since: 9},
		},
		{
			Name: "cm4", Model: "Raspberry Pi Compute Module 4", Arch: "arm64",
			KernelPackage: "linux-image-arm64",
			DeviceTrees:   []string{"bcm2711-rpi-cm4-io.dtb"},
			Files:         pi4Files, Consoles: pi, Modules: pi4Modules,
			// Raspberry Pi's own tree is bcm2711-rpi-cm4.dtb, without the "io".
			Filter: "cm4", Config: []string{"device_tree=bcm2711-rpi-cm4-io.dtb"},
			Raspios: Raspios{rpiV8, []string{"bcm2711-rpi-cm4.dtb"}},
			Memory:  1024, WiFi: "CYW43455", Header: pi4Header,
			QEMU: QEMU{Machine: "raspi4b", Since: 9},
		},
		{
			Name: "rpi2", Model: "Raspberry Pi 2 Model B", Arch: "armhf",
			KernelPackage: "linux-image-armmp",
			DeviceTrees:   []string{"bcm2836-rpi-2-b.dtb"},
			Files:         pi3Files, Modules: pi3Modules,
			// Named, since Linux has no tree of its own for version 1.2, which is
			// a BCM2837 that starts with that of its forerunner.
			Filter: "pi2", Config: []string{"device_tree=bcm2836-rpi-2-b.dtb"},
			Raspios:  Raspios{rpiV7, []string{"bcm2709-rpi-2-b.dtb"}},
			Consoles: []string{"tty0", "ttyAMA0,115200"}, // no radio claims the good UART
			Memory:   1024, Header: pi3Header,
			QEMU: QEMU{Machine: "raspi2b", Since: 7},
		},
		{
			Name: "rpi5", Model: "Raspberry Pi 5, 500 and Compute Module 5", Arch: "arm64",
			KernelPackage: "linux-image-arm64",
			DeviceTrees:   []string{"bcm2712-rpi-5-b.dtb"}, // no Files: its boot code is in flash
			Filter:        "pi5", Consoles: []string{"tty0", "ttyAMA10,115200"},
			NotOnDebian: `Debian 13's kernel has no drivers for the chip (RP1) that its ports hang on. Use base "raspios" or base "image".`,
			Raspios:     Raspios{rpi2712, []string{"bcm2712-rpi-5-b.dtb"}},
			Memory:      1024, WiFi: "CYW43455",
			Header: Header{GPIO: "pinctrl-rp1", Pins: 28, I2C: map[int]I2C{1: {"i2c@74000", 2, 3}}, Fan: true},
			QEMU:   QEMU{Machine: "virt", CPU: "cortex-a76", Since: 9},
		},
		{
			Name: "virt", Model: "QEMU ARM Virtual Machine", Arch: "arm64",
			KernelPackage: "linux-image-arm64",
			Consoles:      []string{"ttyAMA0,115200"},
			Memory:        1024,
			Header:        Header{GPIO: "9030000.pl061", Pins: 8, Taken: map[int]string{3: "the power button"}},
			QEMU:          QEMU{Machine: "virt", CPU: "cortex-a72", Since: 7},
		},
	}
}

// Lookup returns the board of that name.
func Lookup(name string) (Board, bool) {
	for _, b := range Boards() {
		if b.Name == name {
			return b, true
		}
	}
	return Board{}, false
}

// IsPi reports whether the board's firmware is Raspberry Pi's.
func (b Board) IsPi() bool { return b.Filter != "" }

// Packages returns what a root file system for the boards needs to boot and to
// stay bootable through kernel upgrades, sorted.
func Packages(boards []Board) []string {
	names := []string{"initramfs-tools"}
	for _, b := range boards {
		names = append(names, b.KernelPackage)
		if b.IsPi() {
			names = append(names, "raspi-firmware")
		}
	}
	return sorted(names)
}

// Modules returns what an initramfs for the boards must be able to load. Every
// card can start in QEMU's virt machine too.
func Modules(boards []Board) []string {
	names := append(fileSystems(), virtio()...)
	for _, b := range boards {
		names = append(names, b.Modules...)
	}
	return sorted(names)
}

// Consoles returns the consoles for a card of the boards. Those of virt count
// only on a card for nothing else: on a Pi its line belongs to the radio, which
// would receive the kernel's messages.
func Consoles(boards []Board) []string {
	var names []string
	for _, b := range boards {
		if !b.IsPi() && slices.ContainsFunc(boards, Board.IsPi) {
			continue
		}
		for _, c := range b.Consoles {
			if !slices.Contains(names, c) {
				names = append(names, c)
			}
		}
	}
	return names
}

func sorted(names []string) []string {
	slices.SortFunc(names, strings.Compare)
	return slices.Compact(names)
}
