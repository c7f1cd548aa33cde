package baseimage_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/baseimage"
	"github.com/picube/picube-build/builder/debian/archive"
)

const epoch = 1793491200

// status is dpkg's database of a small system.
const status = `Package: dpkg
Essential: yes
Status: install ok installed
Priority: required
Architecture: arm64
Version: 1.22.21

Package: systemd-timesyncd
Status: install ok installed
Architecture: arm64
Version: 257.8-1
Provides: time-daemon

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1

`

// raspios are the files of a root like Raspberry Pi OS'.
func raspios() map[string]string {
	return map[string]string{
		"etc/os-release":                                                "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nVERSION_CODENAME=trixie\n",
		"etc/rpi-issue":                                                 "Raspberry Pi reference 2025-10-01\n",
		"etc/fstab":                                                     "proc            /proc           proc    defaults          0       0\nPARTUUID=0a1b2c3d-01  /boot/firmware  vfat    defaults          0       2\nPARTUUID=0a1b2c3d-02  /               ext4    defaults,noatime  0       1\n# a swapfile is not a swap partition\n",
		"etc/cloud/cloud.cfg":                                           "users: []\n",
		"etc/init.d/resize2fs_once":                                     "#!/bin/sh\n",
		"etc/NetworkManager/NetworkManager.conf":                        "[main]\n",
		"etc/rpi/swap.conf":                                             "[Main]\n",
		"etc/default/raspi-firmware":                                    "#CMA=64M\nROOTPART=LABEL=RASPIROOT\n",
		"etc/apt/sources.list.d/raspi.sources":                          "Types: deb\nURIs: http://archive.raspberrypi.com/debian/\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----\n",
		"etc/apt/sources.list.d/debian.sources":                         "Types: deb\nURIs: http://deb.example.org/debian\nSuites: trixie trixie-updates\nComponents: main contrib\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----\n",
		"var/lib/systemd/rfkill/platform-3f300000.mmcnr:wlan":           "1\n",
		"var/lib/systemd/rfkill/platform-soc:bluetooth":                 "1\n",
		"var/lib/dpkg/status":                                           status,
		"var/lib/dpkg/info/systemd-timesyncd.list":                      "/.\n/usr\n/usr/lib\n/usr/lib/systemd\n/usr/lib/systemd/systemd-timesyncd\n/usr/lib/systemd/system/systemd-timesyncd.service\n",
		"var/lib/dpkg/info/systemd-timesyncd.postinst":                  "#!/bin/sh\n",
		"usr/lib/systemd/systemd":                                       "ELF",
		"usr/lib/systemd/systemd-timesyncd":                             "ELF",
		"usr/lib/systemd/system/systemd-timesyncd.service":              "[Unit]\n",
		"usr/lib/systemd/system/userconfig.service":                     "[Unit]\n",
		"usr/lib/systemd/system/regenerate_ssh_host_keys.service":       "[Unit]\n",
		"boot/firmware/.keep":                                           "hidden by the mount\n",
		"etc/systemd/system/multi-user.target.wants/other.service":      "[Unit]\n",
		"usr/lib/raspberrypi-sys-mods/firstboot":                        "#!/bin/sh\n",
		"usr/share/doc/" + strings.Repeat("long-name-", 20) + "/README": "text\n",
	}
}

func bootFiles() map[string]string {
	return map[string]string{
		"config.txt":                "# mine\ndtparam=audio=on\n[cm4]\notg_mode=1\n[all]\n",
		"cmdline.txt":               "console=serial0,115200 console=tty1 root=PARTUUID=0a1b2c3d-02 rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot ds=nocloud;i=rpi-imager-1 resize\n",
		"kernel8.img":               "kernel",
		"overlays/vc4-kms-v3d.dtbo": "overlay",
	}
}

