//go:build long

package boot

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/builder/debtest"
	"github.com/picube/picube-build/builder/plan"
	"github.com/picube/picube-build/builder/tree"
	"github.com/picube/picube-build/firmware"
)

// TestHook runs raspi-firmware's own hook on what Apply wrote, as a kernel
// upgrade on the card would, and compares the boot partition it makes with
// ours.
func TestHook(t *testing.T) {
	const kernel = "6.12.107+deb13-arm64"
	root := tree.New(0)
	debtest.Unpack(t, root, debtest.Deb(t, debtest.Firmware("arm64"), "raspi-firmware"))
	script, err := root.ReadFile("/etc/kernel/postinst.d/z50-raspi-firmware")
	if err != nil {
		t.Fatal(err)
	}
	trees := "/usr/lib/linux-image-" + kernel + "/broadcom"
	if err := errors.Join(root.MkdirAll(trees, 0o755), root.MkdirAll("/boot", 0o755),
		root.WriteFile("/boot/vmlinuz-"+kernel, []byte("kernel"), 0o644),
		root.WriteFile("/boot/initrd.img-"+kernel, []byte("initramfs"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r := &plan.Root{Boards: []string{"cm4", "rpi3", "rpi4", "zero2w"}, Cube: &blueprint.Cube{}}
	boards, err := boards(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boards {
		for _, name := range b.DeviceTrees {
			if err := root.WriteFile(trees+"/"+name, []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := (Layer{}).Apply(r, root); err != nil {
		t.Fatal(err)
	}
	ours, err := firmware.BootPartition(root, firmware.Options{Boards: boards, Kernel: kernel, Initramfs: tree.Bytes([]byte("initramfs"))})
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.WriteFile("/cmdline.txt", []byte(firmware.CommandLine(boards, "LABEL=rootfs")), 0o644); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	for p, n := range root.All() {
		name := filepath.Join(dir, p)
		if n.IsDir() {
			err = os.MkdirAll(name, 0o755)
		} else if data, rerr := root.ReadFile(p); rerr == nil {
			err = os.WriteFile(name, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tools := t.TempDir()
	for name, text := range map[string]string{"ischroot": "exit 0", "dpkg": "echo arm64"} {
		if err := os.WriteFile(filepath.Join(tools, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	moved := strings.NewReplacer("/boot/", dir+"/boot/", "/etc/default/", dir+"/etc/default/", "/usr/lib/linux-image", dir+"/usr/lib/linux-image").Replace(string(script))
	cmd := exec.Command("dash", "-c", "cp -r "+dir+"/usr/lib/raspi-firmware/* "+dir+"/boot/firmware/\n"+moved)
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "DEB_MAINT_PARAMS=configure")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("hook: %v\n%s", err, out)
	}

	theirs := map[string]string{}
	base := filepath.Join(dir, "boot/firmware")
	err = filepath.Walk(base, func(p string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		theirs[strings.TrimPrefix(p, base)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for p, n := range ours.All() {
		if n.IsRegular() {
			data, err := ours.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			want[p] = string(data)
		}
	}
	for _, m := range []map[string]string{want, theirs} {
		m["/config.txt"] = settings(m["/config.txt"])
	}
	if diff := cmp.Diff(theirs, want); diff != "" {
		t.Errorf("(-hook +ours):\n%s", diff)
	}
}

// settings drops comments and empty lines.
func settings(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if s := strings.TrimSpace(line); s != "" && !strings.HasPrefix(s, "#") {
			out.WriteString(s + "\n")
		}
	}
	return out.String()
}
