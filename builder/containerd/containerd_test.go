package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/picube/picube-build/builder/tree"
)

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// layer makes an uncompressed layer of headers; regular files hold their name.
func layer(t *testing.T, headers ...tar.Header) Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data := b.Bytes()
	return Layer{DiffID: digest(data), Tar: tree.Bytes(data)}
}

func image(name string, layers ...Layer) Image {
	manifest, config := []byte("manifest of "+name), []byte("config of "+name)
	return Image{Name: name, MediaType: "application/vnd.oci.image.manifest.v1+json",
		Manifest: Bytes(digest(manifest), manifest), Config: Bytes(digest(config), config), Layers: layers}
}

func TestPut(t *testing.T) {
	base := layer(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "bin/"},
		tar.Header{Typeflag: tar.TypeReg, Name: "bin/etcd"},
		tar.Header{Typeflag: tar.TypeLink, Name: "bin/etcdctl", Linkname: "bin/etcd"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "sbin", Linkname: "bin"},
	)
	upper := layer(t,
		tar.Header{Typeflag: tar.TypeReg, Name: "bin/.wh.etcd"},
		tar.Header{Typeflag: tar.TypeReg, Name: "etc/.wh..wh..opq"},
		tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd"},
	)
	tr := tree.New(1763700000)
	images := []Image{image("b.test/two:1", base, upper), image("a.test/one:1", base)}
	if err := Put(tr, images, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for p, n := range tr.Below(snapshotDir + "/snapshots") {
		line := fmt.Sprintf("%s %o", strings.TrimPrefix(p, snapshotDir+"/snapshots"), n.Mode)
		if len(n.Xattrs) > 0 {
			line += fmt.Sprint(" ", n.Xattrs)
		}
		got = append(got, line)
	}
	want := []string{
		" 40700",
		"/1 40700", "/1/fs 40755", "/1/fs/bin 40755", "/1/fs/bin/etcd 100755", "/1/fs/bin/etcdctl 100755", "/1/fs/sbin 120777", "/1/work 40711",
		"/2 40700", "/2/fs 40755", "/2/fs/bin 40755", "/2/fs/bin/etcd 20000",
		"/2/fs/etc 40755 map[trusted.overlay.opaque:y]", "/2/fs/etc/passwd 100755", "/2/work 40711",
	}
	if !slices.Equal(got, want) {
		t.Errorf("snapshots:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	again := tree.New(1763700000)
	slices.Reverse(images)
	if err := Put(again, images, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{metadataDir + "/meta.db", snapshotDir + "/metadata.db"} {
		one, err := tr.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		two, err := again.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Errorf("%s differs from build to build", name)
		}
	}
	blobs := 0
	for range tr.Below(contentDir + "/blobs/sha256") {
		blobs++
	}
	if blobs != 1+2*len(images) { // the folder; manifests and configurations, no layers
		t.Errorf("%d blobs", blobs-1)
	}
	if got := dump(t, tr, metadataDir+"/meta.db"); !strings.Contains(got, "v1/k8s.io/images/a.test/one:1/target/digest") {
		t.Errorf("no image in the metadata:\n%s", got)
	}
}

// dump lists a database's keys.
func dump(t *testing.T, tr *tree.Tree, name string) string {
	t.Helper()
	data, err := tr.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var b strings.Builder
	var walk func(prefix string, bkt *bolt.Bucket) error
	walk = func(prefix string, bkt *bolt.Bucket) error {
		return bkt.ForEach(func(k, v []byte) error {
			if sub := bkt.Bucket(k); sub != nil {
				return walk(prefix+string(k)+"/", sub)
			}
			fmt.Fprintf(&b, "%s%s\n", prefix, k)
			return nil
		})
	}
	if err := db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(k []byte, bkt *bolt.Bucket) error { return walk(string(k)+"/", bkt) })
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPutRefuses(t *testing.T) {
	escape := layer(t,
		tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "/etc"},
		tar.Header{Typeflag: tar.TypeReg, Name: "out/passwd"},
	)
	cut := layer(t, tar.Header{Typeflag: tar.TypeReg, Name: "file"})
	cut.Tar = tree.Bytes(make([]byte, 100))
	tests := map[string]struct {
		image Image
		want  string
	}{
		"through a link": {image("a.test/escape:1", escape), "not a directory"},
		"truncated":      {image("a.test/cut:1", cut), "a.test/cut:1"},
		"no name":        {image(""), "name"},
		"digest":         {Image{Name: "a.test/x:1", Manifest: Bytes("sha256:../../x", nil)}, "digest"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := Put(tree.New(0), []Image{test.image}, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
		})
	}
}
