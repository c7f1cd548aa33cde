package depmod

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// outputs makes the files, in depmod's order.
func outputs(t *tree.Tree, dir string, modules []*module, owners map[string]*module) ([]file, error) {
	dep, depBin := dependencies(modules)
	alias, aliasBin := aliases(modules)
	symbols, symbolsBin := symbolAliases(owners)
	builtin, err := builtinNames(t, dir)
	if err != nil {
		return nil, err
	}
	builtinAlias, err := builtinAliases(t, dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	bin := func(b *indexBuilder) []byte {
		if b == nil {
			return nil // what it is made from is missing
		}
		data, err := b.marshal()
		errs = append(errs, err)
		return data
	}
	out := []file{
		{"modules.dep", dep},
		{"modules.dep.bin", bin(depBin)},
		{"modules.alias", alias},
		{"modules.alias.bin", bin(aliasBin)},
		{"modules.softdep", softDependencies(modules)},
		{"modules.weakdep", weakDependencies(modules)},
		{"modules.symbols", symbols},
		{"modules.symbols.bin", bin(symbolsBin)},
		{"modules.builtin.bin", bin(builtin)},
		{"modules.builtin.alias.bin", bin(builtinAlias)},
		{"modules.devname", deviceNames(modules)},
	}
	return out, errors.Join(errs...)
}

// indexBuilder is an index that keeps the first error until it is written.
type indexBuilder struct {
	index
	err error
}

func (b *indexBuilder) put(key, text string, m *module) {
	priority := uint32(0)
	if m != nil {
		priority = uint32(m.index)
	}
	if err := b.insert(key, text, priority); b.err == nil {
		b.err = err
	}
}

func (b *indexBuilder) marshal() ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.index.marshal()
}

func dependencies(modules []*module) ([]byte, *indexBuilder) {
	var text bytes.Buffer
	bin := &indexBuilder{}
	for _, m := range modules {
		line := m.path + ":"
		for _, d := range m.allDeps() {
			line += " " + d.path
		}
		text.WriteString(line + "\n")
		bin.put(m.name, line, m)
	}
	return text.Bytes(), bin
}

func aliases(modules []*module) ([]byte, *indexBuilder) {
	text := bytes.NewBufferString("# Aliases extracted from modules themselves.\n")
	bin := &indexBuilder{}
	for _, m := range modules {
		for alias := range list(m.alias) {
			fmt.Fprintf(text, "alias %s %s\n", alias, m.name)
			if key, ok := normalizeAlias(alias); ok {
				bin.put(key, m.name, m)
			}
		}
	}
	return text.Bytes(), bin
}

// normalizeAlias turns dashes into underscores but for those in brackets,
// where they mean a range; it reports whether the brackets match.
func normalizeAlias(alias string) (string, bool) {
	b := []byte(alias)
	inside := false
	for i, c := range b {
		switch {
		case c == ']' && !inside:
			return "", false
		case c == ']':
			inside = false
		case c == '[':
			inside = true
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b), !inside
}

func symbolAliases(owners map[string]*module) ([]byte, *indexBuilder) {
	text := bytes.NewBufferString("# Aliases for symbols, used by symbol_request().\n")
	bin := &indexBuilder{}
	names := slices.Collect(maps.Keys(owners))
	sortByBucket(names, symbolBuckets)
	for _, name := range names {
		m := owners[name]
		fmt.Fprintf(text, "alias symbol:%s %s\n", name, m.name)
		bin.put("symbol:"+name, m.name, m)
	}
	return text.Bytes(), bin
}

func softDependencies(modules []*module) []byte {
	text := bytes.NewBufferString("# Soft dependencies extracted from modules themselves.\n")
	for _, m := range modules {
		for dep := range list(m.softdep) {
			fmt.Fprintf(text, "softdep %s %s\n", m.name, dep)
		}
	}
	return text.Bytes()
}

func weakDependencies(modules []*module) []byte {
	text := bytes.NewBufferString("# Weak dependencies extracted from modules themselves.\n")
	for _, m := range modules {
		for dep := range list(m.weakdep) {
			fmt.Fprintf(text, "weakdep %s %s\n", m.name, dep)
		}
	}
	return text.Bytes()
}

// deviceNames lists the device nodes whose first use loads a module, for
// systemd-tmpfiles to make them.
func deviceNames(modules []*module) []byte {
	number := regexp.MustCompile(`^(char|block)-major-([0-9]+)-([0-9]+)`)
	var text bytes.Buffer
	for _, m := range modules {
		name, node := "", ""
		for alias := range list(m.alias) {
			if n, ok := strings.CutPrefix(alias, "devname:"); ok {
				name = n
			} else if f := number.FindStringSubmatch(alias); f != nil {
				node = fmt.Sprintf("%c%s:%s", f[1][0], f[2], f[3])
			}
			if name != "" && node != "" {
				break
			}
		}
		if name == "" || node == "" {
			continue
		}
		if text.Len() == 0 {
			text.WriteString("# Device nodes to trigger on-demand module loading.\n")
		}
		fmt.Fprintf(&text, "%s %s %s\n", m.name, name, node)
	}
	return text.Bytes()
}

// builtinNames indexes modules.builtin, one path a line.
func builtinNames(t *tree.Tree, dir string) (*indexBuilder, error) {
	text, err := t.ReadFile(path.Join(dir, "modules.builtin"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	bin := &indexBuilder{}
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(path.Base(line), "."); name != "" {
			bin.put(Normalize(name), "", nil)
		}
	}
	return bin, err
}

// builtinAliases indexes the aliases in modules.builtin.modinfo, a list of
// MODULE.KEY=VALUE that end in a zero byte.
func builtinAliases(t *tree.Tree, dir string) (*indexBuilder, error) {
	text, err := t.ReadFile(path.Join(dir, "modules.builtin.modinfo"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	bin := &indexBuilder{}
	for record := range list(string(text)) {
		name, rest, _ := strings.Cut(record, ".")
		alias, ok := strings.CutPrefix(rest, "alias=")
		if !ok || name == "" || alias == "" {
			continue
		}
		if key, ok := normalizeAlias(alias); ok {
			bin.put(key, name, nil)
		}
	}
	return bin, err
}
