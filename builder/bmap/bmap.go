// Package bmap writes and reads block maps in format 2.0, which tell bmaptool
// and our own writer which blocks of an image must reach a card, with a
// SHA-256 for each range. What is not mapped may hold anything.
//
// The format is that of bmap-tools, described in the comment that heads its
// files. Formats before 2.0 (SHA-1), other checksum types, ranges without
// checksum and signatures are not supported.
package bmap

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/picube/picube-build/builder/tree"
)

// BlockSize is the unit of a map that is written here, in bytes.
const BlockSize = 4096

// maxRange is how many blocks share a checksum: few enough that ranges are
// worked on in parallel and that a fault is found early.
const maxRange = 64 << 20 / BlockSize

// maxFile bounds a map that is read, in bytes.
const maxFile = 64 << 20

// Map says which parts of an image matter.
type Map struct {
	ImageSize int64 // bytes
	BlockSize int64 // bytes
	Ranges    []Range
}

// Range is a run of blocks, the last included, with the SHA-256 of their
// bytes. The image's last block may be short.
type Range struct {
	First, Last int64
	Sum         [sha256.Size]byte
}

// Bytes returns where a range lies in the image.
func (m *Map) Bytes(r Range) tree.Range {
	off := r.First * m.BlockSize
	return tree.Range{Offset: off, Length: min((r.Last+1)*m.BlockSize, m.ImageSize) - off}
}

// MappedBytes returns the number of bytes that are mapped.
func (m *Map) MappedBytes() (n int64) {
	for _, r := range m.Ranges {
		n += m.Bytes(r).Length
	}
	return n
}

// New maps the used byte ranges of an image of size bytes and reads them, on
// all processors, for their checksums.
func New(ctx context.Context, r io.ReaderAt, size int64, used []tree.Range) (*Map, error) {
	m := &Map{ImageSize: size, BlockSize: BlockSize}
	used = slices.SortedFunc(slices.Values(used), func(a, b tree.Range) int { return cmp.Compare(a.Offset, b.Offset) })
	next := int64(0) // the first block that is not yet mapped
	for _, u := range used {
		if u.Offset < 0 || u.Length < 0 || u.Length > size-u.Offset {
			return nil, fmt.Errorf("cannot map %d bytes at %d of an image of %d bytes", u.Length, u.Offset, size)
		}
		first, end := max(u.Offset/BlockSize, next), (u.Offset+u.Length+BlockSize-1)/BlockSize
		if u.Length == 0 || end <= first {
			continue
		}
		if k := len(m.Ranges) - 1; k >= 0 && m.Ranges[k].Last+1 == first {
			m.Ranges[k].Last = end - 1
		} else {
			m.Ranges = append(m.Ranges, Range{First: first, Last: end - 1})
		}
		next = end
	}
	m.split()
	return m, m.each(ctx, r, func(i int, sum [sha256.Size]byte) { m.Ranges[i].Sum = sum })
}

// split cuts long ranges.
func (m *Map) split() {
	var out []Range
	for _, r := range m.Ranges {
		for ; r.Last-r.First >= maxRange; r.First += maxRange {
			out = append(out, Range{First: r.First, Last: r.First + maxRange - 1})
		}
		out = append(out, r)
	}
	m.Ranges = out
}

// Join makes one map of an image whose parts were mapped alone: a part's map
// begins at the given byte, which must be a multiple of the block size, and
// parts must ascend and not overlap. No checksum is made anew.
func Join(size int64, parts map[int64]*Map) (*Map, error) {
	m := &Map{ImageSize: size, BlockSize: BlockSize}
	var offsets []int64
	for off := range parts {
		offsets = append(offsets, off)
	}
	slices.Sort(offsets)
	end := int64(0)
	for _, off := range offsets {
		p := parts[off]
		if off < end || off%BlockSize != 0 || p.BlockSize != BlockSize || p.ImageSize > size-off {
			return nil, fmt.Errorf("cannot map a part of %d bytes at %d of an image of %d bytes", p.ImageSize, off, size)
		}
		end = off + p.ImageSize
		if p.ImageSize%BlockSize != 0 && end != size {
			return nil, fmt.Errorf("cannot map a part of %d bytes: no whole number of blocks", p.ImageSize)
		}
		for _, r := range p.Ranges {
			m.Ranges = append(m.Ranges, Range{r.First + off/BlockSize, r.Last + off/BlockSize, r.Sum})
		}
	}
	return m, nil
}

// Verify reads all mapped ranges and returns an error that lists those whose
// checksum is wrong, ascending.
func (m *Map) Verify(ctx context.Context, r io.ReaderAt) error {
	wrong := make([]bool, len(m.Ranges))
	err := m.each(ctx, r, func(i int, sum [sha256.Size]byte) { wrong[i] = sum != m.Ranges[i].Sum })
	if err != nil {
		return err
	}
	var errs []error
	for i, w := range wrong {
		if w {
			errs = append(errs, fmt.Errorf("blocks %s: wrong checksum", blocks(m.Ranges[i])))
		}
	}
	return errors.Join(errs...)
}

