package xz

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	ulikunitz "github.com/ulikunitz/xz"
)

// texts are data of several natures.
func texts() map[string][]byte {
	noise := make([]byte, 100<<10)
	seed := uint32(1)
	for i := range noise {
		seed = seed*1664525 + 1013904223
		noise[i] = byte(seed >> 24)
	}
	var words bytes.Buffer
	for i, c := range noise {
		words.WriteString([]string{"alpha", "beta ", "gamma\n", "delta", "\x00\x00\x00"}[int(c)%5])
		words.WriteByte(noise[i/7])
	}
	return map[string][]byte{
		"empty":  {},
		"one":    []byte("x"),
		"zeroes": make([]byte, 3<<20),
		"short":  bytes.Repeat([]byte("abc"), 100_000),
		"noise":  noise,
		"words":  words.Bytes(),
		"mixed":  bytes.Join([][]byte{noise, words.Bytes(), noise, make([]byte, 3<<20), words.Bytes()}, nil),
	}
}

// tool runs xz(1).
func tool(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("xz", args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz %q: %v\n%s", args, err, &stderr)
	}
	return out
}

func stream(in []byte) ([]byte, error) { return io.ReadAll(NewReader(bytes.NewReader(in), MaxDict)) }

func check(t *testing.T, in, want []byte) {
	t.Helper()
	var d Decoder
	for range 2 { // a decoder can be used again
		got, err := d.Decode(in, len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("Decode: %d bytes instead of %d, error %v", len(got), len(want), err)
		}
	}
	got, err := io.ReadAll(NewReader(iotest.HalfReader(bytes.NewReader(in)), MaxDict))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Read: %d bytes instead of %d, error %v", len(got), len(want), err)
	}
	var b bytes.Buffer
	n, err := NewReader(bytes.NewReader(in), MaxDict).WriteTo(&b)
	if err != nil || !bytes.Equal(b.Bytes(), want) || n != int64(len(want)) {
		t.Fatalf("WriteTo: %d bytes instead of %d, error %v", n, len(want), err)
	}
}

func TestTool(t *testing.T) {
	for name, want := range texts() {
		for _, args := range [][]string{
			{"-0"},
			{"-6", "--check=none"},
			{"-9", "--check=sha256"},
			{"--check=crc32", "--lzma2=dict=1MiB"}, // the kernel's modules
			{"--lzma2=preset=1,dict=4KiB,lc=0,lp=4,pb=0"},
			{"--lzma2=preset=1,dict=64KiB,lc=4,lp=0,pb=4"},
			{"--lzma2=preset=1,lc=0,lp=0,mode=fast,mf=hc3,nice=4"},
			{"-T2", "-1", "--block-size=100000"}, // sizes in the blocks' headers
		} {
			t.Run(name+" "+strings.Join(args, " "), func(t *testing.T) {
				check(t, tool(t, want, append(args, "-c")...), want)
			})
		}
	}
}

func TestUlikunitz(t *testing.T) {
	for name, want := range texts() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w, err := ulikunitz.WriterConfig{DictCap: 1 << 16}.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(want); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			check(t, b.Bytes(), want)
		})
	}
}

func TestStreams(t *testing.T) {
	a, b := tool(t, []byte("hello "), "-c"), tool(t, []byte("world"), "-c", "--check=sha256")
	pad := make([]byte, 8)
	check(t, bytes.Join([][]byte{a, b}, nil), []byte("hello world"))
	check(t, bytes.Join([][]byte{a, pad, b, pad}, nil), []byte("hello world"))
}

// TestWindow uses a dictionary that is much smaller than the data again and
// again, with a reader that is used again.
func TestWindow(t *testing.T) {
	mixed := texts()["mixed"]
	z := NewReader(nil, 1<<20)
	for _, dict := range []string{"4KiB", "1MiB", "100KiB"} {
		z.Reset(bytes.NewReader(tool(t, mixed, "-c", "--lzma2=preset=0,dict="+dict)))
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, mixed) {
			t.Fatalf("%s: %v", dict, err)
		}
		if most := 3<<19 + maxChunk; len(z.b) > most {
			t.Errorf("%s: window of %d bytes, more than %d", dict, len(z.b), most)
		}
	}
}

