package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/layers/kubernetes/upstream"
)

// unknown is a source that has another version.
type unknown struct{ asked int }

func (u *unknown) Lock(_ context.Context, w upstream.Wish, _ string) ([]lock.Input, error) {
	u.asked++
	return nil, fmt.Errorf("looked for: %w", &upstream.ErrVersion{Version: w.Version, Nearest: []string{"v1.34.4", "v1.35.1"}})
}

func (*unknown) Get(context.Context, upstream.Wish, []lock.Input, string) (*upstream.Set, error) {
	return nil, errors.ErrUnsupported
}

// A version that nobody has is a mistake in the blueprint, at its line.
func TestUnknownVersion(t *testing.T) {
	p := twoNodes()
	k := p.Cubes[0].Spec.Kubernetes
	k.Version = "1.34.9"
	k.Range = hcl.Range{Filename: "picube.hcl", Start: hcl.Pos{Line: 7}}
	l := &Layer{Upstream: &unknown{}}
	_, err := l.Lock(t.Context(), p.Roots[0])
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) || len(diags) != 1 {
		t.Fatalf("error %v, want a diagnostic", err)
	}
	const want = "Kubernetes v1.34.9: cannot find this version; the nearest ones are v1.34.4, v1.35.1."
	if d := diags[0]; d.Summary != "Unknown version" || d.Detail != want || d.Subject.Start.Line != 7 {
		t.Errorf("%s at %s: %s", d.Summary, d.Subject, d.Detail)
	}
}
