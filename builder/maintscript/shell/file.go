package shell

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// OpenFlag says how a file is opened.
type OpenFlag int

// Flags of OpenFile; at least one of OpenRead and OpenWrite.
const (
	OpenRead OpenFlag = 1 << iota
	OpenWrite
	OpenCreate
	OpenTruncate
	OpenAppend
	OpenExclusive
)

var (
	errBadFile  = errors.New("Bad file descriptor")
	errNoDevice = errors.New("No such device or address")
	errNoSpace  = errors.New("No space left on device")
)

// files are a process's open descriptors.
type files map[int]*File

func (f files) clone() files {
	c := make(files, len(f))
	for n, file := range f {
		c[n] = file.hold()
	}
	return c
}

func (f files) close() {
	for n, file := range f {
		file.Close()
		delete(f, n)
	}
}

// set puts file under descriptor n and closes what was there.
func (f files) set(n int, file *File) {
	if old := f[n]; old != nil {
		old.Close()
	}
	f[n] = file
}

// File is an open file: a regular file of the tree, a device, one end of a
// pipe, or a stream of the caller's. Several descriptors may share it.
type File struct {
	refs  int
	run   *run
	flags OpenFlag

	node   *tree.Inode // a file of the tree
	seen   tree.Content
	buf    []byte // node's content as of seen, to be appended to
	offset int64

	pipe   *pipe
	reader io.Reader
	writer io.Writer
}

func (f *File) hold() *File {
	f.refs++
	return f
}

// Close gives up one reference.
func (f *File) Close() error {
	if f.refs--; f.refs == 0 && f.pipe != nil {
		f.pipe.closeEnd(f.flags&OpenWrite != 0)
	}
	return nil
}

func (f *File) Read(b []byte) (int, error) {
	switch {
	case f.flags&OpenRead == 0:
		return 0, errBadFile
	case f.pipe != nil:
		return f.pipe.read(b)
	case f.reader != nil:
		return f.reader.Read(b)
	case f.node != nil && f.node.IsDir():
		return 0, tree.ErrIsDir
	case f.node == nil || f.node.Content == nil:
		return 0, io.EOF
	}
	n, err := f.node.Content.ReadAt(b, f.offset)
	f.offset += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *File) Write(b []byte) (int, error) {
	if f.flags&OpenWrite == 0 {
		return 0, errBadFile
	}
	f.run.wrote(len(b))
	switch {
	case f.pipe != nil:
		return f.pipe.write(b)
	case f.writer != nil:
		return f.writer.Write(b)
	case f.node == nil:
		return len(b), nil
	}
	if err := f.load(); err != nil {
		return 0, err
	}
	if f.flags&OpenAppend != 0 {
		f.offset = int64(len(f.buf))
	}
	if f.offset < int64(len(f.buf)) {
		// Contents handed to the tree never change, so overwriting copies.
		f.buf = bytes.Clone(f.buf)
		n := copy(f.buf[f.offset:], b)
		f.buf = append(f.buf, b[n:]...)
	} else {
		f.buf = append(f.buf, make([]byte, f.offset-int64(len(f.buf)))...)
		f.buf = append(f.buf, b...)
	}
	f.offset += int64(len(b))
	f.seen = tree.Bytes(f.buf[:len(f.buf):len(f.buf)])
	f.run.shell.cfg.Tree.SetContent(f.node, f.seen)
	return len(b), nil
}

// load brings buf up to date with what others wrote to the same file.
func (f *File) load() error {
	if f.node.Content == f.seen {
		return nil
	}
	f.buf = nil
	if f.node.Content == nil {
		f.seen = nil
		return nil
	}
	b, err := ReadAll(io.NewSectionReader(f.node.Content, 0, f.node.Content.Size()))
	if err != nil {
		return err
	}
	f.buf, f.seen = b, f.node.Content
	return nil
}

// Inode returns the tree's file behind f, nil for anything else.
func (f *File) Inode() *tree.Inode { return f.node }

// Size of a write that other writers do not get between, and of what a pipe
// holds: pipe(7).
const pipeSize = 64 << 10

// pipe is an anonymous pipe between two processes.
type pipe struct {
	run              *run
	data             []byte
	readers, writers int
	waiting          []*task
}

// newPipe returns the reading and the writing end.
func (r *run) newPipe() (*File, *File) {
	p := &pipe{run: r, readers: 1, writers: 1}
	return &File{refs: 1, run: r, flags: OpenRead, pipe: p}, &File{refs: 1, run: r, flags: OpenWrite, pipe: p}
}

func (p *pipe) closeEnd(write bool) {
	if write {
		p.writers--
	} else {
		p.readers--
	}
	p.run.wake(&p.waiting)
}

func (p *pipe) read(b []byte) (int, error) {
	for len(p.data) == 0 {
		if p.writers == 0 {
			return 0, io.EOF
		}
		p.run.block(&p.waiting)
	}
	n := copy(b, p.data)
	p.data = p.data[n:]
	p.run.wake(&p.waiting)
	return n, nil
}

func (p *pipe) write(b []byte) (int, error) {
	done := 0
	for {
		if p.readers == 0 {
			panic(killed{sigPipe})
		}
		n := min(len(b)-done, pipeSize-len(p.data))
		p.data = append(p.data, b[done:done+n]...)
		done += n
		p.run.wake(&p.waiting)
		if done == len(b) {
			return done, nil
		}
		p.run.block(&p.waiting)
	}
}

