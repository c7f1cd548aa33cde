// Package gomodule compiles programs from published Go modules. The go command
// verifies every module against the checksum database or, for what the module
// itself pins, against its own go.sum; with -trimpath and no build id the same
// module and Go version give the same program on every host.
//
// It exists for machines that reach a module proxy but no release server, and
// for programs that are published as modules only.
//
// Not supported: modules that need cgo.
package gomodule

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// Module is what to compile.
type Module struct {
	Path    string
	Version string // "v1.34.4"
	// Staging is the version under which the parts are published that the
	// module's own go.mod replaces by folders ("v0.34.4" of Kubernetes);
	// empty: there are none that matter.
	Staging  string
	Programs map[string]string // package by the program's name
	LDFlags  string            // besides -s -w
}

// Compiler runs the go command.
type Compiler struct {
	Env     []string // of the go command: PATH, HOME, GOPROXY, GOCACHE …
	Cache   string   // where programs are kept
	Offline bool     // take modules from the module cache alone
	// Phase begins something that takes time, of total steps, 0 if unknown;
	// nil: nobody wants to know.
	Phase func(name string, total int64) (advance func(n int64), end func())
}

// Result is what came of a module.
type Result struct {
	Programs map[string]string // file by the program's name
	Sum      string            // the module's checksum as in go.sum ("h1:…")
	Go       string            // version that compiled it
}

// target is how Go names a Debian architecture.
func target(arch string) ([]string, error) {
	switch arch {
	case "arm64":
		return []string{"GOARCH=arm64", "GOARM64=v8.0"}, nil
	case "armhf":
		return []string{"GOARCH=arm", "GOARM=7"}, nil
	case "amd64":
		return []string{"GOARCH=amd64", "GOAMD64=v1"}, nil
	}
	return nil, fmt.Errorf("cannot compile for architecture %s", arch)
}

// Source is a module as the module cache holds it.
type Source struct {
	Dir   string
	GoMod string
	Zip   string // as it was downloaded
	Sum   string // checksum as in go.sum ("h1:…")
	Error string
}

// Download brings a module into Go's module cache and returns where it lies.
func (c Compiler) Download(ctx context.Context, path, version string) (Source, error) {
	var src Source
	out, err := c.run(ctx, os.TempDir(), nil, nil, "mod", "download", "-json", path+"@"+version)
	if jerr := json.Unmarshal(out, &src); jerr == nil && src.Error != "" {
		err = errors.New(src.Error)
	}
	if err != nil {
		return Source{}, fmt.Errorf("module %s: cannot get version %s: %w", path, version, err)
	}
	return src, nil
}

// Versions returns the module's published versions, ascending.
func (c Compiler) Versions(ctx context.Context, path string) ([]string, error) {
	out, err := c.run(ctx, os.TempDir(), nil, nil, "list", "-m", "-versions", "-json", path+"@latest")
	if err != nil {
		return nil, fmt.Errorf("module %s: cannot list its versions: %w", path, err)
	}
	var m struct{ Versions []string }
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, fmt.Errorf("module %s: cannot list its versions: %w", path, err)
	}
	return m.Versions, nil
}

// Build compiles a module's programs, or takes them from the cache. Work that
// is cut off is not lost: the go command keeps every package it finished.
func (c Compiler) Build(ctx context.Context, m Module, arch string) (Result, error) {
	env, err := target(arch)
	if err != nil {
		return Result{}, fmt.Errorf("module %s: %w", m.Path, err)
	}
	goVersion, err := c.GoVersion(ctx)
	if err != nil {
		return Result{}, err
	}
	text, err := json.Marshal([]any{m, arch, goVersion})
	if err != nil {
		return Result{}, err
	}
	dir := filepath.Join(c.Cache, fmt.Sprintf("%x", sha256.Sum256(text)))
	if r, err := open(dir, m); err == nil {
		return r, nil
	}
	if err := c.build(ctx, m, env, goVersion, dir); err != nil {
		return Result{}, fmt.Errorf("module %s %s: %w", m.Path, m.Version, err)
	}
	return open(dir, m)
}

const metaFile = "module.json"

func open(dir string, m Module) (Result, error) {
	data, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return Result{}, err
	}
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return Result{}, err
	}
	r.Programs = map[string]string{}
	for name := range m.Programs {
		r.Programs[name] = filepath.Join(dir, name)
		if _, err := os.Stat(r.Programs[name]); err != nil {
			return Result{}, err
		}
	}
	return r, nil
}

func (c Compiler) build(ctx context.Context, m Module, env []string, goVersion, dir string) error {
	src, err := c.Download(ctx, m.Path, m.Version)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Cache, 0o700); err != nil {
		return err
	}
	work, err := os.MkdirTemp(c.Cache, ".compile-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := m.writeModule(src, work); err != nil {
		return err
	}
	env = append(env, "GOOS=linux", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOWORK=off", "GOEXPERIMENT=", "GODEBUG=")
	if err := c.get(ctx, m, work, env); err != nil {
		return fmt.Errorf("cannot get what it needs: %w", err)
	}
	out := filepath.Join(work, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		return err
	}
	if err := c.compile(ctx, m, work, out, env); err != nil {
		return err
	}
	meta, err := json.Marshal(Result{Sum: src.Sum, Go: goVersion})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, metaFile), meta, 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(out, dir)
}

