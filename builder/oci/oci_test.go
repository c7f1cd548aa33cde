package oci

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/picube/picube-build/builder/containerd"
	"github.com/picube/picube-build/builder/tree"
)

func TestPull(t *testing.T) {
	srv := httptest.NewServer(registry.New())
	defer srv.Close()
	image := strings.TrimPrefix(srv.URL, "http://") + "/pause:3.10"
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(5000, 3)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = "linux", "arm64", "v8"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	store := NewStore(t.TempDir())
	defer store.Close()
	got, err := store.Pull(t.Context(), image, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.Manifest.Digest != want.String() || len(got.Layers) != 3 {
		t.Errorf("pulled %s with %d layers, want %s with 3", got.Manifest.Digest, len(got.Layers), want)
	}
	if err := containerd.Put(tree.New(0), []containerd.Image{got}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Pull(t.Context(), image+"-nosuch", "arm64"); err == nil || !strings.HasPrefix(err.Error(), "image "+image+"-nosuch") {
		t.Errorf("error %v, want one that names the image", err)
	}

	// What is there needs no registry, if it is asked for by its digest.
	srv.Close()
	from, err := WithDigest(image, got.Manifest.Digest)
	if err != nil {
		t.Fatal(err)
	}
	again, err := store.PullAs(t.Context(), image, from, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if again.Name != image || again.MediaType != got.MediaType || again.Config.Digest != got.Config.Digest || len(again.Layers) != 3 {
		t.Errorf("from the store: %+v, want %+v", again, got)
	}
	for i, l := range again.Layers {
		if l.DiffID != got.Layers[i].DiffID {
			t.Errorf("layer %d from the store: %s, want %s", i, l.DiffID, got.Layers[i].DiffID)
		}
	}
	damaged := filepath.Join(store.dir, "blobs", strings.TrimPrefix(got.Config.Digest, "sha256:"))
	if err := os.WriteFile(damaged, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.PullAs(t.Context(), image, from, "arm64"); err == nil {
		t.Error("a damaged configuration was taken")
	}
}

func TestMake(t *testing.T) {
	program := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(program, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := Program{Image: "registry.test/pause:1", Files: map[string]string{"/usr/local/bin/pause": program}, Entrypoint: []string{"pause"}, Arch: "arm64", Epoch: 1763700000}
	var digests []string
	dir := t.TempDir()
	for _, d := range []string{dir, dir, t.TempDir()} { // made, found, made elsewhere
		store := NewStore(d)
		img, err := store.Make(p)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, img.Manifest.Digest)
		tr := tree.New(0)
		if err := containerd.Put(tr, []containerd.Image{img}, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		data, err := tr.ReadFile("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/usr/local/bin/pause")
		if err != nil || string(data) != "a program" {
			t.Errorf("the program in its snapshot: %q, %v", data, err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
	if digests[0] != digests[1] || digests[0] != digests[2] {
		t.Errorf("the same image has several digests: %s", fmt.Sprint(digests))
	}
	p.Files["/missing"] = filepath.Join(t.TempDir(), "missing")
	store := NewStore(t.TempDir())
	defer store.Close()
	if _, err := store.Make(p); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("error %v, want one that names the file", err)
	}
}
