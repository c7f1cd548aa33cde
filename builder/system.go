package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/baseimage"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/debian"
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/initramfs"
	"github.com/picube/picube-build/builder/maintscript"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
	"github.com/picube/picube-build/layers/nodeconf"
)

// system is a root file system as a tree, whose content is read from what
// packages keeps open.
type system struct {
	tree     *tree.Tree
	packages *opened
	image    io.Closer // someone else's image, if the tree is on one
	unpacked []string  // packages that the first boot must configure
}

func (s *system) Close() error {
	if s.image == nil {
		return s.packages.Close()
	}
	return errors.Join(s.packages.Close(), s.image.Close())
}

// system downloads a root's packages, installs and configures them, and
// applies the layers.
func (b *Builder) system(ctx context.Context, r *plan.Root, node []byte) (_ *system, err error) {
	packages, err := b.openPackages(ctx, r)
	if err != nil {
		return nil, err
	}
	s := &system{tree: tree.New(b.epoch.Unix()), packages: packages}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if onImage(r) {
		i, err := b.openImage(ctx, r)
		if err != nil {
			return nil, err
		}
		s.tree, s.image = i.Root, i
		if err := b.settleImage(r, i); err != nil {
			return nil, fmt.Errorf("base image: %w", err)
		}
	}
	if err := b.install(ctx, r, s); err != nil {
		return nil, err
	}
	if err := errors.Join(
		s.tree.MkdirAll(path.Dir(nodeconf.Program), 0o755),
		s.tree.WriteFile(nodeconf.Program, node, 0o755),
	); err != nil {
		return nil, err
	}
	for _, l := range b.Layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := l.Apply(r, s.tree); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Name(), err)
		}
	}
	return s, nil
}

// install unpacks and configures packages in the tree.
func (b *Builder) install(ctx context.Context, r *plan.Root, s *system) error {
	report, err := b.configure(ctx, r, s.tree, s.packages)
	if err != nil {
		return err
	}
	b.Report.Detail("%d packages installed, %d maintainer scripts run, %d packages left to the first boot",
		len(report.Packages), report.Scripts, len(report.Unfinished()))
	return s.leave(report.Unfinished(), b.Report)
}

func (b *Builder) configure(ctx context.Context, r *plan.Root, t *tree.Tree, packages *opened) (maintscript.Report, error) {
	advance, end := b.Report.Phase("configure", 0)
	defer end()
	archives := make([]dpkg.Archive, len(packages.install))
	for i, p := range packages.install {
		archives[i] = dpkg.Archive{Control: p.Control, Entries: p.Entries}
	}
	ctx, cancel := context.WithCancel(ctx)
	modules := b.readModules(ctx, packages.install)
	defer func() { // the packages' contents are the caller's
		cancel()
		<-modules.ready
	}()
	o := maintscript.Options{
		Arch: r.Arch, Debconf: r.Cube.Debconf, Progress: func(dpkg.Step) { advance(1) },
		Depmod: modules,
	}
	asked, err := wishes(r)
	if err != nil {
		return maintscript.Report{}, err
	}
	for _, request := range asked[0].Requests {
		o.Wanted = append(o.Wanted, request.Name)
	}
	for _, p := range r.Packages {
		if p.Why == debian.BaseSystem {
			o.Wanted = append(o.Wanted, p.Name)
		}
	}
	if len(packages.data) > 0 {
		o.Locales = packages.locales
	}
	return maintscript.Configure(ctx, t, archives, o)
}

// findLeft tells the plan which packages of a root the first boot has to
// configure, if the root's packages are here: only their scripts can say.
func (b *Builder) findLeft(ctx context.Context, r *plan.Root) error {
	cache := b.downloads()
	if slices.ContainsFunc(slices.Concat(r.Packages, r.Data), func(p plan.Package) bool { return !cache.Has(p.SHA256, p.Size) }) {
		return nil
	}
	if onImage(r) {
		return nil // opening the image takes longer than people wait for a plan
	}
	packages, err := b.openPackages(ctx, r)
	if err != nil {
		return err
	}
	defer packages.Close()
	report, err := b.configure(ctx, r, tree.New(b.epoch.Unix()), packages)
	if err != nil {
		return err
	}
	r.Left = []plan.Left{}
	for _, p := range report.Unfinished() {
		r.Left = append(r.Left, plan.Left{Name: p.Name, Why: p.Why.Error()})
	}
	return nil
}

// indispensable are packages without which a card does not come as far as its
// first boot's own configuration.
func indispensable() []string {
	return []string{"base-files", "base-passwd", "dbus", "dpkg", "libc6", "libpam-runtime", "openssh-server", "systemd", "udev"}
}

// leave notes the packages that the first boot has to configure. Those that
// wait only for others are not told one by one.
func (s *system) leave(unfinished []maintscript.Package, report Reporter) error {
	var causes, fatal []string
	for _, p := range unfinished {
		s.unpacked = append(s.unpacked, p.Name)
		var waits *dpkg.DependencyError
		if p.Why == nil { // someone else's image has it so
			causes = append(causes, fmt.Sprintf("package %s: its state is %s", p.Name, p.Status))
		} else if !errors.As(p.Why, &waits) {
			causes = append(causes, fmt.Sprintf("package %s: %v", p.Name, p.Why))
		}
		if slices.Contains(indispensable(), p.Name) {
			fatal = append(fatal, p.Name)
		}
	}
	if len(fatal) > 0 {
		return fmt.Errorf("cannot configure %s:\n  %s", strings.Join(fatal, ", "), strings.Join(causes, "\n  "))
	}
	for _, c := range causes {
		report.Info("left to the first boot: %s", c)
	}
	return nil
}

// sharedBoot makes what the boot partitions of a root's cards share.
func (b *Builder) sharedBoot(r *plan.Root, t *tree.Tree, node []byte) (*tree.Tree, error) {
	if onImage(r) { // it boots as its maker meant it to
		return baseimage.TakeBoot(t)
	}
	boards := make([]firmware.Board, 0, len(r.Boards))
	for _, name := range r.Boards {
		board, ok := firmware.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("board %s: cannot find it in the table", name)
		}
		boards = append(boards, board)
	}
	if r.Cube.Base.Kind == blueprint.BaseRaspios {
		return raspiosBoot(t, node, boards)
	}
	kernel, err := firmware.Kernel(t)
	if err != nil {
		return nil, err
	}
	var image bytes.Buffer
	if err := initramfs.Build(t, kernel, node, firmware.Modules(boards), &image); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return firmware.BootPartition(t, firmware.Options{Boards: boards, Kernel: kernel, Initramfs: tree.Bytes(image.Bytes())})
}

// raspiosBoot is the same with Raspberry Pi's kernels, which have built in much
// of what Debian's have as modules, and nothing of what they need in QEMU.
func raspiosBoot(t *tree.Tree, node []byte, boards []firmware.Board) (*tree.Tree, error) {
	return firmware.RaspiosBootPartition(t, boards, func(version string) (tree.Content, error) {
		modules, err := initramfs.Available(t, version, firmware.Modules(boards))
		if err != nil {
			return nil, err
		}
		var image bytes.Buffer
		if err := initramfs.Build(t, version, node, slices.Concat(modules, []string{"ext4", "vfat"}), &image); err != nil {
			return nil, fmt.Errorf("initramfs: %w", err)
		}
		return tree.Bytes(image.Bytes()), nil
	})
}
