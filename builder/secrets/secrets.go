// Package secrets keeps a cluster's identity on the user's disk: one random
// seed per cluster, from which every key and id of the cluster's nodes is
// derived (HKDF, RFC 5869). So a card that is built again, here or from a
// copy of the folder, is the same card, and what must be kept safe is one
// small file.
package secrets

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
)

const seedSize = 32

// Folder is where the seeds of a blueprint's clusters lie.
type Folder struct {
	dir  string
	rand io.Reader
}

// Open returns the folder at dir, which is made (0700) when the first seed is.
// rand is the source of new seeds.
func Open(dir string, rand io.Reader) *Folder { return &Folder{dir: dir, rand: rand} }

// Cluster returns the identity of the named cluster; a new one is made and
// stored the first time.
func (f *Folder) Cluster(name string) (*Cluster, error) {
	file := filepath.Join(f.dir, name+".seed")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := f.create(file); err != nil {
			return nil, fmt.Errorf("cluster %q: cannot make its identity: %w", name, err)
		}
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster %q: cannot read its identity: %w", name, err)
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != seedSize {
		return nil, fmt.Errorf("cluster %q: cannot read its identity: %s does not hold %d hex digits", name, file, 2*seedSize)
	}
	return &Cluster{name: name, seed: seed}, nil
}

// create writes a new seed unless somebody else was quicker.
func (f *Folder) create(file string) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	seed := make([]byte, seedSize)
	if _, err := io.ReadFull(f.rand, seed); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.dir, ".seed-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = fmt.Fprintf(tmp, "%x\n", seed)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	// A link, unlike a rename, does not replace the seed of a build that ran
	// at the same time.
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return os.Rename(tmp.Name(), file)
	}
	return nil
}

// Cluster derives everything secret or unique that belongs to one cluster.
type Cluster struct {
	name string
	seed []byte
}

// Name returns the cluster's name.
func (c *Cluster) Name() string { return c.name }

// Bytes returns n bytes for a purpose; the same purpose gives the same bytes.
func (c *Cluster) Bytes(n int, purpose ...string) []byte {
	out, err := hkdf.Key(sha256.New, c.seed, nil, "picube/v1/"+strings.Join(purpose, "/"), n)
	if err != nil {
		panic(err) // only for n beyond 255 hashes: a mistake in the program
	}
	return out
}

// MachineID returns a node's machine-id(5), formed as a version 4 UUID.
func (c *Cluster) MachineID(node string) string {
	id := c.Bytes(16, "machine-id", node)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id)
}

// DiskID returns the id that a node's partition table carries; never 0.
func (c *Cluster) DiskID(node string) uint32 {
	return binary.LittleEndian.Uint32(c.Bytes(4, "disk-id", node)) | 1
}

// VolumeID returns the serial number of a node's boot partition.
func (c *Cluster) VolumeID(node string) uint32 {
	return binary.LittleEndian.Uint32(c.Bytes(4, "volume-id", node))
}

// Ed25519 returns the key for a purpose.
func (c *Cluster) Ed25519(purpose ...string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(c.Bytes(ed25519.SeedSize, append([]string{"ed25519"}, purpose...)...))
}

// ECDSA returns the P-256 key for a purpose (FIPS 186-5, A.2.1: a scalar from
// extra random bits).
func (c *Cluster) ECDSA(purpose ...string) *ecdsa.PrivateKey {
	curve := elliptic.P256()
	d := new(big.Int).SetBytes(c.Bytes(40, append([]string{"p256"}, purpose...)...))
	d.Mod(d, new(big.Int).Sub(curve.Params().N, big.NewInt(1)))
	d.Add(d, big.NewInt(1))
	key, err := ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, 32)))
	if err != nil {
		panic(err) // d is in [1, N-1]
	}
	return key
}
