package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/picube/picube-build/builder/baseimage"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/flock"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/source"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
)

// imagePackages are what every node needs on someone else's image too.
func imagePackages() []string {
	return []string{"dbus", "iproute2", "kmod", "systemd", "systemd-sysv", "udev"}
}

// What cards on someone else's image are found by; layers/boot has the same
// for Debian's own.
const (
	imageRootLabel = rootLabel
	imageBootLabel = bootLabel
)

func onImage(r *plan.Root) bool { return r.Cube.Base.Kind == blueprint.BaseImage }

// imageName is the lock's name for an image.
func imageName(b blueprint.Base) string { return "image/" + path.Base(filepath.ToSlash(b.Source)) }

// imageInput is what a lock says of an image. Its digest stands in the
// blueprint, so only its size is to be found out.
func (b *Builder) imageInput(ctx context.Context, base blueprint.Base, ask bool) (lock.Input, error) {
	in := lock.Input{Name: imageName(base), Version: base.SHA256[:16], SHA256: base.SHA256}
	if !ask {
		return in, nil
	}
	if file, ok := b.imageFile(base); ok {
		info, err := os.Stat(file)
		if err != nil {
			return in, fmt.Errorf("base image: %w", err)
		}
		in.Source, in.Size = "file", info.Size()
		return in, nil
	}
	size, err := b.remoteSize(ctx, base.Source)
	in.Source, in.Size = "download", size
	return in, err
}

// imageFile returns the path of an image that is a file.
func (b *Builder) imageFile(base blueprint.Base) (string, bool) {
	if strings.Contains(base.Source, "://") {
		return "", false
	}
	name := filepath.FromSlash(base.Source)
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(b.Blueprint.Path), name)
	}
	return name, true
}

