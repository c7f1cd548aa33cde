package bmap_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/tree"
)

// image makes bytes of which only the ranges are not zero.
func image(size int64, ranges []tree.Range) []byte {
	b := make([]byte, size)
	for _, u := range ranges {
		for i := u.Offset; i < u.Offset+u.Length; i++ {
			b[i] = byte(uint32(i)*2654435761>>24) | 1
		}
	}
	return b
}

const golden = `<?xml version="1.0" ?>
<!-- Written by picube-build. Only the blocks that are mapped here need to be
     copied, for instance with bmaptool(1); the others are free space. -->
<bmap version="2.0">
    <ImageSize> 20000 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlocksCount> 5 </BlocksCount>
    <MappedBlocksCount> 3 </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> FILESUM </BmapFileChecksum>
    <BlockMap>
        <Range chksum="SUM0"> 0-1 </Range>
        <Range chksum="SUM1"> 4 </Range>
    </BlockMap>
</bmap>
`

func TestGolden(t *testing.T) {
	used := []tree.Range{{Offset: 19000, Length: 1000}, {Offset: 10, Length: 1}, {Offset: 4096, Length: 4096}, {Offset: 9000}}
	img := image(20000, used)
	m, err := bmap.New(context.Background(), bytes.NewReader(img), 20000, used)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(
		"SUM0", fmt.Sprintf("%x", sha256.Sum256(img[:8192])),
		"SUM1", fmt.Sprintf("%x", sha256.Sum256(img[16384:])),
	).Replace(golden)
	sum := sha256.Sum256([]byte(strings.Replace(want, "FILESUM", strings.Repeat("0", 64), 1)))
	want = strings.Replace(want, "FILESUM", fmt.Sprintf("%x", sum), 1)
	if got := string(m.Encode()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.MappedBytes() != 8192+20000-16384 {
		t.Errorf("%d bytes are mapped", m.MappedBytes())
	}
}

// What bmaptool copies by our map has the right bytes where they matter.
func TestBmaptoolCopies(t *testing.T) {
	dir := t.TempDir()
	used := []tree.Range{{Offset: 0, Length: 512}, {Offset: 8 << 20, Length: 70 << 20}, {Offset: 90<<20 + 5, Length: 12345}}
	const size = 91<<20 + 777
	img := image(size, used)
	m, err := bmap.New(context.Background(), bytes.NewReader(img), size, used)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a.img": img, "a.img.bmap": m.Encode()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("bmaptool", "copy", "a.img", "card")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "card"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, img) {
		t.Error("bmaptool copied something else")
	}
}

func TestVerify(t *testing.T) {
	used := []tree.Range{{Offset: 0, Length: 8192}, {Offset: 100 << 12, Length: 20000 << 12}}
	const size = 130 << 20
	img := image(size, used)
	m, err := bmap.New(context.Background(), bytes.NewReader(img), size, used)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = bmap.Parse(m.Encode()); err != nil {
		t.Fatal(err)
	}
	img[50<<12]++ // is not mapped
	if err := m.Verify(context.Background(), bytes.NewReader(img)); err != nil {
		t.Error(err)
	}
	img[1]++
	img[17000<<12]++
	err = m.Verify(context.Background(), bytes.NewReader(img))
	want := "blocks 0-1: wrong checksum\nblocks 16484-20099: wrong checksum"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	err = m.Verify(context.Background(), bytes.NewReader(img[:4096]))
	if err == nil || !strings.Contains(err.Error(), "blocks 100-16483: cannot read") {
		t.Errorf("truncated: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Verify(ctx, bytes.NewReader(img)); err != context.Canceled {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestJoin(t *testing.T) {
	used := []tree.Range{{Offset: 4096, Length: 4096}}
	part := image(16384, used)
	m, err := bmap.New(context.Background(), bytes.NewReader(part), 16384, used)
	if err != nil {
		t.Fatal(err)
	}
	whole := append(append(make([]byte, 8192), part...), part...)
	got, err := bmap.Join(int64(len(whole)), map[int64]*bmap.Map{8192: m, 8192 + 16384: m})
	if err != nil {
		t.Fatal(err)
	}
	want, err := bmap.New(context.Background(), bytes.NewReader(whole), int64(len(whole)),
		[]tree.Range{{Offset: 12288, Length: 4096}, {Offset: 28672, Length: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for name, off := range map[string]int64{"unaligned": 8000, "too long": 36864} {
		if _, err := bmap.Join(int64(len(whole)), map[int64]*bmap.Map{off: m}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := bmap.Join(int64(len(whole)), map[int64]*bmap.Map{8192: m, 12288: m}); err == nil {
		t.Error("overlapping: no error")
	}
}

// Changes to a good map and the error that each must cause.
var faulty = []struct{ name, old, new, want string }{
	{"checksum", "<ImageSize> 20000", "<ImageSize> 20001", "wrong checksum of the map itself"},
	{"version", `version="2.0"`, `version="1.4"`, `version "1.4" is not supported`},
	{"type", "> sha256 <", "> sha512 <", `checksum type "sha512" is not supported`},
	{"xml", "</bmap>", "", "unexpected EOF"},
}

func TestParseRefuses(t *testing.T) {
	m := &bmap.Map{ImageSize: 20000, BlockSize: 4096, Ranges: []bmap.Range{{First: 0, Last: 4}}}
	good := string(m.Encode())
	for _, test := range faulty {
		_, err := bmap.Parse([]byte(strings.Replace(good, test.old, test.new, 1)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
	for name, m := range map[string]bmap.Map{
		"order":  {ImageSize: 20000, BlockSize: 4096, Ranges: []bmap.Range{{First: 2, Last: 3}, {First: 1, Last: 1}}},
		"end":    {ImageSize: 20000, BlockSize: 4096, Ranges: []bmap.Range{{First: 2, Last: 5}}},
		"turned": {ImageSize: 20000, BlockSize: 4096, Ranges: []bmap.Range{{First: 3, Last: 1}}},
	} {
		if _, err := bmap.Parse(m.Encode()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	m := &bmap.Map{ImageSize: 20000, BlockSize: 4096, Ranges: []bmap.Range{{First: 0, Last: 1}, {First: 4, Last: 4}}}
	f.Add(m.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := bmap.Parse(b)
		if err != nil {
			return
		}
		again, err := bmap.Parse(m.Encode())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%v is not read back: %v, %v", m, again, err)
		}
	})
}
