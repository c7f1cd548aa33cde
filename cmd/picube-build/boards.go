package main

import (
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/firmware"
)

// boards is what blueprints must know of firmware's table.
func boards() []blueprint.Board {
	var list []blueprint.Board
	for _, b := range firmware.Boards() {
		known := blueprint.Board{
			Name: b.Name, Arch: b.Arch, WiFi: b.WiFi != "", NotOnDebian: b.NotOnDebian, NotOnRaspios: b.NotOnRaspios(), FanHeader: b.Header.Fan,
			Pins: b.Header.Pins, Taken: b.Header.Taken, PWM: map[int]int{}, I2C: map[int][2]int{},
		}
		for pin, pwm := range b.Header.PWM {
			known.PWM[pin] = pwm.Channel
		}
		for number, bus := range b.Header.I2C {
			known.I2C[number] = [2]int{bus.SDA, bus.SCL}
		}
		list = append(list, known)
	}
	return list
}
