package program

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestNodeIsReproducibleAndCached(t *testing.T) {
	src := Source{Dir: "../..", Env: os.Environ(), Cache: t.TempDir()}
	first, err := src.Node(t.Context(), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	src.Dir = "/" // from the cache: nothing to compile with
	if _, err := src.Node(t.Context(), "arm64"); err == nil {
		t.Error("no source, and no error")
	}
	src.Dir, src.Cache = "../..", t.TempDir()
	second, err := src.Node(t.Context(), "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("compiled twice, the program differs")
	}
}

func TestEmbeddedProgramIsChecked(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		data []byte
		want string
	}{
		"no program":  {[]byte("hello"), "cannot read the program"},
		"of the host": {self, "cannot use a program for"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			src := Source{Embedded: fstest.MapFS{"picube-node-armhf": {Data: test.data}}}
			_, err := src.Node(t.Context(), "armhf")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestUnknownArchitecture(t *testing.T) {
	if _, err := (Source{}).Node(t.Context(), "vax"); err == nil || !strings.Contains(err.Error(), "vax") {
		t.Errorf("error %v, want one that names the architecture", err)
	}
}
