package ext4_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What debugfs leaves in the journal of an image where /etc/file is three
// blocks of x, from 1201 on, and what they then begin with. In the file m is
// a block that looks like one of the journal's own.
var journals = []struct{ name, script, want string }{
	{"one transaction", "jo\njw -b 1201 y\njc\n", "yxx"},
	{"with checksums", "jo -c\njw -b 1201-1202 y\njc\n", "yyx"},
	{"two transactions", "jo -c\njw -b 1201 y\njc\njo\njw -b 1201,1203 z\njc\n", "zxz"},
	{"revoked", "jo -c\njw -b 1201-1202 y\njw -r 1202\njc\n", "yxx"},
	{"revoked and written again", "jo\njw -b 1201 y\njw -r 1201\njw -b 1201 z\njc\n", "zxx"},
	{"like the journal", "jo -c\njw -b 1202 m\njc\n", "x\xc0x"},
	{"not committed", "jo -c\njw -b 1201 y\njw -b 1202 -c z\njc\n", "yxx"},
}

func TestJournalReplay(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"y": bytes.Repeat([]byte("y"), 8192),
		"z": bytes.Repeat([]byte("z"), 8192),
		"m": append([]byte{0xc0, 0x3b, 0x39, 0x98}, bytes.Repeat([]byte("m"), 4092)...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range journals {
		t.Run(test.name, func(t *testing.T) {
			img, _ := write(t, faultyTree(t), options)
			script := filepath.Join(dir, "script")
			if err := os.WriteFile(script, []byte(test.script), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "sh", "-c", "cd "+dir+" && debugfs -w -f "+script+" "+img)
			check(t, img)
			ours := readTree(t, img)
			b, err := ours.ReadFile("/etc/file")
			if err != nil {
				t.Fatal(err)
			}
			if got := string([]byte{b[0], b[4096], b[8192]}); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			other := filepath.Join(t.TempDir(), "replayed.img")
			run(t, "cp", img, other)
			run(t, "sh", "-c", "e2fsck -fy "+other+"; test $? -le 1")
			compare(t, ours, readTree(t, other))
		})
	}
}
