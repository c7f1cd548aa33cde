package compress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/xz"
)

// maxDict bounds the memory that a packed image may ask for; xz -9 and
// zstd --ultra --long=26 need 64 MiB.
const maxDict = 64 << 20

// magics begin the packed files that NewReader reads.
func magics() map[string]string {
	return map[string]string{"xz": string(xz.Header()[:6]), "gz": "\x1f\x8b", "zst": "\x28\xb5\x2f\xfd", "bz2": "BZh"}
}

// kind returns the key in magics of what begins with head, or "".
func kind(head []byte) string {
	for name, magic := range magics() {
		if bytes.HasPrefix(head, []byte(magic)) {
			return name
		}
	}
	return ""
}

// IsPacked reports whether an image, by its first bytes, is .xz, .gz, .zst or
// .bz2.
func IsPacked(head []byte) bool { return kind(head) != "" }

// NewReader unpacks r if its first bytes say that it is packed, and else
// returns what r reads.
func NewReader(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<20)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch kind(head) {
	case "xz":
		return io.NopCloser(xz.NewReader(b, maxDict)), nil
	case "gz":
		return gzip.NewReader(b)
	case "zst":
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxDict), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case "bz2":
		return io.NopCloser(bzip2.NewReader(b)), nil
	}
	return io.NopCloser(b), nil
}
