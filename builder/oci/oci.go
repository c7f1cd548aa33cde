// Package oci gets container images into a folder, from a registry or made of
// programs, in the form that builder/containerd lays out on a card: manifest
// and configuration as they are distributed, layers without compression.
//
// Formats: OCI image specification 1.1. Not supported: images for more than
// one platform (one is chosen), foreign layers, layers that are neither plain
// nor compressed with gzip or zstd.
package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/tree"
)

// maxLayer bounds a decoded layer.
const maxLayer = 8 << 30

// maxDocument bounds a manifest or configuration.
const maxDocument = 8 << 20

// Store keeps documents and decoded layers in a folder. Several processes may
// share it.
type Store struct {
	dir string

	mu   sync.Mutex
	open []*os.File
}

// NewStore returns a store over a folder, which is made when needed.
func NewStore(dir string) *Store { return &Store{dir: dir} }

// Close closes the files behind the images it returned.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.open {
		errs = append(errs, f.Close())
	}
	s.open = nil
	return errors.Join(errs...)
}

func platform(arch string) (v1.Platform, error) {
	switch arch {
	case "arm64":
		return v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, nil
	case "armhf":
		return v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, nil
	case "amd64":
		return v1.Platform{OS: "linux", Architecture: "amd64"}, nil
	}
	return v1.Platform{}, fmt.Errorf("cannot get images for architecture %s", arch)
}

// Pull gets an image from its registry, by tag or digest, for a Debian
// architecture. Blobs that are in the store are not downloaded again.
func (s *Store) Pull(ctx context.Context, image, arch string, options ...remote.Option) (containerd.Image, error) {
	full, err := FullName(image)
	if err != nil {
		return containerd.Image{}, err
	}
	return s.PullAs(ctx, full, image, arch, options...)
}

// PullAs is Pull for an image that is to be known under another name than
// where it comes from: a mirror, or a digest.
func (s *Store) PullAs(ctx context.Context, as, from, arch string, options ...remote.Option) (containerd.Image, error) {
	// What has a digest can't have changed, and no registry needs to be asked.
	if _, hex, ok := strings.Cut(from, "@sha256:"); ok {
		if img, err := s.stored(as, hex); err == nil {
			return img, nil
		}
	}
	img, err := Find(ctx, from, arch, options...)
	if err != nil {
		return containerd.Image{}, err
	}
	out, err := s.Put(as, img)
	if err != nil {
		return containerd.Image{}, fmt.Errorf("image %s: %w", from, err)
	}
	return out, nil
}

// plainHTTP begins the name of an image whose registry, a household's mirror,
// has no certificate.
const plainHTTP = "http://"

// Find asks the registry for an image; nothing but its manifest is downloaded.
// A name that begins with "http://" is asked for without TLS.
func Find(ctx context.Context, image, arch string, options ...remote.Option) (v1.Image, error) {
	p, err := platform(arch)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	var parse []name.Option
	if strings.HasPrefix(image, plainHTTP) {
		parse = append(parse, name.Insecure)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(image, plainHTTP), parse...)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(ref, append([]remote.Option{remote.WithContext(ctx), remote.WithPlatform(p)}, options...)...)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	return img, nil
}

// FullName returns an image's name with registry and tag, as the kubelet and
// containerd complete it.
func FullName(image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", err
	}
	if rest, ok := strings.CutPrefix(ref.Name(), name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest, nil
	}
	return ref.Name(), nil
}

// WithDigest returns the name of one content of an image's repository.
func WithDigest(image, digest string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", err
	}
	return ref.Context().Digest(digest).Name(), nil
}

// Put stores an image under a name with registry and tag.
func (s *Store) Put(image string, img v1.Image) (containerd.Image, error) {
	manifest, err := img.RawManifest()
	if err != nil {
		return containerd.Image{}, err
	}
	media, err := img.MediaType()
	if err != nil {
		return containerd.Image{}, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return containerd.Image{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return containerd.Image{}, err
	}
	out := containerd.Image{
		Name: image, MediaType: string(media),
		Manifest: containerd.Bytes(digest(manifest), manifest),
		Config:   containerd.Bytes(digest(config), config),
	}
	for _, l := range layers {
		layer, err := s.layer(l)
		if err != nil {
			return containerd.Image{}, err
		}
		out.Layers = append(out.Layers, layer)
	}
	for _, data := range [][]byte{config, manifest} {
		hash, err := v1.NewHash(digest(data))
		if err != nil {
			return containerd.Image{}, err
		}
		if _, err := s.fetch("blobs", hash, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }); err != nil {
			return containerd.Image{}, err
		}
	}
	return out, nil
}

