package image

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/picube/picube-build/builder/baseimage"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
)

// maxInitramfs bounds what an initramfs unpacks to.
const maxInitramfs = 1 << 30

// Check looks for whatever would keep a card from starting, or from being what
// was built. The error lists all that was found, one fault per line.
func Check(ctx context.Context, r io.ReaderAt, size int64) error {
	k := checker{card: &Card{}}
	boot, root, err := k.card.openTable(r, size)
	if err != nil {
		return err
	}
	if k.card.Table.ID == 0 {
		k.fault("partition table: the disk has no id, so the kernel can't find its root")
	}
	bootErr, rootErr := k.card.openBoot(section(r, boot)), k.card.openRoot(ctx, section(r, root))
	if k.card.BootFS != nil {
		k.wrap("boot partition", k.card.BootFS.Check())
	}
	if k.card.RootFS != nil {
		k.wrap("root file system", k.card.RootFS.Check(ctx))
	}
	// What can't be opened was most often named by the check already.
	if len(k.faults) == 0 || k.card.BootFS == nil || k.card.RootFS == nil {
		k.add(bootErr)
		k.add(rootErr)
	}
	if bootErr == nil && rootErr == nil {
		k.node()
		k.config()
		k.packages(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(k.faults...)
}

type checker struct {
	card   *Card
	faults []error
}

func (k *checker) fault(format string, args ...any) { k.add(fmt.Errorf(format, args...)) }

func (k *checker) add(err error) {
	if err != nil {
		k.faults = append(k.faults, err)
	}
}

// wrap adds an error with what it is about in front.
func (k *checker) wrap(what string, err error) {
	if err != nil {
		k.add(about(what, err))
	}
}

// node checks node.yaml, the kernel's command line, and what the board's
// firmware and kernel want.
func (k *checker) node() {
	line, err := k.card.Boot.ReadFile("/cmdline.txt")
	want := "root=PARTUUID=" + k.card.RootUUID
	switch {
	case err != nil:
		k.fault("boot partition: %w", err)
	case !slices.Contains(strings.Fields(string(line)), want):
		k.fault("boot file cmdline.txt: cannot find %s, the root partition's name", want)
	case strings.Count(strings.TrimSpace(string(line)), "\n") > 0:
		k.fault("boot file cmdline.txt: the firmware reads one line alone")
	}
	node, err := k.card.Node()
	if err != nil {
		k.add(err)
		return
	}
	board, ok := firmware.Lookup(node.Board)
	if !ok {
		k.fault("boot file picube/node.yaml: cannot find the board %q", node.Board)
		return
	}
	k.bootFiles(board)
}

// bootFiles compares the boot partition, whose format has no checksums, with
// the copies that the root file system has of the same files.
//
// On someone else's image the boot partition is of its maker's making.
func (k *checker) bootFiles(board firmware.Board) {
	if k.card.Root.Exists(baseimage.Note) {
		return
	}
	want, err := bootPartition(k.card.Root, board)
	if err != nil {
		k.wrap("root file system", err)
		return
	}
	for p, n := range want.All() {
		if !n.IsRegular() || p == "/config.txt" {
			continue // config.txt depends on the boards that share the card
		}
		name := strings.TrimPrefix(p, "/")
		got, err := k.card.Boot.Stat(p)
		if err != nil || !got.IsRegular() {
			k.fault("boot file %s: cannot find it", name)
			continue
		}
		switch same, err := equal(got, n); {
		case err != nil:
			k.fault("boot file %s: %w", name, err)
		case !same:
			k.fault("boot file %s: differs from the one that the root file system has", name)
		}
	}
}

// bootPartition is what a card's root says of its boot partition.
func bootPartition(root *tree.Tree, board firmware.Board) (*tree.Tree, error) {
	boards := []firmware.Board{board}
	if board.Raspios.Flavour != "" {
		if _, err := firmware.RaspiosKernels(root, boards); err == nil {
			return firmware.RaspiosBootPartition(root, boards, nil)
		}
	}
	kernel, err := firmware.Kernel(root)
	if err != nil {
		return nil, err
	}
	return firmware.BootPartition(root, firmware.Options{Boards: boards, Kernel: kernel})
}

func equal(a, b *tree.Inode) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	x, y := make([]byte, 1<<18), make([]byte, 1<<18)
	for at := int64(0); at < a.Size(); at += int64(len(x)) {
		n := int(min(int64(len(x)), a.Size()-at))
		for _, side := range []struct {
			n *tree.Inode
			b []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if _, err := io.ReadFull(io.NewSectionReader(side.n.Content, at, int64(n)), side.b); err != nil {
				return false, fmt.Errorf("cannot read it: %w", err)
			}
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// config checks that what config.txt names is there, and the initramfs whole.
func (k *checker) config() {
	text, err := k.card.Boot.ReadFile("/config.txt")
	if err != nil {
		k.fault("boot partition: %w", err)
		return
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "kernel="); ok && !k.card.Boot.Exists("/"+name) {
			k.fault("boot file config.txt: cannot find the kernel %s", name)
		}
		if words := strings.Fields(line); len(words) > 1 && words[0] == "initramfs" {
			k.initramfs(words[1])
		}
	}
}

// initramfs decodes the archive, which carries a checksum.
func (k *checker) initramfs(name string) {
	n, err := k.card.Boot.Stat("/" + name)
	if err != nil || !n.IsRegular() {
		k.fault("boot file config.txt: cannot find the initramfs %s", name)
		return
	}
	if n.Size() == 0 {
		k.fault("boot file %s: it is empty", name)
		return
	}
	magic := make([]byte, 4)
	r := io.NewSectionReader(n.Content, 0, n.Size())
	if _, err := io.ReadFull(r, magic); err != nil || !bytes.Equal(magic, []byte{0x28, 0xB5, 0x2F, 0xFD}) {
		return // one that the node's own initramfs-tools made
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		k.fault("boot file %s: %w", name, err)
		return
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxInitramfs))
	if err == nil {
		defer z.Close()
		_, err = io.Copy(io.Discard, io.LimitReader(z, maxInitramfs))
	}
	if err != nil {
		k.fault("boot file %s: cannot decode it: %w", name, err)
	}
}

// infoDir holds, per package, the MD5 of each of its files but conffiles
// (deb-md5sums(5)): they find damage, no more is asked of them.
const infoDir = "/var/lib/dpkg/info"

// packages compares files with what their packages said of them, as
// dpkg --verify does.
func (k *checker) packages(ctx context.Context) {
	names, err := k.card.Root.ReadDir(infoDir)
	if err != nil {
		k.fault("root file system: cannot find dpkg's database: %w", err)
		return
	}
	sums := map[*tree.Inode]string{} // hard links are read once
	diverted := k.diversions()
	for _, name := range names {
		list, ok := strings.CutSuffix(name, ".md5sums")
		if !ok {
			continue
		}
		text, err := k.card.Root.ReadFile(path.Join(infoDir, name))
		if err != nil {
			k.fault("root file system: %w", err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			if ctx.Err() != nil {
				return
			}
			want, file, ok := strings.Cut(strings.TrimSpace(line), "  ")
			if !ok {
				continue
			}
			file = "/" + file
			if d, ok := diverted[file]; ok && d.by != strings.Split(list, ":")[0] {
				file = d.to
			}
			k.packageFile(list, file, want, sums)
		}
	}
}

// diversion sends one path of all packages but one elsewhere.
type diversion struct{ to, by string }

// diversions reads dpkg-divert(1)'s list: three lines each, the path, where it
// is instead, and the package that keeps the path.
func (k *checker) diversions() map[string]diversion {
	text, err := k.card.Root.ReadFile("/var/lib/dpkg/diversions")
	if err != nil {
		return nil // there are none
	}
	found := map[string]diversion{}
	lines := strings.Split(string(text), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		found[lines[i]] = diversion{to: lines[i+1], by: lines[i+2]}
	}
	return found
}

func (k *checker) packageFile(list, file, want string, sums map[*tree.Inode]string) {
	n, err := k.card.Root.Stat(file)
	if errors.Is(err, fs.ErrNotExist) && k.card.Root.Exists(baseimage.Note) {
		return // makers of images leave out manual pages and translations
	}
	if err != nil || !n.IsRegular() {
		k.fault("package %s: cannot find %s", list, file)
		return
	}
	got, seen := sums[n]
	if !seen {
		h := md5.New()
		if n.Content != nil {
			if _, err := io.Copy(h, io.NewSectionReader(n.Content, 0, n.Size())); err != nil {
				k.fault("package %s: file %s: %w", list, file, err)
				return
			}
		}
		got = hex.EncodeToString(h.Sum(nil))
		sums[n] = got
	}
	if got != want {
		k.fault("package %s: file %s: differs from the package's", list, file)
	}
}
