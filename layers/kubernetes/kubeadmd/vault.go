package kubeadmd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/picube/picube-build/layers/nodeconf"
)

// Backup names a backup by what it holds.
type Backup struct {
	Era      int64 // when the cluster began, in seconds since 1970
	Revision int64 // of etcd; everything up to it is in the backup
	Time     int64 // in seconds since 1970
}

// String is the backup's name: "1764201600-12345-1764205200".
func (b Backup) String() string { return fmt.Sprintf("%d-%d-%d", b.Era, b.Revision, b.Time) }

// ParseBackup reads a name.
func ParseBackup(name string) (Backup, error) {
	var numbers []int64
	for _, text := range strings.SplitN(name, "-", 4) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			break
		}
		numbers = append(numbers, n)
	}
	if len(numbers) == 3 {
		if b := (Backup{numbers[0], numbers[1], numbers[2]}); b.String() == name {
			return b, nil
		}
	}
	return Backup{}, fmt.Errorf("backup %q: cannot read its name", name)
}

// MarshalText and UnmarshalText write the name into JSON.
func (b Backup) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads the name.
func (b *Backup) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBackup(string(text))
	return err
}

// compare puts what is newer later. A revision tells the order within a cluster
// where a clock may not.
func (b Backup) compare(o Backup) int {
	return cmp.Or(cmp.Compare(b.Era, o.Era), cmp.Compare(b.Revision, o.Revision), cmp.Compare(b.Time, o.Time))
}

// held is a backup that a node has.
type held struct {
	Name Backup `json:"name"`
	Size int64  `json:"size"`
}

// vault is where a worker keeps backups, which it can't read.
type vault struct {
	dir  string
	keep int
	max  int64 // bytes of one
}

const (
	backupsDir  = nodeconf.StateDir + "/backups"
	backupsPath = "/backups/"
	// maxBackup bounds one of them: what etcd may grow to, hardly compressed.
	maxBackup = 512 << 20
	// transfer is how long one may be on its way.
	transfer = time.Hour
	// defaultKeep is for a card from before there were backups.
	defaultKeep = 3
	unfinished  = ".unfinished-"
)

func (e *Engine) vault() vault {
	return vault{filepath.Join(e.Root, backupsDir), cmp.Or(e.Config.Backups.Keep, defaultKeep), maxBackup}
}

// list returns what is there, the newest first.
func (v vault) list() ([]held, error) {
	entries, err := os.ReadDir(v.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []held
	for _, entry := range entries {
		b, err := ParseBackup(entry.Name())
		if err != nil {
			continue
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			all = append(all, held{b, info.Size()})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return b.Name.compare(a.Name) })
	return all, err
}

// tidy removes what a pulled plug left half-way.
func (v vault) tidy() {
	left, _ := filepath.Glob(filepath.Join(v.dir, unfinished+"*"))
	for _, name := range left {
		_ = os.Remove(name)
	}
}

// take stores a backup.
func (v vault) take(w http.ResponseWriter, r *http.Request) {
	b, err := ParseBackup(r.PathValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.ContentLength > v.max {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	until, answer := time.Now().Add(transfer), http.NewResponseController(w)
	err = errors.Join(answer.SetReadDeadline(until), answer.SetWriteDeadline(until))
	if err == nil {
		err = v.store(b, http.MaxBytesReader(w, r.Body, v.max))
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// store writes a backup and lets those go that are too many. Nothing of it is
// there before all of it is.
func (v vault) store(b Backup, r io.Reader) error {
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(v.dir, unfinished+"*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, r)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("backup %s: %w", b, err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(v.dir, b.String())); err != nil {
		return err
	}
	return errors.Join(syncDir(v.dir), v.prune(b.Era))
}

// prune keeps the newest backups of the cluster of that era, and one of another:
// a node that began a cluster anew by mistake must not take the old one's last
// trace.
func (v vault) prune(era int64) error {
	all, err := v.list()
	if err != nil {
		return err
	}
	left := map[bool]int{true: v.keep, false: 1} // by whether it is of that era
	var errs []error
	for _, h := range all {
		own := h.Name.Era == era
		if left[own]--; left[own] < 0 {
			errs = append(errs, os.Remove(filepath.Join(v.dir, h.Name.String())))
		}
	}
	return errors.Join(errs...)
}

// hand gives a backup out.
func (v vault) hand(w http.ResponseWriter, r *http.Request) {
	b, err := ParseBackup(r.PathValue("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f, err := os.Open(filepath.Join(v.dir, b.String()))
	if err != nil {
		http.Error(w, "no such backup", http.StatusNotFound)
		return
	}
	defer f.Close()
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(transfer)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.Copy(w, f)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
