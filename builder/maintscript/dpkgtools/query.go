package dpkgtools

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/maintscript/shell"
)

// query is dpkg-query.
func (t tools) query(ctx context.Context, p *shell.Process) int {
	args := p.Args[1:]
	for len(args) > 0 && (strings.HasPrefix(args[0], "--admindir=") || strings.HasPrefix(args[0], "--root=") || args[0] == "--no-pager") {
		args = args[1:]
	}
	return t.show(p, args)
}

func (t tools) show(p *shell.Process, args []string) int {
	format := "${binary:Package}\t${Version}\n"
	var action string
	var rest []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		short, isFormat := strings.CutPrefix(a, "-f")
		long, isLong := strings.CutPrefix(a, "--showformat=")
		switch {
		case isLong:
			format = long
		case isFormat && strings.HasPrefix(short, "="):
			format = short[1:]
		case isFormat && short != "":
			format = short
		case (isFormat || a == "--showformat") && i+1 < len(args):
			i++
			format = args[i]
		case a == "--":
			rest = append(rest, args[i+1:]...)
			i = len(args)
		case strings.HasPrefix(a, "-") && action == "":
			action = a
		case strings.HasPrefix(a, "-f") || a == "--no-pager" || strings.HasPrefix(a, "--admindir="):
		case strings.HasPrefix(a, "-"):
			p.Unsupported("%s", strings.Join(p.Args, " "))
		default:
			rest = append(rest, a)
		}
	}
	switch action {
	case "-W", "--show":
		return t.formatted(p, format, rest)
	case "-s", "--status":
		return t.status(p, rest)
	case "-L", "--listfiles":
		return t.listFiles(p, rest)
	case "-S", "--search":
		return t.search(p, rest)
	case "-l", "--list":
		return t.list(p, rest)
	case "--control-path", "-c":
		return t.controlPath(p, rest)
	case "--control-show":
		return t.controlShow(p, rest)
	case "--control-list":
		return t.controlList(p, rest)
	case "--version":
		fmt.Fprintln(p.Stdout, "Debian dpkg-query package management program query tool version "+t.version()+" ("+t.db.Arch()+").")
		return ok
	}
	p.Unsupported("%s", strings.Join(p.Args, " "))
	return trouble
}

// find returns the packages that patterns name, and how many found none. With
// none at all every installed package is meant.
func (t tools) find(p *shell.Process, patterns []string) (found []*dpkg.Package, missing int) {
	if len(patterns) == 0 {
		for _, pkg := range t.db.Packages() {
			if pkg.Status != dpkg.NotInstalled {
				found = append(found, pkg)
			}
		}
		return found, 0
	}
	for _, pattern := range patterns {
		var these []*dpkg.Package
		if strings.ContainsAny(pattern, "*?[") {
			for _, pkg := range t.db.Packages() {
				if matches([]string{pattern}, pkg.Name) {
					these = append(these, pkg)
				}
			}
		} else if pkg := t.db.Package(pattern); pkg != nil && pkg.Status != dpkg.NotInstalled {
			these = append(these, pkg)
		}
		if these == nil {
			missing++
			fmt.Fprintf(p.Stderr, "dpkg-query: no packages found matching %s\n", pattern)
		}
		for _, pkg := range these {
			if !slices.Contains(found, pkg) {
				found = append(found, pkg)
			}
		}
	}
	slices.SortFunc(found, func(a, b *dpkg.Package) int { return strings.Compare(a.Name, b.Name) })
	return found, missing
}

func (t tools) formatted(p *shell.Process, format string, patterns []string) int {
	found, missing := t.find(p, patterns)
	for _, pkg := range found {
		fmt.Fprint(p.Stdout, t.format(pkg, format))
	}
	if missing > 0 {
		return no
	}
	return ok
}

