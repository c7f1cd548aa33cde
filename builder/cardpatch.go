package builder

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/bmap"
	"github.com/picube/picube-build/builder/compress"
	"github.com/picube/picube-build/builder/output"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
)

// takeOver finds cards an image that they can be made of: one of a node that the
// blueprint no longer has, most likely because its host name was changed.
func (f *cubeFolder) takeOver() {
	var left []string // nodes
	for _, img := range f.Images() {
		name, plain := strings.CutSuffix(img.Name, ".img")
		if plain && !slices.ContainsFunc(f.cube.Nodes, func(n *plan.Node) bool { return n.Name == name }) {
			left = append(left, name)
		}
	}
	for i := range f.cards {
		c := &f.cards[i]
		if _, err := os.Lstat(c.path); c.kept || c.compress != compress.None || err == nil {
			continue
		}
		at := slices.IndexFunc(left, func(name string) bool { _, ok := c.sameRoot(f.Folder, name); return ok })
		if at >= 0 {
			c.former = left[at]
			left = slices.Delete(left, at, at+1)
		}
	}
}

// patch makes the card of an image that lies there already, its own or its
// former node's, if that is from the same root and nobody else sees it: another
// host name changes some bytes of a boot partition, and is no reason to copy a
// root file system. change is given the image under a temporary name, and which
// ranges before the root may not be zero. Without such an image patch returns
// false and changes nothing.
func (c card) patch(folder *output.Folder, change func(f *os.File, used []tree.Range) error) (done bool, err error) {
	node := cmp.Or(c.former, c.node.Name)
	used, ok := c.sameRoot(folder, node)
	if !ok {
		return false, nil
	}
	from := filepath.Join(folder.Dir, node+".img")
	f, err := os.OpenFile(from, os.O_RDWR, 0)
	if err != nil {
		return false, nil // writing it anew tells why
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tmp := filepath.Join(folder.Dir, "."+filepath.Base(c.path)+"-0")
	if err := os.Rename(from, tmp); err != nil {
		return false, err
	}
	if !output.Alone(f) {
		return false, os.Rename(tmp, from)
	}
	if err := change(f, used); err != nil {
		return false, errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, c.path); err != nil || c.former == "" {
		return true, err
	}
	return true, errors.Join(folder.Remove(c.former+".img"), folder.Remove(c.former+bmapSuffix))
}

// sameRoot returns what of a node's image that lies there is in use before its
// root, which is this card's.
func (c card) sameRoot(folder *output.Folder, node string) (used []tree.Range, ok bool) {
	table := c.table()
	img, ok := folder.Lookup(node + ".img")
	if !ok || img.CardSize != table.Size() {
		return nil, false
	}
	text, err := os.ReadFile(filepath.Join(folder.Dir, node+bmapSuffix))
	if err != nil {
		return nil, false
	}
	m, err := bmap.Parse(text)
	if err != nil || m.ImageSize != table.Size() || m.BlockSize != bmap.BlockSize {
		return nil, false
	}
	start := table.Partitions[1].Start
	root := slices.IndexFunc(m.Ranges, func(r bmap.Range) bool { return r.First*m.BlockSize >= start })
	if root < 0 {
		return nil, false
	}
	for _, r := range m.Ranges[:root] {
		used = append(used, m.Bytes(r))
	}
	return used, slices.EqualFunc(m.Ranges[root:], c.root.Map.Ranges, func(a, b bmap.Range) bool {
		shift := start / bmap.BlockSize
		return a == bmap.Range{First: b.First + shift, Last: b.Last + shift, Sum: b.Sum}
	})
}

// patchFile writes only what differs from what is there.
type patchFile struct{ *os.File }

func (p patchFile) WriteAt(b []byte, off int64) (n int, err error) {
	old := make([]byte, min(len(b), 256<<10))
	for n < len(b) && err == nil {
		part := b[n:min(n+len(old), len(b))]
		at, k := off+int64(n), len(part)
		if m, _ := p.ReadAt(old[:k], at); m < k || !bytes.Equal(old[:k], part) {
			k, err = p.File.WriteAt(part, at)
		}
		n += k
	}
	return n, err
}

// clearRest writes zeros where used ranges are not among data, which ascends.
func clearRest(w io.WriterAt, used, data []tree.Range) error {
	zeros := make([]byte, 64<<10)
	fill := func(at, end int64) error {
		for at < end {
			n, err := w.WriteAt(zeros[:min(end-at, int64(len(zeros)))], at)
			if err != nil {
				return err
			}
			at += int64(n)
		}
		return nil
	}
	for _, u := range used {
		at, end := u.Offset, u.Offset+u.Length
		for _, d := range data {
			if d.Offset >= end || d.Offset+d.Length <= at {
				continue
			}
			if err := fill(at, d.Offset); err != nil {
				return err
			}
			at = d.Offset + d.Length
		}
		if err := fill(at, end); err != nil {
			return err
		}
	}
	return nil
}
