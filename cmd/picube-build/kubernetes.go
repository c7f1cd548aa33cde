package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/oci"
	"github.com/picube/picube-build/builder/program"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/builder/source"
	"github.com/picube/picube-build/layers/kubernetes"
	"github.com/picube/picube-build/layers/kubernetes/upstream"
)

// releaseTimeout is how long the release server may take to say a word before
// its silence counts as not being reached.
const releaseTimeout = 30 * time.Second

// kubernetes wires the host to the layer.
func (c *cli) kubernetes(bp *blueprint.Blueprint, cache string, programs program.Source, identities *secrets.Folder, reporter builder.Reporter) *kubernetes.Layer {
	store := oci.NewStore(filepath.Join(cache, "images"))
	sources := upstream.Sources{
		Modules: upstream.Modules{
			Compiler: gomodule.Compiler{
				Env: os.Environ(), Cache: filepath.Join(cache, "modules"), Offline: c.offline, Phase: reporter.Phase,
			},
			Store: store,
			Pause: func(ctx context.Context, arch string) (string, error) {
				return pauseProgram(ctx, programs, cache, arch)
			},
		},
		Download: func(mirror string) upstream.Download { return c.release(mirror, cache, store, reporter) },
		Say:      reporter.Info,
	}
	return &kubernetes.Layer{
		Temp:     cache,
		Upstream: sources,
		Images:   images{store},
		Identity: identities.Cluster, Introductions: identities.Introductions,
		ReadFile: func(name string) ([]byte, error) {
			name = filepath.FromSlash(name)
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(bp.Path), name)
			}
			return readBounded(name)
		},
	}
}

// release is the way to upstream's files and images, or a mirror's.
func (c *cli) release(mirror, cache string, store *oci.Store, reporter builder.Reporter) upstream.Download {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = releaseTimeout
	client := &http.Client{Transport: transport}
	d := upstream.Download{
		URL: upstream.ReleaseURL, Registry: upstream.Registry, Client: client, Store: store,
		Files: source.Config{Dir: filepath.Join(cache, "downloads"), Offline: c.offline, Client: client, Now: time.Now},
		Phase: reporter.Phase,
	}
	if mirror != "" {
		d = d.Mirror(mirror)
	}
	return d
}

// images gets what the blueprint names from where it says.
type images struct{ store *oci.Store }

// Find returns an image's digest in hex and the size of its manifest and all
// that it names.
func (i images) Find(ctx context.Context, image, arch string) (string, int64, error) {
	img, err := oci.Find(ctx, image, arch)
	if err != nil {
		return "", 0, err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", 0, err
	}
	size, err := img.Size()
	return digest.Hex, size, err
}

// Pull gets an image by its digest, under the name that manifests use.
func (i images) Pull(ctx context.Context, image, digest, arch string) (containerd.Image, error) {
	full, err := oci.FullName(image)
	if err != nil {
		return containerd.Image{}, err
	}
	from, err := oci.WithDigest(image, "sha256:"+digest)
	if err != nil {
		return containerd.Image{}, err
	}
	return i.store.PullAs(ctx, full, from, arch)
}

// pauseProgram returns a file with our pause program.
func pauseProgram(ctx context.Context, source program.Source, cache, arch string) (string, error) {
	bin, err := source.Program(ctx, "layers/kubernetes/pause", arch)
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "programs", fmt.Sprintf("pause-%x", sha256.Sum256(bin)))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, bin, 0o700); err != nil {
		return "", err
	}
	return file, os.Rename(tmp, file)
}
