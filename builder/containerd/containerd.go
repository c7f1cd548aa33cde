// Package containerd lays container images out in a tree as containerd 1.7
// keeps them: content store, overlayfs snapshots and the two databases that
// tie them together. A node that starts for the first time has its images
// there; nothing is imported, which took 40 to 150 seconds of a first boot.
//
// Layers lie there unpacked and not as they were distributed besides, as
// containerd itself leaves them with its setting discard_unpacked_layers.
//
// containerd's own libraries can make the same only by running its snapshotter
// as root, and write the clock's time into the databases, so that no two cards
// came out the same.
//
// Formats: containerd's docs/content-flow.md, the schema in the comment of its
// metadata/buckets.go (version v1, 3) and snapshots/storage/bolt.go; layers:
// OCI image specification 1.1, layer.md.
//
// Not supported: other snapshotters, encrypted layers; images can't be exported
// or pushed from a node.
package containerd

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

const (
	root        = "/var/lib/containerd"
	contentDir  = root + "/io.containerd.content.v1.content"
	snapshotDir = root + "/io.containerd.snapshotter.v1.overlayfs"
	metadataDir = root + "/io.containerd.metadata.v1.bolt"
	snapshotter = "overlayfs"
)

// maxEntries bounds the members of one layer.
const maxEntries = 1 << 20

// Blob is a piece of content with its digest ("sha256:…").
type Blob struct {
	Digest  string
	Content tree.Content
}

// Layer is a layer without its compression.
type Layer struct {
	DiffID string // digest of Tar ("sha256:…")
	Tar    tree.Content
}

// Image is an image for one platform.
type Image struct {
	Name      string // with registry and tag: "registry.k8s.io/pause:3.10"
	MediaType string // of the manifest
	Manifest  Blob
	Config    Blob
	Layers    []Layer // lowest first
	Pinned    bool    // never to be collected by the kubelet
}

