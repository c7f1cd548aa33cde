// Package source downloads what a build needs into a cache that is addressed
// by content: a file is named by its SHA-256 and never has that name before
// its size and digest are right.
//
// Several processes may share a cache. They wait for each other's downloads
// instead of repeating them, and a download that was cut off, be it by a
// pulled plug, is resumed.
//
// Not supported: anything but HTTP and HTTPS, authentication.
package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/picube/picube-build/builder/flock"
)

// Errors that callers act on.
var (
	// ErrNotFound: every mirror answered that it does not have the object.
	ErrNotFound = errors.New("not found")
	// ErrOffline: the object is not in the cache and the network is not to
	// be used.
	ErrOffline = errors.New("not in the cache, and this build is offline")
	// ErrMismatch: what came is not what was wanted.
	ErrMismatch = errors.New("wrong content")
)

// A mismatch is an ErrMismatch without its text.
type mismatch struct{ error }

func (mismatch) Is(target error) bool { return target == ErrMismatch }

func mismatched(format string, args ...any) error { return mismatch{fmt.Errorf(format, args...)} }

// Object is something to be downloaded.
type Object struct {
	Name   string   // for messages: "curl 8.14.1-2 arm64"
	URLs   []string // tried in this order
	SHA256 string   // lower-case hex
	Size   int64
}

// Progress says how far one object is.
type Progress struct {
	Object Object
	Have   int64 // bytes
	Done   bool  // checked and in the cache
	Cached bool  // it was there before
}

// Config is what a cache needs to know.
type Config struct {
	Dir     string
	Offline bool
	// Client is used as it is; nil: one with sensible time limits.
	Client *http.Client
	// Parallel is the number of downloads at a time; 0: 8.
	Parallel int
	// Now is the clock; used objects get its time as modification time.
	Now func() time.Time
	// Pause waits between attempts; nil: a timer. Tests pass one that does
	// not wait.
	Pause func(context.Context, time.Duration) error
	// Report is told of progress, by one goroutine at a time; may be nil.
	Report func(Progress)
}

// Cache is a folder of downloads.
type Cache struct {
	config Config
	mu     sync.Mutex // around config.Report
}

