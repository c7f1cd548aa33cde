//go:build long

package containerd

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/tree"
)

// ociImage is an image that a container engine can read: manifest and
// configuration say what they should.
func ociImage(t *testing.T, name string, layers ...Layer) Image {
	t.Helper()
	var diffs, descriptors []any
	for _, l := range layers {
		diffs = append(diffs, l.DiffID)
		descriptors = append(descriptors, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": l.DiffID, "size": l.Tar.Size()})
	}
	marshal := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	config := marshal(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	manifest := marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": descriptors,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
	})
	return Image{
		Name: name, MediaType: "application/vnd.oci.image.manifest.v1+json",
		Manifest: Bytes(digest(manifest), manifest), Config: Bytes(digest(config), config), Layers: layers,
	}
}

// unpack writes what the test needs of a tree below a folder of the host.
func unpack(t *testing.T, tr *tree.Tree, dir string) {
	t.Helper()
	for p, n := range tr.All() {
		file := filepath.Join(dir, p)
		var err error
		switch {
		case n.IsDir():
			err = os.MkdirAll(file, 0o755)
		case n.Content != nil:
			var data []byte
			if data, err = io.ReadAll(io.NewSectionReader(n.Content, 0, n.Content.Size())); err == nil {
				err = os.WriteFile(file, data, os.FileMode(n.Mode&0o777))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDaemon lets the real containerd look at the store: every image is
// unpacked, lacks nothing but the layers' blobs, and a snapshot can be mounted
// on top of it. It needs root, as containerd does.
func TestDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("containerd needs root")
	}
	base := layer(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "bin/"},
		tar.Header{Typeflag: tar.TypeReg, Name: "bin/etcd"},
	)
	upper := layer(t, tar.Header{Typeflag: tar.TypeReg, Name: "bin/kube-apiserver"})
	tr, dir := tree.New(1763700000), t.TempDir()
	images := []Image{ociImage(t, "b.test/two:1", base, upper), ociImage(t, "a.test/one:1", base)}
	images[1].Pinned = true
	if err := Put(tr, images, dir); err != nil {
		t.Fatal(err)
	}
	unpack(t, tr, dir)
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		filepath.Join(dir, root), filepath.Join(dir, "state"), filepath.Join(dir, "sock"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	daemon := exec.CommandContext(t.Context(), "containerd", "--config", config)
	daemon.Stdout, daemon.Stderr = &said, &said
	if err := daemon.Start(); err != nil {
		t.Fatalf("cannot run containerd (apt install containerd): %v", err)
	}
	defer func() {
		_ = daemon.Process.Signal(os.Interrupt)
		_ = daemon.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	ctr := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "ctr", append([]string{"--address", filepath.Join(dir, "sock"), "-n", namespace}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ctr %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for begin := time.Now(); time.Since(begin) < 2*time.Minute; time.Sleep(200 * time.Millisecond) {
		if exec.CommandContext(t.Context(), "ctr", "--address", filepath.Join(dir, "sock"), "version").Run() == nil {
			break
		}
	}
	check := ctr("images", "check")
	for _, img := range images {
		want := fmt.Sprintf("(1/%d)", 1+len(img.Layers)) // its configuration
		if line := grep(check, img.Name); !strings.Contains(line, want) || !strings.Contains(line, "true") {
			t.Errorf("%s: %q", img.Name, line)
		}
	}
	// Nothing of it is rubbish to containerd, which collects it when a lease
	// ends.
	ctr("leases", "create", "--id", "test")
	ctr("leases", "delete", "--sync", "test")
	if after := ctr("images", "check"); after != check {
		t.Errorf("after cleaning up:\n%s", after)
	}
	top := chainID(base.DiffID, upper.DiffID)
	ctr("snapshots", "prepare", "new", top)
	if mounts := ctr("snapshots", "mounts", dir, "new"); strings.Count(mounts, "/fs") != 3 {
		t.Errorf("a container would be mounted so: %s", mounts)
	}
	if usage := ctr("snapshots", "list"); strings.Count(usage, "Committed") != 2 || strings.Count(usage, "Active") != 1 {
		t.Errorf("snapshots:\n%s", usage)
	}
	// An image's programs can be called from outside of a container, also once
	// more after the plug was pulled.
	at := t.TempDir()
	for range 2 {
		ctr("images", "mount", images[0].Name, at)
		if files, err := filepath.Glob(filepath.Join(at, "bin", "*")); err != nil || len(files) != 2 {
			t.Errorf("mounted: %q, %v", files, err)
		}
		if out, err := exec.CommandContext(t.Context(), "umount", at).CombinedOutput(); err != nil {
			t.Fatalf("umount: %v: %s", err, out)
		}
	}
	ctr("images", "mount", images[0].Name, at)
	ctr("images", "unmount", "--rm", at)
	if usage := ctr("snapshots", "list"); strings.Count(usage, "View") != 0 {
		t.Errorf("snapshots after unmounting:\n%s", usage)
	}
}

func grep(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}
