// Package configure lets the first boot finish what the build could not:
// packages whose maintainer scripts only a running system can execute.
package configure

import (
	_ "embed"
	"errors"

	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/unit"
)

//go:embed picube-configure.service
var service []byte

// Layer installs the unit that runs dpkg where dpkg still owes something.
type Layer struct{}

// Name returns "configure".
func (Layer) Name() string { return "configure" }

// Packages returns nothing: dpkg is essential.
func (Layer) Packages(*plan.Root) []string { return nil }

// Apply installs the unit; it starts nothing when every package is configured.
//
// It also notes what the build has done already: users, hardware database,
// message catalog and library cache are those of this /usr, so systemd need
// not make them again at the first boot (systemd-update-done.service(8)).
func (Layer) Apply(r *plan.Root, t *tree.Tree) error {
	return errors.Join(
		t.SetModTime("/usr", t.Epoch()),
		t.WriteFile("/etc/.updated", nil, 0o644),
		t.WriteFile("/var/.updated", nil, 0o644),
		unit.Install(t, "picube-configure.service", service),
	)
}
