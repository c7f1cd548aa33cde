package dpkg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/debian/deb"
	"github.com/picube/picube-build/builder/tree"
)

type nothing struct{}

func (nothing) Run(ctx context.Context, s Script) error { return nil }

func load(t *testing.T, list string) []Archive {
	urls, _ := os.ReadFile(list)
	st := deb.NewStore("/var/tmp/dpkgwork/store", time.Now)
	var files []deb.File
	for _, u := range strings.Fields(string(urls)) {
		n := strings.NewReplacer("%2b", "+", "%7e", "~", "%3a", ":").Replace(filepath.Base(u))
		p := "/var/tmp/picube-debs/" + n
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(b)
		files = append(files, deb.File{Name: n, Path: p, SHA256: hex.EncodeToString(h[:]), Size: int64(len(b))})
	}
	ps, err := st.OpenAll(context.Background(), files, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []Archive
	for _, p := range ps {
		out = append(out, Archive{p.Control, p.Entries})
	}
	return out
}

func TestDev(t *testing.T) {
	as := load(t, "/var/tmp/dpkgwork/amd64/picube.urls")
	t0 := time.Now()
	tr := tree.New(1793491200)
	db, err := Open(tr, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := os.Create("/var/tmp/dpkgwork/order")
	res, err := db.Install(context.Background(), as, nothing{}, Options{Progress: func(s Step) { fmt.Fprintln(f, s.Action, s.Package.Name) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(t0))
	for k, v := range res.Failed {
		t.Log(k, v)
	}
	os.WriteFile("/var/tmp/dpkgwork/status.mine", db.Status(), 0o644)
}
