//go:build long && unix

package deb_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/debian/deb"
)

// BenchmarkDecode decodes a package made of this machine's programs, in
// blocks and in one piece; cpu-s/op is what counts on a busy machine.
func BenchmarkDecode(b *testing.B) {
	go1, err := exec.LookPath("go")
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(go1)
	if err != nil {
		b.Fatal(err)
	}
	tarball := filepath.Join(b.TempDir(), "data.tar")
	data := archivetest.Tar(b, []archivetest.Member{archivetest.File("/usr/bin/go", 0o755, string(program))})
	if err := os.WriteFile(tarball, data, 0o644); err != nil {
		b.Fatal(err)
	}
	for name, blocks := range map[string]string{"one": "--block-size=0", "blocks": "--block-size=4MiB"} {
		b.Run(name, func(b *testing.B) {
			compressed, err := exec.Command("xz", "-T1", blocks, "-c", tarball).Output()
			if err != nil {
				b.Fatal(err)
			}
			control := archivetest.Tar(b, []archivetest.Member{archivetest.File("/control", 0o644, "Package: go\n")})
			f := file(b, archivetest.Ar(
				archivetest.Part{Name: "debian-binary", Data: []byte("2.0\n")},
				archivetest.Part{Name: "control.tar", Data: control},
				archivetest.Part{Name: "data.tar.xz", Data: compressed}))
			b.SetBytes(int64(len(data)))
			before := cpu(b)
			for b.Loop() {
				s := deb.NewStore(b.TempDir(), clock)
				if _, err := s.Open(context.Background(), f); err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
			b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-s/op")
		})
	}
}

func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
