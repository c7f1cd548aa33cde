// Package dropin finds configuration files that are spread over folders the
// way systemd's programs do (systemd's src/basic/conf-files.c): a file hides
// those of the same name in later folders, and names decide the order.
package dropin

import (
	"maps"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// List returns the paths of the files in dirs whose name has the suffix,
// sorted by name; the first folder that has a name wins. Hidden files and
// missing folders are skipped. Folders that are links are named by where they
// lead.
func List(t *tree.Tree, suffix string, dirs ...string) []string {
	found := map[string]string{}
	for _, dir := range dirs {
		names, err := t.ReadDir(dir)
		if err != nil {
			continue
		}
		if dir, err = t.RealPath(dir); err != nil {
			continue
		}
		for _, name := range names {
			if !strings.HasSuffix(name, suffix) || strings.HasPrefix(name, ".") {
				continue
			}
			if _, hidden := found[name]; !hidden {
				found[name] = dir + "/" + name
			}
		}
	}
	paths := make([]string, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		paths = append(paths, found[name])
	}
	return paths
}
