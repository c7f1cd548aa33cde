package displayd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// i2cSlave chooses the device that a bus is used for (linux/i2c-dev.h).
const i2cSlave = 0x0703

type i2cDevice struct{ file *os.File }

// OpenI2C opens a device of a bus. The controller's name in the device tree
// comes first: Debian's trees number no buses, so their numbers depend on the
// order in which the kernel finds them.
func OpenI2C(d Display) (Bus, error) {
	name := fmt.Sprintf("/dev/i2c-%d", d.Bus)
	if d.Controller != "" {
		nodes, err := filepath.Glob("/sys/class/i2c-dev/i2c-*/device/of_node")
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(nodes, func(n string) bool {
			target, err := os.Readlink(n)
			return err == nil && filepath.Base(target) == d.Controller
		})
		if i < 0 {
			return nil, fmt.Errorf("I2C bus %d (%s): cannot find it", d.Bus, d.Controller)
		}
		name = "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(nodes[i])))
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), i2cSlave, d.Address); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: cannot use address 0x%02x: %w", name, d.Address, err)
	}
	return i2cDevice{f}, nil
}

func (d i2cDevice) Write(p []byte) error { _, err := d.file.Write(p); return err }
func (d i2cDevice) Read(p []byte) error  { _, err := io.ReadFull(d.file, p); return err }
func (d i2cDevice) Close() error         { return d.file.Close() }

// Where the console's display lies: logging in is on the others.
const (
	consoleNumber = 8
	vtActivate    = 0x5606 // linux/vt.h
)

// OpenConsole opens the display's virtual console and brings it to the front.
func OpenConsole() (io.WriteCloser, error) {
	f, err := os.OpenFile(fmt.Sprintf("/dev/tty%d", consoleNumber), os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), vtActivate, consoleNumber); err != nil {
		f.Close()
		return nil, fmt.Errorf("/dev/tty%d: cannot bring it to the front: %w", consoleNumber, err)
	}
	return f, nil
}
