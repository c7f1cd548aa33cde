//go:build unix

package ext4_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/builder/ext4"
)

// benchDir makes a folder like a Debian root: 17,000 entries, 500 MB, most
// files small, a few large.
func benchDir(b *testing.B) (dir string, bytes int64) {
	dir = b.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 20<<20)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	for i := range 15000 {
		d := filepath.Join(dir, fmt.Sprintf("%02d/%03d", i%40, i%2000))
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		size := 1 + r.IntN(20000)
		if i%300 == 0 {
			size = r.IntN(len(data))
			size = min(size, 14<<20)
		}
		bytes += int64(size)
		if err := os.WriteFile(filepath.Join(d, fmt.Sprintf("file-%d", i)), data[:size], 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return dir, bytes
}

func BenchmarkWrite(b *testing.B) {
	dir, size := benchDir(b)
	img := filepath.Join(b.TempDir(), "root.img")
	b.Run("ext4", func(b *testing.B) {
		b.SetBytes(size)
		t := fromHost(b, dir)
		defer cpu(b)()
		for b.Loop() {
			f, err := os.Create(img)
			if err != nil {
				b.Fatal(err)
			}
			o := options
			o.Size = 800 << 20
			if _, err := ext4.Write(context.Background(), f, t, o); err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
	b.Run("mke2fs", func(b *testing.B) {
		b.SetBytes(size)
		defer cpu(b)()
		for b.Loop() {
			os.Remove(img)
			run(b, "mke2fs", "-q", "-t", "ext4", "-d", dir, img, "800M")
		}
	})
}

// cpu reports the processor time of this process and those that it ran.
func cpu(b *testing.B) (end func()) {
	now := func() float64 {
		var sum float64
		for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
			var u unix.Rusage
			if err := unix.Getrusage(who, &u); err != nil {
				b.Fatal(err)
			}
			sum += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		}
		return sum
	}
	before := now()
	return func() { b.ReportMetric((now()-before)/float64(b.N), "cpu-s/op") }
}
