package source_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/source"
)

var epoch = time.Unix(1_760_000_000, 0)

func noPause(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func newCache(dir string) *source.Cache {
	return source.New(source.Config{Dir: dir, Now: func() time.Time { return epoch }, Pause: noPause})
}

var text = strings.Repeat("0123456789", 10_000)

func object(text string, urls ...string) source.Object {
	sum := sha256.Sum256([]byte(text))
	return source.Object{Name: "thing", URLs: urls, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(text))}
}

// server answers request number i (from 0) with handlers[i], the last one
// from then on, and counts.
func server(t *testing.T, handlers ...http.HandlerFunc) (string, *atomic.Int64) {
	var count atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := min(int(count.Add(1)), len(handlers)) - 1
		handlers[i](w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/thing", &count
}

func serve(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
}

// cut promises all and sends n bytes.
func cut(text string, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		w.Write([]byte(text[:n]))
		panic(http.ErrAbortHandler)
	}
}

func mustRange(want string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Range"); got != want {
			http.Error(w, "range is "+got, http.StatusTeapot)
			return
		}
		next(w, r)
	}
}

func TestFetch(t *testing.T) {
	wrong := "x" + text[1:]
	tests := []struct {
		name     string
		handlers []http.HandlerFunc
		requests int64
		err      string
		is       error
	}{
		{name: "plain", handlers: []http.HandlerFunc{serve(text)}, requests: 1},
		{name: "busy", handlers: []http.HandlerFunc{status(503), status(429), serve(text)}, requests: 3},
		{name: "cut off, then resumed", requests: 2,
			handlers: []http.HandlerFunc{cut(text, 60_000), mustRange("bytes=60000-", serve(text))}},
		{name: "cut off, cannot resume", requests: 2,
			handlers: []http.HandlerFunc{cut(text, 60_000), func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(text)) }}},
		{name: "cut off, refuses to resume", requests: 3,
			handlers: []http.HandlerFunc{cut(text, 60_000), status(416), mustRange("", serve(text))}},
		{name: "cut off, resumes elsewhere", requests: 3,
			handlers: []http.HandlerFunc{cut(text, 60_000), func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Range", "bytes 5-99999/100000")
				w.WriteHeader(http.StatusPartialContent)
			}, mustRange("", serve(text))}},
		{name: "resumed onto something else", requests: 3,
			handlers: []http.HandlerFunc{cut(wrong, 60_000), serve(text), mustRange("", serve(text))}},
		{name: "missing", handlers: []http.HandlerFunc{status(404)}, requests: 1, err: "thing: not found: URL: 404 Not Found", is: source.ErrNotFound},
		{name: "always busy", handlers: []http.HandlerFunc{status(503)}, requests: 5, err: "thing: URL: 503 Service Unavailable"},
		{name: "wrong", handlers: []http.HandlerFunc{serve(wrong)}, requests: 5, err: "thing: URL: has SHA-256 "},
		{name: "long", handlers: []http.HandlerFunc{serve(text + "x")}, requests: 5, err: "thing: URL: has more than 100000 bytes"},
		{name: "short", handlers: []http.HandlerFunc{serve(text[:10])}, requests: 9, err: "thing: URL: ends after 10 of 100000 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url, count := server(t, test.handlers...)
			dir := filepath.Join(t.TempDir(), "cache")
			cache := newCache(dir)
			o := object(text, url)
			paths, err := cache.Fetch(context.Background(), o)
			if got := count.Load(); got != test.requests {
				t.Errorf("%d requests", got)
			}
			if test.err != "" {
				if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), url, "URL"), test.err) {
					t.Fatalf("got %v", err)
				}
				if test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("%v is not %v", err, test.is)
				}
				if cache.Has(o.SHA256, o.Size) {
					t.Error("it is in the cache")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(paths[0]); err != nil || string(b) != text {
				t.Errorf("got %d bytes, %v", len(b), err)
			}
			// The second time nobody is asked.
			if _, err := cache.Fetch(context.Background(), o); err != nil || count.Load() != test.requests {
				t.Errorf("second time: %v after %d requests", err, count.Load())
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("in the cache: %v", left)
			}
			if info, _ := os.Stat(paths[0]); !info.ModTime().Equal(epoch) {
				t.Errorf("used at %v", info.ModTime())
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	gone, _ := server(t, status(404))
	broken, _ := server(t, cut(text, 30_000))
	good, _ := server(t, mustRange("bytes=30000-", serve(text)))
	if _, err := newCache(t.TempDir()).Fetch(context.Background(), object(text, gone, broken, good)); err != nil {
		t.Error(err)
	}
}

func TestManyMissing(t *testing.T) {
	good, _ := server(t, serve(text))
	gone, _ := server(t, status(404))
	var list []source.Object
	for _, name := range []string{"c", "a", "b"} {
		o := object(name, gone)
		o.Name = name
		list = append(list, o)
	}
	_, err := newCache(t.TempDir()).Fetch(context.Background(), append(list, object(text, good))...)
	want := "a: not found: URL: 404 Not Found\nb: not found: URL: 404 Not Found\nc: not found: URL: 404 Not Found"
	if err == nil || strings.ReplaceAll(err.Error(), gone, "URL") != want {
		t.Errorf("got %v", err)
	}
}

func TestOffline(t *testing.T) {
	url, count := server(t, serve(text))
	dir := t.TempDir()
	offline := source.New(source.Config{Dir: dir, Offline: true, Now: time.Now})
	_, err := offline.Fetch(context.Background(), object(text, url))
	if err == nil || err.Error() != "thing: not in the cache, and this build is offline" || !errors.Is(err, source.ErrOffline) {
		t.Errorf("got %v", err)
	}
	if _, err := offline.Get(context.Background(), 10, url); !errors.Is(err, source.ErrOffline) {
		t.Errorf("got %v", err)
	}
	if count.Load() != 0 {
		t.Error("the network was used")
	}
	if _, err := newCache(dir).Fetch(context.Background(), object(text, url)); err != nil {
		t.Fatal(err)
	}
	if _, err := offline.Fetch(context.Background(), object(text, url)); err != nil {
		t.Error(err)
	}
}

func TestDamagedEntry(t *testing.T) {
	url, _ := server(t, serve(text))
	cache := newCache(t.TempDir())
	o := object(text, url)
	for _, damaged := range []string{"", text[:100], "x" + text[1:], text + "x"} {
		if err := os.WriteFile(cache.Path(o.SHA256), []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		paths, err := cache.Fetch(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(paths[0]); string(b) != text {
			t.Errorf("%d damaged bytes: not repaired", len(damaged))
		}
	}
}

// TestCancel stops in the middle; the next run continues there.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	url, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(text[:50_000]))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, mustRange("bytes=50000-", serve(text)))
	o := object(text, url)
	dir := t.TempDir()
	cache := source.New(source.Config{Dir: dir, Now: time.Now, Report: func(p source.Progress) {
		if p.Have == 50_000 {
			cancel()
		}
	}})
	if _, err := cache.Fetch(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if cache.Has(o.SHA256, o.Size) {
		t.Error("it is in the cache")
	}
	if _, err := newCache(dir).Fetch(context.Background(), o); err != nil {
		t.Error(err)
	}
}

// TestTogether has several caches over one folder want the same things.
func TestTogether(t *testing.T) {
	url, count := server(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		serve(text)(w, r)
	})
	dir := t.TempDir()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			cache := source.New(source.Config{Dir: dir, Now: time.Now})
			if _, err := cache.Fetch(context.Background(), object(text, url), object(text, url)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if count.Load() != 1 {
		t.Errorf("downloaded %d times", count.Load())
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("in the cache: %v", left)
	}
}

func TestUnreachable(t *testing.T) {
	url, _ := server(t, serve(text))
	dead := strings.Replace(url, "127.0.0.1", "127.0.0.1:1", 1)[:len("http://127.0.0.1:1")] + "/thing"
	_, err := newCache(t.TempDir()).Fetch(context.Background(), object(text, dead))
	if err == nil || !strings.HasPrefix(err.Error(), `thing: Get "`+dead+`": dial tcp`) {
		t.Errorf("got %v", err)
	}
}

// TestNoHost asks for a name that does not exist once, not again and again.
func TestNoHost(t *testing.T) {
	asked := 0
	cache := source.New(source.Config{
		Dir: t.TempDir(), Now: func() time.Time { return epoch }, Pause: noPause,
		Client: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			asked++
			return nil, &net.DNSError{Err: "no such host", Name: "nowhere", IsNotFound: true}
		})},
	})
	_, err := cache.Get(t.Context(), 5, "http://nowhere/thing")
	if err == nil || errors.Is(err, source.ErrNotFound) || asked != 1 {
		t.Errorf("got %v after %d requests", err, asked)
	}
	_, err = cache.Fetch(t.Context(), object(text, "http://nowhere/thing"))
	if err == nil || errors.Is(err, source.ErrNotFound) || asked != 2 {
		t.Errorf("fetch: got %v after %d requests in all", err, asked)
	}
}

