package maintscript

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

// updateXMLCatalog is update-xmlcatalog --sort --add of xml-core: entries are
// kept in /var/lib/xml-core, a line each, and written to /etc/xml from there.
func updateXMLCatalog(ctx context.Context, p *shell.Process) error {
	set := map[string]string{}
	args := p.Args[1:]
	for i := 0; i < len(args); i++ {
		switch a := args[i]; a {
		case "--sort", "--add", "--root", "--verbose":
			set[a] = "yes"
		case "--type", "--id", "--package", "--local", "--file":
			if i++; i == len(args) {
				return fmt.Errorf("option %s lacks its value", a)
			}
			set[a] = args[i]
		default:
			p.Unsupported("option %s", a)
		}
	}
	pkg, local, kind := set["--package"], set["--local"], set["--type"]
	if set["--add"] == "" || set["--sort"] == "" || pkg == "" || strings.Contains(pkg, "/") || set["--file"] != "" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	names := map[string][2]string{
		"public": {"delegatePublic", "publicIdStartString"}, "system": {"delegateSystem", "systemIdStartString"},
		"uri": {"delegateURI", "uriStartString"},
	}[kind]
	if names[0] == "" {
		return fmt.Errorf("wrong type %q", kind)
	}
	data, target := pkg, "/etc/xml/"+pkg+".xml"
	entry := `catalog="file://` + local + `"`
	needs := local
	if set["--root"] != "" {
		entry, needs = `catalog="file://`+target+`"`, target
		data, target = "catalog", "/etc/xml/catalog"
	}
	if !p.Tree.Exists(needs) {
		return fmt.Errorf("catalog %s not found", needs)
	}
	data = "/var/lib/xml-core/" + data
	entries := map[string]string{}
	if text, err := p.Tree.ReadFile(data); err == nil {
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ">")
			entries[strings.TrimPrefix(key, "<")] = strings.Trim(value, "<>")
		}
	}
	key := names[0] + " " + names[1] + `="` + set["--id"] + `"`
	if old, found := entries[key]; found && old != entry {
		return fmt.Errorf("entity already registered with a different value: %s", key)
	}
	entries[key] = entry
	header, err := p.Tree.ReadFile("/usr/share/xml-core/catalog.header")
	if err != nil {
		return err
	}
	footer, err := p.Tree.ReadFile("/usr/share/xml-core/catalog.footer")
	if err != nil {
		return err
	}
	var kept, made strings.Builder
	made.Write(header)
	for _, k := range slices.Sorted(maps.Keys(entries)) {
		fmt.Fprintf(&kept, "<%s><%s>\n", k, entries[k])
		fmt.Fprintf(&made, "<%s %s/>\n", k, entries[k])
	}
	made.Write(footer)
	if p.Tree.Exists(target) {
		if err := p.Tree.Rename(target, target+".old"); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{data: kept.String(), target: made.String()} {
		if err := p.Tree.MkdirAll(path.Dir(file), 0o755); err != nil {
			return err
		}
		if err := p.Tree.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
