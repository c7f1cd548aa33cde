package output

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/tree"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFolderKnowsWhatIsUntouched(t *testing.T) {
	img := Image{Name: "rpi1.img", Inputs: "aa", Size: 4, SHA256: "bb", CardSize: 4, CardSHA256: "bb"}
	for _, c := range []struct {
		name  string
		touch func(t *testing.T, dir string)
		known bool
	}{
		{"untouched", func(*testing.T, string) {}, true},
		{"gone", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "rpi1.img")) }, false},
		{"longer", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "rpi1.img"), "longer") }, false},
		{"written again", func(t *testing.T, dir string) {
			if err := os.Chtimes(filepath.Join(dir, "rpi1.img"), time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"records damaged", func(t *testing.T, dir string) { write(t, filepath.Join(dir, RecordsFile), `{"rpi1.img": {`) }, false},
		{"records empty", func(t *testing.T, dir string) { write(t, filepath.Join(dir, RecordsFile), "null") }, false},
		{"records lost", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, RecordsFile)) }, false},
		{"removed", func(t *testing.T, dir string) {
			if err := Open(dir).Remove("rpi1.img"); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "rpi1.img"), "card")
			if err := Open(dir).Record(img); err != nil {
				t.Fatal(err)
			}
			c.touch(t, dir)
			folder := Open(dir)
			got, known := folder.Lookup("rpi1.img")
			if known != c.known || known && got != img {
				t.Errorf("known: %t, want %t; %+v", known, c.known, got)
			}
			if info, err := os.Stat(filepath.Join(dir, "rpi1.img")); err == nil {
				again := img
				again.Size = info.Size()
				if err := folder.Record(again); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestRecordRefusesAnotherSize(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rpi1.img"), "card")
	if err := Open(dir).Record(Image{Name: "rpi1.img", Size: 5}); err == nil {
		t.Error("an image of another size was recorded")
	}
}

func TestReplaceLeavesNothingHalf(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := Replace(name, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := Create(name, func(f *os.File) error {
		f.WriteString("half")
		return os.ErrDeadlineExceeded
	}); err == nil {
		t.Error("a failed write was taken")
	}
	got, _ := os.ReadFile(name)
	list, _ := os.ReadDir(dir)
	if string(got) != "one" || len(list) != 1 {
		t.Errorf("%q and %d files are left", got, len(list))
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
}

func TestSum(t *testing.T) {
	image := make([]byte, 1<<20)
	copy(image[1000:], bytes.Repeat([]byte("data"), 100_000))
	copy(image[len(image)-3:], "end")
	data := []tree.Range{{Offset: 1000, Length: 400_000}, {Offset: int64(len(image)) - 3, Length: 3}}
	want := sha256.Sum256(image)
	got, err := Sum(t.Context(), bytes.NewReader(image), int64(len(image)), data)
	if err != nil || got != hex.EncodeToString(want[:]) {
		t.Errorf("%s, want %x; error: %v", got, want, err)
	}
	for name, data := range map[string][]tree.Range{
		"beyond the end": {{Offset: 1 << 20, Length: 1}},
		"out of order":   {{Offset: 5, Length: 2}, {Offset: 6, Length: 1}},
	} {
		if _, err := Sum(t.Context(), bytes.NewReader(image), 1<<20, data); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Sum(t.Context(), bytes.NewReader(nil), 10, []tree.Range{{Offset: 0, Length: 10}}); err == nil {
		t.Error("a short image was taken")
	}
}

func TestSumsAreReadBySha256sum(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "rpi1.img"), "card")
	sum := sha256.Sum256([]byte("card"))
	write(t, filepath.Join(dir, SumsFile), string(Sums([]Image{{Name: "rpi1.img", SHA256: hex.EncodeToString(sum[:])}})))
	cmd := exec.Command("sha256sum", "--strict", "-c", SumsFile)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func manifest() Manifest {
	card := func(node, board string) Card {
		return Card{Node: node, Role: "node", Board: board, Model: "A board", Address: "10.42.1.1/16",
			Image: Image{Name: node + ".img.xz", Size: 9, CardSize: 99, SHA256: "aa", CardSHA256: "bb"}}
	}
	return Manifest{Cube: "picube", Created: "2026-11-22T00:49:37Z", Cards: []Card{card("rpi 1", "rpi4"), card("test", "virt")}}
}

func TestManifestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	text, err := manifest().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ManifestFile), string(text))
	m, err := ReadManifest(dir)
	if err != nil || len(m.Cards) != 2 || m.Cards[0].Name != "rpi 1.img.xz" || m.Cards[0].CardSize != 99 {
		t.Errorf("%+v; error: %v", m, err)
	}
	for bad, want := range map[string]string{
		"{":             "cannot read it",
		`{"format": 2}`: "cannot read format 2",
		`{"format": 1, "cards": [{"node": "a", "image": "../b"}]}`: "cannot use",
	} {
		write(t, filepath.Join(dir, ManifestFile), bad)
		if _, err := ReadManifest(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}

func TestImagerHasWhatItsSchemaAsks(t *testing.T) {
	text, err := manifest().Imager("/out/picube")
	if err != nil {
		t.Fatal(err)
	}
	var catalogue struct {
		Imager struct{ Devices []map[string]any }
		List   []map[string]any `json:"os_list"`
	}
	if err := json.Unmarshal(text, &catalogue); err != nil || len(catalogue.List) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	e := catalogue.List[0]
	for _, field := range []string{"name", "description", "icon", "url", "extract_size", "extract_sha256",
		"image_download_size", "release_date", "devices"} {
		if e[field] == nil || e[field] == "" {
			t.Errorf("%s is missing", field)
		}
	}
	// Imager goes on only when one of the devices is chosen, and then offers
	// what shares a tag with it.
	if d := catalogue.Imager.Devices; len(d) != 1 || d[0]["name"] == "" || d[0]["description"] == "" || !reflect.DeepEqual(d[0]["tags"], e["devices"]) {
		t.Errorf("devices %v for %v", d, e["devices"])
	}
	if e["url"] != "file:///out/picube/rpi%201.img.xz" || e["init_format"] != "none" || e["release_date"] != "2026-11-22" {
		t.Errorf("%s", text)
	}
}
