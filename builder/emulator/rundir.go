package emulator

import (
	"os"
	"path/filepath"
)

// runLock is the file in a run's folder that is locked while the run lasts.
const runLock = "lock"

// makeRunDir makes a folder for a run, and removes those of runs that were
// killed before they could do so.
func makeRunDir(parent string) (string, *os.File, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	locks, err := filepath.Glob(filepath.Join(parent, "picube-*", runLock))
	if err != nil {
		return "", nil, err
	}
	for _, name := range locks {
		if f, err := lockRun(name); err == nil {
			f.Close()
			os.RemoveAll(filepath.Dir(name))
		}
	}
	dir, err := os.MkdirTemp(parent, "picube-")
	if err != nil {
		return "", nil, err
	}
	lock, err := lockRun(filepath.Join(dir, runLock))
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	return dir, lock, nil
}
