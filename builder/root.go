package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/flock"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// rootImage is a finished root file system in the cache, with what its cards'
// boot partitions share.
type rootImage struct {
	Path string       // of the ext4 image
	Size int64        // of the file system
	Data []tree.Range // what of it is not zero
	Map  *bmap.Map    // what of it a card must hold
	Boot *tree.Tree   // the boot partition without what is a node's own
	// BootSize is the boot partition's length, in bytes.
	BootSize int64
	// Unpacked are the packages that the first boot configures.
	Unpacked []string

	verify func(context.Context) error // finds damage since it was made
	close  func() error
}

// rootMeta is what the cache keeps of a root beside its two images. These are
// not brought to the disk before anything goes on: the checksums find what was
// lost.
type rootMeta struct {
	Data     []tree.Range
	Map      *bmap.Map
	BootMap  *bmap.Map
	Unpacked []string
	// Sum is the digest of the rest.
	Sum string
}

// rootLabel is what Raspberry Pi OS calls the root file system; rootFree is
// the room a card has before its first boot grows it, for its identity and what
// systemd writes that early. Tools without a block map write it as zeros.
const (
	rootLabel = "rootfs"
	rootFree  = 16 << 20
)

const (
	rootFile = "root.ext4"
	bootFile = "boot.fat"
	metaFile = "meta.json"
)

// contentKey stands for everything on a root that does not follow from the
// code of picube-build itself.
func (b *Builder) contentKey(r *plan.Root, node []byte) ([sha256.Size]byte, error) {
	content := struct {
		Node, Root [sha256.Size]byte
		Epoch      int64
		Boards     []string
		Packages   []string
		Layers     []string
	}{Node: sha256.Sum256(node), Root: r.Key, Epoch: b.epoch.Unix(), Boards: r.Boards}
	for _, p := range slices.Concat(r.Packages, r.Data) {
		content.Packages = append(content.Packages, p.SHA256)
	}
	for _, l := range b.Layers {
		if p, ok := l.(PreparedLayer); ok {
			content.Layers = append(content.Layers, p.Fingerprint(r))
		}
	}
	text, err := json.Marshal(content)
	return sha256.Sum256(text), err
}

// rootDir returns where a root lies in the cache once it is made, and what it
// is made from.
func (b *Builder) rootDir(ctx context.Context, r *plan.Root) (dir string, content [sha256.Size]byte, node []byte, err error) {
	end := b.Report.Step("picube-node")
	node, err = b.Program(ctx, r.Arch)
	end()
	if err != nil {
		return "", content, nil, err
	}
	if content, err = b.contentKey(r, node); err != nil {
		return "", content, nil, err
	}
	key := sha256.Sum256(fmt.Appendf(content[:], "%s", b.BuildID))
	return filepath.Join(b.Cache, "roots", hex.EncodeToString(key[:])), content, node, nil
}

