package blueprint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kinds of bases.
const (
	BaseDebian  = "debian"
	BaseRaspios = "raspios"
	BaseImage   = "image"
)

var sha256Text = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (s *section) base() Base {
	base := Base{Kind: BaseDebian, Suite: defaultSuite, Components: []string{"main", "non-free-firmware"}}
	b := s.one("base")
	if b == nil {
		return base
	}
	switch kind := b.Labels[0]; kind {
	case BaseDebian:
	case BaseImage:
		return s.section(b, s.ctx, []string{"source!", "sha256!", "recommends"}).imageBase()
	default:
		known := []string{BaseDebian, BaseImage}
		s.errorf(b.LabelRanges[0], "Unknown base", "There is no base %q.%s Choose from: %s.", kind, didYouMean(kind, known), strings.Join(known, ", "))
		return base
	}
	s = s.section(b, s.ctx, []string{"suite", "components", "mirror", "snapshot", "recommends"})
	s.choice("suite", &base.Suite, suites...)
	if before := len(s.diags); s.list("components", &base.Components) {
		s.each("components", "Unknown component", base.Components, func(c string) string {
			known := []string{"main", "contrib", "non-free", "non-free-firmware"}
			if slices.Contains(known, c) {
				return ""
			}
			return fmt.Sprintf("Debian has no component %q.%s", c, didYouMean(c, known))
		})
		if reported := len(s.diags) > before; !reported && !slices.Contains(base.Components, "main") {
			s.errorf(s.at("components"), "Component main missing", `Nothing can be built without the component "main".`)
		}
	}
	s.url("mirror", &base.Mirror)
	s.url("snapshot", &base.Snapshot)
	s.boolean("recommends", &base.Recommends)
	return base
}

// imageBase reads base "image": someone else's card image.
func (s *section) imageBase() Base {
	base := Base{Kind: BaseImage}
	if s.text("source", &base.Source) && strings.Contains(base.Source, "://") && !httpURL.MatchString(base.Source) {
		s.errorf(s.at("source"), "Invalid source", `"source" is a URL that begins with http:// or https://, or the path of a file, not %q.`, base.Source)
	}
	if s.text("sha256", &base.SHA256) {
		base.SHA256 = strings.ToLower(strings.TrimSpace(base.SHA256))
		if !sha256Text.MatchString(base.SHA256) {
			s.errorf(s.at("sha256"), "Invalid SHA-256", `"sha256" is the digest of the file as it is downloaded: 64 hexadecimal digits, which its maker publishes beside it.`)
		}
	}
	s.boolean("recommends", &base.Recommends)
	return base
}
