package fand

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The GPIO character device, version 2 (linux/gpio.h and
// Documentation/userspace-api/gpio/chardev.rst).
const (
	getChipInfo = 0x8044b401 // GPIO_GET_CHIPINFO_IOCTL
	getLine     = 0xc250b407 // GPIO_V2_GET_LINE_IOCTL
	setValues   = 0xc010b40f // GPIO_V2_LINE_SET_VALUES_IOCTL

	flagInput   = 1 << 2
	flagOutput  = 1 << 3
	flagFalling = 1 << 5
	flagPullUp  = 1 << 8

	attributeValues = 2
)

type chipInfo struct {
	name, label [32]byte
	lines       uint32
}

type lineAttribute struct {
	id, _ uint32
	value uint64
	mask  uint64
}

type lineConfig struct {
	flags uint64
	count uint32
	_     [5]uint32
	attrs [10]lineAttribute
}

type lineRequest struct {
	offsets  [64]uint32
	consumer [32]byte
	config   lineConfig
	count    uint32
	buffer   uint32
	_        [5]uint32
	fd       int32
}

type lineValues struct{ bits, mask uint64 }

// eventSize is that of struct gpio_v2_line_event, eventNumber where in it the
// line's events are counted.
const eventSize, eventNumber = 48, 20

func ioctl(fd uintptr, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// openChip opens the GPIO chip with that label: the numbers of chips depend on
// the order in which the kernel finds them.
func openChip(label string) (*os.File, error) {
	names, err := filepath.Glob("/dev/gpiochip*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		var info chipInfo
		if ioctl(f.Fd(), getChipInfo, unsafe.Pointer(&info)) == nil && string(bytes.TrimRight(info.label[:], "\x00")) == label {
			return f, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("GPIO chip %s: cannot find it", label)
}

// request asks for one line and returns its handle.
func request(label string, line int, config lineConfig) (int, error) {
	chip, err := openChip(label)
	if err != nil {
		return -1, err
	}
	defer chip.Close()
	r := lineRequest{count: 1, config: config}
	r.offsets[0] = uint32(line)
	copy(r.consumer[:], "picube fan")
	if err := ioctl(chip.Fd(), getLine, unsafe.Pointer(&r)); err != nil {
		return -1, fmt.Errorf("GPIO %d: cannot have it: %w", line, err)
	}
	return int(r.fd), unix.SetNonblock(int(r.fd), true)
}

// GPIO is a line that switches the fan.
type GPIO struct{ fd int }

// OpenGPIO takes the line, which is high from then on.
func OpenGPIO(label string, line int) (*GPIO, error) {
	config := lineConfig{flags: flagOutput, count: 1}
	config.attrs[0] = lineAttribute{id: attributeValues, value: 1, mask: 1}
	fd, err := request(label, line, config)
	if err != nil {
		return nil, err
	}
	return &GPIO{fd}, nil
}

// Set switches the fan on at every speed but 0.
func (g *GPIO) Set(duty float64) error {
	v := lineValues{mask: 1}
	if duty > 0 {
		v.bits = 1
	}
	return ioctl(uintptr(g.fd), setValues, unsafe.Pointer(&v))
}

// Tach counts the pulses of a tachometer: the fan pulls its line low.
type Tach struct {
	fd    int
	count uint64
	last  uint32
}

// OpenTach takes the tachometer's line.
func OpenTach(label string, line int) (*Tach, error) {
	fd, err := request(label, line, lineConfig{flags: flagInput | flagFalling | flagPullUp})
	if err != nil {
		return nil, err
	}
	return &Tach{fd: fd}, nil
}

// Pulses returns how many there were. The kernel numbers them, so none is
// missed when its buffer runs over between two looks.
func (t *Tach) Pulses() (uint64, error) {
	buffer := make([]byte, 16*eventSize)
	for {
		n, err := unix.Read(t.fd, buffer)
		if errors.Is(err, unix.EAGAIN) {
			return t.count, nil
		}
		if err != nil {
			return 0, err
		}
		if n < eventSize {
			return t.count, nil
		}
		number := binary.NativeEndian.Uint32(buffer[n/eventSize*eventSize-eventSize+eventNumber:])
		t.count += uint64(number - t.last)
		t.last = number
	}
}

// Store keeps the handles of lines: from one attempt to the next, and, with
// systemd's help, while the daemon is away (systemd.service(5),
// FileDescriptorStoreMax=).
type Store struct {
	Socket string         // $NOTIFY_SOCKET, empty: there is none
	Kept   map[string]int // by name
}

// Tach takes the tachometer's line, once.
func (s Store) Tach(label string, line int) (*Tach, error) {
	name := fmt.Sprintf("tach-%d", line)
	if fd, ok := s.Kept[name]; ok {
		return &Tach{fd: fd}, nil
	}
	t, err := OpenTach(label, line)
	if err != nil {
		return nil, err
	}
	s.Kept[name] = t.fd
	return t, nil
}

// GPIO takes the line over from before the daemon died, or afresh.
func (s Store) GPIO(label string, line int) (*GPIO, error) {
	name := fmt.Sprintf("gpio-%d", line)
	if fd, ok := s.Kept[name]; ok {
		return &GPIO{fd}, nil
	}
	g, err := OpenGPIO(label, line)
	if err != nil {
		return nil, err
	}
	s.Kept[name] = g.fd // for the next attempt: nobody can have a line twice
	return g, s.keep(name, g.fd)
}

// keep gives systemd a copy of a handle (sd_pid_notify_with_fds(3)).
func (s Store) keep(name string, fd int) error {
	if s.Socket == "" {
		return nil
	}
	// Not through package net, which sends handles on streams only.
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer func() { _ = unix.Close(socket) }() // nothing was left to write
	err = unix.Sendmsg(socket, []byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(fd), &unix.SockaddrUnix{Name: s.Socket}, 0)
	if err != nil {
		return fmt.Errorf("service manager: cannot keep %s: %w", name, err)
	}
	return nil
}
