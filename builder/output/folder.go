// Package output keeps the folder that a cube's images lie in: which images
// are there and what they were made from, so that one whose inputs are the
// same is not made again, and the files beside them that other tools read
// (SHA256SUMS, manifest.json, the catalogue of Raspberry Pi Imager).
//
// Formats: sha256sum(1) of coreutils; the os_list of Raspberry Pi Imager,
// described by os-list-schema.json in its sources.
package output

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Image is a card's image as it lies in the folder.
type Image struct {
	Name   string `json:"image"`  // the file's
	Inputs string `json:"inputs"` // a digest of all that it was made from
	Size   int64  `json:"size"`   // of the file, in bytes
	SHA256 string `json:"sha256"` // of the file, in hex
	// Of the bytes on the card; the same as above if the file is not packed.
	CardSize   int64  `json:"cardSize"`
	CardSHA256 string `json:"cardSHA256"`
}

// RecordsFile holds what Folder knows. It is not the manifest because times
// differ from build to build.
const RecordsFile = ".images.json"

type record struct {
	Image
	ModTime int64 `json:"modTime"` // of the file, in nanoseconds since 1970
}

// Folder is a folder of images. Its methods may be called at the same time.
type Folder struct {
	Dir string

	mu      sync.Mutex
	records map[string]record
}

// Open reads what is known of a folder. What cannot be read is not known.
func Open(dir string) *Folder {
	f := &Folder{Dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, RecordsFile))
	if err != nil || json.Unmarshal(text, &f.records) != nil || f.records == nil {
		f.records = map[string]record{}
	}
	return f
}

// Lookup returns an image that is there and has not been touched since it was
// recorded.
func (f *Folder) Lookup(name string) (Image, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.records[name]
	if !ok {
		return Image{}, false
	}
	info, err := os.Lstat(filepath.Join(f.Dir, name))
	if err != nil || !info.Mode().IsRegular() || info.Size() != r.Size || info.ModTime().UnixNano() != r.ModTime {
		return Image{}, false
	}
	return r.Image, true
}

// Images returns all images that are there and untouched, by name.
func (f *Folder) Images() []Image {
	f.mu.Lock()
	names := slices.Sorted(maps.Keys(f.records))
	f.mu.Unlock()
	var all []Image
	for _, name := range names {
		if img, ok := f.Lookup(name); ok {
			all = append(all, img)
		}
	}
	return all
}

// Record notes an image that has just got its name.
func (f *Folder) Record(img Image) error {
	info, err := os.Lstat(filepath.Join(f.Dir, img.Name))
	if err != nil {
		return err
	}
	if info.Size() != img.Size {
		return fmt.Errorf("%s: cannot have %d bytes, %d were written", filepath.Join(f.Dir, img.Name), info.Size(), img.Size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records[img.Name] = record{img, info.ModTime().UnixNano()}
	return f.save()
}

// Remove deletes an image and all that is known of it.
func (f *Folder) Remove(name string) error {
	if err := os.Remove(filepath.Join(f.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.records[name]; !ok {
		return nil
	}
	delete(f.records, name)
	return f.save()
}

func (f *Folder) save() error {
	text, err := marshal(f.records)
	if err != nil {
		return err
	}
	return Replace(filepath.Join(f.Dir, RecordsFile), text)
}

// Replace gives a file new content, 0600, all or nothing; it leaves one alone
// that holds it already.
func Replace(name string, data []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return Create(name, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Create makes a file, 0600, which gets its name only when all of it is on the
// disk. write gets it empty, open for reading and writing.
func Create(name string, write func(*os.File) error) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return fmt.Errorf("%s: cannot make a file beside it: %w", name, err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	err = write(tmp)
	if err == nil {
		err = Sync(tmp, name)
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

// Sync brings the file that will have a name to the disk.
func Sync(f *os.File, name string) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%s: cannot bring it to the disk: %w", name, err)
	}
	return nil
}

// SumsFile is the name of what Sums returns.
const SumsFile = "SHA256SUMS"

// Sums returns the images' digests as sha256sum -c reads them.
func Sums(images []Image) []byte {
	var b strings.Builder
	for _, i := range images {
		fmt.Fprintf(&b, "%s  %s\n", i.SHA256, i.Name)
	}
	return []byte(b.String())
}

// marshal is JSON for people.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

// Digest is a value's JSON as a digest, in hex.
func Digest(v any) (string, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
