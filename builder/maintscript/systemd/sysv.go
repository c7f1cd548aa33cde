package systemd

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// updateRC is update-rc.d without insserv: every link has the number 01, and
// a script that has links keeps them.
func updateRC(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if args[0] != "-f" {
			p.Errorf("error: unknown option")
			return 1
		}
		args = args[1:]
	}
	if len(args) < 2 || strings.Contains(args[0], "/") {
		p.Errorf("error: not enough arguments")
		return 1
	}
	name, action := args[0], args[1]
	var err error
	switch action {
	case "remove":
		for _, l := range rcLinks(p.Tree, name) {
			if err = p.Tree.Remove(l); err != nil {
				break
			}
		}
	case "defaults", "start", "stop", "defaults-disabled":
		err = rcDefaults(p.Tree, name, action == "defaults-disabled")
	case "enable", "disable":
		if err = rcToggle(p.Tree, name, action == "enable", args[2:]); err == nil && p.Env["_SKIP_SYSTEMD_NATIVE"] != "1" {
			i := instance("system")
			if i.find(p.Tree, name+".service") == nil {
				break
			}
			if action == "enable" {
				_, err = i.enable(p.Tree, name+".service", map[string]bool{})
			} else {
				err = i.disable(p.Tree, name+".service", map[string]bool{})
			}
		}
	default:
		p.Errorf("error: unknown action %s", action)
		return 1
	}
	if err != nil {
		p.Errorf("error: %v", err)
		return 1
	}
	return 0
}

// rcLinks returns a script's links in all run levels, sorted.
func rcLinks(t *tree.Tree, name string) []string {
	var out []string
	for _, level := range "0123456S" {
		dir := "/etc/rc" + string(level) + ".d"
		names, _ := t.ReadDir(dir)
		for _, n := range names {
			if len(n) > 3 && n[3:] == name && (n[0] == 'S' || n[0] == 'K') {
				out = append(out, dir+"/"+n)
			}
		}
	}
	return out
}

func rcDefaults(t *tree.Tree, name string, disabled bool) error {
	if len(rcLinks(t, name)) > 0 {
		return nil
	}
	start, stop, err := lsbHeader(t, name)
	if err != nil {
		return err
	}
	kind := "S"
	if disabled {
		kind = "K"
	}
	make := func(kind, level string) error {
		if len(level) != 1 || !strings.Contains("0123456S", level) {
			return nil
		}
		dir := "/etc/rc" + level + ".d"
		if err := t.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		link := dir + "/" + kind + "01" + name
		if _, err := t.Lstat(link); err == nil {
			return nil
		}
		return t.Symlink("../init.d/"+name, link)
	}
	for _, level := range start {
		if err := make(kind, level); err != nil {
			return err
		}
	}
	for _, level := range stop {
		if err := make("K", level); err != nil {
			return err
		}
	}
	return nil
}

// lsbHeader reads a script's Default-Start and Default-Stop.
func lsbHeader(t *tree.Tree, name string) (start, stop []string, err error) {
	text, err := t.ReadFile("/etc/init.d/" + name)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errHeader, err)
	}
	in := false
	for line := range strings.SplitSeq(string(text), "\n") {
		switch trimmed := strings.TrimRight(line, " \t\r"); {
		case trimmed == "### BEGIN INIT INFO":
			in = true
		case trimmed == "### END INIT INFO":
			return start, stop, nil
		case in:
			if levels, found := strings.CutPrefix(line, "# Default-Start:"); found {
				start = strings.Fields(levels)
			}
			if levels, found := strings.CutPrefix(line, "# Default-Stop:"); found {
				stop = strings.Fields(levels)
			}
		}
	}
	return start, stop, nil
}

func rcToggle(t *tree.Tree, name string, on bool, levels []string) error {
	if len(levels) == 0 {
		var err error
		if levels, _, err = lsbHeader(t, name); err != nil {
			return err
		}
	}
	found := false
	for _, link := range rcLinks(t, name) {
		level := strings.TrimSuffix(strings.TrimPrefix(path.Dir(link), "/etc/rc"), ".d")
		if !strings.Contains("S2345", level) || !strings.Contains(strings.Join(levels, ""), level) {
			continue
		}
		found = true
		base := path.Base(link)
		kind := "K"
		if on {
			kind = "S"
		}
		if base[:1] == kind {
			continue
		}
		if err := t.Rename(link, path.Dir(link)+"/"+kind+base[1:]); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("no runlevel symlinks to modify, aborting!")
	}
	return nil
}
