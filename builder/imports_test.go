package builder_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/picube/picube-build/"

// importRules say what a package may import of this module. The first rule
// whose package matches holds; both sides are anchored regular expressions.
var importRules = []struct{ pkg, may string }{
	{`cmd/picube-build`, `.*`},
	{`tools/bench`, ``},
	{`cmd/picube-node`, `layers/nodeconf|layers/.*d|layers/cluster/merge.*`},

	// The orchestrator gets its layers handed in.
	{`builder`, `builder/.*|firmware|layers/nodeconf`},
	// Leaves.
	{`builder/(blueprint|tree|report|disk|clone|flock|secrets|strbuf|gomodule|program|xz|debian/(control|version))`, ``},
	{`builder/plan`, `builder/blueprint`},
	{`builder/(ext4|fat|ldcache|certhash|containerd|dropin|maintscript/shell)`, `builder/tree`},
	{`builder/(depmod|debian/deb)`, `builder/(tree|xz)`},
	{`builder/lock`, `builder/plan`},
	{`builder/source`, `builder/flock`},
	{`builder/(emulator.*|image)`, `builder/.*|firmware|layers/nodeconf`},
	{`builder/.*`, `builder/.*`},
	{`firmware`, `builder/tree`},

	{`layers`, `builder|layers/.*`},
	{`layers/nodeconf`, ``},
	// What runs on a node knows nothing of how its card was made.
	{`layers/([a-z0-9]+)/.*d`, `layers/nodeconf|layers/[a-z0-9]+/.*`},
	{`layers/.*`, `builder/.*|firmware|layers/.*`},
}

// orchestrators may be imported by cmd and by the list of layers alone.
var orchestrators = []string{"builder", "layers"}

// nodeProgram may not depend on these, near or far: it has to stay small.
var notOnNode = regexp.MustCompile(`^github\.com/(picube/picube-build/(builder|firmware)|hashicorp/hcl|zclconf/go-cty|spf13/cobra)`)

func TestImports(t *testing.T) {
	for pkg, imports := range goList(t, "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		pkg, ours := strings.CutPrefix(pkg, module)
		if !ours {
			continue
		}
		rule := slices.IndexFunc(importRules, func(r struct{ pkg, may string }) bool { return matches(r.pkg, pkg) })
		if rule < 0 {
			t.Errorf("%s: there is no rule for it", pkg)
			continue
		}
		for _, imported := range imports {
			imported, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			orchestrator := slices.Contains(orchestrators, imported) && pkg != "cmd/picube-build" && pkg != "layers"
			if orchestrator || !matches(importRules[rule].may, imported) {
				t.Errorf("%s imports %s, it may import %q", pkg, imported, importRules[rule].may)
			}
		}
	}
}

func TestNodeProgramStaysSmall(t *testing.T) {
	for pkg := range goList(t, "{{.ImportPath}}", "-deps", "./cmd/picube-node") {
		if notOnNode.MatchString(pkg) {
			t.Errorf("cmd/picube-node depends on %s", pkg)
		}
	}
}

func matches(pattern, s string) bool { return regexp.MustCompile(`^(` + pattern + `)$`).MatchString(s) }

// goList runs go list in the module's folder; the first word of each line is
// the key, the rest the value.
func goList(t *testing.T, format string, args ...string) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, args...)...)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	list := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) > 0 {
			list[words[0]] = words[1:]
		}
	}
	return list
}
