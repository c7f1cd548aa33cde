// Package certhash makes the links by which OpenSSL finds an authority's
// certificate in a folder: <hash of the subject>.<number>, as "openssl rehash"
// makes them.
//
// The hash is that of X509_NAME_hash(3): SHA-1 over the subject's canonical
// encoding, in which strings are UTF-8, lower-case in ASCII, and without
// superfluous spaces (OpenSSL's crypto/x509/x_name.c); the links follow
// openssl-rehash(1) and OpenSSL's apps/rehash.c.
//
// Not supported: revocation lists and the hash of OpenSSL 0.9.
package certhash

import (
	"bytes"
	"crypto/sha1"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/picube/picube-build/builder/tree"
)

var (
	errNoCertificate = errors.New("cannot parse it as a certificate")
	errOneOnly       = errors.New("cannot find exactly one certificate")
)

// Subject returns the hash of the one certificate in a PEM file, as
// "openssl x509 -hash" prints it.
func Subject(file []byte) (string, error) {
	der, err := single(file)
	if err != nil {
		return "", err
	}
	return subjectHash(der)
}

// single returns the DER of the only certificate in a PEM file.
func single(file []byte) ([]byte, error) {
	var der []byte
	for {
		var block *pem.Block
		if block, file = pem.Decode(file); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
			if der != nil {
				return nil, errOneOnly
			}
			der = block.Bytes
		case "X509 CRL":
			return nil, errOneOnly
		}
	}
	if der == nil {
		return nil, errOneOnly
	}
	return der, nil
}

func subjectHash(certificate []byte) (string, error) {
	input := cryptobyte.String(certificate)
	var cert, tbs, subject cryptobyte.String
	ok := input.ReadASN1(&cert, cbasn1.SEQUENCE) &&
		cert.ReadASN1(&tbs, cbasn1.SEQUENCE) &&
		tbs.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) && // version
		tbs.SkipASN1(cbasn1.INTEGER) && // serial number
		tbs.SkipASN1(cbasn1.SEQUENCE) && // signature algorithm
		tbs.SkipASN1(cbasn1.SEQUENCE) && // issuer
		tbs.SkipASN1(cbasn1.SEQUENCE) && // validity
		tbs.ReadASN1(&subject, cbasn1.SEQUENCE)
	if !ok {
		return "", errNoCertificate
	}
	sum := sha1.New()
	for !subject.Empty() {
		var set cryptobyte.String
		if !subject.ReadASN1(&set, cbasn1.SET) {
			return "", errNoCertificate
		}
		canonical, err := canonicalSet(set)
		if err != nil {
			return "", err
		}
		sum.Write(canonical)
	}
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum.Sum(nil))), nil
}

// canonicalSet encodes one relative distinguished name.
func canonicalSet(set cryptobyte.String) ([]byte, error) {
	var attributes [][]byte
	for !set.Empty() {
		var attribute, kind, value cryptobyte.String
		var tag cbasn1.Tag
		ok := set.ReadASN1(&attribute, cbasn1.SEQUENCE) &&
			attribute.ReadASN1Element(&kind, cbasn1.OBJECT_IDENTIFIER) &&
			attribute.ReadAnyASN1(&value, &tag) && attribute.Empty()
		if !ok {
			return nil, errNoCertificate
		}
		text, isText, err := decodeText(tag, value)
		if err != nil {
			return nil, err
		}
		if isText {
			tag, value = cbasn1.UTF8String, canonicalText(text)
		}
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(kind)
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
		})
		der, err := b.Bytes()
		if err != nil {
			return nil, errNoCertificate
		}
		attributes = append(attributes, der)
	}
	slices.SortFunc(attributes, bytes.Compare) // DER: SET OF
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
		for _, der := range attributes {
			b.AddBytes(der)
		}
	})
	return b.Bytes()
}

// decodeText returns the UTF-8 of the string types that OpenSSL compares as
// text; others stay as they are.
func decodeText(tag cbasn1.Tag, value []byte) (text []byte, isText bool, err error) {
	switch tag {
	case cbasn1.UTF8String:
		if !utf8.Valid(value) {
			return nil, false, errNoCertificate
		}
		return value, true, nil
	case cbasn1.PrintableString, cbasn1.IA5String, cbasn1.T61String:
		for _, c := range value { // read as Latin-1
			text = utf8.AppendRune(text, rune(c))
		}
		return text, true, nil
	case cbasn1.Tag(asn1.TagBMPString):
		if len(value)%2 != 0 {
			return nil, false, errNoCertificate
		}
		for i := 0; i < len(value); i += 2 {
			r := rune(binary.BigEndian.Uint16(value[i:]))
			if utf16.IsSurrogate(r) {
				return nil, false, errNoCertificate
			}
			text = utf8.AppendRune(text, r)
		}
		return text, true, nil
	case cbasn1.Tag(28): // UniversalString
		if len(value)%4 != 0 {
			return nil, false, errNoCertificate
		}
		for i := 0; i < len(value); i += 4 {
			r := rune(binary.BigEndian.Uint32(value[i:]))
			if !utf8.ValidRune(r) {
				return nil, false, errNoCertificate
			}
			text = utf8.AppendRune(text, r)
		}
		return text, true, nil
	}
	return nil, false, nil
}