func TestErrors(t *testing.T) {
	text := []byte(strings.Repeat("hello, world\n", 1000))
	good := tool(t, text, "-c", "--block-size=4096")
	damaged := func(at int) []byte {
		b := bytes.Clone(good)
		b[(at+len(b))%len(b)] ^= 1
		return b
	}
	for name, test := range map[string]struct {
		in         []byte
		want, read string // of Decode, of Read if that differs
	}{
		"empty":      {nil, errMagic.Error(), "unexpected EOF"},
		"text":       {text, errMagic.Error(), ""},
		"cut":        {good[:len(good)-12], errHeader.Error(), "unexpected EOF"},
		"padding":    {append(bytes.Clone(good), 0, 0), errHeader.Error(), "unexpected EOF"},
		"magic":      {damaged(0), errMagic.Error(), ""},
		"flags":      {damaged(7), errHeader.Error(), ""},
		"block":      {damaged(13), errHeader.Error(), ""},
		"footer":     {damaged(-1), errHeader.Error(), ""},
		"index":      {damaged(-20), errHeader.Error(), errIndex.Error()},
		"x86":        {tool(t, text, "-c", "--x86", "--lzma2"), "cannot decode xz: filter BCJ x86 is not supported", ""},
		"delta":      {tool(t, text, "-c", "--delta", "--lzma2"), "cannot decode xz: filter delta is not supported", ""},
		"dictionary": {tool(t, text, "-c", "--lzma2=dict=128MiB"), "", "cannot decode xz: a dictionary of 134217728 bytes is needed, more than 67108864"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.read == "" {
				test.read = test.want
			}
			if _, err := new(Decoder).Decode(test.in, 1<<20); (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
				t.Errorf("Decode: %v, want %s", err, test.want)
			}
			if _, err := stream(test.in); err == nil || err.Error() != test.read {
				t.Errorf("Read: %v, want %s", err, test.read)
			}
		})
	}
	want := "cannot decode xz: 13000 bytes are more than 12999"
	if _, err := new(Decoder).Decode(good, len(text)-1); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestDamage changes each byte and cuts at each: there is an error or, where
// the byte does not count, the right data.
func TestDamage(t *testing.T) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 3) + "Sphinx of black quartz, judge my vow.")
	good := tool(t, text, "-c")
	var d Decoder
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if got, err := d.Decode(bad, 1<<20); err == nil && !bytes.Equal(got, text) {
				t.Errorf("byte %d: no error", i)
			}
			if got, err := stream(bad); err == nil && !bytes.Equal(got, text) {
				t.Errorf("byte %d: no error", i)
			}
		}
		if _, err := d.Decode(good[:i], 1<<20); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
		if _, err := stream(good[:i]); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
}

// TestToolAgrees has xz(1) judge damaged chunks too: it takes the same ones.
func TestToolAgrees(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, text := range texts() {
		chunks := tool(t, text[:min(len(text), 5000)], "-c", "--format=raw", "--lzma2=dict=4KiB")
		for range 40 {
			bad := bytes.Clone(chunks)
			bad[random.IntN(len(bad))] = byte(random.Uint32())
			if random.IntN(2) == 0 {
				bad[random.IntN(min(8, len(bad)))] ^= 1 << random.IntN(8)
			}
			in := file(bad, uint32(len(text[:min(len(text), 5000)])))
			got, err := stream(in)
			cmd := exec.Command("xz", "-dc")
			cmd.Stdin = bytes.NewReader(in)
			want, wantErr := cmd.Output()
			if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%x: %v, xz: %v", in, err, wantErr)
			}
		}
	}
}
