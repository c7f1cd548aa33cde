// Package archivetest makes Debian packages and signed archives for tests, so
// that nothing made elsewhere need be stored or downloaded.
package archivetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Deb is a package to be made. The zero values of all but Package are good
// defaults.
type Deb struct {
	Package string
	Version string // "1.0"
	Arch    string // "all"
	// Fields are further lines of the control file: "Depends: libc6\n".
	Fields string
	// Control holds further control files: postinst, conffiles …
	Control map[string]string
	// Data holds the data members. Parent directories that are not listed
	// are made first.
	Data []Member
	// Compression of both members: "xz" (default), "gz", "zst", "none".
	Compression string
	// BlockSize splits an .xz data member into blocks of so many bytes.
	BlockSize int64
}

// Member is a data member; see File, Dir, Symlink and Hardlink.
type Member struct {
	Name         string // "/usr/bin/x"; written as "./usr/bin/x"
	Type         byte   // as in archive/tar
	Mode         int64
	UID, GID     int
	ModTime      int64
	Content      string
	Target       string
	Major, Minor int64
	// Raw keeps the name as it is and makes no parents: for hostile packages.
	Raw bool
}

// File is a regular file.
func File(name string, mode int64, content string) Member {
	return Member{Name: name, Type: tar.TypeReg, Mode: mode, Content: content}
}

// Dir is a directory.
func Dir(name string, mode int64) Member {
	return Member{Name: name, Type: tar.TypeDir, Mode: mode}
}

// Symlink is a symbolic link.
func Symlink(name, target string) Member {
	return Member{Name: name, Type: tar.TypeSymlink, Mode: 0o777, Target: target}
}

// Hardlink is a further name of an earlier file.
func Hardlink(name, target string) Member {
	return Member{Name: name, Type: tar.TypeLink, Mode: 0o644, Target: "." + path.Clean("/"+target)}
}

// Epoch is the modification time of all members that have none.
const Epoch = 1_750_000_000

// Filename returns the package's usual place in an archive's pool.
func (d Deb) Filename() string {
	d = d.defaults()
	_, version, ok := strings.Cut(d.Version, ":")
	if !ok {
		version = d.Version
	}
	return fmt.Sprintf("pool/main/%s/%s/%s_%s_%s.deb", d.Package[:1], d.Package, d.Package, version, d.Arch)
}

func (d Deb) defaults() Deb {
	if d.Version == "" {
		d.Version = "1.0"
	}
	if d.Arch == "" {
		d.Arch = "all"
	}
	if d.Compression == "" {
		d.Compression = "xz"
	}
	return d
}

// Stanza returns the control file.
func (d Deb) Stanza() string {
	d = d.defaults()
	s := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\n", d.Package, d.Version, d.Arch)
	if !strings.Contains(d.Fields, "Maintainer:") {
		s += "Maintainer: Nobody <nobody@example.org>\n"
	}
	if d.Fields != "" {
		s += strings.TrimRight(d.Fields, "\n") + "\n"
	}
	if !strings.Contains(d.Fields, "Description:") {
		s += "Description: a package of a test\n"
	}
	return s
}

// Build returns the .deb.
func (d Deb) Build(t testing.TB) []byte {
	t.Helper()
	d = d.defaults()
	control := []Member{{Name: "./", Type: tar.TypeDir, Mode: 0o755, Raw: true}, File("/control", 0o644, d.Stanza())}
	for _, name := range slices.Sorted(maps.Keys(d.Control)) {
		mode := int64(0o644)
		switch name {
		case "preinst", "postinst", "prerm", "postrm", "config":
			mode = 0o755
		}
		control = append(control, File("/"+name, mode, d.Control[name]))
	}
	return Ar(
		Part{"debian-binary", []byte("2.0\n")},
		Part{"control.tar" + suffix(d.Compression), Compress(t, d.Compression, 0, Tar(t, control))},
		Part{"data.tar" + suffix(d.Compression), Compress(t, d.Compression, d.BlockSize, Tar(t, withParents(d.Data)))},
	)
}

func withParents(members []Member) []Member {
	list := []Member{{Name: "./", Type: tar.TypeDir, Mode: 0o755, Raw: true}}
	have := map[string]bool{"/": true}
	var parents func(string)
	parents = func(dir string) {
		if !have[dir] {
			have[dir] = true
			parents(path.Dir(dir))
			list = append(list, Dir(dir, 0o755))
		}
	}
	for _, m := range members {
		if !m.Raw {
			parents(path.Dir(path.Clean(m.Name)))
			have[path.Clean(m.Name)] = true
		}
		list = append(list, m)
	}
	return list
}

func suffix(compression string) string {
	if compression == "none" {
		return ""
	}
	return "." + compression
}

// Tar returns a tar of the members, in the format that dpkg-deb writes.
func Tar(t testing.TB, members []Member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{
			Name: m.Name, Typeflag: m.Type, Mode: m.Mode, Uid: m.UID, Gid: m.GID,
			Size: int64(len(m.Content)), Linkname: m.Target, Devmajor: m.Major, Devminor: m.Minor,
			ModTime: time.Unix(Epoch, 0), Format: tar.FormatGNU,
		}
		if m.ModTime != 0 {
			h.ModTime = time.Unix(m.ModTime, 0)
		}
		if !m.Raw {
			h.Name = "." + path.Clean("/"+m.Name)
			if m.Type == tar.TypeDir {
				h.Name += "/"
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("cannot make a tar: member %q: %v", m.Name, err)
		}
		if _, err := io.WriteString(w, m.Content); err != nil {
			t.Fatalf("cannot make a tar: member %q: %v", m.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("cannot make a tar: %v", err)
	}
	return b.Bytes()
}

// Compress compresses b: "xz" (in blocks of blockSize bytes, if that is not
// 0), "gz", "zst" or "none".
func Compress(t testing.TB, compression string, blockSize int64, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch compression {
	case "none":
		return b
	case "xz":
		w, err = xz.WriterConfig{DictCap: 1 << 16, BlockSize: blockSize}.NewWriter(&out)
	case "gz":
		w = gzip.NewWriter(&out)
	case "zst":
		w, err = zstd.NewWriter(&out)
	default:
		t.Fatalf("cannot compress: unknown compression %q", compression)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatalf("cannot compress: %v", err)
	}
	return out.Bytes()
}

// Part is a member of an ar archive.
type Part struct {
	Name string
	Data []byte
}

// Ar returns an ar archive.
func Ar(parts ...Part) []byte {
	b := []byte("!<arch>\n")
	for _, p := range parts {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", p.Name, Epoch, 0, 0, "100644", len(p.Data))
		b = append(b, p.Data...)
		if len(p.Data)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}
