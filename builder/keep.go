package builder

import (
	"os"
	"path/filepath"

	"github.com/picube/picube-build/builder/output"
)

// keep is a folder of results by key: what took long and follows from its key
// alone. A damaged or half-written file is never seen, because files get their
// names only when complete.
type keep struct{ dir string }

// Get returns what Put stored, and whether it did.
func (k keep) Get(key string) ([]byte, bool) {
	data, err := os.ReadFile(filepath.Join(k.dir, key))
	return data, err == nil
}

// Put stores data.
func (k keep) Put(key string, data []byte) error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	return output.Replace(filepath.Join(k.dir, key), data)
}
