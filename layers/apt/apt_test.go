package apt_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/apt"
)

func TestFurtherArchives(t *testing.T) {
	tr := tree.New(0)
	r := &plan.Root{Cube: &blueprint.Cube{Base: blueprint.Base{Kind: blueprint.BaseImage, Archives: []blueprint.Archive{
		{Name: "raspi", URL: "http://archive.example.org/debian", Suites: []string{"trixie"}, Components: []string{"main"}, Key: "\nKEY\n", Priority: 990},
		{Name: "plain", URL: "https://plain.example.org", Suites: []string{"a", "b"}, Components: []string{"main", "more"}, Key: "KEY", Priority: blueprint.DefaultPriority},
	}}}}
	if err := (apt.Layer{}).Apply(r, tr); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for p, n := range tr.All() {
		if n.IsRegular() {
			text, err := tr.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			got[p] = string(text)
		}
	}
	want := map[string]string{
		"/etc/apt/keyrings/raspi.asc":           "KEY\n",
		"/etc/apt/keyrings/plain.asc":           "KEY\n",
		"/etc/apt/preferences.d/raspi.pref":     "Package: *\nPin: origin \"archive.example.org\"\nPin-Priority: 990\n",
		"/etc/apt/sources.list.d/raspi.sources": "Types: deb\nURIs: http://archive.example.org/debian\nSuites: trixie\nComponents: main\nSigned-By: /etc/apt/keyrings/raspi.asc\n",
		"/etc/apt/sources.list.d/plain.sources": "Types: deb\nURIs: https://plain.example.org\nSuites: a b\nComponents: main more\nSigned-By: /etc/apt/keyrings/plain.asc\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
