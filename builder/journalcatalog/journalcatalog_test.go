package journalcatalog

import (
	"bytes"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

const (
	first  = "-- f77379a8490b408bbe5f6940505a777b"
	second = "-- d93fb3c9c24d451a97cea615ce59c00b"
)

var catalogs = map[string]map[string]string{
	"one message": {"a.catalog": first + "\nSubject: A\nDefined-By: us\n\nBody of A\n\nsecond paragraph\n\n\n"},
	"languages": {
		"a.catalog":          first + "\nSubject: A\n\nBody\n\n" + first + " fr\nSubject: le A\n\nCorps\n",
		"a.de.catalog":       "# comment\n" + first + "\nSubject: das A\n\nText\n",
		"a.be@latin.catalog": second + "\nSubject: B\n",
	},
	"combined": {
		"a.catalog": first + "\nSubject: A\n\nBody of a\n\n" + second + "\nSubject: B\n\nBody of B\n",
		"b.catalog": first + "\nSubject: other\nSupport: here\n\nBody of b\n\n" + second + "\nSupport: there\n",
	},
	"tails and case": {
		"a.catalog": strings.ToUpper(first) + "\nxSame\n\n" + second + "\nSame\n\n;comment\n--  d93fb3c9\nno header\n-- d93fb3c9c24d451a97cea615ce59c00c x\nafter text\n",
	},
	"nothing":        {"a.catalog": "# only a comment\n"},
	"no text":        {"a.catalog": first + "\n\n" + second + "\nSubject: B\n"},
	"no head":        {"a.catalog": "text\n" + first + "\nSubject: A\n"},
	"short language": {"a.catalog": first + " d\nSubject: A\n"},
}

// TestAgainstJournalctl runs the host's journalctl over the same files.
func TestAgainstJournalctl(t *testing.T) {
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		t.Fatal("this test compares with journalctl (Debian: systemd): ", err)
	}
	for name, files := range catalogs {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ours := tree.New(0)
			const folder = "/usr/lib/systemd/catalog"
			if err := os.MkdirAll(dir+folder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := ours.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, name := range slices.Sorted(maps.Keys(files)) {
				if err := os.WriteFile(filepath.Join(dir, folder, name), []byte(files[name]), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := ours.WriteFile(folder+"/"+name, []byte(files[name]), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			out, theirs := exec.Command(journalctl, "--root", dir, "--update-catalog").CombinedOutput()
			err := Update(ours)
			if (theirs == nil) != (err == nil) {
				t.Fatalf("journalctl: %v\n%s\nwe: %v", theirs, out, err)
			}
			want, _ := os.ReadFile(dir + databasePath)
			got, _ := ours.ReadFile(databasePath)
			if !bytes.Equal(got, want) {
				t.Errorf("journalctl made\n%swe made\n%s", hex.Dump(want), hex.Dump(got))
			}
		})
	}
}

func FuzzReadFile(f *testing.F) {
	for _, files := range catalogs {
		f.Add([]byte(files["a.catalog"]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c catalog
		if err := c.readFile(data, ""); err != nil {
			return
		}
		c.encode()
	})
}
