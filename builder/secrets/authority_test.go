package secrets

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

func cluster(t *testing.T, seed byte) *Cluster {
	t.Helper()
	c, err := Open(t.TempDir(), bytes.NewReader(bytes.Repeat([]byte{seed}, 32))).Cluster("picube")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func authority(t *testing.T, c *Cluster, purpose string) *Authority {
	t.Helper()
	a, err := c.Authority(purpose, purpose)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestIssue(t *testing.T) {
	request := Request{Purpose: "rpi3", CommonName: "system:node:rpi3", Organization: []string{"system:nodes"}, Client: true}
	var pairs []Pair
	for range 2 {
		pair, err := authority(t, cluster(t, 1), "kubernetes").Issue(request)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, pair)
	}
	if !bytes.Equal(pairs[0].Certificate, pairs[1].Certificate) || !bytes.Equal(pairs[0].Key, pairs[1].Key) {
		t.Error("the same certificate came out differently")
	}
	if _, err := tls.X509KeyPair(pairs[0].Certificate, pairs[0].Key); err != nil {
		t.Error(err)
	}
	block, _ := pem.Decode(pairs[0].Certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		by *Authority
		ok bool
	}{
		"its own":         {authority(t, cluster(t, 1), "kubernetes"), true},
		"another purpose": {authority(t, cluster(t, 1), "etcd"), false},
		"another cluster": {authority(t, cluster(t, 2), "kubernetes"), false},
	}
	for name, test := range tests {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(test.by.Certificate())
		_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
