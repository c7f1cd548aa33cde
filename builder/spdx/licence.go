package spdx

import (
	"regexp"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/debian/control"
)

// refPrefix begins the names of licences that SPDX does not list.
const refPrefix = "LicenseRef-debian-"

// Licence returns the licences that a Debian copyright file tells, all of
// which hold for some part of the package, as an SPDX expression. It is empty
// if the file is not in the machine-readable format or names none.
//
// Format: Debian's "Machine-readable debian/copyright file" 1.0.
func Licence(copyright string) string {
	var all []string
	first := true
	for p, err := range control.Paragraphs(copyright) {
		if err != nil || first && !strings.Contains(p.Get("Format"), "copyright-format/1") {
			return ""
		}
		// Stand-alone paragraphs only give the texts.
		if l := p.Get("License"); l != "" && (first || p.Get("Files") != "") {
			short, _, _ := strings.Cut(l, "\n")
			e, ok := expression(strings.TrimSpace(short))
			if !ok {
				return ""
			}
			all = append(all, e)
		}
		first = false
	}
	slices.Sort(all)
	return join(slices.Compact(all), " AND ")
}

// join joins expressions, those with operators in parentheses.
func join(parts []string, operator string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	for i, p := range parts {
		if strings.Contains(p, " OR ") || strings.Contains(p, " AND ") {
			parts[i] = "(" + p + ")"
		}
	}
	return strings.Join(parts, operator)
}

// operators of Debian's short form, the weakest first: a comma before a word
// makes that word weaker.
var operators = []struct{ debian, spdx string }{
	{", and ", " AND "}, {", or ", " OR "}, {" or ", " OR "}, {" and ", " AND "},
}

func expression(s string) (string, bool) {
	for _, op := range operators {
		words := strings.Split(s, op.debian)
		if len(words) < 2 {
			continue
		}
		parts := make([]string, 0, len(words))
		for _, w := range words {
			p, ok := expression(w)
			if !ok {
				return "", false
			}
			parts = append(parts, p)
		}
		return join(parts, op.spdx), true
	}
	return single(strings.TrimSpace(s))
}

// listed are SPDX's names of what Debian calls otherwise, in lower case.
var listed = map[string]string{
	"expat": "MIT", "mit": "MIT", "isc": "ISC", "zlib": "Zlib", "x11": "X11", "curl": "curl", "ftl": "FTL",
	"apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0",
	"artistic-2": "Artistic-2.0", "artistic-2.0": "Artistic-2.0",
	"bsd-1-clause": "BSD-1-Clause", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause",
	"bsd-4-clause": "BSD-4-Clause", "bsd-4-clause-uc": "BSD-4-Clause-UC", "0bsd": "0BSD",
	"bsl-1": "BSL-1.0", "bsl-1.0": "BSL-1.0", "cc0": "CC0-1.0", "cc0-1.0": "CC0-1.0",
	"cc-by-3.0": "CC-BY-3.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-3.0": "CC-BY-SA-3.0", "cc-by-sa-4.0": "CC-BY-SA-4.0",
	"fsfap": "FSFAP", "fsful": "FSFUL", "fsfullr": "FSFULLR", "latex2e": "Latex2e", "libpng": "Libpng",
	"mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0", "ofl-1.1": "OFL-1.1", "openldap-2.8": "OLDAP-2.8",
	"openssl": "OpenSSL", "psf-2": "PSF-2.0", "psf-2.0": "PSF-2.0", "unlicense": "Unlicense",
}

// gnu matches the GNU licences in the names that Debian and SPDX give them.
var gnu = regexp.MustCompile(`(?i)^(A?GPL|LGPL|GFDL)(-NIV)?[-v]*([0-9](?:\.[0-9])?)(?:\.0)?(\+|-only|-or-later)?$`)

// name matches what may be a licence's name, so that texts are not.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_/() -]*$`)

func single(s string) (string, bool) {
	if id, ok := listed[strings.ToLower(s)]; ok {
		return id, true
	}
	if m := gnu.FindStringSubmatch(s); m != nil {
		family, version, later := strings.ToUpper(m[1]), m[3], m[4] == "+" || strings.EqualFold(m[4], "-or-later")
		if !strings.Contains(version, ".") {
			version += ".0"
		}
		if family == "GFDL" {
			version = strings.Replace(version, "1.0", "1.1", 1) // the first there was
			if m[2] != "" {
				version += "-no-invariants"
			}
		}
		if later {
			return family + "-" + version + "-or-later", true
		}
		return family + "-" + version + "-only", true
	}
	if len(s) > 60 || !name.MatchString(s) {
		return "", false
	}
	return refPrefix + strings.Trim(notInID.ReplaceAllString(strings.ReplaceAll(s, "+", "-or-later"), "-"), "-"), true
}

var (
	notInID = regexp.MustCompile(`[^A-Za-z0-9.]+`)
	ref     = regexp.MustCompile(refPrefix + `[A-Za-z0-9.-]+`)
)

// licenceRefs returns the names in an expression that SPDX does not list.
func licenceRefs(expression string) []string { return ref.FindAllString(expression, -1) }
