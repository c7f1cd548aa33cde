package hwdb

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

var databases = map[string][]string{
	"one record":   {"usb:v1D6B*\n ID_VENDOR=Linux Foundation\n"},
	"split prefix": {"usb:v12*\n A=1\n\nusb:v13*\n A=2\n\nusb:*\n A=3\n\npci:v1*\n B=\n"},
	"later file wins": {
		"m:*\n A=first\n B=kept\n",
		"m:*\n A=second\n",
	},
	"several matches, comments, odd spaces": {
		"# head\nm:a*\nm:b*  # why\n   KEY=value # text\n\tTAB=no\n\nm:c*\n =novalue\n NOVALUE\n  \t X=1\n",
	},
	"out of place":                 {" A=1\n\nm:x*\n\n B=2\nm:y*\n A=1\nm:z*\n A=2\n\nm:w*\n C=3"},
	"shared tails":                 {"m:1*\n A=xyz\n B=yz\n\nm:2*\n A=z\n B=axyz\n C=xyz\n"},
	"no record":                    {"# nothing\n"},
	"longer match than its prefix": {"abc\n A=1\n\nabcdef\n A=2\n\nab\n A=3\n\nabd\n A=4\n"},
}

// TestAgainstSystemd runs the host's systemd-hwdb over the same files.
func TestAgainstSystemd(t *testing.T) {
	out, err := exec.Command("systemd-hwdb", "--version").Output()
	if err != nil {
		t.Fatal("this test compares with systemd-hwdb (Debian: udev): ", err)
	}
	version, err := strconv.Atoi(strings.Fields(string(out))[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range databases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(dir+"/etc/udev/hwdb.d", 0o755); err != nil {
				t.Fatal(err)
			}
			var sources []source
			for i, text := range files {
				path := filepath.Join(dir, "etc/udev/hwdb.d", fmt.Sprintf("%d.hwdb", i))
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				sources = append(sources, source{path, []byte(text)})
			}
			if out, err := exec.Command("systemd-hwdb", "--root", dir, "update").CombinedOutput(); err != nil {
				t.Fatalf("systemd-hwdb: %v\n%s", err, out)
			}
			want, err := os.ReadFile(dir + "/etc/udev/hwdb.bin")
			if err != nil {
				t.Fatal(err)
			}
			if got := compile(version, sources); !bytes.Equal(got, want) {
				t.Errorf("systemd-hwdb made\n%swe made\n%s", hex.Dump(want), hex.Dump(got))
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	files := tree.New(0)
	write := func(p, text string) {
		t.Helper()
		if err := files.MkdirAll(p[:strings.LastIndex(p, "/")], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := files.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("/usr/lib/udev/hwdb.d/20-a.hwdb", "hidden\n A=1\n")
	write("/usr/lib/udev/hwdb.d/30-b.hwdb", "m:*\n A=1\n")
	write("/etc/udev/hwdb.d/20-a.hwdb", "m:*\n A=2\n")
	if err := Update(files, "/usr/lib/udev"); err == nil || !strings.Contains(err.Error(), "cannot tell systemd's version") {
		t.Errorf("without systemd: error %v", err)
	}
	write("/usr/lib/aarch64-linux-gnu/systemd/libsystemd-shared-257.so", "")
	if err := Update(files, "/usr/lib/udev"); err != nil {
		t.Fatal(err)
	}
	want := compile(257, []source{
		{"/etc/udev/hwdb.d/20-a.hwdb", []byte("m:*\n A=2\n")},
		{"/usr/lib/udev/hwdb.d/30-b.hwdb", []byte("m:*\n A=1\n")},
	})
	n, err := files.Lstat("/usr/lib/udev/hwdb.bin")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := files.ReadFile("/usr/lib/udev/hwdb.bin"); n.Perm() != 0o444 || !bytes.Equal(got, want) {
		t.Errorf("mode %o, content\n%s", n.Perm(), hex.Dump(got))
	}
	for _, p := range []string{"/usr/lib/udev/hwdb.d", "/etc/udev/hwdb.d"} {
		if err := files.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := Update(files, "/usr/lib/udev"); err != nil || files.Exists("/usr/lib/udev/hwdb.bin") {
		t.Errorf("without sources: %v, hwdb.bin still there: %v", err, files.Exists("/usr/lib/udev/hwdb.bin"))
	}
}

func FuzzCompile(f *testing.F) {
	for _, files := range databases {
		f.Add([]byte(files[0]))
	}
	f.Fuzz(func(t *testing.T, data []byte) { compile(257, []source{{"a", data}}) })
}
