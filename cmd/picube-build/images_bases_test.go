//go:build bases

package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian/archive"
	"github.com/picube/picube-build/builder/emulator"
)

// tool runs a program of the host's.
func tool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// fieldPackages are what images for Raspberry Pis have in common.
const fieldPackages = "ca-certificates,cloud-init,dbus,initramfs-tools,kmod,linux-image-arm64,locales,netbase,openssh-server,raspi-firmware,rfkill,sudo,systemd-sysv,udev"

// fieldRoot is a root file system made by mmdebstrap, which runs the packages'
// own scripts under qemu-user, and mke2fs. That takes a quarter of an hour and
// is kept in the user's cache folder.
func fieldRoot(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "picube-test", "bases")
	file := filepath.Join(dir, "trixie-arm64.ext4")
	if _, err := os.Stat(file); err == nil {
		return file
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root can give files to their owners: see the Makefile")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	root, img := filepath.Join(work, "root"), filepath.Join(work, "ext4")
	mirrors := archive.HostMirrors(os.DirFS("/etc/apt"))
	tool(t, "", "mmdebstrap", "--variant=important", "--architectures=arm64", "--format=directory", "--include="+fieldPackages,
		// An initramfs of a few modules, made once.
		"--essential-hook=mkdir -p \"$1\"/etc/initramfs-tools/conf.d; printf 'MODULES=list\\nCOMPRESS=zstd\\n' >\"$1\"/etc/initramfs-tools/conf.d/list; "+
			"printf '%s\\n' virtio_pci virtio_blk virtio_net virtio_rng ext4 crc32c_generic vfat nls_cp437 nls_ascii >\"$1\"/etc/initramfs-tools/modules",
		"trixie", root, "deb "+mirrors.Debian[0]+" trixie main non-free-firmware")
	tool(t, "", "mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootfs", "-d", root, img, "1100M")
	tool(t, "", "e2fsck", "-fp", img)
	tool(t, "", "cp", "--sparse=always", img, file+".part")
	if err := os.Rename(file+".part", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// fieldImage says how an image differs from others.
type fieldImage struct {
	name  string
	table string            // sfdisk's, without the partitions' places
	types [2]string         // of the partitions
	root  map[string]string // files of the root file system
	boot  map[string]string // of the boot partition
	// adds is put behind the command line.
	adds string
}

// fieldImages are laid out as makers do it: Raspberry Pi OS with what its first
// boot would do, a GPT as on disks, and somebody's own with settings in
// config.txt.
func fieldImages() []fieldImage {
	mbr := [2]string{"c", "83"}
	return []fieldImage{
		{name: "raspios", table: "label: dos\nlabel-id: 0x0a1b2c3d\n", types: mbr,
			root: map[string]string{
				"/etc/rpi-issue": "Raspberry Pi reference 2026-09-15\n",
				"/etc/fstab":     "proc /proc proc defaults 0 0\nPARTUUID=0a1b2c3d-01 /boot/firmware vfat defaults 0 2\nPARTUUID=0a1b2c3d-02 / ext4 defaults,noatime 0 1\n",
				"/usr/lib/systemd/system/userconfig.service":                     "[Unit]\nDescription=asks for a user\n[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n",
				"/etc/systemd/system/multi-user.target.wants/userconfig.service": "-> /usr/lib/systemd/system/userconfig.service",
				"/usr/lib/raspberrypi-sys-mods/firstboot":                        "#!/bin/sh\nreboot -f\n",
				"/var/lib/systemd/rfkill/platform-3f300000.mmcnr:wlan":           "1\n",
			},
			boot: map[string]string{"user-data": "#cloud-config\nhostname: wrong\n", "meta-data": "instance-id: wrong\n"},
			adds: "quiet init=/usr/lib/raspberrypi-sys-mods/firstboot ds=nocloud;i=rpi-imager-1 resize"},
		{name: "gpt", table: "label: gpt\n", types: [2]string{"EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"},
			root: map[string]string{"/etc/fstab": "LABEL=rootfs / ext4 defaults 0 1\nLABEL=bootfs /boot/firmware vfat defaults 0 2\n"}},
		{name: "vendor", table: "label: dos\nlabel-id: 0x00c0ffee\n", types: mbr,
			root: map[string]string{
				"/etc/os-release": "PRETTY_NAME=\"Vendor OS 4\"\nID=vendoros\nID_LIKE=debian\nVERSION_CODENAME=trixie\n",
				"/etc/fstab":      "/dev/mmcblk0p2 / ext4 defaults 0 1\n/dev/mmcblk0p1 /boot/firmware vfat defaults 0 2\ntmpfs /var/vendor tmpfs nofail 0 0\n",
			},
			boot: map[string]string{"vendor.txt": "[all]\n# the vendor's\ndtoverlay=vendor-hat,speed=3\n[pi4]\nover_voltage=2\n"},
			adds: "vendor.mode=7"},
	}
}

// make makes the image, packed, and returns its path and digest.
func (f fieldImage) make(t *testing.T, dir, from string) (file, sum string) {
	t.Helper()
	const boot, sector = 256 << 20, 512
	root, fat, img := filepath.Join(dir, f.name+".root"), filepath.Join(dir, f.name+".fat"), filepath.Join(dir, f.name+".img")
	tool(t, "", "cp", "--sparse=always", from, root)
	files := filepath.Join(dir, f.name+".files")
	tool(t, "", "debugfs", "-R", "rdump /boot/firmware "+dir, root)
	if err := os.Rename(filepath.Join(dir, "firmware"), files); err != nil {
		t.Fatal(err)
	}
	var edits strings.Builder
	for _, p := range slices.Sorted(maps.Keys(f.root)) {
		text := f.root[p]
		for i := range len(p) { // debugfs makes a directory that is there once more
			if i > 0 && p[i] == '/' && !strings.Contains(tool(t, "", "debugfs", "-R", "stat "+p[:i], root), "Type: directory") {
				tool(t, "", "debugfs", "-w", "-R", "mkdir "+p[:i], root)
			}
		}
		dir, base := path.Split(p) // debugfs' write and symlink know no paths
		fmt.Fprintf(&edits, "cd %s\nrm %s\n", dir, base)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			fmt.Fprintf(&edits, "symlink %s %s\n", base, target)
			continue
		}
		name := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&edits, "write %s %s\n", name, base)
	}
	tool(t, edits.String(), "debugfs", "-w", "-f", "-", root)
	tool(t, "", "e2fsck", "-fp", root)
	for name, text := range f.boot {
		if err := os.WriteFile(filepath.Join(files, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if f.name == "vendor" {
		appendTo(t, filepath.Join(files, "config.txt"), f.boot["vendor.txt"])
	}
	line, err := os.ReadFile(filepath.Join(files, "cmdline.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "cmdline.txt"), []byte(strings.TrimSpace(string(line))+" "+f.adds+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{fat: boot, img: 4<<20 + boot + info.Size() + 1<<20} {
		if os.WriteFile(name, nil, 0o600) != nil || os.Truncate(name, size) != nil {
			t.Fatal(name)
		}
	}
	tool(t, fmt.Sprintf("%sstart=8192, size=%d, type=%s\nstart=%d, size=%d, type=%s\n",
		f.table, boot/sector, f.types[0], 8192+boot/sector, info.Size()/sector, f.types[1]), "sfdisk", "-q", img)
	tool(t, "", "mkfs.vfat", "-F", "32", "-n", "bootfs", fat)
	entries, err := filepath.Glob(filepath.Join(files, "*"))
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "", "mcopy", append(append([]string{"-s", "-i", fat}, entries...), "::")...)
	tool(t, "", "dd", "if="+fat, "of="+img, "bs=1M", "seek=4", "conv=notrunc,sparse", "status=none")
	tool(t, "", "dd", "if="+root, "of="+img, "bs=1M", fmt.Sprintf("seek=%d", 4+boot>>20), "conv=notrunc,sparse", "status=none")
	tool(t, "", "zstd", "-q", "-1", "--rm", img)
	for _, name := range []string{root, fat} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	packed, err := os.Open(img + ".zst")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	h := sha256.New()
	if _, err := io.Copy(h, packed); err != nil {
		t.Fatal(err)
	}
	return img + ".zst", fmt.Sprintf("%x", h.Sum(nil))
}

func appendTo(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

var keepDir = flag.String("keep", "", "folder where other people's images and their cards are made, or are since an earlier run")

// buildImages makes cards of other people's images, one cube of one node each;
// kubernetes stands in the first cube's block. It returns blueprint and output.
func buildImages(t *testing.T, kubernetes string) (file, out string) {
	t.Helper()
	dir := t.TempDir()
	if *keepDir != "" {
		dir = filepath.Join(*keepDir, t.Name())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(dir, "bases.hcl")
	if _, err := os.Stat(file); err != nil {
		var source strings.Builder
		for i, f := range fieldImages() {
			image, sum := f.make(t, dir, fieldRoot(t))
			own := ""
			if i == 0 {
				own = kubernetes
			}
			fmt.Fprintf(&source, "cube %q {\n  nodes = 1\n  hostname = cube.name\n  board = \"rpi4\"\n  packages = [\"htop\", \"iputils-ping\", \"linux-sysctl-defaults\"]\n  base \"image\" {\n    source = %q\n    sha256 = %q\n  }\n%s}\n", f.name, image, sum, own)
		}
		if err := os.WriteFile(file, []byte(source.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out = filepath.Join(dir, "out")
	c, _ := testCLI(t)
	if code := run(t.Context(), []string{"build", "-v", "-o", out, file}, c); code != exitDone {
		t.Fatalf("build: exit code %d", code)
	}
	return file, out
}

// TestImages makes cards of other people's images. They come up as nodes with
// everything running, and keep what their makers wrote; their apt upgrades.
func TestImages(t *testing.T) {
	file, out := buildImages(t, "")
	for _, f := range fieldImages() {
		c, said := testCLI(t)
		if code := run(t.Context(), []string{"verify", filepath.Join(out, f.name, f.name+".img")}, c); code != exitDone {
			t.Errorf("verify %s: exit code %d: %s", f.name, code, said)
		}
	}
	t.Run("boot", func(t *testing.T) { bootImages(t, file, out) })
}

// startImages switches the cards on, all at once, on one wire.
func startImages(t *testing.T, file, out string, change func(*emulator.Card)) (nodes []*emulator.Node, cards []built) {
	t.Helper()
	e := newEmulator(t)
	for i, f := range fieldImages() {
		b := openCards(t, filepath.Join(out, f.name))
		b.blueprint, b.out = file, out
		cards = append(cards, b)
		nodes = append(nodes, b.start(t, e, f.name, 1, func(c *emulator.Card) {
			c.Board, c.Segment, c.CPUs = "rpi4", "bases", 1
			c.Address = netip.AddrFrom4([4]byte{10, 42, byte(i + 1), 1})
			change(c)
		}))
	}
	return nodes, cards
}

// TestImagesCluster makes other people's systems one Kubernetes cluster.
func TestImagesCluster(t *testing.T) {
	file, out := buildImages(t, "  kubernetes {\n    version = \"1.34.4\"\n  }\n")
	nodes, cards := startImages(t, file, out, func(c *emulator.Card) { c.Size, c.CPUs = 8<<30, 2 })
	c := cluster{cards[0], nodes[0]}
	for _, n := range nodes {
		ready(t, n)
		c.eventually(t, "get node "+n.Name()+" --no-headers", " Ready ")
	}
	c.eventually(t, "get nodes -o wide", "Vendor OS 4")
	for _, n := range nodes {
		running(t, n)
	}
}

func bootImages(t *testing.T, file, out string) {
	upgrade := newerPackage(t, deb(t, file, "htop"))
	nodes, all := startImages(t, file, out, func(*emulator.Card) {})
	reach(t, nodes...)
	for i, f := range fieldImages() {
		n := nodes[i]
		running(t, n)
		for command, want := range map[string]string{
			"hostname":                               f.name,
			"sudo dpkg --audit":                      "",
			"dpkg -l | sed 1,5d | grep -v ^ii; true": "",
			"cat /proc/cmdline | grep -o 'root=[^ ]*\\|vendor.mode=7\\|firstboot\\|nocloud\\|resize' | grep -v ^root=PARTUUID; true": map[string]string{"vendor": "vendor.mode=7"}[f.name],
			"df -BG --output=size / | tail -1 | tr -d ' '":                        "4G",
			"test -e /run/cloud-init/result.json && echo it ran; true":            "",
			"sudo grep -c $(cat /etc/machine-id) /boot/firmware/picube/node.yaml": "1",
			"findmnt -no FSTYPE /boot/firmware":                                   "vfat",
			"sudo grep -c vendor-hat /boot/firmware/config.txt; true":             map[string]string{"vendor": "1", "gpt": "0", "raspios": "0"}[f.name],
			"cut -d' ' -f1 /usr/lib/picube/base-image":                            f.name + ".img.zst",
			"grep -c /var/vendor /etc/fstab; true":                                map[string]string{"vendor": "1", "gpt": "0", "raspios": "0"}[f.name],
		} {
			if got := ask(t, n, command); got != want {
				t.Errorf("%s: %s: got %q, want %q", f.name, command, got, want)
			}
		}
		for _, peer := range fieldImages() {
			ask(t, n, "ping -c 1 -W 10 "+peer.name+".local")
		}
		upload(t, n, all[i], upgrade, "/tmp/htop.deb")
		t.Log(ask(t, n, `mkdir /tmp/repo && cd /tmp/repo && mv ../htop.deb . &&
			{ dpkg-deb -f htop.deb; echo "Filename: ./htop.deb"; echo "Size: $(stat -c %s htop.deb)"; echo "SHA256: $(sha256sum htop.deb | cut -d' ' -f1)"; } >Packages &&
			echo 'deb [trusted=yes] file:/tmp/repo ./' | sudo tee /etc/apt/sources.list.d/local.list &&
			sudo apt-get -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/local.list -o Dir::Etc::sourceparts=- update &&
			sudo DEBIAN_FRONTEND=noninteractive apt-get -y upgrade`))
		if got := ask(t, n, "dpkg-query -W -f '${Version}' htop"); !strings.HasSuffix(got, "+newer") {
			t.Errorf("%s: htop is %s", f.name, got)
		}
		t.Log(ask(t, n, "free -m; systemd-analyze; cat /proc/cmdline"))
	}
	testEdited(t, nodes[2])
}

// newerPackage makes a newer version of a package.
func newerPackage(t *testing.T, deb string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "deb")
	tool(t, "", "dpkg-deb", "-R", deb, dir)
	tool(t, "", "sed", "-i", `s/^Version: .*/&+newer/`, filepath.Join(dir, "DEBIAN/control"))
	tool(t, "", "dpkg-deb", "--root-owner-group", "-Znone", "-b", dir, dir+".deb")
	return dir + ".deb"
}

// testEdited edits node.yaml, as if on a laptop: rightly, then wrongly.
func testEdited(t *testing.T, n *emulator.Node) {
	const file = "/boot/firmware/picube/node.yaml"
	again := func(edit string) {
		t.Helper()
		ask(t, n, "sudo sed -i '"+edit+"' "+file+" && sync")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		if err := n.PlugIn(ctx); err != nil {
			t.Fatal(err)
		}
		reach(t, n)
	}
	again("s/^hostname: .*/hostname: kitchen/")
	if got := ask(t, n, "hostname; cat /etc/hostname"); got != "kitchen\nkitchen" {
		t.Errorf("the name is %q", got)
	}
	again("s/^hostname: .*/hostname: The Kitchen/")
	const want = `node.yaml: hostname: cannot use "The Kitchen"`
	if got := ask(t, n, "hostname; /usr/lib/picube/picube-node status"); !strings.HasPrefix(got, "kitchen\n") || !strings.Contains(got, want) {
		t.Errorf("the node says %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.WaitConsole(ctx, regexp.MustCompile(regexp.QuoteMeta(want))); err != nil {
		t.Errorf("the console says nothing: %v", err)
	}
	running(t, n)
}
