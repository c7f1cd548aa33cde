package plan

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/picube/picube-build/builder/blueprint"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testOptions() Options {
	pi := Board{Arch: "arm64", Packages: []string{"linux-image-arm64", "raspi-firmware"}}
	return Options{
		Boards: map[string]Board{
			"rpi2": {Arch: "armhf", Packages: []string{"linux-image-armmp"}},
			"rpi3": pi, "zero2w": pi, "rpi4": pi, "cm4": pi,
			"rpi5": {Arch: "arm64", Raspios: []string{"linux-image-rpi-2712", "raspi-firmware"}},
			"virt": {Arch: "arm64", Packages: []string{"linux-image-arm64"}},
		},
		Base:    []string{"systemd", "udev"},
		OnImage: []string{"systemd"},
		Layers: func(r *Root) []Request {
			list := []Request{{Name: "openssh-server", By: "layer ssh"}, {Name: "udev", By: "layer display"}}
			if r.Role != RoleNode {
				list = append(list, Request{Name: "containerd", By: "layer kubernetes"})
			}
			return list
		},
	}
}

func parse(t *testing.T, path string, src []byte) *blueprint.Blueprint {
	t.Helper()
	o := blueprint.Options{Layers: []string{"wifi", "kubernetes", "display", "fan", "time"}}
	for _, name := range []string{"rpi3", "zero2w", "rpi4", "cm4", "virt", "rpi2", "rpi5"} {
		o.Boards = append(o.Boards, blueprint.Board{Name: name, WiFi: name != "virt", Pins: 28, FanHeader: name == "rpi5", I2C: map[int][2]int{1: {2, 3}}})
	}
	bp, diags := blueprint.Parse(path, src, o)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", path, diags)
	}
	return bp
}

func newPlan(t *testing.T, path string, src []byte) *Plan {
	t.Helper()
	p, diags := New(parse(t, path, src), testOptions())
	if diags.HasErrors() {
		t.Fatalf("%s: %v", path, diags)
	}
	return p
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it):\n%s", path, got)
	}
}

// TestBlueprints plans every shipped example and the ones for this test.
func TestBlueprints(t *testing.T) {
	shipped, err := filepath.Glob("../../blueprints/*.hcl")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("testdata/*.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Concat(shipped, own) {
		if strings.HasSuffix(path, ".lock.hcl") {
			continue
		}
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := newPlan(t, path, src)
		var text strings.Builder
		if err := p.Print(&text); err != nil {
			t.Fatal(err)
		}
		out, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		stem := filepath.Join("testdata", p.Blueprint)
		golden(t, stem+".txt", text.String())
		golden(t, stem+".json", string(out)+"\n")
	}
}

func TestPrintLocked(t *testing.T) {
	p := newPlan(t, "x.hcl", []byte(`cube "picube" { nodes = 1 }`))
	p.Roots[0].Packages = []Package{
		{Name: "adduser", Version: "3.152", Size: 191_200, Why: "openssh-server"},
		{Name: "linux-image-arm64", Version: "6.12.48-1", Size: 1_500, Why: "board rpi3"},
		{Name: "udev", Version: "257.8-1~deb13u2", Size: 66_123_000, Why: "base"},
	}
	var text strings.Builder
	if err := p.Print(&text); err != nil {
		t.Fatal(err)
	}
	const want = `
  PACKAGE            VERSION          SIZE      BECAUSE OF
  adduser            3.152            191.2 kB  openssh-server
  linux-image-arm64  6.12.48-1        1.5 kB    board rpi3
  udev               257.8-1~deb13u2  66.1 MB   base
  3 packages, 66.3 MB
`
	if !strings.Contains(text.String(), want) {
		t.Errorf("%s", text.String())
	}
}

// TestRootsPart holds that nodes share a root only if they agree in all that
// lies on it; a password is hidden when printed, but it lies there.
func TestRootsPart(t *testing.T) {
	tests := []struct {
		what, cube string
		roots      int
	}{
		{"boards of one architecture", `node "b-2" { board = "virt" }`, 1},
		{"boards of two", `board = "rpi2"`, 2},
		{"addresses", `network { dhcp = false }`, 1},
		{"packages", `packages = ["htop"]`, 2},
		{"one node's packages", `node "b-2" { packages = ["htop"] }`, 2},
		{"users", `user "anne" {}`, 2},
		{"passwords", "user \"pirate\" {\nsudo = true\npassword_hash = \"$6$b$b\"\n}", 2},
		{"debconf", `debconf = { "a/b" = "c" }`, 2},
		{"base", `base "debian" { recommends = true }`, 2},
		{"versions of Kubernetes", "cluster = \"b\"\nkubernetes {\nversion = \"1.33.1\"\ncontrol_plane = [\"b-1\"]\n}", 3},
		{"zones", `time { zone = "Europe/Berlin" }`, 2},
	}
	for _, test := range tests {
		first := "cube \"a\" { nodes = 2 }\n"
		if test.what == "versions of Kubernetes" {
			first = "cube \"a\" {\nnodes = 1\nkubernetes {}\n}\n"
		}
		if test.what == "passwords" {
			first = "cube \"a\" {\nnodes = 2\nuser \"pirate\" {\nsudo = true\npassword_hash = \"$6$a$a\"\n}\n}\n"
		}
		p := newPlan(t, "x.hcl", []byte(first+"cube \"b\" {\nnodes = 2\n"+test.cube+"\n}\n"))
		if len(p.Roots) != test.roots {
			t.Errorf("%s: %d roots, want %d", test.what, len(p.Roots), test.roots)
		}
		for _, n := range p.Nodes() {
			if p.Root(n.Root) == nil {
				t.Errorf("%s: node %s has no root %q", test.what, n.Name, n.Root)
			}
		}
	}
}

func TestUnknownBoard(t *testing.T) {
	o := testOptions()
	delete(o.Boards, "rpi3")
	p, diags := New(parse(t, "x.hcl", []byte(`cube "a" { nodes = 1 }`)), o)
	if p != nil || len(diags) != 1 || diags[0].Severity != hcl.DiagError {
		t.Errorf("%v %v", p, diags)
	}
}
