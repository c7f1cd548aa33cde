package secrets

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// Every certificate of a cluster is valid for the same time, which begins
// before any card was built, because a board without a clock may wake up long
// ago, and ends when nobody will have the card in a drawer any more. What runs
// on the nodes renews its own, shorter ones.
func validity() (from, to time.Time) {
	return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2074, 1, 1, 0, 0, 0, 0, time.UTC)
}

// Authority is a certificate authority of a cluster.
type Authority struct {
	cluster *Cluster
	purpose string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

// Authority returns the authority for a purpose ("kubernetes", "etcd"), whose
// certificate carries the common name. The same seed gives the same bytes.
func (c *Cluster) Authority(purpose, commonName string) (*Authority, error) {
	from, to := validity()
	a := &Authority{cluster: c, purpose: purpose, key: c.ECDSA("authority", purpose)}
	template := &x509.Certificate{
		SerialNumber: c.serial("authority", purpose),
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    from, NotAfter: to,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		IsCA:     true, BasicConstraintsValid: true,
		DNSNames: []string{commonName}, // as kubeadm writes it
	}
	der, err := x509.CreateCertificate(nil, template, template, a.key.Public(), stable{a.key})
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", purpose, err)
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// Certificate returns the authority's certificate as PEM.
func (a *Authority) Certificate() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// Key returns the authority's key as PEM.
func (a *Authority) Key() ([]byte, error) { return KeyPEM(a.key) }

// Request is what a certificate is to say.
type Request struct {
	Purpose      string // names the key: another purpose, another key
	CommonName   string
	Organization []string
	DNS          []string
	IP           []net.IP
	Server       bool
	Client       bool
}

// Pair is a certificate and its key, as PEM.
type Pair struct{ Certificate, Key []byte }

// Issue returns a certificate that the authority signed, and its key.
func (a *Authority) Issue(r Request) (Pair, error) {
	key := a.cluster.ECDSA("leaf", a.purpose, r.Purpose)
	certificate, err := a.Certify(r, &key.PublicKey)
	if err != nil {
		return Pair{}, err
	}
	text, err := KeyPEM(key)
	return Pair{Certificate: certificate, Key: text}, err
}

// Certify returns a certificate, as PEM, for a key that somebody has already.
func (a *Authority) Certify(r Request, key *ecdsa.PublicKey) ([]byte, error) {
	from, to := validity()
	template := &x509.Certificate{
		SerialNumber: a.cluster.serial("leaf", a.purpose, r.Purpose),
		Subject:      pkix.Name{CommonName: r.CommonName, Organization: r.Organization},
		NotBefore:    from, NotAfter: to,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		DNSNames:              r.DNS, IPAddresses: r.IP,
	}
	if r.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	der, err := x509.CreateCertificate(nil, template, a.cert, key, stable{a.key})
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", r.Purpose, err)
	}
	return encode("CERTIFICATE", der), nil
}

// serial is a positive number of at most 20 bytes (RFC 5280, 4.1.2.2).
func (c *Cluster) serial(purpose ...string) *big.Int {
	b := c.Bytes(16, append([]string{"serial"}, purpose...)...)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// KeyPEM returns a key in the form of SEC 1.
func KeyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("EC PRIVATE KEY", der), nil
}

// PublicPEM returns a key's public half.
func PublicPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return encode("PUBLIC KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// stable signs as RFC 6979 says: without random numbers, so that the same
// certificate has the same bytes.
type stable struct{ key *ecdsa.PrivateKey }

func (s stable) Public() crypto.PublicKey { return s.key.Public() }

func (s stable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(nil, digest, opts)
}
