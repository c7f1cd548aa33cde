// Package program provides the programs of this module that run on cards:
// picube-node, and what images are made of. A release carries them; a
// picube-build made from source compiles them from the same module, which
// needs nothing but the go command that is there anyway.
package program

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

const module = "github.com/picube/picube-build"

// Source says where programs come from.
type Source struct {
	// Embedded holds <program>-<arch> files; nil in a build from source.
	Embedded fs.FS
	// Dir is a folder inside the module's checkout, for compiling.
	Dir string
	// Env is the environment of the go command.
	Env []string
	// Cache is a folder for what was compiled.
	Cache string
}

// target is how Go and ELF name a Debian architecture.
type target struct {
	goarch, goarm string
	machine       elf.Machine
	class         elf.Class
}

func targets() map[string]target {
	return map[string]target{
		"arm64": {"arm64", "", elf.EM_AARCH64, elf.ELFCLASS64},
		"armhf": {"arm", "7", elf.EM_ARM, elf.ELFCLASS32},
		"amd64": {"amd64", "", elf.EM_X86_64, elf.ELFCLASS64},
	}
}

// Node returns picube-node for a Debian architecture.
func (s Source) Node(ctx context.Context, arch string) ([]byte, error) {
	return s.Program(ctx, "cmd/picube-node", arch)
}

// Program returns the program whose source is in a folder of the module.
func (s Source) Program(ctx context.Context, folder, arch string) ([]byte, error) {
	name := path.Base(folder)
	t, ok := targets()[arch]
	if !ok {
		return nil, fmt.Errorf("%s: cannot be made for architecture %s", name, arch)
	}
	bin, err := s.load(ctx, folder, arch, t)
	if err != nil {
		return nil, fmt.Errorf("%s for %s: %w", name, arch, err)
	}
	if err := t.check(bin); err != nil {
		return nil, fmt.Errorf("%s for %s: %w", name, arch, err)
	}
	return bin, nil
}

func (s Source) load(ctx context.Context, folder, arch string, t target) ([]byte, error) {
	if s.Embedded != nil {
		bin, err := fs.ReadFile(s.Embedded, path.Base(folder)+"-"+arch)
		if !errors.Is(err, fs.ErrNotExist) {
			return bin, err
		}
	}
	key, err := s.key(folder, arch)
	if err != nil {
		return nil, err
	}
	cached := filepath.Join(s.Cache, key)
	if bin, err := os.ReadFile(cached); err == nil && t.check(bin) == nil {
		return bin, nil
	}
	if err := os.MkdirAll(s.Cache, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.Cache, ".compile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	pkg := module + "/" + folder
	// Nothing of the machine that compiles may show in the result: no paths,
	// no version control state, no build id.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -buildid=", "-o", out, pkg)
	cmd.Dir = s.Dir
	cmd.Env = append(cleanEnv(s.Env), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+t.goarch, "GOFLAGS=-mod=readonly", "GOARM="+t.goarm, "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("cannot compile %s: %w\n%s", pkg, err, strings.TrimSpace(stderr.String()))
	}
	bin, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return bin, os.Rename(out, cached)
}

// key names what compiling would give: the digest of everything in the module
// that can be part of picube-node, and of the Go version. Asking the go
// command costs half a second, this some milliseconds.
func (s Source) key(folder, arch string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s\n", runtime.Version(), folder, arch)
	for _, part := range []string{"go.mod", "go.sum", "cmd/picube-node", "layers"} {
		err := filepath.WalkDir(filepath.Join(s.Dir, part), func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() || strings.HasSuffix(p, "_test.go"):
				return nil
			}
			data, err := os.ReadFile(p)
			fmt.Fprintf(h, "%s %x\n", d.Name(), sha256.Sum256(data))
			return err
		})
		if err != nil {
			return "", fmt.Errorf("cannot read this module's source: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// cleanEnv drops the settings that would change the result.
func cleanEnv(env []string) []string {
	var kept []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "GOOS", "GOARCH", "GOARM", "GOARM64", "GOAMD64", "GOFLAGS", "GOEXPERIMENT", "CGO_ENABLED", "GODEBUG", "GOWORK":
			continue
		}
		kept = append(kept, e)
	}
	return kept
}

func (t target) check(bin []byte) error {
	f, err := elf.NewFile(bytes.NewReader(bin))
	if err != nil {
		return fmt.Errorf("cannot read the program: %w", err)
	}
	defer f.Close()
	if f.Machine != t.machine || f.Class != t.class {
		return fmt.Errorf("cannot use a program for %v %v, want %v", f.Class, f.Machine, t.machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("cannot use a program that is linked dynamically")
		}
	}
	return nil
}
