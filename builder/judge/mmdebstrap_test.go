//go:build judge

package judge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/debian/control"
	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/debian/dpkg"
	"github.com/picube/picube-build/builder/tree"
)

var (
	truthDir = flag.String("truth", "", "folder with LIST.tar of an earlier run, instead of running mmdebstrap")
	debDir   = flag.String("debs", "", "folder of .debs as apt keeps them")
	mirror   = flag.String("mirror", "", "where debian and debian-security are; empty: where the host's own apt gets them")
	onlyList = flag.String("only", "", "judge only this list")
	arch     = flag.String("arch", "amd64", "Debian's name of the architecture; another one than the host's takes hours under qemu-user")
	drop     = flag.Bool("drop", true, "take away, one by one, what stands in for programs")
	report   = flag.String("report", "", "folder to leave LIST.txt with all differences in")
)

const epoch = 1793491200 // any fixed time

// cacheDir returns a folder that outlives the test.
func cacheDir(t testing.TB, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "picube-test", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// debFolder returns the folder of .debs.
func debFolder(t testing.TB) string {
	t.Helper()
	if *debDir != "" {
		return *debDir
	}
	return cacheDir(t, "debs")
}

func readList(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "-amd64\n", "-"+*arch+"\n")
}

// makeTruth installs a list with mmdebstrap and returns the archive.
func makeTruth(t testing.TB, list, debs string) string {
	t.Helper()
	if *truthDir != "" {
		return filepath.Join(*truthDir, list+".tar")
	}
	archive := filepath.Join(t.TempDir(), list+".tar")
	args := []string{
		"--variant=required", "--architectures=" + *arch, "--format=tar",
		"--include=" + strings.Join(strings.Fields(readList(t, list+".packages")), ","),
		// The .debs stay until the hook below has taken them out.
		"--skip=essential/unlink,download/empty",
		"--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives",
		"--setup-hook=sync-in " + debs + " /var/cache/apt/archives",
		"--customize-hook=sync-out /var/cache/apt/archives " + debs,
	}
	if answers := readList(t, list+".debconf"); answers != "" {
		args = append(args, "--essential-hook=upload testdata/"+list+".debconf /tmp/debconf",
			`--essential-hook=chroot "$1" debconf-set-selections /tmp/debconf; rm "$1"/tmp/debconf`)
	}
	args = append(args, "trixie", archive,
		"deb "+mirrors().Debian[0]+" trixie main contrib non-free-firmware",
		"deb "+mirrors().Security[0]+" trixie-security main contrib non-free-firmware")
	cmd := exec.Command("mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	return archive
}

func openTruth(t testing.TB, archive string) *tree.Tree {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	real, err := ReadTar(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return real
}

// openPackages opens the very versions that the real tree holds.
func openPackages(t testing.TB, real *tree.Tree, debs string) []dpkg.Archive {
	t.Helper()
	installed, order := readStatus(t, real)
	var files []string
	for _, name := range order {
		p := installed[name]
		version := strings.ReplaceAll(p.Get("Version"), ":", "%3a")
		files = append(files, fmt.Sprintf("%s_%s_%s.deb", name, version, p.Get("Architecture")))
	}
	var archives []dpkg.Archive
	for _, p := range openDebs(t, debs, files) {
		archives = append(archives, dpkg.Archive{Control: p.Control, Entries: p.Entries})
	}
	return archives
}

func readStatus(t testing.TB, real *tree.Tree) (map[string]control.Paragraph, []string) {
	t.Helper()
	status, err := real.ReadFile(statusPath)
	if err != nil {
		t.Fatal(err)
	}
	installed, err := paragraphs("Package")(string(status))
	if err != nil {
		t.Fatal(err)
	}
	return installed.byName, installed.order
}

func openDebs(t testing.TB, debs string, names []string) []*deb.Package {
	t.Helper()
	var files []deb.File
	for _, name := range names {
		file := filepath.Join(debs, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		files = append(files, deb.File{Name: name, Path: file, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))})
	}
	store := deb.NewStore(cacheDir(t, "store"), time.Now)
	t.Cleanup(func() { store.Close() })
	opened, err := store.OpenAll(context.Background(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// mirrors returns where both sides get their packages.
func mirrors() archive.Mirrors {
	if *mirror == "" {
		return archive.HostMirrors(os.DirFS("/etc/apt"))
	}
	return archive.Mirrors{Debian: []string{*mirror + "/debian"}, Security: []string{*mirror + "/debian-security"}}
}

// openLocales opens locales-all in the version of the real tree's locales.
func openLocales(t testing.TB, real *tree.Tree, debs string) *tree.Tree {
	t.Helper()
	installed, _ := readStatus(t, real)
	name := fmt.Sprintf("locales-all_%s_%s.deb", installed["locales"].Get("Version"), *arch)
	if _, err := os.Stat(filepath.Join(debs, name)); err != nil {
		download(t, mirrors().Debian[0]+"/pool/main/g/glibc/"+name, filepath.Join(debs, name))
	}
	locales := tree.New(epoch)
	for _, e := range openDebs(t, debs, []string{name})[0].Entries() {
		if err := locales.Put(e.Path, e.Inode); err != nil && e.Path != "/" {
			t.Fatal(err)
		}
	}
	return locales
}

func download(t testing.TB, url, file string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, response.Status)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
