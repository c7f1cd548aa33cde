package main

import "github.com/picube/picube-build/builder/blueprint"

// boards is what blueprints must know of firmware's table.
func boards() []blueprint.Board {
	return []blueprint.Board{
		{Name: "rpi3", Arch: "arm64", WiFi: true},
		{Name: "zero2w", Arch: "arm64", WiFi: true},
		{Name: "rpi4", Arch: "arm64", WiFi: true},
		{Name: "cm4", Arch: "arm64", WiFi: true},
		{Name: "virt", Arch: "arm64"},
	}
}

// blueprintLayers are the layers that blueprints have blocks for.
func blueprintLayers() []string { return nil }
