package introduction

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type identity struct {
	t           testing.TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIdentity(t testing.TB) *identity {
	i := &identity{t: t, key: newKey(t)}
	i.certificate = i.issue("kubernetes", i.key.Public().(*ecdsa.PublicKey), true)
	return i
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (i *identity) issue(name string, key *ecdsa.PublicKey, authority bool) *x509.Certificate {
	i.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	parent := i.certificate
	if authority {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return c
}

// introduce is what the second identity's nodes are told of the first.
func introduce(t testing.TB, first *identity, node *ecdsa.PublicKey) Introduction {
	return Introduction{
		Cluster: "beta", Issued: 1_790_000_000, Authority: first.certificate.Raw,
		Cubes: []Cube{
			{Name: "alpha", ControlPlane: []Member{{"rpi1", "10.42.1.1"}}, Workers: []Member{{"rpi2", "10.42.1.2"}}},
			{Name: "beta", ControlPlane: []Member{{"beta-1", "10.42.2.1"}}},
		},
		Certificates: map[string][]byte{"beta-1": first.issue("system:node:beta-1", node, false).Raw},
		Admins:       map[string][]byte{"beta-1": first.issue("picube:beta-1", node, false).Raw},
	}
}

func seal(t testing.TB, i Introduction, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	data, err := Seal(i, key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestIntroduction(t *testing.T) {
	first, second, node := newIdentity(t), newIdentity(t), newKey(t)
	want := introduce(t, first, &node.PublicKey)
	file := filepath.Join(t.TempDir(), "introduction.bin")
	if _, err := ReadFile(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	data := seal(t, want, second.key)
	t.Logf("%d bytes", len(data))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(read, second.certificate)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	der, err := Certificate(got.Certificates, "beta-1", &node.PublicKey)
	if err != nil || !bytes.Equal(der, want.Certificates["beta-1"]) {
		t.Errorf("the node's certificate: %v", err)
	}
	if _, err := Certificate(got.Certificates, "beta-1", &newKey(t).PublicKey); err == nil {
		t.Error("a node takes a certificate for another key")
	}
	if der, err := Certificate(got.Certificates, "rpi1", &node.PublicKey); der != nil || err != nil {
		t.Errorf("a node that keeps its own: %v", err)
	}
	for name, data := range map[string][]byte{
		"by the other identity": seal(t, want, first.key),
		"by a stranger":         seal(t, want, newKey(t)),
		"changed":               bytes.Replace(data, []byte("10.42.1.1"), []byte("10.42.1.9"), 1),
		"longer":                append(bytes.Clone(data), 0),
	} {
		if _, err := Open(data, second.certificate); !errors.Is(err, ErrStranger) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 3, 7, 20, len(data) - 1} {
		if _, err := Open(data[:n], second.certificate); err == nil {
			t.Errorf("the first %d bytes are taken", n)
		}
	}
	if _, err := Open(make([]byte, MaxSize+1), second.certificate); err == nil {
		t.Error("a file of any size is taken")
	}
	if err := os.Truncate(file, MaxSize+1); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, filepath.Dir(file)} {
		if _, err := ReadFile(name); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

func TestMistakes(t *testing.T) {
	first, second, node := newIdentity(t), newIdentity(t), newKey(t)
	for want, change := range map[string]func(*Introduction){
		"authority":                       func(i *Introduction) { i.Authority = []byte("x") },
		"cannot sign certificates":        func(i *Introduction) { i.Authority = i.Certificates["beta-1"] },
		`cluster ""`:                      func(i *Introduction) { i.Cluster = "" },
		`cube "alpha": cannot use`:        func(i *Introduction) { i.Cubes[1].Name = "alpha" },
		`cube "../x"`:                     func(i *Introduction) { i.Cubes[0].Name = "../x" },
		"without a control plane":         func(i *Introduction) { i.Cubes[0].ControlPlane = nil },
		`address "here"`:                  func(i *Introduction) { i.Cubes[0].ControlPlane[0].Address = "here" },
		`address "10.42.2.1"`:             func(i *Introduction) { i.Cubes[0].ControlPlane[0].Address = "10.42.2.1" },
		`node "rpi1"`:                     func(i *Introduction) { i.Cubes[0].Workers[0].Name = "rpi1" },
		`node "beta-1"`:                   func(i *Introduction) { i.Cubes[0].ControlPlane[0].Name = "beta-1" },
		`"beta-2": it is not that node's`: func(i *Introduction) { i.Certificates["beta-2"] = i.Certificates["beta-1"] },
		`"beta-1": it is not that node's`: func(i *Introduction) { i.Admins = i.Certificates },
		`"beta-1": x509`: func(i *Introduction) {
			i.Certificates["beta-1"] = second.issue("system:node:beta-1", &node.PublicKey, false).Raw
		},
	} {
		i := introduce(t, first, &node.PublicKey)
		change(&i)
		if _, err := Seal(i, second.key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// FuzzOpen: whatever the message, a valid signature around it must not be
// enough.
func FuzzOpen(f *testing.F) {
	first, second, node := newIdentity(f), newIdentity(f), newKey(f)
	good := seal(f, introduce(f, first, &node.PublicKey), second.key)
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte(magic + "\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if i, err := Open(data, second.certificate); err == nil {
			if err := i.check(); err != nil {
				t.Error(err)
			}
		}
		message := data[min(len(data), 8):]
		signed := append(binary.BigEndian.AppendUint32([]byte(magic), uint32(len(message))), message...)
		sum := second.sign(signed)
		if i, err := Open(append(signed, sum...), second.certificate); err == nil {
			if err := i.check(); err != nil {
				t.Error(err)
			}
		}
	})
}

func (i *identity) sign(data []byte) []byte {
	sum := sha256.Sum256(data)
	signature, err := i.key.Sign(rand.Reader, sum[:], nil)
	if err != nil {
		i.t.Fatal(err)
	}
	return signature
}
