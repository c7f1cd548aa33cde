package index_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/debian/index"
)

const digest = "c44b335656e2d1bbaa2a939381a63c1942e91004f73d1fa676c3f6012d374f4b"

const stanza = `Package: perl-base
Source: perl
Version: 5.40.1-6
Essential: yes
Installed-Size: 8134
Maintainer: Niko Tyni <ntyni@debian.org>
Architecture: arm64
Provides: libfile-path-perl (= 2.180000), libfile-temp-perl
Pre-Depends: libc6 (>= 2.41)
Conflicts: defoma (<< 0.11.12)
Breaks: autoconf2.13 (<< 2.13-45)
Description: minimal Perl system
Tag: a, b,
 c
Section: perl
Priority: required
Multi-Arch: allowed
Filename: ./pool/main/p/perl/perl-base_5.40.1-6_arm64.deb
Size: 1600
SHA256: ` + digest + "\n"

func TestParse(t *testing.T) {
	want := index.Package{
		Name: "perl-base", Version: "5.40.1-6", Arch: "arm64", Source: "perl", Section: "perl", Priority: "required",
		MultiArch: "allowed", Essential: true, PreDepends: "libc6 (>= 2.41)",
		Provides: "libfile-path-perl (= 2.180000), libfile-temp-perl", Conflicts: "defoma (<< 0.11.12)",
		Breaks: "autoconf2.13 (<< 2.13-45)", InstalledSize: 8134,
		Filename: "pool/main/p/perl/perl-base_5.40.1-6_arm64.deb", Size: 1600, SHA256: digest,
	}
	var trimmed strings.Builder
	if err := index.Trim(&trimmed, strings.NewReader(stanza+"\n"+stanza)); err != nil {
		t.Fatal(err)
	}
	for _, unwanted := range []string{"Tag", "\n c\n", "Description"} {
		if strings.Contains(trimmed.String(), unwanted) {
			t.Errorf("%s was not trimmed", unwanted)
		}
	}
	for name, text := range map[string]string{"whole": stanza + "\n" + stanza, "trimmed": trimmed.String()} {
		got, err := index.Parse(text)
		if err != nil || len(got) != 2 || !reflect.DeepEqual(got[1], want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestBad(t *testing.T) {
	tests := []struct{ from, to, want string }{
		{"Package: perl-base\n", "", `package "": invalid name`},
		{"perl-base\n", "../etc\n", `package "../etc": invalid name`},
		{"5.40.1-6\n", "x\n", `package "perl-base": version "x": it does not start with a digit`},
		{"arm64\n", "a/b\n", `package "perl-base": invalid architecture "a/b"`},
		{"./pool", "/pool", `package "perl-base": invalid file name "/pool/main/p/perl/perl-base_5.40.1-6_arm64.deb"`},
		{"./pool", "pool/../..", `package "perl-base": invalid file name "pool/../../main/p/perl/perl-base_5.40.1-6_arm64.deb"`},
		{"Size: 1600", "Size: -1", `package "perl-base": invalid size "-1"`},
		{digest, digest[1:], `package "perl-base": invalid SHA256 "` + digest[1:] + `"`},
		{"Essential: yes", "Essential yes", `line 4: "Essential yes" is not a field`},
	}
	for _, test := range tests {
		_, err := index.Parse(strings.Replace(stanza, test.from, test.to, 1))
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(stanza + "\n" + stanza)
	f.Fuzz(func(t *testing.T, text string) {
		var trimmed strings.Builder
		whole, err := index.Parse(text)
		if err != nil || index.Trim(&trimmed, strings.NewReader(text)) != nil {
			return
		}
		for _, p := range whole {
			if strings.Contains(p.Filename, "..") && index.CheckFilename(p.Filename) != nil {
				t.Errorf("file name %q", p.Filename)
			}
		}
	})
}
