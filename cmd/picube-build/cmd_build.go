package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/program"
	"github.com/picube/picube-build/builder/report"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers"
)

// buildFlags are the flags of the verbs that build or lock.
type buildFlags struct {
	vars  variableFlags
	out   string
	nodes []string
	// compress is how images are packed, as the user said it.
	compress string
	// trace is a file for where the time goes; empty: none.
	trace string
}

func (f *buildFlags) add(cmd *cobra.Command) {
	f.vars.add(cmd)
	cmd.Flags().StringVarP(&f.out, "output", "o", "out", "`folder` for the cards")
	cmd.Flags().StringSliceVar(&f.nodes, "node", nil, "build only the cards of these nodes, by host `name`")
}

func (c *cli) buildCommand() *cobra.Command {
	var flags buildFlags
	cmd := &cobra.Command{
		Use:               "build BLUEPRINT",
		Short:             "Build the cards (the default)",
		Example:           "  picube-build blueprints/picube.hcl\n  picube-build --node rpi3 -o /tmp/cards blueprints/picube.hcl",
		Args:              oneBlueprint,
		ValidArgsFunction: completeBlueprint,
		RunE: func(cmd *cobra.Command, args []string) error {
			bp, err := c.load(args[0], flags.vars)
			if err != nil {
				return err
			}
			return c.build(cmd.Context(), bp, flags)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&flags.compress, "compress", "",
		"pack the images as `xz`, gz or zst (balenaEtcher refuses .zst)")
	cmd.Flags().StringVar(&flags.trace, "trace", "",
		"write to `file` where the time goes, for ui.perfetto.dev or chrome://tracing")
	return cmd
}

func (c *cli) build(ctx context.Context, bp *blueprint.Blueprint, flags buildFlags) (err error) {
	var trace *report.Trace
	if flags.trace != "" {
		trace = report.NewTrace(time.Now, usage)
		defer func() { err = errors.Join(err, writeTrace(flags.trace, trace)) }()
	}
	reporter := c.tracedReporter(trace)
	b, err := c.builder(bp, flags, reporter)
	if err != nil {
		return err
	}
	res, err := b.Build(ctx)
	reporter.Close()
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(res)
	}
	for _, cube := range res.Cubes {
		for _, card := range cube.Cards {
			fmt.Fprintln(c.stdout, relative(card.Image))
			for _, p := range card.Unpacked {
				fmt.Fprintf(c.stderr, "node %s: package %s is configured by the first boot\n", card.Node, p)
			}
		}
	}
	return nil
}

func writeTrace(name string, trace *report.Trace) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = trace.WriteTo(f)
	return errors.Join(err, f.Close())
}

// relative shortens a path for a person who is in the working directory.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}

// builder wires the host to a builder.
func (c *cli) builder(bp *blueprint.Blueprint, flags buildFlags, reporter builder.Reporter) (*builder.Builder, error) {
	cache, err := c.cacheDir()
	if err != nil {
		return nil, err
	}
	id, err := buildID()
	if err != nil {
		return nil, err
	}
	stem := strings.TrimSuffix(bp.Path, filepath.Ext(bp.Path))
	source := program.Source{Dir: sourceDir(), Env: os.Environ(), Cache: filepath.Join(cache, "programs")}
	identities := secrets.Open(stem+".secrets", rand.Reader)
	format, err := compress.Parse(flags.compress)
	if err != nil {
		return nil, usageError{err}
	}
	return builder.New(builder.Config{
		Blueprint: bp,
		Compress:  format,
		Version:   version(),
		Layers:    layers.All(layers.Options{Kubernetes: c.kubernetes(bp, cache, source, identities, reporter)}),
		Out:       flags.out,
		Cache:     cache,
		Lock:      stem + ".lock.hcl",
		Secrets:   identities,
		Program:   source.Node,
		BuildID:   id,
		Nodes:     flags.nodes,
		Offline:   c.offline,
		Now:       time.Now,
		Report:    reporter,
		Mirrors:   archive.HostMirrors(os.DirFS("/etc/apt")),
	})
}

// cacheDir is where everything lies that may be deleted.
func (c *cli) cacheDir() (string, error) {
	if dir := c.env["XDG_CACHE_HOME"]; dir != "" {
		return filepath.Join(dir, "picube"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a folder for the cache: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "picube"), nil
}

// buildID stands for this program: what another version made is made again.
func buildID() (_ string, err error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sourceDir is the checkout that this program was compiled from, as far as the
// compiler noted it.
func sourceDir() string {
	_, file, _, ok := runtime.Caller(0)
	if ok && filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "..", "..")
	}
	return "."
}
