//go:build long

package depmod

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/debtest"
	"github.com/picube/picube-build/builder/tree"
)

// TestKmod34 compares every index of Debian's own kernel with what the kmod
// of the same release makes of it, run on the host.
func TestKmod34(t *testing.T) {
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimSpace(string(arch))
	kmod := t.TempDir()
	for _, name := range []string{"kmod", "libkmod2", "libc6", "libssl3t64", "libzstd1", "liblzma5", "zlib1g"} {
		if out, err := exec.Command("dpkg-deb", "-x", debtest.Deb(t, debtest.Main(host), name), kmod).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	loader, err := filepath.Glob(kmod + "/usr/lib/*/ld-linux*.so.*")
	if err != nil || len(loader) != 1 {
		t.Fatalf("loader: %v %v", loader, err)
	}

	for _, arch := range []string{"arm64", "armhf"} {
		t.Run(arch, func(t *testing.T) {
			name := "linux-image-arm64"
			if arch == "armhf" {
				name = "linux-image-armmp"
			}
			name, _, _ = strings.Cut(debtest.Field(t, debtest.Main(arch), name, "Depends"), " ")
			kernel := strings.TrimPrefix(name, "linux-image-")
			dir := path.Join("/usr/lib/modules", kernel)
			in := tree.New(0)
			debtest.Unpack(t, in, debtest.Deb(t, debtest.Main(arch), name))
			folder := t.TempDir()
			for p, n := range in.Below(dir) {
				file := filepath.Join(folder, p)
				if n.IsDir() {
					if err := os.MkdirAll(file, 0o755); err != nil {
						t.Fatal(err)
					}
					continue
				}
				data, err := in.ReadFile(p)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink("usr/lib", filepath.Join(folder, "lib")); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			cmd := exec.Command(loader[0], "--library-path", filepath.Dir(loader[0]), "--argv0", "depmod", kmod+"/usr/bin/kmod", "-b", folder, kernel)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("depmod: %v\n%s", err, out)
			}
			t.Logf("kmod: %v", time.Since(begin))
			begin = time.Now()
			if err := Run(t.Context(), in, kernel); err != nil {
				t.Fatal(err)
			}
			t.Logf("ours: %v", time.Since(begin))
			files, err := filepath.Glob(filepath.Join(folder, dir, "modules.*"))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range files {
				want, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				got, err := in.ReadFile(path.Join(dir, filepath.Base(f)))
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, filepath.Base(f))
				if !bytes.Equal(want, got) {
					t.Errorf("%s: %d bytes, kmod makes %d others", filepath.Base(f), len(got), len(want))
				}
			}
			all := []string{"modules.alias", "modules.alias.bin", "modules.builtin", "modules.builtin.alias.bin",
				"modules.builtin.bin", "modules.builtin.modinfo", "modules.dep", "modules.dep.bin", "modules.devname",
				"modules.order", "modules.softdep", "modules.symbols", "modules.symbols.bin", "modules.weakdep"}
			if diff := cmp.Diff(all, names); diff != "" {
				t.Error(diff)
			}
		})
	}
}
