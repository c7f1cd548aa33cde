// Package index reads a Debian archive's lists of packages (Packages files).
//
// Source: the Debian repository format, wiki.debian.org/DebianRepository/Format.
package index

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/debian/relation"
	"github.com/picube/picube-build/builder/debian/version"
)

// Package is one version of a package that an archive offers. Its strings are
// pieces of the text given to Parse.
type Package struct {
	Name, Version, Arch string
	Source              string // "name" or "name (version)"; "": as the package
	Section, Priority   string
	MultiArch           string // "", "same", "foreign" or "allowed"
	Essential           bool

	Depends, PreDepends, Recommends, Provides, Conflicts, Breaks string

	InstalledSize int64  // KiB
	Filename      string // below the archive's URL
	Size          int64
	SHA256        string

	// Where it was found; set by who loads the index.
	Archive, Suite string
	// NotAutomatic: its suite is for packages that are asked for, such as
	// backports. Set by who loads the index.
	NotAutomatic bool
	// Pin is the priority that its archive was given (apt_preferences(5)), 0:
	// none. Set by who loads the index.
	Pin int
}

// PinPriority returns what apt would prefer the package by: its archive's pin
// or, as without one, 500, and 1 in a suite such as backports.
func (p *Package) PinPriority() int {
	switch {
	case p.Pin != 0:
		return p.Pin
	case p.NotAutomatic:
		return 1
	}
	return 500
}

// String returns what a person calls it: "curl 8.14.1-2 arm64".
func (p *Package) String() string { return p.Name + " " + p.Version + " " + p.Arch }

// wanted are the fields that Parse uses. Trim drops the others, more than
// half of the text.
var wanted = map[string]bool{
	"Package": true, "Version": true, "Architecture": true, "Source": true, "Section": true,
	"Priority": true, "Multi-Arch": true, "Essential": true, "Depends": true, "Pre-Depends": true,
	"Recommends": true, "Provides": true, "Conflicts": true, "Breaks": true, "Installed-Size": true,
	"Filename": true, "Size": true, "SHA256": true,
}

// Trim copies a Packages file without the fields that Parse does not use.
func Trim(w io.Writer, r io.Reader) error {
	const maxLine = 1 << 20
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	out := bufio.NewWriterSize(w, 64<<10)
	keep := true
	for in.Scan() {
		line := in.Bytes()
		switch {
		case len(line) == 0:
			keep = true
		case line[0] != ' ' && line[0] != '\t':
			keep = false
			for i, c := range line {
				if c == ':' {
					keep = wanted[string(line[:i])]
					break
				}
			}
		}
		if keep {
			out.Write(line)
			out.WriteByte('\n')
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return out.Flush()
}

// Parse reads a Packages file and checks what a download or a decision will
// rest on.
func Parse(text string) ([]Package, error) {
	packages := make([]Package, 0, len(text)/400) // about as many as there are in a trimmed text
	for paragraph, err := range control.Paragraphs(text) {
		if err != nil {
			return nil, err
		}
		p, err := newPackage(paragraph)
		if err != nil {
			return nil, fmt.Errorf("package %.100q: %w", paragraph.Get("Package"), err)
		}
		packages = append(packages, p)
	}
	return packages, nil
}

func newPackage(paragraph control.Paragraph) (Package, error) {
	var p Package
	var size, installed string
	for _, f := range paragraph {
		switch f.Name {
		case "Package":
			p.Name = f.Value
		case "Version":
			p.Version = f.Value
		case "Architecture":
			p.Arch = f.Value
		case "Source":
			p.Source = f.Value
		case "Section":
			p.Section = f.Value
		case "Priority":
			p.Priority = f.Value
		case "Multi-Arch":
			p.MultiArch = f.Value
		case "Essential":
			p.Essential = f.Value == "yes"
		case "Depends":
			p.Depends = f.Value
		case "Pre-Depends":
			p.PreDepends = f.Value
		case "Recommends":
			p.Recommends = f.Value
		case "Provides":
			p.Provides = f.Value
		case "Conflicts":
			p.Conflicts = f.Value
		case "Breaks":
			p.Breaks = f.Value
		case "Installed-Size":
			installed = f.Value
		case "Filename":
			p.Filename = strings.TrimPrefix(f.Value, "./")
		case "Size":
			size = f.Value
		case "SHA256":
			p.SHA256 = f.Value
		}
	}
	if !relation.ValidName(p.Name) {
		return p, fmt.Errorf("invalid name")
	}
	if _, err := version.Parse(p.Version); err != nil {
		return p, err
	}
	if !relation.ValidName(p.Arch) {
		return p, fmt.Errorf("invalid architecture %q", p.Arch)
	}
	if err := CheckFilename(p.Filename); err != nil {
		return p, err
	}
	var err error
	if p.Size, err = strconv.ParseInt(size, 10, 64); err != nil || p.Size <= 0 {
		return p, fmt.Errorf("invalid size %q", size)
	}
	if len(p.SHA256) != 64 || strings.Trim(p.SHA256, "0123456789abcdef") != "" {
		return p, fmt.Errorf("invalid SHA256 %q", p.SHA256)
	}
	// It only feeds estimates: what is no number counts as 0.
	p.InstalledSize, _ = strconv.ParseInt(installed, 10, 64)
	return p, nil
}

// CheckFilename refuses what would leave the archive's folder.
func CheckFilename(name string) error {
	if name == "" || name != path.Clean(name) || name[0] == '/' || name == ".." || strings.HasPrefix(name, "../") ||
		strings.ContainsAny(name, "\n\r\x00\\?#") {
		return fmt.Errorf("invalid file name %q", name)
	}
	return nil
}
