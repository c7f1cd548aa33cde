package deb

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Store keeps decoded packages in a folder, one file each, named by the
// digest of the .deb. Several processes may share the folder.
type Store struct {
	dir      string
	now      func() time.Time
	files    *files
	slots    chan struct{} // as many as may decode at a time
	decoders sync.Pool     // of *decoder
}

// NewStore returns a store over a folder, which is made when something is
// stored. What is used gets the modification time now(), so that pruning the
// oldest first drops what was not used for longest.
func NewStore(dir string, now func() time.Time) *Store {
	s := &Store{
		dir:   dir,
		now:   now,
		files: &files{max: 64, byID: map[string]*list.Element{}},
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	s.decoders.New = func() any { return &decoder{} }
	return s
}

// Close closes the store's files. Contents of its packages read nothing but
// errors afterwards.
func (s *Store) Close() error {
	s.files.close()
	return nil
}

// Open opens one package, decoding it if the store does not have it.
func (s *Store) Open(ctx context.Context, f File) (*Package, error) {
	packages, err := s.OpenAll(ctx, []File{f}, nil)
	if err != nil {
		return nil, err
	}
	return packages[0], nil
}

// OpenAll opens packages, in the order given, decoding those that the store
// does not have on all cores. Done, if not nil, is told of each package
// when it is open, by one goroutine at a time.
func (s *Store) OpenAll(ctx context.Context, list []File, done func(File)) ([]*Package, error) {
	packages := make([]*Package, len(list))
	var mu sync.Mutex
	opened := func(i int, x *index) {
		mu.Lock()
		defer mu.Unlock()
		packages[i] = s.newPackage(list[i], x)
		if done != nil {
			done(list[i])
		}
	}
	var missing []int
	for i, f := range list {
		if !validDigest(f.SHA256) {
			return nil, fmt.Errorf("package %s: %q is no SHA-256", f.Name, f.SHA256)
		}
		if x := s.lookup(f); x != nil {
			opened(i, x)
			continue
		}
		missing = append(missing, i)
	}
	// The largest first, so that no core has a large one left at the end.
	slices.SortStableFunc(missing, func(a, b int) int { return cmp.Compare(list[b].Size, list[a].Size) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * cap(s.slots))
	for _, i := range missing {
		group.Go(func() error {
			x, err := s.build(ctx, list[i])
			if err != nil {
				return err
			}
			opened(i, x)
			return nil
		})
	}
	return packages, group.Wait()
}

// Lookup opens a package that the store has decoded already, without its
// .deb; nil if it has not.
func (s *Store) Lookup(f File) *Package {
	if !validDigest(f.SHA256) {
		return nil
	}
	x := s.lookup(f)
	if x == nil {
		return nil
	}
	return s.newPackage(f, x)
}

func (s *Store) newPackage(f File, x *index) *Package {
	return &Package{File: f, Control: x.control, pack: &pack{store: s, file: f, index: x}}
}

func validDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

func (s *Store) path(f File) string { return filepath.Join(s.dir, f.SHA256+".pack") }

// lookup returns the index of a stored package, nil if there is none or if it
// is damaged.
func (s *Store) lookup(f File) *index {
	path := s.path(f)
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	x, err := readIndex(file, info.Size())
	if err != nil {
		return nil
	}
	now := s.now()
	os.Chtimes(path, now, now) // the folder may be read-only: no matter
	return x
}

// build decodes a .deb into the store.
func (s *Store) build(ctx context.Context, f File) (x *index, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("package %s: %w", f.Name, err)
		}
	}()
	in, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != f.Size {
		return nil, fmt.Errorf("%s has %d bytes instead of %d", f.Path, info.Size(), f.Size)
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	out, err := os.CreateTemp(s.dir, f.SHA256+".*.tmp")
	if err != nil {
		return nil, err
	}
	defer os.Remove(out.Name()) // after the rename there is nothing to remove
	defer out.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, in); err != nil {
		return nil, err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.SHA256 {
		return nil, fmt.Errorf("%s has SHA-256 %s instead of %s", f.Path, got, f.SHA256)
	}
	if x, err = s.decode(ctx, in, info.Size(), out); err != nil {
		return nil, err
	}
	encoded := x.encode()
	if _, err := out.WriteAt(append(encoded, x.trailer(encoded)...), x.size()); err != nil {
		return nil, err
	}
	if err := out.Chmod(0o644); err != nil {
		return nil, err
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	if err := os.Rename(out.Name(), s.path(f)); err != nil {
		return nil, err
	}
	s.files.forget(s.path(f))
	return x, nil
}

// storage is what decode writes to; an *os.File outside of tests.
type storage interface {
	io.ReaderAt
	io.WriterAt
}

// decode decodes a .deb's data.tar to out and returns what is in it.
func (s *Store) decode(ctx context.Context, in io.ReaderAt, size int64, out storage) (*index, error) {
	control, data, err := members(in, size)
	if err != nil {
		return nil, err
	}
	x := &index{}
	var tarball bytes.Buffer
	if _, err := s.decodeUnit(ctx, &tarball, unit{control.name, control, 0, -1}, MaxControl); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", control.name, err)
	}
	if x.control, err = controlFiles(tarball.Bytes()); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", control.name, err)
	}
	list, err := units(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", data.name, err)
	}
	x.segments = make([]segment, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cap(s.slots))
	for i, u := range list {
		group.Go(func() error {
			limit := u.length
			if limit < 0 {
				limit = MaxData
			}
			w := &summing{w: io.NewOffsetWriter(out, u.offset)}
			n, err := s.decodeUnit(ctx, w, u, limit)
			if err == nil && u.length >= 0 && n != u.length {
				err = fmt.Errorf("a block has %d bytes instead of %d", n, u.length)
			}
			x.segments[i] = segment{n, w.crc}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", data.name, err)
	}
	if x.records, err = dataRecords(out, x.size()); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", data.name, err)
	}
	return x, nil
}

// decodeUnit waits for a free decoder and decodes with it.
func (s *Store) decodeUnit(ctx context.Context, w io.Writer, u unit, limit int64) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
		d := s.decoders.Get().(*decoder)
		defer s.decoders.Put(d)
		return d.decode(&cancellable{ctx, w}, u.name, u.r, limit)
	}
}

