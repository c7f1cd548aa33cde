package announce

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// identity is an authority and what it issues.
type identity struct {
	t           testing.TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newIdentity(t testing.TB) *identity {
	i := &identity{t: t}
	i.certificate, i.key = i.issue("kubernetes", true)
	return i
}

func (i *identity) issue(name string, authority bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	parent, signer := i.certificate, i.key
	if authority {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		i.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return c, key
}

func (i *identity) trust() Trust {
	pool := x509.NewCertPool()
	pool.AddCert(i.certificate)
	return Trust{Authority: pool, Now: func() time.Time { return time.Unix(1<<31, 0) }, CubeOf: func(leaf *x509.Certificate) string {
		return map[string]string{"system:node:rpi1": "alpha", "system:node:rpi5": "beta"}[leaf.Subject.CommonName]
	}}
}

func record() merge.Record {
	return merge.Record{
		ID: "0123456789abcdef", Cube: "alpha", Born: 1_790_000_000, Kubernetes: "v1.34.4", Version: 12, Term: 3, Phase: merge.Workers,
		Leader: "fedcba9876543210", LeaderCube: "beta", Leaving: "rpi3", Guests: []merge.Guest{{ID: "x"}},
	}
}

func TestOpen(t *testing.T) {
	ours, theirs := newIdentity(t), newIdentity(t)
	seal := func(i *identity, node string) []byte {
		c, key := i.issue("system:node:"+node, false)
		b, err := Seal(record(), c, key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := seal(ours, "rpi1")
	t.Logf("%d bytes", len(good))
	r, err := ours.trust().Open(good)
	if err != nil || r.Leaving != "rpi3" || r.Guests != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	forged := []byte(strings.Replace(string(good), "rpi3", "rpi4", 1))
	for name, test := range map[string]struct {
		packet []byte
		want   string
	}{
		"changed":             {forged, "verify the signature"},
		"a worker":            {seal(ours, "rpi2"), "not of a control plane"},
		"another's cluster":   {seal(ours, "rpi5"), "cannot speak for"},
		"another identity":    {seal(theirs, "rpi1"), ErrStranger.Error()},
		"cut off":             {good[:len(good)-1], "verify the signature"},
		"nothing":             {nil, "beginning"},
		"too large":           {make([]byte, MaxSize+1), "so large"},
		"without certificate": {[]byte(magic + "\x00"), "certificate"},
	} {
		if _, err := ours.trust().Open(test.packet); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ours.trust().Open(seal(theirs, "rpi1")); !errors.Is(err, ErrStranger) {
		t.Errorf("another identity: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	i := newIdentity(f)
	c, key := i.issue("system:node:rpi1", false)
	good, err := Seal(record(), c, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(magic))
	f.Add(good[:40])
	trust := i.trust()
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, err := trust.Open(packet); err == nil && string(packet) != string(good) {
			// ECDSA signatures can be changed into another valid one; the rest can't.
			if len(packet) < 100 || string(packet[:len(packet)-80]) != string(good[:len(packet)-80]) {
				t.Errorf("believes %q", packet)
			}
		}
	})
}
