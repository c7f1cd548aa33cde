//go:build !linux

package device

import "fmt"

// Open refuses: devices are written on Linux only.
func (h Host) Open(path string, o Options) (*Target, error) {
	return nil, fmt.Errorf("%s: cannot write to devices on this system yet; "+
		"use Raspberry Pi Imager, which opens the .rpi-imager-manifest beside the images, or balenaEtcher", path)
}