// transport answers requests by itself.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

func TestGet(t *testing.T) {
	url, _ := server(t, status(500), serve("hello"))
	cache := newCache(t.TempDir())
	if b, err := cache.Get(context.Background(), 5, url); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := cache.Get(context.Background(), 4, url); err == nil || !strings.HasSuffix(err.Error(), "/thing: has more than 4 bytes") {
		t.Errorf("got %v", err)
	}
	gone, count := server(t, status(404))
	if _, err := cache.Get(context.Background(), 4, gone); !errors.Is(err, source.ErrNotFound) || count.Load() != 1 {
		t.Errorf("got %v after %d requests", err, count.Load())
	}
}

func TestPrune(t *testing.T) {
	names := func(entries []source.Entry) string {
		var list []string
		for _, e := range entries {
			list = append(list, filepath.Base(e.Path))
		}
		return strings.Join(list, " ")
	}
	tests := []struct {
		name   string
		policy source.Policy
		want   string
	}{
		{"nothing", source.Policy{MaxSize: -1}, ""},
		{"age", source.Policy{MaxAge: 90 * time.Minute, MaxSize: -1}, "c d"},
		{"size", source.Policy{MaxSize: 250}, "d c"},
		{"all", source.Policy{}, "d c b a"},
		{"all but what is in use", source.Policy{Spare: 70 * time.Minute}, "d c"},
	}
	for _, test := range tests {
		dir := t.TempDir()
		os.Mkdir(filepath.Join(dir, "decoded"), 0o755)
		for i, name := range []string{"a", "decoded/b", "c", "decoded/d"} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, make([]byte, 100), 0o644); err != nil {
				t.Fatal(err)
			}
			used := epoch.Add(-time.Duration(i) * time.Hour)
			os.Chtimes(path, used, used)
		}
		removed, err := source.Prune(dir, test.policy, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(removed); got != test.want && test.name != "age" || len(got) != len(test.want) {
			t.Errorf("%s: removed %q", test.name, got)
		}
		left, err := source.List(dir)
		if err != nil || len(left)+len(removed) != 4 {
			t.Errorf("%s: left %q, %v", test.name, names(left), err)
		}
	}
	if list, err := source.List(filepath.Join(t.TempDir(), "none")); len(list) != 0 || err != nil {
		t.Errorf("missing folder: %v, %v", list, err)
	}
}
