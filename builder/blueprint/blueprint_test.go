package blueprint

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anne@laptop"

// secrets are set by testOptions and may stand in no output.
var secrets = []string{"hunter22", "$6$salt$digest"}

func testOptions() Options {
	return Options{
		Boards: []Board{pi("rpi3"), pi("rpi4"), pi("rpi5"), {Name: "virt", Arch: "arm64", Pins: 8}},
		Layers: layerBlocks,
		Env:    map[string]string{"PICUBE_VAR_count": "3", "PICUBE_VAR_wifi_psk": "overridden", "PICUBE_VAR_psk": "hunter22"},
		SSHKeys: func() ([]string, error) {
			return []string{testKey}, nil
		},
		CheckLine: func(line string, glyphs []string) (int, string) {
			return strings.Index(line, "{{.Bad}}"), map[bool]string{true: "there is no .Bad"}[strings.Contains(line, "{{.Bad}}")]
		},
	}
}

func pi(name string) Board {
	return Board{
		Name: name, Arch: "arm64", WiFi: true, Pins: 28, FanHeader: name == "rpi5",
		Taken: map[int]string{14: "the serial console", 15: "the serial console"},
		PWM:   map[int]int{12: 0, 13: 1, 18: 0, 19: 1}, I2C: map[int][2]int{0: {0, 1}, 1: {2, 3}},
	}
}

// testVars are values for variables that a file happens to declare.
func testVars(src []byte) (map[string]string, []VarFile) {
	vars := map[string]string{}
	if bytes.Contains(src, []byte(`"hash"`)) {
		vars["hash"] = "$6$salt$digest"
		return vars, []VarFile{{Path: "test.tfvars", Src: []byte("extra = [\"curl\"]\nwifi_psk = \"hunter22\"\n")}}
	}
	return vars, nil
}

func parseFile(t *testing.T, path string) (*Blueprint, hcl.Diagnostics) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o := testOptions()
	o.Vars, o.VarFiles = testVars(src)
	return Parse(filepath.ToSlash(path), src, o)
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files match %s: %v", pattern, err)
	}
	return paths
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(got, s) {
			t.Errorf("%s: a secret shows: %s", path, s)
		}
	}
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

func TestGood(t *testing.T) {
	for _, path := range files(t, "testdata/good/*.hcl") {
		bp, diags := parseFile(t, path)
		if diags.HasErrors() {
			t.Errorf("%s: %v", path, diags)
			continue
		}
		out, err := json.MarshalIndent(bp, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(path, ".hcl")+".json", string(out)+"\n")
	}
}

func TestBad(t *testing.T) {
	for _, path := range files(t, "testdata/bad/*.hcl") {
		bp, diags := parseFile(t, path)
		if bp != nil || !diags.HasErrors() {
			t.Errorf("%s: no error", path)
		}
		var out strings.Builder
		for _, d := range diags {
			kind := "error"
			if d.Severity == hcl.DiagWarning {
				kind = "warning"
			}
			fmt.Fprintf(&out, "%d:%d: %s: %s\n\t%s\n", d.Subject.Start.Line, d.Subject.Start.Column, kind, d.Summary,
				strings.ReplaceAll(d.Detail, "\n", "\n\t"))
		}
		golden(t, strings.TrimSuffix(path, ".hcl")+".txt", out.String())
	}
}

func TestTenMistakesTenDiagnostics(t *testing.T) {
	_, diags := parseFile(t, "testdata/bad/ten.hcl")
	if len(diags) != 10 {
		t.Errorf("%d diagnostics, want 10", len(diags))
	}
}

// TestLayersThatDoNotExist holds that no block is ignored in silence.
func TestLayersThatDoNotExist(t *testing.T) {
	for _, layer := range layerBlocks {
		label := map[string]string{"display": ` "console"`, "fan": ` "always"`}[layer]
		src := fmt.Sprintf("cube \"picube\" {\n  nodes = 1\n  %s%s {}\n}\n", layer, label)
		o := testOptions()
		o.Layers = nil
		_, diags := Parse("x.hcl", []byte(src), o)
		if len(diags) != 1 || diags[0].Summary != "Not supported yet" || diags[0].Subject.Start.Line != 3 {
			t.Errorf("%s: %v", layer, diags)
		}
	}
}

