package systemd

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// Commands returns the programs by name.
func Commands() map[string]shell.Command {
	return map[string]shell.Command{
		"systemctl":          systemctl,
		"deb-systemd-helper": helper,
		"deb-systemd-invoke": invoke,
		"update-rc.d":        updateRC,
		"invoke-rc.d":        invokeRC,
		"service":            service,
		"runlevel":           runlevel,
		"systemd-tmpfiles":   tmpfiles,
	}
}

// systemctl does what systemctl does in a chroot: it changes links, and
// everything that would need a running manager does nothing.
func systemctl(ctx context.Context, p *shell.Process) int {
	i := instance("system")
	var words []string
	quiet, presetMode := false, "full"
	args := p.Args[1:]
	for k := 0; k < len(args); k++ {
		a := args[k]
		name, value, _ := strings.Cut(a, "=")
		switch {
		case a == "--user" || a == "--global":
			i = "user"
		case a == "--quiet" || a == "-q":
			quiet = true
		case name == "--preset-mode":
			presetMode = value
		case name == "--root":
			if value != "" && value != "/" {
				p.Unsupported("--root=%s", value)
			}
		case a == "-p" || a == "-P" || a == "-t" || a == "-s" || a == "-n" || a == "-M" || a == "-H":
			k++
		case strings.HasPrefix(a, "-"):
		default:
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		return 0
	}
	action, units := words[0], words[1:]
	for k, u := range units {
		units[k] = mangle(path.Base(u))
	}
	status := 0
	fail := func(err error) {
		fmt.Fprintln(p.Stderr, err)
		status = 1
	}
	switch action {
	case "enable":
		for _, u := range units {
			some, err := i.enable(p.Tree, u, map[string]bool{})
			if err != nil {
				fail(err)
			} else if !some && !quiet {
				fmt.Fprintln(p.Stderr, "The unit files have no installation config (WantedBy=, RequiredBy=, UpheldBy=, Also=, or Alias= settings in the [Install] section).")
			}
		}
	case "disable":
		for _, u := range units {
			if err := i.disable(p.Tree, u, map[string]bool{}); err != nil {
				fail(err)
			}
		}
	case "reenable":
		for _, u := range units {
			if err := i.disable(p.Tree, u, map[string]bool{}); err != nil {
				fail(err)
			} else if _, err := i.enable(p.Tree, u, map[string]bool{}); err != nil {
				fail(err)
			}
		}
	case "preset":
		for _, u := range units {
			on := i.presetEnables(p.Tree, u)
			var err error
			switch {
			case on && presetMode != "disable-only":
				_, err = i.enable(p.Tree, u, map[string]bool{})
			case !on && presetMode != "enable-only":
				err = i.disable(p.Tree, u, map[string]bool{})
			}
			if err != nil {
				fail(err)
			}
		}
	case "mask":
		for _, u := range units {
			if err := relink(p.Tree, symlink{i.config() + "/" + u, "/dev/null"}); err != nil {
				fail(err)
			}
		}
	case "unmask":
		for _, u := range units {
			if target, err := p.Tree.Readlink(i.config() + "/" + u); err == nil && target == "/dev/null" {
				if err := p.Tree.Remove(i.config() + "/" + u); err != nil {
					fail(err)
				}
			}
		}
	case "is-enabled":
		status = 1
		for _, u := range units {
			state := i.state(p.Tree, u)
			if !quiet {
				fmt.Fprintln(p.Stdout, state)
			}
			if state == "enabled" || state == "static" || state == "indirect" {
				status = 0
			}
			if state == "not-found" {
				status = 4
			}
		}
	case "set-default":
		if len(units) != 1 {
			return 1
		}
		target := i.find(p.Tree, units[0])
		if target == nil {
			return 1
		}
		if err := relink(p.Tree, symlink{i.config() + "/default.target", target.path}); err != nil {
			fail(err)
		}
	case "get-default":
		if target, err := p.Tree.RealPath(i.config() + "/default.target"); err == nil && p.Tree.Exists(target) {
			fmt.Fprintln(p.Stdout, path.Base(target))
		} else {
			fmt.Fprintln(p.Stdout, "graphical.target")
		}
	case "is-active", "is-failed":
		if !quiet {
			fmt.Fprintln(p.Stdout, "inactive")
		}
		status = 3
	case "is-system-running":
		fmt.Fprintln(p.Stdout, "offline")
		status = 1
	case "daemon-reload", "daemon-reexec", "start", "stop", "restart", "try-restart", "reload", "reload-or-restart",
		"try-reload-or-restart", "condrestart", "kill", "reset-failed", "isolate", "import-environment", "set-environment":
		fmt.Fprintf(p.Stderr, "Running in chroot, ignoring command '%s'\n", action)
	case "show", "status", "list-units", "list-timers", "list-sockets", "cat", "list-unit-files":
		fmt.Fprintln(p.Stderr, "System has not been booted with systemd as init system (PID 1). Can't operate.")
		status = 1
	default:
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	return status
}

// mangle completes a unit's name as systemctl does.
func mangle(name string) string {
	switch path.Ext(name) {
	case ".service", ".socket", ".target", ".timer", ".mount", ".path", ".slice", ".automount", ".swap", ".device", ".scope":
		return name
	}
	return name + ".service"
}

// invoke is deb-systemd-invoke: it starts and stops, so it does nothing.
func invoke(context.Context, *shell.Process) int { return 0 }

// runlevel is what runlevel says where nothing was booted.
func runlevel(_ context.Context, p *shell.Process) int {
	fmt.Fprintln(p.Stdout, "unknown")
	return 1
}

// invokeRC is invoke-rc.d under a policy that forbids everything, which is
// how images are built: it succeeds and does nothing.
func invokeRC(ctx context.Context, p *shell.Process) int {
	var words []string
	for _, a := range p.Args[1:] {
		switch {
		case a == "--query":
			return 101
		case !strings.HasPrefix(a, "-"):
			words = append(words, a)
		}
	}
	if len(words) < 2 {
		p.Errorf("syntax error: missing required parameter")
		return 103
	}
	if !p.Tree.Exists("/etc/init.d/"+words[0]) && instance("system").find(p.Tree, mangle(words[0])) == nil {
		p.Errorf("unknown initscript, /etc/init.d/%s not found.", words[0])
		return 100
	}
	fmt.Fprintf(p.Stdout, "invoke-rc.d: policy-rc.d denied execution of %s.\n", words[1])
	return 0
}

// service starts nothing either.
func service(ctx context.Context, p *shell.Process) int { return 0 }

var errHeader = errors.New("cannot read its LSB header")
