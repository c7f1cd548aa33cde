// Package deb reads Debian binary packages: the control files as bytes, the
// data members as entries whose content is read when somebody asks for it.
//
// A package's data.tar is decoded once and kept uncompressed in a Store, by
// the digest of the .deb, with an index of what lies where; a later open
// reads the index only.
//
// Sources: deb(5), tar(5) as deb(5) narrows it (v7, ustar, GNU long names),
// the .xz file format 1.2.
//
// Not supported: members in .bz2 and .lzma, which no Debian release since 8
// has used; PAX headers and sparse files, which dpkg refuses too. User and
// group names in the tar headers are ignored, numbers count: the archive's
// packages use static ids only.
package deb

import (
	"github.com/picube/picube-build/builder/tree"
)

// Bounds on what a package may ask for; beyond them it is refused.
const (
	MaxControl = 64 << 20 // bytes of control.tar
	MaxData    = 8 << 30  // bytes of data.tar
	MaxEntries = 1 << 20  // members of data.tar
)

// File says where a .deb lies and what it must be.
type File struct {
	Name   string // for error messages: "curl"
	Path   string
	SHA256 string // lower-case hex
	Size   int64
}

// Package is an opened .deb. It is valid until its Store is closed.
type Package struct {
	File File
	// Control holds control.tar's files by name: "control", "postinst",
	// "conffiles", "md5sums", "triggers" …
	Control map[string][]byte
	// Scripts' modes say nothing that dpkg heeds, so they are not kept.

	pack *pack
}

// Entry is one member of data.tar: an absolute slash path and what lies there.
type Entry struct {
	Path  string
	Inode *tree.Inode
}

// Entries returns the data members in archive order, the root "/" among them
// if the archive has it. Every call makes new inodes, one for all paths of a
// hard-linked file, so that the same package can go into several trees.
func (p *Package) Entries() []Entry {
	entries := make([]Entry, len(p.pack.index.records))
	inodes := make([]tree.Inode, len(entries))
	for i, r := range p.pack.index.records {
		if r.link > 0 {
			entries[i] = Entry{r.path, entries[r.link-1].Inode}
			continue
		}
		n := &inodes[i]
		*n = tree.Inode{Mode: r.mode, UID: r.uid, GID: r.gid, ModTime: r.modTime, Target: r.target, Major: r.major, Minor: r.minor}
		if r.size > 0 {
			n.Content = content{p.pack, r.offset, r.size}
		}
		entries[i] = Entry{r.path, n}
	}
	return entries
}

// DataSize returns the length of the decoded data.tar in bytes.
func (p *Package) DataSize() int64 { return p.pack.index.size() }