// New returns a cache; its folder is made with the first download.
func New(c Config) *Cache {
	if c.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.ResponseHeaderTimeout = 30 * time.Second
		transport.MaxIdleConnsPerHost = 16
		c.Client = &http.Client{Transport: transport}
	}
	if c.Parallel <= 0 {
		c.Parallel = 8
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	return &Cache{config: c}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Dir returns the cache's folder.
func (c *Cache) Dir() string { return c.config.Dir }

// Offline reports whether the network is not to be used.
func (c *Cache) Offline() bool { return c.config.Offline }

// Path returns where an object with this digest lies once it is there.
func (c *Cache) Path(sha256 string) string { return filepath.Join(c.config.Dir, sha256) }

// Has reports whether an object of this digest and size is there. Only Fetch
// looks at its bytes.
func (c *Cache) Has(sha256 string, size int64) bool {
	info, err := os.Stat(c.Path(sha256))
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// Fetch makes sure that all objects are in the cache, undamaged, and returns
// their paths in the order given. Objects that no mirror has are all named
// in the error; what else goes wrong ends the fetch at once.
func (c *Cache) Fetch(ctx context.Context, objects ...Object) ([]string, error) {
	paths := make([]string, len(objects))
	var mu sync.Mutex
	lacking := map[string]error{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.config.Parallel)
	for i, o := range objects {
		paths[i] = c.Path(o.SHA256)
		if b, err := hex.DecodeString(o.SHA256); err != nil || len(b) != sha256.Size || o.Size < 0 {
			return nil, fmt.Errorf("%s: %q with %d bytes is no digest and size", o.Name, o.SHA256, o.Size)
		}
		group.Go(func() error {
			err := c.fetch(ctx, o)
			if err == nil {
				return nil
			}
			err = fmt.Errorf("%s: %w", o.Name, err)
			if errors.Is(err, ErrNotFound) || errors.Is(err, ErrOffline) {
				mu.Lock()
				defer mu.Unlock()
				lacking[o.Name] = err
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return paths, joined(lacking)
}

// joined returns the errors sorted by what they are about.
func joined(all map[string]error) error {
	var list []error
	for _, err := range all {
		list = append(list, err)
	}
	slices.SortFunc(list, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(list...)
}

func (c *Cache) report(p Progress) {
	if c.config.Report == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config.Report(p)
}

func (c *Cache) fetch(ctx context.Context, o Object) error {
	if c.cached(o) {
		c.report(Progress{Object: o, Have: o.Size, Done: true, Cached: true})
		return nil
	}
	if c.config.Offline {
		return ErrOffline
	}
	if err := os.MkdirAll(c.config.Dir, 0o755); err != nil {
		return err
	}
	part, err := c.claim(ctx, o)
	if err != nil || part == nil {
		return err
	}
	defer part.Close()
	err = c.download(ctx, o, part)
	if err != nil {
		if info, serr := part.Stat(); serr == nil && info.Size() == 0 {
			os.Remove(part.Name())
		}
		return err
	}
	if err := part.Sync(); err != nil {
		return err
	}
	if err := part.Close(); err != nil { // Windows renames closed files only
		return err
	}
	if err := os.Rename(part.Name(), c.Path(o.SHA256)); err != nil && !c.Has(o.SHA256, o.Size) {
		return err
	}
	c.report(Progress{Object: o, Have: o.Size, Done: true})
	return nil
}

// cached looks for an object and drops it if it is damaged.
func (c *Cache) cached(o Object) bool {
	if !c.Has(o.SHA256, o.Size) {
		return false
	}
	path := c.Path(o.SHA256)
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return false
	}
	if hex.EncodeToString(sum.Sum(nil)) != o.SHA256 {
		return false // a download replaces it
	}
	now := c.config.Now()
	os.Chtimes(path, now, now) // the folder may be read-only: no matter
	return true
}

// claim opens the partial download of an object for ourselves alone. Nil
// means that another process has finished the object meanwhile.
func (c *Cache) claim(ctx context.Context, o Object) (*os.File, error) {
	const wait = 100 * time.Millisecond
	name := c.Path(o.SHA256) + partSuffix
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		locked, err := flock.Try(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", name, err)
		}
		// Who held the lock before may have renamed or removed the file.
		mine, _ := f.Stat()
		there, err := os.Stat(name)
		if locked && err == nil && os.SameFile(mine, there) {
			if c.cached(o) {
				f.Close()
				os.Remove(name)
				return nil, nil
			}
			return f, nil
		}
		f.Close()
		if !locked {
			if err := c.config.Pause(ctx, wait); err != nil {
				return nil, err
			}
		}
	}
}

// partSuffix ends the names of partial downloads.
const partSuffix = ".part"

const attempts = 5

// download fills f with the object, from whichever mirror has it.
func (c *Cache) download(ctx context.Context, o Object, f *os.File) error {
	var last error
	absent := map[string]bool{}
	for attempt := range attempts {
		if attempt > 0 {
			if err := c.config.Pause(ctx, backoff(attempt)); err != nil {
				return err
			}
		}
		for _, url := range o.URLs {
			if absent[url] {
				continue
			}
			err := c.attempt(ctx, o, url, f)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var local *os.PathError
			if errors.As(err, &local) { // a full disk, not the network
				return err
			}
			absent[url] = hopeless(err)
			if !absent[url] || last == nil {
				last = err
			}
		}
		if len(absent) > 0 && !slices.Contains(values(absent), false) {
			break
		}
	}
	if last == nil {
		return fmt.Errorf("%w: no mirror to ask", ErrNotFound)
	}
	return last
}

// hopeless reports whether asking again would be answered alike: there is no
// such file, or no such host.
func hopeless(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, ErrNotFound) || errors.As(err, &dns) && dns.IsNotFound
}

func values(m map[string]bool) []bool {
	var list []bool
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func backoff(attempt int) time.Duration { return time.Second / 2 << (attempt - 1) }

// attempt asks one mirror for what f lacks.
func (c *Cache) attempt(ctx context.Context, o Object, url string, f *os.File) error {
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	have, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	restart := func() error {
		have = 0
		sum.Reset()
		if err := f.Truncate(0); err != nil {
			return err
		}
		_, err := f.Seek(0, io.SeekStart)
		return err
	}
	if have > o.Size {
		if err := restart(); err != nil {
			return err
		}
	}
	if have < o.Size || o.Size == 0 {
		body, from, err := c.open(ctx, url, have)
		if err != nil {
			return err
		}
		defer body.Close()
		if from != have {
			if err := restart(); err != nil {
				return err
			}
		}
		n, err := io.Copy(io.MultiWriter(f, sum, &counter{c, o, have}), io.LimitReader(body, o.Size-have+1))
		have += n
		if err != nil {
			return fmt.Errorf("%s: after %d of %d bytes: %w", url, have, o.Size, err)
		}
	}
	if have < o.Size {
		return mismatched("%s: ends after %d of %d bytes", url, have, o.Size)
	}
	got := hex.EncodeToString(sum.Sum(nil))
	if have == o.Size && got == o.SHA256 {
		return nil
	}
	long := have > o.Size
	if err := restart(); err != nil {
		return err
	}
	if long {
		return mismatched("%s: has more than %d bytes", url, o.Size)
	}
	return mismatched("%s: has SHA-256 %s instead of %s", url, got, o.SHA256)
}

// open asks for a URL's bytes from an offset on and says where those that
// come begin.
func (c *Cache) open(ctx context.Context, url string, offset int64) (io.ReadCloser, int64, error) {
	guard, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(guard, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	request.Header.Set("User-Agent", "picube-build")
	request.Header.Set("Accept-Encoding", "identity") // digests are of the bytes as stored
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := c.config.Client.Do(request)
	if err != nil {
		cancel(nil)
		return nil, 0, err // names the URL
	}
	body := &guarded{body: response.Body, cancel: cancel, ctx: guard}
	body.timer = time.AfterFunc(stall, func() { cancel(errStalled) })
	var start int64
	switch response.StatusCode {
	case http.StatusOK:
		return body, 0, nil
	case http.StatusPartialContent:
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &start); err == nil && start == offset {
			return body, offset, nil
		}
		fallthrough
	case http.StatusRequestedRangeNotSatisfiable:
		body.Close()
		if offset == 0 {
			return nil, 0, fmt.Errorf("%s: %s", url, response.Status)
		}
		return c.open(ctx, url, 0)
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
		err = fmt.Errorf("%w: %s: %s", ErrNotFound, url, response.Status)
	default:
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	body.Close()
	return nil, 0, err
}

const stall = time.Minute

var errStalled = fmt.Errorf("nothing came for %s", stall)

// guarded ends a response that stopped to come.
type guarded struct {
	body   io.ReadCloser
	timer  *time.Timer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.body.Read(b)
	if n > 0 {
		g.timer.Reset(stall)
	}
	if err != nil && err != io.EOF && context.Cause(g.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

func (g *guarded) Close() error {
	g.timer.Stop()
	err := g.body.Close()
	g.cancel(nil)
	return err
}

type counter struct {
	cache  *Cache
	object Object
	have   int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.have += int64(len(b))
	c.cache.report(Progress{Object: c.object, Have: min(c.have, c.object.Size)})
	return len(b), nil
}

// Get downloads something that changes under its name, such as a signed
// list of digests, without caching it: at most limit bytes. What it returns
// is not checked in any way. All URLs absent is ErrNotFound.
func (c *Cache) Get(ctx context.Context, limit int64, urls ...string) ([]byte, error) {
	if c.config.Offline {
		return nil, fmt.Errorf("%s: %w", strings.Join(urls, ", "), ErrOffline)
	}
	var last error
	for attempt := range attempts {
		if attempt > 0 {
			if err := c.config.Pause(ctx, backoff(attempt)); err != nil {
				return nil, err
			}
		}
		absent := 0
		for _, url := range urls {
			b, err := c.get(ctx, limit, url)
			if err == nil {
				return b, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if hopeless(err) {
				absent++
			}
			if last == nil || !errors.Is(err, ErrNotFound) {
				last = err
			}
		}
		if absent == len(urls) {
			break
		}
	}
	return nil, last
}

func (c *Cache) get(ctx context.Context, limit int64, url string) ([]byte, error) {
	body, _, err := c.open(ctx, url, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: has more than %d bytes", url, limit)
	}
	return b, nil
}
