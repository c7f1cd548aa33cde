package kubernetes

import (
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/plan"
)

// Fingerprint stands for what a root holds of Kubernetes: the digests of its
// images. The programs beside them are of the same release and origin.
func (l *Layer) Fingerprint(r *plan.Root) string {
	set := l.sets[r.Name]
	if set == nil {
		return ""
	}
	parts := []string{set.Release.Version}
	for _, img := range slices.Concat(set.ControlPlane, set.Node) {
		parts = append(parts, img.Name, img.Manifest.Digest)
	}
	return strings.Join(parts, " ")
}