type cancellable struct {
	ctx context.Context
	w   io.Writer
}

func (c *cancellable) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

type summing struct {
	w   io.Writer
	crc uint32
}

func (s *summing) Write(b []byte) (int, error) {
	s.crc = crc32.Update(s.crc, castagnoli, b)
	return s.w.Write(b)
}

// pack is a stored package that contents read from.
type pack struct {
	store *Store
	file  File
	index *index

	once sync.Once
	err  error
}

// check finds damage before the first byte is used, and repairs it: the
// same .deb decodes to the same bytes at the same places.
func (p *pack) check() error {
	p.once.Do(func() {
		if p.verify() == nil {
			return
		}
		x, err := p.store.build(context.Background(), p.file)
		if err == nil && !slices.Equal(x.segments, p.index.segments) {
			err = fmt.Errorf("package %s: %w", p.file.Name, errDamaged)
		}
		p.err = err
	})
	return p.err
}

func (p *pack) verify() error {
	return p.store.files.use(p.store.path(p.file), func(f *os.File) error {
		buf := make([]byte, 1<<20)
		var offset int64
		for _, s := range p.index.segments {
			var crc uint32
			for end := offset + s.length; offset < end; {
				b := buf[:min(int64(len(buf)), end-offset)]
				if _, err := f.ReadAt(b, offset); err != nil {
					return err
				}
				crc = crc32.Update(crc, castagnoli, b)
				offset += int64(len(b))
			}
			if crc != s.crc {
				return errDamaged
			}
		}
		return nil
	})
}

// content is a regular file's bytes within a pack.
type content struct {
	pack   *pack
	offset int64
	size   int64
}

func (c content) Size() int64 { return c.size }

func (c content) ReadAt(b []byte, offset int64) (n int, err error) {
	if offset < 0 {
		return 0, errors.New("negative offset")
	}
	if offset >= c.size {
		return 0, io.EOF
	}
	if err := c.pack.check(); err != nil {
		return 0, err
	}
	short := int64(len(b)) > c.size-offset
	if short {
		b = b[:c.size-offset]
	}
	err = c.pack.store.files.use(c.pack.store.path(c.pack.file), func(f *os.File) error {
		n, err = f.ReadAt(b, c.offset+offset)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("package %s: %w", c.pack.file.Name, err)
	}
	if short {
		err = io.EOF
	}
	return n, err
}