// root returns the finished root for a plan's root, from the cache or made.
func (b *Builder) root(ctx context.Context, r *plan.Root) (*rootImage, error) {
	dir, content, node, err := b.rootDir(ctx, r)
	if err != nil {
		return nil, err
	}
	if img, err := openRoot(dir); err == nil {
		now := b.Now() // what was used last is pruned last
		return img, os.Chtimes(filepath.Join(dir, rootFile), now, now)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	release, err := flock.Acquire(ctx, dir+".lock")
	if err != nil {
		return nil, fmt.Errorf("root %s: %w", r.Name, err)
	}
	defer release()
	if img, err := openRoot(dir); err == nil { // somebody else was at it
		return img, nil
	}
	if err := b.makeRoot(ctx, r, node, content, dir); err != nil {
		return nil, fmt.Errorf("root %s: %w", r.Name, err)
	}
	img, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	img.verify = func(context.Context) error { return nil } // the checksums are of what was read back just now
	return img, nil
}

// openRoot opens a root in the cache.
func openRoot(dir string) (*rootImage, error) {
	text, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return nil, err
	}
	meta, err := parseMeta(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	boot, err := os.Open(filepath.Join(dir, bootFile))
	if err != nil {
		return nil, err
	}
	fs, err := fat.Open(boot, meta.BootMap.ImageSize)
	if err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	shared, err := fs.Tree()
	if err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	img := &rootImage{
		Path: filepath.Join(dir, rootFile), Size: meta.Map.ImageSize, Data: meta.Data, Map: meta.Map,
		Boot: shared, BootSize: meta.BootMap.ImageSize, Unpacked: meta.Unpacked, close: boot.Close,
	}
	img.verify = func(ctx context.Context) error {
		f, err := os.Open(img.Path)
		if err != nil {
			return err
		}
		return errors.Join(meta.BootMap.Verify(ctx, boot), meta.Map.Verify(ctx, f), f.Close())
	}
	if info, err := os.Stat(img.Path); err != nil || info.Size() != img.Size {
		return nil, errors.Join(fmt.Errorf("%s: damaged", img.Path), err, boot.Close())
	}
	return img, nil
}

func parseMeta(text []byte) (rootMeta, error) {
	var meta rootMeta
	if err := json.Unmarshal(text, &meta); err != nil {
		return meta, err
	}
	want := meta.Sum
	meta.Sum = ""
	sum, err := output.Digest(meta)
	if err == nil && (sum != want || meta.Map == nil || meta.BootMap == nil) {
		err = fmt.Errorf("%s: damaged", metaFile)
	}
	return meta, err
}

// makeRoot builds a root into a folder of the cache, which gets its name only
// when everything in it is complete.
func (b *Builder) makeRoot(ctx context.Context, r *plan.Root, node []byte, content [sha256.Size]byte, dir string) (err error) {
	tmp := dir + ".tmp" // of a build that was killed, if it is there: the lock is ours
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	made, err := b.system(ctx, r, node)
	if err != nil {
		return err
	}
	defer made.Close()
	_, end := b.Report.Phase("write root "+r.Name, 0)
	defer end()
	endStep := b.Report.Step("shared boot partition")
	boot, err := b.sharedBoot(r, made.tree, node)
	endStep()
	if err != nil {
		return err
	}
	meta := rootMeta{Unpacked: made.unpacked}
	if err := writeFile(filepath.Join(tmp, bootFile), func(f *os.File) error {
		if err := f.Truncate(bootSize); err != nil {
			return err
		}
		w := &rangeWriter{w: f}
		if err := fat.Write(w, boot, fat.Options{Size: bootSize, Label: bootLabel}); err != nil {
			return err
		}
		meta.BootMap, err = bmap.New(ctx, f, bootSize, w.merged())
		return err
	}); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(tmp, rootFile), func(f *os.File) error {
		defer b.Report.Step("ext4")()
		// UUID and hash seed follow from the content, so that equal trees make
		// equal images.
		res, err := ext4.Write(ctx, f, made.tree, ext4.Options{
			Free: rootFree, Label: rootLabel, Epoch: b.epoch.Unix(),
			UUID: uuid(content, "uuid"), HashSeed: uuid(content, "hash seed"),
		})
		if err != nil {
			return err
		}
		if err := f.Truncate(res.Size); err != nil {
			return err
		}
		meta.Data = res.Written
		defer b.Report.Step("block map")()
		meta.Map, err = bmap.New(ctx, f, res.Size, res.Used)
		return err
	}); err != nil {
		return err
	}
	if meta.Sum, err = output.Digest(meta); err != nil {
		return err
	}
	text, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, metaFile), text, 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // damaged, or openRoot had taken it
		return err
	}
	return os.Rename(tmp, dir)
}

func writeFile(name string, write func(*os.File) error) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// uuid returns a version 4 UUID for a purpose.
func uuid(content [sha256.Size]byte, purpose string) [16]byte {
	sum := sha256.Sum256(append(content[:], purpose...))
	id := [16]byte(sum[:16])
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
