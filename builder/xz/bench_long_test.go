//go:build long && unix

package xz

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	ulikunitz "github.com/ulikunitz/xz"

	"github.com/picube/picube-build/builder/debtest"
)

// BenchmarkDeb decodes containerd's programs; user-s/op is what counts on a
// busy machine.
func BenchmarkDeb(b *testing.B) {
	packed, err := exec.Command("ar", "p", debtest.Deb(b, debtest.Main("arm64"), "containerd"), "data.tar.xz").Output()
	if err != nil {
		b.Fatal(err)
	}
	compareTime(b, [][]byte{packed})
}

// BenchmarkModules decodes the modules of a kernel that are for networks.
func BenchmarkModules(b *testing.B) {
	dir := b.TempDir()
	deb := debtest.Deb(b, debtest.Main("arm64"), debtest.Kernel(b, "arm64"))
	if out, err := exec.Command("dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	names, err := filepath.Glob(dir + "/usr/lib/modules/*/kernel/net/*/*.ko.xz")
	if err != nil || len(names) == 0 {
		b.Fatalf("no modules: %v", err)
	}
	var files [][]byte
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		files = append(files, data)
	}
	compareTime(b, files)
}

func compareTime(b *testing.B, files [][]byte) {
	z := NewReader(nil, MaxDict)
	var d Decoder
	for _, way := range []struct {
		name   string
		decode func([]byte) (int64, error)
	}{
		{"Reader", func(in []byte) (int64, error) {
			z.Reset(bytes.NewReader(in))
			return io.Copy(io.Discard, z)
		}},
		{"Decoder", func(in []byte) (int64, error) {
			out, err := d.Decode(in, 1<<30)
			return int64(len(out)), err
		}},
		{"ulikunitz", func(in []byte) (int64, error) {
			r, err := ulikunitz.NewReader(bytes.NewReader(in))
			if err != nil {
				return 0, err
			}
			return io.Copy(io.Discard, r)
		}},
		{"xz", func(in []byte) (int64, error) {
			cmd := exec.Command("xz", "-T1", "-dc")
			cmd.Stdin = bytes.NewReader(in)
			out, err := cmd.Output()
			return int64(len(out)), err
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			before := user(b)
			var n int64
			for b.Loop() {
				n = 0
				for _, in := range files {
					m, err := way.decode(in)
					if err != nil {
						b.Fatal(err)
					}
					n += m
				}
			}
			b.SetBytes(n)
			b.ReportMetric((user(b)-before)/float64(b.N), "user-s/op")
		})
	}
}

// user is the time that this process and those that it ran have computed.
func user(b *testing.B) float64 {
	var sum float64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += float64(u.Utime.Sec) + float64(u.Utime.Usec)/1e6
	}
	return sum
}
