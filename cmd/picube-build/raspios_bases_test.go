//go:build bases

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/debian/archivetest"
	"github.com/picube/picube-build/builder/debtest"
	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/builder/image"
	"github.com/picube/picube-build/firmware"
)

// raspiArchive serves an archive of the shape of Raspberry Pi's, signed with a
// key of its own, and returns its address and that key. What it holds are
// Debian's kernel and firmware under the names and at the places of Raspberry
// Pi's; overlays are stand-ins.
func raspiArchive(t *testing.T) (url, key string) {
	t.Helper()
	dir := t.TempDir()
	pool := filepath.Join(dir, "pool")
	if err := os.MkdirAll(pool, 0o755); err != nil {
		t.Fatal(err)
	}
	stub := filepath.Join(dir, "stub")
	if err := os.WriteFile(stub, firmware.PWMOverlay(firmware.PWM{Pins: "pwm0_gpio12"}), 0o644); err != nil {
		t.Fatal(err)
	}
	kernel := debtest.Deb(t, debtest.Main("arm64"), debtest.Kernel(t, "arm64"))
	debian := strings.TrimPrefix(debtest.Kernel(t, "arm64"), "linux-image-")
	for _, flavour := range []string{"rpi-v8", "rpi-2712"} {
		version := "6.12.47+rpt-" + flavour
		tree := filepath.Join(dir, version)
		tool(t, "", "dpkg-deb", "-R", kernel, tree)
		tool(t, "", "sh", "-ec", `cd "$1"
			for f in boot/*-"$2"; do mv "$f" "${f%"$2"}$3"; done
			mv usr/lib/modules/"$2" usr/lib/modules/"$3"
			mv usr/lib/linux-image-"$2" usr/lib/linux-image-"$3"
			rm -rf usr/share
			mkdir usr/lib/linux-image-"$3"/overlays
			cp "$4" usr/lib/linux-image-"$3"/overlays/overlay_map.dtb
			sed -i "s/$2/$3/g; s/^Version: .*/Version: 1:6.12.47-1+rpt1/" DEBIAN/*
			rm DEBIAN/md5sums`, "sh", tree, debian, version, stub)
		tool(t, "", "dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, pool)
		meta := filepath.Join(dir, flavour)
		writeControl(t, meta, "Package: linux-image-"+flavour+"\nVersion: 1:6.12.47-1+rpt1\nArchitecture: arm64\nMaintainer: x <x@example.org>\nDepends: linux-image-"+version+"\nDescription: the kernel\n")
		tool(t, "", "dpkg-deb", "--root-owner-group", "-b", meta, pool)
	}
	files := filepath.Join(dir, "firmware")
	tool(t, "", "dpkg-deb", "-x", debtest.Deb(t, debtest.Firmware("arm64"), "raspi-firmware"), files)
	tool(t, "", "sh", "-c", `cd "$1" && rm -rf etc usr/share`, "sh", files)
	writeControl(t, files, "Package: raspi-firmware\nVersion: 1:1.20260513-1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: the firmware\n")
	tool(t, "", "dpkg-deb", "--root-owner-group", "-Znone", "-b", files, pool)

	debs, err := filepath.Glob(filepath.Join(pool, "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	var packages strings.Builder
	for _, deb := range debs {
		data, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&packages, "%sFilename: pool/%s\nSize: %d\nSHA256: %x\n\n", tool(t, "", "dpkg-deb", "-f", deb), filepath.Base(deb), len(data), sha256.Sum256(data))
	}
	index := filepath.Join(dir, "dists/trixie/main/binary-arm64")
	signing := archivetest.NewKey(t)
	release := fmt.Sprintf("Origin: Raspberry Pi Foundation\nSuite: stable\nCodename: trixie\nDate: %s\nArchitectures: arm64 armhf\nComponents: main\nSHA256:\n %x %d main/binary-arm64/Packages\n",
		time.Now().UTC().Format(time.RFC1123), sha256.Sum256([]byte(packages.String())), packages.Len())
	if err := errors.Join(os.MkdirAll(index, 0o755), os.WriteFile(filepath.Join(index, "Packages"), []byte(packages.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "dists/trixie/InRelease"), archivetest.Sign(t, signing, release), 0o644)); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	return server.URL, string(archivetest.PublicKey(t, signing))
}

func writeControl(t *testing.T, dir, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "DEBIAN"), 0o755),
		os.WriteFile(filepath.Join(dir, "DEBIAN/control"), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestRaspios makes cards of base "raspios" for several boards, looks for what
// a Raspberry Pi 5 needs on its own, and starts one.
func TestRaspios(t *testing.T) {
	url, key := raspiArchive(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pis.hcl")
	source := fmt.Sprintf(`cube "pis" {
  nodes = 2
  board = "rpi4"
  node "rpi2" { board = "rpi5" }
  base "raspios" {
    raspi_mirror = %q
    raspi_key    = file("key.asc")
  }
  wifi {
    ssid    = "WLAN"
    psk     = "correct horse"
    country = "DE"
  }
}
`, url)
	if err := errors.Join(os.WriteFile(file, []byte(source), 0o600), os.WriteFile(filepath.Join(dir, "key.asc"), []byte(key), 0o600)); err != nil {
		t.Fatal(err)
	}
	cards := buildFile(t, file)
	for _, name := range []string{"rpi1", "rpi2"} {
		c, out := testCLI(t)
		if code := run(t.Context(), []string{"verify", filepath.Join(cards.dir, name+".img")}, c); code != exitDone {
			t.Errorf("verify %s: exit code %d: %s", name, code, out)
		}
	}
	t.Run("list", func(t *testing.T) { testRaspberryPi5(t, filepath.Join(cards.dir, "rpi2.img"), url) })
	t.Run("boot", func(t *testing.T) {
		// The stand-in is Debian's kernel, so QEMU runs it.
		n := cards.start(t, newEmulator(t), "rpi1", 1, func(c *emulator.Card) { c.Segment, c.Board = "pis", "rpi4" })
		reach(t, n)
		for command, want := range map[string]string{
			"hostname":          "rpi1",
			"sudo dpkg --audit": "",
			"dpkg-query -W -f '${Version}' raspi-firmware":               "1:1.20260513-1",
			"apt-cache policy raspi-firmware | grep -c '500 http'; true": "0", // no lists yet
		} {
			if got := ask(t, n, command); got != want {
				t.Errorf("%s: %q, want %q", command, got, want)
			}
		}
		t.Log(ask(t, n, "systemctl is-system-running --wait; systemctl --failed --no-legend; cat /proc/cmdline"))
	})
}

// testRaspberryPi5 looks for everything on the list in a card.
func testRaspberryPi5(t *testing.T, name, url string) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	card, err := image.Open(t.Context(), f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../firmware/rpi5.md")
	if err != nil {
		t.Fatal(err)
	}
	needs := raspberryPi5Needs(f, url)
	for line := range strings.Lines(string(text)) {
		number, need, ok := strings.Cut(strings.TrimSpace(line), ". ")
		if !ok || strings.Trim(number, "0123456789") != "" {
			continue
		}
		check, ok := needs[need]
		delete(needs, need)
		switch {
		case !ok:
			t.Errorf("nothing checks: %s", need)
		default:
			if err := check(card); err != nil {
				t.Errorf("%s: %v", need, err)
			}
		}
	}
	for need := range needs {
		t.Errorf("it is not on the list: %s", need)
	}
}

// raspberryPi5Needs are firmware/rpi5.md's items.
func raspberryPi5Needs(disk io.ReaderAt, archive string) map[string]func(*image.Card) error {
	read := func(c *image.Card, name string, least int) ([]byte, error) {
		data, err := c.Boot.ReadFile("/" + name)
		if err == nil && len(data) < least {
			err = fmt.Errorf("%s: only %d bytes", name, len(data))
		}
		return data, err
	}
	tree := func(c *image.Card, name, holds string) error {
		data, err := read(c, name, 40)
		if err == nil && (binary.BigEndian.Uint32(data) != 0xd00dfeed || !bytes.Contains(data, []byte(holds))) {
			err = fmt.Errorf("%s: no device tree with %q", name, holds)
		}
		return err
	}
	version := func(c *image.Card) (string, error) {
		board, _ := firmware.Lookup("rpi5")
		versions, err := firmware.RaspiosKernels(c.Root, []firmware.Board{board})
		return strings.Join(versions, ""), err
	}
	has := func(c *image.Card, names ...string) (err error) {
		for _, name := range names {
			_, e := c.Root.Stat(name)
			err = errors.Join(err, e)
		}
		return err
	}
	return map[string]func(*image.Card) error{
		"The partition table is an MBR, and the first partition is a FAT.": func(*image.Card) error {
			var mbr [512]byte
			_, err := disk.ReadAt(mbr[:], 0)
			if err == nil && (mbr[510] != 0x55 || mbr[511] != 0xaa || mbr[446+4] != 0x0c) {
				err = errors.New("it is not")
			}
			return err
		},
		"`config.txt` is there and not empty: without it the partition is passed over.": func(c *image.Card) error {
			_, err := read(c, "config.txt", 1)
			return err
		},
		"`kernel_2712.img` is a 64-bit kernel.": func(c *image.Card) error {
			data, err := read(c, "kernel_2712.img", 1<<20)
			if err == nil && string(data[56:60]) != "ARM\x64" && !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) { // Documentation/arch/arm64/booting.rst
				err = errors.New("it is none")
			}
			return err
		},
		"`bcm2712-rpi-5-b.dtb` is a device tree for `raspberrypi,5-model-b`.": func(c *image.Card) error {
			return tree(c, "bcm2712-rpi-5-b.dtb", "raspberrypi,5-model-b")
		},
		"`overlays/overlay_map.dtb` is a device tree: it says which overlay is this board's.": func(c *image.Card) error {
			return tree(c, "overlays/overlay_map.dtb", "")
		},
		"`initramfs_2712` is there for `auto_initramfs=1`, and holds `/init` and each module that it lists.": func(c *image.Card) error {
			config, err := read(c, "config.txt", 1)
			if err == nil && !bytes.Contains(config, []byte("\nauto_initramfs=1\n")) {
				err = errors.New("config.txt asks for none")
			}
			if err != nil {
				return err
			}
			data, err := read(c, "initramfs_2712", 1<<10)
			if err != nil {
				return err
			}
			return checkInitramfs(data)
		},
		"`cmdline.txt` is one line that names the card's own second partition as root.": func(c *image.Card) error {
			line, err := read(c, "cmdline.txt", 1)
			if err == nil && (bytes.Count(line, []byte("\n")) != 1 || !bytes.Contains(line, []byte(" root=PARTUUID="+c.RootUUID+" "))) {
				err = fmt.Errorf("it is %q", line)
			}
			return err
		},
		"What `config.txt` names is there.": func(c *image.Card) error {
			config, err := read(c, "config.txt", 1)
			for line := range strings.Lines(string(config)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				if key == "kernel" || key == "device_tree" {
					_, e := c.Boot.Stat("/" + value)
					err = errors.Join(err, e)
				}
				if key == "dtoverlay" && !strings.HasPrefix(value, "dwc2") { // of a Compute Module
					_, e := c.Boot.Stat("/overlays/" + strings.Split(value, ",")[0] + ".dtbo")
					err = errors.Join(err, e)
				}
			}
			return err
		},
		"The root has the modules of that very kernel.": func(c *image.Card) error {
			v, err := version(c)
			return errors.Join(err, has(c, "/usr/lib/modules/"+v+"/modules.dep.bin", "/usr/lib/modules/"+v+"/kernel"))
		},
		"The root upgrades kernel and firmware from Raspberry Pi's archive, with its key, and can make an initramfs.": func(c *image.Card) error {
			err := has(c, "/etc/apt/keyrings/raspi.asc", "/usr/sbin/mkinitramfs", "/var/lib/dpkg/info/linux-image-rpi-2712.list")
			sources, e := c.Root.ReadFile("/etc/apt/sources.list.d/raspi.sources")
			if e == nil && !bytes.Contains(sources, []byte("URIs: "+archive+"\n")) {
				e = fmt.Errorf("its sources are %s", sources)
			}
			return errors.Join(err, e)
		},
		"With a `wifi` block, the root has the radio's firmware.": func(c *image.Card) error {
			return has(c, "/usr/lib/firmware/brcm/brcmfmac43455-sdio.bin")
		},
	}
}

func checkInitramfs(data []byte) error {
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer z.Close()
	files := map[string]bool{}
	var list []byte
	for r := cpio.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		files[h.Name] = true
		if h.Name == "modules/list" {
			if list, err = io.ReadAll(r); err != nil {
				return err
			}
		}
	}
	if !files["init"] || len(list) == 0 {
		return errors.New("it has no init, or no modules")
	}
	for name := range strings.FieldsSeq(string(list)) {
		if !files["modules/"+name] {
			err = errors.Join(err, fmt.Errorf("it has no %s", name))
		}
	}
	return err
}
