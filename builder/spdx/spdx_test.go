package spdx

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"
)

func document() Document {
	sum := strings.Repeat("ab", 32)
	return Document{
		Name: "picube", Created: time.Unix(1_763_772_577, 0), Tool: "picube-build-1.0", Namespace: "https://example.org/spdx/1",
		Packages: []Package{
			{Name: "libstdc++6", Version: "1:14.2.0-19", Arch: "arm64", Distro: "debian-13", URL: "http://ftp.debian.org/debian/pool/l.deb", SHA256: sum,
				Licence: "GPL-3.0-or-later AND LicenseRef-debian-permissive"},
			{Name: "bash", Version: "5.2.37-2+b5", Arch: "arm64", SHA256: sum},
		},
	}
}

func TestDocumentIsValid(t *testing.T) {
	d := document()
	text, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(d.Packages)
	d.Packages = append(d.Packages, d.Packages[0])
	if again, err := d.Bytes(); err != nil || !bytes.Equal(text, again) {
		t.Errorf("another order makes other bytes; error: %v", err)
	}
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	if len(doc.Packages) != 2 || doc.Packages[1].PackageExternalReferences[0].Locator !=
		"pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19?arch=arm64&distro=debian-13" {
		t.Errorf("%+v", doc.Packages)
	}
	if len(doc.OtherLicenses) != 1 || doc.OtherLicenses[0].LicenseIdentifier != "LicenseRef-debian-permissive" {
		t.Errorf("%+v", doc.OtherLicenses)
	}
}

func TestLicence(t *testing.T) {
	const head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
	for _, c := range []struct{ name, text, want string }{
		{"prose", "This is the Debian version of something.\n\nIt is free.\n", ""},
		{"none named", head, ""},
		{"for all", head + "License: GPL-2+\n text\n", "GPL-2.0-or-later"},
		{"texts alone", head + "\nFiles: *\nLicense: Expat\n\nLicense: GPL-3\n text\n", "MIT"},
		{"several", head + "\nFiles: *\nLicense: LGPL-2.1+\n\nFiles: a\nLicense: BSD-3-clause\n\nFiles: b\nLicense: LGPL-2.1+\n",
			"BSD-3-Clause AND LGPL-2.1-or-later"},
		{"choice", head + "\nFiles: *\nLicense: GPL-1+ or Artistic-2\n\nFiles: a\nLicense: ISC\n",
			"(GPL-1.0-or-later OR Artistic-2.0) AND ISC"},
		{"comma", head + "\nFiles: *\nLicense: GPL-2 or MIT, and Zlib\n", "(GPL-2.0-only OR MIT) AND Zlib"},
		{"precedence", head + "\nFiles: *\nLicense: GPL-2 or MIT and Zlib\n", "GPL-2.0-only OR (MIT AND Zlib)"},
		{"not listed", head + "\nFiles: *\nLicense: GPL-2+ with OpenSSL exception\n", "LicenseRef-debian-GPL-2-or-later-with-OpenSSL-exception"},
		{"invariant", head + "\nFiles: *\nLicense: GFDL-NIV-1.3+\n", "GFDL-1.3-no-invariants-or-later"},
		{"a text for a name", head + "\nFiles: *\nLicense: Permission is granted; use it.\n", ""},
		{"damaged", head + "\nFiles\n", ""},
	} {
		if got := Licence(c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzLicence(f *testing.F) {
	f.Add("Format: copyright-format/1.0\n\nFiles: *\nLicense: GPL-2+ or MIT, and x\n")
	f.Fuzz(func(t *testing.T, text string) {
		d := document()
		d.Packages[0].Licence = Licence(text)
		if strings.ContainsAny(d.Packages[0].Licence, "\n\"\\") {
			t.Errorf("%q", d.Packages[0].Licence)
		}
		if _, err := d.Bytes(); err != nil {
			t.Error(err)
		}
	})
}
