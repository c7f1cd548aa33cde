// Package introduction is how nodes of one identity learn that another one is
// to be trusted: a file on the boot partition, signed by the authority that they
// know from their cards. Clusters of two blueprints become one with it. There is
// no secret in it: certificates are for keys that the nodes have already.
//
// A file is
//
//	"PCI1"                  four bytes
//	length of the message   uint32, big endian
//	message                 JSON of Introduction
//	signature               ASN.1, ECDSA over the SHA-256 of all before it
//
// What begins so is no certificate (those begin with 0x30, X.690), though the
// same key signs both.
package introduction

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
	"net/netip"
	"os"
	"regexp"
	"slices"
)

// Path is the file's place on the boot partition. What Pattern (path.Match) fits
// is read as well: a card may be built with several.
const (
	Path    = "picube/introduction.bin"
	Pattern = "picube/introduction*.bin"
)

// PathOf is the place of one that the card is built with, about another cube.
func PathOf(cube string) string { return "picube/introduction-" + cube + ".bin" }

// MaxSize bounds a file: certificates of as many nodes as 254 cubes may have are
// more than a wire carries, and those of all of 8 cubes take 100 KB.
const MaxSize = 4 << 20

const magic = "PCI1"

// Introduction tells the nodes of a cluster whom to trust from now on.
type Introduction struct {
	Cluster string `json:"cluster"` // whose nodes it is for
	// Issued is when it was made, in seconds since 1970: of two for the same
	// nodes the later one holds.
	Issued int64 `json:"issued"`
	// Authority is the certificate (DER) of the identity that all of them have from
	// now on; for nodes that have it already, their own.
	Authority []byte `json:"authority"`
	// Cubes are those of both sides that have clusters of their own.
	Cubes []Cube `json:"cubes"`
	// Certificates are the nodes' own (DER) of that authority, by host name, and
	// Admins those of control-plane nodes for administering their cluster; none
	// for nodes that keep what they have.
	Certificates map[string][]byte `json:"certificates,omitempty"`
	Admins       map[string][]byte `json:"admins,omitempty"`
}

// Cube is one that has a cluster of its own.
type Cube struct {
	Name         string   `json:"name"`
	ControlPlane []Member `json:"controlPlane"`
	Workers      []Member `json:"workers,omitempty"` // of its cluster, wherever they stand
}

// Member is a node.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Seal returns the file, signed with the key of the authority that the nodes
// know now.
func Seal(i Introduction, key *ecdsa.PrivateKey) ([]byte, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(i)
	if err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32([]byte(magic), uint32(len(text)))
	b = append(b, text...)
	sum := sha256.Sum256(b)
	signature, err := key.Sign(rand.Reader, sum[:], nil)
	if err != nil {
		return nil, err
	}
	if b = append(b, signature...); len(b) > MaxSize {
		return nil, fmt.Errorf("introduction: cannot have %d bytes, the limit is %d", len(b), MaxSize)
	}
	return b, nil
}

// ErrStranger is an introduction that somebody else signed.
var ErrStranger = errors.New("introduction: another identity signed it")

// Open checks a file against the authority's certificate that the node has.
func Open(data []byte, authority *x509.Certificate) (Introduction, error) {
	var i Introduction
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	switch {
	case len(data) > MaxSize:
		return i, fmt.Errorf("introduction: cannot read %d bytes, the limit is %d", len(data), MaxSize)
	case !ok || len(rest) < 4:
		return i, errors.New("introduction: cannot find its beginning")
	}
	length := binary.BigEndian.Uint32(rest)
	if rest = rest[4:]; uint64(len(rest)) < uint64(length) {
		return i, errors.New("introduction: cannot find its end")
	}
	text, signature := rest[:length], rest[length:]
	key, ok := authority.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(data[:len(data)-len(signature)])
	if !ok || !ecdsa.VerifyASN1(key, sum[:], signature) {
		return i, ErrStranger
	}
	if err := json.Unmarshal(text, &i); err != nil {
		return Introduction{}, fmt.Errorf("introduction: %w", err)
	}
	if err := i.check(); err != nil {
		return Introduction{}, err
	}
	return i, nil
}

// ReadFile reads a file, which may not be there (fs.ErrNotExist), for Open.
func ReadFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxSize {
		return nil, fmt.Errorf("%s: cannot read it: it is larger than %d bytes, or no file", name, MaxSize)
	}
	return os.ReadFile(name)
}

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// check returns what no introduction may say, whoever signed it.
func (i Introduction) check() error {
	authority, err := x509.ParseCertificate(i.Authority)
	if err != nil {
		return fmt.Errorf("introduction: authority: %w", err)
	}
	if !authority.IsCA {
		return errors.New("introduction: authority: cannot sign certificates")
	}
	if !label.MatchString(i.Cluster) {
		return fmt.Errorf("introduction: cannot be for a cluster %q", i.Cluster)
	}
	seen := map[string]bool{}
	once := func(what, name string) error {
		if !label.MatchString(name) && what != "address" || seen[what+name] {
			return fmt.Errorf("introduction: %s %q: cannot use it, or twice", what, name)
		}
		seen[what+name] = true
		return nil
	}
	for _, c := range i.Cubes {
		if err := once("cube", c.Name); err != nil {
			return err
		}
		if len(c.ControlPlane) == 0 {
			return fmt.Errorf("introduction: cube %q: cannot be without a control plane", c.Name)
		}
		for _, m := range slices.Concat(c.ControlPlane, c.Workers) {
			a, err := netip.ParseAddr(m.Address)
			if err != nil || !a.Is4() {
				return fmt.Errorf("introduction: node %q: cannot have the address %q", m.Name, m.Address)
			}
			if err := errors.Join(once("node", m.Name), once("address", a.String())); err != nil {
				return err
			}
		}
	}
	return errors.Join(i.checkCertificates(authority, i.Certificates, NodeUser), i.checkCertificates(authority, i.Admins, AdminUser))
}

// NodeUser and AdminUser are the names in a node's certificates.
func NodeUser(node string) string  { return "system:node:" + node }
func AdminUser(node string) string { return "picube:" + node }

func (i Introduction) checkCertificates(authority *x509.Certificate, all map[string][]byte, user func(string) string) error {
	for node, der := range all {
		c, err := x509.ParseCertificate(der)
		if err == nil {
			err = c.CheckSignatureFrom(authority)
		}
		if err == nil && (c.IsCA || c.Subject.CommonName != user(node) || !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)) {
			err = errors.New("it is not that node's")
		}
		if err != nil {
			return fmt.Errorf("introduction: certificate of %q: %w", node, err)
		}
	}
	return nil
}

// Certificate returns a node's new certificate (DER) out of a list; nil where it
// keeps its own. It has to be for the key that the node has.
func Certificate(all map[string][]byte, node string, key *ecdsa.PublicKey) ([]byte, error) {
	der, ok := all[node]
	if !ok {
		return nil, nil
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !key.Equal(c.PublicKey) {
		return nil, fmt.Errorf("introduction: the certificate of %q is for another key: its card was built anew", node)
	}
	return der, nil
}
