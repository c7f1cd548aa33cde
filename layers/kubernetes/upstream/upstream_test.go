package upstream

import (
	"slices"
	"testing"
)

func TestChoose(t *testing.T) {
	all := []string{"v1.33.1", "v1.33.6", "v1.34.0-rc.1", "v1.34.0", "v1.34.4", "v1.35.0", "v1.36.0-alpha.1"}
	tests := map[string]struct {
		exact   string
		nearest []string
	}{
		"v1.34.4": {exact: "v1.34.4"},
		"v1.34":   {exact: "v1.34.4"},
		"v1.34.9": {nearest: []string{"v1.34.4"}},
		"v1.40.0": {nearest: []string{"v1.33.6", "v1.34.4", "v1.35.0"}},
		"v1.36":   {nearest: []string{"v1.33.6", "v1.34.4", "v1.35.0"}},
	}
	for version, want := range tests {
		exact, nearest := choose(all, version)
		if exact != want.exact || !slices.Equal(nearest, want.nearest) {
			t.Errorf("%s: %q, nearest %q; want %q, %q", version, exact, nearest, want.exact, want.nearest)
		}
	}
}
