package deb

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// record is a data member without its content.
type record struct {
	path         string
	mode         uint32
	uid, gid     uint32
	modTime      int64
	offset, size int64  // of regular files, within the decoded tar
	target       string // of symbolic links
	major, minor uint32
	link         int // 1 + the number of the record that this is a hard link to
}

// controlFiles reads a decoded control.tar.
func controlFiles(b []byte) (map[string][]byte, error) {
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(h.Name, "./"), "/")
		switch {
		case h.Typeflag == tar.TypeDir && (name == "" || name == "."):
			continue
		case h.Typeflag != tar.TypeReg || name == "" || strings.ContainsAny(name, "/\n\x00") || name == "..":
			return nil, fmt.Errorf("member %q: not a plain file", h.Name)
		case files[name] != nil:
			return nil, fmt.Errorf("member %q: occurs twice", h.Name)
		}
		// The size was bounded when the tar was decoded, but the header may
		// lie about it: reading stops at the end of the tar.
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", h.Name, err)
		}
		files[name] = content
	}
	if files["control"] == nil {
		return nil, fmt.Errorf("no file control")
	}
	return files, nil
}

// dataRecords reads the headers of a decoded data.tar.
func dataRecords(r io.ReaderAt, size int64) ([]record, error) {
	var records []record
	seen := map[string]int{} // path -> number of the record
	section := io.NewSectionReader(r, 0, size)
	tr := tar.NewReader(section)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		// The reader takes whole headers, so this is where the content is.
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if len(records) == MaxEntries {
			return nil, fmt.Errorf("more than %d members", MaxEntries)
		}
		rec, err := newRecord(h, offset, size, records, seen)
		if err != nil {
			return nil, fmt.Errorf("member %.200q: %w", h.Name, err)
		}
		if old, ok := seen[rec.path]; ok && (rec.mode&tree.TypeMask != tree.TypeDir || records[old].mode&tree.TypeMask != tree.TypeDir) {
			return nil, fmt.Errorf("member %.200q: occurs twice", h.Name)
		}
		if up, ok := seen[path.Dir(rec.path)]; ok && records[up].mode&tree.TypeMask != tree.TypeDir {
			return nil, fmt.Errorf("member %.200q: lies below %s, which is no directory", h.Name, records[up].path)
		}
		seen[rec.path] = len(records)
		records = append(records, rec)
	}
}

func newRecord(h *tar.Header, offset, end int64, records []record, seen map[string]int) (record, error) {
	p, err := memberPath(h.Name)
	if err != nil {
		return record{}, err
	}
	if len(h.PAXRecords) > 0 {
		return record{}, fmt.Errorf("PAX headers are not allowed in a .deb")
	}
	const maxID = 1<<32 - 2 // the last one means "none"
	const maxTime = 1 << 34 // ext4's last second is in 2446
	if h.Uid < 0 || h.Gid < 0 || h.Uid > maxID || h.Gid > maxID {
		return record{}, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	sec := h.ModTime.Unix()
	if sec < 0 || sec > maxTime {
		return record{}, fmt.Errorf("modification time %d is out of range", sec)
	}
	rec := record{path: p, uid: uint32(h.Uid), gid: uint32(h.Gid), modTime: sec, mode: uint32(h.Mode) & tree.PermMask}
	switch h.Typeflag {
	case tar.TypeReg:
		if h.Size > end-offset {
			return record{}, fmt.Errorf("size %d is more than the archive holds", h.Size)
		}
		rec.mode |= tree.TypeRegular
		rec.offset, rec.size = offset, h.Size
	case tar.TypeDir:
		rec.mode |= tree.TypeDir
	case tar.TypeSymlink:
		rec.mode |= tree.TypeSymlink
		rec.target = h.Linkname
		if err := checkTarget(p, h.Linkname); err != nil {
			return record{}, err
		}
	case tar.TypeLink:
		target, err := memberPath(h.Linkname)
		if err != nil {
			return record{}, fmt.Errorf("hard link to %.200q: %w", h.Linkname, err)
		}
		i, ok := seen[target]
		if !ok || records[i].mode&tree.TypeMask == tree.TypeDir {
			return record{}, fmt.Errorf("hard link to %.200q, which is no earlier file", h.Linkname)
		}
		if records[i].link > 0 {
			i = records[i].link - 1
		}
		return record{path: p, mode: records[i].mode, link: i + 1}, nil
	case tar.TypeChar, tar.TypeBlock:
		rec.mode |= tree.TypeChar
		if h.Typeflag == tar.TypeBlock {
			rec.mode ^= tree.TypeChar ^ tree.TypeBlock
		}
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 1<<12-1 || h.Devminor > 1<<20-1 {
			return record{}, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		rec.major, rec.minor = uint32(h.Devmajor), uint32(h.Devminor)
	case tar.TypeFifo:
		rec.mode |= tree.TypeFifo
	default:
		return record{}, fmt.Errorf("type %q is not allowed in a .deb", h.Typeflag)
	}
	if rec.path == "/" && rec.mode&tree.TypeMask != tree.TypeDir {
		return record{}, fmt.Errorf("the root must be a directory")
	}
	return rec, nil
}

// memberPath makes "./usr/bin/x", "usr/bin/x" and "/usr/bin/x" alike, as dpkg
// does, and refuses what could lead elsewhere.
func memberPath(name string) (string, error) {
	const maxPath, maxName = 4095, 255 // PATH_MAX, NAME_MAX
	if len(name) > maxPath {
		return "", fmt.Errorf("path of %d bytes is too long", len(name))
	}
	if strings.ContainsAny(name, "\n\x00") {
		return "", fmt.Errorf("line end or NUL in the path")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf(`path with ".." could lead out of the tree`)
		}
		if len(part) > maxName {
			return "", fmt.Errorf("name of %d bytes is too long", len(part))
		}
	}
	return path.Clean("/" + name), nil
}

// checkTarget refuses a symbolic link that climbs above the root. A kernel
// would stop at the root, but no honest package has one.
func checkTarget(at, target string) error {
	if target == "" || len(target) > 4095 || strings.ContainsAny(target, "\n\x00") {
		return fmt.Errorf("symbolic link to %.200q is not allowed", target)
	}
	depth := strings.Count(at, "/") - 1
	if target[0] == '/' {
		depth = 0
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return fmt.Errorf("symbolic link to %.200q leads out of the tree", target)
			}
		default:
			depth++
		}
	}
	return nil
}