// Has reports whether the store has all of the image whose manifest has a
// digest, in hex.
func (s *Store) Has(manifest string) bool {
	_, err := s.stored("", manifest)
	return err == nil
}

// stored returns the image whose manifest has a digest, in hex, if the store
// has all of it.
func (s *Store) stored(image, manifest string) (containerd.Image, error) {
	text, err := s.document(manifest)
	if err != nil {
		return containerd.Image{}, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return containerd.Image{}, err
	}
	config, err := s.document(m.Config.Digest.Hex)
	if err != nil {
		return containerd.Image{}, err
	}
	c, err := v1.ParseConfigFile(bytes.NewReader(config))
	if err != nil {
		return containerd.Image{}, err
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return containerd.Image{}, fmt.Errorf("%d layers, %d in its configuration", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	out := containerd.Image{
		Name: image, MediaType: string(m.MediaType),
		Manifest: containerd.Bytes(digest(text), text),
		Config:   containerd.Bytes(digest(config), config),
	}
	if out.MediaType == "" { // OCI's manifests may leave it out
		out.MediaType = string(types.OCIManifestSchema1)
	}
	for _, diff := range c.RootFS.DiffIDs {
		layer, err := s.decoded(diff.Hex)
		if err != nil {
			return containerd.Image{}, err
		}
		out.Layers = append(out.Layers, layer)
	}
	return out, nil
}

// document returns a small blob of the store, verified.
func (s *Store) document(want string) ([]byte, error) {
	file := filepath.Join(s.dir, "blobs", filepath.Base(want))
	if info, err := os.Stat(file); err != nil || info.Size() > maxDocument {
		return nil, fmt.Errorf("cannot find %s", want)
	}
	data, err := os.ReadFile(file)
	if err == nil && digest(data) != "sha256:"+want {
		err = fmt.Errorf("%s is damaged", file)
	}
	return data, err
}

func digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// layer stores what a layer decodes to.
func (s *Store) layer(l v1.Layer) (containerd.Layer, error) {
	diff, err := l.DiffID()
	if err != nil {
		return containerd.Layer{}, err
	}
	decoded, err := s.fetch("layers", diff, l.Uncompressed)
	if err != nil {
		return containerd.Layer{}, fmt.Errorf("layer %s: %w", diff, err)
	}
	return containerd.Layer{DiffID: diff.String(), Tar: decoded}, nil
}

// fetch returns the store's file with a digest, getting it if it is missing.
// The file has its name only when its digest is right.
func (s *Store) fetch(kind string, want v1.Hash, get func() (io.ReadCloser, error)) (tree.Content, error) {
	if want.Algorithm != "sha256" {
		return nil, fmt.Errorf("cannot use the digest %s", want)
	}
	file := filepath.Join(s.dir, kind, want.Hex)
	if c, err := s.content(file); err == nil {
		return c, nil
	}
	r, err := get()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := save(file, want.Hex, r); err != nil {
		return nil, err
	}
	return s.content(file)
}

func save(file, want string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".blob-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(r, maxLayer+1))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if n > maxLayer {
		return fmt.Errorf("cannot take more than %d bytes", int64(maxLayer))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("digest is %s, want %s", got, want)
	}
	return os.Rename(tmp.Name(), file)
}

func (s *Store) content(file string) (tree.Content, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.mu.Lock()
	s.open = append(s.open, f)
	s.mu.Unlock()
	return io.NewSectionReader(f, 0, info.Size()), nil
}

// Program is an image to be made of files of the host.
type Program struct {
	Image      string            // name with registry and tag
	Files      map[string]string // host file by path in the image
	Entrypoint []string
	Arch       string // Debian's name
	Epoch      int64  // seconds since 1970: the time of everything in it
	User       string // "0" if empty
}

// Make makes an image of static programs: one layer, without compression.
func (s *Store) Make(p Program) (containerd.Image, error) {
	img, err := s.make(p)
	if err != nil {
		return containerd.Image{}, fmt.Errorf("image %s: cannot make it: %w", p.Image, err)
	}
	return img, nil
}

func (s *Store) make(p Program) (containerd.Image, error) {
	plat, err := platform(p.Arch)
	if err != nil {
		return containerd.Image{}, err
	}
	layer, err := s.pack(p)
	if err != nil {
		return containerd.Image{}, err
	}
	diff, err := v1.NewHash(layer.DiffID)
	if err != nil {
		return containerd.Image{}, err
	}
	config, err := json.Marshal(v1.ConfigFile{
		Architecture: plat.Architecture, Variant: plat.Variant, OS: plat.OS,
		Created: v1.Time{Time: time.Unix(p.Epoch, 0).UTC()},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}},
		Config:  v1.Config{Entrypoint: p.Entrypoint, User: p.User, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"}},
	})
	if err != nil {
		return containerd.Image{}, err
	}
	configHash, err := v1.NewHash(digest(config))
	if err != nil {
		return containerd.Image{}, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: int64(len(config)), Digest: configHash},
		Layers: []v1.Descriptor{{MediaType: types.OCIUncompressedLayer, Size: layer.Tar.Size(), Digest: diff}},
	})
	if err != nil {
		return containerd.Image{}, err
	}
	return containerd.Image{
		Name: p.Image, MediaType: string(types.OCIManifestSchema1),
		Manifest: containerd.Bytes(digest(manifest), manifest),
		Config:   containerd.Bytes(digest(config), config),
		Layers:   []containerd.Layer{layer},
	}, nil
}