// stat is Stat or Lstat on the tree, with the devices that every system has.
func stat(t *tree.Tree, p string, follow bool) (*tree.Inode, error) {
	if p == "" {
		return nil, &fs.PathError{Op: "stat", Path: p, Err: fs.ErrNotExist}
	}
	look := t.Lstat
	if follow {
		look = t.Stat
	}
	n, err := look(p)
	if err == nil || !strings.HasPrefix(p, "/dev/") {
		return n, err
	}
	if minor, ok := devices[path.Clean(p)]; ok {
		return &tree.Inode{Mode: tree.TypeChar | 0o666, Major: 1, Minor: minor}, nil
	}
	return n, err
}

// devices are the character devices, by minor number of the major 1
// (Documentation/admin-guide/devices.txt), that exist in every tree.
var devices = map[string]uint32{
	"/dev/null": 3, "/dev/zero": 5, "/dev/full": 7, "/dev/random": 8, "/dev/urandom": 9,
}

// open opens p, an absolute path, for process q.
func (r *run) open(q *Process, p string, flags OpenFlag, perm uint32) (*File, error) {
	if f, err := r.openDevice(q, p, flags); f != nil || err != nil {
		return f, err
	}
	if p == "" {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	t := r.shell.cfg.Tree
	n, err := t.Stat(p)
	switch {
	case err == nil && flags&OpenExclusive != 0:
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrExist}
	case errors.Is(err, fs.ErrNotExist) && flags&OpenCreate != 0:
		if strings.HasSuffix(p, "/") {
			return nil, &fs.PathError{Op: "open", Path: p, Err: tree.ErrIsDir}
		}
		if err = t.WriteFile(p, nil, perm); err == nil {
			n, err = t.Stat(p)
		}
	case err == nil && n.IsDir() && flags&OpenWrite != 0:
		err = &fs.PathError{Op: "open", Path: p, Err: tree.ErrIsDir}
	case err == nil && n.IsRegular() && flags&OpenTruncate != 0:
		t.SetContent(n, nil)
	}
	if err != nil {
		return nil, err
	}
	f := &File{refs: 1, run: r, flags: flags}
	switch n.Type() {
	case tree.TypeRegular, tree.TypeDir:
		f.node = n
		return f, nil
	case tree.TypeChar:
		if f := r.device(n.Major, n.Minor, flags); f != nil {
			return f, nil
		}
		return nil, &fs.PathError{Op: "open", Path: p, Err: errNoDevice}
	case tree.TypeFifo:
		r.stop(&UnsupportedError{"the named pipe " + p})
	}
	return nil, &fs.PathError{Op: "open", Path: p, Err: errNoDevice}
}

// openDevice opens what /dev holds although the tree need not: devices, and
// a process's own descriptors. It returns nil, nil for anything else.
func (r *run) openDevice(q *Process, p string, flags OpenFlag) (*File, error) {
	if !strings.HasPrefix(p, "/dev/") && !strings.HasPrefix(p, "/proc/self/fd/") {
		return nil, nil
	}
	p = path.Clean(p)
	number, isFD := strings.CutPrefix(p, "/dev/fd/")
	if !isFD {
		number, isFD = strings.CutPrefix(p, "/proc/self/fd/")
	}
	switch p {
	case "/dev/stdin":
		number, isFD = "0", true
	case "/dev/stdout":
		number, isFD = "1", true
	case "/dev/stderr":
		number, isFD = "2", true
	case "/dev/tty", "/dev/console":
		return nil, &fs.PathError{Op: "open", Path: p, Err: errNoDevice}
	}
	if isFD {
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
		return q.descriptor(n, flags)
	}
	if minor, ok := devices[p]; ok {
		return r.device(1, minor, flags), nil
	}
	return nil, nil
}

// descriptor returns another reference to an open descriptor.
func (p *Process) descriptor(n int, flags OpenFlag) (*File, error) {
	var stream any = p.files[n]
	switch {
	case n == 0:
		stream = p.Stdin
	case n == 1:
		stream = p.Stdout
	case n == 2:
		stream = p.Stderr
	}
	switch s := stream.(type) {
	case *File:
		if s != nil {
			return s.hold(), nil
		}
	case io.Writer:
		return &File{refs: 1, run: p.run, flags: OpenWrite, writer: s}, nil
	case io.Reader:
		return &File{refs: 1, run: p.run, flags: OpenRead, reader: s}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: "/dev/fd/" + strconv.Itoa(n), Err: fs.ErrNotExist}
}

func (r *run) device(major, minor uint32, flags OpenFlag) *File {
	f := &File{refs: 1, run: r, flags: flags}
	if major != 1 {
		return nil
	}
	switch minor {
	case 3:
		f.reader, f.writer = bytes.NewReader(nil), io.Discard
	case 5:
		f.reader, f.writer = zeros{}, io.Discard
	case 7:
		f.reader, f.writer = zeros{}, full{}
	case 8, 9:
		if r.shell.cfg.Random == nil {
			return nil
		}
		f.reader, f.writer = r.shell.cfg.Random, io.Discard
	default:
		return nil
	}
	return f
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errNoSpace }

// Discards reports whether what is written goes nowhere, as to /dev/null.
func (f *File) Discards() bool { return f.writer == io.Discard }
