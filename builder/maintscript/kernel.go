package maintscript

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/version"
	"github.com/picube/picube-build/builder/maintscript/shell"
	"github.com/picube/picube-build/builder/tree"
)

// updateInitramfs notes for which kernels an initramfs is wanted: the builder
// makes its own. Everything else is as initramfs-tools does it, so that
// triggers and hooks take their usual way.
func (w *world) updateInitramfs(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(p.Stdout, "initramfs-tools")
		return 0
	}
	if len(args) == 1 && args[0] == "-u" && p.Env["DPKG_MAINTSCRIPT_PACKAGE"] != "" {
		if status := p.Run(ctx, shell.Call{Args: []string{"dpkg-trigger", "--no-await", "update-initramfs"}}); status == 0 {
			fmt.Fprintln(p.Stdout, "update-initramfs: deferring update (trigger activated)")
			return 0
		}
	}
	w.skip("update-initramfs", "the builder makes the initramfs")
	for i, a := range args {
		if a == "-k" && i+1 < len(args) && args[i+1] != "all" && !slices.Contains(args, "-d") {
			w.kernels[args[i+1]] = true
		}
	}
	return 0
}

// linuxRunHooks runs what lies in /etc/kernel and /usr/share/kernel.
func linuxRunHooks(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	i := slices.Index(args, "--")
	if i < 3 {
		p.Errorf("cannot use the arguments %q", args)
		return 2
	}
	words, params := args[:i], args[i+1:]
	env := map[string]string{}
	for k, v := range p.Env {
		env[k] = v
	}
	var quoted []string
	for _, s := range params {
		quoted = append(quoted, "'"+strings.ReplaceAll(s, "'", `'\''`)+"'")
	}
	env["DEB_MAINT_PARAMS"] = strings.Join(quoted, " ")
	// A hook in /etc hides the one of the same name in /usr.
	hooks := map[string]string{}
	prefix := ""
	if words[0] == "headers" {
		prefix = "header_"
	}
	for _, dir := range []string{"/usr/share/kernel/", "/etc/kernel/"} {
		dir += prefix + words[1] + ".d"
		names, _ := p.Tree.ReadDir(dir)
		for _, n := range names {
			if !strings.ContainsAny(n, ".~") {
				hooks[n] = dir + "/" + n
			}
		}
	}
	names := make([]string, 0, len(hooks))
	for n := range hooks {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		f, err := p.Tree.Stat(hooks[n])
		if err != nil || !f.IsRegular() || f.Perm()&0o111 == 0 {
			continue
		}
		if status := p.Run(ctx, shell.Call{Args: append([]string{hooks[n]}, words[2:]...), Env: env}); status != 0 {
			p.Errorf("%s exited with return code %d", hooks[n], status)
			return status
		}
	}
	return 0
}

// linuxVersion is linux-version(1).
func linuxVersion(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	if len(args) == 0 {
		return 2
	}
	switch args[0] {
	case "list":
		for _, v := range kernels(p.Tree) {
			fmt.Fprintln(p.Stdout, v)
		}
		return 0
	case "compare":
		if len(args) == 4 {
			op := map[string]string{"lt": "<<", "le": "<=", "eq": "=", "ge": ">=", "gt": ">>"}[args[2]]
			if op != "" && version.Satisfies(args[1], op, args[3]) {
				return 0
			}
			return 1
		}
	case "sort":
		list := slices.DeleteFunc(slices.Clone(args[1:]), func(s string) bool { return s == "--reverse" })
		if len(list) == 0 {
			text, err := shell.ReadAll(p.Stdin)
			if err != nil {
				return 1
			}
			list = strings.Fields(string(text))
		}
		slices.SortStableFunc(list, version.Compare)
		if slices.Contains(args, "--reverse") {
			slices.Reverse(list)
		}
		for _, v := range list {
			fmt.Fprintln(p.Stdout, v)
		}
		return 0
	}
	return 2
}

// kernels returns the versions of the kernels in /boot, oldest first.
func kernels(t *tree.Tree) []string {
	names, _ := t.ReadDir("/boot")
	var out []string
	for _, n := range names {
		for _, stem := range []string{"vmlinuz-", "vmlinux-"} {
			if v, found := strings.CutPrefix(n, stem); found && !strings.HasSuffix(n, ".sig") {
				out = append(out, v)
			}
		}
	}
	slices.SortStableFunc(out, version.Compare)
	return out
}

// linuxSymlinks makes /vmlinuz and /initrd.img, and the .old ones, lead to the
// two kernels that matter most: the one just installed, then those that the
// links led to, then the newest.
func linuxSymlinks(ctx context.Context, p *shell.Process) error {
	if len(p.Args) != 4 {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	change, changed, image := p.Args[1], p.Args[2], p.Args[3]
	t := p.Tree
	dir, wanted := "/", true
	if text, err := t.ReadFile("/etc/kernel-img.conf"); err == nil {
		for line := range strings.SplitSeq(string(text), "\n") {
			key, value, _ := strings.Cut(line, "=")
			switch strings.TrimSpace(strings.ToLower(key)) {
			case "do_symlinks":
				value = strings.ToLower(strings.TrimSpace(value))
				wanted = value != "no" && value != "0" && value != "false"
			case "image_dest":
				dir = tree.Clean(strings.TrimSpace(value))
			case "link_in_boot":
				if v := strings.ToLower(strings.TrimSpace(value)); v == "yes" || v == "1" || v == "true" {
					dir = "/boot"
				}
			}
		}
	}
	if !wanted {
		return nil
	}
	dir = strings.TrimSuffix(dir, "/") + "/"
	type entry struct{ image, initrd string }
	var list []entry
	for _, v := range kernels(t) {
		if v == changed {
			continue
		}
		e := entry{image: "/boot/vmlinuz-" + v}
		if t.Exists("/boot/initrd.img-" + v) {
			e.initrd = "/boot/initrd.img-" + v
		}
		list = append(list, e)
	}
	current := entry{image, "/boot/initrd.img-" + changed}
	if change == "upgrade" {
		list = append(list, current)
	}
	for _, link := range []string{dir + "vmlinuz.old", dir + "vmlinuz"} {
		target, err := t.Readlink(link)
		if err != nil {
			continue
		}
		if !strings.HasPrefix(target, "/") {
			target = path.Join(dir, target)
		}
		if i := slices.IndexFunc(list, func(e entry) bool { return e.image == target }); i >= 0 {
			e := list[i]
			list = append(slices.Delete(list, i, i+1), e)
		}
	}
	if change == "install" {
		list = append(list, current)
	}
	link := func(target, name string) error {
		name = dir + name
		if err := t.RemoveAll(name); err != nil || target == "" {
			return err
		}
		return t.Symlink(strings.TrimPrefix(target, dir), name)
	}
	var last, old entry
	if n := len(list); n > 0 {
		last, old = list[n-1], list[max(0, n-2)]
	}
	for _, l := range []struct{ target, name string }{
		{old.image, "vmlinuz.old"}, {old.initrd, "initrd.img.old"}, {last.image, "vmlinuz"}, {last.initrd, "initrd.img"},
	} {
		if err := link(l.target, l.name); err != nil {
			return err
		}
	}
	return nil
}
