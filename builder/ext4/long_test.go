//go:build long

package ext4_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/tree"
)

var (
	longFor  = flag.Duration("for", time.Minute, "how long TestManyRandomTrees runs")
	longSeed = flag.Uint64("seed", 1, "the first seed of TestManyRandomTrees")
)

// Random trees in images of random sizes, for instance
//
//	go test -tags long -run ManyRandom -for 1h -timeout 2h ./builder/ext4
func TestManyRandomTrees(t *testing.T) {
	end := time.Now().Add(*longFor)
	seed := *longSeed
	for ; time.Now().Before(end); seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			tr := randomTree(r, 1+r.IntN(1<<r.IntN(12)))
			o := options
			if o.Free = r.Int64N(1 << r.IntN(38)); r.IntN(3) == 0 {
				o.Free = 0
			}
			for i := range o.HashSeed {
				o.HashSeed[i] = byte(r.Uint32() * (r.Uint32() & 1))
			}
			roundTrip(t, tr, o)
		})
		if !ok {
			return
		}
	}
	t.Logf("seeds %d to %d", *longSeed, seed-1)
}

func TestHugeImages(t *testing.T) {
	for _, size := range []int64{200 << 30, 1 << 40, 5 << 40} {
		o := options
		o.Size = size
		img := roundTrip(t, randomTree(rand.New(rand.NewPCG(7, 7)), 500), o)
		if size <= 1<<40 {
			run(t, "truncate", "-s", fmt.Sprint(size*2), img)
			run(t, "resize2fs", img)
			run(t, "e2fsck", "-fn", img)
		}
	}
}

// marked is a large content that is quickly made: the number of each MiB.
type marked struct{ size int64 }

func (m marked) Size() int64 { return m.size }

func (m marked) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	for i := (-off) & (1<<20 - 1); i < int64(len(b)); i += 1 << 20 {
		b[i] = byte((off+i)>>20) | 1
	}
	return len(b), nil
}

func TestHugeFile(t *testing.T) {
	tr := tree.New(1700000000)
	for i, size := range []int64{5<<30 + 1, 1 << 20} {
		if err := tr.WriteContent(fmt.Sprintf("/huge%d", i), marked{size}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(t, tr, options)
}

// More subdirectories than a link count can say.
func TestManySubdirectories(t *testing.T) {
	tr := tree.New(1700000000)
	for i := range 65100 {
		if err := tr.MkdirAll(fmt.Sprintf("/many/%d", i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	roundTrip(t, tr, options)
}
