package output

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ManifestFile is the manifest's name in a cube's folder.
const ManifestFile = "manifest.json"

// manifestFormat is the number that manifests of this kind carry.
const manifestFormat = 1

// Manifest says what lies in a cube's folder and what it was made from.
type Manifest struct {
	Format    int     `json:"format"`
	Cube      string  `json:"cube"`
	Cluster   string  `json:"cluster"`
	Blueprint string  `json:"blueprint"` // the file's name without folder
	Builder   string  `json:"builder"`   // version of picube-build
	Created   string  `json:"created"`   // the lock's time, RFC 3339
	Lock      string  `json:"lock"`      // the lock's SHA-256
	Suites    []Suite `json:"suites"`
	Cards     []Card  `json:"cards"`
}

// Suite is a release of a distribution.
type Suite struct {
	Name    string `json:"name"` // "debian trixie"
	Version string `json:"version,omitempty"`
}

// Card is a node and its image.
type Card struct {
	Node    string `json:"node"`
	Role    string `json:"role"`
	Board   string `json:"board"`
	Model   string `json:"model"` // the board's, in words
	Address string `json:"address"`
	Root    string `json:"root"` // the root file system's digest of inputs
	Boot    string `json:"boot"` // the boot partition's
	Image
	Bmap string `json:"bmap"` // the block map's file
}

// Bytes returns the manifest as a file.
func (m Manifest) Bytes() ([]byte, error) {
	m.Format = manifestFormat
	return marshal(m)
}

// ReadManifest reads the manifest of a cube's folder.
func ReadManifest(dir string) (Manifest, error) {
	name := filepath.Join(dir, ManifestFile)
	var m Manifest
	text, err := os.ReadFile(name)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("%s: cannot read it: %w", name, err)
	}
	if m.Format != manifestFormat {
		return m, fmt.Errorf("%s: cannot read format %d", name, m.Format)
	}
	for _, c := range m.Cards {
		if c.Name == "" || filepath.Base(c.Name) != c.Name {
			return m, fmt.Errorf("%s: node %q: cannot use %q as an image's name", name, c.Node, c.Name)
		}
	}
	return m, nil
}

// imagerTags are Raspberry Pi Imager's names of our boards, which say what is
// offered for which board.
func imagerTags(board string) []string {
	switch board {
	case "rpi2":
		return []string{"pi2-32bit"}
	case "rpi3", "zero2w":
		return []string{"pi3-64bit"}
	case "rpi4", "cm4":
		return []string{"pi4-64bit"}
	case "rpi5":
		return []string{"pi5-64bit"}
	}
	return nil
}

// imagerIcon is a picture that Imager brings along.
const imagerIcon = "icons/use_custom.png"

type imagerSystem struct {
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	Icon         string   `json:"icon"`
	URL          string   `json:"url"`
	ExtractSize  int64    `json:"extract_size"`
	ExtractSum   string   `json:"extract_sha256"`
	DownloadSize int64    `json:"image_download_size"`
	ReleaseDate  string   `json:"release_date"`
	InitFormat   string   `json:"init_format"`
	Devices      []string `json:"devices"` // tags
}

// imagerDevice is a board to choose: Imager goes no further without one.
type imagerDevice struct {
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	Tags         []string `json:"tags"`
	MatchingType string   `json:"matching_type"`
}

// ImagerFile is the catalogue's name; Raspberry Pi Imager opens it on a double
// click.
func ImagerFile(cube string) string { return cube + ".rpi-imager-manifest" }

// Imager returns the catalogue of a manifest whose images lie in dir, an
// absolute path. Boards that Imager cannot know are left out.
func (m Manifest) Imager(dir string) ([]byte, error) {
	list, boards := []imagerSystem{}, []imagerDevice{}
	date, _, _ := strings.Cut(m.Created, "T")
	for _, c := range m.Cards {
		tags := imagerTags(c.Board)
		if tags == nil {
			continue
		}
		path := filepath.ToSlash(filepath.Join(dir, c.Name))
		if !strings.HasPrefix(path, "/") {
			path = "/" + path // C:/... of Windows
		}
		list = append(list, imagerSystem{
			Name:        c.Node,
			Description: fmt.Sprintf("%s of cube %s, %s, %s", c.Role, m.Cube, c.Model, c.Address),
			Icon:        imagerIcon,
			URL:         (&url.URL{Scheme: "file", Path: path}).String(),
			ExtractSize: c.CardSize, ExtractSum: c.CardSHA256, DownloadSize: c.Size,
			ReleaseDate: date,
			InitFormat:  "none", // else Imager writes its own settings over ours
			Devices:     tags,
		})
		if !slices.ContainsFunc(boards, func(d imagerDevice) bool { return d.Name == c.Model }) {
			boards = append(boards, imagerDevice{
				Name: c.Model, Description: "in cube " + m.Cube, Tags: tags, MatchingType: "exclusive",
			})
		}
	}
	return marshal(map[string]any{"imager": map[string]any{"devices": boards}, "os_list": list})
}
