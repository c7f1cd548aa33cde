package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/spf13/cobra"
)

func (c *cli) fmtCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt BLUEPRINT...",
		Short: "Lay blueprints out in the usual way",
		Long: `fmt rewrites blueprints in the usual layout and prints the names of those that
it changed. With - it formats standard input.`,
		ValidArgsFunction: completeBlueprint,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("cannot format nothing: name a blueprint, or - for standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			changed := false
			for _, path := range args {
				if path == "-" {
					if err := c.formatInput(); err != nil {
						return err
					}
					continue
				}
				differs, err := c.formatFile(path, !check)
				if err != nil {
					return err
				}
				changed = changed || differs
			}
			if check && changed {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "only print names; fail if there are any")
	return cmd
}

func (c *cli) formatInput() error {
	src, err := io.ReadAll(io.LimitReader(c.stdin, maxBlueprint))
	if err != nil {
		return fmt.Errorf("cannot read standard input: %w", err)
	}
	out, err := c.format("<stdin>", src)
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(out)
	return err
}

func (c *cli) formatFile(path string, write bool) (changed bool, err error) {
	src, err := readBounded(path)
	if err != nil {
		return false, usageError{err}
	}
	out, err := c.format(path, src)
	if err != nil || bytes.Equal(src, out) {
		return false, err
	}
	fmt.Fprintln(c.stdout, path)
	if !write {
		return true, nil
	}
	return true, replaceFile(path, out)
}

func (c *cli) format(path string, src []byte) ([]byte, error) {
	out, diags := blueprint.Format(path, src)
	if diags.HasErrors() {
		c.printDiagnostics(map[string]*hcl.File{path: {Bytes: src}}, diags)
		return nil, usageError{errReported}
	}
	return out, nil
}

// replaceFile writes beside the file first, so that there is always a whole one.
func replaceFile(path string, data []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot write: %w", err), os.Remove(f.Name()))
	}
	return nil
}
