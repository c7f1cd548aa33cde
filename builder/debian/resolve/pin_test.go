package resolve

import (
	"testing"

	"github.com/picube/picube-build/builder/debian/index"
)

// TestPins chooses among archives as apt_preferences(5) has it.
func TestPins(t *testing.T) {
	for _, tt := range []struct {
		name  string
		other index.Package
		want  string
	}{
		{"higher version", index.Package{Version: "2"}, "2"},
		{"lower version, no pin", index.Package{Version: "0.5"}, "1"},
		{"lower version, preferred", index.Package{Version: "0.5", Pin: 990}, "0.5"},
		{"higher version, put behind", index.Package{Version: "2", Pin: 100}, "1"},
		{"backports", index.Package{Version: "2", NotAutomatic: true}, "1"},
		{"backports, preferred", index.Package{Version: "2", NotAutomatic: true, Pin: 500}, "2"},
		{"never", index.Package{Version: "2", Pin: -1}, "1"},
	} {
		tt.other.Name, tt.other.Arch, tt.other.Archive = "linux", "arm64", "raspi"
		u, err := NewUniverse("arm64", []index.Package{{Name: "linux", Arch: "arm64", Version: "1", Archive: "debian"}, tt.other})
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseRequest("linux", "the test")
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Resolve([]Request{r}, Options{})
		if err != nil || len(got) != 1 || got[0].Version != tt.want {
			t.Errorf("%s: got %v, %v, want version %s", tt.name, got, err, tt.want)
		}
	}
}
