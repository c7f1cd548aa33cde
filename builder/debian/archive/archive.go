// Package archive reads signed Debian archives: InRelease files, whose
// signature, suite, age and order in time are checked, and the package
// indices that they vouch for.
//
// Source: the Debian repository format, wiki.debian.org/DebianRepository/Format.
//
// Not supported: flat archives (a suite that is a path), Release with a
// detached Release.gpg, index differences (pdiffs).
package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/debian/index"
	"github.com/picube/picube-build/builder/source"
	"github.com/picube/picube-build/builder/xz"
)

// Archive is a place with packages.
type Archive struct {
	// Name stands in locks and messages. "debian" and "debian-security"
	// are also the names of the folders on a snapshot archive.
	Name       string
	URLs       []string // mirrors, tried in this order, without a "/" at the end
	Suites     []string
	Components []string
	Keys       []byte // OpenPGP public keys, armoured or binary
	// Pin is the priority of its packages as apt has it, 0: none of its own.
	Pin int
}

// Debian returns the archives of a Debian release: the release itself with
// its updates, and the security updates.
func Debian(suite string, mirrors Mirrors) ([]Archive, error) {
	keys, err := DebianKeys()
	if err != nil {
		return nil, err
	}
	components := []string{"main", "contrib", "non-free-firmware"}
	return []Archive{
		{Name: "debian", URLs: mirrors.Debian, Suites: []string{suite, suite + "-updates"}, Components: components, Keys: keys},
		{Name: "debian-security", URLs: mirrors.Security, Suites: []string{suite + "-security"}, Components: components, Keys: keys},
	}, nil
}

// URLs returns where a file of an archive may be had: at its mirrors, and
// then, if snapshot is not empty, at a snapshot archive of the layout of
// snapshot.debian.org/archive:
//
//	<snapshot>/<archive>/<date as 20260912T075541Z>/<filename>
//
// which answers with the state at that date or the last one before it.
func URLs(mirrors []string, name, filename, snapshot string, date time.Time) []string {
	var urls []string
	for _, m := range mirrors {
		urls = append(urls, strings.TrimRight(m, "/")+"/"+filename)
	}
	if snapshot != "" {
		urls = append(urls, strings.TrimRight(snapshot, "/")+"/"+path.Join(name, date.UTC().Format("20060102T150405Z"), filename))
	}
	return urls
}

// Config is what Load needs to know.
type Config struct {
	Cache *source.Cache
	Arch  string // "arm64"
	Now   time.Time
	// NotBefore returns the date of the newest Release of a suite that is
	// known from elsewhere (a lock); zero: none. May be nil. The cache
	// remembers the newest that it has seen by itself.
	NotBefore func(archive, suite string) time.Time
	// Pause waits for a mirror that is being updated; nil: a timer.
	Pause func(context.Context, time.Duration) error
}

// Index is all that archives offer for an architecture.
type Index struct {
	Releases []Release
	Packages []index.Package
}

const (
	maxInRelease = 16 << 20
	maxPackages  = 1 << 30
)

