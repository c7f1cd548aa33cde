package certhash

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/tree"
)

// attribute is one part of a subject in the given ASN.1 string type.
type attribute struct {
	kind  asn1.ObjectIdentifier
	tag   int
	value string
}

var (
	country      = asn1.ObjectIdentifier{2, 5, 4, 6}
	organization = asn1.ObjectIdentifier{2, 5, 4, 10}
	commonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	serialNumber = asn1.ObjectIdentifier{2, 5, 4, 5}
)

type rawAttribute struct {
	Kind  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func subject(t *testing.T, sets ...[]attribute) []byte {
	t.Helper()
	var name []asn1.RawValue
	for _, set := range sets {
		var raw []rawAttribute
		for _, a := range set {
			raw = append(raw, rawAttribute{a.kind, asn1.RawValue{Tag: a.tag, Bytes: []byte(a.value)}})
		}
		der, err := asn1.MarshalWithParams(raw, "set")
		if err != nil {
			t.Fatal(err)
		}
		name = append(name, asn1.RawValue{FullBytes: der})
	}
	der, err := asn1.Marshal(name)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// certify makes a self-signed certificate for a subject in DER.
func certify(t *testing.T, name []byte) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{},
		RawSubject:   name,
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<31, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("this test compares with openssl: openssl %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestSubjectAgainstOpenSSL(t *testing.T) {
	for name, sets := range map[string][][]attribute{
		"printable":       {{{country, asn1.TagPrintableString, "US"}}, {{commonName, asn1.TagPrintableString, "Root CA 1"}}},
		"utf-8":           {{{organization, asn1.TagUTF8String, "NetLock Kft. Főtanúsítvány"}}},
		"spaces and case": {{{commonName, asn1.TagUTF8String, "  Some\t  Root \n CA  "}}},
		"only spaces":     {{{commonName, asn1.TagUTF8String, "   "}}},
		"latin-1":         {{{organization, asn1.TagT61String, "Caf\xe9"}}},
		"bmp":             {{{organization, asn1.TagBMPString, "\x00C\x00a\x01\x51"}}},
		"ia5":             {{{commonName, asn1.TagIA5String, "Mail"}}},
		"universal":       {{{organization, 28, "\x00\x00\x00C\x00\x01\xf6\x00"}}},
		"numeric":         {{{serialNumber, asn1.TagNumericString, "12  34"}}},
		"many in one set": {{{commonName, asn1.TagUTF8String, "B"}, {organization, asn1.TagUTF8String, "A"}}},
		"empty":           {},
	} {
		t.Run(name, func(t *testing.T) {
			file := certify(t, subject(t, sets...))
			path := filepath.Join(t.TempDir(), "a.pem")
			if err := os.WriteFile(path, file, 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := Subject(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := openssl(t, "x509", "-hash", "-noout", "-in", path); got != want {
				t.Errorf("%s, OpenSSL says %s", got, want)
			}
		})
	}
}

func TestRehashAgainstOpenSSL(t *testing.T) {
	name := subject(t, []attribute{{commonName, asn1.TagUTF8String, "Same"}})
	one, two, three := certify(t, name), certify(t, name), certify(t, name)
	other := certify(t, subject(t, []attribute{{commonName, asn1.TagUTF8String, "Other"}}))
	hash, err := Subject(one)
	if err != nil {
		t.Fatal(err)
	}
	link := func(target string) []byte { return []byte("-> " + target) }
	for name, files := range map[string]map[string][]byte{
		"fresh":     {"one.pem": one, "other.crt": other, "notes.txt": other, "bad.pem": []byte("text")},
		"collision": {"b.pem": one, "a.pem": two, "c.pem": three},
		"duplicate": {"a.pem": one, "b.pem": one},
		"bundle":    {"all.crt": slices.Concat(one, other), "one.pem": one},
		"links": {
			"one.pem": one, "two.pem": two,
			hash + ".1":    link("one.pem"),
			hash + ".7":    link("gone.pem"),
			"00000000.0":   link("gone.pem"),
			"linked.pem":   link("other.crt"),
			"other.crt":    other,
			"dangling.pem": link("nothing"),
		},
		"stale number kept": {"one.pem": one, hash + ".0": link("gone.pem")},
		"number too high":   {"one.pem": one, hash + ".4": link("one.pem")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ours := tree.New(0)
			if err := ours.Mkdir("/certs", 0o755); err != nil {
				t.Fatal(err)
			}
			for name, data := range files {
				var err error
				if target, ok := strings.CutPrefix(string(data), "-> "); ok {
					err = os.Symlink(target, filepath.Join(dir, name))
					if err == nil {
						err = ours.Symlink(target, "/certs/"+name)
					}
				} else {
					err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
					if err == nil {
						err = ours.WriteFile("/certs/"+name, data, 0o644)
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			// It exits 1 over a file that it cannot open, and goes on.
			if out, err := exec.Command("openssl", "rehash", dir).CombinedOutput(); err != nil && len(out) == 0 {
				t.Fatal("this test compares with openssl: ", err)
			}
			if err := Rehash(ours, "/certs"); err != nil {
				t.Fatal(err)
			}
			var want, got []string
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				target, _ := os.Readlink(filepath.Join(dir, e.Name()))
				want = append(want, e.Name()+" "+target)
			}
			names, err := ours.ReadDir("/certs")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				target, _ := ours.Readlink("/certs/" + name)
				got = append(got, name+" "+target)
			}
			if !slices.Equal(want, got) {
				t.Errorf("OpenSSL made\n%s\nwe made\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
			}
		})
	}
}

func FuzzSubject(f *testing.F) {
	f.Add([]byte{0x30, 0x03, 0x30, 0x01, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		if hash, err := subjectHash(der); err == nil && len(hash) != 8 {
			t.Errorf("hash %q", hash)
		}
	})
}
