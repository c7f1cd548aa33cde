package kubeadmd

import (
	"compress/gzip"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// A backup lies on workers' cards, which anybody may carry away. It is a file
// of age (age-encryption.org/v1): gzip below chunks of ChaCha20-Poly1305, which
// a board without AES instructions is quick at. What age does not have is a
// recipient with a key that is known already, here one that is derived from the
// key of the cluster's authority. Only control-plane cards have that, so nobody
// else can read a backup or make one.
//
// The key is of one name, and of one cube's cluster: no backup can be passed off
// as a newer one, or as another cluster's.
const (
	sealPurpose = "picube/v1/backup/"
	stanzaType  = "picube-backup"
)

const authorityKey = pkiDir + "/ca.key"

// sealKey derives the key of the backup of that name.
func (e *Engine) sealKey(name string) (sealKey, error) {
	text, err := os.ReadFile(filepath.Join(e.Root, authorityKey))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: cannot find a key in it", authorityKey)
	}
	cluster := e.Node.Cluster
	if len(e.Config.Cubes)-len(e.foreign) > 1 { // nodes that were of several clusters hold backups of each
		cluster += "/" + e.clusterCube()
	}
	return hkdf.Key(sha256.New, block.Bytes, nil, sealPurpose+cluster+"/"+name, chacha20poly1305.KeySize)
}

// sealKey wraps the key of a file: a recipient and an identity of age.
type sealKey []byte

// Wrap is what age asks of a recipient.
func (k sealKey) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	aead, err := chacha20poly1305.NewX(k)
	if err != nil {
		return nil, err
	}
	body := make([]byte, aead.NonceSize(), aead.NonceSize()+len(fileKey)+aead.Overhead())
	if _, err := rand.Read(body); err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: stanzaType, Body: aead.Seal(body, body, fileKey, nil)}}, nil
}

// Unwrap is what age asks of an identity.
func (k sealKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(k)
	if err != nil {
		return nil, err
	}
	for _, s := range stanzas {
		if s.Type != stanzaType || len(s.Body) < aead.NonceSize() {
			continue
		}
		if key, err := aead.Open(nil, s.Body[:aead.NonceSize()], s.Body[aead.NonceSize():], nil); err == nil {
			return key, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// seal returns a writer whose content comes out at w compressed and sealed. It
// is whole only when it was closed.
func (k sealKey) seal(w io.Writer) (io.WriteCloser, error) {
	sealed, err := age.Encrypt(w, k)
	if err != nil {
		return nil, err
	}
	// The level costs a fifth of the default's time, on cards whose processors
	// have other things to do, and a quarter more of bytes.
	zip, err := gzip.NewWriterLevel(sealed, gzip.BestSpeed)
	return &sealer{zip, sealed}, err
}

type sealer struct {
	*gzip.Writer
	sealed io.Closer
}

func (s *sealer) Close() error { return errors.Join(s.Writer.Close(), s.sealed.Close()) }

// maxSnapshot bounds what a backup may unpack to: twice etcd's own limit.
const maxSnapshot = 2 << 30

var errTooLarge = fmt.Errorf("is larger than %d MiB", maxSnapshot>>20)

// open copies to w what was sealed in r. Everything that reached w is genuine,
// but only without an error it is all there is.
func (k sealKey) open(w io.Writer, r io.Reader) error {
	sealed, err := age.Decrypt(r, k)
	if err != nil {
		return err
	}
	zip, err := gzip.NewReader(sealed)
	if err != nil {
		return err
	}
	// It reads to the end, where the last chunk says that it is the last: without
	// that, something is missing.
	n, err := io.Copy(w, io.LimitReader(zip, maxSnapshot+1))
	switch {
	case err != nil:
		return err
	case n > maxSnapshot:
		return errTooLarge
	}
	return nil
}