// each calls f once with every range's checksum, for several at a time.
func (m *Map) each(ctx context.Context, r io.ReaderAt, f func(i int, sum [sha256.Size]byte)) error {
	errs := make([]error, len(m.Ranges))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(m.Ranges)) {
		wg.Go(func() {
			buf := make([]byte, 1<<20)
			for i := range work {
				sum, err := sumOf(ctx, r, m.Bytes(m.Ranges[i]), buf)
				if err != nil {
					errs[i] = fmt.Errorf("blocks %s: %w", blocks(m.Ranges[i]), err)
					continue
				}
				f(i, sum)
			}
		})
	}
	for i := range m.Ranges {
		work <- i
	}
	close(work)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func sumOf(ctx context.Context, r io.ReaderAt, part tree.Range, buf []byte) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for part.Length > 0 {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		b := buf[:min(int64(len(buf)), part.Length)]
		if n, err := r.ReadAt(b, part.Offset); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return sum, fmt.Errorf("cannot read %d bytes at %d: %w", len(b), part.Offset, err)
		}
		h.Write(b)
		part.Offset += int64(len(b))
		part.Length -= int64(len(b))
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func blocks(r Range) string {
	if r.First == r.Last {
		return strconv.FormatInt(r.First, 10)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// noSum stands for the file's own checksum while that is made.
var noSum = strings.Repeat("0", 2*sha256.Size)

// Encode returns the map as a file.
func (m *Map) Encode() []byte {
	var mapped int64
	for _, r := range m.Ranges {
		mapped += r.Last - r.First + 1
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" ?>
<!-- Written by picube-build. Only the blocks that are mapped here need to be
     copied, for instance with bmaptool(1); the others are free space. -->
<bmap version="2.0">
    <ImageSize> %d </ImageSize>
    <BlockSize> %d </BlockSize>
    <BlocksCount> %d </BlocksCount>
    <MappedBlocksCount> %d </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> %s </BmapFileChecksum>
    <BlockMap>
`, m.ImageSize, m.BlockSize, m.blocks(), mapped, noSum)
	for _, r := range m.Ranges {
		fmt.Fprintf(&b, "        <Range chksum=\"%x\"> %s </Range>\n", r.Sum, blocks(r))
	}
	b.WriteString("    </BlockMap>\n</bmap>\n")
	sum := sha256.Sum256(b.Bytes())
	return bytes.Replace(b.Bytes(), []byte(noSum), []byte(hex.EncodeToString(sum[:])), 1)
}

// blocks returns the number of blocks in the image.
func (m *Map) blocks() int64 {
	n := m.ImageSize / m.BlockSize
	if m.ImageSize%m.BlockSize != 0 {
		n++
	}
	return n
}

// Parse reads a map, its own checksum included.
func Parse(b []byte) (*Map, error) {
	m, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("cannot use the block map: %w", err)
	}
	return m, nil
}

func parse(b []byte) (*Map, error) {
	var file struct {
		XMLName      xml.Name `xml:"bmap"`
		Version      string   `xml:"version,attr"`
		ImageSize    string
		BlockSize    string
		BlocksCount  string
		MappedBlocks string `xml:"MappedBlocksCount"`
		ChecksumType string
		FileSum      string `xml:"BmapFileChecksum"`
		Ranges       []struct {
			Sum    string `xml:"chksum,attr"`
			Blocks string `xml:",chardata"`
		} `xml:"BlockMap>Range"`
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%d bytes are more than %d", len(b), maxFile)
	}
	if err := xml.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	if v := strings.TrimSpace(file.Version); !strings.HasPrefix(v, "2.") {
		return nil, fmt.Errorf("version %q is not supported", v)
	}
	if kind := strings.TrimSpace(file.ChecksumType); kind != "sha256" {
		return nil, fmt.Errorf("checksum type %q is not supported", kind)
	}
	fileSum := strings.TrimSpace(file.FileSum)
	if want, err := parseSum(fileSum); err != nil {
		return nil, err
	} else if sha256.Sum256(bytes.Replace(b, []byte(fileSum), []byte(noSum), 1)) != want {
		return nil, errors.New("wrong checksum of the map itself")
	}
	var m Map
	var count, mapped int64
	for _, f := range []struct {
		name, value string
		to          *int64
	}{
		{"ImageSize", file.ImageSize, &m.ImageSize}, {"BlockSize", file.BlockSize, &m.BlockSize},
		{"BlocksCount", file.BlocksCount, &count}, {"MappedBlocksCount", file.MappedBlocks, &mapped},
	} {
		var err error
		if *f.to, err = parseNumber(f.value); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if m.BlockSize == 0 || m.BlockSize > 1<<30 || m.ImageSize > math.MaxInt64-1<<30 || count != m.blocks() {
		return nil, fmt.Errorf("%d blocks of %d bytes do not make %d bytes", count, m.BlockSize, m.ImageSize)
	}
	next := int64(0)
	for _, f := range file.Ranges {
		first, last, _ := strings.Cut(strings.TrimSpace(f.Blocks), "-")
		var r Range
		var err1, err2, err3 error
		r.First, err1 = parseNumber(first)
		r.Last, err2 = parseNumber(cmp.Or(last, first))
		r.Sum, err3 = parseSum(f.Sum)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("range %q: %w", f.Blocks, err)
		}
		if r.First < next || r.Last < r.First || r.Last >= count {
			return nil, fmt.Errorf("range %q: out of order or beyond the end", f.Blocks)
		}
		next = r.Last + 1
		mapped -= r.Last - r.First + 1
		m.Ranges = append(m.Ranges, r)
	}
	if mapped != 0 {
		return nil, fmt.Errorf("MappedBlocksCount: differs from the ranges by %d", mapped)
	}
	return &m, nil
}

func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number of blocks or bytes", s)
	}
	return n, nil
}

func parseSum(s string) (sum [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("%q is no SHA-256", s)
	}
	return [sha256.Size]byte(b), nil
}
