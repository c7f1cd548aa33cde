package depmod

import (
	"cmp"
	"slices"
)

// kmod keeps modules and symbols in hash tables and writes them in the order
// of its buckets. To write the same bytes, the same order is needed.
const (
	nameBuckets   = 512
	symbolBuckets = 2048
)

// sortByBucket sorts names as a table of that many buckets lists them: by
// bucket, and within one by name.
func sortByBucket(names []string, buckets uint32) {
	type entry struct {
		bucket uint32
		name   string
	}
	entries := make([]entry, len(names))
	for i, n := range names {
		entries[i] = entry{superFastHash(n) & (buckets - 1), n}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.name, b.name))
	})
	for i, e := range entries {
		names[i] = e.name
	}
}

// superFastHash is Paul Hsieh's hash function of that name,
// http://www.azillionmonkeys.com/qed/hash.html.
func superFastHash(s string) uint32 {
	h := uint32(len(s))
	pair := func(i int) uint32 { return uint32(s[i]) | uint32(s[i+1])<<8 }
	for ; len(s) >= 4; s = s[4:] {
		h += pair(0)
		h = h<<16 ^ pair(2)<<11 ^ h
		h += h >> 11
	}
	switch len(s) {
	case 3:
		h += pair(0)
		h ^= h << 16
		h ^= uint32(s[2]) << 18
		h += h >> 11
	case 2:
		h += pair(0)
		h ^= h << 11
		h += h >> 17
	case 1:
		h += uint32(s[0])
		h ^= h << 10
		h += h >> 1
	}
	h ^= h << 3
	h += h >> 5
	h ^= h << 4
	h += h >> 17
	h ^= h << 25
	h += h >> 6
	return h
}
