package localearchive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/picube/picube-build/builder/tree"
)

// compiled makes the categories of a locale: sizes in bytes, one category
// after the other; the rest are small. Contents depend on seed and category.
func compiled(seed int, codeset string, sizes ...int) Categories {
	var c Categories
	for i := range c {
		if i == all {
			continue
		}
		size := 40 + i
		if i < len(sizes) {
			size = sizes[i]
		}
		c[i] = bytes.Repeat([]byte{byte(seed), byte(i), 7}, size/3+1)[:size]
	}
	const names = 8 + 4*15
	c[ctype] = append(make([]byte, names), append([]byte(codeset+"\x00"), c[ctype]...)...)
	binary.LittleEndian.PutUint32(c[ctype][8+4*14:], names)
	return c
}

type locale struct {
	name string
	c    Categories
}

const aliases = `# comment
german		de_DE.ISO-8859-1
deutsch  de_DE.iso88591 more
nocodeset de_DE
thai th_TH.TIS-620
 indented	en_US.UTF-8
euro de_DE.UTF-8@euro
broken
`

var archives = map[string][]locale{
	"one":            {{"en_US.UTF-8", compiled(1, "UTF-8", 9000, 10, 3000)}},
	"no codeset":     {{"de_DE", compiled(1, "ISO-8859-1", 9000)}},
	"modifier":       {{"de_DE.UTF-8@euro", compiled(1, "UTF-8", 9000)}},
	"shared data":    {{"de_DE.UTF-8", compiled(1, "UTF-8", 9000, 20, 5000, 70000)}, {"de_AT.UTF-8", compiled(1, "UTF-8", 9000, 21, 5000, 70000)}},
	"twice":          {{"de_DE.UTF-8", compiled(1, "UTF-8")}, {"de_DE.UTF-8", compiled(2, "UTF-8")}},
	"all small":      {{"de_DE.UTF-8", compiled(1, "UTF-8", 100, 100)}, {"en_US.UTF-8", compiled(2, "UTF-8", 100, 200)}},
	"page alignment": {{"de_DE.UTF-8", compiled(1, "UTF-8", 9000, 2000, 3000, 8000)}, {"en_US.UTF-8", compiled(1, "UTF-8", 9000, 2001, 3000, 8000)}, {"fr_FR.UTF-8", compiled(3, "UTF-8", 9000, 2001, 3000, 8000)}},
	"digits":         {{"ru_RU.8859-5", compiled(1, "ISO-8859-5", 9000)}},
}

// TestAgainstLocaledef lets the host's localedef add the same compiled
// locales to an archive.
func TestAgainstLocaledef(t *testing.T) {
	for name, locales := range archives {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			aliasFile := filepath.Join(dir, "locale.alias")
			write(t, aliasFile, []byte(aliases))
			if err := os.MkdirAll(filepath.Join(dir, "/usr/lib/locale"), 0o755); err != nil {
				t.Fatal(err)
			}
			ours := tree.New(0)
			if err := ours.MkdirAll("/usr/share/locale", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := ours.WriteFile(aliasPath, []byte(aliases), 0o644); err != nil {
				t.Fatal(err)
			}
			for i, l := range locales {
				// localedef names a locale like its folder.
				from := filepath.Join(dir, fmt.Sprint(i), l.name)
				for i, file := range files {
					if i != all {
						write(t, filepath.Join(from, file), l.c[i])
					}
				}
				cmd := exec.Command("localedef", "--prefix", dir, "--add-to-archive", "--quiet", "-A", aliasFile, from)
				if out, err := cmd.CombinedOutput(); err != nil && name != "twice" {
					t.Fatalf("this test compares with localedef (Debian: libc-bin): %v\n%s", err, out)
				}
				if err := Add(ours, l.name, l.c); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(filepath.Join(dir, archivePath))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ours.ReadFile(archivePath)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				t.Errorf("%d bytes, localedef made %d; they differ from byte %d on", len(got), len(want), at)
			}
		})
	}
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReadCategories(t *testing.T) {
	all := tree.New(0)
	if err := all.MkdirAll("/usr/lib/locale/de_DE.utf8@euro/LC_MESSAGES", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file == "" {
			continue
		}
		if err := all.WriteFile("/usr/lib/locale/de_DE.utf8@euro/"+file, []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := ReadCategories(all, "de_DE.UTF-8@euro")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c[5]) + " " + string(c[12]); got != "LC_MESSAGES/SYS_LC_MESSAGES LC_IDENTIFICATION" {
		t.Error(got)
	}
	if _, err := ReadCategories(all, "xx_XX.UTF-8"); err == nil || !strings.Contains(err.Error(), "cannot read locale xx_XX.UTF-8") {
		t.Errorf("error %v", err)
	}
}

func TestFull(t *testing.T) {
	a := &archive{empty()}
	var err error
	for i := 0; err == nil && i < 2000; i++ {
		_, err = a.add(fmt.Sprintf("l%d", i), compiled(i, "UTF-8", 9000, i))
	}
	if err != errFull {
		t.Errorf("error %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	a := &archive{empty()}
	if err := a.addWithAliases("de_DE", archives["no codeset"][0].c, aliases); err != nil {
		f.Fatal(err)
	}
	f.Add(a.data[:tablesEnd+100], "de_DE.UTF-8")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		a, err := open(data)
		if err != nil {
			return
		}
		if err := a.addWithAliases(name, compiled(1, "UTF-8", 9000), aliases); err != nil {
			return
		}
	})
}