// Load reads the indices of all suites of all archives, in the order given.
func Load(ctx context.Context, c Config, archives []Archive) (*Index, error) {
	type part struct {
		release  *Release
		packages [][]index.Package
	}
	var parts []*part
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range archives {
		keyring, err := readKeys(a.Keys)
		if err != nil {
			return nil, fmt.Errorf("archive %s: cannot read its keys: %w", a.Name, err)
		}
		for _, suite := range a.Suites {
			p := &part{}
			parts = append(parts, p)
			group.Go(func() error {
				s := &suiteLoader{Config: c, archive: &a, suite: suite, keyring: keyring}
				var err error
				if p.release, p.packages, err = s.load(ctx); err != nil {
					return fmt.Errorf("archive %s: suite %s: %w", a.Name, suite, err)
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := &Index{}
	var packages [][]index.Package
	for _, p := range parts {
		all.Releases = append(all.Releases, *p.release)
		packages = append(packages, p.packages...)
	}
	all.Packages = slices.Concat(packages...) // once: it is large
	return all, nil
}

type suiteLoader struct {
	Config
	archive *Archive
	suite   string
	keyring openpgp.EntityList
}

// load tries again from the start while the mirror is being updated: the
// indices are then of another moment than the Release.
func (s *suiteLoader) load(ctx context.Context) (*Release, [][]index.Package, error) {
	const rounds = 4
	pause := s.Pause
	if pause == nil {
		pause = func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return nil
			}
		}
	}
	for round := 1; ; round++ {
		release, err := s.release(ctx)
		if err != nil {
			return nil, nil, err
		}
		packages, err := s.packages(ctx, release)
		if err == nil {
			return release, packages, nil
		}
		if !errors.Is(err, errStaleIndex) || round == rounds || s.Cache.Offline() {
			return nil, nil, err
		}
		if err := pause(ctx, time.Duration(round)*5*time.Second); err != nil {
			return nil, nil, err
		}
	}
}

var errStaleIndex = errors.New("the mirror does not have what its InRelease lists; it may be in the middle of an update")

// release gets an InRelease that passes all checks, from the first mirror
// that has one.
func (s *suiteLoader) release(ctx context.Context) (*Release, error) {
	known := s.knownRelease()
	if s.Cache.Offline() {
		if known == nil {
			return nil, fmt.Errorf("InRelease: %w", source.ErrOffline)
		}
		return known, known.checkTime(s.Now)
	}
	var notBefore time.Time
	if s.NotBefore != nil {
		notBefore = s.NotBefore(s.archive.Name, s.suite)
	}
	if known != nil && known.Date.After(notBefore) {
		notBefore = known.Date
	}
	var failed []error
	for _, mirror := range s.archive.URLs {
		url := strings.TrimRight(mirror, "/") + "/dists/" + s.suite + "/InRelease"
		b, err := s.Cache.Get(ctx, maxInRelease, url)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		r, err := readRelease(s.archive, s.suite, b, s.keyring, s.Now)
		if err == nil {
			err = r.checkTime(s.Now)
		}
		if err == nil && r.Date.Before(notBefore) {
			err = fmt.Errorf("it is of %s, but one of %s was seen before: the mirror is out of date, or somebody replays old packages", minute(r.Date), minute(notBefore))
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", url, err))
			continue
		}
		return r, writeFile(s.releasePath(), func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	}
	if len(failed) == 0 {
		return nil, errors.New("no mirror to ask")
	}
	return nil, errors.Join(failed...)
}

// releasePath is where the last good InRelease is kept, to notice older ones
// and to work offline. It is the same for all mirrors of an archive; archives
// that only share the name differ in their keys.
func (s *suiteLoader) releasePath() string {
	sum := sha256.Sum256(s.archive.Keys)
	return filepath.Join(s.Cache.Dir(), "releases", fmt.Sprintf("%s_%s_%x.InRelease", s.archive.Name, strings.ReplaceAll(s.suite, "/", "_"), sum[:4]))
}

func (s *suiteLoader) knownRelease() *Release {
	b, err := os.ReadFile(s.releasePath())
	if err != nil {
		return nil
	}
	r, err := readRelease(s.archive, s.suite, b, s.keyring, s.Now)
	if err != nil {
		return nil // damaged, or of a key that has expired since
	}
	return r
}

// packages reads the indices of all components.
func (s *suiteLoader) packages(ctx context.Context, r *Release) ([][]index.Package, error) {
	var all [][]index.Package
	for _, component := range s.archive.Components {
		name := component + "/binary-" + s.Arch + "/Packages"
		text, err := s.index(ctx, r, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list, err := index.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i := range list {
			list[i].Archive, list[i].Suite, list[i].NotAutomatic, list[i].Pin = s.archive.Name, s.suite, r.notAutomatic, s.archive.Pin
		}
		all = append(all, list)
	}
	return all, nil
}

// index returns a decoded, trimmed index, which the cache keeps: decoding
// takes ten times as long as reading.
func (s *suiteLoader) index(ctx context.Context, r *Release, name string) (string, error) {
	var file listed
	var suffix string
	for _, suffix = range []string{".xz", ".gz", ""} {
		var ok bool
		if file, ok = r.files[name+suffix]; ok {
			break
		}
	}
	if file.sha256 == "" {
		return "", fmt.Errorf("the suite has no such index: wrong component or architecture?")
	}
	path := filepath.Join(s.Cache.Dir(), "indices", file.sha256+".Packages")
	if text, ok := readTrimmed(path, s.Now); ok {
		return text, nil
	}
	var urls []string
	for _, mirror := range s.archive.URLs {
		base := strings.TrimRight(mirror, "/") + "/dists/" + s.suite + "/"
		if r.byHash {
			urls = append(urls, base+component(name)+"/by-hash/SHA256/"+file.sha256)
		} else {
			urls = append(urls, base+name+suffix)
		}
	}
	object := source.Object{Name: s.archive.Name + " " + s.suite + " " + name + suffix, URLs: urls, SHA256: file.sha256, Size: file.size}
	paths, err := s.Cache.Fetch(ctx, object)
	if errors.Is(err, source.ErrNotFound) || errors.Is(err, source.ErrMismatch) {
		return "", fmt.Errorf("%w: %w", errStaleIndex, err)
	}
	if err != nil {
		return "", err
	}
	var text strings.Builder
	if err := decodeIndex(&text, paths[0], suffix); err != nil {
		return "", fmt.Errorf("cannot decode: %w", err)
	}
	return text.String(), writeFile(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, trimmedHead(sha256.Sum256([]byte(text.String())))); err != nil {
			return err
		}
		_, err := io.WriteString(w, text.String())
		return err
	})
}

func component(name string) string { return name[:strings.LastIndexByte(name, '/')] }

func decodeIndex(w io.Writer, path, suffix string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	switch suffix {
	case ".xz":
		r = xz.NewReader(f, xz.MaxDict)
	case ".gz":
		r, err = gzip.NewReader(f)
	}
	if err != nil {
		return err
	}
	limited := &io.LimitedReader{R: r, N: maxPackages}
	if err := index.Trim(w, limited); err != nil {
		return err
	}
	if limited.N <= 0 {
		return fmt.Errorf("more than %d bytes", maxPackages)
	}
	return nil
}

// trimmedHead is the comment that a trimmed index starts with in the cache,
// to notice damage.
func trimmedHead(sum [sha256.Size]byte) string { return fmt.Sprintf("# trimmed 1 %x\n", sum) }

func readTrimmed(path string, now time.Time) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", false
	}
	head := make([]byte, len(trimmedHead([sha256.Size]byte{})))
	if _, err := io.ReadFull(f, head); err != nil {
		return "", false
	}
	// Tens of megabytes: they are read once, into what is returned.
	var text strings.Builder
	text.Grow(int(info.Size()))
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(&text, sum), f); err != nil {
		return "", false
	}
	if string(head) != trimmedHead([sha256.Size]byte(sum.Sum(nil))) {
		return "", false
	}
	os.Chtimes(path, now, now) // the folder may be read-only: no matter
	return text.String(), true
}

// writeFile writes a file whole or not at all.
func writeFile(path string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
