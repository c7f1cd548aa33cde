package containerd

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// namespace is the one that the kubelet's images live in.
const namespace = "k8s.io"

// databaseVersion is the minor version of the metadata schema v1.
const databaseVersion = 3

// chainID names a stack of layers (OCI image specification 1.1, config.md).
func chainID(parent, diffID string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(parent+" "+diffID)))
}

// database is a new bolt file. bbolt spills the buckets that a transaction
// touched in the random order of a Go map, so what should come out the same
// each time touches one bucket per transaction.
type database struct{ db *bolt.DB }

// create makes the file. The page size is the card's, not the host's.
func create(file string) (database, error) {
	db, err := bolt.Open(file, 0o644, &bolt.Options{PageSize: 4096, NoSync: true, NoGrowSync: true})
	return database{db}, err
}

// update runs one transaction on the schema's bucket.
func (d database) update(write func(v1 bucket)) error {
	return d.db.Update(func(tx *bolt.Tx) error {
		top, err := tx.CreateBucketIfNotExists([]byte("v1"))
		if err != nil {
			return err
		}
		write(bucket{top})
		return nil
	})
}

// bucket makes many small writes short. None of them can fail for a reason a
// user could mend: names and digests are checked before.
type bucket struct{ b *bolt.Bucket }

func (b bucket) fail(err error) {
	if err != nil {
		panic(err)
	}
}

// sub makes a bucket below b, or opens it.
func (b bucket) sub(name string) bucket {
	n, err := b.b.CreateBucketIfNotExists([]byte(name))
	b.fail(err)
	return bucket{n}
}

func (b bucket) put(key string, value []byte) { b.fail(b.b.Put([]byte(key), value)) }

func (b bucket) number(key string, v int64) { b.put(key, binary.AppendVarint(nil, v)) }

func (b bucket) times(epoch int64) {
	at, err := time.Unix(epoch, 0).UTC().MarshalBinary()
	b.fail(err)
	b.put("createdat", at)
	b.put("updatedat", at)
}

func (b bucket) labels(m map[string]string) {
	if len(m) == 0 {
		return
	}
	l := b.sub("labels")
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l.put(k, []byte(m[k]))
	}
}

// writeMetadata makes meta.db.
func (s *store) writeMetadata(file string, images []Image) error {
	db, err := create(file)
	if err != nil {
		return err
	}
	epoch := s.tree.Epoch()
	errs := []error{db.update(func(v1 bucket) { v1.number("version", databaseVersion) })}
	for _, img := range images {
		errs = append(errs, db.update(func(v1 bucket) {
			b := v1.sub(namespace).sub("images").sub(img.Name)
			b.times(epoch)
			labels := map[string]string{"io.cri-containerd.image": "managed"}
			if img.Pinned {
				labels["io.cri-containerd.pinned"] = "pinned"
			}
			b.labels(labels)
			target := b.sub("target")
			target.put("digest", []byte(img.Manifest.Digest))
			target.put("mediatype", []byte(img.MediaType))
			target.number("size", img.Manifest.Content.Size())
		}))
	}
	for _, digest := range slices.Sorted(maps.Keys(s.blobs)) {
		errs = append(errs, db.update(func(v1 bucket) {
			b := v1.sub(namespace).sub("content").sub("blob").sub(digest)
			b.times(epoch)
			b.number("size", s.blobs[digest].size)
			b.labels(s.blobs[digest].labels)
		}))
	}
	for _, snap := range s.order {
		errs = append(errs, db.update(func(v1 bucket) {
			all := v1.sub(namespace).sub("snapshots").sub(snapshotter)
			all.fail(all.b.SetSequence(snap.id)) // the next snapshot gets the next number
			b := all.sub(snap.chain)
			b.times(epoch)
			b.put("name", []byte(snap.backendName()))
			if snap.parent != nil {
				b.put("parent", []byte(snap.parent.chain))
			}
		}))
		if snap.parent != nil {
			errs = append(errs, db.update(func(v1 bucket) {
				v1.sub(namespace).sub("snapshots").sub(snapshotter).sub(snap.parent.chain).sub("children").put(snap.chain, nil)
			}))
		}
	}
	return errors.Join(append(errs, db.db.Close())...)
}

// backendName is the snapshot's name in the snapshotter, which knows no
// namespaces.
func (s *snapshot) backendName() string { return fmt.Sprintf("%s/%d/%s", namespace, s.id, s.chain) }

// kindCommitted is snapshots.KindCommitted of containerd.
const kindCommitted = 3

// writeSnapshots makes the snapshotter's metadata.db.
func (s *store) writeSnapshots(file string) error {
	db, err := create(file)
	if err != nil {
		return err
	}
	epoch := s.tree.Epoch()
	errs := []error{db.update(func(v1 bucket) { v1.sub("parents") })}
	for _, snap := range s.order {
		errs = append(errs, db.update(func(v1 bucket) {
			all := v1.sub("snapshots")
			all.fail(all.b.SetSequence(snap.id))
			b := all.sub(snap.backendName())
			b.put("id", binary.AppendUvarint(nil, snap.id))
			b.put("kind", []byte{kindCommitted})
			b.times(epoch)
			b.number("inodes", snap.inodes)
			b.number("size", snap.size)
			if snap.parent != nil {
				b.put("parent", []byte(snap.parent.backendName()))
			}
		}))
		if snap.parent != nil {
			errs = append(errs, db.update(func(v1 bucket) {
				key := append(binary.AppendUvarint(nil, snap.parent.id), 0)
				v1.sub("parents").put(string(binary.AppendUvarint(key, snap.id)), []byte(snap.backendName()))
			}))
		}
	}
	return errors.Join(append(errs, db.db.Close())...)
}