func run(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK=1")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for p, text := range files {
		name := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// made says how makeImage makes an image.
type made struct {
	root   map[string]string
	table  string // sfdisk's
	mkroot []string
	fat    string // bits
}

const (
	mbr = "label: dos\nlabel-id: 0x0a1b2c3d\nstart=8192, size=131072, type=c\nstart=139264, size=65536, type=83\n"
	gpt = "label: gpt\nstart=8192, size=131072, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nstart=139264, size=65536, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE\n"
)

// makeImage makes an image with sfdisk, mkfs.vfat, mtools and mke2fs.
func makeImage(t testing.TB, m made) string {
	t.Helper()
	dir := t.TempDir()
	img, fs, root := filepath.Join(dir, "x.img"), filepath.Join(dir, "fs"), filepath.Join(dir, "root")
	writeFiles(t, root, m.root)
	if err := os.MkdirAll(filepath.Join(root, "sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"sbin/init": "../usr/lib/systemd/systemd",
		"etc/systemd/system/systemd-timesyncd-wants": "/usr/lib/systemd/system/systemd-timesyncd.service",
		"etc/rc3.d/S01resize2fs_once":                "../init.d/resize2fs_once",
	} {
		name := filepath.Join(root, link)
		if os.MkdirAll(filepath.Dir(name), 0o755) != nil || os.Symlink(target, name) != nil {
			t.Fatal(link)
		}
	}
	for _, f := range []string{img, fs} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(img, 110<<20); err != nil {
		t.Fatal(err)
	}
	run(t, m.table, "sfdisk", "-q", img)
	if err := os.Truncate(fs, 64<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "", "mkfs.vfat", "-F", m.fat, "-n", "bootfs", fs)
	run(t, "", "mmd", "-i", fs, "::overlays")
	for p, text := range bootFiles() {
		run(t, text, "mcopy", "-i", fs, "-", "::"+p)
	}
	run(t, "", "dd", "if="+fs, "of="+img, "bs=1M", "seek=4", "conv=notrunc,sparse", "status=none")
	if err := os.Truncate(fs, 0); err != nil {
		t.Fatal(err)
	}
	mkroot := m.mkroot
	if mkroot == nil {
		mkroot = []string{"mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootfs"}
	}
	run(t, "", mkroot[0], append(slices.Clone(mkroot[1:]), "-d", root, fs, "32M")...)
	run(t, "", "dd", "if="+fs, "of="+img, "bs=1M", "seek=68", "conv=notrunc,sparse", "status=none")
	return img
}

func open(t testing.TB, name string) (*baseimage.Image, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return baseimage.Open(context.Background(), f, info.Size(), epoch)
}

func TestOpenAndSettle(t *testing.T) {
	for _, m := range []made{
		{raspios(), mbr, nil, "32"},
		{raspios(), gpt, nil, "16"},
		{raspios(), mbr, []string{"mke2fs", "-q", "-F", "-t", "ext3"}, "32"},
	} {
		i, err := open(t, makeImage(t, m))
		if err != nil {
			t.Fatal(err)
		}
		if i.Family != baseimage.RaspberryPiOS || i.Arch != "arm64" || i.Suite != "trixie" || i.Assumed != nil {
			t.Errorf("got %s %s %s %v", i.Family, i.Arch, i.Suite, i.Assumed)
		}
		gone, err := i.RemoveReplaced()
		if err != nil || !slices.Equal(gone, []string{"systemd-timesyncd"}) {
			t.Errorf("removed %v: %v", gone, err)
		}
		installed, err := i.Installed()
		if err != nil || len(installed) != 1 || installed[0].Name != "dpkg" || !installed[0].Essential {
			t.Errorf("installed are %v: %v", installed, err)
		}
		done, err := i.Settle(baseimage.Options{Interfaces: []string{"eth0", "wlan0"}, RootLabel: "rootfs", BootLabel: "bootfs", NoSwap: true})
		if err != nil {
			t.Fatal(err)
		}
		want := `userconfig.service is switched off
regenerate_ssh_host_keys.service is switched off
resize2fs_once is removed
cloud-init is switched off
Wi-Fi is not blocked any more (platform-3f300000.mmcnr:wlan)
NetworkManager leaves eth0 wlan0 alone
rpi-swap is switched off: Kubernetes wants no swap`
		if diff := cmp.Diff(want, strings.Join(done, "\n")); diff != "" {
			t.Error(diff)
		}
		text := func(p string) string {
			b, err := i.Root.ReadFile(p)
			if err != nil {
				return err.Error()
			}
			return string(b)
		}
		for p, want := range map[string]string{
			"/etc/fstab":                  "proc            /proc           proc    defaults          0       0\nLABEL=bootfs  /boot/firmware  vfat    defaults          0       2\nLABEL=rootfs  /               ext4    defaults,noatime  0       1\n# a swapfile is not a swap partition\n",
			"/etc/default/raspi-firmware": "#CMA=64M\nROOTPART=\"LABEL=rootfs\"\n",
			"/var/lib/systemd/rfkill/platform-3f300000.mmcnr:wlan":      "0\n",
			"/etc/NetworkManager/conf.d/picube.conf":                    "# systemd-networkd has them.\n[keyfile]\nunmanaged-devices=interface-name:eth0;interface-name:wlan0\n",
			"/var/lib/systemd/rfkill/platform-soc:bluetooth":            "1\n",
			"/boot/firmware/kernel8.img":                                "kernel",
			"/etc/systemd/system/multi-user.target.wants/other.service": "[Unit]\n",
		} {
			if diff := cmp.Diff(want, text(p)); diff != "" {
				t.Errorf("%s: %s", p, diff)
			}
		}
		if target, _ := i.Root.Readlink("/etc/systemd/system/userconfig.service"); target != "/dev/null" {
			t.Error("userconfig.service is not masked")
		}
		for _, p := range []string{"/usr/lib/systemd/systemd-timesyncd", "/var/lib/dpkg/info/systemd-timesyncd.list", "/etc/rc3.d/S01resize2fs_once", "/boot/firmware/.keep"} {
			if _, err := i.Root.Lstat(p); err == nil {
				t.Errorf("%s is still there", p)
			}
		}
		boot, err := baseimage.TakeBoot(i.Root)
		if err != nil {
			t.Fatal(err)
		}
		for p, want := range bootFiles() {
			if got, err := boot.ReadFile("/" + p); err != nil || string(got) != want {
				t.Errorf("boot partition: %s: %q, %v", p, got, err)
			}
		}
		if names, err := i.Root.ReadDir(baseimage.BootDir); err != nil || len(names) > 0 {
			t.Errorf("below the mount point: %v %v", names, err)
		}
	}
}

func TestArchives(t *testing.T) {
	i, err := open(t, makeImage(t, made{raspios(), mbr, nil, "32"}))
	if err != nil {
		t.Fatal(err)
	}
	list, err := archive.OfSystem(i.Root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range list {
		got = append(got, fmt.Sprint(a.Name, a.URLs, a.Suites, a.Components, bytes.Contains(a.Keys, []byte("BLOCK-----\n\nAAAA\n-----END"))))
	}
	want := []string{
		"debian[http://deb.example.org/debian] [trixie trixie-updates] [main contrib] true",
		"raspberrypi[http://archive.raspberrypi.com/debian] [trixie] [main] true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	without := func(name string) map[string]string {
		m := raspios()
		delete(m, name)
		return m
	}
	unsupported := raspios()
	delete(unsupported, "boot/firmware/.keep")
	good := makeImage(t, made{raspios(), mbr, nil, "32"})
	for _, tt := range []struct {
		name string
		made made
		edit func(b []byte)
		want string
	}{
		{"no dpkg", made{root: without("var/lib/dpkg/status")}, nil, "only images with Debian's packages can be a base"},
		{"no systemd", made{root: without("usr/lib/systemd/systemd")}, nil, "only images with systemd can be a base"},
		{"an old one", made{root: unsupported}, nil, "images of before Debian 12 are not supported"},
		{"no boot partition", made{table: strings.Replace(mbr, "type=c", "type=82", 1)}, nil, "cannot find a boot partition"},
		{"no root", made{table: strings.Replace(mbr, "type=83", "type=82", 1)}, nil, "cannot find a root partition"},
		{"btrfs", made{}, func(b []byte) { clear(b[68<<20 : 69<<20]); copy(b[68<<20+0x10040:], "_BHRfS_M") }, "partition 2 (root): cannot read btrfs, only ext4"},
		{"f2fs", made{}, func(b []byte) { clear(b[68<<20 : 69<<20]); copy(b[68<<20+1024:], "\x10\x20\xf5\xf2") }, "cannot read f2fs, only ext4"},
		{"nothing", made{}, func(b []byte) { clear(b[68<<20 : 69<<20]) }, "no ext4 file system"},
		{"partitions that overlap", made{}, func(b []byte) { binary.LittleEndian.PutUint32(b[446+16+8:], 8192+1) }, "partition 2: cannot overlap partition 1"},
		{"a root cut short", made{}, func(b []byte) { binary.LittleEndian.PutUint32(b[446+16+12:], 2048) }, "partition 2 (root): "},
		{"damaged FAT", made{}, func(b []byte) { clear(b[4<<20 : 5<<20]) }, "partition 1 (boot): FAT boot sector"},
	} {
		img := good
		if tt.edit == nil {
			if tt.made.root == nil {
				tt.made.root = raspios()
			}
			if tt.made.table == "" {
				tt.made.table = mbr
			}
			tt.made.fat = "32"
			img = makeImage(t, tt.made)
		} else {
			b, err := os.ReadFile(img)
			if err != nil {
				t.Fatal(err)
			}
			tt.edit(b)
			img = filepath.Join(t.TempDir(), "bad.img")
			if err := os.WriteFile(img, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := open(t, img); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestUnknownFamily(t *testing.T) {
	root := raspios()
	delete(root, "etc/rpi-issue")
	root["etc/os-release"] = "PRETTY_NAME=\"DietPi\"\nID=dietpi\nVERSION_CODENAME=trixie\n"
	i, err := open(t, makeImage(t, made{root, mbr, nil, "32"}))
	if err != nil {
		t.Fatal(err)
	}
	if i.Family != baseimage.Unknown || !slices.Equal(i.Assumed, []string{"DietPi is of no family that is known; it is treated like Debian"}) {
		t.Errorf("got %s %v", i.Family, i.Assumed)
	}
}

func TestEditCommandLine(t *testing.T) {
	got := baseimage.EditCommandLine(bootFiles()["cmdline.txt"], "PARTUUID=cafe1234-02", []string{"rootwait", "cgroup_enable=memory"})
	want := "console=serial0,115200 console=tty1 root=PARTUUID=cafe1234-02 rootfstype=ext4 fsck.repair=yes rootwait quiet cgroup_enable=memory\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again := baseimage.EditCommandLine(got, "PARTUUID=cafe1234-02", []string{"rootwait", "cgroup_enable=memory"}); again != got {
		t.Errorf("edited twice: %s", again)
	}
}

func TestUnpack(t *testing.T) {
	img := filepath.Join(t.TempDir(), "x.img")
	want := make([]byte, 12<<20) // with a hole between
	copy(want, bytes.Repeat([]byte("the beginning "), 20000))
	copy(want[11<<20:], bytes.Repeat([]byte("the end "), 20000))
	if err := os.WriteFile(img, want, 0o600); err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := zip.NewWriter(&z)
	for name, data := range map[string][]byte{"os/x.img": want, "os/x.txt": []byte("read me")} {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img+".zip", z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", "xz", "-k", "-T2", "--block-size=4MiB", "-1", img)
	run(t, "", "gzip", "-k", "-1", img)
	run(t, "", "zstd", "-q", "-k", "-1", img)
	run(t, "", "bzip2", "-k", "-1", img)
	for _, suffix := range []string{"", ".xz", ".gz", ".zst", ".bz2", ".zip"} {
		packed, err := os.ReadFile(img + suffix)
		if err != nil {
			t.Fatal(err)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(packed))
		to := filepath.Join(t.TempDir(), "out.img")
		var read int64
		if err := baseimage.Unpack(context.Background(), img+suffix, to, sum, func(n int64) { read += n }); err != nil {
			t.Errorf("%s: %v", suffix, err)
			continue
		}
		got, err := os.ReadFile(to)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: unpacked wrong: %v", suffix, err)
		}
		if read != int64(len(packed)) {
			t.Errorf("%s: told of %d bytes of %d", suffix, read, len(packed))
		}
		if used := run(t, "", "du", "-m", to); !strings.HasPrefix(used, "1\t") {
			t.Errorf("%s: it has no holes: %s", suffix, used)
		}
		bad := packed[:len(packed)-len(packed)/5]
		for what, b := range map[string][]byte{"truncated": bad, "longer": append(slices.Clone(packed), 0)} {
			name := filepath.Join(t.TempDir(), "bad"+suffix)
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			err := baseimage.Unpack(context.Background(), name, to+".2", sum, nil)
			if err == nil {
				t.Errorf("%s %s: no error", what, suffix)
			}
			if suffix != ".zip" && !strings.Contains(fmt.Sprint(err), "has SHA-256") {
				t.Errorf("%s %s: %v", what, suffix, err)
			}
			// With a digest of what is there, the decoder has to notice.
			err = baseimage.Unpack(context.Background(), name, to+".2", fmt.Sprintf("%x", sha256.Sum256(b)), nil)
			if err == nil && suffix != "" && !(suffix == ".zip" && what == "longer") {
				t.Errorf("%s %s: unpacked all the same", what, suffix)
			}
		}
		if left, _ := filepath.Glob(filepath.Dir(to) + "/*"); len(left) != 1+btoi(suffix == "" || suffix == ".zip") {
			t.Errorf("%s: left are %v", suffix, left)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
