package builder

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/secrets"
)

// accountant is a builder that can do no more than compare.
func accountant(t *testing.T, dir, src string) *Builder {
	t.Helper()
	bp, diags := blueprint.Parse("x.hcl", []byte(src), blueprint.Options{Boards: []blueprint.Board{{Name: "rpi3", Arch: "arm64"}}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	b, err := New(Config{Blueprint: bp, Out: filepath.Join(dir, "out"), Secrets: secrets.Open(filepath.Join(dir, "secrets"), bytes.NewReader(make([]byte, 1<<10)))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A build notes what it made; one of other cards leaves the rest as it was, and
// what was made is compared with what the blueprint wants later.
func TestAccounts(t *testing.T) {
	dir := t.TempDir()
	build := func(src string, nodes ...string) {
		t.Helper()
		b := accountant(t, dir, src)
		for _, cube := range b.plan.Cubes {
			f := &cubeFolder{Folder: output.Open(filepath.Join(b.Out, cube.Spec.Name)), cube: cube}
			for _, n := range cube.Nodes {
				for _, name := range nodes {
					if n.Name == name {
						f.cards = append(f.cards, card{node: n})
					}
				}
			}
			text, err := b.accounts(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(f.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(f.Dir, accountsFile), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	actions := func(src string) map[string]plan.Action {
		t.Helper()
		c, err := accountant(t, dir, src).changes()
		if err != nil {
			t.Fatal(err)
		}
		if c == nil {
			return nil
		}
		got := map[string]plan.Action{}
		for _, card := range c.Cards {
			got[card.Node] = card.Action
		}
		return got
	}
	expect := func(what string, got, want map[string]plan.Action) {
		t.Helper()
		if len(got) != len(want) {
			t.Errorf("%s: %v", what, got)
		}
		for node, action := range want {
			if got[node] != action {
				t.Errorf("%s: %s: %q, want %q", what, node, got[node], action)
			}
		}
	}
	const two = `cube "a" { nodes = 2 }`
	const berlin = "cube \"a\" {\nnodes = 2\ndebconf = { \"tzdata/Areas\" = \"Europe\", \"tzdata/Zones/Europe\" = \"Berlin\" }\n}\n"
	expect("nothing was built", actions(two), nil)
	build(two, "rpi1", "rpi2")
	expect("the same", actions(two), map[string]plan.Action{"rpi1": plan.Stay, "rpi2": plan.Stay})
	expect("a cube more", actions(two+"\ncube \"b\" { nodes = 1 }"), map[string]plan.Action{"rpi1": plan.Stay, "rpi2": plan.Stay, "b-1": plan.Write})
	build(berlin, "rpi1")
	expect("one was built anew", actions(berlin), map[string]plan.Action{"rpi1": plan.Stay, "rpi2": plan.Write})
	build(two+"\ncube \"b\" { nodes = 1 }", "rpi1", "rpi2", "b-1")
	expect("a cube less", actions(two), map[string]plan.Action{"rpi1": plan.Stay, "rpi2": plan.Stay, "b-1": plan.Remove})
	if err := os.WriteFile(filepath.Join(dir, "out", "a", accountsFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a damaged file", actions(two), map[string]plan.Action{"rpi1": plan.Write, "rpi2": plan.Write, "b-1": plan.Remove})
}
