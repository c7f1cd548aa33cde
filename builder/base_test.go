package builder_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/image"
	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/secrets"
)

// reporter keeps what a build says.
type reporter struct{ lines []string }

func (r *reporter) Phase(string, int64) (func(int64), func()) { return func(int64) {}, func() {} }
func (r *reporter) Step(string) func()                        { return func() {} }
func (r *reporter) Info(format string, args ...any)           { r.Detail(format, args...) }
func (r *reporter) Detail(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func tool(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK=1")
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// fill leaves no block of a file system free.
func fill(t *testing.T, fs string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "filler")
	if err := os.WriteFile(name, bytes.Repeat([]byte("full"), 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "", "debugfs", "-w", "-R", "write "+name+" /filler", fs) // until there is no room
	tool(t, "", "sh", "-c", "e2fsck -fy "+fs+" || test $? = 1")
	tool(t, "", "sh", "-c", "dumpe2fs -h "+fs+" 2>&1 | grep -E '^Free blocks: +[0-9]{1,2}$'")
}

// packedImage makes an image in Raspberry Pi OS' layout, as .xz, whose apt
// asks an archive. Its root is full.
func packedImage(t *testing.T, dir string, a *archivetest.Archive) (sum string) {
	t.Helper()
	key := strings.TrimSpace(string(archivetest.PublicKey(t, a.Key)))
	key = strings.ReplaceAll(strings.ReplaceAll(key, "\n\n", "\n.\n"), "\n", "\n ")
	var status strings.Builder
	for _, name := range []string{"dbus", "dpkg", "iproute2", "kmod", "systemd", "systemd-sysv", "udev"} {
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nMaintainer: x\nArchitecture: arm64\nVersion: 1\nDescription: x\n\n", name)
	}
	root := filepath.Join(dir, "root")
	for p, text := range map[string]string{
		"etc/os-release":                        "ID=debian\nVERSION_CODENAME=trixie\n",
		"etc/rpi-issue":                         "Raspberry Pi reference\n",
		"etc/fstab":                             "PARTUUID=0a1b2c3d-01 /boot/firmware vfat defaults 0 2\nPARTUUID=0a1b2c3d-02 / ext4 defaults 0 1\n",
		"etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: " + a.URL() + "\nSuites: trixie\nComponents: main\nSigned-By:\n " + key + "\n",
		"var/lib/dpkg/status":                   status.String(),
		"usr/lib/systemd/systemd":               "ELF",
		"boot/firmware/hidden":                  "",
	} {
		name := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if os.Mkdir(filepath.Join(root, "sbin"), 0o755) != nil || os.Symlink("../usr/lib/systemd/systemd", filepath.Join(root, "sbin/init")) != nil {
		t.Fatal("cannot make /sbin/init")
	}
	img, fs := filepath.Join(dir, "os.img"), filepath.Join(dir, "fs")
	for name, size := range map[string]int64{img: 110 << 20, fs: 64 << 20} {
		if os.WriteFile(name, nil, 0o600) != nil || os.Truncate(name, size) != nil {
			t.Fatal(name)
		}
	}
	tool(t, "label: dos\nlabel-id: 0x0a1b2c3d\nstart=8192, size=131072, type=c\nstart=139264, size=65536, type=83\n", "sfdisk", "-q", img)
	tool(t, "", "mkfs.vfat", "-F", "32", fs)
	tool(t, "console=tty1 root=PARTUUID=0a1b2c3d-02 rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot\n", "mcopy", "-i", fs, "-", "::cmdline.txt")
	tool(t, "dtparam=audio=on\n", "mcopy", "-i", fs, "-", "::config.txt")
	tool(t, "", "dd", "if="+fs, "of="+img, "bs=1M", "seek=4", "conv=notrunc,sparse", "status=none")
	if err := os.Truncate(fs, 0); err != nil {
		t.Fatal(err)
	}
	tool(t, "", "mke2fs", "-q", "-F", "-t", "ext4", "-d", root, fs, "32M")
	fill(t, fs)
	tool(t, "", "dd", "if="+fs, "of="+img, "bs=1M", "seek=68", "conv=notrunc,sparse", "status=none")
	tool(t, "", "xz", "-0", "-T2", "--block-size=32MiB", img)
	packed, err := os.ReadFile(img + ".xz")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(packed))
}

// TestCardsOnAnImage builds on an image that is downloaded, then again from
// the cache alone.
func TestCardsOnAnImage(t *testing.T) {
	dir := t.TempDir()
	a := archivetest.New(t, "trixie").Add(
		archivetest.Deb{Package: "htop", Version: "3.4", Arch: "arm64", Fields: "Depends: dpkg, libn",
			Data: []archivetest.Member{archivetest.File("/usr/bin/htop", 0o755, "htop")}},
		archivetest.Deb{Package: "libn", Arch: "arm64"},
		archivetest.Deb{Package: "systemd", Version: "2", Arch: "arm64"},
	)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	sum := packedImage(t, dir, a)
	src := fmt.Sprintf("cube \"c\" {\nnodes = 2\nboard = \"rpi4\"\npackages = [\"htop\"]\nbase \"image\" {\nsource = %q\nsha256 = %q\n}\n}\n", server.URL+"/os.img.xz", sum)
	bp, diags := blueprint.Parse(filepath.Join(dir, "c.hcl"), []byte(src), blueprint.Options{Boards: []blueprint.Board{{Name: "rpi4", Arch: "arm64"}}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	build := func(lock string, offline bool) (*builder.Result, []string, error) {
		t.Helper()
		r := &reporter{}
		b, err := builder.New(builder.Config{
			Blueprint: bp, Out: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache"), Lock: filepath.Join(dir, lock),
			Secrets: secrets.Open(filepath.Join(dir, "secrets"), rand.Reader),
			Program: func(context.Context, string) ([]byte, error) { return []byte("program"), nil },
			Offline: offline, Now: func() time.Time { return archivetest.Now }, Report: r, BuildID: "test",
		})
		if err != nil {
			t.Fatal(err)
		}
		result, err := b.Build(context.Background())
		return result, r.lines, err
	}
	for _, n := range bp.Cubes[0].Nodes {
		n.Board = "rpi2"
	}
	const other = "it is for arm64, but the boards rpi2 are for armhf"
	if _, _, err := build("other.lock.hcl", false); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("for other boards: got %v, want %s", err, other)
	}
	for _, n := range bp.Cubes[0].Nodes {
		n.Board = "rpi4"
	}
	result, said, err := build("c.lock.hcl", false)
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read(filepath.Join(dir, "c.lock.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	var chosen []string
	for _, p := range l.Sets[0].Packages {
		chosen = append(chosen, p.Name)
	}
	if got := strings.Join(chosen, " "); got != "htop libn" {
		t.Errorf("chosen are %s", got)
	}
	if in := l.Input("image/os.img.xz"); in == nil || in.SHA256 != sum || in.Size == 0 {
		t.Errorf("the lock says of the image: %+v", in)
	}
	if !strings.Contains(strings.Join(said, "\n"), "2 packages installed") {
		t.Errorf("said: %q", said)
	}
	for i, want := range []string{"rpi1", "rpi2"} {
		c := result.Cubes[0].Cards[i]
		f, err := os.Open(c.Image)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		card, err := image.Open(context.Background(), f, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		n, err := card.Node()
		if err != nil || n.Hostname != want {
			t.Fatalf("node %v: %v", n, err)
		}
		for p, want := range map[string]string{
			"/boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=" + card.RootUUID + " rootwait cgroup_enable=memory cgroup_memory=1 systemd.machine_id=" + n.MachineID + "\n",
			"/boot/firmware/config.txt":  "dtparam=audio=on\n",
			"/etc/fstab":                 "LABEL=bootfs /boot/firmware vfat defaults 0 2\nLABEL=rootfs / ext4 defaults 0 1\n",
			"/usr/bin/htop":              "htop",
			"/usr/lib/picube/base-image": "os.img.xz " + sum + "\n",
		} {
			tr, at, err := card.Resolve(p)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := tr.ReadFile(at); err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", p, got, err, want)
			}
		}
	}
	server.Close()
	again, _, err := build("c.lock.hcl", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range again.Cubes[0].Cards {
		if !c.Kept {
			t.Errorf("%s was made anew", c.Image)
		}
	}
}
