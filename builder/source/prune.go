package source

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Entry is a file of a cache.
type Entry struct {
	Path string
	Size int64
	Used time.Time // last time that a build used it
}

// List returns the files below a cache folder, the one unused for longest
// first. A missing folder is empty.
func List(dir string) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // another build renamed it
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		entries = append(entries, Entry{path, info.Size(), info.ModTime()})
		return nil
	})
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Path, b.Path))
	})
	return entries, err
}

// Policy says what a cache may keep.
type Policy struct {
	// MaxAge drops what was not used for longer; 0: no limit.
	MaxAge time.Duration
	// MaxSize drops what was not used for longest until the rest has at
	// most so many bytes; negative: no limit.
	MaxSize int64
	// Spare keeps what was used within this time, whatever the limits, for
	// the sake of builds that run now.
	Spare time.Duration
}

// Prune removes what a policy does not let a cache folder keep, and returns
// what it removed. The folder may hold any kind of cache whose files carry
// the time of their last use.
func Prune(dir string, policy Policy, now time.Time) ([]Entry, error) {
	entries, err := List(dir)
	if err != nil {
		return nil, err
	}
	var total int64
	for _, e := range entries {
		total += e.Size
	}
	var removed []Entry
	for _, e := range entries {
		age := now.Sub(e.Used)
		old := policy.MaxAge > 0 && age > policy.MaxAge
		large := policy.MaxSize >= 0 && total > policy.MaxSize
		if !old && !large || age < policy.Spare {
			continue
		}
		if err := os.Remove(e.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
		total -= e.Size
		removed = append(removed, e)
	}
	return removed, nil
}
