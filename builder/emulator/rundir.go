package emulator

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/picube/picube-build/builder/flock"
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

// lockRun marks a run's folder as in use for as long as this process lives, or
// the file is open.
func lockRun(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	locked, err := flock.Try(f)
	if err == nil && !locked {
		err = errors.New("another run has it")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
