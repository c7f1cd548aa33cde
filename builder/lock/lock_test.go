package lock_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/builder/lock"
)

var update = flag.Bool("update", false, "write the golden files anew")

func digest(c string) string { return strings.Repeat(c, 64) }

func sample() *lock.Lock {
	return &lock.Lock{
		Created: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC),
		Suites: []lock.Suite{
			{Archive: "debian", Name: "trixie", Version: "13.7", Date: time.Date(2026, 9, 12, 7, 55, 41, 0, time.UTC), SHA256: digest("a")},
			{Archive: "debian-security", Name: "trixie-security", Date: time.Date(2026, 11, 20, 0, 12, 42, 0, time.UTC), SHA256: digest("b")},
		},
		Inputs: []lock.Input{
			{Name: "kubernetes/kubelet", Version: "v1.34.4", Source: "go", Path: "k8s.io/kubernetes/cmd/kubelet", Size: 1 << 40, SHA256: digest("c")},
		},
		Sets: []lock.Set{{
			Name: "node", Arch: "arm64", Requests: []string{"curl", "htop (>= 3)"},
			Packages: []lock.Package{
				{Name: "curl", Version: "8.14.1-2", Arch: "arm64", Archive: "debian", Path: "pool/main/c/curl/curl_8.14.1-2_arm64.deb", Size: 300000, SHA256: digest("d"), By: "picube.hcl"},
				{Name: "libc6", Version: "2.41-12", Arch: "arm64", Archive: "debian", Path: "pool/main/g/glibc/libc6_2.41-12_arm64.deb", Size: 2500000, SHA256: digest("e"), By: "curl"},
			},
		}},
	}
}

func TestGolden(t *testing.T) {
	const golden = "testdata/picube.lock.hcl"
	got := sample().Bytes()
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%s", got)
	}
	// The order in memory does not matter.
	l := sample()
	l.Suites[0], l.Suites[1] = l.Suites[1], l.Suites[0]
	p := l.Sets[0].Packages
	p[0], p[1] = p[1], p[0]
	r := l.Sets[0].Requests
	r[0], r[1] = r[1], r[0]
	if string(l.Bytes()) != string(want) {
		t.Errorf("in another order:\n%s", l.Bytes())
	}
}

func TestReadWrite(t *testing.T) {
	path := lock.Path(filepath.Join(t.TempDir(), "picube.hcl"))
	if filepath.Base(path) != "picube.lock.hcl" {
		t.Errorf("path is %s", path)
	}
	if _, err := lock.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := sample().Write(path); err != nil {
			t.Fatal(err)
		}
	}
	l, err := lock.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l, sample()) {
		t.Errorf("got %+v", l)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if l.Set("node", "arm64") == nil || l.Set("node", "amd64") != nil || l.Input("kubernetes/kubelet") == nil || l.Input("x") != nil {
		t.Error("wrong lookups")
	}
	if l.Date("debian", "trixie") != l.Suites[0].Date || !l.Date("debian", "sid").IsZero() {
		t.Error("wrong dates")
	}
	if err := sample().Write(filepath.Join(path, "x")); err == nil {
		t.Error("written below a file")
	}
}

func TestWhy(t *testing.T) {
	set := sample().Sets[0]
	if got := strings.Join(set.Why("libc6"), " "); got != "picube.hcl curl libc6" {
		t.Errorf("libc6 is there because of %s", got)
	}
	set.Packages[0].By = "libc6"
	if got := set.Why("libc6"); len(got) > 4 {
		t.Errorf("in a circle: %v", got)
	}
}

func TestBad(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"syntax", "suite \"debian\"", "suite debian\"", "Invalid multi-line string"},
		{"missing attribute", `created = "2026-11-22T01:02:03Z"`, "", `x.lock.hcl:1,1-1: Missing required argument; The argument "created" is required, but no definition was found.`},
		{"unknown attribute", "created", "creatd = 1\ncreated", `x.lock.hcl:4,1-7: Unsupported argument; An argument named "creatd" is not expected here.`},
		{"unknown block", "suite \"debian\" ", "suit \"debian\" ", `x.lock.hcl:6,1-5: Unsupported block type; Blocks of type "suit" are not expected here. Did you mean "suite"?`},
		{"format", "= 1\n", "= 2\n", `x.lock.hcl:3,1-12: Unknown format; This lock has format 2; this picube-build knows format 1.`},
		{"time", "2026-11-22T01:02:03Z", "yesterday", `x.lock.hcl:4,11-22: Wrong value; The value of created must be a time such as 2026-11-22T12:00:00Z.`},
		{"digest", digest("d"), "dd", `x.lock.hcl:37,15-19: Wrong value; The value of sha256 cannot be used: this is not a SHA-256: 64 hexadecimal digits in lower case.`},
		{"path", `"pool/main/c`, `"../main/c`, `x.lock.hcl:35,15-55: Wrong value; The value of path cannot be used: this is not a path below an archive's address.`},
		{"size", "300000", "-300000", `x.lock.hcl:36,15-22: Wrong value; The value of size must be a whole number, and not negative.`},
		{"fraction", "300000", "0.5", `x.lock.hcl:36,15-18: Wrong value; The value of size must be a whole number, and not negative.`},
		{"type", "300000", `"300000"`, `x.lock.hcl:36,15-23: Wrong value; The value of size must be a number.`},
		{"list", `"curl",`, "1,", `Wrong value; The value of requests must be a list of strings.`},
		{"variable", "300000", "var.size", `x.lock.hcl:36,15-18: Variables not allowed; Variables may not be used here.`},
		{"twice", "package \"libc6\"", "package \"curl\"", `x.lock.hcl:41,3-17: Duplicate block; There is more than one block package with these labels.`},
	}
	for _, test := range tests {
		text := string(sample().Bytes())
		if !strings.Contains(text, test.old) {
			t.Fatalf("%s: no %q in\n%s", test.name, test.old, text)
		}
		_, diags := lock.Parse("x.lock.hcl", []byte(strings.Replace(text, test.old, test.new, 1)))
		if got := diags.Error(); !strings.Contains(got, test.want) {
			t.Errorf("%s: got  %s\nwant %s", test.name, got, test.want)
		}
	}
	// All faults at once.
	text := strings.ReplaceAll(string(sample().Bytes()), digest("d"), "x")
	_, diags := lock.Parse("x.lock.hcl", []byte(strings.ReplaceAll(text, digest("e"), "y")))
	if len(diags) != 2 {
		t.Errorf("got %v", diags)
	}
}

