// Package depmod makes the indexes below /usr/lib/modules/VERSION that
// modprobe and udev look modules up in, byte for byte as depmod(8) of kmod 34
// makes them. No package ships them, and depmod itself cannot run at build
// time: it belongs to the target or to whatever the host has.
//
// Not supported: depmod.d (but modules below updates/ win over others of
// their name, as without any configuration), big-endian modules, folders
// behind links, symbol versions (depmod -e).
package depmod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/tree"
)

// Run makes the indexes for a kernel of the tree.
func Run(ctx context.Context, t *tree.Tree, kernel string) error {
	dir := path.Join("/usr/lib/modules", kernel)
	out, err := generate(ctx, t, dir)
	if err != nil {
		return fmt.Errorf("kernel %s: %w", kernel, err)
	}
	return write(t, dir, out)
}

func write(t *tree.Tree, dir string, files []file) error {
	for _, f := range files {
		if err := t.WriteFile(path.Join(dir, f.Name), f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// file is one of the indexes.
type file struct {
	Name string
	Data []byte
}

// module is one module with what it says of itself and whom it needs.
type module struct {
	facts
	name  string // as the kernel has it
	path  string // below the folder of the kernel
	node  *tree.Inode
	index int // place in the order of modules
	deps  []*module
	users int // modules that need this one directly
	order int // topological: users before what they need
}

func generate(ctx context.Context, t *tree.Tree, dir string) ([]file, error) {
	modules, err := find(t, dir)
	if err != nil {
		return nil, err
	}
	if err := sortModules(t, dir, modules); err != nil {
		return nil, err
	}
	if err := readAll(ctx, modules); err != nil {
		return nil, err
	}
	owners := owners(modules)
	resolve(modules, owners)
	if err := sortDependencies(modules); err != nil {
		return nil, err
	}
	return outputs(t, dir, modules, owners)
}

// find returns the modules below dir, in the order of kmod's table of names.
func find(t *tree.Tree, dir string) ([]*module, error) {
	if !t.Exists(dir) {
		return nil, fmt.Errorf("%s: cannot find it", dir)
	}
	byName := map[string]*module{}
	skip := "\x00" // the folder being left out
	for p, n := range t.Below(dir) {
		if strings.HasPrefix(p, skip) {
			continue
		}
		if base := path.Base(p); n.IsDir() && (base == "build" || base == "source") {
			skip = p + "/"
			continue
		}
		name := Name(p)
		if name == "" {
			continue
		}
		target, err := t.Stat(p)
		if err != nil || !target.IsRegular() {
			continue // a dangling link
		}
		m := &module{name: name, path: strings.TrimPrefix(p, dir+"/"), node: target}
		if old := byName[name]; old == nil || m.updates() && !old.updates() {
			byName[name] = m
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	sortByBucket(names, nameBuckets)
	modules := make([]*module, len(names))
	for i, name := range names {
		modules[i] = byName[name]
	}
	return modules, nil
}

func (m *module) updates() bool { return strings.HasPrefix(m.path, "updates/") }

// sortModules brings the modules into the order of modules.order, those it
// does not name behind.
func sortModules(t *tree.Tree, dir string, modules []*module) error {
	text, err := t.ReadFile(path.Join(dir, "modules.order"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	place := map[string]int{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if _, ok := place[line]; !ok {
			place[line] = len(place) + 1
		}
	}
	of := func(m *module) int {
		// modules.order knows modules before they were compressed, and by name
		// with underscores or dashes as the file has.
		plain, _, _ := strings.Cut(path.Base(m.path), ".")
		if p := place[path.Join(path.Dir(m.path), plain+".ko")]; p != 0 {
			return p
		}
		return len(place) + 1
	}
	slices.SortStableFunc(modules, func(a, b *module) int { return of(a) - of(b) })
	for i, m := range modules {
		m.index = i
	}
	return nil
}

// readAll reads every module; unpacking them is nearly all of the work.
func readAll(ctx context.Context, modules []*module) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, m := range modules {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			data, err := ReadModule(m.path, m.node.Content)
			if err != nil {
				return err
			}
			if m.facts, err = readFacts(data); err != nil {
				return fmt.Errorf("module %s: cannot read it: %w", m.path, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// list iterates over strings that end in a zero byte.
func list(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for s != "" {
			head, tail, _ := strings.Cut(s, "\x00")
			if !yield(head) {
				return
			}
			s = tail
		}
	}
}

// owners returns who offers a symbol: the last one in order.
func owners(modules []*module) map[string]*module {
	out := map[string]*module{}
	for _, m := range modules {
		for symbol := range list(m.exports) {
			out[symbol] = m
		}
	}
	return out
}

// resolve fills in whom each module needs directly, in the order in which it
// names the symbols.
func resolve(modules []*module, owners map[string]*module) {
	for _, m := range modules {
		for symbol := range list(m.needs) {
			d := owners[strings.TrimPrefix(symbol, ".")]
			if d == nil || slices.Contains(m.deps, d) {
				continue
			}
			m.deps = append(m.deps, d)
			d.users++
		}
	}
}

// sortDependencies numbers the modules so that each comes before those it
// needs, and sorts dependencies by these numbers. As kmod does it, which one
// of several possible orders comes out included.
func sortDependencies(modules []*module) error {
	open := make([]int, len(modules))
	var stack []*module
	for i, m := range modules {
		m.order = -1
		if open[i] = m.users; m.users == 0 {
			stack = append(stack, m)
		}
	}
	done := 0
	for len(stack) > 0 {
		m := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		m.order = done
		done++
		for _, d := range m.deps {
			if open[d.index]--; open[d.index] == 0 {
				stack = append(stack, d)
			}
		}
	}
	if done < len(modules) {
		return cycle(modules)
	}
	for _, m := range modules {
		slices.SortFunc(m.deps, byOrder)
	}
	return nil
}

func byOrder(a, b *module) int { return a.order - b.order }

// cycle names the modules that wait for one another, or for one that does.
func cycle(modules []*module) error {
	var names []string
	for _, m := range modules {
		if m.order < 0 {
			names = append(names, m.name)
		}
	}
	slices.Sort(names)
	return fmt.Errorf("modules %s: cannot sort them, they need one another", strings.Join(names, ", "))
}

// allDeps returns everything a module needs, directly or not.
func (m *module) allDeps() []*module {
	seen := map[*module]bool{}
	var all []*module
	var collect func(*module)
	collect = func(m *module) {
		for _, d := range m.deps {
			if !seen[d] {
				seen[d] = true
				all = append(all, d)
				collect(d)
			}
		}
	}
	collect(m)
	slices.SortFunc(all, byOrder)
	return all
}
