package kubeadmd

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// issued are the certificates that kubeadm signs, by the authority of each;
// names without ".crt" and ".key".
func issued() map[string][]string {
	return map[string][]string{
		pkiDir + "/ca":             {pkiDir + "/apiserver", pkiDir + "/apiserver-kubelet-client"},
		pkiDir + "/front-proxy-ca": {pkiDir + "/front-proxy-client"},
		pkiDir + "/etcd/ca": {
			pkiDir + "/etcd/server", pkiDir + "/etcd/peer", pkiDir + "/etcd/healthcheck-client", pkiDir + "/apiserver-etcd-client",
		},
	}
}

// issuedConfigs are the kubeconfigs that kubeadm writes a certificate into.
func issuedConfigs() []string {
	const dir = "/etc/kubernetes/"
	return []string{dir + "admin.conf", dir + "super-admin.conf", dir + "controller-manager.conf", dir + "scheduler.conf"}
}

var clientCertificate = regexp.MustCompile(`client-certificate-data: *([A-Za-z0-9+/=]+)`)

// backdate makes what kubeadm has signed valid from the same day on as the
// authority that signed it, as everything is that comes with a card: kubeadm
// counts from five minutes ago, and a clock that was ahead may be set back. What
// runs already reads its certificate anew for each connection (etcd).
func (e *Engine) backdate() error {
	var errs []error
	for authority, names := range issued() {
		for _, name := range names {
			errs = append(errs, e.rewrite(name+".crt", func(text []byte) ([]byte, error) { return e.elder(text, authority) }))
		}
	}
	for _, name := range issuedConfigs() {
		errs = append(errs, e.rewrite(name, func(text []byte) ([]byte, error) {
			found := clientCertificate.FindSubmatch(text)
			if found == nil {
				return nil, errors.New("cannot find a certificate in it")
			}
			certificate, err := base64.StdEncoding.DecodeString(string(found[1]))
			if err != nil {
				return nil, err
			}
			if certificate, err = e.elder(certificate, pkiDir+"/ca"); err != nil {
				return nil, err
			}
			return bytes.Replace(text, found[1], []byte(base64.StdEncoding.EncodeToString(certificate)), 1), nil
		}))
	}
	return errors.Join(errs...)
}

// rewrite changes a file, if there is one: which ones kubeadm writes depends on
// what it was asked for.
func (e *Engine) rewrite(name string, change func([]byte) ([]byte, error)) error {
	text, err := os.ReadFile(filepath.Join(e.Root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		text, err = change(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return e.write(name, text)
}

// elder returns a certificate, as PEM, that says the same and has been valid for
// as long as its authority.
func (e *Engine) elder(text []byte, authority string) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("cannot find a certificate in it")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	ca, err := e.certificate(authority + ".crt")
	if err != nil {
		return nil, err
	}
	if certificate.NotBefore.Equal(ca.NotBefore) {
		return text, nil
	}
	if err := certificate.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("cannot sign it once more: %w", err)
	}
	key, err := e.key(authority + ".key")
	if err != nil {
		return nil, err
	}
	certificate.NotBefore = ca.NotBefore
	der, err := x509.CreateCertificate(rand.Reader, certificate, ca, certificate.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
