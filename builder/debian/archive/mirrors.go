package archive

import (
	"bufio"
	"bytes"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
)

// Mirrors are the places to ask for Debian's archives, in order of preference.
type Mirrors struct {
	Debian   []string
	Security []string
}

// HostMirrors returns the mirrors that the build host's own apt uses, where
// they are mirrors of Debian itself, and Debian's public names otherwise.
// Etc is apt's configuration, os.DirFS("/etc/apt"); a host without apt has
// none, and what cannot be read counts as missing.
//
// Sources: sources.list(5).
func HostMirrors(etc fs.FS) Mirrors {
	var found Mirrors
	names := []string{"sources.list"}
	more, _ := fs.Glob(etc, "sources.list.d/*") // sorted
	for _, name := range append(names, more...) {
		b, err := fs.ReadFile(etc, name)
		if err != nil {
			continue
		}
		switch path.Ext(name) {
		case ".list":
			for _, s := range oneLine(b) {
				found.add(s)
			}
		case ".sources":
			for _, s := range deb822(b) {
				found.add(s)
			}
		}
	}
	if found.Debian == nil {
		found.Debian = []string{"http://ftp.debian.org/debian"}
	}
	if found.Security == nil {
		found.Security = []string{"http://security.debian.org/debian-security"}
	}
	return found
}

// aptSource is an entry of apt's sources.
type aptSource struct {
	uris, suites, components []string
	signedBy                 string
}

// add takes a source's URIs if they are Debian's: other archives live at
// ".../debian" too, so component and key must fit.
func (m *Mirrors) add(s aptSource) {
	if !slices.Contains(s.components, "main") || s.signedBy != "" && !strings.Contains(s.signedBy, "debian-archive") {
		return
	}
	for _, uri := range s.uris {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			continue
		}
		if strings.Contains(u.Host, "raspberrypi") { // Raspberry Pi OS adds its own beside Debian's
			continue
		}
		clean := strings.TrimRight(uri, "/")
		switch path.Base(u.Path) {
		case "debian":
			if !slices.Contains(m.Debian, clean) {
				m.Debian = append(m.Debian, clean)
			}
		case "debian-security":
			if !slices.Contains(m.Security, clean) {
				m.Security = append(m.Security, clean)
			}
		}
	}
}

func oneLine(b []byte) []aptSource {
	var list []aptSource
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		var s aptSource
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, _ := strings.Cut(rest[1:], "]")
			for option := range strings.FieldsSeq(options) {
				if value, ok := strings.CutPrefix(option, "signed-by="); ok {
					s.signedBy = value
				}
			}
			rest = after
		}
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			continue
		}
		s.uris, s.suites, s.components = fields[:1], fields[1:2], fields[2:]
		list = append(list, s)
	}
	return list
}

func deb822(b []byte) []aptSource {
	var list []aptSource
	for p, err := range control.Paragraphs(string(b)) {
		if err != nil {
			break
		}
		if enabled := strings.ToLower(p.Get("Enabled")); enabled == "no" || enabled == "false" || enabled == "0" {
			continue
		}
		if !slices.Contains(strings.Fields(p.Get("Types")), "deb") {
			continue
		}
		list = append(list, aptSource{
			uris:       strings.Fields(p.Get("URIs")),
			suites:     strings.Fields(p.Get("Suites")),
			components: strings.Fields(p.Get("Components")),
			signedBy:   p.Get("Signed-By"),
		})
	}
	return list
}
