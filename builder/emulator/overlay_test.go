package emulator

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestOverlay has QEMU's own tools check an overlay of ours, write to it and
// compare what we read with what they read.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "rpi1, a card.img")
	content := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "rpi1.qcow2")
	const size = 4 << 30
	if err := createOverlay(name, image, size); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "check", name)
	tool(t, "qemu-io", "-f", "qcow2",
		"-c", "write -P 0x11 65000 1000", "-c", "write -P 0x22 3145000 2000", "-c", "write -z 1048576 65536",
		"-c", "write -P 0x33 4294963200 4096", "-c", "write -P 0x44 2147483648 65536", name)
	tool(t, "qemu-img", "check", name)
	raw := filepath.Join(dir, "raw")
	tool(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", name, raw)

	o, err := openOverlay(name, image)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	ours := filepath.Join(dir, "ours")
	if err := copySparse(ours, io.NewSectionReader(o, 0, size)); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, ours)

	want, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, at := range []int64{0, 60000, 1 << 20, 3145000, 1 << 30, 2147483648 - 100, size - 131072} {
		a, b := make([]byte, 131072), make([]byte, 131072)
		if _, err := o.ReadAt(a, at); err != nil {
			t.Fatal(err)
		}
		if _, err := want.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("at %d: not what qemu-img reads", at)
		}
	}
	if n, err := o.ReadAt(make([]byte, 10), size-4); n != 4 || err != io.EOF {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	after, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(after, content) {
		t.Error("the image was written to")
	}
}

func FuzzOverlay(f *testing.F) {
	dir := f.TempDir()
	image := filepath.Join(dir, "card.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		f.Fatal(err)
	}
	name := filepath.Join(dir, "card.qcow2")
	if err := createOverlay(name, image, 1<<21); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:overlayHeader], good[3*overlayCluster:3*overlayCluster+16])
	f.Fuzz(func(t *testing.T, header, table []byte) {
		b := bytes.Clone(good)
		copy(b, header)
		copy(b[3*overlayCluster:], table)
		damaged := filepath.Join(t.TempDir(), "damaged.qcow2")
		if err := os.WriteFile(damaged, b, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := openOverlay(damaged, image)
		if err != nil {
			return
		}
		defer o.Close()
		io.ReadFull(io.NewSectionReader(o, 0, 1<<21), make([]byte, 1<<21))
	})
}