// canonicalText lower-cases ASCII and leaves one space where there were some.
func canonicalText(text []byte) []byte {
	words := bytes.FieldsFunc(text, func(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' })
	text = bytes.Join(words, []byte(" "))
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			text[i] = c + 'a' - 'A'
		}
	}
	return text
}

// maxCollisions is how many certificates may share a hash, as in OpenSSL.
const maxCollisions = 256

// certificate is a file that wants a link.
type certificate struct {
	name string
	sum  [sha1.Size]byte
}

// bucket is what shares a hash.
type bucket struct {
	links map[string]int // the lowest link to each target
	certs []certificate
}

// Rehash makes the hash links of a folder anew, as "openssl rehash DIR" does.
// Files with other than one certificate are passed over.
func Rehash(t *tree.Tree, dir string) error {
	names, err := t.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot make hash links: %w", err)
	}
	buckets := map[string]*bucket{}
	at := func(hash string) *bucket {
		if buckets[hash] == nil {
			buckets[hash] = &bucket{links: map[string]int{}}
		}
		return buckets[hash]
	}
	for _, name := range names {
		full := path.Join(dir, name)
		if hash, number, ok := parseLink(name); ok {
			if target, err := t.Readlink(full); err == nil {
				b := at(hash)
				if old, seen := b.links[target]; !seen || number < old {
					b.links[target] = number
				}
				continue
			}
		}
		der, ok := readCertificate(t, full)
		if !ok {
			continue
		}
		hash, err := subjectHash(der)
		if err != nil {
			continue // OpenSSL takes it for no certificate either
		}
		b, sum := at(hash), sha1.Sum(der)
		duplicate := slices.ContainsFunc(b.certs, func(c certificate) bool { return c.sum == sum })
		if !duplicate {
			b.certs = append(b.certs, certificate{name, sum})
		}
	}
	for hash, b := range buckets {
		if len(b.certs) > maxCollisions {
			return fmt.Errorf("directory %s: cannot link more than %d certificates of subject %s", dir, maxCollisions, hash)
		}
		if err := b.relink(t, dir+"/"+hash+"."); err != nil {
			return fmt.Errorf("cannot make hash links: %w", err)
		}
	}
	return nil
}

// relink gives each certificate the number it has or the lowest free one.
// Numbers below the count of certificates are never taken from a link that is
// there, whatever it leads to; links above that lead to no certificate go.
func (b *bucket) relink(t *tree.Tree, prefix string) error {
	used := map[int]bool{}
	for target, number := range b.links {
		if number < len(b.certs) {
			used[number] = true
			continue
		}
		if slices.ContainsFunc(b.certs, func(c certificate) bool { return c.name == target }) {
			continue
		}
		if err := t.RemoveAll(prefix + strconv.Itoa(number)); err != nil {
			return err
		}
	}
	next := 0
	for _, c := range b.certs {
		if number, linked := b.links[c.name]; linked && number < len(b.certs) {
			continue
		}
		for used[next] {
			next++
		}
		used[next] = true
		link := prefix + strconv.Itoa(next)
		if err := t.RemoveAll(link); err != nil {
			return err
		}
		if err := t.Symlink(c.name, link); err != nil {
			return err
		}
	}
	return nil
}

// parseLink takes names like 5ad8a5d6.0.
func parseLink(name string) (hash string, number int, ok bool) {
	hash, digits, _ := strings.Cut(name, ".")
	if len(hash) != 8 || strings.Trim(hash, "0123456789abcdef") != "" {
		return "", 0, false
	}
	number, err := strconv.Atoi(digits)
	return hash, number, err == nil && number >= 0
}

func readCertificate(t *tree.Tree, p string) (der []byte, ok bool) {
	switch strings.ToLower(path.Ext(p)) {
	case ".pem", ".crt", ".cer", ".crl":
	default:
		return nil, false
	}
	data, err := t.ReadFile(p)
	if err != nil {
		return nil, false
	}
	der, err = single(data)
	return der, err == nil
}
