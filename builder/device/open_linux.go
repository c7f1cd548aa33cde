package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens a card's block device, or makes a file in place of one. What is
// mounted, the system's own disk, a partition, and what is too small or no card
// at all is refused.
func (h Host) Open(path string, o Options) (*Target, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "/dev/"):
		return nil, fmt.Errorf("%s: cannot find the device", path) // no file in its place, in memory
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular():
		return openFile(path, o)
	case err != nil:
		return nil, err
	case info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) != fs.ModeDevice:
		return nil, fmt.Errorf("%s: cannot write to it: it is neither a block device nor a file", path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	number := strconv.Itoa(int(unix.Major(st.Rdev))) + ":" + strconv.Itoa(int(unix.Minor(st.Rdev)))
	d, err := h.check(number, o.Need, o.Large)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// The kernel itself refuses an exclusive open of what is in use (open(2)).
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s: cannot write to it: something uses it", path)
	}
	if err != nil {
		return nil, err
	}
	return &Target{
		Path: path, Label: d.label, Size: d.size, file: withDirect(f, path),
		gone: func() bool {
			again, err := h.check(number, 0, true)
			return err != nil && again.size == 0
		},
	}, nil
}

// openFile makes an empty file of the image's length, which gets its name when
// it holds an image.
func openFile(path string, o Options) (*Target, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the file, not what points to it
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, fmt.Errorf("%s: cannot make a file beside it: %w", path, err)
	}
	t := &Target{Path: path, file: withDirect(f, f.Name()), temporary: f.Name()}
	if err := f.Truncate(o.Need); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// directFile reads and writes past the page cache what is aligned for it, if
// the file can that at all: so that progress is the card's, memory stays free,
// and what is read back comes from the card.
type directFile struct {
	*os.File
	direct *os.File // nil: cannot
}

func withDirect(f *os.File, path string) *directFile {
	direct, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		direct = nil
	}
	return &directFile{f, direct}
}

// directAlign is enough for any device (open(2), O_DIRECT).
const directAlign = 4096

func (f *directFile) WriteAt(b []byte, off int64) (int, error) {
	if f.direct != nil && len(b)%directAlign == 0 && off%directAlign == 0 {
		if n, err := f.direct.WriteAt(b, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return f.File.WriteAt(b, off)
}

func (f *directFile) ReadAt(b []byte, off int64) (int, error) {
	if f.direct != nil && len(b)%directAlign == 0 && off%directAlign == 0 {
		if n, err := f.direct.ReadAt(b, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return f.File.ReadAt(b, off)
}

func (f *directFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	// Only advice: what stays in the cache reads back faster, that is all.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

func (f *directFile) Close() error {
	if f.direct == nil {
		return f.File.Close()
	}
	return errors.Join(f.File.Close(), f.direct.Close())
}
