// Package initramfs writes what the kernel unpacks before it mounts anything:
// one static program as /init and the modules it needs to reach the root.
//
// It exists because mkinitramfs takes minutes under emulation and needs the
// target's programs. What Build makes depends on its arguments only. Not
// supported: microcode in front, firmware files, several archives in a row.
//
// Formats: "newc" of cpio(5), as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst describes it,
// compressed with zstd.
package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/depmod"
	"github.com/picube/picube-build/builder/tree"
)

const (
	// ModuleDir is where the modules lie in the initramfs, unpacked.
	ModuleDir = "modules"
	// ListFile names, one per line, the modules in the order in which they
	// must be loaded.
	ListFile = ModuleDir + "/list"
)

// window is zstd's: twice what the whole archive usually takes would help
// little and cost the node that memory.
const window = 4 << 20

// Build writes an initramfs for a kernel of a root tree in which depmod has
// run. The modules are names as in modprobe(8); what they depend on comes by
// itself, and what is built into the kernel is left out. Aliases and soft
// dependencies are not resolved: name those modules too.
func Build(t *tree.Tree, kernel string, init []byte, modules []string, w io.Writer) error {
	if err := canUnpack(t, kernel); err != nil {
		return err
	}
	x, err := readIndex(t, path.Join("/usr/lib/modules", kernel))
	if err != nil {
		return err
	}
	paths, err := x.closure(modules)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window),
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	a := archive{w: cpio.NewWriter(z), time: time.Unix(t.Epoch(), 0)}
	a.dir("dev")
	a.dir("proc")
	a.dir("run")
	a.dir("sys")
	a.file("init", init, 0o755)
	a.dir(ModuleDir)
	var list strings.Builder
	for _, p := range paths {
		name := depmod.Name(p) + ".ko"
		fmt.Fprintln(&list, name)
		n, err := t.Stat(path.Join(x.dir, p))
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		data, err := depmod.ReadModule(p, n.Content)
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		a.file(path.Join(ModuleDir, name), data, 0o644)
	}
	a.file(ListFile, []byte(list.String()), 0o644)
	if a.err == nil {
		a.err = a.w.Close()
	}
	if err := errors.Join(a.err, z.Close()); err != nil {
		return fmt.Errorf("initramfs: cannot write it: %w", err)
	}
	return nil
}

// Available returns those of the modules that a kernel has, as modules or built
// in.
func Available(t *tree.Tree, kernel string, modules []string) ([]string, error) {
	x, err := readIndex(t, path.Join("/usr/lib/modules", kernel))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(modules), func(name string) bool {
		name = depmod.Normalize(name)
		return x.paths[name] == "" && !x.builtin[name]
	}), nil
}

// canUnpack asks the kernel's configuration, where it lies beside the kernel,
// whether it knows zstd.
func canUnpack(t *tree.Tree, kernel string) error {
	config, err := t.ReadFile("/boot/config-" + kernel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !bytes.Contains(config, []byte("\nCONFIG_RD_ZSTD=y\n")) {
		err = errors.New("it is built without CONFIG_RD_ZSTD")
	}
	if err != nil {
		return fmt.Errorf("kernel %s: cannot unpack the initramfs: %w", kernel, err)
	}
	return nil
}

// archive writes members one after the other; the first error stays.
type archive struct {
	w    *cpio.Writer
	time time.Time
	err  error
}

func (a *archive) dir(name string) {
	a.member(cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755, Links: 2}, nil)
}

func (a *archive) file(name string, data []byte, perm cpio.FileMode) {
	a.member(cpio.Header{Name: name, Mode: cpio.TypeReg | perm, Links: 1}, data)
}

func (a *archive) member(h cpio.Header, data []byte) {
	if a.err != nil {
		return
	}
	h.Size, h.ModTime = int64(len(data)), a.time
	if a.err = a.w.WriteHeader(&h); a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

// index is what depmod knows of a kernel's modules.
type index struct {
	dir     string
	paths   map[string]string   // by name: path below dir
	needs   map[string][]string // by path: what it depends on, the nearest first
	builtin map[string]bool     // by name
}

func readIndex(t *tree.Tree, dir string) (*index, error) {
	x := &index{dir: dir, paths: map[string]string{}, needs: map[string][]string{}, builtin: map[string]bool{}}
	dep, err := t.ReadFile(path.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("initramfs: cannot find out what modules depend on: %w", err)
	}
	for line := range strings.Lines(string(dep)) {
		p, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || depmod.Name(p) == "" {
			return nil, fmt.Errorf("%s/modules.dep: cannot read the line %q", dir, strings.TrimSpace(line))
		}
		x.paths[depmod.Name(p)] = p
		x.needs[p] = strings.Fields(rest)
	}
	builtin, err := t.ReadFile(path.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	for line := range strings.Lines(string(builtin)) {
		x.builtin[depmod.Name(strings.TrimSpace(line))] = true
	}
	return x, nil
}

// closure returns the paths of the modules and of all they depend on, in an
// order in which they can be loaded.
func (x *index) closure(modules []string) ([]string, error) {
	var order []string
	var errs []error
	done := map[string]bool{}
	add := func(p string) {
		if !done[p] {
			done[p] = true
			order = append(order, p)
		}
	}
	for _, name := range modules {
		name = depmod.Normalize(name)
		p, ok := x.paths[name]
		switch {
		case !ok && x.builtin[name]:
			continue
		case !ok:
			errs = append(errs, fmt.Errorf("module %s: cannot find it below %s", name, x.dir))
			continue
		}
		// modules.dep names all that a module needs, and what each of those
		// needs after it.
		for _, need := range slices.Backward(x.needs[p]) {
			add(need)
		}
		add(p)
	}
	return order, errors.Join(errs...)
}
