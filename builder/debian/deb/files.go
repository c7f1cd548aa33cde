package deb

import (
	"container/list"
	"os"
	"sync"
)

// files keeps the packs that were read last open, a bounded number of them:
// a card has more packages than some systems allow open files.
type files struct {
	max int

	mu   sync.Mutex
	byID map[string]*list.Element // of *openFile
	lru  list.List                // most recently used first
}

type openFile struct {
	path  string
	file  *os.File
	users int
	stale bool // close it as soon as nobody uses it
}

// use calls f with the open file at path.
func (s *files) use(path string, f func(*os.File) error) error {
	s.mu.Lock()
	e := s.byID[path]
	if e == nil {
		file, err := os.Open(path)
		if err != nil {
			s.mu.Unlock()
			return err
		}
		e = s.lru.PushFront(&openFile{path: path, file: file})
		s.byID[path] = e
	}
	s.lru.MoveToFront(e)
	o := e.Value.(*openFile)
	o.users++
	for last := s.lru.Back(); last != nil && s.lru.Len() > s.max; {
		up := last.Prev()
		if last.Value.(*openFile).users == 0 {
			s.drop(last)
		}
		last = up
	}
	s.mu.Unlock()

	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if o.users--; o.users == 0 && o.stale {
			o.file.Close()
		}
	}()
	return f(o.file)
}

// drop takes a file out of the list; s.mu is held.
func (s *files) drop(e *list.Element) {
	o := s.lru.Remove(e).(*openFile)
	delete(s.byID, o.path)
	if o.stale = true; o.users == 0 {
		o.file.Close()
	}
}

// forget closes the file at path, so that the next use opens what lies there
// then.
func (s *files) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[path]; e != nil {
		s.drop(e)
	}
}

func (s *files) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lru.Len() > 0 {
		s.drop(s.lru.Back())
	}
}
