package secrets

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Introductions are no secrets, but they are of an identity, and a card that is
// built later needs them, too: CLUSTER.introductions/CUBE.bin.

func (f *Folder) introductions(cluster string) string {
	return filepath.Join(f.dir, cluster+".introductions")
}

// Introductions returns those of a cluster, by the cube of another identity that
// they are about.
func (f *Folder) Introductions(cluster string) (map[string][]byte, error) {
	dir := f.introductions(cluster)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for _, entry := range entries {
		cube, ok := strings.CutSuffix(entry.Name(), ".bin")
		if !ok || strings.HasPrefix(cube, ".") {
			continue
		}
		if all[cube], err = os.ReadFile(filepath.Join(dir, entry.Name())); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// KeepIntroduction stores one, in the place of a former one about that cube.
func (f *Folder) KeepIntroduction(cluster, cube string, data []byte) (err error) {
	dir := f.introductions(cluster)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".introduction-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("introduction to %q: cannot keep it: %w", cube, err)
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, cube+".bin"))
}
