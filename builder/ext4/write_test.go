package ext4_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/tree"
)

var options = ext4.Options{
	Label: "rootfs", Epoch: 1700000000,
	UUID:     [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	HashSeed: [16]byte{0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0},
}

// write writes a tree to a new image.
func write(t testing.TB, tr *tree.Tree, o ext4.Options) (string, ext4.Result) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "root.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := ext4.Write(context.Background(), f, tr, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(max(o.Size, res.Size)); err != nil {
		t.Fatal(err)
	}
	return name, res
}

// run runs a tool, with a fixed time if it is one of e2fsprogs, and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000", "PATH=/usr/sbin:/sbin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestRandomTrees(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			tr := randomTree(rand.New(rand.NewPCG(seed, 1)), 20<<seed)
			img, _ := write(t, tr, options)
			run(t, "e2fsck", "-fn", img)
			compare(t, readTree(t, img), tr)
			check(t, img)
		})
	}
}
