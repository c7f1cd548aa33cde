// Package debtest gets real packages from Debian's archive for the long tests
// of other packages. Nothing is verified; nothing but tests may import it.
package debtest

import (
	"archive/tar"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

// Main and Firmware are the indexes of trixie for an architecture.
func Main(arch string) string { return "dists/trixie/main/binary-" + arch + "/Packages.xz" }

// Firmware is the index of the packages that are not free.
func Firmware(arch string) string {
	return "dists/trixie/non-free-firmware/binary-" + arch + "/Packages.xz"
}

// mirror is the host's own, else Debian's public name.
func mirror() string {
	sources, err := os.ReadFile("/etc/apt/sources.list.d/debian.sources")
	if err == nil {
		if m := regexp.MustCompile(`(?m)^URIs: (\S+)`).FindSubmatch(sources); m != nil {
			return string(m[1])
		}
	}
	return "http://ftp.debian.org/debian"
}

// File returns the name of a local copy of a file of the archive, which is
// downloaded once and kept in the user's cache folder.
func File(t testing.TB, file string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(cache, "picube-test", strings.ReplaceAll(file, "/", "_"))
	if _, err := os.Stat(name); err == nil {
		return name
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, mirror()+"/"+file, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", file, resp.Status)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".download-*")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, resp.Body)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		t.Fatalf("%s: %v", file, err)
	}
	return name
}

// Field returns a field of a package in an index.
func Field(t testing.TB, index, name, field string) string {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "xz", "-dc", File(t, index)).Output()
	if err != nil {
		t.Fatalf("%s: %v", index, err)
	}
	_, stanza, ok := strings.Cut("\n"+string(text), "\nPackage: "+name+"\n")
	stanza, _, _ = strings.Cut(stanza, "\n\n")
	_, value, found := strings.Cut("\n"+stanza, "\n"+field+": ")
	if !ok || !found {
		t.Fatalf("%s: cannot find %s of %s", index, field, name)
	}
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// Deb returns the name of a local copy of a package.
func Deb(t testing.TB, index, name string) string {
	t.Helper()
	return File(t, Field(t, index, name, "Filename"))
}

// Kernel returns the name of the package that linux-image-ARCH stands for.
func Kernel(t testing.TB, arch string) string {
	t.Helper()
	name, _, _ := strings.Cut(Field(t, Main(arch), "linux-image-"+arch, "Depends"), " ")
	return name
}

// Unpack puts a package's files into the tree.
func Unpack(t testing.TB, root *tree.Tree, deb string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := tree.Clean(h.Name)
		if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(p, 0o755)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, p)
		case tar.TypeReg:
			data, rerr := io.ReadAll(r)
			err = errors.Join(rerr, root.WriteFile(p, data, uint32(h.Mode)&tree.PermMask))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
