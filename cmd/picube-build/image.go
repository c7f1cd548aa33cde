package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// imageArgs is the argument check of verbs about an image.
func imageArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return usagef("cannot %s %d arguments; usage: %s", cmd.Name(), len(args), cmd.UseLine())
		}
		return nil
	}
}

func completeImage(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"img"}, cobra.ShellCompDirectiveFilterFileExt
}

// openImage opens an image, or the device of a card, and finds its length.
func openImage(path string) (*os.File, int64, error) {
	switch filepath.Ext(path) {
	case ".xz", ".gz", ".zst", ".bz2", ".zip":
		return nil, 0, usagef("cannot read %s: it is compressed; unpack it first", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, usageError{fmt.Errorf("cannot read %s: %w", path, cause(err))}
	}
	size, err := f.Seek(0, 2) // a device's Stat says 0
	if err != nil {
		f.Close()
		return nil, 0, usageError{fmt.Errorf("cannot read %s: %w", path, cause(err))}
	}
	return f, size, nil
}
