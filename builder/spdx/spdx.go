// Package spdx writes a bill of materials as SPDX 2.3 JSON: a list of Debian
// packages with their licences and digests.
//
// A document of three kinds of objects needs no library; spdx/tools-golang is
// the second opinion of the tests.
//
// Not supported: files within packages, snippets, annotations, reading.
//
// Formats: "The Software Package Data Exchange (SPDX) Specification" 2.3 and
// its JSON schema; package-url.org, type "deb".
package spdx

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Package is a Debian package.
type Package struct {
	Name, Version, Arch string
	Distro              string // "debian-13"; may be empty
	URL                 string // where it can be had; empty: not known
	SHA256              string // of the .deb, in hex
	// Licence is an SPDX expression as Licence returns it; empty: not known.
	Licence string
}

// Document says what the list is about.
type Document struct {
	Name    string    // "picube"
	Created time.Time // of what it lists
	Tool    string    // "picube-build-1.0"
	// Namespace is an absolute URI that no other document has.
	Namespace string
	Packages  []Package
}

const unknown = "NOASSERTION"

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxPackage struct {
	ID            string      `json:"SPDXID"`
	Name          string      `json:"name"`
	Version       string      `json:"versionInfo"`
	Download      string      `json:"downloadLocation"`
	FilesAnalyzed bool        `json:"filesAnalyzed"`
	Checksums     []checksum  `json:"checksums"`
	Concluded     string      `json:"licenseConcluded"`
	Declared      string      `json:"licenseDeclared"`
	Copyright     string      `json:"copyrightText"`
	References    []reference `json:"externalRefs"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

type extracted struct {
	ID   string `json:"licenseId"`
	Name string `json:"name"`
	Text string `json:"extractedText"`
}

const documentID = "SPDXRef-DOCUMENT"

// Bytes returns the document as a file. The same packages in any order, some
// twice or not, make the same bytes.
func (d Document) Bytes() ([]byte, error) {
	packages := slices.Clone(d.Packages)
	slices.SortFunc(packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Version, b.Version), cmp.Compare(a.SHA256, b.SHA256))
	})
	packages = slices.CompactFunc(packages, func(a, b Package) bool { return a.id() == b.id() })
	list := make([]spdxPackage, 0, len(packages))
	relations := make([]relationship, 0, len(packages))
	refs := map[string]bool{}
	for _, p := range packages {
		list = append(list, spdxPackage{
			ID: p.id(), Name: p.Name, Version: p.Version, Download: cmp.Or(p.URL, unknown),
			Checksums: []checksum{{"SHA256", p.SHA256}},
			Concluded: unknown, Declared: cmp.Or(p.Licence, unknown), Copyright: unknown,
			References: []reference{{"PACKAGE-MANAGER", "purl", p.purl()}},
		})
		relations = append(relations, relationship{documentID, "DESCRIBES", p.id()})
		for _, ref := range licenceRefs(p.Licence) {
			refs[ref] = true
		}
	}
	licences := []extracted{}
	for ref := range refs {
		name := strings.TrimPrefix(ref, refPrefix)
		licences = append(licences, extracted{ref, name,
			fmt.Sprintf("What Debian calls %s; its text is in /usr/share/doc/<package>/copyright.", name)})
	}
	slices.SortFunc(licences, func(a, b extracted) int { return cmp.Compare(a.ID, b.ID) })
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(struct {
		Version       string         `json:"spdxVersion"`
		DataLicense   string         `json:"dataLicense"`
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Namespace     string         `json:"documentNamespace"`
		CreationInfo  map[string]any `json:"creationInfo"`
		Packages      []spdxPackage  `json:"packages"`
		Relationships []relationship `json:"relationships"`
		Licences      []extracted    `json:"hasExtractedLicensingInfos,omitempty"`
	}{
		"SPDX-2.3", "CC0-1.0", documentID, d.Name, d.Namespace,
		map[string]any{"created": d.Created.UTC().Format("2006-01-02T15:04:05Z"), "creators": []string{"Tool: " + d.Tool}},
		list, relations, licences,
	})
	return b.Bytes(), err
}

// id returns the package's name within the document (section 7.2 allows
// letters, digits, "." and "-").
func (p Package) id() string {
	return "SPDXRef-Package-" + idstring(strings.Join([]string{p.Name, p.Version, p.Arch}, "-"))
}

func idstring(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "-%02x-", c)
		}
	}
	return b.String()
}

// purl returns the package's name among all packages of the world.
func (p Package) purl() string {
	escape := func(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }
	s := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", escape(p.Name), strings.ReplaceAll(escape(p.Version), ":", "%3A"), p.Arch)
	if p.Distro != "" {
		s += "&distro=" + p.Distro
	}
	return s
}
