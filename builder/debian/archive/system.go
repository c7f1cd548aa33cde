package archive

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// Files are a system's files: *tree.Tree.
type Files interface {
	ReadFile(p string) ([]byte, error)
	ReadDir(p string) ([]string, error)
}

// OfSystem returns the archives that a system's apt asks for packages, with
// the keys that it trusts for each. Debian's own are called "debian" and
// "debian-security", Raspberry Pi's "raspberrypi", others after their address.
//
// Sources: sources.list(5), apt-secure(8).
func OfSystem(files Files) ([]Archive, error) {
	const etc = "/etc/apt/"
	names := []string{"sources.list"}
	more, _ := files.ReadDir(etc + "sources.list.d")
	for _, n := range more {
		names = append(names, "sources.list.d/"+n)
	}
	var list []Archive
	var errs []error
	for _, name := range names {
		text, err := files.ReadFile(etc + name)
		if err != nil {
			continue // sources.list may be missing
		}
		var sources []aptSource
		switch path.Ext(name) {
		case ".list":
			sources = oneLine(text)
		case ".sources":
			sources = deb822(text)
		}
		for _, s := range sources {
			if list, err = addSource(list, files, s); err != nil {
				errs = append(errs, fmt.Errorf("%s%s: %w", etc, name, err))
			}
		}
	}
	if len(list) == 0 && errs == nil {
		errs = append(errs, errors.New("/etc/apt: cannot find an archive that apt asks for packages"))
	}
	return list, errors.Join(errs...)
}

// addSource adds what a source says, to an archive that is there already if
// only suites or addresses are new.
func addSource(list []Archive, files Files, s aptSource) ([]Archive, error) {
	for _, suite := range s.suites {
		if strings.HasSuffix(suite, "/") {
			return list, fmt.Errorf("%s: cannot read a flat archive", strings.Join(s.uris, " "))
		}
	}
	keys, err := trusted(files, s.signedBy)
	if err != nil {
		return list, err
	}
	for _, uri := range s.uris {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return list, fmt.Errorf("%q: cannot use an address that is not http:// or https://", uri)
		}
		a := Archive{Name: archiveName(u), URLs: []string{strings.TrimRight(uri, "/")}, Suites: s.suites, Components: s.components, Keys: keys}
		same := func(o Archive) bool {
			return o.Name == a.Name && slices.Equal(o.Components, a.Components) && bytes.Equal(o.Keys, a.Keys)
		}
		if i := slices.IndexFunc(list, same); i >= 0 {
			list[i].URLs = addMissing(list[i].URLs, a.URLs)
			list[i].Suites = addMissing(list[i].Suites, a.Suites)
			continue
		}
		taken := func(name string) bool {
			return slices.ContainsFunc(list, func(o Archive) bool { return o.Name == name })
		}
		for n, stem := 2, a.Name; taken(a.Name); n++ {
			a.Name = fmt.Sprintf("%s-%d", stem, n)
		}
		list = append(list, a)
	}
	return list, nil
}

func addMissing(list, more []string) []string {
	list = slices.Clone(list)
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// archiveName is an archive's name in locks and messages.
func archiveName(u *url.URL) string {
	host := u.Hostname()
	base := path.Base(u.Path)
	switch {
	case strings.HasPrefix(host, "archive.raspberrypi."):
		return "raspberrypi"
	case host == "raspbian.raspberrypi.org" || host == "raspbian.raspberrypi.com":
		return "raspbian"
	case base == "debian" || base == "debian-security":
		return base
	}
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(host+u.Path)), "-.")
}

// trusted returns the keys that a source's Signed-By names: files, or a key
// that stands there itself. Without one it is all that the system trusts.
func trusted(files Files, signedBy string) ([]byte, error) {
	if strings.Contains(signedBy, "-----BEGIN") {
		var lines []string
		for line := range strings.Lines(strings.TrimSpace(signedBy)) {
			if line = strings.TrimSpace(line); line == "." { // an empty one in a deb822 field
				line = ""
			}
			lines = append(lines, line)
		}
		return []byte(strings.Join(lines, "\n") + "\n"), nil
	}
	var names []string
	for _, name := range strings.FieldsFunc(signedBy, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		if !strings.HasPrefix(name, "/") {
			return nil, fmt.Errorf("cannot trust by fingerprint alone: Signed-By %s", name)
		}
		names = append(names, name)
	}
	if names == nil {
		const dir = "/etc/apt/trusted.gpg.d"
		more, _ := files.ReadDir(dir)
		for _, n := range more {
			if e := path.Ext(n); e == ".gpg" || e == ".asc" {
				names = append(names, dir+"/"+n)
			}
		}
		if _, err := files.ReadFile("/etc/apt/trusted.gpg"); err == nil {
			names = append(names, "/etc/apt/trusted.gpg")
		}
	}
	var all openpgp.EntityList
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		keys, err := readKeys(text)
		if err != nil {
			return nil, fmt.Errorf("%s: cannot read its keys: %w", name, err)
		}
		all = append(all, keys...)
	}
	var out bytes.Buffer
	for _, k := range all {
		if err := k.Serialize(&out); err != nil {
			return nil, err
		}
	}
	if out.Len() == 0 {
		return nil, errors.New("cannot find a key that apt trusts")
	}
	return out.Bytes(), nil
}
