//go:build linux

// Command init is the initramfs' init of the boot test: bootd with an
// identity that shows what it was given.
package main

import (
	"os"
	"path/filepath"

	"github.com/picube/picube-build/layers/boot/bootd"
)

func main() {
	bootd.Main(func(root, boot string) error {
		name, err := os.ReadFile(filepath.Join(boot, "picube", "hostname"))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, "etc", "hostname"), name, 0o644)
	})
}
