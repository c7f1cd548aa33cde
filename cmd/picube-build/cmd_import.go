package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/hypriot"
)

func (c *cli) importCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Make a blueprint of HypriotOS' settings",
		Long: `import reads the device-init.yaml or user-data of a HypriotOS card and writes
a blueprint, beside it the secrets as a file of variables, and tells what a
blueprint has nothing like. It replaces no file.`,
		Example: "  picube-build import device-init.yaml\n  picube-build import user-data -o home.hcl",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("cannot import %d files; try: picube-build import device-init.yaml", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := readBounded(args[0])
			if err != nil {
				return usageError{err}
			}
			result, err := hypriot.Import(text)
			if err != nil {
				return usagef("%s: %w", args[0], err)
			}
			if out == "" {
				base := filepath.Base(args[0])
				out = filepath.Join(filepath.Dir(args[0]), strings.TrimSuffix(base, filepath.Ext(base))+".hcl")
			}
			return c.writeImported(out, result)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the blueprint's `file` (default: FILE with the ending .hcl)")
	return cmd
}

func (c *cli) writeImported(out string, result hypriot.Result) error {
	vars := ""
	if len(result.Variables) > 0 {
		vars = strings.TrimSuffix(out, ".hcl") + ".vars"
		if err := createNew(vars, result.Variables, 0o600); err != nil {
			return err
		}
	}
	if err := createNew(out, result.Blueprint, 0o644); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]any{"blueprint": out, "variables": vars, "notes": append([]string{}, result.Notes...)})
	}
	for _, n := range result.Notes {
		fmt.Fprintf(c.stderr, "not taken over: %s\n", n)
	}
	build := "picube-build " + out
	if vars != "" {
		build += " -var-file " + vars
	}
	fmt.Fprintf(c.stdout, "%s\nLook it through, then: %s\n", out, build)
	return nil
}

// createNew writes a file that must not be there yet.
func createNew(name string, data []byte, perm fs.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return usagef("cannot write %s: %w", name, cause(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.Write(data)
	return err
}
