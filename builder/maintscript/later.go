package maintscript

import (
	"context"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// later returns programs that only make caches of what lies in a directory,
// each behind a trigger of dpkg. They do nothing now, but their trigger is
// left pending, so that the first boot makes the caches the package's own
// way.
func (w *world) later() map[string]shell.Command {
	all := map[string]shell.Command{}
	for program, trigger := range map[string]string{
		"fc-cache":     "/usr/share/fonts",
		"mandb":        "/usr/share/man",
		"install-info": "/usr/share/info",
	} {
		all[program] = func(context.Context, *shell.Process) int {
			w.pending[trigger] = true
			w.skip(program, "the first boot makes this cache")
			return 0
		}
	}
	// Their triggers are the directories they are called with.
	for _, program := range []string{"glib-compile-schemas", "gio-querymodules"} {
		all[program] = func(ctx context.Context, p *shell.Process) int {
			dir := p.Args[len(p.Args)-1]
			if !strings.HasPrefix(dir, "/") {
				p.Unsupported("%s", strings.Join(p.Args, " "))
			}
			if p.Tree.Exists(dir) {
				w.pending[path.Clean(dir)] = true
				w.skip(program, "the first boot makes this cache")
			}
			return 0
		}
	}
	return all
}

var pythonName = regexp.MustCompile(`^python3(\.\d+)?$`)

// program finds the stand-in of a program by its name or path.
func (w *world) program(name string) shell.Command {
	c, base := w.programs[name], path.Base(name)
	switch {
	case c != nil:
	case pythonName.MatchString(base):
		name, c = "python3", w.python
	case strings.HasPrefix(name, "/usr/lib/") && strings.Contains(name, "/glib-2.0/"):
		name, c = base, w.programs[base]
	}
	if c != nil && w.o.Program != nil {
		return w.o.Program(name, c)
	}
	return c
}

const noByteCode = "Python makes byte code when it first needs it"

// python compiles nothing; see noByteCode. Other programs in Python cannot be
// run.
func (w *world) python(ctx context.Context, p *shell.Process) int {
	for i, a := range p.Args[1:] {
		if base := path.Base(a); base == "py_compile.py" || base == "compileall.py" ||
			a == "-m" && i+2 < len(p.Args) && (p.Args[i+2] == "py_compile" || p.Args[i+2] == "compileall") {
			w.skip("python3", noByteCode)
			return 0
		}
	}
	p.Unsupported("%s", strings.Join(p.Args[:min(4, len(p.Args))], " "))
	return 1
}

// runAs is setpriv and runuser: everything here runs as root, so a user that
// a program would get is the one to give its files to, which those that have
// a stand-in do not make.
func runAs(ctx context.Context, p *shell.Process) int {
	i := slices.Index(p.Args, "--")
	if i < 0 || i+1 >= len(p.Args) {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	return p.Run(ctx, shell.Call{Args: p.Args[i+1:]})
}

// ucfq prints what ucf knows of files, in its machine friendly form.
func ucfq(ctx context.Context, p *shell.Process) int {
	if len(p.Args) < 3 || p.Args[1] != "-w" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	registry, _ := p.Tree.ReadFile("/var/lib/ucf/registry")
	for _, f := range p.Args[2:] {
		owner := ""
		for line := range strings.SplitSeq(string(registry), "\n") {
			if words := strings.Fields(line); len(words) == 2 && words[1] == f {
				owner = words[0]
			}
		}
		there := "No"
		if p.Tree.Exists(f) {
			there = "Yes"
		}
		fmt.Fprintf(p.Stdout, "%s:%s:%s:\n", f, owner, there)
	}
	return 0
}

// helpztags is needed where vim add-ons bring documentation; none does in
// Debian's own set.
func helpztags(ctx context.Context, p *shell.Process) int {
	for _, dir := range p.Args[1:] {
		if p.Tree.Exists(p.Path(dir)) {
			p.Unsupported("%s", strings.Join(p.Args, " "))
		}
	}
	return 0
}

// updateCatalog is update-catalog --update-super, which lists the SGML
// catalogs.
func updateCatalog(ctx context.Context, p *shell.Process) error {
	if p.Args[len(p.Args)-1] != "--update-super" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	var b strings.Builder
	b.WriteString("--\n## This file is created by update-catalog with update-super.\n" +
		"## Please see update-catalog(8) for how to modify this file.\n--\n")
	names, _ := p.Tree.ReadDir("/etc/sgml")
	for _, n := range names {
		if strings.HasSuffix(n, ".cat") {
			b.WriteString("CATALOG /etc/sgml/" + n + "\n")
		}
	}
	if err := p.Tree.MkdirAll("/var/lib/sgml-base", 0o755); err != nil {
		return err
	}
	const file = "/var/lib/sgml-base/supercatalog"
	if p.Tree.Exists(file) {
		if err := p.Tree.Rename(file, file+".old"); err != nil {
			return err
		}
	}
	return p.Tree.WriteFile(file, []byte(b.String()), 0o644)
}

// iconv passes UTF-8 on as UTF-8.
func iconv(ctx context.Context, p *shell.Process) int {
	var files []string
	for i, a := range p.Args[1:] {
		before := p.Args[i]
		switch {
		case a == "-f" || a == "-t" || a == "-c":
		case before == "-f" || before == "-t":
			name, _, _ := strings.Cut(strings.ToUpper(a), "//")
			if name != "UTF-8" && name != "UTF8" {
				p.Unsupported("%s", strings.Join(p.Args, " "))
			}
		case strings.HasPrefix(a, "-"):
			p.Unsupported("option %s", a)
		default:
			files = append(files, a)
		}
	}
	if len(files) > 0 {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	text, err := shell.ReadAll(p.Stdin)
	if err == nil {
		_, err = p.Stdout.Write(text)
	}
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	return 0
}

// dd copies the first blocks of a file.
func dd(ctx context.Context, p *shell.Process) int {
	size, count := 512, -1
	in, out := "/dev/stdin", ""
	for _, a := range p.Args[1:] {
		key, value, _ := strings.Cut(a, "=")
		n, err := strconv.Atoi(value)
		switch {
		case key == "if":
			in = value
		case key == "of":
			out = value
		case key == "bs" && err == nil && n > 0:
			size = n
		case key == "count" && err == nil && n >= 0:
			count = n
		case key == "status":
		default:
			p.Unsupported("operand %s", a)
		}
	}
	f, err := p.Open(in)
	if err != nil {
		p.Errorf("failed to open '%s': %s", in, shell.Reason(err))
		return 1
	}
	defer f.Close()
	var r io.Reader = f
	if count >= 0 {
		r = io.LimitReader(f, int64(size)*int64(count))
	}
	data, err := shell.ReadAll(r)
	if err == nil && out != "" {
		err = p.WriteFile(out, data)
	} else if err == nil {
		_, err = p.Stdout.Write(data)
	}
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	return 0
}

// ufw is "ufw app update all", which brings rules up to date that were made
// for an application by its name: without such rules it does nothing.
func ufw(ctx context.Context, p *shell.Process) int {
	if strings.Join(p.Args[1:], " ") != "app update all" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	for _, file := range []string{"/etc/ufw/user.rules", "/etc/ufw/user6.rules"} {
		rules, err := p.Tree.ReadFile(file)
		if err != nil || strings.Contains(string(rules), "### tuple ###") {
			p.Unsupported("app update all: rules in %s", file)
		}
	}
	return 0
}

// lpstat is "lpstat -r", which tells whether a print server runs.
func lpstat(ctx context.Context, p *shell.Process) int {
	if p.Args[len(p.Args)-1] != "-r" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	fmt.Fprintln(p.Stdout, "scheduler is not running")
	return 0
}

var ownsIt = regexp.MustCompile(`^test -O (/\S+) && test -G (/\S+)$`)

// su answers whether files are a user's, and those of the user's group; every
// script here runs as root.
func su(ctx context.Context, p *shell.Process) int {
	if len(p.Args) != 6 || p.Args[1] != "-s" || p.Args[2] != "/bin/sh" || p.Args[4] != "-c" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	name := p.Args[3]
	files := ownsIt.FindStringSubmatch(strings.Join(strings.Fields(p.Args[5]), " "))
	if files == nil {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	users, err := p.Tree.ReadFile("/etc/passwd")
	if err != nil {
		p.Errorf("%v", err)
		return 1
	}
	for line := range strings.Lines(string(users)) {
		user := strings.Split(line, ":")
		if user[0] != name || len(user) < 4 {
			continue
		}
		owned, err := p.Stat(files[1])
		if err != nil || fmt.Sprint(owned.UID) != user[2] {
			return 1
		}
		grouped, err := p.Stat(files[2])
		if err != nil || fmt.Sprint(grouped.GID) != user[3] {
			return 1
		}
		return 0
	}
	p.Errorf("user %s does not exist", name)
	return 1
}

// postgresDictionaries is pg_updatedicts where there is no dictionary to
// convert.
func postgresDictionaries(ctx context.Context, p *shell.Process) error {
	for _, dir := range []string{"/usr/share/hunspell", "/usr/share/myspell/dicts"} {
		names, _ := p.Tree.ReadDir(dir)
		if slices.ContainsFunc(names, func(n string) bool { return path.Ext(n) == ".aff" }) {
			p.Unsupported("dictionaries in %s", dir)
		}
	}
	return p.Tree.MkdirAll("/var/cache/postgresql/dicts", 0o755)
}

// pgLsclusters is pg_lsclusters -h where there is no database.
func pgLsclusters(ctx context.Context, p *shell.Process) int {
	versions, _ := p.Tree.ReadDir("/etc/postgresql")
	if len(versions) > 0 || len(p.Args) != 2 || p.Args[1] != "-h" {
		p.Unsupported("databases of %s", strings.Join(versions, ", "))
	}
	return 0
}
