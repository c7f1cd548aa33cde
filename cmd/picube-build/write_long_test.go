//go:build long

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/emulator"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

// readers gives a machine a disk with our program and two card readers on USB:
// a slow one, so that there is time to pull it out, and one with a card that is
// too small; and a socket to pull it out with.
const readers = `#!/bin/sh
exec qemu-system-aarch64 "$@" -drive if=none,id=tools,format=raw,file=%[1]s -device virtio-blk-pci,drive=tools,serial=tools \
	-device qemu-xhci,id=usb \
	-drive if=none,id=slow,format=raw,file=%[2]s,throttling.bps-write=4000000 -device usb-storage,bus=usb.0,id=reader,drive=slow,serial=reader \
	-drive if=none,id=small,format=raw,file=%[3]s -device usb-storage,bus=usb.0,drive=small,serial=small \
	-qmp unix:%[4]s,server=on,wait=off
`

// TestWriteToCards has a node write cards in its own readers: Linux, USB, a
// system disk and all that is refused are real there.
func TestWriteToCards(t *testing.T) {
	cards := buildCards(t, "picube.hcl")
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	build := exec.Command("go", "build", "-o", path("picube-build"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const imageSize, cardSize = 48 << 20, 64 << 20
	image := writeTools(t, path("tools"), path("picube-build"), imageSize)
	for name, size := range map[string]int64{"card": cardSize, "small": imageSize / 2} {
		if err := errors.Join(os.WriteFile(path(name), nil, 0o600), os.Truncate(path(name), size)); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf(readers, path("tools"), path("card"), path("small"), path("qmp"))
	if err := errors.Join(os.Mkdir(path("qemu"), 0o700), os.WriteFile(path("qemu/qemu-system-aarch64"), []byte(script), 0o700)); err != nil {
		t.Fatal(err)
	}
	// Its own card is as large as cards are: the root grows to that, too.
	n := cards.start(t, emulatorOf(t, emulator.Config{QEMU: path("qemu")}), "rpi1", 1, func(c *emulator.Card) { c.Size = 256 << 30 })
	up(t, n)
	if got := ask(t, n, "df -BG --output=size / | tail -1 | tr -d ' '"); !strings.HasPrefix(got, "25") {
		t.Errorf("the root has %s of a card of 256 GiB", got)
	}
	ask(t, n, "sudo modprobe -a xhci-pci usb-storage sd_mod && sudo mkdir -p /tools && sudo mount -o ro /dev/disk/by-id/virtio-tools /tools && "+
		"for i in $(seq 60); do ls /dev/disk/by-id/usb-*reader* /dev/disk/by-id/usb-*small* && break; sleep 1; done")
	device := func(name string) string { return ask(t, n, "readlink -f /dev/disk/by-id/"+name) }
	reader, small, tools := device("usb-*reader*"), device("usb-*small*"), device("virtio-tools")
	write := "sudo /tools/picube-build write /tools/card.img "

	for to, want := range map[string]string{
		"/dev/vda":  "it is this system's disk and holds /, /boot/firmware",
		"/dev/vda2": "cannot write to a partition: the whole device is /dev/vda",
		tools:       "while it is mounted: umount /tools",
		small:       fmt.Sprintf("it has %d bytes, %d are needed", imageSize/2, imageSize),
	} {
		if out, err := n.Run(t.Context(), write+to+" 2>&1"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %q; error: %v, want %q", to, out, err, want)
		}
	}

	if got := ask(t, n, write+reader); !strings.Contains(got, "written and read back") || !strings.Contains(got, "QEMU") {
		t.Errorf("it says %q", got)
	}
	t.Log(ask(t, n, "lsblk -b -o NAME,SIZE,TRAN,MODEL,MOUNTPOINTS; sudo cmp -n "+fmt.Sprint(imageSize)+" /tools/card.img "+reader))
	written, err := os.ReadFile(path("card"))
	if err != nil || !bytes.Equal(written[:imageSize], image) {
		t.Errorf("the card holds something else; error: %v", err)
	}

	pulled := make(chan string)
	go func() {
		out, err := n.Run(t.Context(), write+reader+" 2>&1")
		pulled <- fmt.Sprintf("%s; error: %v", out, err)
	}()
	time.Sleep(5 * time.Second)
	pullOut(t, path("qmp"), "reader")
	if got := <-pulled; !strings.Contains(got, "the device is gone: was it pulled out?") {
		t.Errorf("pulled out: %s", got)
	}
	ask(t, n, "sudo umount /tools")
	off, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := n.Shutdown(off); err != nil {
		t.Error(err)
	}
	if err := n.CopyPartition(2, path("root")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("e2fsck", "-fn", path("root")).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
}

// writeTools makes the disk with our program and an image, with a block map of
// all of it, and returns the image.
func writeTools(t *testing.T, disk, program string, size int64) []byte {
	t.Helper()
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Repeat(binary[:1<<20-1], int(size>>20)+1)[:size]
	m, err := bmap.New(t.Context(), bytes.NewReader(image), size, []tree.Range{{Length: size}})
	if err != nil {
		t.Fatal(err)
	}
	const epoch = 1_750_000_000
	tr := tree.New(epoch)
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(tr.WriteFile("/picube-build", binary, 0o755), tr.WriteFile("/card.img", image, 0o644),
		tr.WriteFile("/card.img.bmap", m.Encode(), 0o644)); err != nil {
		t.Fatal(err)
	}
	res, err := ext4.Write(t.Context(), f, tr, ext4.Options{Epoch: epoch})
	if err := errors.Join(err, f.Truncate(res.Size)); err != nil {
		t.Fatal(err)
	}
	return image
}

// pullOut takes a device out of a machine (QEMU's qmp-spec.txt).
func pullOut(t *testing.T, socket, device string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, `{"execute": "qmp_capabilities"} {"execute": "device_del", "arguments": {"id": %q}}`, device); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c) // until nothing more comes
	if !bytes.Contains(answer, []byte("DEVICE_DELETED")) {
		t.Errorf("QEMU answers %s; error: %v", answer, err)
	}
}
