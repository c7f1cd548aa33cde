package ext4_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/picube/picube-build/builder/tree"
)

// pattern is a content of pseudo-random bytes that needs no memory. Every
// zeroth-th block of 4096 bytes is zeros.
type pattern struct {
	seed, size int64
	zeroth     int64
}

func (p pattern) Size() int64 { return p.size }

func (p pattern) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(min(int64(len(b)), p.size-off), 0))
	for i := range n {
		at := off + int64(i)
		if p.zeroth > 0 && at>>12%p.zeroth == 0 {
			b[i] = 0
			continue
		}
		x := uint64(at>>3+p.seed) * 0x9e3779b97f4a7c15
		b[i] = byte((x ^ x>>29) >> (at & 7 * 8))
	}
	if n < len(b) {
		return n, fmt.Errorf("read past the end")
	}
	return n, nil
}

// holes is a pattern of which only some ranges hold data.
type holes struct {
	pattern
	data []tree.Range
}

func (h holes) Data() []tree.Range { return h.data }

func (h holes) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(min(int64(len(b)), h.size-off), 0))
	clear(b[:n])
	for _, r := range h.data {
		from, to := max(r.Offset, off), min(r.Offset+r.Length, off+int64(n))
		if from < to {
			h.pattern.ReadAt(b[from-off:to-off], from)
		}
	}
	if n < len(b) {
		return n, fmt.Errorf("read past the end")
	}
	return n, nil
}

// randomTree makes a tree of about n entries with everything that the format
// can hold.
func randomTree(r *rand.Rand, n int) *tree.Tree {
	t := tree.New(1700000000)
	dirs := []string{""}
	var files []string
	name := func() string {
		s := fmt.Sprintf("%x", r.Uint64())
		switch r.IntN(8) {
		case 0:
			s += strings.Repeat("n", 255-len(s))
		case 1:
			s += "äö\xff \n"
		case 2:
			s = s[:min(3, len(s))]
		}
		return s
	}
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	for range n {
		dir := dirs[len(dirs)-1-r.IntN(min(len(dirs), 20))]
		if r.IntN(3) == 0 {
			dir = dirs[r.IntN(len(dirs))]
		}
		p := dir + "/" + name()
		if t.Exists(p) {
			continue
		}
		in := &tree.Inode{
			Mode: r.Uint32() & tree.PermMask, UID: r.Uint32() >> r.IntN(32), GID: r.Uint32() >> r.IntN(32),
			ModTime: r.Int64N(3<<32) - 1<<31,
		}
		switch r.IntN(12) {
		case 0, 1:
			check(t.Mkdir(p, 0o755))
			in.Mode |= tree.TypeDir
			dirs = append(dirs, p)
		case 2:
			in.Mode = tree.TypeSymlink | 0o777
			in.Target = strings.Repeat("/t", 1+r.IntN(40))
			if r.IntN(5) == 0 {
				in.Target = strings.Repeat("x", 1+r.IntN(4095))
			}
		case 3:
			in.Mode |= []uint32{tree.TypeFifo, tree.TypeSocket, tree.TypeChar, tree.TypeBlock}[r.IntN(4)]
			if in.Type() == tree.TypeChar || in.Type() == tree.TypeBlock {
				in.Major, in.Minor = 1+r.Uint32N(1<<12-1)>>r.IntN(12), r.Uint32N(1<<20)>>r.IntN(20)
			}
		case 4:
			if len(files) > 0 {
				check(t.Link(files[r.IntN(len(files))], p))
				continue
			}
			fallthrough
		case 5:
			h := holes{pattern: pattern{seed: r.Int64N(1 << 40), size: r.Int64N(1 << r.IntN(36))}}
			step := int64(1 + r.IntN(100000))
			for at := r.Int64N(step); at+step < h.size && len(h.data) < r.IntN(3000); at += step + r.Int64N(step*4) {
				h.data = append(h.data, tree.Range{Offset: at, Length: r.Int64N(step)})
			}
			in.Mode |= tree.TypeRegular
			in.Content = h
		default:
			in.Mode |= tree.TypeRegular
			in.Content = pattern{r.Int64N(1 << 40), r.Int64N(1 << r.IntN(21)), int64(r.IntN(4))}
		}
		if r.IntN(6) == 0 && !in.IsSymlink() {
			in.Xattrs = map[string]string{}
			for range 1 + r.IntN(5) {
				k := []string{"user.a", "user.longer.name", "trusted.t", "security.selinux", "user.empty"}[r.IntN(5)]
				if strings.HasPrefix(k, "user.") && !in.IsDir() && !in.IsRegular() {
					continue // the kernel would not show it
				}
				in.Xattrs[k] = strings.Repeat("v\x00", r.IntN(40)) + k
			}
			if r.IntN(3) == 0 { // the kernel insists on these two being well-formed
				in.Xattrs["security.capability"] = "\x01\x00\x00\x02\x00\x04" + strings.Repeat("\x00", 14)
			}
			if r.IntN(4) == 0 {
				in.Xattrs["system.posix_acl_access"] = "\x02\x00\x00\x00" +
					"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
					"\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x01\x00\xff\xff\xff\xff"
			}
		}
		check(t.Put(p, in))
		if in.IsRegular() {
			files = append(files, p)
		}
	}
	if r.IntN(3) == 0 { // a directory with an index
		dir := dirs[r.IntN(len(dirs))] + "/large"
		check(t.MkdirAll(dir, 0o755))
		for i := range r.IntN(4000) {
			check(t.WriteFile(fmt.Sprintf("%s/entry-%d-%s", dir, i, strings.Repeat("l", r.IntN(150))), nil, 0o644))
		}
	}
	return t
}
