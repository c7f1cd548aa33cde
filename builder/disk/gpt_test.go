package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const gptScript = `label: gpt
label-id: 7C8F4E1A-3A58-4B5B-9C8D-0123456789AB
start=2048, size=4096, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=11111111-2222-3333-4444-555555555555, name="bootfs"
start=8192, size=8192, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AABBCCDD-0011-2233-4455-66778899AABB, name="rootfs ü"
`

// sfdiskGPT makes a disk of 10 MiB with util-linux.
func sfdiskGPT(t testing.TB) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(name, make([]byte, 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/sbin/sfdisk", "-q", name)
	cmd.Stdin = strings.NewReader(gptScript)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadGPT(t *testing.T) {
	disk := sfdiskGPT(t)
	if !IsGPT(bytes.NewReader(disk)) || IsGPT(bytes.NewReader(write(t, card))) || IsGPT(bytes.NewReader(nil)) {
		t.Error("what is a GPT was not told from what is none")
	}
	got, err := ReadGPT(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	want := []GPTPartition{
		{Number: 1, Type: GUIDEFISystem, UUID: "11111111-2222-3333-4444-555555555555", Name: "bootfs", Start: 2048 * 512, Size: 4096 * 512},
		{Number: 2, Type: GUIDLinux, UUID: "aabbccdd-0011-2233-4455-66778899aabb", Name: "rootfs ü", Start: 8192 * 512, Size: 8192 * 512},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// mend puts the right checksums into a damaged table.
func mend(b []byte) {
	le := binary.LittleEndian
	h := b[512:]
	if n := int(le.Uint32(h[80:])) * int(le.Uint32(h[84:])); n <= len(b)-1024 {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(b[1024:1024+n]))
	}
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(le.Uint32(h[12:]), 512)]))
}

func TestBadGPT(t *testing.T) {
	good := sfdiskGPT(t)
	le := binary.LittleEndian
	for _, tt := range []struct {
		name   string
		damage func(b []byte)
		want   string
	}{
		{"signature", func(b []byte) { b[512] = 'e' }, "cannot find its signature"},
		{"header", func(b []byte) { b[512+40]++ }, "its header has a wrong checksum"},
		{"entries", func(b []byte) { b[1024+60]++ }, "its entries have a wrong checksum"},
		{"long header", func(b []byte) { le.PutUint32(b[512+12:], 5000) }, "cannot have a header of 5000 bytes"},
		{"many", func(b []byte) { le.PutUint32(b[512+80:], 1<<31); mend(b) }, "cannot have 2147483648 entries of 128 bytes"},
		{"entries elsewhere", func(b []byte) { le.PutUint64(b[512+72:], 1<<63); mend(b) }, "cannot have its entries at sector 9223372036854775808 of 20480"},
		{"overlap", func(b []byte) { le.PutUint64(b[1024+40:], 8192); mend(b) }, "partition 2: cannot overlap partition 1"},
		{"backwards", func(b []byte) { le.PutUint64(b[1024+40:], 2047); mend(b) }, "partition 1: cannot be sectors 2048 to 2047, usable are 2048 to 20446"},
		{"beyond", func(b []byte) { le.PutUint64(b[512+48:], 1<<40); le.PutUint64(b[1024+128+40:], 1<<40); mend(b) }, "partition 2: cannot end at byte 562949953421824 of a disk of 10485760"},
	} {
		b := bytes.Clone(good)
		tt.damage(b)
		if _, err := ReadGPT(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if _, err := ReadGPT(bytes.NewReader(good[:700]), 700); err == nil {
		t.Error("half a header was read")
	}
}

func FuzzReadGPT(f *testing.F) {
	b := sfdiskGPT(f)[:1024+256]
	binary.LittleEndian.PutUint32(b[512+80:], 2)
	f.Add(b, int64(10<<20))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if len(b) < 1024+128 {
			return
		}
		b = bytes.Clone(b)
		mend(b)
		list, err := ReadGPT(bytes.NewReader(b), size)
		if err != nil {
			return
		}
		for i, p := range list {
			if p.Start <= 0 || p.Size <= 0 || p.End() > size || i > 0 && p.Number <= list[i-1].Number {
				t.Errorf("partition %+v of a disk of %d", p, size)
			}
		}
	})
}
