package maintscript

import (
	"context"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// onceMore returns programs that do nothing now and leave the package that
// calls them half-configured. All else that its postinst does is done, so that
// packages that need it can be configured, and users and groups get the
// numbers that they get from dpkg; the first boot runs the postinst again,
// which Debian's policy wants to be harmless (section 6.2).
func (w *world) onceMore() map[string]shell.Command {
	const emacsInstall = "/usr/lib/emacsen-common/emacs-install"
	all := map[string]shell.Command{}
	for program, one := range map[string]struct {
		calls []string // the arguments it may be called with
		why   string
	}{
		"make-ssl-cert": {[]string{"generate-default-snakeoil"}, "a key is of one card"},
		"setupcon":      {[]string{"", "--save-only"}, "no keymap is compiled at build"},
		emacsInstall:    {[]string{"emacs"}, "no Emacs Lisp is compiled at build"},
	} {
		all[program] = func(ctx context.Context, p *shell.Process) int {
			if args := strings.Join(p.Args[1:], " "); !slices.Contains(one.calls, args) {
				p.Unsupported("%s", args)
			}
			w.again[w.running] = &AgainError{p.Name(), one.why}
			w.skip(p.Name(), one.why)
			return 0
		}
	}
	return all
}

// emacsPackage is emacs-package-install. What add-ons make, they make for
// each Emacs; those are installed by the first boot, add-ons included.
func emacsPackage(ctx context.Context, p *shell.Process) error {
	const lib, state = "/usr/lib/emacsen-common/packages", "/var/lib/emacsen-common/state"
	if len(p.Args) != 3 || strings.Contains(p.Args[2], "/") {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	installed := state + "/package/installed/" + p.Args[2]
	switch p.Args[1] {
	case "--preinst":
		if p.Tree.Exists(installed) {
			return p.Tree.Remove(installed)
		}
		return nil
	case "--postinst":
		emacsen, _ := p.Tree.ReadDir(state + "/flavor/installed")
		if len(emacsen) > 0 || !p.Tree.Exists(lib+"/compat/"+p.Args[2]) {
			p.Unsupported("%s", strings.Join(p.Args, " "))
		}
		if p.Tree.Exists(installed) {
			return nil
		}
		return p.Tree.WriteFile(installed, nil, 0o644)
	}
	p.Unsupported("%s", p.Args[1])
	return nil
}