// get downloads the modules that m's programs are made of.
func (c Compiler) get(ctx context.Context, m Module, work string, env []string) error {
	args := []string{"get"}
	for _, p := range slices.Sorted(maps.Values(m.Programs)) {
		args = append(args, p+"@"+m.Version)
	}
	advance, end := c.phase("get "+m.Path, 0)
	defer end()
	_, err := c.run(ctx, work, env, func(line string) {
		if strings.HasPrefix(line, "go: downloading ") {
			advance(1)
		}
	}, args...)
	return err
}

// linking is what one program's linking costs, in packages: with it, the time
// left is about right.
const linking = 50

// compile compiles m's programs into out, one after the other: linking one of
// Kubernetes' takes up to two gigabytes of memory.
func (c Compiler) compile(ctx context.Context, m Module, work, out string, env []string) error {
	flags := []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid= " + m.LDFlags}
	list := append(append([]string{"list", "-deps", "-f={{.Stale}}"}, flags...), slices.Sorted(maps.Values(m.Programs))...)
	stale, err := c.run(ctx, work, env, nil, list...)
	if err != nil {
		return fmt.Errorf("cannot list its packages: %w", err)
	}
	advance, end := c.phase("compile "+m.Path, int64(bytes.Count(stale, []byte("true"))+linking*len(m.Programs)))
	defer end()
	for _, name := range slices.Sorted(maps.Keys(m.Programs)) {
		pkg := m.Programs[name]
		args := append(append([]string{"build", "-v"}, flags...), "-o", filepath.Join(out, name), pkg)
		_, err := c.run(ctx, work, env, func(line string) {
			if !strings.ContainsAny(line, " \t") { // a package; all else are messages
				advance(1)
			}
		}, args...)
		if err != nil {
			return fmt.Errorf("cannot compile %s: %w", pkg, err)
		}
		advance(linking)
	}
	return nil
}

func (c Compiler) phase(name string, total int64) (func(int64), func()) {
	if c.Phase == nil {
		return func(int64) {}, func() {}
	}
	return c.Phase(name, total)
}

// writeModule makes the module that the compilation runs in: it requires m and
// replaces what m replaces by folders with the versions published of them.
func (m Module) writeModule(src Source, dir string) error {
	data, err := os.ReadFile(src.GoMod)
	if err != nil {
		return err
	}
	theirs, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return err
	}
	ours := &modfile.File{}
	if err := ours.AddModuleStmt("picube.invalid/compile"); err != nil {
		return err
	}
	// The language version decides about defaults of the runtime, which are
	// the module's to choose.
	if theirs.Go != nil {
		if err := ours.AddGoStmt(theirs.Go.Version); err != nil {
			return err
		}
	}
	if err := ours.AddRequire(m.Path, m.Version); err != nil {
		return err
	}
	if m.Staging != "" {
		full, err := modfile.Parse("go.mod", data, nil)
		if err != nil {
			return err
		}
		for _, r := range full.Replace {
			if r.New.Version == "" && strings.HasPrefix(r.New.Path, ".") {
				if err := ours.AddReplace(r.Old.Path, "", r.Old.Path, m.Staging); err != nil {
					return err
				}
			}
		}
	}
	text, err := ours.Format()
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(src.Dir, "go.sum"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "go.mod"), text, 0o600),
		os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600),
	)
}

// environ is the go command's environment: the host's without what would
// change the result, and the given settings.
func (c Compiler) environ(extra []string) []string {
	var env []string
	for _, e := range c.Env {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "GOOS", "GOARCH", "GOARM", "GOARM64", "GOAMD64", "GOFLAGS", "GOEXPERIMENT", "GODEBUG", "CGO_ENABLED", "GOWORK":
			continue
		}
		env = append(env, e)
	}
	if c.Offline {
		env = append(env, "GOPROXY=off", "GOSUMDB=off")
	}
	// A module outside any other: the folder's own go.mod must not matter.
	env = append(env, "GO111MODULE=on")
	return append(env, extra...)
}

// run runs the go command and returns its output; each is told of every line
// that it prints besides, and may be nil.
func (c Compiler) run(ctx context.Context, dir string, env []string, each func(line string), args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, c.environ(env)
	stderr := lines{each: each}
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return out, explain(ctx, err, stderr.text.Bytes())
}

// lines keeps what is written to it and tells of every complete line.
type lines struct {
	text bytes.Buffer
	told int // bytes of it
	each func(line string)
}

func (l *lines) Write(p []byte) (int, error) {
	l.text.Write(p)
	for l.each != nil {
		line, _, complete := bytes.Cut(l.text.Bytes()[l.told:], []byte("\n"))
		if !complete {
			break
		}
		l.told += len(line) + 1
		l.each(string(line))
	}
	return len(p), nil
}

// explain adds the last lines of what the go command said.
func explain(ctx context.Context, err error, stderr []byte) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("cannot run the go command: %w; install Go or choose another source", err)
	}
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	return fmt.Errorf("%w: %s", err, strings.Join(lines[max(0, len(lines)-5):], "; "))
}

// GoVersion returns the version of the go command.
func (c Compiler) GoVersion(ctx context.Context) (string, error) {
	out, err := c.run(ctx, os.TempDir(), nil, nil, "env", "GOVERSION")
	if err != nil {
		return "", fmt.Errorf("cannot ask for the Go version: %w", err)
	}
	version := strings.TrimSpace(string(out))
	if version == "" {
		version = runtime.Version()
	}
	return version, nil
}
