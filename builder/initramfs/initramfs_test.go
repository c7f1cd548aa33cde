package initramfs

import (
	"bytes"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/picube/picube-build/builder/tree"
)

const kernel = "6.12.107+deb13-arm64"

func packed(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func root(t *testing.T, change map[string]string) *tree.Tree {
	t.Helper()
	files := map[string]string{
		"/boot/config-" + kernel: "# CONFIG\nCONFIG_RD_ZSTD=y\n",
		"modules.dep": `kernel/fs/ext4/ext4.ko.gz: kernel/lib/crc16.ko.gz kernel/fs/mbcache.ko.gz kernel/fs/jbd2/jbd2.ko.gz
kernel/fs/mbcache.ko.gz:
kernel/fs/jbd2/jbd2.ko.gz:
kernel/lib/crc16.ko.gz:
kernel/drivers/mmc/host/sdhci-iproc.ko: kernel/drivers/mmc/host/sdhci-pltfm.ko kernel/drivers/mmc/host/sdhci.ko
kernel/drivers/mmc/host/sdhci-pltfm.ko: kernel/drivers/mmc/host/sdhci.ko
kernel/drivers/mmc/host/sdhci.ko:
`,
		"modules.builtin":                         "kernel/drivers/virtio/virtio_pci.ko\n",
		"kernel/fs/ext4/ext4.ko.gz":               packed(t, "ext4!"),
		"kernel/fs/mbcache.ko.gz":                 packed(t, "mbcache!"),
		"kernel/fs/jbd2/jbd2.ko.gz":               packed(t, "jbd2!"),
		"kernel/lib/crc16.ko.gz":                  packed(t, "crc16!"),
		"kernel/drivers/mmc/host/sdhci-iproc.ko":  "iproc!",
		"kernel/drivers/mmc/host/sdhci-pltfm.ko":  "pltfm!",
		"kernel/drivers/mmc/host/sdhci.ko":        "sdhci!",
		"kernel/drivers/mmc/host/never-needed.ko": "never!",
	}
	for p, s := range change {
		files[p] = s
	}
	out := tree.New(1_700_000_000)
	for p, s := range files {
		if !strings.HasPrefix(p, "/") {
			p = path.Join("/usr/lib/modules", kernel, p)
		}
		if err := out.MkdirAll(path.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if s == "" {
			continue
		}
		if err := out.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// run pipes data through a program.
func run(t *testing.T, data []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = t.TempDir(), bytes.NewReader(data)
	cmd.Env = append(cmd.Environ(), "TZ=UTC", "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

func TestBuild(t *testing.T) {
	modules := []string{"ext4", "sdhci_iproc", "virtio-pci", "sdhci-iproc"}
	var first, second bytes.Buffer
	if err := Build(root(t, nil), kernel, []byte("the init program"), modules, &first); err != nil {
		t.Fatal(err)
	}
	if err := Build(root(t, nil), kernel, []byte("the init program"), modules, &second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("a second build differs")
	}
	archive := run(t, first.Bytes(), "zstd", "-dc")
	want := `drwxr-xr-x   2 root     root            0 Nov 14  2023 dev
drwxr-xr-x   2 root     root            0 Nov 14  2023 proc
drwxr-xr-x   2 root     root            0 Nov 14  2023 run
drwxr-xr-x   2 root     root            0 Nov 14  2023 sys
-rwxr-xr-x   1 root     root           16 Nov 14  2023 init
drwxr-xr-x   2 root     root            0 Nov 14  2023 modules
-rw-r--r--   1 root     root            5 Nov 14  2023 modules/jbd2.ko
-rw-r--r--   1 root     root            8 Nov 14  2023 modules/mbcache.ko
-rw-r--r--   1 root     root            6 Nov 14  2023 modules/crc16.ko
-rw-r--r--   1 root     root            5 Nov 14  2023 modules/ext4.ko
-rw-r--r--   1 root     root            6 Nov 14  2023 modules/sdhci.ko
-rw-r--r--   1 root     root            6 Nov 14  2023 modules/sdhci_pltfm.ko
-rw-r--r--   1 root     root            6 Nov 14  2023 modules/sdhci_iproc.ko
-rw-r--r--   1 root     root           75 Nov 14  2023 modules/list
`
	if diff := cmp.Diff(want, string(run(t, archive, "cpio", "-tv", "--quiet"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = "jbd2.ko\nmbcache.ko\ncrc16.ko\next4.ko\nsdhci.ko\nsdhci_pltfm.ko\nsdhci_iproc.ko\n"
	if diff := cmp.Diff(want, string(run(t, archive, "cpio", "-i", "--quiet", "--to-stdout", "modules/list"))); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if got := run(t, archive, "cpio", "-i", "--quiet", "--to-stdout", "modules/ext4.ko"); string(got) != "ext4!" {
		t.Errorf("ext4.ko holds %q", got)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  map[string]string
		modules []string
		want    string
	}{
		{"missing modules", nil, []string{"ext4", "xfs", "btrfs"},
			"module xfs: cannot find it below /usr/lib/modules/6.12.107+deb13-arm64\nmodule btrfs: cannot find it below /usr/lib/modules/6.12.107+deb13-arm64"},
		{"no depmod", map[string]string{"modules.dep": ""}, nil,
			"initramfs: cannot find out what modules depend on: stat /usr/lib/modules/6.12.107+deb13-arm64/modules.dep: file does not exist"},
		{"bad depmod", map[string]string{"modules.dep": "what?\n"}, nil,
			`/usr/lib/modules/6.12.107+deb13-arm64/modules.dep: cannot read the line "what?"`},
		{"lost module", map[string]string{"kernel/lib/crc16.ko.gz": ""}, []string{"ext4"},
			"initramfs: stat /usr/lib/modules/6.12.107+deb13-arm64/kernel/lib/crc16.ko.gz: file does not exist"},
		{"damaged module", map[string]string{"kernel/lib/crc16.ko.gz": "no gzip at all"}, []string{"ext4"},
			"initramfs: module kernel/lib/crc16.ko.gz: cannot read it: gzip: invalid header"},
		{"kernel without zstd", map[string]string{"/boot/config-" + kernel: "# CONFIG_RD_ZSTD is not set\n"}, nil,
			"kernel 6.12.107+deb13-arm64: cannot unpack the initramfs: it is built without CONFIG_RD_ZSTD"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Build(root(t, tt.change), kernel, nil, tt.modules, &bytes.Buffer{})
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
