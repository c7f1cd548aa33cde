package kubeadmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// signer is an authority on a node's card.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T, e *Engine, name string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := signer{&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2074, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, key}
	s.cert, err = x509.ParseCertificate(s.sign(t, s.cert, key))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, e, name+".crt", asPEM("CERTIFICATE", s.cert.Raw))
	write(t, e, name+".key", asPEM("EC PRIVATE KEY", der))
	return s
}

func (s signer) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// issue is a certificate as kubeadm signs it, a day ahead of the right time.
func (s signer) issue(t *testing.T, usage x509.ExtKeyUsage) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return asPEM("CERTIFICATE", s.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "it", Organization: []string{"those"}},
		DNSNames: []string{"rpi1.local"}, IPAddresses: []net.IP{net.IPv4(10, 42, 1, 1).To4()},
		NotBefore: time.Now().Add(24 * time.Hour).Truncate(time.Second), NotAfter: time.Now().Add(48 * time.Hour).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, BasicConstraintsValid: true,
	}, key))
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t *testing.T, e *Engine, name string, text []byte) {
	t.Helper()
	if err := e.write(name, text); err != nil {
		t.Fatal(err)
	}
}

func decoded(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM: %s", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBackdate(t *testing.T) {
	e, _ := engine(t, node(1, "control-plane"), config(1))
	authorities := map[string]signer{}
	before := map[string]*x509.Certificate{}
	for authority, names := range issued() {
		authorities[authority] = newSigner(t, e, authority)
		for _, name := range names {
			text := authorities[authority].issue(t, x509.ExtKeyUsageServerAuth)
			write(t, e, name+".crt", text)
			before[name+".crt"] = decoded(t, text)
		}
	}
	const inConfig = "/etc/kubernetes/scheduler.conf"
	text := authorities[pkiDir+"/ca"].issue(t, x509.ExtKeyUsageClientAuth)
	before[inConfig] = decoded(t, text)
	write(t, e, inConfig, []byte("users:\n- name: x\n  user:\n    client-certificate-data: "+base64.StdEncoding.EncodeToString(text)+"\n    client-key-data: QUJD\n"))

	if err := e.backdate(); err != nil {
		t.Fatal(err)
	}
	first := files(t, e)
	for name, was := range before {
		text := first[name]
		if name == inConfig {
			if !strings.HasSuffix(text, "\n    client-key-data: QUJD\n") {
				t.Errorf("%s: %s", name, text)
			}
			b, err := base64.StdEncoding.DecodeString(clientCertificate.FindStringSubmatch(text)[1])
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		is := decoded(t, []byte(text))
		roots := x509.NewCertPool()
		for _, a := range authorities {
			roots.AddCert(a.cert)
		}
		// A day before it was issued.
		if _, err := is.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if is.Issuer.CommonName != was.Issuer.CommonName || is.Subject.String() != was.Subject.String() || !is.NotAfter.Equal(was.NotAfter) ||
			is.SerialNumber.Cmp(was.SerialNumber) != 0 || is.KeyUsage != was.KeyUsage || !slices.Equal(is.ExtKeyUsage, was.ExtKeyUsage) ||
			!slices.Equal(is.DNSNames, was.DNSNames) || !reflect.DeepEqual(is.IPAddresses, was.IPAddresses) || !is.PublicKey.(*ecdsa.PublicKey).Equal(was.PublicKey) {
			t.Errorf("%s: it says something else than before", name)
		}
	}
	// Cut off and done again it has nothing to do.
	if err := e.backdate(); err != nil || !reflect.DeepEqual(files(t, e), first) {
		t.Errorf("once more: %v", err)
	}

	other := newSigner(t, e, "/other")
	write(t, e, pkiDir+"/apiserver.crt", other.issue(t, x509.ExtKeyUsageServerAuth))
	write(t, e, inConfig, []byte("users: []\n"))
	if err := os.Remove(filepath.Join(e.Root, pkiDir, "etcd/peer.crt")); err != nil {
		t.Fatal(err)
	}
	err := e.backdate()
	for _, want := range []string{"/apiserver.crt: cannot sign it once more", "scheduler.conf: cannot find a certificate in it"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "peer") {
		t.Errorf("what is not there: %v", err)
	}
}