func TestAddingACubeRenamesNothing(t *testing.T) {
	one, diags := Parse("x.hcl", []byte(`cube "a" { nodes = 2 }`), testOptions())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	two, diags := Parse("x.hcl", []byte("cube \"a\" { nodes = 2 }\ncube \"b\" { nodes = 2 }"), testOptions())
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	a, _ := json.Marshal(one.Cubes[0])
	b, _ := json.Marshal(two.Cubes[0])
	if !bytes.Equal(a, b) {
		t.Errorf("the first cube was\n%s and is\n%s", a, b)
	}
}

func TestZoneFromDebconf(t *testing.T) {
	for cube, want := range map[string]string{
		"": "Etc/UTC",
		`debconf = { "tzdata/Areas" = "Europe", "tzdata/Zones/Europe" = "Berlin" }`:                                         "Europe/Berlin",
		`debconf = { "tzdata/Areas" = "Europe" }`:                                                                           "Etc/UTC",
		"debconf = { \"tzdata/Areas\" = \"Europe\", \"tzdata/Zones/Europe\" = \"Berlin\" }\ntime { zone = \"Asia/Tokyo\" }": "Asia/Tokyo",
	} {
		bp, diags := Parse("x.hcl", []byte("cube \"a\" {\nnodes = 1\n"+cube+"\n}"), testOptions())
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if got := bp.Cubes[0].Time.Zone; got != want {
			t.Errorf("%s: zone %s, want %s", cube, got, want)
		}
	}
}

func TestFailingKeys(t *testing.T) {
	o := testOptions()
	o.SSHKeys = func() ([]string, error) { return nil, errors.New("cannot read keys") }
	_, diags := Parse("x.hcl", []byte("cube \"a\" {\nnodes = 2\nuser \"anne\" { authorized_keys = ssh_keys() }\n}"), o)
	if len(diags) != 1 || !strings.Contains(diags[0].Detail, "cannot read keys") {
		t.Error(diags)
	}
}

func TestSecretNeverShows(t *testing.T) {
	w := WiFi{PSK: "hunter22"}
	out, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(out), fmt.Sprintf("%v %+v %#v %s %q", w, w, w, w.PSK, w.PSK)} {
		if strings.Contains(s, "hunter22") || !strings.Contains(s, Redacted) {
			t.Error(s)
		}
	}
}

func TestFormat(t *testing.T) {
	const src = "cube \"a\"   {\nnodes=5\n number = 007\n  display \"hd44780\" {\n address=0x27\nbus = 0\n  columns = 0X14\n}\n}\n"
	const want = `cube "a" {
  nodes  = 5
  number = 007
  display "hd44780" {
    address = 0x27
    bus     = 0
    columns = 0X14
  }
}
`
	got, diags := Format("x.hcl", []byte(src))
	if diags.HasErrors() || string(got) != want {
		t.Errorf("%v\n%s", diags, got)
	}
	again, _ := Format("x.hcl", got)
	if !bytes.Equal(again, got) {
		t.Errorf("formatted twice:\n%s", again)
	}
	if _, diags := Format("x.hcl", []byte("cube {")); !diags.HasErrors() {
		t.Error("half a block was formatted")
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.hcl", "testdata/bad/*.hcl"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			src, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		o := testOptions()
		bp, diags := Parse("testdata/good/x.hcl", src, o)
		if bp == nil && !diags.HasErrors() {
			t.Fatal("neither a blueprint nor an error")
		}
		if _, err := json.Marshal(bp); err != nil {
			t.Fatal(err)
		}
		if out, diags := Format("x.hcl", src); !diags.HasErrors() {
			if _, diags := Format("x.hcl", out); diags.HasErrors() {
				t.Fatalf("formatting broke it: %v\n%s", diags, out)
			}
		}
	})
}

func TestReferenceNamesEveryFunction(t *testing.T) {
	reference, err := os.ReadFile("../../blueprints/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range keys((&parser{}).functions()) {
		if !bytes.Contains(reference, []byte("`"+name+"`")) && !bytes.Contains(reference, []byte("`"+name+"(")) {
			t.Errorf("blueprints/README.md doesn't name the function %s", name)
		}
	}
}
