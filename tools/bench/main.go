//go:build unix

// Bench builds the PiCube in the states that a user meets and prints how long
// that takes, as a table in Markdown: medians of several runs. Beside each
// stands cp of the same images, right after the build, since what both wait for
// is mostly the disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var b bench
	only := flag.String("states", "", "comma-separated beginnings of the states' names; empty: all")
	flag.IntVar(&b.runs, "runs", 5, "how often each state is built")
	flag.StringVar(&b.dir, "dir", filepath.Join("out", "bench"), "folder for everything that is made: 40 GB for all states")
	flag.Parse()
	if err := b.run(strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	dir   string
	runs  int
	cache string // the cache of the builds that are measured
}

// cube is a blueprint of cubes that are alike.
type cube struct {
	cubes, nodes, renamed int
	packages              string
}

// text is the blueprint.
func (c cube) text() string {
	var b strings.Builder
	for i := range c.cubes {
		fmt.Fprintf(&b, `cube "cube%d" {
  cluster  = "bench"
  nodes    = %d
  hostname = node.number == 1 ? "first%d-%d" : "pi%d-${node.number}"
  board    = "rpi3"
  packages = ["htop", "sysbench"%s]
}
`, i, c.nodes, c.renamed, i, i, c.packages)
	}
	return b.String()
}

// state is what lies there before a build, and what is built.
type state struct {
	name    string
	before  *cube    // is built first; nil: nothing
	without []string // folders of the cache that are removed then
	images  bool     // whether the images stay
	build   cube
}

func states() []state {
	five := cube{cubes: 1, nodes: 5}
	renamed, more, six := five, five, five
	renamed.renamed, more.packages, six.nodes = 1, `, "tree"`, 6
	return []state{
		{"cold: all but the .debs", nil, []string{"packages", "depmod", "roots"}, false, five},
		{"images missing", &five, nil, false, five},
		{"nothing changed", &five, nil, true, five},
		{"one host name changed", &five, nil, true, renamed},
		{"one package added", &five, []string{"roots"}, true, more},
		{"one node more", &five, nil, true, six},
		{"32 nodes in 8 cubes", nil, nil, false, cube{cubes: 8, nodes: 4}},
	}
}

func (b *bench) run(only []string) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	b.dir, err = filepath.Abs(b.dir)
	if err != nil {
		return err
	}
	b.cache = filepath.Join(b.dir, "cache", "picube")
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return err
	}
	for _, shared := range []string{"downloads", "programs"} { // downloaded and compiled once
		from := filepath.Join(cache, "picube", shared)
		if err := os.MkdirAll(from, 0o700); err != nil {
			return err
		}
		if err := os.Symlink(from, filepath.Join(b.cache, shared)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if out, err := exec.Command("go", "build", "-o", b.path("picube-build"), "./cmd/picube-build").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	fmt.Printf("%d processors (%s), %s, files on %s; medians of %d runs.\n\n", runtime.NumCPU(), runtime.GOARCH, memory(), fileSystem(b.dir), b.runs)
	fmt.Println("| state | build | CPU | peak memory | written | `cp` | `cp`, on the disk |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for _, s := range states() {
		if !slices.ContainsFunc(only, func(o string) bool { return strings.HasPrefix(s.name, o) }) {
			continue
		}
		m, err := b.measure(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Printf("| %s | %s | %.1f s | %d MiB | %.2f GB | %s | %s |\n", s.name, seconds(m.wall), m.cpu.Seconds(),
			m.memory>>20, float64(m.written)/1e9, seconds(m.copied), seconds(m.synced))
	}
	return nil
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// usage is what a run took.
type usage struct {
	wall, cpu       time.Duration
	memory, written int64         // bytes
	copied, synced  time.Duration // cp of the images; and until they are on the disk
}

// measure returns the medians of a state's runs.
func (b *bench) measure(s state) (usage, error) {
	var all []usage
	for range b.runs {
		if err := b.prepare(s); err != nil {
			return usage{}, err
		}
		u, err := b.build(s.build)
		if err == nil {
			err = b.copyImages(&u)
		}
		if err != nil {
			return usage{}, err
		}
		all = append(all, u)
	}
	return usage{
		wall: median(all, func(u usage) time.Duration { return u.wall }), cpu: median(all, func(u usage) time.Duration { return u.cpu }),
		memory:  median(all, func(u usage) int64 { return u.memory }),
		written: median(all, func(u usage) int64 { return u.written }),
		copied:  median(all, func(u usage) time.Duration { return u.copied }), synced: median(all, func(u usage) time.Duration { return u.synced }),
	}, os.RemoveAll(b.path("cards"))
}

func median[T int64 | time.Duration](all []usage, of func(usage) T) T {
	var values []T
	for _, u := range all {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// prepare brings about the state. The blueprint's lock is always there.
func (b *bench) prepare(s state) error {
	if err := os.RemoveAll(b.path("cards")); err != nil { // those of the last run, too
		return err
	}
	if s.before != nil {
		if _, err := b.build(*s.before); err != nil {
			return err
		}
	}
	if _, err := b.command("plan", s.build); err != nil {
		return err
	}
	var errs []error
	for _, name := range s.without {
		errs = append(errs, os.RemoveAll(filepath.Join(b.cache, name)))
	}
	if !s.images {
		errs = append(errs, os.RemoveAll(b.path("cards")))
	}
	syscall.Sync()
	return errors.Join(errs...)
}

func (b *bench) build(c cube) (usage, error) { return b.command("build", c, "-o", b.path("cards")) }

// command runs a verb over a blueprint. Blueprints that ask for the same
// packages share a lock and an identity.
func (b *bench) command(verb string, c cube, flags ...string) (usage, error) {
	folder := b.path(fmt.Sprintf("blueprint-%d-%d", c.cubes, len(c.packages)))
	file := filepath.Join(folder, "bench.hcl")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(file, []byte(c.text()), 0o644)); err != nil {
		return usage{}, err
	}
	cmd := exec.CommandContext(context.Background(), b.path("picube-build"), slices.Concat([]string{verb}, flags, []string{file})...)
	goCache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return usage{}, err
	}
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Dir(b.cache), "GOCACHE="+strings.TrimSpace(string(goCache)))
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return usage{}, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	u := usage{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.memory, u.written = r.Maxrss<<10, r.Oublock*512 // KiB and sectors on Linux (getrusage(2))
	}
	return u, nil
}

// copyImages times cp of every image, each to the same place, so that the disk
// need not hold all of them twice.
func (b *bench) copyImages(u *usage) error {
	images, err := filepath.Glob(b.path("cards/*/*.img"))
	if err != nil {
		return err
	}
	to := b.path("copy.img")
	defer os.Remove(to)
	for _, img := range images {
		if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		syscall.Sync()
		start := time.Now()
		if out, err := exec.Command("cp", img, to).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w\n%s", err, out)
		}
		u.copied += time.Since(start)
		f, err := os.Open(to)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		u.synced += time.Since(start)
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// memory is the machine's, as far as Linux tells.
func memory() string {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return "memory unknown"
	}
	defer f.Close()
	var kib int64
	if _, err := fmt.Fscanf(io.LimitReader(f, 100), "MemTotal: %d kB", &kib); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GiB of memory", float64(kib)/(1<<20))
}

func fileSystem(dir string) string {
	out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	if err != nil {
		return "an unknown file system"
	}
	return strings.TrimSpace(string(out))
}
