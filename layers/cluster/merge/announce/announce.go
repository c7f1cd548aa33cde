// Package announce is how clusters tell each other on the cubes' wire that they
// are there: one UDP packet to a group that switches pass to everybody, signed
// with the key of a control-plane node's card.
//
// A packet is
//
//	"PCM1"                   four bytes
//	length of certificate    uint16, big endian
//	certificate              DER, of the node that sends (X.509)
//	length of record         uint16, big endian
//	record                   JSON of merge.Record without guests
//	signature                ASN.1, ECDSA over the SHA-256 of all before it
//
// What it says is a hint: whoever acts on it first asks the cluster over TLS.
// So an old packet that somebody sends again does no harm, and nothing is kept
// secret. Why no DNS-SD: its answers are not signed, and the addresses of all
// nodes are known from the blueprint.
package announce

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/picube/picube-build/layers/cluster/merge"
)

// Group and Port are where announcements go: link-local multicast (RFC 5771),
// which no switch holds back.
const (
	Group = "224.0.0.190"
	Port  = 7445
)

// MaxSize is the largest packet: one that needs no fragments.
const MaxSize = 1400

const magic = "PCM1"

// ErrStranger is a packet that is well formed and of another identity.
var ErrStranger = errors.New("it belongs to another identity")

// Seal returns the packet in which a node announces its cluster.
func Seal(r merge.Record, certificate *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	text, err := json.Marshal(r.Announcement())
	if err != nil {
		return nil, err
	}
	b := field([]byte(magic), certificate.Raw)
	b = field(b, text)
	sum := sha256.Sum256(b)
	signature, err := key.Sign(rand.Reader, sum[:], nil)
	if err != nil {
		return nil, err
	}
	if b = append(b, signature...); len(b) > MaxSize {
		return nil, fmt.Errorf("announcement: cannot send %d bytes, the limit is %d", len(b), MaxSize)
	}
	return b, nil
}

func field(b, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}

// Trust is whom to believe.
type Trust struct {
	Authority *x509.CertPool
	// CubeOf returns the cube of a control-plane node, by its certificate; empty for
	// any other node, whose word counts nothing.
	CubeOf func(leaf *x509.Certificate) string
	Now    func() time.Time
}

// Open checks a packet and returns what it announces.
func (t Trust) Open(packet []byte) (merge.Record, error) {
	var r merge.Record
	if len(packet) > MaxSize {
		return r, errors.New("announcement: cannot be so large")
	}
	rest, ok := bytes.CutPrefix(packet, []byte(magic))
	if !ok {
		return r, errors.New("announcement: cannot find its beginning")
	}
	der, rest, ok := cut(rest)
	if !ok {
		return r, errors.New("announcement: cannot find the certificate's end")
	}
	text, signature, ok := cut(rest)
	if !ok {
		return r, errors.New("announcement: cannot find the record's end")
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return r, fmt.Errorf("announcement: %w", err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(packet[:len(packet)-len(signature)])
	if !ok || !ecdsa.VerifyASN1(key, sum[:], signature) {
		return r, errors.New("announcement: cannot verify the signature")
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: t.Authority, KeyUsages: usage, CurrentTime: t.Now()}); err != nil {
		if errors.As(err, &x509.UnknownAuthorityError{}) {
			err = ErrStranger
		}
		return r, fmt.Errorf("announcement of %q: %w", leaf.Subject.CommonName, err)
	}
	cube := t.CubeOf(leaf)
	if cube == "" {
		return r, fmt.Errorf("announcement of %q: cannot believe it: it is not of a control plane", leaf.Subject.CommonName)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return merge.Record{}, fmt.Errorf("announcement of %q: %w", leaf.Subject.CommonName, err)
	}
	if r.Cube != cube || r.ID == "" {
		return merge.Record{}, fmt.Errorf("announcement of %q: cannot speak for the cluster of %q", leaf.Subject.CommonName, r.Cube)
	}
	return r.Announcement(), nil
}

// cut takes a field from the front.
func cut(b []byte) (data, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}
