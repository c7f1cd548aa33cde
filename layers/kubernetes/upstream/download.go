package upstream

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/oci"
	"github.com/picube/picube-build/builder/source"
)

// ReleaseURL is where upstream publishes programs, each with a file
// NAME.sha256 beside it.
const ReleaseURL = "https://dl.k8s.io"

// Download gets the upstream release, or what a mirror has of it under the
// same paths.
type Download struct {
	URL      string        // ReleaseURL or a mirror's
	Registry string        // what has the images: Registry or a mirror's host, after "http://" if it has no TLS
	Files    source.Config // where files go, and how
	Client   *http.Client
	Store    *oci.Store
	Options  []remote.Option
	// Phase begins something that takes time, of total bytes or steps; nil:
	// nobody wants to know.
	Phase func(name string, total int64) (advance func(n int64), end func())
}

// Mirror returns d with everything taken from a mirror: files below its URL,
// images from the registry on the same host.
func (d Download) Mirror(mirror string) Download {
	d.URL = mirror
	scheme, rest, _ := strings.Cut(mirror, "://")
	d.Registry, _, _ = strings.Cut(rest, "/")
	if scheme == "http" {
		d.Registry = "http://" + d.Registry
	}
	return d
}

// maxConstants bounds the file that names the versions.
const maxConstants = 1 << 20

