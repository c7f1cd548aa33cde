package main

import (
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/firmware"
)

// boards is what blueprints must know of firmware's table.
func boards() []blueprint.Board {
	var list []blueprint.Board
	for _, b := range firmware.Boards() {
		list = append(list, blueprint.Board{Name: b.Name, Arch: b.Arch, WiFi: b.WiFi != ""})
	}
	return list
}
