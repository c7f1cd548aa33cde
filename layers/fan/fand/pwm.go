package fand

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// period is that of 25 kHz, which nobody hears, and what four-wire fans are
// made for (Intel's 4-Wire PWM Controlled Fans specification, 2.1.4).
const period = 40_000 // ns

// PWM is a channel of a PWM controller in sysfs
// (Documentation/driver-api/pwm.rst). It keeps its speed when the daemon dies.
type PWM struct{ dir string }

// OpenPWM takes a channel of the controller that is that node of the device
// tree. sysfs is "/sys" on a node.
func OpenPWM(sysfs, device string, channel int) (*PWM, error) {
	chips, err := filepath.Glob(filepath.Join(sysfs, "class/pwm/pwmchip*"))
	if err != nil {
		return nil, err
	}
	for _, chip := range chips {
		node, err := os.Readlink(filepath.Join(chip, "device/of_node"))
		if err != nil || filepath.Base(node) != device {
			continue
		}
		p := &PWM{filepath.Join(chip, fmt.Sprintf("pwm%d", channel))}
		return p, p.prepare(chip, channel)
	}
	return nil, fmt.Errorf("PWM controller %s: cannot find it", device)
}

func (p *PWM) prepare(chip string, channel int) error {
	if _, err := os.Stat(p.dir); errors.Is(err, os.ErrNotExist) {
		if err := write(filepath.Join(chip, "export"), channel); err != nil {
			return err
		}
	}
	// The duty cycle first: it may not exceed the period.
	if was, err := os.ReadFile(filepath.Join(p.dir, "period")); err == nil && string(was) == strconv.Itoa(period)+"\n" {
		return nil
	}
	return errors.Join(p.set("duty_cycle", 0), p.set("period", period))
}

// Set sets the speed, 0 to 1.
func (p *PWM) Set(duty float64) error {
	if err := p.set("duty_cycle", int(duty*period)); err != nil {
		return err
	}
	return p.set("enable", 1)
}

func (p *PWM) set(name string, v int) error { return write(filepath.Join(p.dir, name), v) }

func write(name string, v int) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(v))
	return errors.Join(err, f.Close())
}

// pulsesPerTurn of nearly all fans with a tachometer.
const pulsesPerTurn = 2

// rpm is the speed that so many pulses in that time mean.
func rpm(pulses uint64, elapsed time.Duration) int {
	return int(float64(pulses) / pulsesPerTurn / elapsed.Minutes())
}