// format fills in a --showformat string.
func (t tools) format(p *dpkg.Package, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		c := format[i]
		switch {
		case c == '\\' && i+1 < len(format):
			i++
			switch format[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			default:
				b.WriteByte(format[i])
			}
		case c == '$' && i+1 < len(format) && format[i+1] == '{':
			end := strings.IndexByte(format[i:], '}')
			if end < 0 {
				b.WriteByte(c)
				continue
			}
			name, width, _ := strings.Cut(format[i+2:i+end], ";")
			value := t.field(p, name)
			if w, err := strconv.Atoi(width); err == nil && w != 0 && w > -4096 && w < 4096 {
				value = fmt.Sprintf("%*s", w, value)
			}
			b.WriteString(value)
			i += end
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func abbreviation(p *dpkg.Package) string {
	want := map[string]string{"install": "i", "hold": "h", "deinstall": "r", "purge": "p", "unknown": "u"}[p.Want]
	return want + string("ncHUFWti"[p.Status]) + " "
}

func (t tools) field(p *dpkg.Package, name string) string {
	switch name {
	case "Package":
		return p.Name
	case "binary:Package":
		return p.Info()
	case "db:Status-Abbrev":
		return abbreviation(p)
	case "db:Status-Status":
		return p.Status.String()
	case "db:Status-Want":
		return p.Want
	case "db:Status-Eflag":
		return p.Flag
	case "binary:Summary", "binary:Synopsis":
		summary, _, _ := strings.Cut(p.Field("Description"), "\n")
		return summary
	case "source:Package":
		source, _, _ := strings.Cut(p.Field("Source"), " ")
		if source == "" {
			source = p.Name
		}
		return source
	case "source:Version":
		if _, v, found := strings.Cut(p.Field("Source"), "("); found {
			return strings.TrimRight(v, ")")
		}
		return p.Version
	case "db-fsys:Files":
		files, err := t.db.Files(p)
		if err != nil {
			return ""
		}
		return " " + strings.Join(files, "\n ") + "\n"
	}
	return p.Fields().Get(name)
}

func (t tools) status(p *shell.Process, names []string) int {
	status := ok
	for i, name := range names {
		pkg := t.db.Package(name)
		if pkg == nil || pkg.Status == dpkg.NotInstalled {
			fmt.Fprintf(p.Stderr, "dpkg-query: package '%s' is not installed and no information is available\n", name)
			status = no
			continue
		}
		if i > 0 {
			fmt.Fprintln(p.Stdout)
		}
		var b strings.Builder
		if err := pkg.Fields().Write(&b); err != nil {
			return trouble
		}
		fmt.Fprint(p.Stdout, strings.TrimSuffix(b.String(), "\n"))
	}
	return status
}

func (t tools) listFiles(p *shell.Process, names []string) int {
	diversions, err := t.db.Diversions()
	if err != nil {
		p.Errorf("error: %v", err)
		return trouble
	}
	status := ok
	for i, name := range names {
		pkg := t.db.Package(name)
		if pkg == nil || pkg.Status <= dpkg.ConfigFiles {
			fmt.Fprintf(p.Stderr, "dpkg-query: package '%s' is not installed\n", name)
			status = no
			continue
		}
		files, err := t.db.Files(pkg)
		if err != nil {
			p.Errorf("error: %v", err)
			return trouble
		}
		if i > 0 {
			fmt.Fprintln(p.Stdout)
		}
		for _, f := range files {
			fmt.Fprintln(p.Stdout, f)
			for _, d := range diversions {
				switch {
				case d.From == f && d.Package == ":":
					fmt.Fprintln(p.Stdout, "locally diverted to: "+d.To)
				case d.From == f && d.Package != pkg.Name:
					fmt.Fprintln(p.Stdout, "diverted by "+d.Package+" to: "+d.To)
				}
			}
		}
	}
	return status
}

func (t tools) search(p *shell.Process, patterns []string) int {
	status := ok
	for _, pattern := range patterns {
		full := strings.HasPrefix(pattern, "/")
		if !full && !strings.ContainsAny(pattern, "*?[\\") {
			pattern = "*" + pattern + "*"
		}
		hit := false
		print := func(f string, owners []*dpkg.Package) {
			var names []string
			for _, o := range owners {
				names = append(names, o.Info())
			}
			if names != nil {
				fmt.Fprintf(p.Stdout, "%s: %s\n", strings.Join(names, ", "), f)
				hit = true
			}
		}
		var err error
		if full && !strings.ContainsAny(pattern, "*?[\\") {
			var owners []*dpkg.Package
			f := strings.TrimRight(pattern, "/")
			owners, err = t.db.Owners(f)
			print(f, owners)
		} else {
			err = t.db.Listed(func(f string, owners []*dpkg.Package) bool {
				if glob(pattern, f) {
					print(f, owners)
				}
				return true
			})
		}
		if err != nil {
			p.Errorf("error: %v", err)
			return trouble
		}
		if !hit {
			fmt.Fprintf(p.Stderr, "dpkg-query: no path found matching pattern %s\n", pattern)
			status = no
		}
	}
	return status
}

func (t tools) list(p *shell.Process, patterns []string) int {
	found, missing := t.find(p, patterns)
	if len(found) > 0 {
		fmt.Fprint(p.Stdout, "Desired=Unknown/Install/Remove/Purge/Hold\n"+
			"| Status=Not/Inst/Conf-files/Unpacked/halF-conf/Half-inst/trig-aWait/Trig-pend\n"+
			"|/ Err?=(none)/Reinst-required (Status,Err: uppercase=bad)\n"+
			"||/ Name Version Architecture Description\n")
	}
	for _, pkg := range found {
		fmt.Fprintf(p.Stdout, "%s %s %s %s %s\n", strings.TrimRight(abbreviation(pkg), " "), pkg.Info(), pkg.Version,
			pkg.Architecture, t.field(pkg, "binary:Summary"))
	}
	if missing > 0 {
		return no
	}
	return ok
}

func (t tools) controlList(p *shell.Process, rest []string) int {
	for _, name := range rest {
		pkg := t.db.Package(name)
		if pkg == nil {
			return no
		}
		for _, kind := range t.controlFiles(p, pkg) {
			fmt.Fprintln(p.Stdout, kind)
		}
	}
	return ok
}

// controlFiles returns the kinds of files that a package has in the database.
func (t tools) controlFiles(p *shell.Process, pkg *dpkg.Package) []string {
	names, err := p.Tree.ReadDir(dpkg.Dir + "/info")
	if err != nil {
		return nil
	}
	var kinds []string
	for _, name := range names {
		if kind, found := strings.CutPrefix(name, pkg.Info()+"."); found && kind != "list" && kind != "conffiles" {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func (t tools) controlPath(p *shell.Process, rest []string) int {
	if len(rest) == 0 {
		return trouble
	}
	pkg := t.db.Package(rest[0])
	if pkg == nil {
		fmt.Fprintf(p.Stderr, "dpkg-query: package '%s' is not installed\n", rest[0])
		return no
	}
	for _, kind := range t.controlFiles(p, pkg) {
		if len(rest) == 1 || rest[1] == kind {
			fmt.Fprintln(p.Stdout, t.db.InfoFile(pkg, kind))
		}
	}
	return ok
}

func (t tools) controlShow(p *shell.Process, rest []string) int {
	if len(rest) != 2 {
		return trouble
	}
	pkg := t.db.Package(rest[0])
	if pkg == nil {
		return no
	}
	text, err := p.Tree.ReadFile(t.db.InfoFile(pkg, rest[1]))
	if err != nil {
		return no
	}
	if _, err := p.Stdout.Write(text); err != nil {
		return trouble
	}
	return ok
}
