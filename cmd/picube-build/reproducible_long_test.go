//go:build long

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

// temporary is what os.CreateTemp makes of the builder's patterns.
var temporary = regexp.MustCompile(`^\..*-[0-9]+$`)

// digests returns the SHA-256 of every image below a folder, by name, and
// fails for anything that an interrupted build left there.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if temporary.MatchString(e.Name()) {
			t.Errorf("%s: left behind", filepath.Join(dir, e.Name()))
		}
		if filepath.Ext(e.Name()) != ".img" {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = fmt.Sprintf("%x", h.Sum(nil))
	}
	return sums
}

// copyFile copies a small file, making the folder.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSameBytes builds the five cards twice from one lock and identity: at
// different times, in different folders, with caches that know nothing of each
// other, and the second time cut off again and again before it may finish.
func TestSameBytes(t *testing.T) {
	first := buildCards(t, "picube.hcl")
	want := digests(t, first.dir)
	if len(want) != 5 {
		t.Fatalf("%d images", len(want))
	}
	dir := t.TempDir()
	work := filepath.Dir(filepath.Dir(first.dir))
	for _, name := range []string{"picube.hcl", "picube.lock.hcl", "picube.secrets/picube.seed"} {
		copyFile(t, filepath.Join(work, name), filepath.Join(dir, "elsewhere", name))
	}
	c, _ := testCLI(t)
	downloads := filepath.Join(c.env["XDG_CACHE_HOME"], "picube", "downloads")
	c.env["XDG_CACHE_HOME"] = filepath.Join(dir, "cache")
	cache := filepath.Join(dir, "cache", "picube")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(downloads, filepath.Join(cache, "downloads")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	args := []string{"build", "-o", out, filepath.Join(dir, "elsewhere", "picube.hcl")}
	for limit := 2 * time.Second; ; limit += limit / 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		code := run(ctx, args, c)
		cut := ctx.Err() != nil
		cancel()
		t.Logf("after %v: exit code %d", limit, code)
		if code == exitDone {
			break
		}
		if !cut {
			t.Fatalf("exit code %d without having been cut off", code)
		}
	}
	got := digests(t, filepath.Join(out, "picube"))
	if !maps.Equal(got, want) {
		t.Errorf("images differ:\n%v\nwant:\n%v", got, want)
	}
	sums := slices.Sorted(maps.Values(got))
	if len(slices.Compact(sums)) != 5 {
		t.Errorf("cards of different nodes are the same: %v", got)
	}
}
