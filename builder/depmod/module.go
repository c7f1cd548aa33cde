package depmod

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/builder/xz"
)

// maxModule bounds a module when unpacked.
const maxModule = 64 << 20

// extensions that a module's file can have, as kmod knows them.
var extensions = []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

// Name returns a module's name as the kernel has it, from its path; empty if
// the path is not that of a module.
func Name(path string) string {
	base := path[strings.LastIndexByte(path, '/')+1:]
	for _, ext := range extensions {
		if name, ok := strings.CutSuffix(base, ext); ok {
			return Normalize(name)
		}
	}
	return ""
}

// Normalize returns a module's name with underscores for dashes, which the
// kernel does not tell apart.
func Normalize(name string) string { return strings.ReplaceAll(name, "-", "_") }

// ReadModule returns a module's ELF file, unpacked.
func ReadModule(path string, c tree.Content) ([]byte, error) {
	b, err := readModule(path, c)
	if err != nil {
		return nil, fmt.Errorf("module %s: cannot read it: %w", path, err)
	}
	return b, nil
}

func readModule(path string, c tree.Content) ([]byte, error) {
	if c == nil {
		return nil, io.ErrUnexpectedEOF
	}
	packed := make([]byte, min(c.Size(), maxModule+1))
	if _, err := io.ReadFull(io.NewSectionReader(c, 0, c.Size()), packed); err != nil {
		return nil, err
	}
	if strings.HasSuffix(path, ".xz") {
		return new(xz.Decoder).Decode(packed, maxModule)
	}
	var r io.Reader
	var err error
	switch {
	case strings.HasSuffix(path, ".gz"):
		r, err = gzip.NewReader(bytes.NewReader(packed))
	case strings.HasSuffix(path, ".zst"):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		r = bytes.NewReader(packed)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(b) > maxModule {
		err = fmt.Errorf("it is larger than %d bytes", maxModule)
	}
	return b, err
}
