package emulator

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestArgs(t *testing.T) {
	base := Machine{
		Name: "rpi1", Type: MachineVirt, Accel: AccelTCG, CPUs: 2, Memory: 1024,
		Kernel: "/run/kernel", Initramfs: "/run/initramfs", CommandLine: "root=PARTUUID=1-02 console=ttyAMA0",
		Disk: "/run/rpi1.qcow2", MAC: net.HardwareAddr{2, 0, 0, 0, 1, 1},
		Wire: "/run/rpi1.wire", Control: "/run/rpi1.qmp", Stages: "/run/rpi1.stages",
	}
	common := `-name rpi1 -nodefaults -no-user-config -display none -no-reboot -smp 2 -m 1024 -rtc base=utc ` +
		`-kernel /run/kernel -initrd /run/initramfs -append root=PARTUUID=1-02_console=ttyAMA0 ` +
		`-chardev socket,id=control,path=/run/rpi1.qmp -mon chardev=control,mode=control -chardev stdio,id=console,signal=off ` +
		`-netdev stream,id=net0,server=off,addr.type=unix,addr.path=/run/rpi1.wire `
	devices := `-serial chardev:console -drive if=none,id=card,format=qcow2,file=/run/rpi1.qcow2 -device virtio-blk-pci,drive=card ` +
		`-device virtio-net-pci,netdev=net0,romfile=,mac=02:00:00:00:01:01 -device virtio-rng-pci -device virtio-serial-pci ` +
		`-chardev socket,id=stages,path=/run/rpi1.stages -device virtserialport,chardev=stages,name=picube.stage`
	tests := []struct {
		name   string
		change func(*Machine)
		want   string
	}{{
		name:   "virt, emulated",
		change: func(*Machine) {},
		want:   common + `-machine virt -cpu cortex-a72 -accel tcg,thread=multi,tb-size=1024 ` + devices,
	}, {
		name:   "virt on Linux, arm64",
		change: func(m *Machine) { m.Accel = AccelKVM },
		want:   common + `-machine virt,gic-version=max -cpu host -accel kvm ` + devices,
	}, {
		name:   "virt on a Mac, arm64",
		change: func(m *Machine) { m.Accel = AccelHVF },
		want:   common + `-machine virt -cpu host -accel hvf ` + devices,
	}, {
		name:   "a clock of 1970",
		change: func(m *Machine) { m.Clock = time.Unix(0, 0) },
		want: strings.Replace(common, "base=utc", "base=1970-01-01T00:00:00", 1) +
			`-machine virt -cpu cortex-a72 -accel tcg,thread=multi,tb-size=1024 ` + devices,
	}, {
		name:   "no initramfs, a comma in the path",
		change: func(m *Machine) { m.Initramfs, m.Disk = "", "/a,b/rpi1.qcow2" },
		want: strings.Replace(common, "-initrd /run/initramfs ", "", 1) +
			`-machine virt -cpu cortex-a72 -accel tcg,thread=multi,tb-size=1024 ` +
			strings.Replace(devices, "/run/rpi1.qcow2", "/a,,b/rpi1.qcow2", 1),
	}, {
		name:   "Pi 3",
		change: func(m *Machine) { m.Type, m.DeviceTree = MachineRaspi3B, "/run/dtb" },
		want: common + `-machine raspi3b -accel tcg,thread=multi,tb-size=1024 -dtb /run/dtb -serial null -serial chardev:console ` +
			`-drive if=sd,format=qcow2,file=/run/rpi1.qcow2 -device usb-net,netdev=net0,mac=02:00:00:00:01:01`,
	}, {
		name:   "Pi 2",
		change: func(m *Machine) { m.Type, m.DeviceTree = MachineRaspi2B, "/run/dtb" },
		want: common + `-machine raspi2b -accel tcg,thread=multi,tb-size=1024 -dtb /run/dtb -serial chardev:console ` +
			`-drive if=sd,format=qcow2,file=/run/rpi1.qcow2 -device usb-net,netdev=net0,mac=02:00:00:00:01:01`,
	}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := base
			test.change(&m)
			args := Args(m)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], " ", "_")
			}
			if diff := cmp.Diff(strings.Fields(test.want), args); diff != "" {
				t.Error(diff)
			}
		})
	}
}
