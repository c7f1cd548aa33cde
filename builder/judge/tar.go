package judge

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

const maxEntries = 1 << 20

// ReadTar makes a tree of an uncompressed tar archive (ustar, pax or GNU), as
// mmdebstrap writes it. File contents stay in the archive and are read from it
// on demand; archives with sparse files are refused.
func ReadTar(archive io.ReaderAt, size int64) (*tree.Tree, error) {
	t := tree.New(0)
	in := &countingReader{r: io.NewSectionReader(archive, 0, size)}
	reader := tar.NewReader(in)
	for range maxEntries {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the archive: %w", err)
		}
		if err := put(t, header, archive, in.offset); err != nil {
			return nil, fmt.Errorf("archive member %s: %w", header.Name, err)
		}
	}
	return nil, fmt.Errorf("cannot read the archive: more than %d members", maxEntries)
}

var types = map[byte]uint32{
	tar.TypeReg:     tree.TypeRegular,
	tar.TypeSymlink: tree.TypeSymlink,
	tar.TypeDir:     tree.TypeDir,
	tar.TypeChar:    tree.TypeChar,
	tar.TypeBlock:   tree.TypeBlock,
	tar.TypeFifo:    tree.TypeFifo,
}

func put(t *tree.Tree, header *tar.Header, archive io.ReaderAt, offset int64) error {
	name := path.Clean("/" + header.Name)
	if header.Typeflag == tar.TypeLink {
		return t.Link(path.Clean("/"+header.Linkname), name)
	}
	kind, known := types[header.Typeflag]
	if !known {
		return fmt.Errorf("cannot keep an entry of type %q", header.Typeflag)
	}
	n := &tree.Inode{
		Mode:    kind | uint32(header.Mode)&tree.PermMask,
		UID:     uint32(header.Uid),
		GID:     uint32(header.Gid),
		ModTime: header.ModTime.Unix(),
		Target:  header.Linkname,
		Major:   uint32(header.Devmajor),
		Minor:   uint32(header.Devminor),
	}
	if kind == tree.TypeRegular {
		n.Content = io.NewSectionReader(archive, offset, header.Size)
	}
	for key, value := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errors.New("cannot read a sparse file")
		}
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if n.Xattrs == nil {
				n.Xattrs = map[string]string{}
			}
			n.Xattrs[attr] = value
		}
	}
	return t.Put(name, n)
}

// countingReader knows where in the archive tar.Reader is. It hides Seek, so
// that skipped contents are counted too.
type countingReader struct {
	r      *io.SectionReader
	offset int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.offset += int64(n)
	return n, err
}