// pack makes the layer, or finds it: what went into it names a small file that
// holds the digest. A file that was not touched is the same one; to read all
// of them would cost every build a second.
func (s *Store) pack(p Program) (containerd.Layer, error) {
	key := sha256.New()
	fmt.Fprintln(key, p.Epoch)
	paths := slices.Sorted(maps.Keys(p.Files))
	for _, at := range paths {
		info, err := os.Stat(p.Files[at])
		if err != nil {
			return containerd.Layer{}, err
		}
		fmt.Fprintln(key, at, p.Files[at], info.Size(), info.ModTime().UnixNano())
	}
	note := filepath.Join(s.dir, "made", hex.EncodeToString(key.Sum(nil)))
	if text, err := os.ReadFile(note); err == nil {
		if l, err := s.decoded(string(text)); err == nil {
			return l, nil
		}
	}
	digest, err := s.write(p, paths)
	if err != nil {
		return containerd.Layer{}, err
	}
	if err := os.MkdirAll(filepath.Dir(note), 0o700); err != nil {
		return containerd.Layer{}, err
	}
	if err := os.WriteFile(note, []byte(digest), 0o600); err != nil {
		return containerd.Layer{}, err
	}
	return s.decoded(digest)
}

// decoded opens a layer by the digest of what it decodes to, in hex.
func (s *Store) decoded(digest string) (containerd.Layer, error) {
	content, err := s.content(filepath.Join(s.dir, "layers", filepath.Base(digest)))
	if err != nil {
		return containerd.Layer{}, err
	}
	return containerd.Layer{DiffID: "sha256:" + digest, Tar: content}, nil
}

// write writes the layer and returns its digest.
func (s *Store) write(p Program, paths []string) (string, error) {
	dir := filepath.Join(s.dir, "layers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".layer-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	sum := sha256.New()
	if err := errors.Join(writeTar(io.MultiWriter(f, sum), p, paths), f.Sync(), f.Close()); err != nil {
		return "", err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	return digest, os.Rename(f.Name(), filepath.Join(dir, digest))
}

func writeTar(w io.Writer, p Program, paths []string) error {
	tw := tar.NewWriter(w)
	at := time.Unix(p.Epoch, 0).UTC()
	made := map[string]bool{"/": true}
	for _, file := range paths {
		var parents []string
		for dir := path.Dir(file); !made[dir]; dir = path.Dir(dir) {
			made[dir] = true
			parents = append(parents, dir)
		}
		slices.Reverse(parents)
		for _, dir := range parents {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755, ModTime: at, Format: tar.FormatPAX}); err != nil {
				return err
			}
		}
		if err := writeFile(tw, file, p.Files[file], at); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeFile(tw *tar.Writer, at, host string, modified time.Time) error {
	f, err := os.Open(host)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at[1:], Mode: 0o755, Size: info.Size(), ModTime: modified, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
