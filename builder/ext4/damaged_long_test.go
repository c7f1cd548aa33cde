//go:build long

package ext4_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var damagedFor = flag.Duration("damaged-for", time.Minute, "how long TestManyDamagedImages runs")

// Images damaged at random, as many as there is time for; a minute is enough
// for some ten thousand:
//
//	go test -tags long -run ManyDamaged -damaged-for 3h -timeout 4h ./builder/ext4
//
// That none hangs is what the limit of go test is for; single ones that take
// long are told.
func TestManyDamagedImages(t *testing.T) {
	images := fuzzImages(t)
	var used [][]int
	for _, img := range images {
		used = append(used, blocksInUse(img))
	}
	n, slowest := 0, time.Duration(0)
	for end := time.Now().Add(*damagedFor); time.Now().Before(end); n++ {
		r := rand.New(rand.NewPCG(*longSeed, uint64(n)))
		which := r.IntN(len(images))
		img := images[which]
		type change struct {
			at  int
			old byte
		}
		var changes []change
		for range 1 + r.IntN(12) {
			at := used[which][r.IntN(len(used[which]))] + r.IntN(1024)
			value := byte(r.Uint32())
			switch r.IntN(4) {
			case 0:
				value = 0
			case 1:
				value = 0xff
			case 2:
				value = img[at] ^ 1<<r.IntN(8)
			}
			changes = append(changes, change{at, img[at]})
			img[at] = value
		}
		begin := time.Now()
		readAll(t, img)
		if took := time.Since(begin); took > slowest {
			slowest = took
			t.Logf("image %d, damage %d: %v", which, n, took)
		}
		for i := len(changes) - 1; i >= 0; i-- {
			img[changes[i].at] = changes[i].old
		}
		if n%20000 == 0 {
			t.Logf("%d images", n)
		}
	}
	t.Logf("%d images, the slowest took %v", n, slowest)
}