// Put lays images out in the namespace of the kubelet. Temp is a folder for
// the databases while they are written.
func Put(t *tree.Tree, images []Image, temp string) error {
	s := &store{tree: t, blobs: map[string]*blob{}, snapshots: map[string]*snapshot{}}
	for _, img := range images {
		if img.Name == "" || len(img.Name) > 1024 {
			return fmt.Errorf("image %q: cannot use this name", img.Name)
		}
	}
	images = slices.SortedFunc(slices.Values(images), func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	for _, img := range images {
		if err := s.add(img); err != nil {
			return fmt.Errorf("image %s: %w", img.Name, err)
		}
	}
	dir, err := os.MkdirTemp(temp, ".containerd-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, db := range []struct {
		path  string
		write func(file string) error
	}{
		{metadataDir + "/meta.db", func(file string) error { return s.writeMetadata(file, images) }},
		{snapshotDir + "/metadata.db", s.writeSnapshots},
	} {
		file := filepath.Join(dir, path.Base(db.path))
		if err := db.write(file); err != nil {
			return fmt.Errorf("%s: %w", db.path, err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := errors.Join(t.MkdirAll(path.Dir(db.path), 0o711), t.WriteFile(db.path, data, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// store collects what the databases must say.
type store struct {
	tree      *tree.Tree
	blobs     map[string]*blob     // by digest
	snapshots map[string]*snapshot // by chain id
	order     []*snapshot          // parents first
}

type blob struct {
	size   int64
	labels map[string]string
}

type snapshot struct {
	id           uint64
	chain        string
	parent       *snapshot
	inodes, size int64
}

func (s *store) add(img Image) error {
	var top *snapshot
	for _, l := range img.Layers {
		next, err := s.unpack(top, l)
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.DiffID, err)
		}
		top = next
	}
	if err := s.put(img.Manifest, map[string]string{"containerd.io/gc.ref.content.config": img.Config.Digest}); err != nil {
		return err
	}
	configLabels := map[string]string{}
	if top != nil {
		configLabels["containerd.io/gc.ref.snapshot."+snapshotter] = top.chain
	}
	return s.put(img.Config, configLabels)
}

// put stores a blob.
func (s *store) put(b Blob, labels map[string]string) error {
	algorithm, hex, ok := strings.Cut(b.Digest, ":")
	if !ok || algorithm != "sha256" || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return fmt.Errorf("cannot use the digest %q", b.Digest)
	}
	known := s.blobs[b.Digest]
	if known == nil {
		dir := contentDir + "/blobs/sha256"
		if err := errors.Join(
			s.tree.MkdirAll(contentDir+"/ingest", 0o755),
			s.tree.MkdirAll(dir, 0o755),
			s.tree.WriteContent(path.Join(dir, hex), b.Content, 0o444),
		); err != nil {
			return err
		}
		known = &blob{size: b.Content.Size(), labels: map[string]string{}}
		s.blobs[b.Digest] = known
	}
	maps.Copy(known.labels, labels)
	return nil
}

// unpack makes the snapshot of a layer on top of parent.
func (s *store) unpack(parent *snapshot, l Layer) (*snapshot, error) {
	chain := l.DiffID
	if parent != nil {
		chain = chainID(parent.chain, l.DiffID)
	}
	if known := s.snapshots[chain]; known != nil {
		return known, nil
	}
	snap := &snapshot{id: uint64(len(s.order) + 1), chain: chain, parent: parent}
	dir := path.Join(snapshotDir, "snapshots", strconv.FormatUint(snap.id, 10))
	if err := errors.Join(
		s.tree.MkdirAll(path.Dir(dir), 0o700),
		s.tree.Mkdir(dir, 0o700),
		s.tree.Mkdir(dir+"/fs", 0o755),
		s.tree.Mkdir(dir+"/work", 0o711),
	); err != nil {
		return nil, err
	}
	if err := snap.extract(s.tree, dir+"/fs", l.Tar); err != nil {
		return nil, err
	}
	s.snapshots[chain] = snap
	s.order = append(s.order, snap)
	return snap, nil
}

// extract unpacks a layer's tar below dir. It never follows a link of the
// layer: a path whose parent is not a plain directory is refused.
func (s *snapshot) extract(t *tree.Tree, dir string, content tree.Content) error {
	at := &counter{r: io.NewSectionReader(content, 0, content.Size())}
	tr := tar.NewReader(at)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read it: %w", err)
		}
		if n == maxEntries {
			return fmt.Errorf("cannot hold more than %d entries", maxEntries)
		}
		p := tree.Clean(h.Name)
		inode, err := inodeOf(h, content, at.n)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if err := place(t, dir, p, h, inode); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		s.inodes++
		s.size += (h.Size + 4095) &^ 4095
	}
}

// counter tells how far a tar was read: right after Next that is where the
// member's content begins.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func inodeOf(h *tar.Header, content tree.Content, offset int64) (*tree.Inode, error) {
	n := &tree.Inode{
		Mode: uint32(h.Mode) & tree.PermMask, UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: h.ModTime.Unix(),
		Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if n.Xattrs == nil {
				n.Xattrs = map[string]string{}
			}
			n.Xattrs[name] = value
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		if h.Size > content.Size()-offset {
			return nil, io.ErrUnexpectedEOF
		}
		n.Mode |= tree.TypeRegular
		n.Content = io.NewSectionReader(content, offset, h.Size)
	case tar.TypeLink:
		n.Mode |= tree.TypeRegular
	case tar.TypeDir:
		n.Mode |= tree.TypeDir
	case tar.TypeSymlink:
		n.Mode, n.Target = tree.TypeSymlink|0o777, h.Linkname
	case tar.TypeChar:
		n.Mode |= tree.TypeChar
	case tar.TypeBlock:
		n.Mode |= tree.TypeBlock
	case tar.TypeFifo:
		n.Mode |= tree.TypeFifo
	default:
		return nil, fmt.Errorf("cannot unpack an entry of type %q", h.Typeflag)
	}
	return n, nil
}

// Whiteouts as layers write them and as overlayfs reads them (the kernel's
// Documentation/filesystems/overlayfs.rst).
const (
	whiteout     = ".wh."
	opaqueMarker = ".wh..wh..opq"
	opaqueXattr  = "trusted.overlay.opaque"
)

func place(t *tree.Tree, dir, p string, h *tar.Header, n *tree.Inode) error {
	up, name := path.Split(p)
	if err := plainDir(t, dir, up); err != nil {
		return err
	}
	full := path.Join(dir, p)
	switch {
	case name == opaqueMarker:
		return t.SetXattr(path.Join(dir, up), opaqueXattr, "y")
	case strings.HasPrefix(name, whiteout):
		return t.Mknod(path.Join(dir, up, strings.TrimPrefix(name, whiteout)), tree.TypeChar, 0, 0)
	case h.Typeflag == tar.TypeLink:
		target := tree.Clean(h.Linkname)
		if err := plainDir(t, dir, path.Dir(target)); err != nil {
			return err
		}
		if err := t.RemoveAll(full); err != nil {
			return err
		}
		return t.Link(path.Join(dir, target), full)
	}
	if old, err := t.Lstat(full); err == nil && old.IsDir() && !n.IsDir() {
		if err := t.RemoveAll(full); err != nil {
			return err
		}
	}
	return t.Put(full, n)
}

// plainDir makes sure that p below dir is a chain of directories, none of
// them a link; missing ones are made, as some layers leave them out.
func plainDir(t *tree.Tree, dir, p string) error {
	for _, name := range strings.FieldsFunc(p, func(r rune) bool { return r == '/' }) {
		dir = path.Join(dir, name)
		switch n, err := t.Lstat(dir); {
		case errors.Is(err, fs.ErrNotExist):
			if err := t.Mkdir(dir, 0o755); err != nil {
				return err
			}
		case err != nil:
			return err
		case !n.IsDir():
			return fmt.Errorf("%s is not a directory", dir)
		}
	}
	return nil
}

// Bytes makes a blob of a small document.
func Bytes(digest string, data []byte) Blob {
	return Blob{Digest: digest, Content: bytes.NewReader(data)}
}
