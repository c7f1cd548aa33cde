package blueprint

import (
	_ "embed" // the archive's key
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
	attributes := []string{"suite", "components", "mirror", "snapshot", "recommends"}
	switch kind := b.Labels[0]; kind {
	case BaseDebian:
	case BaseRaspios:
		base.Kind = kind
		attributes = append(attributes, "raspi_mirror", "raspi_key")
	case BaseImage:
		return s.section(b, s.ctx, []string{"source!", "sha256!", "recommends"}).imageBase()
	default:
		known := []string{BaseDebian, BaseRaspios, BaseImage}
		s.errorf(b.LabelRanges[0], "Unknown base", "There is no base %q.%s Choose from: %s.", kind, didYouMean(kind, known), strings.Join(known, ", "))
		return base
	}
	s = s.section(b, s.ctx, attributes)
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
	if base.Kind == BaseRaspios {
		base.Archives = []Archive{s.raspi(base.Suite)}
	}
	return base
}

// raspiArchive is the name of Raspberry Pi's archive in locks and file names.
const raspiArchive = "raspi"

// raspiKey is the key of Raspberry Pi's archive, CF8A 1AF5 02A2 AA2D 763B AE7E
// 82B1 2992 7FA3 303E, as their own images carry it.
//
//go:embed raspberrypi-archive.asc
var raspiKey string

// raspi is Raspberry Pi's archive, as its images name it beside Debian's.
func (s *section) raspi(suite string) Archive {
	a := Archive{Name: raspiArchive, URL: "http://archive.raspberrypi.com/debian", Suites: []string{suite},
		Components: []string{"main"}, Key: raspiKey, Priority: DefaultPriority}
	s.url("raspi_mirror", &a.URL)
	if s.text("raspi_key", &a.Key) && !strings.Contains(a.Key, keyBegin) {
		s.errorf(s.at("raspi_key"), "Invalid key", `"raspi_key" is an armoured OpenPGP public key (%s …), most often file("archive.asc").`, keyBegin)
	}
	return a
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