func (b *Builder) remoteSize(ctx context.Context, url string) (int64, error) {
	if b.Offline {
		return 0, fmt.Errorf("base image %s: %w", url, source.ErrOffline)
	}
	client := b.Client
	if client == nil {
		client = http.DefaultClient
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, fmt.Errorf("base image: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("base image: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ContentLength <= 0 {
		return 0, fmt.Errorf("base image %s: cannot find out its size: %s", url, response.Status)
	}
	return response.ContentLength, nil
}

// unpackedImage returns the unpacked image, from the cache or made; in is what
// the lock says of it.
func (b *Builder) unpackedImage(ctx context.Context, base blueprint.Base, in lock.Input) (string, error) {
	dir := filepath.Join(b.Cache, "bases")
	file := filepath.Join(dir, base.SHA256+".img")
	now := b.Now()
	if os.Chtimes(file, now, now) == nil { // what was used last is pruned last
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	release, err := flock.Acquire(ctx, file+".lock")
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := os.Stat(file); err == nil { // somebody else was at it
		return file, nil
	}
	packed, isFile := b.imageFile(base)
	if !isFile {
		if packed, err = b.downloadImage(ctx, base, in); err != nil {
			return "", err
		}
	}
	advance, end := b.Report.Phase("unpack "+path.Base(filepath.ToSlash(base.Source)), in.Size)
	defer end()
	return file, baseimage.Unpack(ctx, packed, file, base.SHA256, advance)
}

func (b *Builder) downloadImage(ctx context.Context, base blueprint.Base, in lock.Input) (string, error) {
	advance, end := b.Report.Phase("download "+path.Base(base.Source), in.Size)
	defer end()
	var have int64
	cache := source.New(source.Config{
		Dir: filepath.Join(b.Cache, "downloads"), Offline: b.Offline, Client: b.Client, Now: b.Now,
		Report: func(p source.Progress) { advance(p.Have - have); have = p.Have },
	})
	paths, err := cache.Fetch(ctx, source.Object{Name: "base image", URLs: []string{base.Source}, SHA256: base.SHA256, Size: in.Size})
	if err != nil {
		return "", err
	}
	return paths[0], nil
}

// image is an opened base image and the file that it is read from.
type image struct {
	*baseimage.Image
	file *os.File
}

func (i *image) Close() error { return i.file.Close() }

// openImage opens a root's base image, unpacked before if it must be.
func (b *Builder) openImage(ctx context.Context, r *plan.Root) (_ *image, err error) {
	base := r.Cube.Base
	in, ok := b.images[base.SHA256]
	if !ok {
		if in, err = b.imageInput(ctx, base, true); err != nil {
			return nil, err
		}
	}
	name, err := b.unpackedImage(ctx, base, in)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	opened, err := baseimage.Open(ctx, f, info.Size(), b.imageEpoch())
	if err == nil && opened.Arch != r.Arch {
		err = fmt.Errorf("it is for %s, but the boards %s are for %s", opened.Arch, strings.Join(r.Boards, ", "), r.Arch)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("base image %s: %w", base.Source, err), f.Close())
	}
	return &image{opened, f}, nil
}

// imageEpoch is the lock's time, or zero while there is none.
func (b *Builder) imageEpoch() int64 {
	if b.epoch.IsZero() {
		return 0
	}
	return b.epoch.Unix()
}

// settleImage makes a base image ready to be installed on.
func (b *Builder) settleImage(r *plan.Root, i *image) error {
	for _, a := range i.Assumed {
		b.Report.Info("warning: base image %s: %s", r.Cube.Base.Source, a)
	}
	gone, err := i.RemoveReplaced()
	if err != nil {
		return err
	}
	for _, name := range gone {
		b.Report.Detail("base image: package %s is removed", name)
	}
	interfaces := []string{r.Cube.Network.Interface}
	if len(r.Cube.WiFi) > 0 {
		interfaces = append(interfaces, "wlan0")
	}
	done, err := i.Settle(baseimage.Options{
		Interfaces: interfaces, RootLabel: imageRootLabel, BootLabel: imageBootLabel,
		NoSwap: r.Role != plan.RoleNode,
	})
	for _, d := range done {
		b.Report.Detail("base image: %s", d)
	}
	note := fmt.Sprintf("%s %s\n", path.Base(filepath.ToSlash(r.Cube.Base.Source)), r.Cube.Base.SHA256)
	return errors.Join(err, i.Root.MkdirAll(path.Dir(baseimage.Note), 0o755), i.Root.WriteFile(baseimage.Note, []byte(note), 0o644))
}

// imageOffers returns where an image's packages come from, and those that it
// has.
func (b *Builder) imageOffers(ctx context.Context, r *plan.Root) (_ []archive.Archive, _ []index.Package, err error) {
	i, err := b.openImage(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	archives, err := archive.OfSystem(i.Root)
	if err != nil {
		return nil, nil, fmt.Errorf("base image %s: %w", r.Cube.Base.Source, err)
	}
	for k, a := range archives {
		switch a.Name { // a mirror that is near, if it is Debian's
		case "debian":
			archives[k].URLs = append(b.Mirrors.Debian, a.URLs...)
		case "debian-security":
			archives[k].URLs = append(b.Mirrors.Security, a.URLs...)
		}
	}
	archives = append(archives, furtherArchives(r.Cube.Base)...)
	if _, err := i.RemoveReplaced(); err != nil {
		return nil, nil, err
	}
	installed, err := i.Installed()
	return archives, installed, err
}

// imageCommandLine returns the command line of a card on someone else's image,
// whose initramfs knows nothing of node.yaml.
func imageCommandLine(boot *tree.Tree, root, machineID string) ([]byte, error) {
	text, err := boot.ReadFile("/cmdline.txt")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, errors.New("base image: cannot find cmdline.txt on its boot partition")
	}
	return []byte(baseimage.EditCommandLine(string(text), root, strings.Fields("rootwait "+firmware.ExtraCommandLine+" systemd.machine_id="+machineID))), nil
}
