package deb

import (
	"bytes"
	"testing"
)

func FuzzReadIndex(f *testing.F) {
	x := &index{
		segments: []segment{{1000, 1}, {24, 2}},
		control:  map[string][]byte{"control": []byte("Package: x\n"), "postinst": nil},
		records: []record{
			{path: "/", mode: 0o40755},
			{path: "/a", mode: 0o100644, uid: 1, gid: 2, modTime: 3, offset: 512, size: 5},
			{path: "/b", mode: 0o100644, link: 2},
			{path: "/c", mode: 0o120777, target: "b"},
		},
	}
	f.Add(x.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseIndex(b)
		if err != nil {
			return
		}
		data := x.size()
		y, err := parseIndex(x.encode())
		if err != nil || y.size() != data || !bytes.Equal(y.encode(), x.encode()) {
			t.Errorf("read %+v, then %+v, %v", x, y, err)
		}
		for _, e := range (&Package{pack: &pack{index: x}}).Entries() {
			_ = e.Inode.Size()
		}
	})
}
