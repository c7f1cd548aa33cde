package blueprint

import (
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Archive is a further signed archive of packages.
type Archive struct {
	Name       string // in locks and file names
	URL        string // without a "/" at the end
	Suites     []string
	Components []string
	Key        string // OpenPGP public keys, armoured
	// Priority is that of apt's pins (apt_preferences(5)): 500 is every
	// archive's, more is preferred to higher versions elsewhere, below 0 is
	// never chosen.
	Priority int
}

// DefaultPriority is the one that apt gives to an archive without a pin.
const DefaultPriority = 500

var (
	archiveName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)
	suiteName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_-]*(/[A-Za-z0-9.+_-]+)*$`)
)

const keyBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

func (s *section) archives(base string) []Archive {
	var list []Archive
	seen := map[string]hcl.Range{}
	for _, b := range s.blocks.OfType("archive") {
		a := Archive{Name: b.Labels[0], Components: []string{"main"}, Priority: DefaultPriority}
		switch first, ok := seen[a.Name]; {
		case !archiveName.MatchString(a.Name):
			s.errorf(b.LabelRanges[0], "Invalid archive name", "An archive's name has small letters, digits, '-' and '.', unlike %q.", a.Name)
		case a.Name == "debian" || a.Name == "debian-security":
			s.errorf(b.LabelRanges[0], "Reserved archive name", "%q is Debian's own archive. Choose another name.", a.Name)
		case a.Name == raspiArchive && base == BaseRaspios:
			s.errorf(b.LabelRanges[0], "Reserved archive name", "%q is the archive of the base %q. Choose another name.", a.Name, base)
		case ok:
			s.errorf(b.DefRange, "Duplicate archive", "The archive %q stands already at %s.", a.Name, first)
		}
		seen[a.Name] = b.DefRange
		s := s.section(b, s.ctx, []string{"url!", "suites!", "components", "key!", "priority"})
		s.url("url", &a.URL)
		if s.list("suites", &a.Suites) {
			if len(a.Suites) == 0 {
				s.errorf(s.at("suites"), "No suite", "Name at least one suite, such as \"trixie\".")
			}
			s.each("suites", "Invalid suite", a.Suites, func(suite string) string {
				if suiteName.MatchString(suite) {
					return ""
				}
				return "A suite is a name such as \"trixie\"; flat archives can't be used."
			})
		}
		s.list("components", &a.Components)
		if s.text("key", &a.Key) && !strings.Contains(a.Key, keyBegin) {
			s.errorf(s.at("key"), "Invalid key", `"key" is an armoured OpenPGP public key (%s …), most often file("archive.asc").`, keyBegin)
		}
		s.integer("priority", &a.Priority, -1000, 1000)
		list = append(list, a)
	}
	return list
}
