// Package apt lets the card upgrade itself from where it was built from.
package apt

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// The public names of Debian's archives: the builder's own mirror may be one
// that the card cannot reach.
const (
	publicMirror   = "http://ftp.debian.org/debian"
	publicSecurity = "http://security.debian.org/debian-security"
	keyring        = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// Layer writes apt's sources.
type Layer struct{}

// Name returns "apt".
func (Layer) Name() string { return "apt" }

// Packages returns apt with Debian's keys; someone else's image has its own.
func (Layer) Packages(r *plan.Root) []string {
	if r.Cube.Base.Kind == blueprint.BaseImage {
		return nil
	}
	return []string{"apt", "ca-certificates", "debian-archive-keyring"}
}

// Apply writes /etc/apt/sources.list.d/debian.sources (sources.list(5)).
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	base := r.Cube.Base
	for _, a := range base.Archives {
		if err := addArchive(t, a); err != nil {
			return err
		}
	}
	if base.Kind == blueprint.BaseImage {
		return nil // it upgrades from where its maker says
	}
	mirror := base.Mirror
	if mirror == "" {
		mirror = publicMirror
	}
	components := strings.Join(base.Components, " ")
	if components == "" {
		components = "main"
	}
	text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: %s\nSigned-By: %s\n\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: %s\nSigned-By: %s\n",
		mirror, base.Suite, base.Suite, components, keyring, publicSecurity, base.Suite, components, keyring)
	return errors.Join(
		t.MkdirAll("/etc/apt/sources.list.d", 0o755),
		t.RemoveAll("/etc/apt/sources.list"),
		t.WriteFile("/etc/apt/sources.list.d/debian.sources", []byte(text), 0o644),
	)
}

// addArchive writes a further archive's source with its key and, if it has a
// priority of its own, the pin for it (apt_preferences(5)).
func addArchive(t *tree.Tree, a blueprint.Archive) error {
	key := "/etc/apt/keyrings/" + a.Name + ".asc"
	text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n",
		a.URL, strings.Join(a.Suites, " "), strings.Join(a.Components, " "), key)
	files := map[string]string{
		key: strings.TrimSpace(a.Key) + "\n",
		"/etc/apt/sources.list.d/" + a.Name + ".sources": text,
	}
	if a.Priority != blueprint.DefaultPriority {
		u, err := url.Parse(a.URL)
		if err != nil {
			return fmt.Errorf("archive %s: %w", a.Name, err)
		}
		files["/etc/apt/preferences.d/"+a.Name+".pref"] = fmt.Sprintf("Package: *\nPin: origin \"%s\"\nPin-Priority: %d\n", u.Hostname(), a.Priority)
	}
	for p, text := range files {
		if err := errors.Join(t.MkdirAll(path.Dir(p), 0o755), t.WriteFile(p, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}
