package main

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/picube/picube-build/builder/disk"
	"github.com/picube/picube-build/builder/ext4"
	"github.com/picube/picube-build/builder/fat"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/layers/nodeconf"
)

// TestMain lets the scripts call this very program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"picube-build": main,
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"makecard": makeCard},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// makeCard is `makecard FILE`: a card with next to nothing on it.
func makeCard(ts *testscript.TestScript, _ bool, args []string) {
	const rootSize, epoch = 16 << 20, 1_750_000_000
	table := disk.ForCard(0xcafe1234, fat.MinSize, rootSize)
	node := nodeconf.Node{Hostname: "rpi1", Board: "rpi3", Role: "node", Cube: "picube", Cluster: "picube",
		Network: nodeconf.Network{Address: "10.42.1.1/16"}}
	text, err := node.Marshal()
	ts.Check(err)
	boot, root := tree.New(epoch), tree.New(epoch)
	ts.Check(errors.Join(
		boot.Mkdir("/picube", 0o755),
		boot.WriteFile("/picube/node.yaml", text, 0o644),
		boot.WriteFile("/config.txt", []byte("kernel=vmlinuz\n"), 0o644),
		root.MkdirAll("/usr/bin", 0o755),
		root.WriteFile("/usr/bin/sudo", []byte("sudo"), 0o4755),
		root.Symlink("usr/bin", "/bin"),
		root.MkdirAll("/boot/firmware", 0o700),
		root.Mkdir("/tmp", 0o1777),
		root.Mknod("/null", tree.TypeChar|0o666, 1, 3),
	))
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	b, r := table.Partitions[0], table.Partitions[1]
	_, err = ext4.Write(context.Background(), io.NewOffsetWriter(f, r.Start), root,
		ext4.Options{Size: r.Size, Label: "rootfs", UUID: [16]byte{0xca, 0xfe}, Epoch: epoch})
	ts.Check(errors.Join(
		err,
		f.Truncate(table.Size()),
		table.Write(f),
		fat.Write(io.NewOffsetWriter(f, b.Start), boot, fat.Options{Size: b.Size, Label: "bootfs", VolumeID: 0x12345678}),
	))
}
