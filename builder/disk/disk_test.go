package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var card = ForCard(0xCAFE1234, 512<<20, 1500<<20+1)

// buffer is a disk's beginning.
type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

func write(t testing.TB, table Table) []byte {
	t.Helper()
	b := make(buffer, SectorSize)
	if err := table.Write(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCard(t *testing.T) {
	want := Table{ID: 0xCAFE1234, Partitions: []Partition{
		{Number: 1, Type: 0x0c, Start: 8 << 20, Size: 512 << 20},
		{Number: 2, Type: 0x83, Start: 520 << 20, Size: 1504 << 20},
	}}
	if diff := cmp.Diff(want, card); diff != "" {
		t.Error(diff)
	}
	if got := card.PARTUUID(2); got != "cafe1234-02" {
		t.Errorf("PARTUUID %q", got)
	}
	if got := card.Size(); got != 2024<<20 {
		t.Errorf("size %d", got)
	}
	back, err := Read(bytes.NewReader(write(t, card)), SectorSize)
	if err == nil || !strings.Contains(err.Error(), "partition 1: cannot end at byte 545259520 of a disk of 512") {
		t.Errorf("read with a too small disk: %v", err)
	}
	if diff := cmp.Diff(card, back); diff != "" {
		t.Error(diff)
	}
}

// TestSfdisk asks util-linux what it makes of the table.
func TestSfdisk(t *testing.T) {
	name := filepath.Join(t.TempDir(), "card.img")
	if err := os.WriteFile(name, write(t, card), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, card.Size()); err != nil {
		t.Fatal(err)
	}
	sfdisk := func(arg string) string {
		out, err := exec.Command("/usr/sbin/sfdisk", arg, name).CombinedOutput()
		if err != nil {
			t.Fatalf("sfdisk %s: %v\n%s", arg, err, out)
		}
		return strings.ReplaceAll(string(out), name, "card.img")
	}
	want := `label: dos
label-id: 0xcafe1234
device: card.img
unit: sectors
sector-size: 512

card.img1 : start=       16384, size=     1048576, type=c
card.img2 : start=     1064960, size=     3080192, type=83
`
	if diff := cmp.Diff(want, sfdisk("-d")); diff != "" {
		t.Errorf("sfdisk -d (-want +got):\n%s", diff)
	}
	want = "card.img:\nNo errors detected.\n"
	if diff := cmp.Diff(want, sfdisk("-V")); diff != "" {
		t.Errorf("sfdisk -V (-want +got):\n%s", diff)
	}
}

func TestRead(t *testing.T) {
	good := write(t, card)
	entry := func(n int) int { return entries + n*entrySize }
	tests := []struct {
		name   string
		damage func(b []byte)
		want   string
	}{
		{"good", func([]byte) {}, ""},
		{"no signature", func(b []byte) { b[511] = 0 }, "partition table: cannot find the signature 55 AA at the first sector's end"},
		{"overlap", func(b []byte) { b[entry(1)+9] = 0x3f; b[entry(1)+10] = 0 }, "partition 2: cannot overlap partition 1"},
		{"out of the disk", func(b []byte) { b[entry(1)+15] = 1 }, "partition 2: cannot end at byte 10712252416 of a disk of 2122317824"},
		{"GPT", func(b []byte) { b[entry(0)+4] = 0xee }, "partition 1: cannot read a GPT"},
		{"extended", func(b []byte) { b[entry(0)+4] = 0x05 }, "partition 1: cannot read an extended partition"},
		{"at 0", func(b []byte) { clear(b[entry(0)+8 : entry(0)+12]) }, "partition 1: cannot begin at byte 0 with 536870912 bytes"},
		{"type 0", func(b []byte) { b[entry(0)+4] = 0 }, "partition 1: cannot have type 0 and 536870912 bytes"},
		{"several", func(b []byte) { b[entry(0)+4] = 0; b[entry(1)+4] = 0x0f },
			"partition 1: cannot have type 0 and 536870912 bytes\npartition 2: cannot read an extended partition"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			disk := bytes.Clone(good)
			tt.damage(disk)
			got := ""
			if _, err := Read(bytes.NewReader(disk), card.Size()); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, tt := range []struct {
		table Table
		want  string
	}{
		{Table{Partitions: []Partition{{Number: 5, Type: 0x83, Start: 512, Size: 512}}}, "partition 5: cannot be numbered so, a table has 4"},
		{Table{Partitions: []Partition{{Number: 1, Type: 0x83, Start: 100, Size: 512}}}, "partition 1: cannot begin at byte 100 with 512 bytes"},
		{ForCard(1, 512<<20, 3<<40), "partition 2: cannot end at byte 3299080142848 of a disk of 2199023255040"},
	} {
		if err := tt.table.Write(make(buffer, SectorSize)); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(write(f, card), card.Size())
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		table, err := Read(bytes.NewReader(b), size)
		if err != nil {
			return
		}
		out := make(buffer, SectorSize)
		if err := table.Write(out); err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, err := Read(bytes.NewReader(out), size)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, again); diff != "" {
			t.Error(diff)
		}
	})
}
