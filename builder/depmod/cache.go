package depmod

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/picube/picube-build/builder/tree"
)

// Cache keeps what was made of the same modules before.
type Cache interface {
	// Get returns what Put stored under the key, and whether it did.
	Get(key string) ([]byte, bool)
	Put(key string, data []byte) error
}

// RunCached is Run with a cache: unpacking thousands of modules takes seconds,
// comparing them to those of the last time does not. The key is a digest of
// all that the indexes depend on.
func RunCached(ctx context.Context, t *tree.Tree, kernel string, cache Cache) error {
	dir := path.Join("/usr/lib/modules", kernel)
	key, err := digest(t, dir)
	if err != nil {
		return fmt.Errorf("kernel %s: %w", kernel, err)
	}
	if data, ok := cache.Get(key); ok {
		var files []file
		if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&files); err == nil && len(files) > 0 {
			return write(t, dir, files)
		}
	}
	files, err := generate(ctx, t, dir)
	if err != nil {
		return fmt.Errorf("kernel %s: %w", kernel, err)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(files); err != nil {
		return fmt.Errorf("kernel %s: %w", kernel, err)
	}
	if err := cache.Put(key, b.Bytes()); err != nil {
		return fmt.Errorf("kernel %s: cannot keep its module indexes: %w", kernel, err)
	}
	return write(t, dir, files)
}

// digest covers every module and the lists that come with the kernel.
func digest(t *tree.Tree, dir string) (string, error) {
	modules, err := find(t, dir)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, "depmod of kmod 34, format 1")
	add := func(name string, n *tree.Inode) error {
		fmt.Fprintf(h, "%s %d\n", name, n.Size())
		if n.Content == nil {
			return nil
		}
		if _, err := io.Copy(h, io.NewSectionReader(n.Content, 0, n.Size())); err != nil {
			return fmt.Errorf("%s: cannot read it: %w", name, err)
		}
		return nil
	}
	for _, m := range modules {
		if err := add(m.path, m.node); err != nil {
			return "", err
		}
	}
	for _, name := range []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"} {
		n, err := t.Stat(path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if err := add(name, n); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("depmod-%x", h.Sum(nil)), nil
}
