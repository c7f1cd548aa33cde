package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/source"
)

// spare protects what a build that runs now may be about to use.
const spare = time.Hour

// Defaults of cache prune.
const (
	pruneAge  = 30 * 24 * time.Hour
	pruneSize = 10.0 // GB
)

func (c *cli) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "List or prune what builds keep for the next one",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.cacheListCommand(), c.cachePruneCommand())
	return cmd
}

// cacheKind sums up a folder of the cache.
type cacheKind struct {
	Name   string    `json:"name"` // downloads, packages, roots, programs
	Files  int       `json:"files"`
	Size   int64     `json:"size"`
	Oldest time.Time `json:"oldest"` // of the last uses
}

func (c *cli) cacheListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show what the cache holds",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := c.cacheDir()
			if err != nil {
				return err
			}
			entries, err := source.List(dir)
			if err != nil {
				return fmt.Errorf("cache %s: cannot list it: %w", dir, err)
			}
			kinds := cacheKinds(dir, entries)
			if c.json {
				return c.printJSON(map[string]any{"folder": dir, "kinds": kinds})
			}
			fmt.Fprintln(c.stdout, dir)
			t := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
			for _, k := range kinds {
				fmt.Fprintf(t, "  %s\t%d files\t%s\tunused since %s\n", k.Name, k.Files, megabytes(k.Size), k.Oldest.UTC().Format(time.DateOnly))
			}
			return t.Flush()
		},
	}
}

// cacheKinds groups a cache's entries by folder, the longest unused first.
func cacheKinds(dir string, entries []source.Entry) []*cacheKind {
	kinds := []*cacheKind{}
	byName := map[string]*cacheKind{}
	for _, e := range entries {
		name := cacheFolder(dir, e.Path)
		k := byName[name]
		if k == nil {
			k = &cacheKind{Name: name, Oldest: e.Used}
			byName[name] = k
			kinds = append(kinds, k)
		}
		k.Files++
		k.Size += e.Size
	}
	return kinds
}

func cacheFolder(dir, path string) string {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	folder, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
	return folder
}

func (c *cli) cachePruneCommand() *cobra.Command {
	age, size := pruneAge, pruneSize
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove what was not used for long",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := c.cacheDir()
			if err != nil {
				return err
			}
			policy := source.Policy{MaxAge: age, MaxSize: int64(size * 1e9), Spare: min(spare, age)}
			removed, err := source.Prune(dir, policy, time.Now())
			err = errors.Join(err, removeBrokenRoots(dir, removed))
			if err != nil {
				return fmt.Errorf("cache %s: cannot prune it: %w", dir, err)
			}
			var total int64
			for _, e := range removed {
				total += e.Size
			}
			if c.json {
				return c.printJSON(map[string]any{"folder": dir, "files": len(removed), "size": total})
			}
			fmt.Fprintf(c.stdout, "removed %d files, %s\n", len(removed), megabytes(total))
			return nil
		},
	}
	cmd.Flags().DurationVar(&age, "older-than", age, "remove what was not used for this `time`")
	cmd.Flags().Float64Var(&size, "max-size", size, "keep at most so many `gigabytes`")
	return cmd
}

// removeBrokenRoots removes the rest of root file systems that lost a file:
// they are of use only whole.
func removeBrokenRoots(dir string, removed []source.Entry) error {
	var errs []error
	for _, e := range removed {
		if cacheFolder(dir, e.Path) == "roots" && filepath.Dir(e.Path) != filepath.Join(dir, "roots") {
			errs = append(errs, os.RemoveAll(filepath.Dir(e.Path)))
		}
	}
	return errors.Join(errs...)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