func TestCheck(t *testing.T) {
	l := sample()
	same := func() lock.Wanted {
		return lock.Wanted{
			Suites: []lock.Suite{{Archive: "debian-security", Name: "trixie-security"}, {Archive: "debian", Name: "trixie"}},
			Sets:   []lock.Set{{Name: "node", Arch: "arm64", Requests: []string{"htop (>= 3)", "curl"}}},
			Inputs: []lock.Input{{Name: "kubernetes/kubelet", Version: "v1.34.4"}},
		}
	}
	tests := []struct {
		name string
		edit func(*lock.Wanted)
		want string
	}{
		{"same", func(*lock.Wanted) {}, ""},
		{"packages", func(w *lock.Wanted) { w.Sets[0].Requests = []string{"curl", "mc"} }, "package htop (>= 3) is gone, package mc is new"},
		{"sets", func(w *lock.Wanted) { w.Sets = append(w.Sets, lock.Set{Name: "node", Arch: "amd64"}) }, "package set node amd64 is new"},
		{"suite", func(w *lock.Wanted) { w.Suites[1].Name = "sid" }, "archive suite debian sid is new, archive suite debian trixie is gone"},
		{"input", func(w *lock.Wanted) { w.Inputs[0].Version = "v1.35.0" }, "input kubernetes/kubelet v1.34.4 is gone, input kubernetes/kubelet v1.35.0 is new"},
	}
	for _, test := range tests {
		w := same()
		test.edit(&w)
		want := ""
		if test.want != "" {
			want = "picube.lock.hcl: does not fit the blueprint: " + test.want + `: run "picube-build update picube.hcl"`
		}
		got := ""
		if err := l.Check("picube.lock.hcl", "picube.hcl", w); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got  %s\nwant %s", test.name, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	newer := sample()
	newer.Suites[0].Version, newer.Suites[0].SHA256 = "13.8", digest("1")
	newer.Suites[0].Date = newer.Suites[0].Date.AddDate(0, 2, 0)
	newer.Inputs = append(newer.Inputs, lock.Input{Name: "pause", Version: "3.10"})
	newer.Sets[0].Packages[0].SHA256 = digest("2")
	newer.Sets[0].Packages[1].Version = "2.41-13"
	newer.Sets = append(newer.Sets, lock.Set{Name: "other", Arch: "arm64", Packages: []lock.Package{{Name: "mc", Version: "4"}}})
	var got []string
	for _, c := range sample().Diff(newer) {
		got = append(got, c.String())
	}
	want := []string{
		"debian trixie 13.7 of 2026-09-12 07:55:41 -> 13.8 of 2026-11-12 07:55:41",
		"pause 3.10 (new)",
		"curl 8.14.1-2 (other content)",
		"libc6 2.41-12 -> 2.41-13",
		"mc 4 (new)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	back := newer.Diff(sample())
	if len(back) != len(want) || back[len(back)-1].String() != "mc 4 (gone)" {
		t.Errorf("back: %v", back)
	}
	if d := sample().Diff(sample()); d != nil {
		t.Errorf("same: %v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Bytes())
	f.Add((&lock.Lock{}).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, diags := lock.Parse("x.lock.hcl", b)
		if diags.HasErrors() {
			return
		}
		again, diags := lock.Parse("x.lock.hcl", l.Bytes())
		if diags.HasErrors() {
			t.Fatalf("%v in\n%s", diags, l.Bytes())
		}
		if string(again.Bytes()) != string(l.Bytes()) {
			t.Errorf("got\n%s\nthen\n%s", l.Bytes(), again.Bytes())
		}
	})
}
