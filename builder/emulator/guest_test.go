//go:build long

package emulator

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/ulikunitz/xz"
	"golang.org/x/crypto/ssh"

	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
)

// modules is what the guest's kernel needs, in the order of loading.
var modules = []string{"failover.ko", "net_failover.ko", "virtio_net.ko", "virtio_blk.ko", "virtio-rng.ko"}

// mirror is the host's own, or Debian's public name.
func mirror() string {
	for _, name := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		b, _ := os.ReadFile(name)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			for i, word := range f {
				if i > 0 && strings.HasPrefix(word, "http") && (f[0] == "URIs:" || f[0] == "deb") {
					return strings.TrimSuffix(word, "/")
				}
			}
		}
	}
	return "http://ftp.debian.org/debian"
}

func download(t testing.TB, p string) []byte {
	t.Helper()
	r, err := http.Get(mirror() + "/" + p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", p, r.Status, err)
	}
	return b
}

// kernelDir returns a folder with Debian's kernel for virtual machines
// ("vmlinuz") and the modules, downloaded once.
func kernelDir(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "picube-test")
	dir := filepath.Join(cache, "cloud-kernel")
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	index, err := xz.NewReader(bytes.NewReader(download(t, "dists/trixie/main/binary-arm64/Packages.xz")))
	if err != nil {
		t.Fatal(err)
	}
	var file, sum string
	found := false
	for lines := bufio.NewScanner(index); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case key == "Package":
			found = strings.HasPrefix(value, "linux-image-6") && strings.HasSuffix(value, "-cloud-arm64")
		case found && key == "Filename":
			file = value
		case found && key == "SHA256":
			sum = value
		}
	}
	deb := download(t, file)
	if got := fmt.Sprintf("%x", sha256.Sum256(deb)); got != sum {
		t.Fatalf("%s: wrong digest %s", file, got)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp(cache, "kernel-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	if err := os.WriteFile(filepath.Join(temp, "deb"), deb, 0o644); err != nil {
		t.Fatal(err)
	}
	unpack(t, filepath.Join(temp, "deb"), temp)
	if err := os.Rename(temp, dir); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return dir
}

func unpack(t testing.TB, deb, dir string) {
	t.Helper()
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for members := tar.NewReader(out); ; {
		h, err := members.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, content := path.Base(h.Name), io.Reader(members)
		switch {
		case strings.HasPrefix(name, "vmlinuz-"):
			name = "vmlinuz"
		case contains(modules, strings.TrimSuffix(name, ".xz")):
			name = strings.TrimSuffix(name, ".xz")
			if content, err = xz.NewReader(members); err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		b, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func contains(all []string, one string) bool {
	for _, a := range all {
		if a == one {
			return true
		}
	}
	return false
}

// cards makes cards for the tests' own guest.
type cards struct {
	t         testing.TB
	dir       string
	kernel    []byte
	initramfs []byte
	key       ssh.Signer
}

func newCards(t testing.TB) *cards {
	t.Helper()
	c := &cards{t: t, dir: t.TempDir()}
	program := filepath.Join(c.dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./internal/guest")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	kernel := kernelDir(t)
	c.kernel = c.read(filepath.Join(kernel, "vmlinuz"))
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	add := func(name string, mode cpio.FileMode, content []byte) {
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add("modules", cpio.TypeDir|0o755, nil)
	for i, m := range modules {
		add(fmt.Sprintf("modules/%d-%s", i, m), cpio.TypeReg|0o644, c.read(filepath.Join(kernel, m)))
	}
	add("init", cpio.TypeReg|0o755, c.read(program))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.initramfs = archive.Bytes()

	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.key, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cards) read(name string) []byte {
	c.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// card makes the card of node number n; extra goes onto its command line.
func (c *cards) card(n int, extra string) Card {
	c.t.Helper()
	card := Card{
		Name:    fmt.Sprintf("rpi%d", n),
		Image:   filepath.Join(c.dir, fmt.Sprintf("rpi%d.img", n)),
		Address: netip.AddrFrom4([4]byte{10, 42, 1, byte(n)}),
		Segment: "picube",
		Board:   "rpi3",
		Memory:  256,
		CPUs:    1,
		User:    "pirate",
		Key:     c.key,
	}
	boot := tree.New(0)
	line := fmt.Sprintf("console=serial0,115200 net.ifnames=0 panic=5 guest.name=%s guest.address=%v/16 guest.key=%s %s\n", card.Name,
		card.Address, base64.RawURLEncoding.EncodeToString(c.key.PublicKey().Marshal()), extra)
	for name, content := range map[string][]byte{
		"/config.txt":    []byte("arm_64bit=1\nkernel=vmlinuz\ninitramfs initrd.img followkernel\n"),
		"/cmdline.txt":   []byte(line),
		"/vmlinuz":       c.kernel,
		"/initrd.img":    c.initramfs,
		"/picube/README": []byte("A card for tests.\n"),
	} {
		if err := boot.MkdirAll(path.Dir(name), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := boot.WriteFile(name, content, 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	f, err := os.Create(card.Image)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	table := disk.ForCard(uint32(n), 96<<20, 8<<20)
	if err := table.Write(f); err != nil {
		c.t.Fatal(err)
	}
	p := table.Partitions[0]
	if err := fat.Write(io.NewOffsetWriter(f, p.Start), boot, fat.Options{Size: p.Size, Label: "bootfs", VolumeID: 1}); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Truncate(table.Size()); err != nil {
		c.t.Fatal(err)
	}
	return card
}

// newEmulator makes one that is closed after the test, and whose consoles are
// shown if the test fails.
func newEmulator(t testing.TB, c Config) *Emulator {
	t.Helper()
	c.Now = time.Now
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range e.Nodes() {
				t.Logf("console of %s:\n%s", n.Name(), strings.Join(n.Console(), "\n"))
			}
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}