// Find returns what a version ("v1.34.4") is made of.
func (d Download) Find(ctx context.Context, version, arch string) ([]lock.Input, error) {
	src, err := d.describe(ctx, Source, version, "release/"+version+"/kubernetes-src.tar.gz")
	if errors.Is(err, source.ErrNotFound) {
		return nil, &ErrVersion{Version: version, Nearest: d.nearest(ctx, version)}
	}
	if err != nil {
		return nil, err
	}
	r, err := d.release(ctx, src)
	if err != nil {
		return nil, err
	}
	inputs := []lock.Input{src}
	for _, name := range nodePrograms() {
		in, err := d.describe(ctx, inputPrefix+arch+"/"+name, version, path.Join("release", version, "bin/linux", goArch(arch), name))
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	for _, name := range append(controlPlaneImages(), nodeImages()...) {
		in, err := d.image(ctx, r.image(name), arch)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	return inputs, nil
}

// goArch is what upstream's folders are called.
func goArch(arch string) string {
	if arch == "armhf" {
		return "arm"
	}
	return arch
}

// describe asks for a file's digest and size.
func (d Download) describe(ctx context.Context, name, version, at string) (lock.Input, error) {
	text, err := source.New(d.Files).Get(ctx, 1<<10, d.URL+"/"+at+".sha256")
	if err != nil {
		return lock.Input{}, fmt.Errorf("%s: %w", at, err)
	}
	digest, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if b, err := hex.DecodeString(digest); err != nil || len(b) != 32 {
		return lock.Input{}, fmt.Errorf("%s.sha256: cannot find a SHA-256 in it", at)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, d.URL+"/"+at, nil)
	if err != nil {
		return lock.Input{}, err
	}
	resp, err := d.Client.Do(req)
	if err != nil {
		return lock.Input{}, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
		return lock.Input{}, fmt.Errorf("%s: cannot learn its size: %s", at, resp.Status)
	}
	return lock.Input{Name: name, Version: version, Path: at, Size: resp.ContentLength, SHA256: digest}, nil
}

// image describes an image by its manifest.
func (d Download) image(ctx context.Context, name, arch string) (lock.Input, error) {
	img, err := oci.Find(ctx, d.at(name), arch, d.Options...)
	if err != nil {
		return lock.Input{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return lock.Input{}, err
	}
	size, err := img.Size()
	if err != nil {
		return lock.Input{}, err
	}
	repository, tag := splitTag(name)
	return lock.Input{Name: inputPrefix + arch + "/" + name, Version: tag, Path: repository, Size: size, SHA256: digest.Hex}, nil
}

func splitTag(name string) (repository, tag string) {
	i := strings.LastIndexByte(name, ':')
	return name[:i], name[i+1:]
}

// at is where the registry in use has an image.
func (d Download) at(name string) string { return d.Registry + strings.TrimPrefix(name, Registry) }

// fetch brings files into the cache.
func (d Download) fetch(ctx context.Context, inputs ...lock.Input) ([]string, error) {
	cache := source.New(d.Files)
	objects := make([]source.Object, len(inputs))
	var missing int64
	for i, in := range inputs {
		if !cache.Has(in.SHA256, in.Size) {
			missing += in.Size
		}
		objects[i] = source.Object{Name: path.Base(in.Path) + " " + in.Version, URLs: []string{d.URL + "/" + in.Path}, SHA256: in.SHA256, Size: in.Size}
	}
	if missing == 0 {
		return cache.Fetch(ctx, objects...)
	}
	advance, end := d.phase("get Kubernetes", missing)
	defer end()
	have, files := map[string]int64{}, d.Files
	files.Report = func(p source.Progress) {
		if !p.Cached {
			advance(p.Have - have[p.Object.SHA256])
			have[p.Object.SHA256] = p.Have
		}
	}
	return source.New(files).Fetch(ctx, objects...)
}

func (d Download) phase(name string, total int64) (func(int64), func()) {
	if d.Phase == nil {
		return func(int64) {}, func() {}
	}
	return d.Phase(name, total)
}

// release reads from the source what belongs to a version.
func (d Download) release(ctx context.Context, src lock.Input) (Release, error) {
	files, err := d.fetch(ctx, src)
	if err != nil {
		return Release{}, err
	}
	text, err := member(files[0], constants)
	if err != nil {
		return Release{}, fmt.Errorf("%s: %w", src.Path, err)
	}
	return versions(text, src.Version)
}

// member returns one file of a compressed archive.
func member(archive, name string) ([]byte, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("cannot find %s", name)
		}
		if err != nil {
			return nil, err
		}
		if path.Clean(h.Name) == name {
			return io.ReadAll(io.LimitReader(tr, maxConstants))
		}
	}
}

// nearest asks for the newest version of the wanted one's minor version, and
// the newest of all.
func (d Download) nearest(ctx context.Context, version string) []string {
	var all []string
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for _, name := range []string{"stable-" + strings.Join(parts[:2], ".") + ".txt", "stable.txt"} {
		if text, err := source.New(d.Files).Get(ctx, 1<<10, d.URL+"/release/"+name); err == nil {
			all = append(all, strings.TrimSpace(string(text)))
		}
	}
	return all
}

// Get returns everything for an architecture, as locked.
func (d Download) Get(ctx context.Context, locked []lock.Input, arch string) (*Set, error) {
	r, err := d.release(ctx, find(locked, Source))
	if err != nil {
		return nil, err
	}
	set := &Set{Release: r, Programs: map[string]string{}}
	var programs []lock.Input
	for _, name := range nodePrograms() {
		programs = append(programs, find(locked, inputPrefix+arch+"/"+name))
	}
	files, err := d.fetch(ctx, programs...)
	if err != nil {
		return nil, err
	}
	for i, name := range nodePrograms() {
		set.Programs[name] = files[i]
	}
	n := len(controlPlaneImages())
	images, err := d.pull(ctx, r, locked, arch, append(controlPlaneImages(), nodeImages()...))
	if err != nil {
		return nil, err
	}
	set.ControlPlane, set.Node = images[:n:n], images[n:]
	return set, nil
}

func (d Download) pull(ctx context.Context, r Release, locked []lock.Input, arch string, names []string) ([]containerd.Image, error) {
	advance, end := func(int64) {}, func() {}
	if slices.ContainsFunc(names, func(name string) bool {
		return !d.Store.Has(find(locked, inputPrefix+arch+"/"+r.image(name)).SHA256)
	}) {
		advance, end = d.phase("get images", int64(len(names)))
	}
	defer end()
	var images []containerd.Image
	for _, name := range names {
		full := r.image(name)
		in := find(locked, inputPrefix+arch+"/"+full)
		repository, _ := splitTag(full)
		img, err := d.Store.PullAs(ctx, full, d.at(repository)+"@sha256:"+in.SHA256, arch, d.Options...)
		if err != nil {
			return nil, err
		}
		advance(1)
		img.Pinned = name == "pause"
		images = append(images, img)
	}
	return images, nil
}
